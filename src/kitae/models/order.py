"""A start with or without the head that judges pairs of segments."""

import logging
from dataclasses import replace

from kitae.models.families import build_pretraining_lm
from kitae.models.folder import Part

log = logging.getLogger(__name__)
_ROOT = "order."


def with_order_head(part: Part) -> Part:
    """The masked language model as one that judges pairs too; the head of a model that has none is new, always the same weights."""
    if part.head == "pretraining":
        return part
    log.info("the model to start from has no head for pairs of segments: it begins with new weights")
    fresh = {name: tensor for name, tensor in build_pretraining_lm(part.config).state_dict().items() if name.startswith(_ROOT)}
    return replace(part, head="pretraining", state={**part.state, **fresh})


def without_order_head(part: Part) -> Part:
    """The masked language model alone."""
    if part.head == "mlm":
        return part
    log.info("the head for pairs of segments of the model to start from is left out")
    return replace(part, head="mlm", state={name: tensor for name, tensor in part.state.items() if not name.startswith(_ROOT)})
