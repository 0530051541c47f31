"""The dataset stage: real sentences through MeCab to rows and back, equal bytes for any number of workers, honest counts."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.data.plan import Plan
from kitae.data.sampler import DatasetFacts, Heldout, Sampler, heldout_sources
from kitae.data.shards import Shards
from kitae.stages import dataset
from kitae.stages.dataset import DatasetConfig
from kitae.tensor.batch import Batch
from kitae.text.corpus import ShardWriter
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

SENTENCES = (
    "東京の天気は晴れのち曇りでした。",
    "昨日、友人と図書館で本を読みました。",
    "為替相場は一ドル百五十円台で推移している。",
    "決算の発表を受けて株価が上がった。",
    "この寺は平安時代に建てられたと伝えられる。",
    "新しい駅の開業で通勤が楽になった。",
)
Rows = list[tuple[str, str]]


def documents(count: int, seed: int = 1) -> Rows:
    """(source, text) with one to forty sentences each."""
    random = np.random.default_rng(seed)
    return [
        ("news" if number % 3 else "books", "\n".join(random.choice(SENTENCES, random.integers(1, 40)).tolist())) for number in range(count)
    ]


def corpus(folder: Path, *, train: Sequence[Rows], heldout: Sequence[Rows] = ()) -> Path:
    """A corpus artifact with these shards."""
    characters = {}
    for split, shards in (("train", train), ("heldout", heldout)):
        with ShardWriter(folder / split) as writer:
            for shard in shards:
                for number, (source, text) in enumerate(shard):
                    line = json.dumps({"id": f"{source}/{number}", "source": source, "text": text}, ensure_ascii=False)
                    writer.write(line.encode())
                writer.close()
        characters[split] = sum(len(text) for shard in shards for _, text in shard)
    facts = {"sources": ["books", "news"], "language": "ja", "characters": characters}
    (folder / "corpus.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    characters = sorted(set("".join(SENTENCES)))
    words = ["東京", "天気", "友人", "図書館", "株価", "時代"]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{character}" for character in characters), *words]
    Tokenizer.new(tokens, SegmenterSpec(kind="mecab", dictionary="ipadic")).save(folder)
    return folder


def make(folder: Path, corpus_folder: Path, tokenizer: Path, config: DatasetConfig) -> Out:
    folder.mkdir()
    out = Out(path=folder)
    dataset.run(config, Inputs(parents={"corpus": corpus_folder, "tokenizer": tokenizer}, seed=1), out)
    return out


def ids_of(loaded: Tokenizer, text: str) -> list[int]:
    return [token for sentence in text.split("\n") for word in loaded.words(sentence) for token in word]


def test_shards_hold_the_corpus_and_rows_hold_the_shards(tmp_path: Path, tokenizer: Path) -> None:
    parts = [documents(40), documents(30, seed=2)]
    held = [documents(9, seed=3)]
    source = corpus(tmp_path / "corpus", train=parts, heldout=held)
    out = make(tmp_path / "dataset", source, tokenizer, DatasetConfig(max_length=64, workers=1))
    loaded = Tokenizer.load(tokenizer)
    shards = Shards(out.path / "train")
    expected = [ids_of(loaded, text) for part in parts for _, text in part]
    ends = [int(end) for shard in range(len(shards)) for end in shards.documents(shard)]
    assert [shards.tokens(start, end).tolist() for start, end in zip([0, *ends[:-1]], ends, strict=True)] == expected
    sentences = sum(text.count("\n") + 1 for part in parts for _, text in part)
    assert sum(len(shards.sentences(shard)) for shard in range(len(shards))) == sentences

    counts = out.counts
    by_source = counts["sources"]
    assert counts["tokens"] == sum(map(len, expected))
    assert counts["tokens_lost"] == 0
    assert counts["documents"] == 70
    assert counts["fill"] >= 0.97, "a handful of rows; large corpora reach 0.99"
    assert isinstance(by_source, dict)
    for name in ("books", "news"):
        own = [len(ids_of(loaded, text)) for part in parts for origin, text in part if origin == name]
        assert by_source[name]["tokens"] == sum(own)
        assert by_source[name]["documents"] == len(own)
        assert by_source[name]["tokens_lost"] == 0
    for column in ("documents", "tokens", "pieces", "rows"):
        assert sum(source[column] for source in by_source.values()) == counts[column]
    facts = DatasetFacts.read(out.path)
    assert (facts.max_length, facts.sources, facts.tokenizer) == (64, ("books", "news"), loaded.fingerprint)
    assert Tokenizer.load(out.path / "tokenizer").tokens == loaded.tokens

    sampler = Sampler(out.path, rows_per_step=1, rows_per_micro_batch=1, seed=1)
    assert sampler.rows_per_epoch == counts["rows"] == Plan(out.path / "train/plan").num_rows
    assert sorted(token for step in range(sampler.rows_per_epoch) for token in contents(sampler.micro(step, 0))) == sorted(
        token for ids in expected for token in ids
    )
    assert heldout_sources(out.path) == ("books", "news")
    for name in heldout_sources(out.path):
        real = sum(int((batch.words_BL >= 0).sum()) for batch in Heldout(out.path, name, 4))
        assert real == sum(len(ids_of(loaded, text)) for origin, text in held[0] if origin == name)


def contents(batch: Batch) -> list[int]:
    """All ids of a batch but special tokens."""
    return [token for row, start, end in batch.layout.spans() for token in batch.ids_BL[row, start + 1 : end - 1].tolist()]


def test_words_of_the_segmenter_reach_the_batch(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(tmp_path / "corpus", train=[[("news", SENTENCES[1])]])
    out = make(tmp_path / "dataset", source, tokenizer, DatasetConfig(max_length=64, workers=1))
    batch = Sampler(out.path, rows_per_step=1, rows_per_micro_batch=1, seed=1).micro(0, 0)
    words = Tokenizer.load(tokenizer).words(SENTENCES[1])
    expected = [number for number, word in enumerate(words) for _ in word]
    assert max(map(len, words)) > 1, "the sentence has a word of several tokens"
    assert batch.words_BL[batch.words_BL >= 0].tolist() == expected


def test_the_number_of_workers_changes_no_byte(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(
        tmp_path / "corpus",
        train=[documents(8, seed=seed) for seed in range(4)],
        heldout=[documents(3, seed=9), documents(2, seed=8)],
    )
    made = [make(tmp_path / f"by-{workers}", source, tokenizer, DatasetConfig(max_length=32, workers=workers)) for workers in (1, 2)]
    files = [sorted(path.relative_to(out.path) for path in out.path.rglob("*") if path.is_file()) for out in made]
    assert files[0] == files[1]
    for file in files[0]:
        assert (made[0].path / file).read_bytes() == (made[1].path / file).read_bytes(), file
    assert made[0].counts == made[1].counts


def test_a_source_without_heldout_text_has_no_folder(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(tmp_path / "corpus", train=[documents(5)], heldout=[[("news", SENTENCES[0])]])
    out = make(tmp_path / "dataset", source, tokenizer, DatasetConfig(max_length=32, workers=1))
    assert heldout_sources(out.path) == ("news",)


def test_an_empty_corpus_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(tmp_path / "corpus", train=[], heldout=[])
    with pytest.raises(KitaeError, match="no text to train on"):
        make(tmp_path / "dataset", source, tokenizer, DatasetConfig(workers=1))
