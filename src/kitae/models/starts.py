"""A start of pre-training with the heads that it wants: for the vocabulary, and for pairs of segments or without."""

import logging
from dataclasses import replace

from kitae.models.families import build_masked_lm, build_pretraining_lm
from kitae.models.folder import Part

log = logging.getLogger(__name__)
_ROOT, _ENCODER = "order.", "encoder."


def with_vocabulary_head(part: Part) -> Part:
    """The encoder of any model as a masked language model; the head of a model that has none is new, always the same weights.

    Where the output shares the table of tokens, as in most models, only the layer before it and the biases are new.
    """
    if part.head in ("mlm", "pretraining"):
        return part
    log.warning("the model to start from has no vocabulary head: it begins with new weights, which the first steps are spent on")
    fresh = {name: tensor for name, tensor in build_masked_lm(part.config).state_dict().items() if not name.startswith(_ENCODER)}
    kept = {name: tensor for name, tensor in part.state.items() if name.startswith(_ENCODER)}
    return replace(part, head="mlm", state={**kept, **fresh}, labels=())


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
