"""One fine-tuning trial: train, look at validation after every epoch, keep the first best, predict the test texts once.

Predictions are made with the weights that are saved, in fp32 unless asked otherwise, so that `kitae predict` gives the same numbers.
"""

import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, field_validator

from kitae.core.artifact import newest
from kitae.core.config import LATER, OPERATIONAL
from kitae.core.duration import BatchSize, Duration
from kitae.models.families import build_classifier
from kitae.models.folder import Part, load_encoder, load_pooler, read_parts
from kitae.procedures.classifier import MOST_TOKENS, ClassifierPredict, Use, check_length, device_named, read_tokenizer, save
from kitae.procedures.judge import Collapsed, Judge, zero_loss
from kitae.procedures.outcome import Outcome
from kitae.tasks.batches import Encoded, TrainBatches, encode
from kitae.tasks.classification import Classification
from kitae.tasks.metrics import Metric
from kitae.tasks.records import Example, TaskData
from kitae.tensor.random import torch_generator
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import METRICS
from kitae.train.rule_config import RuleConfig

log = logging.getLogger(__name__)


class TrialConfig(RuleConfig):
    """How to fine-tune; the same for every encoder and seed that are compared."""

    epochs: Annotated[int, Field(ge=1)] = 10
    """Passes over the training examples; validation is looked at after each."""
    max_length: Annotated[int, Field(ge=3)] | None = None
    """Longest text in tokens, special ones included; the rest is cut off. Absent: what the encoder was built for, at most 512."""
    batch: Annotated[int, Field(ge=1)] = 16
    """Texts of one optimizer step."""
    micro_batch: Annotated[int, Field(ge=1)] | None = None
    """Texts of one forward pass, the atom of dropout's randomness. Absent: the whole batch."""
    learning_rate: Annotated[float, Field(gt=0)] = 3e-4
    """Highest learning rate. 3e-4 suits small encoders, 1e-4 to 2e-5 base and large ones."""
    warmup: Duration = Duration(0.1, "of length")
    """How long the learning rate rises: "0.1 of length", "100 steps", ..."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Decoupled weight decay."""
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Dropout in the new head; absent: the encoder's own rate."""
    metric: Metric = "accuracy"
    """The validation score that chooses the epoch (the first best one)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of training; "fp16" scales the loss, and skips the steps whose gradients overflow."""
    stop_collapsed: Annotated[int | None, LATER, Field(ge=1)] = None
    """Stop a trial after more than so many epochs in a row in which every validation text got the same label, or the training loss was
    exactly 0. It keeps the best of its epochs, and its results say "collapsed". Absent: it goes on, and is marked if it stayed so."""
    predict_precision: Literal["fp32", "bf16"] = "fp32"
    """Of the validation and test predictions. "bf16" takes half the time; `kitae predict` is fp32 always."""
    fair: Annotated[bool, OPERATIONAL] = False
    """Refuse an encoder that learnt from a corpus of this recipe or another that was not de-contaminated against the task. Otherwise its
    results carry a warning."""
    device: Annotated[Literal["auto", "cpu", "cuda"], OPERATIONAL] = "auto"
    """Where to compute."""
    activation_checkpointing: Annotated[bool, OPERATIONAL] = False
    """Keep of each layer only what goes into it, for the memory of long texts: equal to the bit, a third to a half slower."""
    deterministic: Annotated[bool, OPERATIONAL] = False
    """Choose only reproducible kernels."""

    @field_validator("warmup")
    @classmethod
    def _no_time(cls, value: Duration) -> Duration:
        if value.unit == "seconds":
            raise ValueError(f'warmup = "{value}" is a time, but trials are counted in epochs: write steps, rows, tokens or a share')
        return value


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a trial starts from. `fresh` takes the architecture and the vocabulary only: weights are drawn anew."""

    part: Part
    tokenizer: Tokenizer
    fresh: bool = False


def read_start(folder: Path, *, fresh: bool = False) -> Start:
    """The encoder and tokenizer of a run, a checkpoint or a Hugging Face folder; of ELECTRA's halves the discriminator.

    Raises KitaeError when there is none, or its vocabulary does not fit.
    """
    place = newest(folder)
    parts = read_parts(place)
    part = next(parts[name] for name in ("encoder", "discriminator", "generator") if name in parts)
    if "generator" in parts and len(parts) == 1:
        log.warning("%s holds ELECTRA's generator only: its discriminator would learn better", folder)
    tokenizer = read_tokenizer(place, part)
    part = replace(part, config=part.config.padded(tokenizer.special.pad))
    return Start(part=part, tokenizer=tokenizer, fresh=fresh)


def run_trial(
    data: TaskData, start: Start, config: TrialConfig, *, seed: int, folder: Path, columns: Sequence[str] = ("text",), title: str = "trial"
) -> Outcome:
    """Fine-tune, choose on validation, predict the test texts; writes `folder/model` and `folder/metrics.jsonl`.

    Pure function of its arguments (on one machine). The labels of the test examples are not read. `columns` names the text's
    columns for whoever predicts with the model, `title` stands before the progress. A trial that is stopped starts over.
    """
    tuned = tune(data, start, config, seed=seed, folder=folder, title=title)
    begun = time.perf_counter()
    probabilities = tuned.predict(tuned.module, _encode(start.tokenizer, data.test, tuned.max_length))
    seconds = {"train": tuned.seconds, "predict": time.perf_counter() - begun}
    save(tuned.module, start.tokenizer, folder / "model", Use(max_length=tuned.max_length, columns=tuple(columns)))
    return Outcome(probabilities=probabilities, chosen=tuned.chosen, curve=tuned.curve, warnings=tuned.warnings, seconds=seconds)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A fine-tuned classifier with the weights of its chosen epoch, and how they were chosen."""

    module: Classification
    predict: ClassifierPredict
    max_length: int
    chosen: dict[str, float]
    curve: list[dict[str, float]]
    warnings: list[str]
    seconds: float


