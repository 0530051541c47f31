"""Sweeps: the same candidates for every encoder, each judged by validation alone; the best one is what the trials take."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from kitae.core.config import Config, complaint
from kitae.core.errors import KitaeError

SWEEP = "sweep.json"
PACKAGE = "optuna"
TRIALS = 20
"""Candidates of a search where the recipe does not say."""


class SweepConfig(Config):
    """[finetune.sweep]: learning rates and epochs to try; what validation likes best is what the trials of an encoder take."""

    learning_rate: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)] = (5e-5, 3e-5, 2e-5)
    """Learning rates. The defaults, of rates and epochs, are JGLUE's (Kurihara et al. 2022)."""
    epochs: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=1)] = (3, 4)
    """Numbers of epochs."""
    seeds: Literal["first", "all"] = "first"
    """Whether a candidate is tried with the first of finetune.seeds, or with all of them and judged by the mean."""
    search: Literal["grid", "optuna"] = "grid"
    """"grid" tries every pair of both lists. "optuna" lets optuna's TPE look for `trials` candidates between the least and the greatest of
    each list (rates on a logarithmic scale), and needs `pip install 'kitae[optuna]'`."""
    trials: Annotated[int | None, Field(ge=1)] = None
    """Candidates of "optuna"; 20 when absent."""

    @model_validator(mode="after")
    def _check(self) -> "SweepConfig":
        if self.trials is not None and self.search == "grid":
            raise ValueError('`trials` is for search = "optuna": a grid has as many as its lists make')
        for name, values in (("learning_rate", self.learning_rate), ("epochs", self.epochs)):
            if len(set(values)) != len(values):
                raise ValueError(f"`{name}` names a value twice")
        return self

    def candidates(self) -> list["Candidate"]:
        """Of a grid, in its order: all epochs of the first learning rate, then those of the next."""
        return [Candidate(learning_rate=rate, epochs=epochs) for rate, epochs in itertools.product(self.learning_rate, self.epochs)]


class Candidate(Config):
    """Settings that are tried."""

    learning_rate: float
    """Highest learning rate."""
    epochs: int
    """Passes over the training examples."""

    @property
    def name(self) -> str:
        """Part of its node's name: "5e-05x3"."""
        return f"{self.learning_rate:g}x{self.epochs}"


class Tried(Config):
    """What validation said of a candidate with one seed."""

    candidate: Candidate
    """The settings."""
    seed: int
    """The trial's."""
    metric: str
    """What it was judged by."""
    score: float
    """That metric on validation, at its best epoch."""
    chosen: dict[str, float]
    """That epoch, with all its validation scores."""


class _File(Config):
    """The content of sweep.json."""

    tried: list[Tried]
    """In the order of trying."""


def write(tried: Iterable[Tried], folder: Path) -> None:
    """Write sweep.json."""
    (folder / SWEEP).write_text(_File(tried=list(tried)).model_dump_json(indent=1), encoding="utf-8")


def read(folder: Path) -> list[Tried]:
    """What `write` wrote. Raises KitaeError when it is absent or damaged."""
    try:
        return _File.model_validate_json((folder / SWEEP).read_bytes()).tried
    except (OSError, ValidationError) as error:
        what = complaint(error) if isinstance(error, ValidationError) else str(error)
        raise KitaeError(f"the sweep cannot be read: {what}", cure="remove its folder and run again", where=str(folder)) from error


def means(tried: Sequence[Tried]) -> dict[Candidate, float]:
    """The mean validation score of every candidate over its seeds, in the order of their first trial."""
    scores: dict[Candidate, list[float]] = {}
    for one in tried:
        scores.setdefault(one.candidate, []).append(one.score)
    return {candidate: sum(found) / len(found) for candidate, found in scores.items()}


def best(tried: Sequence[Tried]) -> Candidate:
    """The candidate of the highest mean validation score, the first of them where several have it."""
    found = means(tried)
    return max(found, key=lambda candidate: found[candidate])


def check_search(config: SweepConfig) -> None:
    """Raise KitaeError when the sweep needs a package that is not installed."""
    if config.search == "optuna" and find_spec(PACKAGE) is None:
        cure = "pip install 'kitae[optuna]', or take search = \"grid\""
        raise KitaeError('finetune.sweep.search = "optuna", which is not installed', cure=cure)


class Search:
    """Candidates that optuna's TPE sampler proposes one after another (Akiba et al. 2019): a pure function of the seed and the scores."""

    def __init__(self, config: SweepConfig, seed: int) -> None:
        """Raises KitaeError when optuna is not installed."""
        check_search(config)
        optuna: Any = import_module(PACKAGE)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._config = config
        self._study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed % 2**32))

    def __iter__(self) -> Iterator[tuple[Candidate, Any]]:
        """Each candidate with the mark by which its score is told; the score must be told before the next one is asked for."""
        rates, epochs = self._config.learning_rate, self._config.epochs
        for _ in range(self._config.trials or TRIALS):
            trial = self._study.ask()
            rate = trial.suggest_float("learning_rate", min(rates), max(rates), log=True)
            yield Candidate(learning_rate=rate, epochs=trial.suggest_int("epochs", min(epochs), max(epochs))), trial

    def tell(self, trial: Any, score: float) -> None:
        """The score of a candidate."""
        self._study.tell(trial, score)


def table(tried: Sequence[Tried]) -> list[dict[str, float]]:
    """Every candidate with its mean validation score, for a trial's results."""
    return [{"learning_rate": c.learning_rate, "epochs": float(c.epochs), "score": score} for c, score in means(tried).items()]
