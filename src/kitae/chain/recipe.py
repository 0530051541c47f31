"""The recipe as a closed model: one table per stage, and what joins them."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from kitae.chain.debug import shrink
from kitae.chain.finetune_table import BASELINES, SHIFT, FinetuneTable, check
from kitae.chain.sizes import with_own_presets
from kitae.core import recipe as raw_recipe
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.procedures.machine import PlanConfig
from kitae.procedures.probe import ProbeConfig
from kitae.procedures.regrow import RegrowConfig
from kitae.stages.corpus import CorpusConfig, SourceConfig
from kitae.stages.dataset import DatasetConfig
from kitae.stages.evaluate import EvaluateSettings
from kitae.stages.export import ExportConfig
from kitae.stages.pretrain import PretrainConfig
from kitae.stages.tokenizer import TokenizerConfig
from kitae.tasks.config import TaskConfig
from kitae.tasks.presets.table import expand
from kitae.tasks.records import TASKS, check_task, find
from kitae.text.clean import Normalization
from kitae.train.config import TrainConfig
from kitae.train.phases import phases_of

CORPUS_KEYS = ("holdout", "language", "normalization", "decontaminate")
"""What [adapt] may set for its own corpus."""


class AdaptTable(Config):
    """[adapt]: continue an encoder on domain text."""

    source: tuple[SourceConfig, ...]
    """Domain text; the path "task:NAME/train" takes a task's own training texts."""
    train: TrainConfig
    """How to train on it."""
    start: str | None = None
    """A Hugging Face folder or checkpoint to continue from; the default is this recipe's [pretrain]."""
    start_generator: str | None = None
    """A folder of the generator to continue with, where `start` holds the discriminator."""
    regrow: RegrowConfig | None = None
    """How a discriminator that comes without its generator gets one; the default is [pretrain]'s."""
    probe: ProbeConfig | None = None
    """A copy of the weights is fine-tuned on a small task now and then, as in [pretrain], whose probe is not taken over."""
    holdout: float | str | None = None
    """Held-out share or count of the domain text; the default is [corpus]'s."""
    language: Literal["ja", "en"] | None = None
    """Whose sentence ends are looked for; the default is [corpus]'s."""
    normalization: Normalization | None = None
    """Unicode normal form; the default is [corpus]'s."""
    decontaminate: tuple[str, ...] | None = None
    """Names of tasks whose texts the domain text must not contain; the default is [corpus]'s."""
    objective: Literal["mlm", "rtd", "electric"] | None = None
    """What is learnt; the default is [pretrain]'s, and without that table it is needed."""
    objective_config: dict[str, object] | None = None
    """Overrides of the objective's fields; the default is [pretrain]'s."""
    tokenizer: dict[str, object] | None = None
    """A vocabulary of the domain's own, made from its text: settings of [tokenizer] that differ, none in an empty table ({}). Only a model
    that reads the characters of words can change its vocabulary: its head gets the new words, its encoder goes on. The default is
    [tokenizer]'s vocabulary."""


class Recipe(Config):
    """One run."""

    output: str
    """The folder of all artifacts."""
    seed: int = 1
    """Everything random follows from it."""
    scale: Literal["full", "debug"] = "full"
    """"debug" shrinks model, data and lengths to minutes."""
    debug: Annotated[dict[str, object], OPERATIONAL] = Field(default_factory=dict)
    """What scale = "debug" takes besides: tables as in the recipe that are laid over it, for example [debug.corpus] with sources that
    lie at hand; [debug.tokenizer] replaces the whole table."""
    data: dict[str, str] = Field(default_factory=dict)
    """Roots of paths: `shared = "$NAME|default"` makes "shared:file" a path below it."""
    keep: Literal["all", "needed"] = "all"
    """"needed" drops, at the end of a run, what nothing in the recipe needs any more: training text and tokens of corpora and datasets
    whose readers are all done, and the checkpoints of finished trainings but the newest and the milestones. What is needed again is made
    again."""
    replace: tuple[str, ...] = ()
    """Nodes or stages whose trained weights may be replaced when their settings changed."""
    corpus: CorpusConfig | None = None
    """General text."""
    tokenizer: TokenizerConfig | None = None
    """The vocabulary."""
    dataset: DatasetConfig | None = None
    """Token shards."""
    presets: dict[str, dict[str, object]] = Field(default_factory=dict)
    """Model sizes of the user's own: `[presets.NAME]` with `base`, a preset of kitae or another one of these, and the fields that
    differ from it; `pretrain.model = "NAME"` takes it."""
    pretrain: PretrainConfig | None = None
    """Pre-training."""
    adapt: AdaptTable | None = None
    """Continued pre-training on domain text."""
    task: dict[str, TaskConfig] = Field(default_factory=dict)
    """Tasks of the user's own, by name."""
    finetune: FinetuneTable | None = None
    """Fine-tuning trials."""
    evaluate: EvaluateSettings = EvaluateSettings()
    """How trials are compared: draws, the worst examples, and `[[evaluate.quoted]]`, published scores of other systems."""
    plan: PlanConfig = PlanConfig()
    """What `kitae plan` estimates for: device, MFU, price, sizes side by side, and whether it measures."""
    export: ExportConfig | None = None
    """What to export."""
    export_trials: Annotated[bool, OPERATIONAL] = True
    """Whether the first trial of the last trained encoder of each task is exported as a classifier."""


