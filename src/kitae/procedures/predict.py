"""New texts through a model folder, in bounded memory: what a fine-tuned model of any kind of task says of them, masks filled by a masked
language model, or the scores of an Electric.

Texts are batched by length within chunks, so that almost nothing is padding; what is predicted for a text depends on that text only.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, Protocol

from pydantic import Field

from kitae.core.artifact import newest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.recipe import validate
from kitae.models.folder import read_parts
from kitae.procedures.answers import Answer, form_of
from kitae.procedures.fill import Filler
from kitae.procedures.finetuned import FINETUNED, Finetuned, Use, load
from kitae.procedures.fitting import device_named, read_tokenizer
from kitae.procedures.inputs import CHUNK, STANDARD, Reads, example_from, in_chunks, read_source
from kitae.procedures.outputs import check_target, opened
from kitae.procedures.score import Scorer, is_electric
from kitae.tasks.examples import Example

log = logging.getLogger(__name__)


USUAL: Mapping[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "span": (("question",), ("context",), ()),
    "choice": (("text",), (), ("choices[]",)),
}
"""By kind, where the model's task names no columns of these: those of the text, of the second text, of the choices."""


class PredictConfig(Config):
    """Settings of `kitae predict`, given by `--set`."""

    candidates: Annotated[int, Field(ge=1)] = 5
    """Masked language models: how many tokens to give for every mask, the likeliest first."""
    columns: tuple[str, ...] = ()
    """Columns of a table that hold the text; several are joined by a new line. Default: those of the model's task, and "text" where a
    table has no such columns."""
    second: tuple[str, ...] = ()
    """Columns of a table that hold the second text of a pair, or the context of a question. Default: those of the model's task."""
    choices: tuple[str, ...] = ()
    """Columns of a table that hold the answers to choose from, or "a[]", the texts of the list a. Default: those of the model's task."""
    id: str = "id"
    """The column of a table that names a text; it is copied."""
    format: Literal["csv", "tsv", "jsonl", "text"] | None = None
    """How the source is written; "text" is a text a line. Default: what its name says, else "text"."""
    encoding: str | None = None
    """Encoding of the source; by default UTF-8."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; "auto" takes CUDA when there is one."""


class Predicts(Protocol):
    """What every kind of model folder becomes: `FinetunedPredicts`, `Filler`, `Scorer`."""

    @property
    def header(self) -> Sequence[str]:
        """Names of the cells of an answer."""

    @property
    def wanted(self) -> str:
        """What a text has to hold to be answered; "" when every text will do."""

    @property
    def reads(self) -> Reads:
        """Which columns hold what it reads."""

    def answers(self, examples: Sequence[Example]) -> Sequence[Answer | None]:
        """One answer per example, in their order; None where there is nothing to answer."""


class FinetunedPredicts:
    """A fine-tuned model: what its kind of task says, as typed answers (`kitae.procedures.answers`)."""

    wanted = ""

    def __init__(self, model: Finetuned, reads: Reads) -> None:
        self._model, self._form = model, form_of(model.kind.name)
        self.header = self._form.header(model.labels)
        self.reads = replace(reads, exact=self._form.exact)

    def answers(self, examples: Sequence[Example]) -> list[Answer | None]:
        """See Predicts."""
        labels = self._model.labels
        examples = [self._model.kind.canonical(replace(example, gold=None), self._model.options) for example in examples]
        found = self._model.predict(examples)
        return [self._form.make(example, one, labels) for example, one in zip(examples, found, strict=True)]


class Predictor:
    """A model folder of any kind, ready to predict; in fp32."""

    def __init__(self, model: Predicts, *, chunk: int = CHUNK) -> None:
        self._model, self._chunk = model, chunk

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        device: str = "auto",
        candidates: int = 5,
        columns: Sequence[str] = (),
        second: Sequence[str] = (),
        choices: Sequence[str] = (),
        chunk: int = CHUNK,
    ) -> "Predictor":
        """From a trial, its model folder, an export, a pre-training run or a Hugging Face folder.

        Settings as in PredictConfig; `chunk` is how many texts are held at a time. Raises KitaeError when the folder is damaged or its
        model predicts nothing.
        """
        said = {"device": device, "candidates": candidates, "columns": columns, "second": second, "choices": choices}
        return cls(model_of(folder, validate(PredictConfig, said, "Predictor.load")), chunk=chunk)

    def predict(self, texts: Iterable[str | Mapping[str, object] | Example]) -> Iterator[Answer | None]:
        """One answer per text, in their order, None where a text has nothing to answer (no mask); an unbounded stream is fine.

        A text is a string; or a mapping, with the keys "text", "second" and "choices" or those of the model's task; or an Example.
        Raises KitaeError for a text that lacks what the model reads.
        """
        reads = self._model.reads
        examples = (example_from(given, reads, number=number) for number, given in enumerate(texts, start=1))
        for chunk in in_chunks(examples, _size, most=self._chunk):
            yield from self._model.answers(chunk)


