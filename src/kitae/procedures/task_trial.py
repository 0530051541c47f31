"""A trial of a task as a node of the graph says it: what is learnt, from which examples, from which start, with which seed."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from kitae.core.artifact import Inputs
from kitae.core.config import LATER
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.procedures.trials import Start, TrialConfig, read_start
from kitae.tasks.config import TaskConfig
from kitae.tasks.fewer import fewer
from kitae.tasks.records import TaskData, load
from kitae.tasks.shift import shifted
from kitae.tensor.random import key
from kitae.train.rule_config import FreezeConfig


class TaskTrial(TrialConfig):
    """One trial."""

    task: TaskConfig
    """The labelled examples."""
    encoder: str
    """"random" (the start's architecture with new weights), "majority", "tfidf", or the name of what is fine-tuned."""
    seed: int
    """Seed of the new weights, of the order of the examples and of dropout."""
    start: str | None = None
    """A Hugging Face folder or checkpoint outside the recipe; absent: the stage that the graph gives."""
    learn_from: Annotated[TaskConfig | None, LATER] = None
    """Another task, whose examples are learnt from and chosen on in the place of this one's."""
    label_count: Annotated[int | None, LATER, Field(ge=1)] = None
    """Learn from so many of the training examples only: a draw that the seed decides, the same for every encoder."""
    frozen: Annotated[bool, LATER] = False
    """Train the head alone, on what the encoder says as it is."""


def files_of(config: TaskTrial) -> tuple[str, ...]:
    """The files of the tasks and the start folder."""
    files = config.task.files if config.learn_from is None else (*config.task.files, *config.learn_from.files)
    return (*files, *((config.start,) if config.start else ()))


def examples_of(config: TaskTrial, inputs: Inputs) -> TaskData:
    """The examples of a trial: the task's, or those of two tasks in a shift, and fewer of them on a learning curve."""
    data = load(config.task)
    if config.learn_from is not None:
        data = shifted(load(config.learn_from), data)
    return data if config.label_count is None else fewer(data, config.label_count, seed=key(inputs.seed, "fewer", config.seed))


def begin(config: TaskTrial, inputs: Inputs) -> tuple[Start, TrialConfig]:
    """What a trial starts from, and its settings. Raises KitaeError when there is nothing to start from."""
    start = read_start(start_folder(config.encoder, config.start, inputs), fresh=config.encoder == "random")
    trial = TrialConfig.model_validate({name: getattr(config, name) for name in TrialConfig.model_fields})
    if config.frozen:
        trial = trial.model_copy(update={"freeze": FreezeConfig(encoder=True)})
    return start, trial


def licence(task: TaskConfig) -> dict[str, str]:
    """The task's row among the licences of an artifact."""
    return {"name": task.name, "licence": task.licence or "not stated", "source": task.citation or ", ".join(task.files)}


def trial_seed(config: TaskTrial, inputs: Inputs) -> int:
    """What everything random in a trial follows from."""
    return key(inputs.seed, "trial", config.seed)


def start_folder(encoder: str, start: str | None, inputs: Inputs) -> Path:
    """Where a trial of the encoder starts: an outside folder, or what the graph gives. Raises KitaeError when there is nothing."""
    folder = locate(start) if start else inputs.get("start")
    if folder is None:
        raise KitaeError(f'the encoder "{encoder}" has no folder to start from', cure="give `start`, the folder of an encoder")
    return folder
