"""[finetune] of a recipe: what is compared on which tasks, and by which protocol."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from kitae.core.errors import KitaeError, did_you_mean
from kitae.procedures.sweep import SweepConfig
from kitae.stages.finetune import FinetuneSettings
from kitae.tasks.together import Sampling

BASELINES = ("majority", "tfidf")
FROZEN, TASK_TUNED, DOMAIN_TUNED, FULLY_TUNED = "frozen", "task-tuned", "domain-tuned", "fully-tuned"
SHIFT = (FROZEN, TASK_TUNED, DOMAIN_TUNED, FULLY_TUNED)
"""The four settings of Han and Eisenstein (2019), as names in `compare`."""


class FinetuneTable(FinetuneSettings):
    """[finetune]: tasks, seeds and the encoders to compare; every combination is one trial."""

    task: tuple[str, ...]
    """Names of [task.NAME] tables or of built-in tasks."""
    seeds: tuple[int, ...] = (1, 2, 3, 4, 5)
    """One trial each."""
    compare: tuple[str, ...] = ("random", "pretrain", "adapt")
    """Encoders side by side: "random", stages of this recipe, Hugging Face folders, "majority", "tfidf". And settings of this recipe's
    encoder (Han and Eisenstein, 2019): "frozen" learns the head alone; with `source`, "task-tuned" learns all of it from the source's
    labels, "domain-tuned" does so after [adapt], "fully-tuned" learns the labels of `task` itself."""
    source: str | None = None
    """Name of a task of the same kind, whose examples are learnt from and chosen on while the tasks in `task` are only scored: a shift
    of domain. "fully-tuned" alone does without it."""
    frozen_learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Highest learning rate of "frozen", where no sweep chooses it: a head alone wants a higher one."""
    trained: tuple[str, ...] = ()
    """Folders of fine-tuned models (trials, exports, Hugging Face folders with a trained head) that are scored as they are, without
    training, beside the others."""
    sweep: SweepConfig | None = None
    """Learning rates and epochs to choose from by validation, for each encoder; {} is JGLUE's grid."""
    label_counts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Numbers of labelled examples for learning curves: [10, 30, 100, 300]. All trials are made with each of them, and with all
    examples."""

    together: tuple[tuple[str, ...], ...] = ()
    """Groups of tasks that are also learnt in one training, by one encoder with a head for each: [["rte", "mrpc"]]. Every encoder of
    `compare` that learns is trained so, beside the trials of the tasks in `task` alone."""
    sampling: Sampling = "proportional"
    """How often each task's turn comes in a training of several, by its number of examples n: "proportional" to n, "square root" of n,
    "annealed" (n**a, a falls from 1 to 0.2), or "uniform"."""

    @property
    def entries(self) -> tuple[str, ...]:
        """What is compared, in order: `compare`, then `trained`."""
        return (*self.compare, *self.trained)


def check(table: FinetuneTable, tasks: Sequence[str], where: str) -> None:
    """Raise KitaeError for tables that contradict themselves. `tasks`: what a source can be."""
    for key, listed in (("task", table.task), ("seeds", table.seeds), ("compare", table.entries), ("label_counts", table.label_counts)):
        if not listed and key != "label_counts" and not (key == "task" and table.together):
            raise KitaeError(f"finetune.{key} is empty", cure="name at least one", where=where)
        double = [item for item in listed if listed.count(item) > 1]
        if double:
            raise KitaeError(f"finetune.{key} names {double[0]!r} twice", cure="name it once", where=where)
    groups = list(map(frozenset, table.together))
    for group in table.together:
        if groups.count(frozenset(group)) > 1:
            raise KitaeError(f"finetune.together has the group {', '.join(group)} twice", cure="name it once", where=where)
        if len(set(group)) < len(group) or len(group) < 2:
            what = f"finetune.together names {', '.join(group) or 'nothing'} as a group"
            raise KitaeError(what, cure="a group is two different tasks or more", where=where)
    if table.together and table.source is not None:
        what = "finetune.together does not go with finetune.source"
        raise KitaeError(what, cure="put the shift of domain into a recipe of its own", where=where)
    asked = [name for name in SHIFT if name in table.compare and name != FROZEN]
    if asked and table.source is None:
        cure = 'name the task whose labels are learnt: source = "..."'
        raise KitaeError(f'finetune.compare names "{asked[0]}", but finetune.source is missing', cure=cure, where=where)
    if table.source is not None and table.source in table.task:
        raise KitaeError(f'finetune.source = "{table.source}" is also one of finetune.task', cure="name another task", where=where)
    if table.source is not None and table.source not in tasks:
        raise KitaeError(f'finetune.source = "{table.source}" is no task', cure=did_you_mean(table.source, tasks), where=where)
