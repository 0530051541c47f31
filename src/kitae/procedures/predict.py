"""New texts through a model folder, in bounded memory: labels of a fine-tuned classifier, masks filled by a masked
language model, or the scores of an Electric.

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
from typing import Annotated, Literal, Protocol, TextIO

from pydantic import Field

from kitae.core.artifact import newest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.models.folder import read_parts
from kitae.procedures.fill import Filler
from kitae.procedures.finetuned import Finetuned, Use, load
from kitae.procedures.fitting import device_named, read_tokenizer
from kitae.procedures.score import Scorer, is_electric
from kitae.report.tables import neutral
from kitae.tasks.examples import Example
from kitae.text.streams import open_text
from kitae.text.tables import FORMATS, format_of, need_text, read_rows

log = logging.getLogger(__name__)
CHUNK = 2048  # texts held at a time


class PredictConfig(Config):
    """Settings of `kitae predict`, given by `--set`."""

    candidates: Annotated[int, Field(ge=1)] = 5
    """Masked language models: how many tokens to give for every mask, the likeliest first."""
    columns: tuple[str, ...] = ()
    """Columns of a table that hold the text; several are joined by a new line. Default: those of the classifier's task, else "text"."""
    id: str = "id"
    """The column of a table that names a text; it is copied."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; "auto" takes CUDA when there is one."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The likeliest label of a text, and the probability of every label."""

    label: str
    probabilities: Mapping[str, float]

    def rows(self) -> Iterator[list[str]]:
        """One row of a table."""
        yield [neutral(self.label), *(f"{share:.6f}" for share in self.probabilities.values())]

    def json(self) -> dict[str, object]:
        """The same as JSON."""
        return {"label": self.label, "probabilities": {label: round(share, 6) for label, share in self.probabilities.items()}}


class Predictor:
    """A fine-tuned classifier and its tokenizer, ready to predict; in fp32. Compare `Filler`, which fills masks."""

    wanted = ""

    def __init__(self, model: Finetuned, use: Use, *, chunk: int = CHUNK) -> None:
        self.labels, self.columns = model.labels, use.columns
        self.header = ("label", *(neutral(f"p({label})") for label in self.labels))
        self._model, self._chunk = model, chunk

    @classmethod
    def load(cls, folder: Path, *, device: str = "auto", chunk: int = CHUNK) -> "Predictor":
        """From a trial, its model folder, or a Hugging Face folder with a sequence classification head.

        Raises KitaeError when the folder is damaged or holds no classifier.
        """
        model, use = load(folder)
        model.learner.to(device_named(device))
        return cls(model, use, chunk=chunk)

    def predict(self, texts: Iterable[str]) -> Iterator[Prediction]:
        """One prediction per text, in the order of the texts; an unbounded stream is fine."""
        stream = iter(texts)
        while chunk := list(itertools.islice(stream, self._chunk)):
            examples = [Example(id="", text=text, gold=None, where="") for text in chunk]
            for found in self._model.predict(examples):
                shares = found.more["probabilities"]
                assert isinstance(shares, list)
                yield Prediction(label=str(found.value), probabilities=dict(zip(self.labels, shares, strict=True)))


class Answer(Protocol):
    """What a model says of one text."""

    def rows(self) -> Iterable[list[str]]:
        """The cells behind line and id, under the predictor's header: one row, or several."""

    def json(self) -> dict[str, object]:
        """The keys behind line and id."""


class Predicts(Protocol):
    """What every kind of model folder becomes. To add a kind: one file with such a class and its answers, one line in `opened`."""

    @property
    def header(self) -> Sequence[str]:
        """Names of the cells of an answer."""

    @property
    def wanted(self) -> str:
        """What a text has to hold to be answered; "" when every text will do."""

    def predict(self, texts: Iterable[str]) -> Iterator[Answer | None]:
        """One answer per text, in their order; None where there is nothing to answer."""


