"""Parquet files and Hugging Face datasets saved on disk. Both need pyarrow, an extra that is imported when it is used."""

import contextlib
import importlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from kitae.core.errors import KitaeError
from kitae.text.archives import files_of
from kitae.text.format import SHOWN_CHARACTERS, Columns, Found, bounded
from kitae.text.streams import LONGEST_LINE, most_unpacked

BATCH = 1024  # rows decoded at a time
BATCH_BYTES = 1 << 26  # what they may take if each is as long as all that is stored: one long text may stand in many rows
FEWEST, DENSE = 16, 20  # rows at a time of a row group that unpacks to no more than so many times its size, as text does
END_MARK = b"\xff\xff\xff\xff\0\0\0\0"  # of Arrow's stream format; without it a stream was cut between two batches
STATE, DICTIONARY, DEFAULT = "state.json", "dataset_dict.json", "train"


def read_parquet(path: Path, columns: Columns) -> Iterator[Found]:
    """The rows of a Parquet file, or of all those of a folder; one row group of the wanted columns in memory at a time."""
    parquet = _pyarrow("pyarrow.parquet", path)
    files = [file for file in files_of(path) if file.suffix == ".parquet"] if path.is_dir() else [path]
    if not files:
        raise KitaeError("the folder holds no .parquet file", cure="correct the path or the format", where=str(path))
    for file in files:
        if not file.is_file():
            raise KitaeError(f"{file.name} does not exist", cure="correct the path, or bring the file there", where=str(file))
        with _explained(file):
            yield from _table(parquet, file, columns)


def _table(parquet: ModuleType, file: Path, columns: Columns) -> Iterator[Found]:
    with parquet.ParquetFile(file, buffer_size=1 << 20) as table:
        wanted = _wanted(table.schema_arrow, columns, file)
        for group in range(table.num_row_groups):
            rows = _rows_at_once(table.metadata.row_group(group), wanted, group, file)
            for batch in table.iter_batches(batch_size=rows, row_groups=[group], columns=wanted):
                yield from _rows(batch, columns)


