"""What a model sees of one micro-batch: ids, and the layout of documents in rows.

Shapes: B rows, L positions of a row. A piece is one document (or a part of one) in a row, [CLS] ... [SEP].
"""

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Layout:
    """Which positions of a packed row belong together. An ordinary padded row is a row with one piece.

    pieces_BL: int32, the number of the piece in its row from 1, 0 for padding. Pieces are contiguous, padding at the end.
    positions_BL: int64, restarting at 0 in every piece.
    """

    def __init__(self, pieces_BL: Tensor, positions_BL: Tensor, host: "Layout | None" = None) -> None:
        """`host` is the same layout on the CPU: what is asked of it there needs no waiting for a device."""
        self.pieces_BL = pieces_BL
        self.positions_BL = positions_BL
        self._host = host

    @classmethod
    def padded(cls, mask_BL: Tensor) -> "Layout":
        """The layout of rows with one document each; mask_BL is true at real tokens (which come first)."""
        positions = torch.arange(mask_BL.shape[1], device=mask_BL.device)
        return cls(mask_BL.to(torch.int32), positions.expand(mask_BL.shape).contiguous())

    @cached_property
    def mask_BL(self) -> Tensor:
        """True at real tokens, special tokens included."""
        return self.pieces_BL > 0

    @cached_property
    def block_mask_BLL(self) -> Tensor:
        """True where a position may attend. Padding attends to padding, so that no softmax is over nothing."""
        return self.pieces_BL[:, :, None] == self.pieces_BL[:, None, :]

    @cached_property
    def num_tokens(self) -> int:
        """Real tokens, special tokens included, padding not."""
        return self._host.num_tokens if self._host is not None else int(self.mask_BL.sum())

    @cached_property
    def bounds(self) -> Tensor:
        """int32 boundaries of the pieces in the flattened rows, a row's padding being one of them.

        The last is repeated (as empty pieces) up to a power of two, so that compiled layers see few shapes.
        """
        if self._host is not None:
            return self._host.bounds.to(self.pieces_BL.device, non_blocking=True)
        starts = self._starts.view(-1).nonzero().view(-1).to(torch.int32)
        size = 1 << len(starts).bit_length()  # at least one more than there are pieces
        return torch.cat([starts, starts.new_full((size - len(starts),), self.pieces_BL.numel())])

    @cached_property
    def longest(self) -> int:
        """Positions of the longest piece, a row's padding being one."""
        return self._host.longest if self._host is not None else int(self.bounds.diff().max())

    @property
    def _starts(self) -> Tensor:
        """True where a piece, or a row's padding, begins."""
        starts_BL = torch.ones_like(self.pieces_BL, dtype=torch.bool)
        starts_BL[:, 1:] = self.pieces_BL[:, 1:] != self.pieces_BL[:, :-1]
        return starts_BL

    @cached_property
    def _spans(self) -> list[tuple[int, int, int]]:
        if self._host is not None:
            return self._host.spans()
        pieces = self.pieces_BL.cpu()
        change = torch.ones_like(pieces, dtype=torch.bool)
        change[:, 1:] = pieces[:, 1:] != pieces[:, :-1]
        starts = change.nonzero().tolist()
        length = pieces.shape[1]
        spans = []
        for i, (row, start) in enumerate(starts):
            end = starts[i + 1][1] if i + 1 < len(starts) and starts[i + 1][0] == row else length
            if pieces[row, start] > 0:
                spans.append((row, start, end))
        return spans

    def spans(self) -> list[tuple[int, int, int]]:
        """(row, start, end) of every piece, row by row."""
        return self._spans

    def to(self, device: torch.device | str) -> "Layout":
        """The same layout on a device; itself when it is there already."""
        if self.pieces_BL.device == torch.device(device):
            return self
        host = self if self.pieces_BL.device.type == "cpu" else self._host
        return Layout(self.pieces_BL.to(device, non_blocking=True), self.positions_BL.to(device, non_blocking=True), host)

    def pinned(self) -> "Layout":
        """A copy in page-locked memory, with everything worked out that attention asks for on CUDA."""
        copy = Layout(self.pieces_BL.contiguous().pin_memory(), self.positions_BL.contiguous().pin_memory())
        copy.bounds = self.bounds.contiguous().pin_memory()
        copy.longest, copy.num_tokens = self.longest, self.num_tokens
        return copy