def opened(folder: Path, config: PredictConfig) -> tuple[Predicts, tuple[str, ...]]:
    """What the head of the folder's model makes of texts, and the columns of a table that hold them.

    A classifier gives labels. A masked language model, or the generator of an ELECTRA, fills masks. An Electric scores sentences.
    Raises KitaeError when the folder is damaged or holds none of these.
    """
    place = newest(folder)
    parts = read_parts(place)
    part, device = parts.get("generator") or parts.get("encoder"), device_named(config.device)
    home = next((place / name for name in ("generator", "discriminator") if (place / name).is_dir()), place)
    if part is not None and is_electric(parts):
        return Scorer.of(parts, read_tokenizer(home, part), device=device), config.columns or ("text",)
    if part is not None and part.head in ("mlm", "pretraining"):
        return Filler.of(part, read_tokenizer(home, part), device=device, candidates=config.candidates), config.columns or ("text",)
    if part is None or part.head != "sequence":
        held = ", ".join(one.title for one in parts.values())
        cure = "give the folder of a fine-tuning trial (finetune/TASK/ENCODER/SEED), of a masked language model, or an export of one"
        raise KitaeError(f"{folder} holds no classifier and no masked language model, but: {held}", cure=cure)
    found = Predictor.load(folder, device=config.device)
    return found, config.columns or found.columns


def predict_file(folder: Path, source: Path, target: Path, config: PredictConfig | None = None) -> int:
    """Predict a file with the model of a folder, as it is read; returns how many texts. The target appears when it is complete.

    source: CSV, TSV or JSONL with the columns of the settings, or plain text with one text a line; compressed or not.
    target: .csv, .tsv or .jsonl with the line number, the id where there is one, and what the kind of model gives (`Answer`).
    Lines without text, and texts without a mask to fill, are left out and counted in a warning.
    Raises KitaeError for a missing column, an unknown target format, or when no text at all has a mask.
    """
    config = config or PredictConfig()
    kind = target.suffix[1:].lower()
    if kind not in FORMATS:
        raise KitaeError(f"the target {target.name} has no known format", cure="name it .csv, .tsv or .jsonl", where=str(target))
    if not target.parent.is_dir():
        raise KitaeError(f"the folder {target.parent} does not exist", cure="make it, or write elsewhere", where=str(target))
    if target.resolve() == source.resolve():
        raise KitaeError("the target is the source", cure="give the predictions a file of their own", where=str(target))
    predictor, columns = opened(folder, config)
    first, second = itertools.tee(_texts(source, columns, config.id))
    count = unanswered = 0
    temporary = target.with_name(f".{target.name}.part")
    try:
        with temporary.open("w", encoding="utf-8", newline="") as file:
            write = _writer(file, kind, predictor.header)
            for item, answer in zip(first, predictor.predict(item.text for item in second), strict=True):
                if answer is not None:
                    write(item, answer)
                count, unanswered = count + (answer is not None), unanswered + (answer is None)
        if unanswered and not count:
            cure = f"write {predictor.wanted} where the model shall find a word"
            raise KitaeError(f"no text of {source.name} holds {predictor.wanted}", cure=cure, where=str(source))
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    if unanswered:
        log.warning("%s: %d texts without %s were left out", source.name, unanswered, predictor.wanted)
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


def _writer(file: TextIO, kind: str, header: Sequence[str]) -> Callable[[_Item, Answer], None]:
    if kind == "jsonl":

        def write_json(item: _Item, found: Answer) -> None:
            known = {"line": item.line} | ({} if item.id is None else {"id": item.id})
            file.write(json.dumps({**known, **found.json()}, ensure_ascii=False) + "\n")

        return write_json
    table = csv.writer(file, delimiter="," if kind == "csv" else "\t", lineterminator="\n")
    table.writerow(["line", "id", *header])

    def write_rows(item: _Item, found: Answer) -> None:
        table.writerows([item.line, neutral(item.id or ""), *row] for row in found.rows())

    return write_rows
