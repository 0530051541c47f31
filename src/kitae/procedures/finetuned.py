"""A fine-tuned model of any kind of task: what predicts, and its folder."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from safetensors.torch import load_file, save_file

from kitae.core.artifact import newest, seal
from kitae.core.config import Config, complaint
from kitae.core.errors import KitaeError
from kitae.models.family import LABELLED
from kitae.models.folder import Part, describe, read_parts
from kitae.models.folder import load as load_model
from kitae.models.settings import read_config
from kitae.procedures.fitting import MOST_TOKENS, check_length, read_tokenizer
from kitae.procedures.silent import require_numbers
from kitae.tasks.batches import predict
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kind import Feature, Kind, Learner, Predicted, Raw
from kitae.tasks.kinds import kind_of, options_of
from kitae.tasks.tags import scheme_of
from kitae.tokenization.tokenizer import Tokenizer

PREDICT_TOKENS = 4096  # positions of one batch of predictions
FINETUNED = ("sequence", "token", "span", "choice", "joint")
"""Heads of fine-tuned models."""
USE = "task.json"
MORE = "task.safetensors"
"""What a learner holds beside the model: transitions between tags, the scale of a regression."""


class Use(Config):
    """The content of task.json: how the model was trained to be used."""

    kind: str = "classification"
    """What it predicts."""
    kind_config: dict[str, object] = Field(default_factory=dict)
    """The settings of the kind."""
    labels: tuple[str, ...] = ()
    """The labels in the order of the outputs."""
    max_length: Annotated[int, Field(ge=3)] = MOST_TOKENS
    """Longest text in tokens."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("text",)
    """Columns of a table that hold the text."""
    second: tuple[str, ...] = ()
    """Columns of a table that hold the second text of a pair."""
    choices: tuple[str, ...] = ()
    """Columns of a table that hold the answers to choose from."""
    join: str = " "
    """What stands between the words of a text that is given as a list of words."""
    tuned: dict[str, float] = Field(default_factory=dict)
    """Thresholds chosen on validation."""

    @property
    def task(self) -> TaskConfig:
        """The task as far as prediction goes."""
        return TaskConfig(name="task", kind=self.kind, kind_config=self.kind_config, train=("-",), test=("-",))


@dataclass(frozen=True, kw_only=True)
class Finetuned:
    """A learner with all that it needs to predict; in fp32, or computing in bf16 (`half`)."""

    kind: Kind[Any]
    options: Any
    labels: tuple[str, ...]
    learner: Learner
    tokenizer: Tokenizer
    max_length: int
    tuned: Mapping[str, float] = field(default_factory=dict)
    half: bool = False

    def features(self, example: Example, *, learn: bool = False) -> list[Feature]:
        """What the model sees of an example."""
        return self.kind.features(example, self.tokenizer, self.labels, self.options, max_length=self.max_length, learn=learn)

    def predict(self, examples: Sequence[Example]) -> list[Predicted]:
        """One prediction per example, in their order; what is said of one depends on that one alone."""
        return self.of(examples, [self.features(example) for example in examples])

    def of(self, examples: Sequence[Example], features: Sequence[Sequence[Feature]]) -> list[Predicted]:
        """As `predict`, of features that were made before."""
        return self.decoded(examples, features, self.raws(features))

    def raws(self, features: Sequence[Sequence[Feature]]) -> list[list[Raw]]:
        """What the learner says of every feature of every example."""
        flat = [feature for some in features for feature in some]
        pad, device = self.tokenizer.special.pad, next(self.learner.parameters()).device
        said = predict(self.learner, flat, tokens=PREDICT_TOKENS, pad=pad, device=device, half=self.half) if flat else []
        require_numbers(said)
        following = iter(said)
        return [[next(following) for _ in some] for some in features]

    def decoded(self, examples: Sequence[Example], features: Sequence[Sequence[Feature]], raws: Sequence[Sequence[Raw]]) -> list[Predicted]:
        """What the learner's words say of the examples, by the thresholds of this model."""
        given = zip(examples, features, raws, strict=True)
        return [self.kind.decode(example, some, said, self.labels, self.options, self.tuned) for example, some, said in given]

    def with_tuned(self, tuned: Mapping[str, float]) -> "Finetuned":
        """The same with thresholds."""
        return replace(self, tuned=dict(tuned))


def use_of(model: Finetuned, task: TaskConfig) -> Use:
    """How the model of a task is to be used."""
    return Use(
        kind=task.kind,
        kind_config=task.kind_config,
        labels=model.labels,
        max_length=model.max_length,
        columns=task.text,
        second=task.second,
        choices=task.choices,
        join=str(task.format_config.get("join", " ")),
        tuned=dict(model.tuned),
    )


