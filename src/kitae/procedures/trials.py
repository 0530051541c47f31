"""One fine-tuning trial: train, look at validation after every epoch, keep the first best, predict the test texts once.

Predictions are made with the weights that are saved, in fp32 unless asked otherwise, so that `kitae predict` gives the same numbers.
"""

import logging
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from kitae.core.artifact import newest
from kitae.core.config import LATER, OPERATIONAL
from kitae.core.duration import BatchSize, Duration
from kitae.models.encoder import EncoderConfig
from kitae.models.families import build_headed
from kitae.models.folder import Part, load_encoder, load_pooler, read_parts
from kitae.procedures.finetuned import Finetuned, description, save, use_of
from kitae.procedures.fitting import MOST_TOKENS, check_length, device_named, read_tokenizer
from kitae.procedures.judge import Ended, Held, Judge, Limits, zero_loss
from kitae.procedures.outcome import Outcome
from kitae.procedures.silent import head_of, untrained
from kitae.procedures.submissions import write_official, write_submissions
from kitae.tasks.batches import TrainBatches
from kitae.tasks.examples import Gold
from kitae.tasks.kind import Feature, Predicted
from kitae.tasks.kinds import kind_of, metric_of, options_of
from kitae.tasks.records import TaskData
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
    least_steps: Annotated[int | None, LATER, Field(ge=1)] = None
    """At least so many optimizer steps: where `epochs` come to fewer, as with ten labelled texts, more epochs are made."""
    max_length: Annotated[int, Field(ge=3)] | None = None
    """Longest text in tokens, special ones included; the rest is cut off. Absent: what the encoder was built for, at most 512."""
    shorten: Annotated[bool, OPERATIONAL] = False
    """Where an encoder has fewer positions than `max_length`, take as many as it has and say so, instead of refusing it. True where the
    length is a published task's own (`like`), which the recipe does not say."""
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
    metric: str = ""
    """The validation score that chooses the epoch (the first best one), and by which encoders are compared. Absent: the task's, or the
    first one of its kind (accuracy, of classification)."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of training; "fp16" scales the loss, and skips the steps whose gradients overflow."""
    stop_collapsed: Annotated[int | None, LATER, Field(ge=1)] = None
    """Stop a trial after more than so many epochs in a row in which every validation text got the same label, or the training loss was
    exactly 0. It keeps the best of its epochs, and its results say "collapsed". Absent: it goes on, and is marked if it stayed so."""
    patience: Annotated[int | None, LATER, Field(ge=1)] = None
    """Stop a trial after so many epochs in a row without a better validation score; it keeps the best of its epochs. The learning rate
    falls as if all `epochs` were made. Absent: all are made."""
    protocol: Annotated[Literal["fair", "as published"], LATER] = "fair"
    """"as published" also scores the test examples after every epoch and shows, beside the fair result, what comes out when the test set
    chooses the epoch and the best of the runs is reported, as the Livedoor paper does. The fair result stays the same to the bit."""
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

    @model_validator(mode="after")
    def _all_epochs(self) -> Self:
        if self.patience is not None and self.protocol == "as published":
            raise ValueError('`patience` ends a trial by its validation, but protocol = "as published" looks at all epochs: leave one out')
        return self


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


def run_trial(data: TaskData, start: Start, config: TrialConfig, *, seed: int, folder: Path, title: str = "trial") -> Outcome:
    """Fine-tune, choose on validation, predict the test examples; writes `folder/model`, `folder/metrics.jsonl` and submissions.

    Pure function of its arguments (on one machine). The labels of the test examples are not read. `title` stands before the progress.
    A trial that is stopped starts over.
    """
    tuned = tune(data, start, config, seed=seed, folder=folder, title=title)
    begun = time.perf_counter()
    predicted = tuned.model.of(data.test, tuned.test)
    seconds = {"train": tuned.seconds, "predict": tuned.encoding + time.perf_counter() - begun}
    keep(tuned.model, data, predicted, folder)
    chosen, curve, tested = tuned.chosen, tuned.curve, tuned.tested
    return Outcome(predicted=predicted, chosen=chosen, curve=curve, warnings=tuned.warnings, seconds=seconds, tested=tested)


def keep(model: Finetuned, data: TaskData, predicted: Sequence[Predicted], folder: Path) -> None:
    """Write the model that a trial chose, and of what it predicts what others read."""
    save(model, use_of(model, data.config), folder / "model")
    write_submissions(model, data.config, folder)
    write_official(model.kind.files(data.test, predicted), folder)


@dataclass(frozen=True, kw_only=True)
class Tuned:
    """A fine-tuned model with the weights of its chosen epoch, and how they were chosen."""

    model: Finetuned
    chosen: dict[str, float]
    curve: list[dict[str, float]]
    warnings: list[str]
    seconds: float
    test: list[list[Feature]]
    """The features of the test examples."""
    encoding: float
    """Seconds that making them took."""
    tested: list[list[Gold]]
    """What the weights of every epoch said of the test examples; none unless the protocol asks for them."""


