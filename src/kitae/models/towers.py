"""Electric's generator (Clark et al. 2020, arXiv:2012.08561): the token at a position from everything around it and without itself.

Two causal stacks read a text from the left and from the right; a position gets the state of the one before it in the first and of the
one behind it in the second. So one pass gives a distribution at every position, where a masked language model would need a pass for each.

Shapes: B rows, L positions, T = B * L, D hidden size of a stack, E embedding size.
"""

import collections
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from kitae.models.attention import AttentionPlan, make_plan
from kitae.models.bert import BertFields, Block, Embeddings, body_flops
from kitae.models.encoder import Encoder, EncoderConfig, compile_options, working_dtype
from kitae.models.family import Family, HeadForm
from kitae.models.heads import MlmHead
from kitae.models.layers import ACTIVATIONS
from kitae.models.recompute import through
from kitae.tensor.batch import Layout, Texts


class TwoTowerConfig(BertFields):
    """Numbers of each of the two stacks, under the names of ELECTRA's generator."""

    model_type: Literal["electric"] = "electric"

    @classmethod
    def of(cls, generator: EncoderConfig) -> "TwoTowerConfig":
        """Two stacks with the numbers of an ELECTRA's generator."""
        return cls.model_validate(generator.model_dump() | {"model_type": "electric"})


class Tower(nn.Module):
    """One stack of blocks over shared embeddings."""

    def __init__(self, config: BertFields) -> None:
        super().__init__()
        self.project = nn.Linear(config.embedding_width, config.hidden_size) if config.embedding_width != config.hidden_size else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.recomputes = False

    def states(self, x_BLE: Tensor, plan: AttentionPlan) -> Iterator[Tensor]:
        """x_BLD before the first block and after each."""
        x_BLD = x_BLE if self.project is None else self.project(x_BLE)
        yield x_BLD
        for block in self.blocks:
            x_BLD = through(block, x_BLD, plan, again=self.recomputes)
            yield x_BLD


class TwoTowerEncoder(Encoder):
    """Ids -> what stands around each position, without the position itself: x_BLC with C = 2D, left context first.

    The first position of a piece has zeros for its left context, the last for its right.
    """

    config: TwoTowerConfig

    def __init__(self, config: TwoTowerConfig) -> None:
        super().__init__(config)
        self.embed = Embeddings(config)
        self.left, self.right = Tower(config), Tower(config)

    def states(self, texts: Texts) -> Iterator[Tensor]:
        """x_BLC before the first blocks and after each pair of them."""
        order = _Order(texts.layout)
        for left_BLD, mirrored_BLD in self._both(order, texts):
            yield order.around(left_BLD, mirrored_BLD)

    def forward(self, texts: Texts) -> Tensor:
        """x_BLC of the last layers."""
        order = _Order(texts.layout)
        left_BLD, mirrored_BLD = collections.deque(self._both(order, texts), maxlen=1)[0]
        return order.around(left_BLD, mirrored_BLD)

    def _both(self, order: "_Order", texts: Texts) -> Iterator[tuple[Tensor, Tensor]]:
        """The states of both stacks; the right one reads every piece from its end, so that causal attention does for both."""
        x_BLE = self.embed(texts.ids_BL, texts.layout.positions_BL, texts.segments_BL)
        dtype = working_dtype(x_BLE)
        plan = make_plan(texts.layout, kind=self.chosen(texts.layout, dtype), dtype=dtype, causal=True)
        yield from zip(self.left.states(x_BLE, plan), self.right.states(order.mirrored(x_BLE), plan), strict=True)

    def compile_blocks(self, *, graphs: bool = False) -> None:
        """Compile every block of both stacks in place (torch.compile)."""
        self.compiled = True
        for block in (*self.left.blocks, *self.right.blocks):
            block.compile(options=compile_options(graphs=graphs))

    def checkpoint_blocks(self) -> None:
        """Keep nothing of the inside of a block of both stacks."""
        self.left.recomputes = self.right.recomputes = True


class _Order:
    """Where each position of the flattened rows stands in its piece; a row's padding counts as a piece."""

    def __init__(self, layout: Layout) -> None:
        bounds, self.shape = layout.bounds, layout.pieces_BL.shape
        self.place_T = torch.arange(layout.pieces_BL.numel(), device=bounds.device)
        piece_T = torch.bucketize(self.place_T, bounds, right=True)
        self.first_T = bounds.index_select(0, piece_T - 1).long()
        self.last_T = bounds.index_select(0, piece_T).long() - 1
        self.mirror_T = self.first_T + self.last_T - self.place_T

    def mirrored(self, x_BLE: Tensor) -> Tensor:
        """Every piece from its end to its beginning."""
        return x_BLE.flatten(0, 1).index_select(0, self.mirror_T).view(x_BLE.shape)

    def around(self, left_BLD: Tensor, mirrored_BLD: Tensor) -> Tensor:
        """x_BLC: the left stack's state of the position before, the right stack's of the position behind; zeros where there is none."""
        left_TD = left_BLD.flatten(0, 1).index_select(0, (self.place_T - 1).clamp_min(0))
        behind_T = (self.mirror_T - 1).clamp_min(0)  # in the mirror the position behind is the one before
        right_TD = mirrored_BLD.flatten(0, 1).index_select(0, behind_T)
        left_TD = left_TD.masked_fill((self.place_T == self.first_T)[:, None], 0.0)
        right_TD = right_TD.masked_fill((self.place_T == self.last_T)[:, None], 0.0)
        return torch.cat([left_TD, right_TD], dim=1).view(*self.shape, -1)


def _head(config: EncoderConfig, *, num_labels: int, rate: float) -> MlmHead:
    assert isinstance(config, TwoTowerConfig)
    del num_labels, rate
    head = MlmHead(config, activation=ACTIVATIONS["gelu"], eps=config.layer_norm_eps)
    head.dense = nn.Linear(2 * config.hidden_size, config.embedding_width)
    return head


def _flops(config: EncoderConfig, length: float) -> float:
    """Two bodies; causal attention counts in full, as the papers' formulas count it."""
    return 2 * body_flops(config, length)


ELECTRIC = Family(
    title="Electric",
    config=TwoTowerConfig,
    encoder=TwoTowerEncoder,
    root="electric",
    rows=(),
    flops=_flops,
    heads={"mlm": HeadForm(title="two-tower generator", name="generator", make=_head)},
)
