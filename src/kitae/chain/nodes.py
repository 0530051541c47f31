"""From a recipe to the graph of its nodes."""

from collections.abc import Sequence
from pathlib import Path

from kitae.chain.ahead import check_nodes
from kitae.chain.finetune_table import BASELINES
from kitae.chain.making import make
from kitae.chain.recipe import CORPUS_KEYS, AdaptTable, Recipe, task_named
from kitae.chain.trial_nodes import finetuning
from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.graph import Node, ancestors, order
from kitae.core.paths import unfit
from kitae.core.recipe import validate
from kitae.stages.corpus import CorpusConfig
from kitae.stages.export import ExportConfig
from kitae.stages.pretrain import PretrainConfig
from kitae.stages.table import STAGES
from kitae.stages.tokenizer import TokenizerConfig


def nodes(recipe: Recipe, where: str) -> list[Node]:
    """Every node of the recipe, parents before children. `where` names the recipe in errors."""
    made = [*_pretraining(recipe, where), *_adaptation(recipe, where), *finetuning(recipe, where)]
    if recipe.export is not None:
        made.append(_export(recipe, recipe.export))
    names = [node.name for node in made]
    for name in names:
        bad = next((part for part in name.split("/") if unfit(part)), None)
        if bad is not None:
            raise KitaeError(f"{bad[:60]!r} cannot be the name of a node: {unfit(bad)}", cure="rename the folder or the task", where=where)
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        cure = "rename one of the folders: a node is called after its folder"
        raise KitaeError(f'finetune.compare makes "{double}" twice', cure=cure, where=where)
    if recipe.dataset is not None:
        check_nodes(made, recipe.tokenizer, recipe.dataset, where)
    known = {*names, *(node.stage for node in made), *(name.rpartition("/")[0] for name in names), *STAGES} - {""}
    for name in recipe.replace:
        if name not in known:
            raise KitaeError(f'replace names "{name}", which is no node', cure=did_you_mean(name, known), where=where)
    return order(made)


def _pretraining(recipe: Recipe, where: str) -> list[Node]:
    made = []
    if recipe.corpus is not None:
        made.append(make("corpus", "corpus", _with_tasks(recipe, recipe.corpus, where), {}))
    if recipe.tokenizer is not None:
        made.append(make("tokenizer", "tokenizer", recipe.tokenizer, {"corpus": "corpus"} if recipe.corpus is not None else {}))
    if recipe.dataset is not None and recipe.corpus is not None:
        made.append(make("dataset", "dataset", recipe.dataset, {"corpus": "corpus", "tokenizer": "tokenizer"}))
    if recipe.pretrain is not None:
        made.append(make("pretrain", "pretrain", _with_probe(recipe, recipe.pretrain, where), {"dataset": "dataset"}))
    return made


def _adaptation(recipe: Recipe, where: str) -> list[Node]:
    adapt, dataset, pretrain = recipe.adapt, recipe.dataset, recipe.pretrain
    if adapt is None or dataset is None:
        return []
    general = dict(recipe.corpus) if recipe.corpus is not None else {}
    chosen = {key: getattr(adapt, key) for key in CORPUS_KEYS if getattr(adapt, key) is not None}
    domain = validate(CorpusConfig, {**general, "source": adapt.source, **chosen}, where, "adapt")
    learnt: dict[str, object] = dict(pretrain) if pretrain is not None else {"objective": adapt.objective}
    own = {"objective": adapt.objective, "objective_config": adapt.objective_config, "regrow": adapt.regrow}
    given = {name: value for name, value in own.items() if value is not None}
    if adapt.objective not in (None, learnt["objective"]):
        learnt["objective_config"] = {}  # [pretrain]'s is another objective's
    outside = {"start": adapt.start, "start_generator": adapt.start_generator}
    learnt["probe"] = adapt.probe
    config = _with_probe(recipe, validate(PretrainConfig, {**learnt, **given, "train": adapt.train, **outside}, where, "adapt"), where)
    parents = {"dataset": "adapt.dataset"} | ({} if adapt.start is not None else {"start": "pretrain"})
    made = [make("adapt.corpus", "corpus", _with_tasks(recipe, domain, where), {})]
    if adapt.tokenizer is not None:
        made.append(make("adapt.tokenizer", "tokenizer", _own_words(adapt, recipe.tokenizer, where), {"corpus": "adapt.corpus"}))
    tokenizer = "tokenizer" if adapt.tokenizer is None else "adapt.tokenizer"
    return [
        *made,
        make("adapt.dataset", "dataset", dataset, {"corpus": "adapt.corpus", "tokenizer": tokenizer}),
        make("adapt", "pretrain", config, parents),
    ]