class Spelling(Protocol):
    """How the words of a data set are written."""

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        """The characters of the words of these numbers, [numbers, C]."""


@dataclasses.dataclass(frozen=True)
class Texts:
    """What an encoder reads; every family takes of it what it knows."""

    ids_BL: Tensor
    """int64 token ids."""
    layout: Layout
    """Which positions belong together."""
    segments_BL: Tensor | None = None
    """int64 segment numbers (0, 1) of sentence pairs; None when there are none."""
    chars_WC: Tensor | None = None
    """int64 characters of the distinct words of the micro-batch, which ids_BL number; None for models that read tokens."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch(Texts):
    """One micro-batch, the atom of data and randomness."""

    spelling: Spelling | None = None
    """How the words that ids_BL number are written, as long as these are numbers of a data set's words (see `spelled`)."""
    words_BL: Tensor
    """int32 word number within the row; -1 at special tokens and padding."""
    rows: Tensor
    """int64 [B]: the sample ids, by which an offending row is named."""
    step: int
    """Number of the optimizer step, from 0."""
    micro: int
    """Number of the micro-batch within the step."""
    progress: float = 1.0
    """Share of the training that is done in the middle of this step; 1 for held-out text, which is always measured alike."""
    targets: Mapping[str, Tensor] = dataclasses.field(default_factory=dict)
    """What an objective's `prepare` or a task adds: masks, labels."""

    @property
    def num_tokens(self) -> int:
        """Real tokens, special tokens included, padding not."""
        return self.layout.num_tokens

    def replace(self, *, ids_BL: Tensor | None = None, targets: Mapping[str, Tensor] | None = None) -> "Batch":
        """A copy with other ids or targets."""
        return dataclasses.replace(
            self,
            ids_BL=self.ids_BL if ids_BL is None else ids_BL,
            targets=self.targets if targets is None else targets,
        )

    def first(self, rows: int) -> "Batch":
        """The first so many rows of a batch that has no targets yet."""
        assert not self.targets, "targets lie flat"
        return dataclasses.replace(
            self,
            ids_BL=self.ids_BL[:rows],
            layout=Layout(self.layout.pieces_BL[:rows], self.layout.positions_BL[:rows]),
            segments_BL=None if self.segments_BL is None else self.segments_BL[:rows],
            words_BL=self.words_BL[:rows],
            rows=self.rows[:rows],
        )

    def spelled(self) -> "Batch":
        """A copy whose ids number the distinct words of the micro-batch, with their characters; itself where ids are tokens.

        An objective calls it on the CPU when it has drawn its masks, which take numbers of the vocabulary.
        """
        if self.spelling is None:
            return self
        numbers, ids = np.unique(self.ids_BL.numpy(), return_inverse=True)
        chars_WC = torch.from_numpy(self.spelling.rows(numbers).astype(np.int64))
        ids_BL = torch.from_numpy(ids.reshape(self.ids_BL.shape))
        return dataclasses.replace(self, ids_BL=ids_BL, chars_WC=chars_WC, spelling=None)

    def to(self, device: torch.device | str) -> "Batch":
        """A copy on a device; itself when it is there already."""
        if self.ids_BL.device == torch.device(device):
            return self
        return dataclasses.replace(
            self,
            ids_BL=self.ids_BL.to(device, non_blocking=True),
            layout=self.layout.to(device),
            segments_BL=None if self.segments_BL is None else self.segments_BL.to(device, non_blocking=True),
            chars_WC=None if self.chars_WC is None else self.chars_WC.to(device, non_blocking=True),
            words_BL=self.words_BL.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            targets={name: value.to(device, non_blocking=True) for name, value in self.targets.items()},
        )

    def pinned(self) -> "Batch":
        """A copy in page-locked memory, from which a CUDA device reads on its own while it computes."""
        return dataclasses.replace(
            self,
            ids_BL=self.ids_BL.contiguous().pin_memory(),
            layout=self.layout.pinned(),
            segments_BL=None if self.segments_BL is None else self.segments_BL.contiguous().pin_memory(),
            chars_WC=None if self.chars_WC is None else self.chars_WC.contiguous().pin_memory(),
            words_BL=self.words_BL.contiguous().pin_memory(),
            rows=self.rows.contiguous().pin_memory(),
            targets={name: value.contiguous().pin_memory() for name, value in self.targets.items()},
        )
