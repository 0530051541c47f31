"""The part of the graph that [finetune] makes: candidates of sweeps, trials, comparisons, learning curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitae.chain.finetune_table import BASELINES, DOMAIN_TUNED, FROZEN, FULLY_TUNED, SHIFT, FinetuneTable
from kitae.chain.making import make
from kitae.chain.recipe import Recipe, task_named
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.graph import Node
from kitae.core.recipe import validate
from kitae.procedures.comparison import Quoted
from kitae.procedures.sweep import Candidate, SweepConfig
from kitae.stages.curve import CurveConfig
from kitae.stages.evaluate import EvaluateConfig
from kitae.stages.finetune import SWEEP, FinetuneConfig, FinetuneSettings
from kitae.stages.overview import OverviewConfig
from kitae.stages.sweep import CandidateConfig
from kitae.stages.together import TogetherConfig
from kitae.tasks.config import TaskConfig


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One of what is compared: its part of the nodes' names, and what is particular of its trials."""

    label: str
    settings: Mapping[str, object]
    """Fields of FinetuneConfig."""
    parents: Mapping[str, str] = field(default_factory=dict)
    learns: bool = True
    """Whether it is trained by steps, so that a sweep means something to it."""


def finetuning(recipe: Recipe, where: str) -> list[Node]:
    """Every node of [finetune]: for each task and each number of labelled examples all trials, and what compares them."""
    table = recipe.finetune
    if table is None:
        return []
    made: list[Node] = []
    source = None if table.source is None else task_named(recipe, table.source, where)
    entries = [_entry(recipe, name, source, where) for name in table.compare] + [_given(name) for name in table.trained]
    groups = {group: list(_together(recipe, table, group, entries, where)) for group in table.together}
    made += [node for nodes in groups.values() for node in nodes]
    for name in dict.fromkeys((*table.task, *(name for group in table.together for name in group))):
        task = task_named(recipe, name, where, metric=table.metric)
        compared: dict[str, str] = {}
        for count in (*(table.label_counts if name in table.task else ()), None):
            title = name if count is None else f"{name}@{count}"
            trials = []
            for entry in entries if name in table.task else ():
                if count is None or not entry.settings.get("trained"):  # what does not learn has no curve
                    nodes = list(_trials(table, task, entry, count, title))
                    made += nodes
                    trials += [node for node in nodes if node.stage == "finetune"]
            if count is None:
                trials += [node for group, nodes in groups.items() if name in group for node in nodes]
            shared = dict(recipe.evaluate) | {"quoted": _quoted(recipe, table, name, where) if count is None else ()}
            evaluate = EvaluateConfig.model_validate(shared | {"task": task, "metric": table.metric})
            made.append(make(f"evaluate/{title}", "evaluate", evaluate, {trial.name: trial.name for trial in trials}))
            compared[title] = f"evaluate/{title}"
        if table.label_counts and name in table.task:
            made.append(make(f"curve/{name}", "curve", CurveConfig(task=name), compared))
    if len(table.task) > 1:
        made.append(make("overview", "overview", OverviewConfig(tasks=table.task), {name: f"evaluate/{name}" for name in table.task}))
    return made


def _together(recipe: Recipe, table: FinetuneTable, group: tuple[str, ...], entries: Sequence[Entry], where: str) -> Iterator[Node]:
    """The trials of a group of tasks that are learnt at once, by every encoder that learns all of itself from the tasks' own labels."""
    tasks = [task_named(recipe, name, where) for name in group]
    shared = [{"task": task, "trial": settings_of(table, task)} for task in tasks]
    for entry in entries:
        if not entry.learns or entry.settings.get("frozen"):
            continue
        own = {"encoder": entry.settings["encoder"], "start": entry.settings.get("start")}
        for seed in table.seeds:
            said = {"shared": shared, "sampling": table.sampling, "seed": seed, **own}
            config = validate(TogetherConfig, said, f"{where}, finetune.together = {list(group)}")
            yield make(f"together/{'+'.join(group)}/{entry.label}/{seed}", "together", config, entry.parents)


