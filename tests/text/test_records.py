"""What becomes of every document, in pieces on disk: the same as in one piece in memory, and memory that stays bounded."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kitae.core.errors import KitaeError
from kitae.text import parts, records
from kitae.text.dedup import first_occurrences
from kitae.text.parts import PartReader, PartWriter
from kitae.text.records import DUPLICATE, HELDOUT, TRAIN, all_rows, count, first_rows, mark_duplicates, mark_held_out, merge, shard_ends


@dataclasses.dataclass
class Document:
    part: int
    reason: int
    digest: bytes
    line: bytes


def planted(number: int, parts: int, kinds: int = 10**9) -> list[Document]:
    """Documents dealt to parts in blocks, with few different texts if `kinds` is small; every ninth is dropped."""
    generator = np.random.default_rng(1)
    digests = [generator.bytes(16) for _ in range(min(kinds, number))]
    return [
        Document(i // 7 % parts, (i % 9 == 4) * (1 + i % 2), digests[int(generator.integers(len(digests)))], b"line %d " % i * (i % 5))
        for i in range(number)
    ]


def write(folder: Path, documents: list[Document], parts: int) -> None:
    for part in range(parts):
        with PartWriter(folder, part) as writer:
            writer.facts = {"reasons": ["", "x", "y"], "examples": {}, "items": []}
            for number, one in enumerate(documents):
                if one.part == part:
                    line = {} if one.reason else {"line": one.line, "digest": one.digest}
                    writer.add(number, number % 50, reason=one.reason, **line)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces so small that every border is crossed many times."""
    monkeypatch.setattr(records, "CHUNK", 50)
    monkeypatch.setattr(records, "BUCKET", 64)
    monkeypatch.setattr(parts, "FRAME_BYTES", 100)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("number", [1, 999, 2000])
def test_pieces_give_what_the_whole_gives(tmp_path: Path, number: int) -> None:
    documents = planted(number, 3, kinds=400)
    write(tmp_path, documents, 3)
    readers = [PartReader(tmp_path, part) for part in range(3)]
    codes = np.array([0, 1, 2], np.uint16)
    assert merge([(part, reader, codes) for part, reader in enumerate(readers)], tmp_path) == number
    rows = all_rows(tmp_path)
    whole = rows.read(0, number)
    assert whole["number"].tolist() == list(range(number))
    assert whole["reason"].tolist() == [one.reason for one in documents]
    kept = [i for i, one in enumerate(documents) if not one.reason]
    assert [readers[whole[i]["part"]].line(int(whole[i]["line"])) for i in kept] == [documents[i].line for i in kept]
    assert [readers[whole[i]["part"]].line(int(whole[i]["line"])) for i in kept[::-3]] == [documents[i].line for i in kept[::-3]]

    fates = records.new_fates(tmp_path, rows)
    mark_duplicates(rows, fates, tmp_path)
    first = first_occurrences(whole["high"][kept], whole["low"][kept])
    assert (fates[kept] == np.where(first, TRAIN, DUPLICATE)).all()
    left = np.array(kept)[first]
    chosen = len(left) // 4
    mark_held_out(rows, fates, chosen, seed=7)
    order = np.argsort(records._mixed(whole[left], 7), kind="stable")
    assert sorted(np.flatnonzero(fates == HELDOUT).tolist()) == sorted(left[order[:chosen]].tolist())

    counts = count(rows, fates)
    assert sum(documents for documents, _ in counts.values()) == number
    assert counts.get((HELDOUT, 0), (0, 0)) == (chosen, sum(int(i) % 50 for i in left[order[:chosen]]))
    assert first_rows(fates, DUPLICATE, 3) == np.flatnonzero(fates == DUPLICATE)[:3].tolist()
    assert not list(tmp_path.glob("bucket-*"))


@pytest.mark.usefixtures("small")
def test_shards_end_where_a_writer_would_end_them(tmp_path: Path) -> None:
    documents = planted(700, 2)
    write(tmp_path, documents, 2)
    merge([(part, PartReader(tmp_path, part), np.array([0, 1, 2], np.uint16)) for part in range(2)], tmp_path)
    fates = records.new_fates(tmp_path, all_rows(tmp_path))
    fates[::3] = HELDOUT
    for most in (1, 64, 10**6):
        ends, size, last = [], 0, -1
        for row in np.flatnonzero(fates == HELDOUT).tolist():
            size, last = size + (0 if documents[row].reason else len(documents[row].line)) + 1, row
            if size >= most:
                ends.append(row + 1)
                size = 0
        assert shard_ends(tmp_path, HELDOUT, most) == ends + [last + 1] * (size > 0)


def test_a_part_is_complete_or_absent(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="cut"), PartWriter(tmp_path, 0) as writer:
        writer.add(0, 3, line=b"abc")
        raise RuntimeError("cut")
    assert list(tmp_path.iterdir()) == []


def test_two_parts_with_one_document_are_noticed(tmp_path: Path) -> None:
    for rank in (0, 1):
        with PartWriter(tmp_path, rank) as writer:
            writer.add(5, 3, line=b"abc")
    for every in (True, False):
        with pytest.raises(KitaeError, match="the same document"):
            merge([(rank, PartReader(tmp_path, rank), np.zeros(1, np.uint16)) for rank in (0, 1)], tmp_path, every=every)


def test_a_document_in_no_part_is_noticed(tmp_path: Path) -> None:
    with PartWriter(tmp_path, 0) as writer:
        for number in (0, 1, 3):
            writer.add(number, 3, line=b"abc")
    parts = [(0, PartReader(tmp_path, 0), np.zeros(1, np.uint16))]
    with pytest.raises(KitaeError, match="none holds one, near number 3"):
        merge(parts, tmp_path)
    assert merge(parts, tmp_path, every=False) == 3, "numbers of a format that divides have gaps"
