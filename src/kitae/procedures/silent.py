"""Failures that raise no error: a model that says one thing only, classes that never occur, a head that was not trained, no numbers.

Each is a warning in a trial's results, and so in the tables. Collapse while training and a loss of exactly 0: kitae.procedures.judge.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from torch import Tensor

from kitae.core.errors import KitaeError
from kitae.tasks.examples import Example, Gold, to_json
from kitae.tasks.kind import Kind, Learner, Predicted, Raw
from kitae.tasks.marks import marks
from kitae.tasks.records import TaskData
from kitae.tasks.tags import OUTSIDE

log = logging.getLogger(__name__)
SHOWN = 8
"""So many names are written out."""
UNMOVED = 1e-6
"""Weights whose change is a smaller share of their norm count as untrained: new biases are 0 and move at any learning rate."""
ALIKE = 1e-6
"""Probabilities that differ by less are the same."""
CURE = "try fp32, a lower learning rate, or more epochs"


def said_of(kind: Kind, data: TaskData, predicted: Sequence[Predicted]) -> list[str]:
    """Warnings about the test predictions: all the same, or without a class that the test examples have; and about absent classes."""
    known = [(example, one) for example, one in zip(data.test, predicted, strict=True) if example.gold is not None]
    said = [one for _, one in known]
    warnings = _constant(kind, data.test, predicted, varied=len({str(to_json(example.gold)) for example, _ in known}) > 1)
    train, test = (_classes((example, example.gold) for example in part) for part in (data.train, [example for example, _ in known]))
    guessed = _classes((example, one.value) for (example, _), one in zip(known, said, strict=True))
    listed = set(data.labels) - {OUTSIDE} if set(data.labels) & train else set()  # words outside of entities are no class
    before = " ".join(remark for remark in data.remarks if remark.startswith(("no training example", "only training examples")))
    news = {name for name in listed | train | test if f'"{name}"' not in before}  # not said of the whole task already
    warnings += _absent("never occur in the training examples and cannot be learnt", ((listed | test) & news) - train)
    if known:
        warnings += _absent("never occur in the test examples, whose scores say nothing of them", ((listed | train) & news) - test)
        if not warnings or not warnings[0].startswith("constant"):
            warnings += _absent("occur in the test examples and are never predicted", (test & train) - guessed)
    for warning in warnings:
        log.warning("%s", warning)
    return warnings


def head_of(learner: Learner) -> dict[str, Tensor]:
    """A copy of the weights that are not the encoder's."""
    state = learner.state_dict()
    return {name: state[name].detach().cpu().clone() for name in state if not name.startswith("encoder.encoder.")}


def untrained(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> list[str]:
    """A warning when the weights of a head have not changed (by less than a millionth); both are what `head_of` gave."""
    moved = sum(float((after[name].double() - tensor.double()).square().sum()) for name, tensor in before.items())
    if not before or moved > UNMOVED**2 * sum(float(tensor.double().square().sum()) for tensor in before.values()):
        return []
    text = "the head was not trained: its weights are what they were before; look at the learning rate, skipped steps and frozen layers"
    log.warning("%s", text)
    return [text]


def require_numbers(raws: Sequence[Raw]) -> None:
    """Raise KitaeError when a model's outputs hold "not a number", which would pass for its first class."""
    broken = sum(bool(np.isnan(raw).any()) for raw in raws)
    if broken:
        what = f"{broken} of {len(raws)} outputs of the model are not numbers: its weights are broken, or half precision overflows"
        raise KitaeError(what, cure="predict in fp32; train again in fp32 or with a lower learning rate")


def _constant(kind: Kind, examples: Sequence[Example], predicted: Sequence[Predicted], *, varied: bool) -> list[str]:
    if not predicted or not varied or not kind.constant(predicted):
        return []
    value = predicted[0].value
    said = f'"{value}"' if isinstance(value, str) else f"about {value:g}" if isinstance(value, float) else "the same"
    shares = [one.more.get("probabilities") for one in predicted]
    alike = isinstance(shares[0], list) and bool(np.ptp(np.asarray(shares, float), axis=0).max() < ALIKE)
    more = ", with the same probabilities: what is read does not reach the outputs" if alike else ""
    return [f"constant: all {len(examples)} test examples got {said}{more}; {CURE}"]


def _classes(pairs: Iterable[tuple[Example, Gold | None]]) -> set[str]:
    return {name for example, gold in pairs if gold is not None for name, *_ in marks(example, gold)}


def _absent(what: str, names: set[str]) -> list[str]:
    if not names:
        return []
    ordered = sorted(names)
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return [f"classes that {what}: {', '.join(ordered[:SHOWN])}{more}"]
