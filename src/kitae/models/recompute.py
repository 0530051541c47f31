"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): of a block only the input is kept, and its inside is worked out again
in the backward pass, with the same dropout."""

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def through(block: nn.Module, *inputs: object, again: bool) -> Tensor:
    """block(*inputs); with `again` nothing inside of it is kept for the backward pass. Gradients are equal to the bit.

    torch's generators are put back to where they stood, and dropout draws from them alone.
    """
    found = checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)
    assert isinstance(found, Tensor)
    return found
