"""transformers' Trainer as the peer of a fine-tuning: the same weights (those of the new head too), examples, ids, order, learning rates
and choice of the epoch; its own models, collators, loss, optimizer, loop and dropout.

Every kind of task is one `Way`: the class, how a feature of kitae becomes a row of the Trainer, and how the model's logits become what
kitae's decoding reads, so that both sides are scored by one function.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)
from transformers.utils import logging

from benchmarks.peers import QUIET
from kitae.models.folder import Part, write_huggingface
from kitae.procedures.finetuned import Finetuned, outputs
from kitae.procedures.trials import TrialConfig, train_config
from kitae.tasks.batches import TrainBatches
from kitae.tasks.examples import Example
from kitae.tasks.kind import Feature, Predicted
from kitae.tasks.records import TaskData
from kitae.tasks.regression import Regression
from kitae.train.schedule import rate_of_step, timetable

logging.set_verbosity_error()  # the report of which weights of a head are new
logging.disable_progress_bar()
Row = dict[str, Any]
PREDICT_BATCH = 32


def _text(feature: Feature, number: int = 0) -> Row:
    text = feature.texts[number]
    segments = {} if text.segments is None else {"token_type_ids": text.segments.tolist()}
    return {"input_ids": text.ids.tolist(), **segments}


def _labelled(feature: Feature, model: Finetuned) -> Row:
    known = {"labels": int(feature.values["labels"][0])} if "labels" in feature.values else {}
    return _text(feature) | known


def _indicated(feature: Feature, model: Finetuned) -> Row:
    return _text(feature) | ({"labels": feature.values["labels"][0].tolist()} if "labels" in feature.values else {})


def _scaled(feature: Feature, model: Finetuned) -> Row:
    learner = model.learner
    assert isinstance(learner, Regression)
    if "numbers" not in feature.values:
        return _text(feature)
    return _text(feature) | {"labels": float((feature.values["numbers"][0] - learner.offset) / learner.scale)}


def _unscaled(logits: Any, feature: Feature, model: Finetuned) -> Any:
    learner = model.learner
    assert isinstance(learner, Regression)
    return (float(learner.offset) + float(learner.scale) * logits[0]).astype(np.float32)


def _choices(feature: Feature, model: Finetuned) -> Row:
    known = {"labels": int(feature.values["right"][0])} if "right" in feature.values else {}
    return {"choices": [_text(feature, number) for number in range(len(feature.texts))], **known}


def _tags(feature: Feature, model: Finetuned) -> Row:
    labels = np.full(len(feature.texts[0].ids), -100)
    if "tags" in feature.values:
        labels[feature.places["units"]] = feature.values["tags"]
    return _text(feature) | {"labels": labels.tolist()}


def _at_units(logits: Any, feature: Feature, model: Finetuned) -> Any:
    return logits[0][feature.places["units"]]


def _span(feature: Feature, model: Finetuned) -> Row:
    known = {}
    if "start" in feature.values:
        known = {"start_positions": int(feature.values["start"][0]), "end_positions": int(feature.values["end"][0])}
    return _text(feature) | known


def _starts_and_ends(logits: Any, feature: Feature, model: Finetuned) -> Any:
    """The best starts and ends within the context (or at [CLS]), as kitae.tasks.finding lays them out."""
    length = len(feature.texts[0].ids)
    outside = np.ones(length, np.bool_)
    outside[[0, *feature.places["context"]]] = False
    scores = [np.where(outside, -np.inf, part[:length]) for part in logits]
    rows = []
    for part in scores:
        best = np.argsort(-part, kind="stable")[: model.options.n_best]
        rows += [best, part[best]]
    return np.stack([*rows, np.full(len(rows[0]), scores[0][0] + scores[1][0])]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a kind of task goes through the Trainer."""

    auto: Any
    row: Callable[[Feature, Finetuned], Row]
    collator: Callable[[PreTrainedTokenizerBase], Callable[[list[Row]], Mapping[str, torch.Tensor]]]
    raw: Callable[[Any, Feature, Finetuned], Any] = lambda logits, feature, model: logits[0]
    """(logits of the row, one array for each output) -> what kitae's learner says of the feature."""
    outputs: tuple[str, ...] = ("logits",)
    options: Mapping[str, object] = field(default_factory=dict)