def _rows_at_once(group: Any, wanted: list[str], number: int, file: Path) -> int:
    """How many rows of a group to decode together. Raises KitaeError when the group is a bomb."""
    chunks = [group.column(place) for place in range(group.num_columns)]
    chunks = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in wanted]
    stored, size = (sum(getattr(chunk, f"total_{kind}_size") for chunk in chunks) for kind in ("compressed", "uncompressed"))
    if size > most_unpacked(stored):
        what = f"{stored:,} bytes of row group {number} unpack to {size:,}: this looks like an archive bomb"
        raise KitaeError(what, cure="write the file anew in smaller row groups if it is right", where=str(file))
    return max(FEWEST if size <= DENSE * stored else 1, min(BATCH, BATCH_BYTES // max(1, size)))


def read_hf(path: Path, columns: Columns) -> Iterator[Found]:
    """A folder made by `save_to_disk`. Of several splits "train" is read, or the one whose folder the path names."""
    ipc = _pyarrow("pyarrow.ipc", path)
    folder = _split(path)
    for name in _data_files(folder):
        file = folder / name
        if not file.is_file():
            raise KitaeError(f"{name} is missing, although {STATE} names it", cure="bring a complete copy of the folder", where=str(folder))
        _need_end(file)
        with _explained(file), file.open("rb") as opened, ipc.open_stream(opened) as batches:
            _wanted(batches.schema, columns, file)
            for batch in batches:
                for start in range(0, batch.num_rows, BATCH):
                    yield from _rows(batch.slice(start, BATCH), columns)


def _pyarrow(module: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise KitaeError("this format needs pyarrow", cure="pip install 'kitae[parquet]'", where=str(path)) from error


@contextlib.contextmanager
def _explained(file: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError) as error:  # ArrowInvalid is a ValueError, pyarrow's input errors are OSErrors
        what = f"the file is truncated or damaged: {str(error).splitlines()[0]}"
        raise KitaeError(what, cure="bring a complete copy of the file", where=str(file)) from error


def _wanted(schema: Any, columns: Columns, file: Path) -> list[str]:
    names = list(dict.fromkeys([columns.text, *([columns.id] if columns.id is not None else []), *columns.filters]))
    for name in names:
        if name not in schema.names:
            cure = f"the columns are {', '.join(schema.names)}"
            if name in columns.filters:
                cure += '; a filter\'s column is named by metadata = { date = "...", ... }'
            raise KitaeError(f'there is no column "{name}"', cure=cure, where=str(file))
    kind = str(schema.field(columns.text).type)
    if not _is_text(kind):
        raise KitaeError(f'the column "{columns.text}" holds {kind}, not text', cure="name a column of text", where=str(file))
    return names


def _is_text(kind: str) -> bool:
    return "string" in kind and not kind.startswith(("list", "large_list", "struct", "map"))


def _rows(batch: Any, columns: Columns) -> Iterator[Found]:
    texts = _values(batch.column(columns.text))
    keys = itertools.repeat(None, batch.num_rows) if columns.id is None else _values(batch.column(columns.id))
    told = [zip(itertools.repeat(name), _values(batch.column(name))) for name in columns.filters]
    for text, key, *others in zip(texts, keys, *told):
        metadata = {name: _plain(value) for name, value in others if value is not None}
        yield bounded("" if text is None else str(text), None if key is None else str(key), metadata)


def _values(column: Any) -> Iterable[object]:
    """The values in Python; one at a time where they may be long or stand for many rows."""
    if str(column.type).startswith("dictionary") or column.nbytes > BATCH_BYTES:
        return (_value(scalar) for scalar in column)
    return column.to_pylist()


def _value(scalar: Any) -> object:
    """A value; of a text that is longer than any document no more than shows that it is."""
    scalar = scalar.value if str(scalar.type).startswith("dictionary") else scalar
    data = scalar.as_buffer() if scalar is not None and scalar.is_valid and "string" in str(scalar.type) else None
    if data is not None and data.size > 4 * LONGEST_LINE:
        return data.slice(0, 4 * (LONGEST_LINE + 1)).to_pybytes().decode("utf-8", "ignore")
    return None if scalar is None else scalar.as_py()


def _plain(value: object) -> str | float | tuple[str, ...]:
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    return value if isinstance(value, float) else str(value)[:SHOWN_CHARACTERS]


def _split(path: Path) -> Path:
    if not (path / DICTIONARY).is_file():
        return path
    names = _json(path / DICTIONARY).get("splits")
    splits = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    chosen = DEFAULT if DEFAULT in splits else splits[0] if len(splits) == 1 else None
    if chosen is None:
        cure = f'end the path with the split, for example "{path / splits[0] if splits else path}"'
        raise KitaeError(f"the splits are {', '.join(splits) or 'none'}, and none is train", cure=cure, where=str(path))
    return path / chosen


def _data_files(folder: Path) -> list[str]:
    if not (folder / STATE).is_file():
        cure = 'name the folder that save_to_disk wrote, or use format = "parquet" for a folder of Parquet files'
        raise KitaeError(f"this is no saved dataset: {STATE} is missing", cure=cure, where=str(folder))
    state = _json(folder / STATE)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        what = "the dataset is a selection of rows whose list is kept apart"
        raise KitaeError(what, cure="call flatten_indices() before save_to_disk()", where=str(folder))
    entries = state.get("_data_files")
    names = [entry.get("filename") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    found = [name for name in names if isinstance(name, str) and Path(name).name == name]
    if not found or len(found) != len(names):
        raise KitaeError(f"{STATE} does not list data files of this folder", cure="bring a complete copy", where=str(folder))
    return found


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise KitaeError(f"{path.name} is not JSON", cure="bring a complete copy of the folder", where=str(path)) from error
    return value if isinstance(value, dict) else {}


def _need_end(file: Path) -> None:
    with file.open("rb") as opened:
        opened.seek(max(0, file.stat().st_size - len(END_MARK)))
        if opened.read() != END_MARK:
            raise KitaeError("the file is truncated: its end mark is missing", cure="bring a complete copy of the file", where=str(file))
