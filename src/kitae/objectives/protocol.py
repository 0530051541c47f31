"""What pre-training asks of an objective: a module that owns its models, draws its own targets and measures itself.

To add an objective: one file with a Config and a subclass of Objective, one row in table.py.
"""

import abc
from collections.abc import Mapping

from torch import Tensor, nn

from kitae.models.compose import Discriminator, MaskedLm
from kitae.models.family import COMPOSED
from kitae.models.folder import Part
from kitae.models.folder import describe as describe_parts
from kitae.models.sharing import differences, standing_alone
from kitae.tensor.batch import Batch
from kitae.tensor.groups import ParameterGroup
from kitae.tensor.loss import Loss


class Objective(nn.Module, abc.ABC):
    """Models (attributes named as their parts) and what they learn. The loop knows only this class's methods."""

    @abc.abstractmethod
    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Draw masks and noise on the CPU: a pure function of (batch, seed), keyed by the batch's step and number.

        What changes while training follows `batch.progress`, which held-out batches have at 1.
        """

    @abc.abstractmethod
    def counts(self, batch: Batch) -> dict[str, int]:
        """Of a prepared batch: what each term of the loss is averaged over."""

    @abc.abstractmethod
    def forward(self, batch: Batch) -> Loss:
        """The loss of a prepared batch."""

    @abc.abstractmethod
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Statistics of a prepared held-out batch, float64, without gradients: add them up over batches and ranks."""

    @abc.abstractmethod
    def summarize(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        """Scores from summed statistics; a score over nothing is left out."""

    @abc.abstractmethod
    def models(self) -> dict[str, MaskedLm | Discriminator]:
        """The models by the name of their part."""

    @abc.abstractmethod
    def flops_per_token(self, context: float) -> float:
        """Training FLOPs of a real token that attends to `context` positions in the mean."""

    def parts(self) -> dict[str, Part]:
        """The models as parts with their present weights (not copied), each complete in itself."""
        return {
            name: Part(
                head=next(head for head, kind in COMPOSED.items() if kind is type(model)), config=model.config, state=standing_alone(model)
            )
            for name, model in self.models().items()
        }

    def describe(self) -> dict[str, object]:
        """The content of model.json; the weights beside it are those of `state_dict()`. "differences" name the tables of which
        these hold a difference only, so that a resumed run is bit-equal, and what it adds to."""
        described = describe_parts(self.parts())
        sums = differences(self)
        return described | {"differences": sums} if sums else described

    def groups(self) -> tuple[ParameterGroup, ...]:
        """Weights that are updated apart from each other, all of them; none: every weight by one optimizer."""
        return ()
