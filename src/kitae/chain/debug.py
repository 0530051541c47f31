"""The small form of a recipe: `scale = "debug"` runs the same chain in minutes."""

from kitae.core.duration import Duration
from kitae.core.errors import KitaeError
from kitae.core.recipe import Raw, merge
from kitae.models.presets import PRESETS
from kitae.procedures.sweep import SweepConfig

DEBUG_TOKENS, DEBUG_DOCUMENTS, DEBUG_EXAMPLES = 3000, 300, 120
DEBUG: Raw = {  # what `scale = "debug"` lays over a recipe: the same chain, in minutes
    "tokenizer": {"vocab_size": DEBUG_TOKENS},
    "pretrain": {"train": {"length": "20 steps", "batch": "1024 tokens", "micro_batch": "1024 tokens"}},
    "adapt": {"train": {"length": "10 steps", "batch": "1024 tokens", "micro_batch": "1024 tokens"}},
    "finetune": {"seeds": [1, 2], "epochs": 1},
}


def shrink(raw: Raw, where: str) -> Raw:
    """The recipe's tables in small, its own table `debug` on top. Raises KitaeError when that is no table."""
    own = raw.get("debug", {})
    if not isinstance(own, dict):
        raise KitaeError("debug must be a table", cure="write [debug.corpus], [debug.finetune], ...", where=where)
    shares = {name: _in_shares(raw[name]) for name in ("pretrain", "adapt") if name in raw}
    whole = merge(raw | shares, own)
    if "tokenizer" in own:
        whole["tokenizer"] = own["tokenizer"]  # taken whole: a vocabulary that is made has other keys than one that is taken
    known = {key: value for key, value in DEBUG.items() if key in whole}
    tokenizer = whole.get("tokenizer")
    if isinstance(tokenizer, dict) and "from" in tokenizer:
        del known["tokenizer"]
    elif isinstance(tokenizer, dict) and tokenizer.get("algorithm", "wordpiece") == "wordpiece":
        known["tokenizer"] = {"vocab_size": DEBUG_TOKENS, "limit_alphabet": 1000}
    small = merge(merge(whole, known), own)  # its own words last, so that what it says of lengths counts
    for table in (small.get("pretrain"), small.get("adapt")):
        if isinstance(table, dict) and isinstance(table.get("train"), dict):
            table["train"] = _without_times(_small_phases(table["train"]))
    _tiny_model(small.get("pretrain"))
    for table in (small.get("corpus"), small.get("adapt")):
        sources = table.get("source") if isinstance(table, dict) else None
        for source in sources if isinstance(sources, list) else ():
            source.setdefault("limit", DEBUG_DOCUMENTS)
        if isinstance(table, dict) and isinstance(table.get("holdout"), str):
            table["holdout"] = 0.05
    finetune = small.get("finetune")
    if isinstance(finetune, dict):
        _fewer_trials(finetune, own.get("finetune", {}))
    tasks = small.get("task")
    for task in tasks.values() if isinstance(tasks, dict) else ():
        task.setdefault("limit", DEBUG_EXAMPLES)
    return small


def _tiny_model(pretrain: object) -> None:
    """The smallest preset of the same family in the place of the named one."""
    if not isinstance(pretrain, dict) or not isinstance(pretrain.get("model"), str):
        return
    name = pretrain["model"]
    alike = (known for known in PRESETS if known.endswith("-tiny") and name.startswith(known.removesuffix("tiny")))
    tiny = max(alike, key=len, default="")
    if tiny:
        given, sizes = pretrain.get("config"), (*PRESETS[tiny].encoder, "generator", "embedding_size")
        kept = {key: value for key, value in given.items() if key not in sizes} if isinstance(given, dict) else {}
        pretrain |= {"model": tiny, "config": kept}


def _in_shares(table: object) -> object:
    """A training's table whose warm-ups are shares of its length (a phase's of the phase's) where both are in one unit."""
    if not isinstance(table, dict) or not isinstance(table.get("train"), dict):
        return table
    train, phases = _warmup_as_share(table["train"]), table["train"].get("phases")
    if isinstance(phases, list):
        train |= {"phases": [_warmup_as_share(phase) if isinstance(phase, dict) else phase for phase in phases]}
    return table | {"train": train}


def _warmup_as_share(train: Raw) -> Raw:
    try:
        length, warmup = Duration.parse(str(train["length"])), Duration.parse(str(train["warmup"]))
    except (KeyError, ValueError):
        return dict(train)
    if length.unit != warmup.unit or length.unit == "seconds" or not length.amount:
        return dict(train)
    return train | {"warmup": str(Duration(min(1.0, warmup.amount / length.amount), "of length"))}


def _small_phases(train: Raw) -> Raw:
    """Settings of a training whose phases keep their proportions, but not their batches. What is no phase is left for the checks."""
    phases = train.get("phases")
    tables = [phase for phase in phases if isinstance(phase, dict)] if isinstance(phases, list) else []
    try:
        lengths = [Duration.parse(str(phase["length"])) for phase in tables]
    except (KeyError, ValueError):
        return train
    if not lengths or len({length.unit for length in lengths}) > 1 or lengths[0].unit in ("of length", "seconds"):
        return train | ({"phases": [_without_batch(phase) for phase in tables]} if tables else {})
    whole = sum(length.amount for length in lengths)
    shares = [str(Duration(length.amount / whole, "of length")) for length in lengths]
    return train | {"phases": [{**_without_batch(phase), "length": share} for phase, share in zip(tables, shares)]}


def _without_batch(phase: Raw) -> Raw:
    return {key: value for key, value in phase.items() if key not in ("batch", "micro_batch")}


def _without_times(train: Raw) -> Raw:
    """Settings of a training without what is in seconds, minutes, ...: parts of a wall-clock length are none of a length in steps."""

    def timed(value: object) -> bool:
        try:
            return isinstance(value, str) and Duration.parse(value).unit == "seconds"
        except ValueError:
            return False

    kept: Raw = {}
    for key, value in train.items():
        if isinstance(value, dict):
            kept[key] = _without_times(value)
        elif isinstance(value, list):
            kept[key] = [item for item in value if not timed(item)]
        elif not timed(value):
            kept[key] = value
    return kept


def _fewer_trials(table: Raw, own: object) -> None:
    """A sweep of two candidates, a curve of one point beside the whole, unless [debug.finetune] says otherwise."""
    said = own if isinstance(own, dict) else {}
    sweep, counts = table.get("sweep"), table.get("label_counts")
    if isinstance(sweep, dict) and "sweep" not in said:
        rates = sweep.get("learning_rate", SweepConfig().learning_rate)
        few: Raw = {"epochs": [1], "learning_rate": rates[:2] if isinstance(rates, list | tuple) else rates}
        if sweep.get("search") == "optuna":
            few["trials"] = 2
        table["sweep"] = sweep | few
    if isinstance(counts, list) and counts and "label_counts" not in said:
        table["label_counts"] = [10]