def _own_words(adapt: AdaptTable, general: TokenizerConfig | None, where: str) -> TokenizerConfig:
    """[tokenizer], unless one of the two takes a finished vocabulary, with the settings of [adapt.tokenizer] on top."""
    table = adapt.tokenizer or {}
    below = general if general is not None and general.from_ is None and "from" not in table else None
    settings = {} if below is None else below.model_dump(by_alias=True, exclude_unset=True)
    config = validate(TokenizerConfig, {**settings, **table}, where, "adapt.tokenizer")
    if config.from_ is None and config.algorithm != "characters-of-words":
        raise KitaeError(
            f"a model of {config.algorithm} tokens cannot change its vocabulary",
            cure='remove the table; a CharacterBERT can, with algorithm = "characters-of-words"',
            where=f"{where}, table [adapt.tokenizer]",
        )
    if adapt.start is None and below is not None and config.own_word_bytes != below.own_word_bytes:
        raise KitaeError(
            f"words of {config.own_word_bytes} characters, but the model learns to read words of {below.own_word_bytes} from [tokenizer]",
            cure="give both the same algorithm and word_bytes",
            where=f"{where}, table [adapt.tokenizer]",
        )
    return config


def _with_tasks(recipe: Recipe, config: CorpusConfig, where: str) -> CorpusConfig:
    for source in config.source:
        if source.path.startswith("task:") and source.task is None:
            raise KitaeError(
                f'"{source.path}" is no source of text', cure='write "task:NAME/train": only training texts may be learnt from', where=where
            )
    named = [*config.decontaminate, *(s.path.removeprefix("task:").partition("/")[0] for s in config.source if s.path.startswith("task:"))]
    tasks = tuple(task_named(recipe, name, where) for name in dict.fromkeys(named))
    return config.model_copy(update={"tasks": tasks})


def _with_probe(recipe: Recipe, config: PretrainConfig, where: str) -> PretrainConfig:
    """With the definition of the probe's task in the place of its name."""
    probe = config.probe
    if probe is None or not isinstance(probe.task, str):
        return config
    return config.model_copy(update={"probe": probe.model_copy(update={"task": task_named(recipe, probe.task, where)})})


def _export(recipe: Recipe, config: ExportConfig) -> Node:
    names = [name for name in ("pretrain", "adapt") if getattr(recipe, name) is not None]
    if recipe.finetune is not None and recipe.export_trials:
        trained = [encoder for encoder in recipe.finetune.compare if encoder not in (*BASELINES, "random")]
        seed = recipe.finetune.seeds[0]
        names += [f"finetune/{task}/{Path(trained[-1]).name}/{seed}" for task in recipe.finetune.task if trained]
    return make("export", "export", config, {name: name for name in names})


def select(nodes: Sequence[Node], until: str | None) -> list[Node]:
    """All nodes, or those up to a named node (or a prefix such as "finetune"). Raises KitaeError for an unknown name."""
    if until is None:
        return list(nodes)
    names = [node.name for node in nodes if node.name == until or node.name.startswith(f"{until}/")]
    if not names:
        raise KitaeError(f'--until {until}: there is no node "{until}"', cure=did_you_mean(until, [node.name for node in nodes]))
    return ancestors(nodes, names)


def of_stage(nodes: Sequence[Node], stage_name: str) -> list[Node]:
    """The nodes of one stage and what they need. Raises KitaeError when the recipe has none."""
    names = [node.name for node in nodes if node.stage == stage_name]
    if not names:
        raise KitaeError(f"the recipe has no [{stage_name}] table", cure="add one, or name another stage")
    return ancestors(nodes, names)