def _padded_choices(tokenizer: PreTrainedTokenizerBase) -> Callable[[list[Row]], Mapping[str, torch.Tensor]]:
    """[questions, choices, positions], as transformers' example of multiple choice pads them."""

    def collate(rows: list[Row]) -> Mapping[str, torch.Tensor]:
        flat = tokenizer.pad([choice for row in rows for choice in row["choices"]], return_tensors="pt")
        made = {name: values.view(len(rows), -1, values.shape[-1]) for name, values in flat.items()}
        return made | ({"labels": torch.tensor([row["labels"] for row in rows])} if "labels" in rows[0] else {})

    return collate


WAYS: Mapping[str, Way] = {
    "classification": Way(auto=AutoModelForSequenceClassification, row=_labelled, collator=DataCollatorWithPadding),
    "multilabel": Way(
        auto=AutoModelForSequenceClassification, row=_indicated, collator=DataCollatorWithPadding,
        options={"problem_type": "multi_label_classification"},
    ),
    "regression": Way(
        auto=AutoModelForSequenceClassification, row=_scaled, collator=DataCollatorWithPadding, raw=_unscaled,
        options={"problem_type": "regression"},
    ),
    "choice": Way(auto=AutoModelForMultipleChoice, row=_choices, collator=_padded_choices),
    "tagging": Way(
        auto=AutoModelForTokenClassification, row=_tags, collator=DataCollatorForTokenClassification, raw=_at_units
    ),
    "span": Way(
        auto=AutoModelForQuestionAnswering, row=_span, collator=DataCollatorWithPadding, raw=_starts_and_ends,
        outputs=("start_logits", "end_logits"),
    ),
}  # fmt: skip


