"""Scoring a model that is fine-tuned already: no training, the same task, the same files of results."""

import time
from dataclasses import replace
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.procedures.finetuned import Finetuned, load
from kitae.procedures.fitting import device_named
from kitae.procedures.outcome import Outcome
from kitae.procedures.trials import TrialConfig
from kitae.tasks.records import TaskData


def score_given(data: TaskData, folder: Path, config: TrialConfig) -> Outcome:
    """Predict validation and test with the model in a folder. Raises KitaeError when it does not fit the task."""
    model = replace(fitting(data, folder), half=config.predict_precision == "bf16")
    model.learner.to(device_named(config.device))
    held = model.predict(data.validation)
    begun = time.perf_counter()
    predicted = model.predict(data.test)
    return Outcome(
        predicted=predicted,
        chosen={"epoch": 0.0} | model.kind.scores(data.validation, held, data.labels),
        curve=[],
        seconds={"train": 0.0, "predict": time.perf_counter() - begun},
    )


def fitting(data: TaskData, folder: Path) -> Finetuned:
    """The model in a folder: a trial, an export, a Hugging Face folder with a trained head.

    Raises KitaeError when there is none, or it is one of another kind or with other labels than the task.
    """
    model, _ = load(folder)
    kind, name = data.config.kind, data.config.name
    if model.kind.name != kind:
        cure = f"name a model of {kind}, or take it out of finetune.trained"
        raise KitaeError(f"{folder} holds a model of {model.kind.name}, but the task {name} is {kind}", cure=cure)
    if set(model.labels) != set(data.labels):
        lacking, unknown = sorted(set(data.labels) - set(model.labels)), sorted(set(model.labels) - set(data.labels))
        what = f'lacks "{lacking[0]}"' if lacking else f'also knows "{unknown[0]}"'
        cure = "name a model that was trained for this task, or take it out of finetune.trained"
        raise KitaeError(f"the labels of {folder} are not those of the task {name}: it {what}", cure=cure)
    return model
