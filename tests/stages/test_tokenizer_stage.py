"""The tokenizer stage: training, taking one, its counts, and its refusals."""

import json
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from kitae.core.artifact import Inputs, Out, content_hash
from kitae.core.errors import KitaeError
from kitae.stages import tokenizer as stage
from kitae.stages.tokenizer import TokenizerConfig
from kitae.text.corpus import ShardWriter
from kitae.tokenization.tokenizer import Tokenizer

TEXTS = [
    "東京都の人口は約千四百万人である。\n大阪府の人口は約八百八十万人である。",
    "銀行は金利を上げた。\n株価は下がった。\n銀行の株価も下がった。",
    "猫は庭で眠る。\n犬は庭を走る。\n鳥は空を飛ぶ。",
]


def corpus(folder: Path, texts: list[str], heldout: list[str]) -> Path:
    for split, documents in (("train", texts), ("heldout", heldout)):
        for number, text in enumerate(documents):  # one shard each, so that two workers share them
            with ShardWriter(folder / split / str(number)) as writer:
                writer.write(json.dumps({"id": str(number), "source": "s", "text": text}).encode())
            (folder / split / str(number) / "00000.jsonl.zst").rename(folder / split / f"{number:05d}.jsonl.zst")
            (folder / split / str(number)).rmdir()
    folder.mkdir(parents=True, exist_ok=True)
    characters = {"train": sum(map(len, texts)), "heldout": sum(map(len, heldout))}
    (folder / "corpus.json").write_text(json.dumps({"sources": ["s"], "language": "ja", "characters": characters}))
    return folder


def run(config: TokenizerConfig, parents: dict[str, Path], path: Path) -> Out:
    path.mkdir(parents=True)
    out = Out(path=path)
    stage.run(config, Inputs(parents=parents, seed=1), out)
    return out


