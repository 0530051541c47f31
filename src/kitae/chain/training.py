"""A training of a recipe as work to be estimated."""

from dataclasses import dataclass

from kitae.chain.amounts import Amount
from kitae.procedures.estimate import Work


@dataclass(frozen=True, kw_only=True)
class Training:
    """One line of the plan."""

    name: str
    """The node's, with the number of its phase; of trials "finetune/TASK/ENCODER"."""
    nodes: tuple[str, ...]
    """What is trained: one node, or all trials of a task and an encoder."""
    work: Work
    """Of one node."""
    amount: Amount | None = None
    """The text that is learnt, in passes; None for trials."""
    last: bool = True
    """Whether no other phase follows."""
    more: float = 1.0
    """What comes on top of the steps, as a factor of their time: a trial's predictions."""

    @property
    def epochs(self) -> float | None:
        """Passes over the text; None for trials and where the length is a time."""
        if self.amount is None or self.work.steps is None:
            return None
        return self.work.steps * self.work.rows * self.work.length * self.work.fill / self.amount.tokens
