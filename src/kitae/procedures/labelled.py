"""A fine-tuned classifier on labelled texts: how often it is right, and how far its probabilities can be trusted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.paths import locate
from kitae.objectives.calibration import calibration_bins, calibration_error
from kitae.procedures.any_text import TASK, examples_of
from kitae.procedures.finetuned import load
from kitae.procedures.fitting import device_named
from kitae.tasks.examples import Example
from kitae.tasks.metrics import ACCURACY, MACRO_F1, MICRO_F1
from kitae.text.tables import format_of, need_column, need_text, read_rows

CHUNK = 2048  # texts held at a time
Numbers = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """Scores by source and of all sources together."""

    columns: tuple[str, ...]
    texts: Mapping[str, int]
    sources: Mapping[str, Mapping[str, float]]
    together: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class _Judged:
    """Of every text its label, and the probabilities of all labels."""

    truth: Numbers
    probabilities: NDArray[np.float64]


def measure_labels(folder: Path, names: Sequence[str], *, columns: Sequence[str] | None, label: str, device: str = "auto") -> Labelled:
    """Score the classifier of a trial, an export or a Hugging Face folder.

    A name is a CSV, TSV or JSONL file with the columns of the text and of the label, or "task:NAME/SPLIT". Raises KitaeError for a text
    without a label, for a label that the classifier does not know, and for files without texts.
    """
    model, use = load(folder)
    model.learner.to(device_named(device))
    columns = tuple(columns or use.columns)
    places = {name: number for number, name in enumerate(model.labels)}
    judged: dict[str, _Judged] = {}
    for name in names:
        if name in judged:
            raise KitaeError(f"{name} is given twice", cure="give it once")
        truth: list[int] = []
        found: list[NDArray[np.float64]] = []
        rows = _read(name, columns, label)
        while some := list(islice(rows, CHUNK)):
            for _, said, where in some:
                if said not in places:
                    raise KitaeError(f'the classifier knows no label "{said}"', cure=did_you_mean(said, places), where=where)
                truth.append(places[said])
            examples = [Example(id="", text=text, gold=None, where=where) for text, _, where in some]
            found.append(np.asarray([one.more["probabilities"] for one in model.predict(examples)]))
        if not truth:
            raise KitaeError("there is no labelled text in it", cure="give a file with texts and labels", where=name)
        judged[name] = _Judged(truth=np.asarray(truth, np.int64), probabilities=np.concatenate(found))
    whole = _Judged(
        truth=np.concatenate([one.truth for one in judged.values()]),
        probabilities=np.concatenate([one.probabilities for one in judged.values()]),
    )
    return Labelled(
        columns=columns,
        texts={name: len(one.truth) for name, one in judged.items()},
        sources={name: _scores(one) for name, one in judged.items()},
        together=_scores(whole),
    )


def _scores(judged: _Judged) -> dict[str, float]:
    predicted, labels = judged.probabilities.argmax(1), judged.probabilities.shape[1]
    likelihood = judged.probabilities[np.arange(len(predicted)), judged.truth]
    names = [str(number) for number in range(labels)]
    golds, values = [names[number] for number in judged.truth], [names[number] for number in predicted]
    made = {metric.name: metric.score(golds, values, names) for metric in (ACCURACY, MACRO_F1, MICRO_F1)}
    made["loss"] = float(-np.log(np.maximum(likelihood, 1e-12)).mean())
    sure, right = torch.from_numpy(judged.probabilities.max(1)), torch.from_numpy(predicted == judged.truth)
    error = calibration_error(calibration_bins(sure, right))
    assert error is not None, "there is a text"
    return made | {"calibration_error": error}


def _read(name: str, columns: Sequence[str], label: str) -> Iterator[tuple[str, str, str]]:
    """(text, label, where it stands)."""
    if name.startswith(TASK):
        for example in examples_of(name):
            yield example.text, str(example.gold), example.where
        return
    path = locate(name)
    if not path.is_file():
        raise KitaeError(f"{name} is no file", cure="give a CSV, TSV or JSONL file of labelled texts", where=name)
    try:
        kind = format_of(path)
    except KitaeError as error:
        cure = f'give a CSV, TSV or JSONL file with the columns {", ".join(columns)} and "{label}"'
        raise KitaeError("a classifier is measured on labelled texts, and plain text has no labels", cure=cure, where=name) from error
    for number, row in read_rows(path, format=kind):
        where = f"{path}, line {number}"
        parts = [need_text(row, column, where).strip() for column in columns]
        text, said = "\n".join(part for part in parts if part), need_column(row, label, where).strip()
        if not text or not said:
            raise KitaeError(f"the {'label' if text else 'text'} is empty", cure="fill it in or remove the line", where=where)
        yield text, said, where