def test_it_trains_and_says_what_it_got(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = corpus(tmp_path / "corpus", TEXTS, ["猫は東京を走る。", "鬱金香"])
    with caplog.at_level(logging.WARNING):
        out = run(TokenizerConfig(vocab_size=3000, workers=1), {"corpus": folder}, tmp_path / "one")
    tokenizer = Tokenizer.load(tmp_path / "one")
    assert out.counts["vocab_size_asked"] == 3000
    assert out.counts["vocab_size"] == tokenizer.vocab_size < 3000
    assert f"{tokenizer.vocab_size} of the 3000 tokens" in caplog.text
    assert out.counts["fingerprint"] == tokenizer.fingerprint
    assert out.counts["measured_on"] == "heldout"
    assert 0 < float(str(out.counts["unknown_words_share"])) < 0.5
    assert float(str(out.counts["tokens_per_character"])) > 0
    json.dumps(out.counts)
    run(TokenizerConfig(vocab_size=3000, workers=2), {"corpus": folder}, tmp_path / "two")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")


def test_it_takes_one(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", TEXTS, [])
    run(TokenizerConfig(vocab_size=200, segmenter="basic"), {"corpus": folder}, tmp_path / "one")
    config = TokenizerConfig.model_validate({"from": str(tmp_path / "one")})
    assert stage.sources(config) == (str(tmp_path / "one"),)
    assert config.semantic()["from"] == str(tmp_path / "one")
    out = run(config, {"corpus": folder}, tmp_path / "two")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    assert out.counts["measured_on"] == "train"
    assert "measured_on" not in run(config, {}, tmp_path / "three").counts


def test_it_takes_a_vocab_txt_with_words_said_beside(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ncafe\n", encoding="utf-8")
    settings = {"from": str(tmp_path / "vocab.txt"), "lower_case": True, "strip_accents": True}
    run(TokenizerConfig.model_validate(settings), {}, tmp_path / "one")
    assert Tokenizer.load(tmp_path / "one").words("Café") == [(5,)]


def test_it_trains_on_sudachis_words(tmp_path: Path) -> None:
    config = TokenizerConfig.model_validate(
        {"segmenter": "sudachi", "split_mode": "C", "vocab_size": 400, "min_frequency": 1, "workers": 2}
    )
    run(config, {"corpus": corpus(tmp_path / "corpus", [*TEXTS, "国会議事堂前駅に行く。国会議事堂前駅で降りる。"], [])}, tmp_path / "one")
    tokenizer = Tokenizer.load(tmp_path / "one")
    assert tokenizer.definition.spec.split_mode == "C"
    assert [tokenizer.tokens[number] for number in tokenizer.encode("国会議事堂前駅").ids] == ["国会議事堂前駅"]


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({"algorithm": "unigram", "vocab_size": 80}, {"spiece.model"}),
        ({"algorithm": "unigram", "vocab_size": 80, "candidates": "dictionary"}, {"spiece.model"}),
        ({"algorithm": "unigram", "vocab_size": 80, "segmenter": "none", "user_tokens": ["猫は"]}, {"spiece.model", "tokenizer.json"}),
        ({"algorithm": "unigram", "vocab_size": 80, "segmenter": "whitespace"}, {"spiece.model", "tokenizer.json"}),
        ({"algorithm": "bpe", "vocab_size": 80, "segmenter": "none"}, {"spiece.model", "tokenizer.json"}),
        ({"algorithm": "byte-bpe", "vocab_size": 300, "segmenter": "none"}, {"tokenizer.json"}),
        ({"algorithm": "character", "min_frequency": 1, "unused": "[unused{}]"}, {"vocab.txt"}),
        ({"algorithm": "character", "min_frequency": 1, "segmenter": "none"}, {"tokenizer.json"}),
        ({"algorithm": "characters-of-words", "min_frequency": 1, "word_bytes": 20}, {"vocab.txt"}),
    ],
)
def test_every_algorithm_from_corpus_to_folder(settings: dict[str, object], files: set[str], tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus", TEXTS, ["猫は東京を走る。"])
    config = TokenizerConfig.model_validate({"num_unused": 2, **settings})
    out = run(config.model_copy(update={"workers": 1}), {"corpus": folder}, tmp_path / "one")
    run(config.model_copy(update={"workers": 2}), {"corpus": folder}, tmp_path / "two")
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "two")
    written = {path.name for path in (tmp_path / "one").iterdir()} - {"kitae_tokenizer.json", "tokenizer_config.json"}
    assert written == files
    tokenizer = Tokenizer.load(tmp_path / "one")
    assert tokenizer.fingerprint == out.counts["fingerprint"]
    assert tokenizer.definition.algorithm == config.algorithm
    assert len(tokenizer.tokens) <= config.vocab_size
    assert [token for token in tokenizer.tokens if "unused" in token] == [config.unused.format(i) for i in range(2)]
    assert set(config.user_tokens) <= set(tokenizer.tokens)
    ids = tokenizer.encode("猫は庭で眠る。").ids.tolist()
    assert 0 < len(ids) <= 21
    assert tokenizer.special.unk not in ids
    taken = run(TokenizerConfig.model_validate({"from": str(tmp_path / "one")}), {"corpus": folder}, tmp_path / "three")
    assert taken.counts["fingerprint"] == out.counts["fingerprint"]
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "three")


def test_files_of_words_and_characters(tmp_path: Path) -> None:
    (tmp_path / "alphabet").write_text("凸 凹\n", encoding="utf-8")
    (tmp_path / "words").write_text("\ufeff株価\r\n銀行\r\nＡＴＭ\n", encoding="utf-8")
    (tmp_path / "wide").write_text("\ufeffＡＢ xX ｶﾞ", encoding="utf-8")
    folder = corpus(tmp_path / "corpus", TEXTS, [])
    for algorithm in ("wordpiece", "unigram", "character"):
        config = TokenizerConfig.model_validate(
            {
                "algorithm": algorithm,
                "vocab_size": 150 if algorithm != "unigram" else 90,
                "alphabet": str(tmp_path / "alphabet"),
                "workers": 1,
            }
        )
        assert stage.sources(config) == (str(tmp_path / "alphabet"),)
        run(config, {"corpus": folder}, tmp_path / algorithm)
        assert {"凸", "凹"} <= set(Tokenizer.load(tmp_path / algorithm).tokens)
    config = TokenizerConfig.model_validate({"algorithm": "unigram", "vocab_size": 80, "candidates": str(tmp_path / "words"), "workers": 1})
    run(config, {"corpus": folder}, tmp_path / "candidates")
    assert "\u2581株価" in Tokenizer.load(tmp_path / "candidates").tokens
    assert TokenizerConfig(alphabet=str(tmp_path / "wide")).options.alphabet == "ABXxガ"
    with pytest.raises(KitaeError, match="cannot be read as text"):
        run(config.model_copy(update={"candidates": "/nowhere"}), {"corpus": folder}, tmp_path / "absent")


