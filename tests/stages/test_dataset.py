"""The dataset stage: real sentences through MeCab to rows and back, equal bytes for any number of workers, honest counts."""

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.data import plan, tokenize
from kitae.data.plan import Plan
from kitae.data.rows import RowWriter
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


def test_other_processes_start_only_where_they_are_worth_it(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = corpus(tmp_path / "corpus", train=[documents(8, seed=1), documents(8, seed=2)], heldout=[])
    monkeypatch.setattr(tokenize, "worker_pool", None)  # calling it fails
    monkeypatch.setattr(tokenize, "cores", lambda: 2)
    make(tmp_path / "little", source, tokenizer, DatasetConfig(max_length=32))
    monkeypatch.setattr(tokenize, "LITTLE", 100)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        make(tmp_path / "much", source, tokenizer, DatasetConfig(max_length=32))


def test_a_source_without_heldout_text_has_no_folder(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(tmp_path / "corpus", train=[documents(5)], heldout=[[("news", SENTENCES[0])]])
    out = make(tmp_path / "dataset", source, tokenizer, DatasetConfig(max_length=32, workers=1))
    assert heldout_sources(out.path) == ("news",)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("where", ["join", "pack_sentences", "pack_documents"])
def test_an_attempt_that_ended_on_the_way_is_taken_up_to_the_same_bytes(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    source = corpus(tmp_path / "corpus", train=[documents(6, seed=seed) for seed in range(3)], heldout=[documents(4, seed=9)])
    config = DatasetConfig(max_length=32, workers=1, packing="documents" if where == "pack_documents" else "pairs")
    whole = make(tmp_path / "whole", source, tokenizer, config)
    module = tokenize if where == "join" else plan
    real, calls = getattr(module, where), []

    def stopping(*given: object, **named: object) -> None:
        real(*given, **named)
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt

    out = Out(path=tmp_path / "cut", work=tmp_path / "work")
    out.path.mkdir()
    inputs = Inputs(parents={"corpus": source, "tokenizer": tokenizer}, seed=1)
    with monkeypatch.context() as patch:
        patch.setattr(module, where, stopping)
        with pytest.raises(KeyboardInterrupt):
            dataset.run(config, inputs, out)
    with monkeypatch.context() as patch:
        patch.setattr(tokenize, "run_job", lambda job: pytest.fail("a finished shard is tokenized again"))
        dataset.run(config, inputs, out)
    assert tree(out.path) == tree(whole.path)
    assert out.counts == whole.counts


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from kitae.core.artifact import Inputs, Out, write_folder
from kitae.core.errors import KitaeError
from kitae.stages import dataset
from test_dataset import tree

folder, size = Path(sys.argv[2]), int(sys.argv[3])
inputs = Inputs(parents={"corpus": folder / "corpus", "tokenizer": Path(sys.argv[4])}, seed=1)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))  # beyond it a write is refused, as on a full disk
try:
    with write_folder(folder / "made") as part:
        dataset.run(dataset.DatasetConfig(max_length=32, workers=1), inputs, Out(path=part, work=folder / "work"))
    sys.exit("nothing was refused")
except KitaeError as error:
    assert "the disk is full" in str(error), error
assert not (folder / "made").exists()
"""


def test_on_a_full_disk_the_stage_says_so_and_goes_on_later(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(tmp_path / "corpus", train=[documents(12, seed=seed) for seed in range(3)])
    whole = make(tmp_path / "whole", source, tokenizer, DatasetConfig(max_length=32, workers=1))
    largest = max(path.stat().st_size for path in whole.path.rglob("*.bin"))
    arguments = [str(Path(__file__).parent), str(tmp_path), str(largest - 1), str(tokenizer)]
    done = subprocess.run([sys.executable, "-c", LIMITED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    out = Out(path=tmp_path / "again", work=tmp_path / "work")
    out.path.mkdir()
    dataset.run(DatasetConfig(max_length=32, workers=1), Inputs(parents={"corpus": source, "tokenizer": tokenizer}, seed=1), out)
    assert tree(out.path) == tree(whole.path)


def test_a_lost_token_is_an_error(tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def losing(shards: Shards, number: int, *, max_length: int, rows: RowWriter) -> None:
        ((starts, ends),) = shards.documents_of(number)
        rows.add(starts[1:], np.minimum(ends - starts, 30)[1:], np.ones(len(starts) - 1, dtype=np.int64))

    monkeypatch.setattr(plan, "pack_documents", losing)
    source = corpus(tmp_path / "corpus", train=[documents(8)])
    with pytest.raises(KitaeError, match="packing lost tokens"):
        make(tmp_path / "dataset", source, tokenizer, DatasetConfig(max_length=32, workers=1))


def test_weights_that_cannot_be_are_refused_before_anything_is_tokenized(
    tmp_path: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = corpus(tmp_path / "corpus", train=[documents(8)])
    facts = json.loads((source / "corpus.json").read_text())
    (source / "corpus.json").write_text(json.dumps(facts | {"weight": {"news": math.inf, "books": 1}}))
    monkeypatch.setattr(dataset, "tokenize", lambda *_, **__: pytest.fail("it began to work"))
    with pytest.raises(KitaeError, match="weight of {'news': inf}"):
        make(tmp_path / "dataset", source, tokenizer, DatasetConfig(workers=1))


def test_an_empty_corpus_is_refused(tmp_path: Path, tokenizer: Path) -> None:
    source = corpus(tmp_path / "corpus", train=[], heldout=[])
    with pytest.raises(KitaeError, match="no text to train on"):
        make(tmp_path / "dataset", source, tokenizer, DatasetConfig(workers=1))