class Peer:
    """One fine-tuning by the Trainer, of what kitae would begin with: `model`, of which features and decoding are used too."""

    def __init__(self, data: TaskData, model: Finetuned, config: TrialConfig, metric: str) -> None:
        self.data, self.ours, self.config, self.metric = data, model, config, metric
        self.way = WAYS[data.config.kind]
        with tempfile.TemporaryDirectory() as folder:
            model.tokenizer.save(Path(folder), max_length=model.max_length)
            self.collate = self.way.collator(AutoTokenizer.from_pretrained(folder))

    def load(self) -> torch.nn.Module:
        """The model's weights in transformers' class, in fp32."""
        encoder, kind = self.ours.learner.encoder, self.ours.kind
        labels = outputs(kind, self.ours.labels, self.ours.options)
        part = Part(head=kind.head(self.ours.options), config=encoder.config, state=encoder.state_dict(), labels=labels)
        rate, named = self.config.dropout, {AutoModelForMultipleChoice: ("classifier_dropout", "summary_last_dropout")}
        dropout = {} if rate is None else dict.fromkeys(named.get(self.way.auto, ("classifier_dropout",)), rate)
        with tempfile.TemporaryDirectory() as folder:
            write_huggingface(part, Path(folder))
            return self.way.auto.from_pretrained(folder, dtype=torch.float32, **dropout, **self.way.options)

    @cached_property
    def features(self) -> list[Feature]:
        """What is learnt."""
        return [feature for example in self.data.learned for feature in self.ours.features(example, learn=True)]

    @property
    def rows(self) -> list[Row]:
        """The same as the Trainer takes it."""
        return [self.way.row(feature, self.ours) for feature in self.features]

    def plan(self, seed: int) -> tuple[list[list[int]], list[float]]:
        """The numbers of the rows and the learning rate of every step, as kitae's training has them."""
        batches = TrainBatches(self.features, batch=self.config.batch, micro_batch=self.config.batch, pad=0, seed=seed)
        train = train_config(self.config, batches.steps_per_epoch)
        times = timetable(train, batches)
        return [batches.examples(step, 0).tolist() for step in range(times.total)], [
            rate_of_step(train, times, step) for step in range(times.total)
        ]

    def arguments(self, folder: str, seed: int) -> TrainingArguments:
        """The same settings as kitae's; what is not said is the Trainer's default."""
        config = self.config
        return TrainingArguments(
            output_dir=folder,
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.batch,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip or 0.0,
            adam_epsilon=1e-6,
            seed=seed,
            **QUIET,
            remove_unused_columns=False,
        )

    def train(self, seed: int) -> "tuple[torch.nn.Module, dict[str, float]]":
        """The model with the weights of the first best epoch on validation, and its validation scores."""
        set_seed(seed)
        model, best = self.load(), _Best(self)
        with tempfile.TemporaryDirectory() as folder:
            trainer = _Planned(
                model,
                self.arguments(folder, seed),
                data_collator=self.collate,
                train_dataset=self.rows,
                callbacks=[best],
            )
            trainer.order, trainer.rates = self.plan(seed)
            trainer.train()
        model.load_state_dict(best.state)
        self.tuned = best.tuned
        return model, best.chosen

    def validate(self, model: torch.nn.Module) -> tuple[dict[str, float], dict[str, float]]:
        """Scores on the validation examples, and the thresholds chosen on them where the kind has some."""
        ours, examples = self.ours, self.data.validation
        predicted = self.predict(model, examples, {})
        tuned = ours.kind.tune(examples, predicted, ours.options)
        return ours.kind.scores(examples, self.predict(model, examples, tuned) if tuned else predicted, ours.labels), tuned

    def test(self, model: torch.nn.Module) -> list[Predicted]:
        """What is predicted of the test examples."""
        return self.predict(model, self.data.test, self.tuned)

    @torch.inference_mode()
    def predict(self, model: torch.nn.Module, examples: Sequence[Example], tuned: Mapping[str, float]) -> list[Predicted]:
        """Padded batches in the given order, decoded by kitae."""
        model.eval()
        features = [self.ours.features(example) for example in examples]
        flat = [feature for some in features for feature in some]
        rows = [self.way.row(feature, self.ours) for feature in flat]
        raws = []
        for start in range(0, len(rows), PREDICT_BATCH):
            batch = self.collate([dict(row) for row in rows[start : start + PREDICT_BATCH]])
            found = model(**{name: value for name, value in batch.items() if name != "labels"})
            arrays = [found[name].float().numpy() for name in self.way.outputs]
            for i, feature in enumerate(flat[start : start + PREDICT_BATCH]):
                raws.append(self.way.raw([array[i] for array in arrays], feature, self.ours))
        taken = iter(raws)
        ours = self.ours
        return [
            ours.kind.decode(example, some, [next(taken) for _ in some], ours.labels, ours.options, tuned)
            for example, some in zip(examples, features, strict=True)
        ]


class _Planned(Trainer):
    """The Trainer with a given order of the rows and given learning rates: its own differ by half a step (the first is 0)."""

    order: Sequence[Sequence[int]]
    rates: Sequence[float]

    def get_train_dataloader(self) -> DataLoader:
        """See Trainer."""
        steps = -(-len(self.train_dataset) // self.args.per_device_train_batch_size)
        return DataLoader(self.train_dataset, batch_sampler=_Epochs(self.order, steps), collate_fn=self.data_collator)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """See Trainer; asks once more behind the last step."""
        shares = [rate / self.args.learning_rate for rate in (*self.rates, 0.0)]
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, shares.__getitem__)
        self._created_lr_scheduler = True
        return self.lr_scheduler


class _Epochs:
    """Iterated once an epoch: the batches of that epoch."""

    def __init__(self, order: Sequence[Sequence[int]], steps: int) -> None:
        self._order, self._steps, self._epoch = order, steps, 0

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[Sequence[int]]:
        first = self._epoch * self._steps
        self._epoch += 1
        return iter(self._order[first : first + self._steps])


class _Best(TrainerCallback):
    """Validates after every epoch and keeps the weights of the first best one."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.state: dict[str, torch.Tensor] = {}
        self.chosen: dict[str, float] = {}
        self.tuned: dict[str, float] = {}

    def on_epoch_end(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        """See TrainerCallback."""
        found, tuned = self._peer.validate(model)
        metric = self._peer.metric
        if not self.chosen or found[metric] > self.chosen[metric]:
            self.chosen, self.tuned = {"epoch": float(round(state.epoch))} | found, tuned
            self.state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.train()