def model_of(folder: Path, config: PredictConfig) -> Predicts:
    """What the folder's model predicts with: a fine-tuned one does its task; a masked language model, or the generator of an ELECTRA, fills
    masks; an Electric scores sentences. Raises KitaeError when the folder is damaged or holds none of these.
    """
    place = newest(folder)
    parts = read_parts(place)
    part, device = parts.get("generator") or parts.get("encoder"), device_named(config.device)
    home = next((place / name for name in ("generator", "discriminator") if (place / name).is_dir()), place)
    own = Reads(text=config.columns or ("text",), second=config.second, choices=config.choices, id=config.id)
    if part is not None and part.head not in FINETUNED and not own.single:
        raise KitaeError("the model reads one text", cure="leave `second` and `choices` out", where=str(folder))
    if part is not None and is_electric(parts):
        return Scorer.of(parts, read_tokenizer(home, part), device=device, reads=own)
    if part is not None and part.head in ("mlm", "pretraining"):
        return Filler.of(part, read_tokenizer(home, part), device=device, candidates=config.candidates, reads=own)
    if part is None or part.head not in FINETUNED:
        held = ", ".join(one.title for one in parts.values())
        cure = "give the folder of a fine-tuning trial (finetune/TASK/ENCODER/SEED), of a masked language model, or an export of one"
        raise KitaeError(f"{folder} holds no classifier and no masked language model, but: {held}", cure=cure)
    model, use = load(folder)
    model.learner.to(device)
    return FinetunedPredicts(model, replace(_reads(use, config), join=use.join if model.kind.words else None))


def _reads(use: Use, config: PredictConfig) -> Reads:
    """The columns that the settings name, or the model's task, or that a kind usually has (some readers of tasks know no columns)."""
    text, second, choices = USUAL.get(use.kind, (("text",), (), ()))
    if use.second or use.choices or (not second and not choices):
        text, second, choices = use.columns, use.second, use.choices
    named = bool(config.columns or config.second or config.choices)
    return Reads(text=config.columns or text, second=config.second or second, choices=config.choices or choices, id=config.id, named=named)


def predict_file(folder: Path, source: Path, target: Path, config: PredictConfig | None = None) -> int:
    """Predict a file with the model of a folder, as it is read; returns how many texts. The target appears when it is complete.

    source: CSV, TSV or JSONL with the columns of the settings, or plain text with one text a line, compressed or not; "-" is standard
    input, whose lines are answered as they come.
    target: .csv, .tsv or .jsonl, compressed or not, with the line number, the id where there is one, and what the kind of model gives
    (`kitae.procedures.answers`); "-" is standard output, as JSONL.
    Lines without text, and texts without a mask to fill, are left out and counted in a warning.
    Raises KitaeError for a missing column, an unknown target format, or when no text at all has a mask.
    """
    config = config or PredictConfig()
    kind, live = check_target(target, source), str(source) == STANDARD
    model = model_of(folder, config)
    # not sys.stdin: a thread that waits for a line would hold its lock when the interpreter ends
    standard = open(0, "rb", buffering=0, closefd=False) if live else None  # noqa: SIM115
    items = read_source(source, model.reads, format=config.format, encoding=config.encoding, standard=standard)
    count = unanswered = empty = 0
    with opened(target, kind, model.header) as (write, flush):
        for chunk in in_chunks(items, lambda item: _size(item.example), live=live):
            full = [(item, item.example) for item in chunk if item.example is not None]
            answers = model.answers([example for _, example in full])
            for (item, _), answer in zip(full, answers, strict=True):
                if answer is not None:
                    write(item, answer)
            flush()
            missing = sum(answer is None for answer in answers)
            count, unanswered, empty = count + len(full) - missing, unanswered + missing, empty + len(chunk) - len(full)
        if unanswered and not count:
            cure = f"write {model.wanted} where the model shall find a word"
            raise KitaeError(f"no text of {source.name} holds {model.wanted}", cure=cure, where=str(source))
    name = "standard input" if live else source.name
    if empty:
        log.warning("%s: %d lines without text were left out", name, empty)
    if unanswered:
        log.warning("%s: %d texts without %s were left out", name, unanswered, model.wanted)
    return count


def _size(example: Example | None) -> int:
    """Characters that a model reads of it."""
    return 0 if example is None else sum(map(len, example.texts))
