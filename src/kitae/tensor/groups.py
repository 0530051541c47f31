"""Which weights are updated apart from which: what an objective may ask of the optimizer."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ParameterGroup:
    """Weights with an optimizer of their own: their gradient is clipped to its own norm, and they may have their own learning rate.

    Siblings together hold every trained weight once.
    """

    name: str
    """What messages call it."""
    parameters: frozenset[str]
    """Names, as `named_parameters` gives them: a shared weight under its first name."""
    learning_rate: float | None = None
    """Highest learning rate, which follows the schedule of the training; None = the training's."""
