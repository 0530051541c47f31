"""What a recipe's models come to: presets of the user's own, and the parameters and the work that `kitae plan` shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean
from kitae.core.graph import Node
from kitae.core.paths import locate
from kitae.core.recipe import Raw, merge
from kitae.models.cost import count_parameters, flops_per_token
from kitae.models.encoder import EncoderConfig
from kitae.models.folder import Part
from kitae.models.presets import PRESETS, Architecture, resolve_preset
from kitae.objectives.mlm import MaskingConfig
from kitae.objectives.pair import PairConfig
from kitae.objectives.rtd import RtdConfig
from kitae.procedures.starts import lacks_generator
from kitae.stages.dataset import DatasetConfig
from kitae.stages.pretrain import PretrainConfig, learnt_order, regrown_numbers, started
from kitae.stages.tokenizer import TokenizerConfig
from kitae.tokenization.taken import home
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.freezing import check_depths
from kitae.train.phases import longest


def with_own_presets(raw: Raw, where: str) -> Raw:
    """The recipe with `model = "one of [presets]"` replaced by the preset that it stands on and its fields as overrides.

    Raises KitaeError for a preset without a base, with the name of one of ours, or that stands on itself.
    """
    own, pretrain = raw.get("presets"), raw.get("pretrain")
    if not isinstance(own, dict):
        return raw
    for name, table in own.items():
        place = f"{where}, table [presets.{name}]"
        if name in PRESETS:
            raise KitaeError(f'"{name}" is a preset of kitae', cure="give yours a name of its own", where=place)
        if not isinstance(table, dict) or not isinstance(table.get("base"), str):
            raise KitaeError(f"presets.{name} names no base", cure='write base = "bert-base", and the fields that differ', where=place)
        base, fields = _resolved(name, own, (), place)
        try:
            resolve_preset(base, fields, 1000, 512)
        except KitaeError as error:
            raise KitaeError(f"presets.{name}: {error.what}", cure=error.cure, where=place) from error
    if not isinstance(pretrain, dict) or not isinstance(pretrain.get("model"), str) or pretrain["model"] in PRESETS:
        return raw
    model = pretrain["model"]
    if model not in own:
        cure = did_you_mean(model, [*own, *PRESETS])
        raise KitaeError(f'pretrain.model: there is no preset "{model}"', cure=cure, where=f"{where}, table [pretrain]")
    base, fields = _resolved(model, own, (), where)
    given = pretrain.get("config", {})
    config = merge(fields, given) if isinstance(given, dict) else given
    return {**raw, "pretrain": {**pretrain, "model": base, "config": config}}


def _resolved(name: str, own: Mapping[str, object], seen: tuple[str, ...], where: str) -> tuple[str, Raw]:
    """(preset of ours, overrides) of an own preset, which may stand on another one."""
    table = own[name]
    base = table.get("base") if isinstance(table, dict) else None
    if not isinstance(table, dict) or not isinstance(base, str):
        raise KitaeError(f"presets.{name} names no base", cure='write base = "bert-base", and the fields that differ', where=where)
    if name in seen:
        raise KitaeError(f"presets.{name} stands on itself", cure="let one of them stand on a preset of kitae", where=where)
    fields: Raw = {key: value for key, value in table.items() if key != "base"}
    if base in PRESETS:
        return base, fields
    if base not in own:
        raise KitaeError(f'presets.{name}: there is no preset "{base}"', cure=did_you_mean(base, [*own, *PRESETS]), where=where)
    below, inherited = _resolved(base, own, (*seen, name), where)
    return below, merge(inherited, fields)


@dataclass(frozen=True, kw_only=True)
class Size:
    """Parameters of the models of one node, and what a token costs them."""

    node: str
    model: str
    """The preset, or the folder that the node starts from."""
    parts: Mapping[str, int]
    """Each model with its heads, by the name of its part."""
    total: int | None
    """Distinct parameters of the whole: what halves share counts once. None for a pair of a folder."""
    vocab_size: int
    flops: float
    """Of training, per real token in full rows (`kitae.models.cost`)."""
    architecture: Architecture
    shared: bool
    """Whether both halves have one embedding module."""
    pairs: bool = False
    """Whether a masked language model judges pairs too."""


def sizes(nodes: Sequence[Node], output: Path) -> Iterator[Size]:
    """The models of all pre-training nodes with new weights or a start outside of the recipe.

    A vocabulary that is not made yet counts as large as its setting; nodes whose numbers cannot be known yet are left out.
    """
    by_name = {node.name: node for node in nodes}
    for node in nodes:
        config = node.config
        if not isinstance(config, PretrainConfig):
            continue
        dataset = by_name[node.parents["dataset"]]
        tokenizer = by_name[dataset.parents["tokenizer"]]
        assert isinstance(dataset.config, DatasetConfig)
        assert isinstance(tokenizer.config, TokenizerConfig)
        if config.start is not None:
            yield from _started(node.name, config, longest(config.train, dataset.config.max_length))
        elif config.model is not None and "start" not in node.parents:
            yield from _new(node.name, config, dataset.config, tokenizer, output)


def _new(node: str, config: PretrainConfig, dataset: DatasetConfig, tokenizer: Node, output: Path) -> Iterator[Size]:
    """A model with new weights; none while nobody knows the size of its vocabulary."""
    vocab_size, pad = _vocabulary(tokenizer, output)
    if not vocab_size:
        return
    assert config.model is not None
    assert isinstance(tokenizer.config, TokenizerConfig)
    rows, letters = longest(config.train, dataset.max_length), tokenizer.config.own_word_bytes
    architecture = resolve_preset(config.model, config.config, vocab_size, rows, pad_token_id=pad, word_bytes=letters)
    settings = config.learnt
    if isinstance(settings, RtdConfig) and settings.uniform_generator:
        architecture = replace(architecture, generator=None)
    shared = isinstance(settings, PairConfig) and settings.embedding_sharing == "shared"
    pairs = learnt_order(config) != "none"
    found = count_parameters(architecture, config.objective, shared=shared, pairs=pairs)
    parts = {"encoder" if config.objective == "mlm" else "discriminator": found.encoder}
    yield Size(
        node=node,
        model=config.model,
        parts={"generator": found.generator} | parts if found.generator else parts,
        total=found.total,
        vocab_size=vocab_size,
        flops=_flops(config, architecture, rows),
        architecture=architecture,
        shared=shared,
        pairs=pairs,
    )


def side_by_side(names: Sequence[str], own: Mapping[str, object], nodes: Mapping[str, Node], output: Path) -> Iterator[Size]:
    """The model of [pretrain] in other sizes, called by them: "base" of "electra-small" is "electra-base"; presets and own ones by name.

    What the recipe sets in [pretrain.config] goes with them where it is no size (whole numbers and the generator do not).
    Raises KitaeError for an unknown size, and where [pretrain] has no preset.
    """
    node = nodes.get("pretrain")
    config = node.config if node is not None else None
    if node is None or not isinstance(config, PretrainConfig) or config.model is None:
        raise KitaeError("plan.sizes needs a [pretrain] with a model", cure="name a preset there", where="table [plan]")
    dataset = nodes[node.parents["dataset"]]
    assert isinstance(dataset.config, DatasetConfig)
    for name in names:
        preset, fields = _sized(name, config.model, own)
        kept = {key: value for key, value in config.config.items() if isinstance(value, float | bool | str)}
        wanted = config.model_copy(update={"model": preset, "config": {**kept, **fields}})
        yield from _new(name, wanted, dataset.config, nodes[dataset.parents["tokenizer"]], output)


def _sized(name: str, model: str, own: Mapping[str, object]) -> tuple[str, Raw]:
    """(preset of ours, overrides) of a size."""
    if name in own:
        return _resolved(name, own, (), f"table [presets.{name}]")
    words = model.split("-")
    near = [f"{'-'.join(words[:count])}-{name}" for count in range(len(words) - 1, 0, -1)]
    preset = next((full for full in (name, *near) if full in PRESETS), None)
    if preset is None:
        kind = next(iter(near)).removesuffix(f"-{name}") if near else model
        shorter = [full.removeprefix(f"{kind}-") for full in PRESETS if full.startswith(f"{kind}-")]
        cure = did_you_mean(name, [*shorter, *own, *PRESETS] if not shorter else [*shorter, *own])
        raise KitaeError(f'plan.sizes: there is no size "{name}" of {model}', cure=cure, where="table [plan]")
    return preset, {}


def budgets(nodes: Sequence[Node]) -> Iterator[tuple[str, float]]:
    """The nodes that train for a wall-clock length, with its hours."""
    for node in nodes:
        if isinstance(node.config, PretrainConfig) and node.config.train.budget is not None:
            yield node.name, node.config.train.budget / 3600


def _started(node: str, config: PretrainConfig, length: int) -> Iterator[Size]:
    """A model of a folder; a discriminator that comes alone with the generator that it will get."""
    folders = [locate(path) for path in (config.start, config.start_generator) if path is not None]
    if not all(folder.is_dir() for folder in folders):
        return
    parts, settings = started(config, folders[0]), config.learnt
    counts = {name: sum(tensor.numel() for tensor in part.state.values()) for name, part in parts.items()}
    total = None if len(counts) > 1 else sum(counts.values())
    main = next(parts[name] for name in ("discriminator", "encoder", "generator") if name in parts)
    generator = parts["generator"].config if "generator" in parts else None
    if isinstance(settings, RtdConfig) and lacks_generator(settings, parts):
        generator = regrown_numbers(config, main.config)
        pair = Architecture(encoder=main.config, generator=generator)
        found = count_parameters(pair, "rtd", shared=settings.embedding_sharing == "shared")
        counts, total = {"regrown generator": found.generator, "discriminator": found.encoder}, found.total
    architecture = Architecture(encoder=main.config, generator=generator)
    _check_freeze(config, parts, generator, where=f"{folders[0]}, where {node} starts")
    yield Size(
        node=node,
        model=folders[0].name,
        parts=counts,
        total=total,
        vocab_size=max(part.config.vocab_size for part in parts.values()),
        flops=_flops(config, architecture, length),
        architecture=architecture,
        shared=isinstance(settings, PairConfig) and settings.embedding_sharing == "shared",
        pairs=learnt_order(config) != "none",
    )


def _flops(config: PretrainConfig, architecture: Architecture, length: int) -> float:
    settings = config.learnt
    assert isinstance(settings, MaskingConfig), "every objective masks"
    return flops_per_token(architecture, length, config.objective, settings.mean_rate)


def _check_freeze(config: PretrainConfig, parts: Mapping[str, Part], generator: EncoderConfig | None, *, where: str) -> None:
    depths = {name: part.config.num_hidden_layers for name, part in parts.items()}
    try:
        check_depths(config.train.freeze, depths if generator is None else depths | {"generator": generator.num_hidden_layers})
    except KitaeError as error:
        raise KitaeError(error.what, cure=error.cure, where=where) from error


def _vocabulary(node: Node, output: Path) -> tuple[int, int]:
    """(size, id of [PAD]) of the tokenizer that is there, else what its settings promise; size 0 when neither says."""
    config = node.config
    assert isinstance(config, TokenizerConfig)
    place = output / node.name if (output / node.name / "manifest.json").is_file() else None
    if place is None and config.from_ is not None:
        place = locate(config.from_)
        if not place.exists():
            return 0, 0
    if place is None:
        return config.vocab_size, 0
    try:
        tokenizer = Tokenizer.load(home(place))
    except KitaeError:  # its own stage says what is wrong
        return 0, 0
    return tokenizer.vocab_size, tokenizer.special.pad