def tune(data: TaskData, start: Start, config: TrialConfig, *, seed: int, folder: Path, title: str = "trial") -> Tuned:
    """Fine-tune and choose on validation; writes `folder/metrics.jsonl`. Test texts are looked at for unknown words only."""
    length = _max_length(start.part, config)
    device = device_named(config.device)
    texts = {name: _encode(start.tokenizer, part, length) for name, part in _parts(data).items()}
    warnings = _unknown(start.tokenizer, texts)
    learner = build(start, data.labels, config.dropout, seed=seed)
    pad, truth = start.tokenizer.special.pad, np.asarray(data.numbers(data.validation))
    copy = build(start, data.labels, config.dropout, seed=seed).to(device)
    predict = ClassifierPredict(pad=pad, half=config.predict_precision == "bf16")
    batches = TrainBatches(
        texts["train"], data.numbers(data.train), batch=config.batch, micro_batch=config.micro_batch or config.batch, pad=pad, seed=seed
    )
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary) / title  # the folder's name is what the progress shows
        judge = Judge(copy, texts["validation"], truth, metric=config.metric, predict=predict, limit=config.stop_collapsed, folder=work)
        try:
            seconds = fit(
                learner.to(device),
                batches,
                train_config(config, batches.steps_per_epoch),
                work,
                world=World(device=device),
                seed=seed,
                attach={},
                evaluate=lambda step: judge(learner, step, batches.steps_per_epoch),
            ).seconds
        except Collapsed:
            seconds = time.perf_counter() - begun
        os.replace(work / METRICS, folder / METRICS)
    warnings += judge.collapse(epochs=config.epochs) + zero_loss(folder, batches.steps_per_epoch)
    return Tuned(
        module=judge.best(),
        predict=predict,
        max_length=length,
        chosen=judge.chosen,
        curve=judge.curve,
        warnings=warnings,
        seconds=seconds,
    )


def build(start: Start, labels: Sequence[str], dropout: float | None, *, seed: int) -> Classification:
    """The encoder with a new head, whose weights the seed decides; with `fresh` the encoder's too."""
    config = start.part.config
    classifier = build_classifier(config, len(labels), dropout, torch_generator(seed, "head"))
    if not start.fresh:
        load_encoder(classifier.encoder, start.part)
        load_pooler(classifier, start.part, "sequence")
    return Classification(classifier, labels=labels)


def train_config(config: TrialConfig, steps_per_epoch: int) -> TrainConfig:
    """A trial's settings as those of a training."""
    length = Duration(config.epochs * steps_per_epoch, "steps")
    return TrainConfig(
        length=length,
        batch=BatchSize(config.batch, "rows"),
        micro_batch=BatchSize(min(config.micro_batch or config.batch, config.batch), "rows"),
        learning_rate=config.learning_rate,
        warmup=config.warmup,
        optimizer=config.optimizer,
        lamb=config.lamb,
        muon=config.muon,
        layer_decay=config.layer_decay,
        electra_layer_decay=config.electra_layer_decay,
        freeze=config.freeze,
        weight_decay=config.weight_decay,
        clip=config.clip,
        precision=config.precision,
        activation_checkpointing=config.activation_checkpointing,
        deterministic=config.deterministic,
        keep_last=0,
        log_to=(),
        log_every=Duration(min(10, steps_per_epoch), "steps"),
        evaluate_every=Duration(steps_per_epoch, "steps"),
    )


def _parts(data: TaskData) -> dict[str, Sequence[Example]]:
    return {"train": data.train, "validation": data.validation, "test": data.test}


def _encode(tokenizer: Tokenizer, examples: Sequence[Example], max_length: int) -> list[Encoded]:
    return [encode(tokenizer, example.text, max_length=max_length) for example in examples]


def _unknown(tokenizer: Tokenizer, texts: dict[str, list[Encoded]]) -> list[str]:
    warnings: list[str] = []
    if tokenizer.speller is not None:  # reads every word
        return warnings
    for name, encoded in texts.items():
        empty = sum(bool((text.ids[1:-1] == tokenizer.special.unk).all()) for text in encoded)
        if empty:
            warnings.append(f"{empty} of {len(encoded)} {name} texts are nothing but unknown tokens: the vocabulary does not fit them")
            log.warning("%s", warnings[-1])
    return warnings


def _max_length(part: Part, config: TrialConfig) -> int:
    if config.max_length is None:
        return min(part.config.positions, MOST_TOKENS)
    check_length(config.max_length, part, where="table [finetune]")
    return config.max_length
