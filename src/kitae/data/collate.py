"""Rows of the plan -> Batch, by numpy gathers without a loop over rows or pieces."""

import numpy as np
import torch

from kitae.data.packing import SPECIALS
from kitae.data.plan import Plan
from kitae.data.shards import Ints, Shards
from kitae.tensor.batch import Batch, Layout


class Collator:
    """Lays rows out: every piece [CLS] tokens [SEP], one behind the other, padding at the end."""

    def __init__(self, shards: Shards, plan: Plan, *, cls: int, sep: int, pad: int) -> None:
        self._shards, self._plan = shards, plan
        self._cls, self._sep, self._pad = cls, sep, pad

    def __call__(self, rows: Ints, *, step: int, micro: int) -> Batch:
        """The batch of these row numbers (int64 [B]; a row may occur twice). Shapes: B rows, L = max_length."""
        plan, length = self._plan, self._plan.max_length
        first = plan.rows[rows]
        each = plan.rows[rows + 1] - first
        row_ends = each.cumsum()
        row_of = np.repeat(np.arange(len(rows)), each)
        number = np.arange(row_ends[-1]) - np.repeat(row_ends - each, each)  # of the piece in its row, from 0
        piece = np.repeat(first, each) + number
        starts, tokens = plan.starts[piece], plan.lengths[piece].astype(np.int64)
        size = tokens + SPECIALS
        behind = size.cumsum() - size
        offset = row_of * length + behind - np.repeat(behind[row_ends - each], each)  # of the piece's [CLS] in the flat rows

        within = np.arange(size.sum()) - np.repeat(behind, size)
        where = np.repeat(offset, size) + within
        positions = np.zeros(len(rows) * length, dtype=np.int64)
        pieces = np.zeros(len(rows) * length, dtype=np.int32)
        positions[where] = within
        pieces[where] = np.repeat(number + 1, size)

        token_ends = tokens.cumsum()
        inside = np.arange(token_ends[-1]) - np.repeat(token_ends - tokens, tokens)
        target = np.repeat(offset + 1, tokens) + inside
        content, word_starts = self._shards.gather(np.repeat(starts, tokens) + inside)
        word_starts[token_ends - tokens] = True  # a cut may fall into a word; a word never spans two pieces
        word = word_starts.cumsum()
        row_begin = (token_ends - tokens)[row_ends - each]  # each row's first token among all
        row_tokens = np.add.reduceat(tokens, row_ends - each)
        words = np.full(len(rows) * length, -1, dtype=np.int32)
        words[target] = word - np.repeat(word[row_begin], row_tokens)

        ids = np.full(len(rows) * length, self._pad, dtype=np.int64)
        ids[target] = content
        ids[offset] = self._cls
        ids[offset + tokens + 1] = self._sep
        shape = (len(rows), length)
        return Batch(
            ids_BL=torch.from_numpy(ids.reshape(shape)),
            layout=Layout(torch.from_numpy(pieces.reshape(shape)), torch.from_numpy(positions.reshape(shape))),
            words_BL=torch.from_numpy(words.reshape(shape)),
            rows=torch.from_numpy(rows.astype(np.int64)),
            step=step,
            micro=micro,
        )
