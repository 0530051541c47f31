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


def test_it_trains_on_sudachis_words(tmp_path: Path) -> None:
    config = TokenizerConfig.model_validate(
        {"segmenter": "sudachi", "split_mode": "C", "vocab_size": 400, "min_frequency": 1, "workers": 2}
    )
    run(config, {"corpus": corpus(tmp_path / "corpus", [*TEXTS, "国会議事堂前駅に行く。国会議事堂前駅で降りる。"], [])}, tmp_path / "one")
    tokenizer = Tokenizer.load(tmp_path / "one")
    assert tokenizer.definition.spec.split_mode == "C"
    assert [tokenizer.tokens[number] for number in tokenizer.encode("国会議事堂前駅").ids] == ["国会議事堂前駅"]


def test_settings_that_fit_nothing_are_refused(tmp_path: Path) -> None:
    for settings, says in (
        ({"from": "x", "vocab_size": 3000}, "remove vocab_size"),
        ({"segmenter": "mecab", "strip_accents": True}, "basic"),
        ({"algorithm": "unigram"}, "wordpiece"),
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
    assert stage.sources(TokenizerConfig(dictionary="/some/folder")) == ("/some/folder",)
    assert stage.sources(TokenizerConfig(dictionary="/some/file.dic", segmenter="sudachi")) == ("/some/file.dic",)
    assert stage.sources(TokenizerConfig(dictionary="full", segmenter="sudachi")) == ()
    assert stage.sources(TokenizerConfig(segmenter="basic")) == stage.sources(TokenizerConfig(segmenter="jumanpp")) == ()
    with pytest.raises(KitaeError, match="no words"):
        run(TokenizerConfig(), {"corpus": corpus(tmp_path / "empty", [], [])}, tmp_path / "none")
    with pytest.raises(KitaeError, match="too small"):
        run(TokenizerConfig(vocab_size=40), {"corpus": corpus(tmp_path / "corpus", TEXTS, [])}, tmp_path / "small")
