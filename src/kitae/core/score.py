"""A score never travels without its interval."""

from kitae.core.config import Config


class Score(Config):
    """A value with its 95 % interval over `n` items."""

    value: float
    """The score itself."""
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """How many items it was measured on."""