def save(model: Finetuned, use: Use, folder: Path) -> None:
    """A model folder: weights.safetensors, model.json, task.json, tokenizer/, manifest.json; task.safetensors where it is needed."""
    folder.mkdir(parents=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.learner.state_dict().items()}
    more = {name: state.pop(name) for name in list(state) if not name.startswith("encoder.")}
    save_file(state, folder / "weights.safetensors")
    if more:
        save_file(more, folder / MORE)
    (folder / "model.json").write_text(json.dumps(description(model), ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / USE).write_text(use.model_dump_json(indent=1), encoding="utf-8")
    model.tokenizer.save(folder / "tokenizer", max_length=use.max_length)
    seal(folder, kind="checkpoint", facts={"kind": use.kind, "labels": list(use.labels)})


def description(model: Finetuned) -> dict[str, object]:
    """The content of model.json."""
    head, config = model.kind.head(model.options), model.learner.encoder.config
    part = Part(head=head, config=config, state={}, labels=outputs(model.kind, model.labels, model.options))
    return describe({"encoder": part})


def outputs(kind: Kind[Any], labels: Sequence[str], options: Any) -> tuple[str, ...]:
    """Names of the head's outputs: the labels where there is one for each, else numbers; () for heads without names."""
    if kind.head(options) not in LABELLED:
        return ()
    count = kind.outputs(labels, options)
    return tuple(labels) if count == len(labels) else tuple(f"LABEL_{number}" for number in range(count))


def load(folder: Path) -> tuple[Finetuned, Use]:
    """From a trial, its model folder, or a Hugging Face folder with the head of a task; on the CPU.

    Raises KitaeError when the folder is damaged or holds no fine-tuned model.
    """
    place = newest(folder)
    part = read_parts(place).get("encoder")
    own = read_use(place)
    use = own or (None if part is None else _by_head(place, part))
    if part is None or use is None:
        cure = "give the folder of a fine-tuning trial (finetune/TASK/ENCODER/SEED), or an export of one"
        raise KitaeError(f"{folder} holds no fine-tuned model", cure=cure)
    kind, options = kind_of(use.task), options_of(use.task)
    if part.head != kind.head(options) or part.labels != outputs(kind, use.labels, options):
        raise KitaeError(f"{USE} does not belong to the model beside it", cure="run the trial again", where=str(place))
    check_length(use.max_length, part.config, where=str(place / USE))
    learner = kind.learner(load_model(part), use.labels, options, ())
    if own is not None:
        _load_more(learner, place)
    model = Finetuned(
        kind=kind,
        options=options,
        labels=use.labels,
        learner=learner.eval(),
        tokenizer=read_tokenizer(place, part),
        max_length=use.max_length,
        tuned=use.tuned,
    )
    return model, use


def _load_more(learner: Learner, place: Path) -> None:
    """What a learner holds beside the model. Raises KitaeError for anything but that."""
    more = load_file(place / MORE) if (place / MORE).is_file() else {}
    own = {name: tensor.shape for name, tensor in learner.state_dict().items() if not name.startswith("encoder.")}
    if own != {name: tensor.shape for name, tensor in more.items()}:
        raise KitaeError(f"{MORE} is missing or belongs to another model", cure="run the trial again", where=str(place))
    learner.load_state_dict(more, strict=False)


def read_use(place: Path) -> Use | None:
    """The content of task.json; None where there is none. Raises KitaeError when it is damaged."""
    if not (place / USE).is_file():
        return None
    try:
        return Use.model_validate_json((place / USE).read_bytes())
    except ValidationError as error:
        raise KitaeError(f"{USE} is damaged: {complaint(error)}", cure="run the trial again", where=str(place)) from error


def _by_head(place: Path, part: Part) -> Use | None:
    """What a Hugging Face folder without task.json can be used for, by its head and config.json; None for other heads."""
    length = min(part.config.positions, MOST_TOKENS)
    if part.head == "sequence":
        raw = read_config(place / "config.json") if (place / "config.json").is_file() else {}
        problem = raw.get("problem_type")
        if problem == "multi_label_classification":
            return Use(kind="multilabel", labels=part.labels, max_length=length)
        if len(part.labels) == 1:
            return Use(kind="regression", kind_config={"scaling": "none"}, max_length=length)
        if problem == "regression":
            what = f"the model gives {len(part.labels)} numbers for every text"
            raise KitaeError(what, cure="give a model of one number, or a classifier", where=str(place))
        return Use(labels=part.labels, max_length=length)
    if part.head == "token":
        return Use(kind="tagging", kind_config={"scheme": scheme_of(part.labels)}, labels=part.labels, max_length=length)
    if part.head == "span":
        return Use(kind="span", columns=("question",), second=("context",), max_length=length)
    if part.head == "choice":
        return Use(kind="choice", choices=("choices[]",), max_length=length)
    return None
