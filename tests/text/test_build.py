"""The two passes: independent of workers, every document accounted for; workers that die are named."""

import hashlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kitae.core.errors import KitaeError
from kitae.text.build import Built, Holdout, build
from kitae.text.corpus import Corpus, ShardWriter, read_shard
from kitae.text.engine import LocalExecutor
from kitae.text.executors import Engine
from kitae.text.format import Columns
from kitae.text.readers import read
from kitae.text.steps import Clean, Source


class Kill(PipelineStep):
    """Kills its own process in the second task."""

    def run(self, data: object, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield from ()


class Fail(PipelineStep):
    """Raises an error of ours in the second task."""

    def run(self, data: object, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        if rank == 1:
            raise KitaeError("the second part is bad", cure="mend it", where="part.txt, line 3")
        yield from ()


def write_source(folder: Path, name: str, documents: list[str]) -> Source:
    path = folder / f"{name}.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return Source(name=name, path=path, format="text")


def make(sources: list[Source], folder: Path, *, holdout: Holdout = Holdout(), workers: int = 1, seed: int = 1) -> Built:  # noqa: B008
    steps = [Clean(normalization="nfkc", language="ja", min_characters=5)]
    return build(sources, steps, holdout=holdout, seed=seed, engine=Engine(workers=workers), work=folder / "work", out=folder / "out")


def hashes(folder: Path) -> dict[str, str]:
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in sorted(folder.rglob("*.zst"))}


def texts(folder: Path, split: str) -> list[str]:
    return [document.text for shard in sorted((folder / "out" / split).iterdir()) for document in read_shard(shard)]


def test_workers_never_show(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = [found.text for _, found in zip(range(400), read(shared / "ja_plain" / "kyoto_wiki.txt.xz", "text"))]
    monkeypatch.setattr("kitae.text.build.PARALLEL_BYTES", 1000)
    sources = [write_source(tmp_path, "a", real[:250] + real[:9]), write_source(tmp_path, "b", real[200:])]
    built = {n: make(sources, tmp_path / str(n), holdout=Holdout(documents=20), workers=n) for n in (1, 2)}
    assert hashes(tmp_path / "1" / "out") == hashes(tmp_path / "2" / "out") != {}
    assert built[1] == built[2]
    assert built[1].dropped["a"]["duplicate"].documents == 9
    assert built[1].dropped["b"]["duplicate"].documents == 50
    assert [tally.documents for tally in built[1].heldout.values()] == [20, 20]
    assert built[1].train["a"].documents == 250 - 20
    assert len(built[1].dropped["b"]["duplicate"].examples) == 3


def test_holdout_is_a_choice_by_content(tmp_path: Path) -> None:
    documents = [f"これは{i}番目の文書です。" for i in range(100)]
    first = make([write_source(tmp_path, "a", documents)], tmp_path / "1", holdout=Holdout(share=0.1))
    assert first.heldout["a"].documents == 10
    make([write_source(tmp_path, "a", documents[::-1])], tmp_path / "2", holdout=Holdout(share=0.1))
    assert sorted(texts(tmp_path / "1", "heldout")) == sorted(texts(tmp_path / "2", "heldout"))
    make([write_source(tmp_path, "a", documents)], tmp_path / "3", holdout=Holdout(share=0.1), seed=2)
    assert sorted(texts(tmp_path / "1", "heldout")) != sorted(texts(tmp_path / "3", "heldout"))
    assert not set(texts(tmp_path / "1", "heldout")) & set(texts(tmp_path / "1", "train"))
    assert texts(tmp_path / "1", "train") == [text for text in documents if text in set(texts(tmp_path / "1", "train"))]


def test_holdout_larger_than_the_source(tmp_path: Path) -> None:
    source = write_source(tmp_path, "a", ["一つ目の文書。", "二つ目の文書。"])
    with pytest.raises(KitaeError, match="only 2 of source a"):
        make([source], tmp_path / "1", holdout=Holdout(documents=2))


def test_everything_dropped_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=r"every document was dropped \(short\)"):
        make([write_source(tmp_path, "a", ["一。", "二。"])], tmp_path / "1")


def test_errors_of_readers_come_through_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.build.PARALLEL_BYTES", 1)
    bad = tmp_path / "bad.txt"
    bad.write_bytes("日本語の文です。".encode("cp932"))
    for workers in (1, 2):
        with pytest.raises(KitaeError, match="CP932"):
            make([Source(name="bad", path=bad, format="text")], tmp_path / str(workers), workers=workers)


def test_dead_worker_is_named(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=r"died while these parts were in work: .*second") as caught:
        LocalExecutor([Kill()], labels=["first", "second"], workers=2, folder=tmp_path).run()
    assert "memory" in caught.value.cure
    with pytest.raises(KitaeError, match="the second part is bad") as caught:
        LocalExecutor([Fail()], labels=["first", "second"], workers=2, folder=tmp_path / "f").run()
    assert caught.value.where == "part.txt, line 3"


class Odd(Exception):
    """As some libraries' errors: what it is called with is not what it keeps."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"odd {one + two}")


class Raise(PipelineStep):
    """Raises in every task."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def run(self, data: object, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        raise MemoryError if self.kind == "memory" else Odd(1, 2)
        yield


@pytest.mark.parametrize("workers", [1, 2])
def test_errors_that_are_no_death(tmp_path: Path, workers: int) -> None:
    with pytest.raises(KitaeError, match="the memory did not suffice for (first|second)"):
        LocalExecutor([Raise("memory")], labels=["first", "second"], workers=workers, folder=tmp_path / "m").run()
    with pytest.raises(RuntimeError, match=r"(first|second): (.|\n)*Odd: odd 3"):
        LocalExecutor([Raise("odd")], labels=["first", "second"], workers=workers, folder=tmp_path / "o").run()


def test_shards_beyond_five_digits_stay_in_order(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "train", first=99_998, most=1) as writer:
        for name in "abcd":
            writer.write(json.dumps({"id": name, "source": "s", "text": name}).encode())
    (tmp_path / "corpus.json").write_text('{"sources": ["s"]}')
    assert [one.id for one in Corpus(tmp_path).documents("train")] == list("abcd")


def test_engine_leaves_no_trace_and_no_noise(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before = dict(os.environ)
    make([write_source(tmp_path, "a", ["これは文書です。"])], tmp_path / "1")
    assert dict(os.environ) == before
    assert capfd.readouterr() == ("", "")


def test_shards_rotate_and_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.corpus.SHARD_BYTES", 1000)
    rows = [{"id": f"s/{i}", "source": "s", "text": f"文{i}。\u2028\n次。"} for i in range(100)]
    with ShardWriter(tmp_path / "train") as writer:
        for row in rows:
            writer.write(json.dumps(row, ensure_ascii=False).encode())
    (tmp_path / "corpus.json").write_text('{"sources": ["s"], "language": "ja", "characters": {"train": 7, "heldout": 0}}')
    corpus = Corpus(tmp_path)
    assert len(corpus.shards("train")) > 3
    assert [(one.id, one.text, one.metadata["source"]) for one in corpus.documents("train")] == [
        (row["id"], row["text"], "s") for row in rows
    ]
    assert (corpus.sources, corpus.language, corpus.characters("train"), list(corpus.documents("heldout"))) == (("s",), "ja", 7, [])
    shard = corpus.shards("train")[0]
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(KitaeError, match="truncated"):
        list(read_shard(shard))
    with pytest.raises(KitaeError, match="not a corpus"):
        Corpus(tmp_path / "train")


def test_odd_characters_of_json_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "文の中に\ud800\x00\x1b[31m不正な文字。", "id": "x\ud800\n\x1by"}, {"text": "\ud800\x1b\u200b", "id": "z"}]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    built = make([Source(name="a", path=path, format="jsonl", columns=Columns("text", "id"))], tmp_path / "1")
    (found,) = read_shard(tmp_path / "1" / "out" / "train" / "00000.jsonl.zst")
    assert (found.id, found.metadata["source"], found.text) == ("a/x y", "a", "文の中に[31m不正な文字。")
    assert built.dropped["a"]["empty"].examples == [("a/z", "")]
