"""Parquet files and datasets saved on disk, whole, cut and in unexpected shapes."""

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kitae.core.errors import KitaeError
from kitae.text import columnar
from kitae.text.format import Columns
from kitae.text.readers import read
from kitae.text.selection import Drop, Keep, Selection

BY_NAME = Columns("body", "n")


def table(start: int, stop: int) -> pa.Table:
    numbers = range(start, stop)
    return pa.table({"n": list(numbers), "body": [f"文書{i}。" if i % 7 else None for i in numbers], "tags": [["a"]] * len(numbers)})


def expected(start: int, stop: int) -> list[tuple[str, str | None]]:
    return [(f"文書{i}。" if i % 7 else "", str(i)) for i in range(start, stop)]


def pairs(path: Path, format: str, columns: Columns = BY_NAME) -> list[tuple[str, str | None]]:
    return [(found.content, found.key) for found in read(path, format, columns=columns)]


def save(folder: Path, parts: tuple[tuple[int, int], ...], **state: object) -> Path:
    """A folder as `datasets.Dataset.save_to_disk` writes it (datasets 2 and later): Arrow streams, state.json, dataset_info.json."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{len(parts):05d}.arrow" for i in range(len(parts))]
    for name, (start, stop) in zip(names, parts, strict=True):
        rows = table(start, stop)
        with (folder / name).open("wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
            stream.write_table(rows, max_chunksize=100)
    facts = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": "0",
        "_format_columns": None,
        "_split": "train",
        **state,
    }
    (folder / "state.json").write_text(json.dumps(facts), encoding="utf-8")
    (folder / "dataset_info.json").write_text(json.dumps({"features": {"body": {"dtype": "string", "_type": "Value"}}}), encoding="utf-8")
    return folder


def test_parquet_by_row_groups_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnar, "BATCH", 64)
    pq.write_table(table(0, 500), tmp_path / "b.parquet", row_group_size=150)
    assert pairs(tmp_path / "b.parquet", "parquet") == expected(0, 500)
    data = tmp_path / "data"
    data.mkdir()
    (data / "README.md").write_text("x", encoding="utf-8")
    pq.write_table(table(30, 40), data / "train-00001-of-00002.parquet", compression="zstd")
    pq.write_table(table(0, 30), data / "train-00000-of-00002.parquet")
    assert pairs(data, "parquet") == expected(0, 40)
    assert [key for _, key in pairs(data, "parquet", Columns("body"))] == [None] * 40


def test_parquet_kinds_of_text(tmp_path: Path) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        pq.write_table(pa.table({"text": pa.array(["一", "二", "一"], kind)}), tmp_path / "a.parquet")
        assert [text for text, _ in pairs(tmp_path / "a.parquet", "parquet", Columns())] == ["一", "二", "一"]
    for column, message in (("tags", "not text"), ("n", "not text"), ("text", 'no column "text"')):
        pq.write_table(table(0, 3), tmp_path / "a.parquet")
        with pytest.raises(KitaeError, match=message):
            pairs(tmp_path / "a.parquet", "parquet", Columns(column))


def test_few_bytes_that_stand_for_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text of 2 MB in each of 300 rows is kept once in the file: 600 MB, were all decoded together."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": ["a" * 2_000_000] * 300}), path, compression="zstd")
    assert path.stat().st_size < 2000
    before = pa.total_allocated_bytes()
    rows = read(path, "parquet")
    next(rows)
    assert pa.total_allocated_bytes() - before < 100 << 20
    assert sum(1 for _ in rows) == 299
    monkeypatch.setattr("kitae.text.streams.ALWAYS_ALLOWED_BYTES", 1 << 20)
    with pytest.raises(KitaeError, match="archive bomb"):
        next(read(path, "parquet"))


@pytest.mark.parametrize("format", ["parquet", "hf"])
def test_a_text_longer_than_any_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    for module in ("format", "columnar"):
        monkeypatch.setattr(f"kitae.text.{module}.LONGEST_LINE", 10)
    monkeypatch.setattr(columnar, "BATCH_BYTES", 60)
    texts = ["一二三", "あ" * 10, "い" * 11, None, "う" * 50, "四"]
    path = tmp_path / "a.parquet"
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        rows = pa.table({"text": pa.array(texts, kind)})
        if format == "hf":
            path = save(tmp_path / str(kind).partition("<")[0], ((0, 1),))
            with (path / "data-00000-of-00001.arrow").open("wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
                stream.write_table(rows)
        else:
            pq.write_table(rows, path)
        found = [(one.drop, one.content[:1]) for one in read(path, format)]
        assert found == [(None, "一"), (None, "あ"), ("oversized", "い"), (None, ""), ("oversized", "う"), (None, "四")], kind


@pytest.mark.parametrize("format", ["parquet", "hf"])
def test_filters_go_by_columns(tmp_path: Path, format: str) -> None:
    rows = pa.table(
        {
            "text": ["一", "二", "三", "四"],
            "day": pa.array(["2019-05-01", "2021-01-01", None, "2019-06-01"]).cast(pa.date32()),
            "p": [0.9, 0.9, 0.9, 0.1],
            "marks": [["a"], [], [], []],
            "n": [1, 2, 3, 4],
        }
    )
    path = tmp_path / "a.parquet"
    if format == "hf":
        path = save(tmp_path / "a", ((0, 1),))
        with (path / "data-00000-of-00001.arrow").open("wb") as file, pa.ipc.new_stream(file, rows.schema) as stream:
            stream.write_table(rows)
    else:
        pq.write_table(rows, path)
    names = {"date": "day", "language_probability": "p", "annotations": "marks"}
    keep = Keep(date=("2019", "2019"), language_probability=0.5)
    for selection, expected in (
        (Selection(keep=keep, names=names), [None, "date", "no date", "language probability"]),
        (Selection(drop=Drop(annotations=("a",)), names=names), ["annotation:a", None, None, None]),
    ):
        found = read(path, format, columns=Columns(filters=selection.columns))
        assert [selection.reason(one.metadata) for one in found] == expected
    with pytest.raises(KitaeError, match='no column "date"') as caught:
        list(read(path, format, columns=Columns(filters=Selection(keep=keep).columns)))
    assert "metadata = {" in caught.value.cure


def test_damaged_parquet_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(table(0, 5000), path)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], b"", b"<!DOCTYPE html><html></html>", whole[:4] + b"\xff" * 400 + whole[404:]):
        path.write_bytes(data)
        with pytest.raises(KitaeError, match="truncated or damaged") as caught:
            pairs(path, "parquet")
        assert caught.value.where == str(path)
    with pytest.raises(KitaeError, match="does not exist"):
        pairs(tmp_path / "no.parquet", "parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(KitaeError, match="holds no"):
        pairs(tmp_path / "empty", "parquet")


def test_saved_dataset(tmp_path: Path) -> None:
    folder = save(tmp_path / "one", ((0, 250), (250, 300)))
    assert pairs(folder, "hf") == expected(0, 300)
    (folder / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(KitaeError, match="missing") as caught:
        pairs(folder, "hf")
    assert "data-00001-of-00002.arrow" in caught.value.what


def test_saved_dataset_cut_anywhere(tmp_path: Path) -> None:
    folder = save(tmp_path / "one", ((0, 250),))
    file = folder / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    for length in (len(whole) - 8, len(whole) - 1, len(whole) // 2, 20, 0):  # the first one ends between two batches
        file.write_bytes(whole[:length])
        with pytest.raises(KitaeError, match="truncated") as caught:
            pairs(folder, "hf")
        assert caught.value.where == str(file)


def test_saved_dataset_of_several_splits(tmp_path: Path) -> None:
    root = tmp_path / "both"
    save(root / "train", ((0, 5),))
    save(root / "validation", ((5, 8),))
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "validation"]}), encoding="utf-8")
    assert pairs(root, "hf") == expected(0, 5)
    assert pairs(root / "validation", "hf") == expected(5, 8)
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["validation", "other"]}), encoding="utf-8")
    with pytest.raises(KitaeError, match="validation, other") as caught:
        pairs(root, "hf")
    assert "validation" in caught.value.cure
    (root / "dataset_dict.json").write_text(json.dumps({"splits": ["validation"]}), encoding="utf-8")
    assert pairs(root, "hf") == expected(5, 8)


def test_folders_that_are_no_saved_dataset(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="no saved dataset"):
        pairs(tmp_path, "hf")
    selected = save(tmp_path / "selected", ((0, 5),), _indices_data_files=[{"filename": "indices.arrow"}])
    with pytest.raises(KitaeError, match="selection of rows"):
        pairs(selected, "hf")
    outside = save(tmp_path / "outside", ((0, 5),), _data_files=[{"filename": "../one/data.arrow"}])
    with pytest.raises(KitaeError, match="does not list data files"):
        pairs(outside, "hf")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save(tmp_path / "one", ((0, 5),))
    pq.write_table(table(0, 3), tmp_path / "a.parquet")
    for name in [name for name in sys.modules if name.partition(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)  # as Python marks what cannot be imported
    for path, format in ((folder, "hf"), (tmp_path / "a.parquet", "parquet")):
        with pytest.raises(KitaeError, match="needs pyarrow") as caught:
            pairs(path, format)
        assert "kitae[parquet]" in caught.value.cure
