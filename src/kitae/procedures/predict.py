"""Labels and probabilities for new texts, from a fine-tuned model folder, in bounded memory.

Texts are batched by length within chunks, so that almost nothing is padding; what is predicted for a text depends on that text only.
"""

import csv
import itertools
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from kitae.core.errors import KitaeError
from kitae.procedures.classifier import ClassifierPredict, Use, device_named, load
from kitae.report.tables import neutral
from kitae.tasks.batches import encode
from kitae.tasks.classification import Classification
from kitae.text.streams import open_text
from kitae.text.tables import FORMATS, format_of, need_text, read_rows
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)
CHUNK = 2048  # texts held at a time


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest label of a text, and the probability of every label."""

    label: str
    probabilities: Mapping[str, float]


class Predictor:
    """A fine-tuned classifier and its tokenizer, ready to predict; in fp32."""

    def __init__(self, module: Classification, tokenizer: Tokenizer, use: Use, *, chunk: int = CHUNK) -> None:
        self.labels, self.columns = module.labels, use.columns
        self._module, self._tokenizer = module, tokenizer
        self._max_length, self._chunk = use.max_length, chunk
        self._predict = ClassifierPredict(pad=tokenizer.special.pad)

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", chunk: int = CHUNK) -> "Predictor":
        """From a trial, its model folder, or a Hugging Face folder with a sequence classification head.

        Raises KitaeError when the folder is damaged or holds no classifier.
        """
        module, tokenizer, use = load(folder)
        return cls(module.to(device_named(device)), tokenizer, use, chunk=chunk)

    def predict(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """One prediction per text, in the order of the texts; an unbounded stream is fine."""
        stream = iter(texts)
        while chunk := list(itertools.islice(stream, self._chunk)):
            encoded = [encode(self._tokenizer, text, max_length=self._max_length) for text in chunk]
            for row in self._predict(self._module, encoded):
                shares = dict(zip(self.labels, row.tolist(), strict=True))
                yield Prediction(label=self.labels[int(row.argmax())], probabilities=shares)


def predict_file(folder: Path, source: Path, target: Path, *, columns: Sequence[str] = (), id: str = "id", device: str = "auto") -> int:
    """Predict a file with the model of a folder, as it is read; returns how many texts. The target appears when it is complete.

    source: CSV, TSV or JSONL with `columns` (several are joined by a new line; by default those of the task), or plain text with
    one text a line; compressed or not. target: .csv, .tsv or .jsonl with the line number, the id where there is one, the label
    and every probability.
    Lines without text are left out. Raises KitaeError for a missing column or an unknown target format.
    """
    kind = target.suffix[1:].lower()
    if kind not in FORMATS:
        raise KitaeError(f"the target {target.name} has no known format", cure="name it .csv, .tsv or .jsonl", where=str(target))
    if not target.parent.is_dir():
        raise KitaeError(f"the folder {target.parent} does not exist", cure="make it, or write elsewhere", where=str(target))
    if target.resolve() == source.resolve():
        raise KitaeError("the target is the source", cure="give the predictions a file of their own", where=str(target))
    predictor = Predictor.load(folder, device=device)
    items = _texts(source, columns or predictor.columns, id)
    first, second = itertools.tee(items)
    count = 0
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write = _writer(file, kind, predictor.labels)
            for item, prediction in zip(first, predictor.predict(item.text for item in second), strict=True):
                write(item, prediction)
                count += 1
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return count


@dataclass(frozen=True, kw_only=True)
class _Item:
    line: int
    id: str | None
    text: str


def _texts(source: Path, columns: Sequence[str], id: str) -> Iterator[_Item]:
    empty = 0
    for item in _table(source, columns, id) if _is_table(source) else _lines(source):
        if item.text:
            yield item
        else:
            empty += 1
    if empty:
        log.warning("%s: %d lines without text were left out", source.name, empty)


def _lines(source: Path) -> Iterator[_Item]:
    for number, line in enumerate(open_text(source), start=1):
        yield _Item(line=number, id=None, text=line.strip())


def _table(source: Path, columns: Sequence[str], id: str) -> Iterator[_Item]:
    for number, row in read_rows(source):
        parts = [need_text(row, column, f"{source}, line {number}").strip() for column in columns]
        yield _Item(line=number, id=row.get(id), text="\n".join(part for part in parts if part))


def _is_table(source: Path) -> bool:
    try:
        format_of(source)
    except KitaeError:
        return False
    return True


def _writer(file: TextIO, kind: str, labels: Sequence[str]) -> Callable[[_Item, Prediction], None]:
    if kind == "jsonl":

        def write_json(item: _Item, found: Prediction) -> None:
            known = {"line": item.line} | ({} if item.id is None else {"id": item.id})
            shares = {label: round(share, 6) for label, share in found.probabilities.items()}
            file.write(json.dumps({**known, "label": found.label, "probabilities": shares}, ensure_ascii=False) + "\n")

        return write_json
    rows = csv.writer(file, delimiter="," if kind == "csv" else "\t", lineterminator="\n")
    rows.writerow(["line", "id", "label", *(neutral(f"p({label})") for label in labels)])

    def write_row(item: _Item, found: Prediction) -> None:
        shares = [f"{share:.6f}" for share in found.probabilities.values()]
        rows.writerow([item.line, neutral(item.id or ""), neutral(found.label), *shares])

    return write_row