def tune(data: TaskData, start: Start, config: TrialConfig, *, seed: int, folder: Path, title: str = "trial") -> Tuned:
    """Fine-tune and choose on validation; writes `folder/metrics.jsonl`. Test texts are encoded, and looked at for unknown words only."""
    device = device_named(config.device)
    model = build(start, data, config, seed=seed)
    features, encoding = encoded(model, data)
    warnings = [*shortened(model, config, data.config.name), *unknown_texts(start.tokenizer, features)]
    for remark in model.kind.remarks(features["train"]):
        warnings.append(remark)
        log.warning("%s", remark)
    copy = build(start, data, config, seed=seed)
    copy.learner.to(device)
    head = head_of(copy.learner)
    flat = [feature for some in features["train"] for feature in some]
    pad = start.tokenizer.special.pad
    batches = TrainBatches(flat, batch=config.batch, micro_batch=config.micro_batch or config.batch, pad=pad, seed=seed)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        work = Path(temporary) / title  # the folder's name is what the progress shows
        metric = metric_of(data.config, config.metric)
        limits = Limits(collapsed=config.stop_collapsed, patience=config.patience)
        held = Held(examples=data.validation, features=features["validation"])
        test = Held(examples=data.test, features=features["test"]) if config.protocol == "as published" else None
        judge = Judge(copy, held, metric=metric, limits=limits, folder=work, test=test)
        try:
            seconds = fit(
                model.learner.to(device),
                batches,
                train_config(config, batches.steps_per_epoch),
                work,
                world=World(device=device),
                seed=seed,
                attach={},
                evaluate=lambda step: judge(model.learner, step, batches.steps_per_epoch),
            ).seconds
        except Ended:
            seconds = time.perf_counter() - begun
        os.replace(work / METRICS, folder / METRICS)
    warnings += judge.collapse() + zero_loss(folder, batches.steps_per_epoch) + untrained(head, head_of(model.learner))
    return Tuned(
        model=judge.best(),
        chosen=judge.chosen,
        curve=judge.curve,
        warnings=warnings,
        seconds=seconds - judge.seconds,
        test=features["test"],
        encoding=encoding,
        tested=judge.tested,
    )


def build(start: Start, data: TaskData, config: TrialConfig, *, seed: int) -> Finetuned:
    """The encoder with a new head, whose weights the seed decides; with `fresh` the encoder's too."""
    kind, options = kind_of(data.config), options_of(data.config)
    head, numbers = kind.head(options), start.part.config
    generator = torch_generator(seed, "head")
    outputs = kind.outputs(data.labels, options)
    model = build_headed(numbers, head, num_labels=outputs, dropout=config.dropout, generator=generator)
    if not start.fresh:
        load_encoder(model.encoder, start.part)
        load_pooler(model, start.part, head)
    made = Finetuned(
        kind=kind,
        options=options,
        labels=data.labels,
        learner=kind.learner(model, data.labels, options, data.train),
        tokenizer=start.tokenizer,
        max_length=length_of(config, start.part.config),
        half=config.predict_precision == "bf16",
    )
    made.learner.described = description(made)
    return made


def epochs_of(config: TrialConfig, steps_per_epoch: int) -> int:
    """Passes over the examples, with those that `least_steps` asks for."""
    return max(config.epochs, -(-(config.least_steps or 0) // steps_per_epoch))


def train_config(config: TrialConfig, steps_per_epoch: int) -> TrainConfig:
    """A trial's settings as those of a training."""
    length = Duration(epochs_of(config, steps_per_epoch) * steps_per_epoch, "steps")
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


def encoded(model: Finetuned, data: TaskData) -> tuple[dict[str, list[list[Feature]]], float]:
    """The features of train, validation and test, and the seconds that those of test took. Test labels are not read."""
    features = {
        "train": [model.features(example, learn=True) for example in data.learned],
        "validation": [model.features(example) for example in data.validation],
    }
    begun = time.perf_counter()
    features["test"] = [model.features(example) for example in data.test]
    return features, time.perf_counter() - begun


def shortened(model: Finetuned, config: TrialConfig, task: str) -> list[str]:
    """A warning when the task's texts are cut shorter than it proposes, because the encoder has no more positions."""
    if config.max_length is None or config.max_length == model.max_length:
        return []
    text = f"max_length = {model.max_length}: {task} proposes {config.max_length}, but the encoder has no more positions"
    log.warning("%s", text)
    return [text]


def unknown_texts(tokenizer: Tokenizer, features: Mapping[str, Sequence[Sequence[Feature]]]) -> list[str]:
    """A warning for each part of the data with texts that are nothing but unknown tokens."""
    warnings: list[str] = []
    if tokenizer.speller is not None:  # reads every word
        return warnings
    known = np.asarray([tokenizer.special.cls, tokenizer.special.sep, tokenizer.special.unk])
    for name, examples in features.items():
        texts = [[text.ids for feature in some for text in feature.texts] for some in examples]
        empty = sum(all(bool(np.isin(ids, known).all()) for ids in some) for some in texts)
        if empty:
            warnings.append(f"{empty} of {len(texts)} {name} texts are nothing but unknown tokens: the vocabulary does not fit them")
            log.warning("%s", warnings[-1])
    return warnings


def length_of(config: TrialConfig, encoder: EncoderConfig, *, where: str = "table [finetune]") -> int:
    """The longest text of a trial, in tokens. Raises KitaeError when it is not to be shortened to what the encoder can read."""
    if config.max_length is None:
        return min(encoder.positions, MOST_TOKENS)
    if not config.shorten:
        check_length(config.max_length, encoder, where=where)
    return min(config.max_length, encoder.positions)
