"""Made-up rows of the right shape, to measure a step with before there is a dataset."""

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.tensor.batch import Batch, Layout
from kitae.tensor.random import numpy_generator
from kitae.tokenization.characters import PAD
from kitae.tokenization.special import SpecialIds

SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
"""Of a vocabulary that nobody has made."""


class RandomRows:
    """Batches of full rows of random tokens, in pieces of one length. A pure function of (step, micro-batch), like real ones.

    Random tokens are looked up all over the tables, where text repeats a few: at worst that is slower, never faster.
    """

    def __init__(
        self,
        *,
        rows: int,
        micro_rows: int,
        length: int,
        context: float,
        vocab_size: int,
        word_bytes: int = 0,
        rows_per_epoch: int | None = None,
    ) -> None:
        """`context`: positions that a position attends to. `word_bytes`: characters of a word, where tokens are numbers of words. Ids are
        any of `vocab_size` but those of SPECIAL."""
        self.rows_per_step, self.micro_batches_per_step = rows, rows // micro_rows
        """Rows and micro-batches of a step."""
        self.rows_per_epoch, self.tokens_per_step = rows_per_epoch or max(rows, 1 << 20), float(rows * length)
        """Rows of a pass (there is no end to them), and positions of a step."""
        self._micro_rows, self._length, self._vocab_size = micro_rows, length, vocab_size
        pieces = max(1, round(length / max(context, 1.0)))
        self._size = -(-length // pieces)
        self._words = _Words(word_bytes) if word_bytes else None

    def micro(self, step: int, micro: int) -> Batch:
        """Micro-batch `micro` of step `step`."""
        shape, at = (self._micro_rows, self._length), np.arange(self._length)
        ids = numpy_generator(1, "random rows", step, micro).integers(SPECIAL.mask + 1, self._vocab_size, shape)
        first, last = at % self._size == 0, (at % self._size == self._size - 1) | (at == self._length - 1)
        words = np.where(first | last, -1, at).astype(np.int32)
        ids[:, first], ids[:, last] = SPECIAL.cls, SPECIAL.sep
        layout = Layout(_every_row(at // self._size + 1, shape, np.int32), _every_row(at % self._size, shape, np.int64))
        return Batch(
            ids_BL=torch.from_numpy(ids),
            layout=layout,
            words_BL=_every_row(words, shape, np.int32),
            rows=torch.arange(self._micro_rows),
            spelling=self._words,
            step=step,
            micro=micro,
        )


class _Words:
    """Made-up spellings: every word has nine bytes of its own and its two ends, then padding."""

    def __init__(self, word_bytes: int) -> None:
        self._word_bytes = word_bytes

    def rows(self, numbers: NDArray[np.int64]) -> NDArray[np.uint16]:
        """The characters of the words of these numbers, [numbers, C]."""
        written = np.full((len(numbers), self._word_bytes), PAD + 1, np.uint16)
        place = np.arange(min(11, self._word_bytes))
        written[:, : len(place)] = 1 + (numbers[:, None] // (1 + place) + place) % 250
        return written


def _every_row(values: NDArray, shape: tuple[int, int], dtype: type) -> torch.Tensor:
    return torch.from_numpy(np.broadcast_to(values, shape).astype(dtype, order="C"))
