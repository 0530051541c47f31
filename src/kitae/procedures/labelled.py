"""A fine-tuned model of any kind of task on labelled texts: every metric of its kind, and how far its probabilities can be trusted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.core.recipe import merge, validate
from kitae.objectives.calibration import calibration_bins, calibration_error
from kitae.procedures.any_text import TASK, examples_of
from kitae.procedures.finetuned import Finetuned, Use, load
from kitae.procedures.fitting import device_named
from kitae.procedures.inputs import in_chunks
from kitae.tasks.config import FILES, TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.formats import format_of, read_examples
from kitae.tasks.kind import Predicted
from kitae.tasks.presets.table import PRESETS

OWN = (*FILES, "split", "parts", "name", "kind", "labels")
"""Keys of a task's table that say nothing about the layout of a file."""
PLAIN = "a fine-tuned model is measured on labelled texts, and plain text has no labels"


class Layout(Config):
    """How labelled files are written."""

    columns: tuple[str, ...] | None = None
    """Columns of the text; None: those of the model's task."""
    label: str | None = None
    """Column of the label; None: that of `task`, else "label"."""
    task: dict[str, object] = Field(default_factory=dict)
    """Further settings of such files, as in a recipe's [task.NAME]: second, choices, format, format_config, ...; `like` names a published
    task whose files they are."""


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Scores by source and of all sources together."""

    kind: str
    """Of the task."""
    settings: Mapping[str, object]
    """How the files were read."""
    texts: Mapping[str, int]
    sources: Mapping[str, Mapping[str, float]]
    together: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Examples and what is predicted of them."""

    examples: Sequence[Example]
    predicted: Sequence[Predicted]


def measure_labels(folder: Path, names: Sequence[str], layout: Layout, *, device: str = "auto") -> Labelled:
    """Score the fine-tuned model of a trial, an export or a Hugging Face folder.

    A name is a file of labelled texts in any format of tasks, or "task:NAME/SPLIT". Raises KitaeError for a text without a label, for a
    label that the model does not know, and for files without texts.
    """
    model, use = load(folder)
    model.learner.to(device_named(device))
    told: dict[str, object] = {}
    judged: dict[str, _Judged] = {}
    for name in names:
        if name in judged:
            raise KitaeError(f"{name} is given twice", cure="give it once")
        task = _task(use, layout, name)
        examples = list(_examples(model, task, name, use.join))
        if not examples:
            raise KitaeError("there is no labelled text in it", cure="give a file with texts and labels", where=name)
        if not name.startswith(TASK):
            told = {"columns": [*task.text, *task.second, *task.choices], "label": task.label}
        judged[name] = _Judged(examples=examples, predicted=_predicted(model, examples))
    whole = _Judged(
        examples=[example for one in judged.values() for example in one.examples],
        predicted=[found for one in judged.values() for found in one.predicted],
    )
    return Labelled(
        kind=use.kind,
        settings=told,
        texts={name: len(one.examples) for name, one in judged.items()},
        sources={name: _scores(model, one) for name, one in judged.items()},
        together=_scores(model, whole),
    )


def _task(use: Use, layout: Layout, name: str) -> TaskConfig:
    """The settings of a labelled file: those of the model, of the published task, and of the user, each above the ones before."""
    own = dict(layout.task)
    like = own.pop("like", None)
    if like is not None and like not in PRESETS:
        raise KitaeError(f'task.like = "{like}" is no published task', cure="leave it out, and say the columns", where="--set")
    wrong = next((key for key in own if key in OWN), None)
    if wrong is not None:
        raise KitaeError(f"task.{wrong} does not say how a file is written", cure="leave it out", where="--set")
    published = {key: value for key, value in PRESETS[str(like)].items() if key not in OWN} if like is not None else {}
    known: dict[str, object] = {"text": use.columns, "second": use.second, "choices": use.choices, "kind_config": use.kind_config}
    said: dict[str, object] = {"name": "labelled", "kind": use.kind, "labels": use.labels, "train": [name], "test": [name]}
    said |= {"text": layout.columns} if layout.columns else {}
    said |= {"label": layout.label} if layout.label else {}
    return validate(TaskConfig, merge(merge(merge(known, published), own), said), "--set", "task")


def _examples(model: Finetuned, task: TaskConfig, name: str, join: str) -> Iterator[Example]:
    """Those with a label, checked. `join` is what stands between the words of the model's texts."""
    if name.startswith(TASK):
        found: Iterator[Example] = iter(examples_of(name))
    else:
        path = locate(name)
        if not path.exists():
            raise KitaeError(f"{name} does not exist", cure="give a file of labelled texts", where=name)
        try:
            row = format_of(path, task)
        except KitaeError as error:
            if task.format is not None:
                raise
            wanted = ", ".join((*task.text, *task.second, *task.choices))
            cure = f'give a CSV, TSV or JSONL file with the columns {wanted} and "{task.label}", or say task.format'
            raise KitaeError(PLAIN, cure=cure, where=name) from error
        if "join" in row.config.model_fields:
            task = task.model_copy(update={"format_config": {"join": join, **task.format_config}})
        found = read_examples(path, task)
    for example in found:
        if example.gold is None:
            raise KitaeError("the label is hidden", cure="give labelled texts", where=example.where)
        made = model.kind.canonical(example, model.options)
        model.kind.check(made, model.labels, model.options)
        yield made


def _predicted(model: Finetuned, examples: Sequence[Example]) -> list[Predicted]:
    chunks = in_chunks(examples, lambda example: sum(map(len, example.texts)))
    return [found for chunk in chunks for found in model.predict(chunk)]


def _scores(model: Finetuned, judged: _Judged) -> dict[str, float]:
    """Every metric of the kind; the mean loss, where the kind has one; and the calibration error of probabilities that add up to 1."""
    made = model.kind.scores(judged.examples, judged.predicted, model.labels)
    losses = [model.kind.loss(example, one, model.labels) for example, one in zip(judged.examples, judged.predicted, strict=True)]
    known = [loss for loss in losses if loss is not None]
    if known:
        made["loss"] = sum(known) / len(known)
    sure = [_surest(one) for one in judged.predicted]
    right = [example.gold == one.value for example, one in zip(judged.examples, judged.predicted, strict=True)]
    shares = [share for share in sure if share is not None]
    if len(shares) == len(sure):
        error = calibration_error(calibration_bins(torch.tensor(shares, dtype=torch.float64), torch.tensor(right)))
        assert error is not None, "there is a text"
        made["calibration_error"] = error
    return made


def _surest(found: Predicted) -> float | None:
    """The probability of what is predicted, where it is one of several things."""
    shares = found.more.get("probabilities")
    return max(shares) if isinstance(found.value, str | int) and isinstance(shares, list) else None