def test_settings_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    for settings, says in (
        ({"from": "x", "vocab_size": 3000}, "remove vocab_size"),
        ({"from": "x", "dictionary": "unidic-lite"}, "say the segmenter too"),
        ({"from": "x", "segmenter": "whitespace", "strip_accents": True}, "basic"),
        ({"segmenter": "mecab", "strip_accents": True}, "basic"),
        ({"algorithm": "unigramm"}, "wordpiece"),
        ({"algorithm": "unigram", "limit_alphabet": 9}, "limit_alphabet means nothing for unigram"),
        ({"character_coverage": 1}, "character_coverage means nothing for wordpiece"),
        ({"algorithm": "unigram", "segmenter": "basic"}, 'unigram takes segmenter = "mecab"'),
        ({"algorithm": "byte-bpe"}, 'set segmenter = "none"'),
        ({"algorithm": "unigram", "split_by_whitespace": False}, "needs raw text"),
        ({"algorithm": "unigram", "segmenter": "none", "candidates": "x"}, "candidates are words"),
        ({"algorithm": "unigram", "segmenter": "whitespace", "candidates": "dictionary"}, "give a file of words"),
        ({"algorithm": "characters-of-words", "word_bytes": 3}, "word_bytes"),
        *(({"unused": unused}, "unused") for unused in ("x", "{}", "{}{}", "{x}{}", "<{}> <{}>", "a {}")),
        ({"user_tokens": ["ＡＢＣ"]}, "the text has 'ABC' in its place"),
        ({"user_tokens": ["Qwertz"], "lower_case": True}, "the text has 'qwertz' in its place"),
        ({"user_tokens": ["a b"]}, "white space inside"),
        ({"segmenter": "mecav"}, "mecab"),
        ({"segmenter": "basic", "dictionary": "ipadic"}, "dictionary means nothing to segmenter = "),
        ({"split_mode": "C"}, "only to sudachi: remove it"),
        ({"segmenter": "sudachi", "program": "jumanpp"}, "only to jumanpp: remove it"),
        ({"vocab_sise": 3}, "vocab_sise"),
    ):
        with pytest.raises(ValidationError, match=says):
            TokenizerConfig.model_validate(settings)
    assert "workers" not in TokenizerConfig(workers=3).semantic()
    assert stage.sources(TokenizerConfig(dictionary="unidic-lite")) == ()
    words = TokenizerConfig.model_validate({"from": "x", "segmenter": "mecab", "dictionary": "/y"})
    assert stage.sources(words) == ("x", "/y")
    assert stage.sources(TokenizerConfig(dictionary="/some/folder")) == ("/some/folder",)
    assert stage.sources(TokenizerConfig(dictionary="/some/file.dic", segmenter="sudachi")) == ("/some/file.dic",)
    assert stage.sources(TokenizerConfig(dictionary="full", segmenter="sudachi")) == ()
    assert stage.sources(TokenizerConfig(segmenter="basic")) == stage.sources(TokenizerConfig(segmenter="jumanpp")) == ()
    with pytest.raises(KitaeError, match="no words"):
        run(TokenizerConfig(), {"corpus": corpus(tmp_path / "empty", [], [])}, tmp_path / "none")
    with pytest.raises(KitaeError, match="too small"):
        run(TokenizerConfig(vocab_size=40), {"corpus": corpus(tmp_path / "corpus", TEXTS, [])}, tmp_path / "small")
