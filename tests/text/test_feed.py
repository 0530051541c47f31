"""One reading for all parts: each gets its own documents in order, nothing is taken for the end that is none, and the rest waits."""

import functools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from datatrove.data import Document
from datatrove.pipeline.base import PipelineStep

from kitae.core.errors import KitaeError
from kitae.text import feed, steps
from kitae.text.build import Built, Holdout, build
from kitae.text.corpus import read_shard
from kitae.text.executors import Engine
from kitae.text.feed import Group, Row, ask, serve
from kitae.text.format import Format, Found
from kitae.text.readers import READERS
from kitae.text.steps import Clean, Source, all_documents


def shout(text: str) -> str:
    return text.upper()


def rows(count: int, *, fail: int | None = None) -> Iterator[Row]:
    for number in range(count):
        if number == fail:
            raise KitaeError("this line is bad", cure="mend it", where=f"line {number}")
        yield number, Found(functools.partial(shout, f"text {number}"), f"key {number}", None, {"big": "x" * 99}, 2, "byte 7"), None


def group(count: int, parts: int, *, fail: int | None = None) -> Group:
    return Group(functools.partial(rows, count, fail=fail), lambda number: number // 3 % parts, {part: 10 + part for part in range(parts)})


def test_every_part_gets_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PIECE", 300)
    monkeypatch.setattr(feed, "AHEAD", 1000)
    with serve([group(500, 3)]) as address, ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda rank: list(ask(address, rank)), (10, 11, 12)))
    for part, mine in enumerate(found):
        assert [number for number, _, _ in mine] == [number for number in range(500) if number // 3 % 3 == part]
        assert all(one.content == f"TEXT {number}" and one.key == f"key {number}" for number, one, _ in mine)
        assert (mine[0][1].replaced, mine[0][1].bad) == (2, "byte 7")
        assert not mine[0][1].metadata, "what else the format knew stays at home"


def test_what_is_read_ahead_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PIECE", 300)
    monkeypatch.setattr(feed, "AHEAD", 3000)
    made = group(5000, 2)
    with serve([made]) as address, ThreadPoolExecutor(2) as pool:
        mine = ask(address, 10)
        next(mine)
        assert made._ahead <= 3000 + 300 * 2
        other = pool.submit(lambda: len(list(ask(address, 11))))
        assert len(list(mine)) + 1 + other.result() == 5000


def test_an_error_of_the_reading_is_the_one_that_is_raised() -> None:
    with pytest.raises(KitaeError, match="this line is bad") as caught, serve([group(50, 2, fail=30)]) as address:
        list(ask(address, 10))
    assert caught.value.where == "line 30"


def test_a_feed_that_is_stopped_never_looks_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PIECE", 100)
    before = threading.active_count()
    with serve([group(5000, 1)]) as address:
        mine = ask(address, 10)
        next(mine)
    with pytest.raises(EOFError):
        list(mine)
    assert threading.active_count() <= before + 1, "no thread goes on reading"


class Fail(PipelineStep):
    """Fails in the second part, after some documents."""

    def run(self, data: Iterator[Document], rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        for place, document in enumerate(data):
            if rank == 1 and place == 5:
                raise KitaeError("the second part is bad", cure="mend it")
            yield document


def make(folder: Path, path: Path, workers: int, *extra: PipelineStep) -> Built:
    clean = Clean(normalization="nfkc", language="ja", min_characters=5)
    return build(
        [Source(name="a", path=path, format="text")], [clean, *extra], holdout=Holdout(documents=3), seed=1,
        engine=Engine(tasks=5, workers=workers), work=folder / "work", out=folder / "out",
    )  # fmt: skip


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(f"これは{i}番目の文書です。" * (1 + i % 7) for i in range(1500)), encoding="utf-8")
    return path


def test_the_source_is_read_once_for_all_that_work_together(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.build.PARALLEL_BYTES", 1)
    made = [make(tmp_path / str(workers), source, workers) for workers in (1, 2)]
    assert made[0] == made[1]
    read = []

    def counted(*arguments: object, **options: object) -> Iterator[Found]:
        read.append(options["report"])
        return original(*arguments, **options)  # type: ignore[arg-type]

    original = steps.read
    monkeypatch.setattr(steps, "read", counted)
    make(tmp_path / "counted", source, 2)
    assert read == [True, False, False], "five parts, two at a time: three readings, all of them here; faults are told once"
    texts = [[d.text for s in sorted((tmp_path / n / "out/train").iterdir()) for d in read_shard(s)] for n in ("1", "counted")]
    assert texts[0] == texts[1]


def test_a_part_that_was_cut_off_is_made_again(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other part's process is in the middle of its documents when the second fails: it must not pass for complete."""
    monkeypatch.setattr("kitae.text.build.PARALLEL_BYTES", 1)
    monkeypatch.setattr(feed, "PIECE", 200)
    with pytest.raises(KitaeError, match="the second part is bad"):
        make(tmp_path / "1", source, 2, Fail())
    documents = [320, 320, 320, 284, 256]  # 1,500 in blocks of 64, dealt to 5 parts
    for records in (tmp_path / "1/work/parts").glob("*/*.records"):
        assert records.stat().st_size // 34 == documents[int(records.stem)], "whole or not at all"


def closure(stream: object, columns: object) -> Iterator[Found]:
    for number in range(4):
        yield Found(lambda number=number: "" if number == 2 else f"これは{number}番目の文書です。", None)


def test_texts_that_cannot_travel_are_made_here(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "closure", Format(binary=closure))
    monkeypatch.setattr("kitae.text.steps.BLOCK", 1)
    monkeypatch.setattr("kitae.text.build.PARALLEL_BYTES", 1)
    clean = Clean(normalization="nfkc", language="ja", min_characters=5)
    built = [
        build(
            [Source(name="a", path=source, format="closure", max_characters=most)], [clean], holdout=Holdout(), seed=1,
            engine=Engine(tasks=2, workers=workers), work=tmp_path / f"{workers}work", out=tmp_path / f"{workers}out",
        )
        for workers, most in ((2, None), (1, 1000))
    ]  # fmt: skip
    assert built[0] == built[1]
    assert built[0].dropped["a"].keys() == {"stub"}, "a text made late that comes out empty, with a limit as without"
    assert built[0].train["a"].documents == 3


def test_max_characters_makes_a_late_text_once(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def late(stream: object, columns: object) -> Iterator[Found]:
        for number in range(4):
            yield Found(lambda number=number: calls.append(number) or "これは文書です。", None)  # type: ignore[func-returns-value]

    monkeypatch.setitem(READERS, "late", Format(binary=late))
    found = list(all_documents(Source(name="a", path=source, format="late", max_characters=20), report=True))
    assert [one.content for _, one, _ in found] == ["これは文書です。"] * 3
    assert calls == [0, 1, 2]
