"""An embedding whose loss does not reach the table that it builds on (He et al. 2021, arXiv:2111.09543, section 3.2).

Shapes: V rows of a table, E embedding size.
"""

from torch import Tensor, nn


class DisentangledTable(nn.Module):
    """Takes the place of a discriminator's embedding: weight = the generator's table, without a gradient, + a difference of its own.

    So the discriminator starts from what the generator knows of a token, and its loss does not pull the generator's table about.
    """

    def __init__(self, base: nn.Embedding, table_VE: Tensor) -> None:
        """The weight is at first `table_VE`."""
        super().__init__()
        self._base = (base,)  # in a tuple, because a submodule's weights would be this half's too
        self.delta = nn.Parameter(table_VE.detach() - base.weight.detach())

    @property
    def base(self) -> nn.Embedding:
        """The generator's embedding."""
        return self._base[0]

    @property
    def weight(self) -> Tensor:
        """The table as it is used, V x E; a new tensor, whose gradient goes to the difference alone."""
        return self.base.weight.detach() + self.delta