def load(name: str, overrides: tuple[str, ...] = ()) -> tuple[Recipe, Path]:
    """Read, complete and check a recipe. Raises KitaeError for whatever a user can get wrong in it."""
    raw, path = raw_recipe.load(name, overrides)
    where = str(path)
    raw = with_own_presets(raw, where)
    if raw.get("scale") == "debug":
        raw = shrink(raw, where)
    tasks = raw.get("task", {})
    if isinstance(tasks, dict):
        raw["task"] = {key: {"name": key, **table} if isinstance(table, dict) else table for key, table in tasks.items()}
    roots = raw.get("data", {})
    if isinstance(roots, dict):
        raw = raw_recipe.substitute_roots(raw, {key: str(value) for key, value in roots.items()}, where)
    tasks = raw.get("task", {})
    if isinstance(tasks, dict):
        raw["task"] = {key: expand(table, where) if isinstance(table, dict) else table for key, table in tasks.items()}
    recipe = raw_recipe.validate(Recipe, raw, where)
    _check(recipe, where)
    return recipe, path


def task_named(recipe: Recipe, name: str, where: str, *, metric: str = "") -> TaskConfig:
    """The recipe's own task of that name, or the built-in one. Raises KitaeError when there is neither, for wrong settings of it,
    and for a `metric` that its kind lacks.
    """
    try:
        found = find(name, recipe.task)
        check_task(found, metric)
    except KitaeError as error:
        raise KitaeError(error.what, cure=error.cure, where=f"{where}, {error.where}" if error.where else where) from error
    return found


def _check(recipe: Recipe, where: str) -> None:
    outside = recipe.adapt is not None and recipe.adapt.start is not None
    taken = recipe.tokenizer is not None and recipe.tokenizer.from_ is not None
    own = recipe.adapt is not None and recipe.adapt.tokenizer is not None
    needs = (
        ("tokenizer", recipe.tokenizer is not None and not taken, "corpus", recipe.corpus),
        ("dataset", recipe.dataset is not None and (recipe.corpus is not None or not own), "tokenizer", recipe.tokenizer),
        ("pretrain", recipe.pretrain is not None, "dataset", recipe.dataset),
        ("pretrain", recipe.pretrain is not None, "corpus", recipe.corpus),
        ("adapt", recipe.adapt is not None, "dataset", recipe.dataset),
        ("adapt", recipe.adapt is not None and not outside, "pretrain", recipe.pretrain),
    )
    for table, present, needed, there in needs:
        if present and there is None:
            raise KitaeError(f"[{table}] needs [{needed}], which is missing", cure=f"add a table [{needed}]", where=where)
    if recipe.pretrain is not None and recipe.pretrain.model is None and recipe.pretrain.start is None:
        raise KitaeError("pretrain.model is missing", cure='name a preset, for example model = "electra-small"', where=where)
    if recipe.pretrain is None and recipe.adapt is not None and recipe.adapt.objective is None:
        raise KitaeError(
            "adapt.objective is missing", cure='write objective = "mlm" or "rtd" (there is no [pretrain] to take it from)', where=where
        )
    _check_starts(recipe, where)
    for table, training in (("pretrain", recipe.pretrain), ("adapt", recipe.adapt)):
        if training is not None and recipe.dataset is not None:
            try:
                phases_of(training.train, recipe.dataset.max_length)
            except KitaeError as error:
                raise KitaeError(error.what, cure=error.cure, where=f"{where}, table [{table}.train]") from error
    if recipe.finetune is not None:
        _check_finetune(recipe, recipe.finetune, where)


def _check_starts(recipe: Recipe, where: str) -> None:
    pretrain, adapt = recipe.pretrain, recipe.adapt
    if pretrain is not None and pretrain.start is None and pretrain.start_generator is not None:
        raise KitaeError(
            "pretrain.start_generator without a start",
            cure="name the discriminator's folder as pretrain.start",
            where=f"{where}, table [pretrain]",
        )
    if pretrain is not None and pretrain.start is not None:
        dead = [key for key in pretrain.config if key != "generator"]
        if dead:
            cure = "remove it (`generator` alone is heeded, where one is regrown), or remove the start"
            what = f"pretrain.config.{dead[0]} has no effect with a start, whose folder brings its own numbers"
            raise KitaeError(what, cure=cure, where=f"{where}, table [pretrain]")
    if pretrain is not None and adapt is not None and adapt.start is None and adapt.objective not in (None, pretrain.objective):
        raise KitaeError(
            f'adapt.objective = "{adapt.objective}" cannot go on with the models that [pretrain] makes by "{pretrain.objective}"',
            cure="remove adapt.objective, or name the folder of a model for it as adapt.start",
            where=f"{where}, table [adapt]",
        )


def _check_finetune(recipe: Recipe, table: FinetuneTable, where: str) -> None:
    check(table, (*recipe.task, *TASKS), where)
    stages = [name for name in ("pretrain", "adapt") if getattr(recipe, name) is not None]
    for encoder in table.compare:
        if encoder in (*BASELINES, *stages) or (encoder in ("random", *SHIFT) and stages) or Path(encoder).is_dir():
            continue
        known = did_you_mean(encoder, ["random", *BASELINES, *stages, *SHIFT])
        raise KitaeError(f'finetune.compare names "{encoder}", which is no stage of this recipe and no folder', cure=known, where=where)