def _quoted(recipe: Recipe, table: FinetuneTable, task: str, where: str) -> tuple[Quoted, ...]:
    """The quoted scores of a task. Raises KitaeError for one that names no task of [finetune], or none where there are several."""
    for one in recipe.evaluate.quoted:
        place = f"{where}, table [[evaluate.quoted]]"
        if one.task and one.task not in table.task:
            raise KitaeError(f'"{one.name}" is quoted for the task "{one.task}"', cure=did_you_mean(one.task, table.task), where=place)
        if not one.task and len(table.task) > 1:
            raise KitaeError(f'"{one.name}" is quoted without a task, and there are several', cure='add task = "..."', where=place)
    return tuple(one for one in recipe.evaluate.quoted if one.task in ("", task))


def settings_of(table: FinetuneTable, task: TaskConfig) -> dict[str, object]:
    """How to fine-tune for a task: what [finetune] says, below it what the task itself does. Raises KitaeError for unknown keys there."""
    said = {name: getattr(table, name) for name in FinetuneSettings.model_fields if name in table.model_fields_set}
    proposed = {"shorten": task.shorten and "max_length" not in said, **task.finetune}
    checked = validate(FinetuneSettings, {**proposed, **said}, f"task {task.name}", "finetune")
    return {name: getattr(checked, name) for name in FinetuneSettings.model_fields}


def _trials(table: FinetuneTable, task: TaskConfig, entry: Entry, count: int | None, title: str) -> Iterator[Node]:
    """The trials of one task and encoder, before them the candidates of their sweep."""
    shared = {**settings_of(table, task), **entry.settings, "task": task, "label_count": count}
    if not entry.learns and (count is None or entry.settings.get("trained")):
        seeds = table.seeds[:1]  # no randomness: one trial says all
    else:
        seeds = table.seeds
    candidates: dict[str, str] = {}
    if table.sweep is not None and entry.learns:
        for node in _candidates(table.sweep, shared, entry, f"sweep/{title}/{entry.label}", table.seeds):
            candidates[f"{SWEEP}{node.name}"] = node.name
            yield node
    elif entry.settings.get("frozen"):
        shared["learning_rate"] = table.frozen_learning_rate
    for seed in seeds:
        config = FinetuneConfig.model_validate({**shared, "seed": seed})
        yield make(f"finetune/{title}/{entry.label}/{seed}", "finetune", config, {**entry.parents, **candidates})


def _candidates(sweep: SweepConfig, shared: Mapping[str, object], entry: Entry, folder: str, seeds: tuple[int, ...]) -> Iterator[Node]:
    tried = seeds if sweep.seeds == "all" else seeds[:1]
    if sweep.search == "optuna":
        config = CandidateConfig.model_validate({**shared, "seed": tried[0], "search": sweep, "seeds": tried})
        yield make(f"{folder}/search", "sweep", config, entry.parents)
        return
    for candidate in sweep.candidates():
        for seed in tried:
            config = CandidateConfig.model_validate({**shared, **_of(candidate), "seed": seed})
            yield make(f"{folder}/{candidate.name}/{seed}", "sweep", config, entry.parents)


def _of(candidate: Candidate) -> dict[str, object]:
    return {"learning_rate": candidate.learning_rate, "epochs": candidate.epochs}


def _entry(recipe: Recipe, name: str, source: TaskConfig | None, where: str) -> Entry:
    settings: dict[str, object] = {"encoder": name, "learn_from": None if name == FULLY_TUNED else source}
    fresh = "pretrain" if recipe.pretrain is not None else "adapt"  # whose architecture the random encoder has
    if name in BASELINES:
        return Entry(label=name, settings=settings, learns=False)
    if name in ("random", "pretrain", "adapt", DOMAIN_TUNED):
        parent = {"random": fresh, DOMAIN_TUNED: "adapt"}.get(name, name)
        return Entry(label=name, settings=settings, parents={"start": parent})
    if name not in SHIFT:
        return Entry(label=Path(name).name, settings=settings | {"start": name})
    settings["frozen"] = name == FROZEN
    if recipe.pretrain is not None:
        return Entry(label=name, settings=settings, parents={"start": "pretrain"})
    if recipe.adapt is None or recipe.adapt.start is None:
        what = f'finetune.compare names "{name}", but the recipe has no encoder for it'
        raise KitaeError(what, cure="add a table [pretrain], or [adapt] with a start", where=where)
    return Entry(label=name, settings=settings | {"start": recipe.adapt.start})


def _given(folder: str) -> Entry:
    return Entry(label=Path(folder).name, settings={"encoder": folder, "start": folder, "trained": True}, learns=False)
