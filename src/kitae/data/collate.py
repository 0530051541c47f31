"""Rows of the plan -> Batch, by numpy gathers without a loop over rows or pieces."""

import numpy as np
import torch

from kitae.core.errors import KitaeError
from kitae.data.packing import SPECIALS
from kitae.data.pairs import Partners, Segments
from kitae.data.plan import Plan
from kitae.data.shards import Ints, Shards
from kitae.tensor.batch import Batch, Layout, Spelling


class Collator:
    """Lays rows out: every piece [CLS] tokens [SEP], or [CLS] A [SEP] B [SEP], one behind the other, padding at the end.

    With partners the batch has segments, and two targets: "pairs" (int64 [N], where the [CLS] of every pair stands in the
    flattened rows) and "pair_labels" (int64 [N]). A piece of a single segment has no label.
    With a spelling, the ids are numbers of words, which the batch looks up when masks are drawn (`Batch.spelled`).
    Raises KitaeError for an id outside of the vocabulary: a model reads anything there, or takes the device down.
    """

    def __init__(
        self,
        shards: Shards,
        plan: Plan,
        *,
        vocab_size: int,
        cls: int,
        sep: int,
        pad: int,
        partners: Partners | None = None,
        spelling: Spelling | None = None,
    ) -> None:
        self._shards, self._plan, self._vocab_size, self._partners, self._spelling = shards, plan, vocab_size, partners, spelling
        self._cls, self._sep, self._pad = cls, sep, pad

    def __call__(self, rows: Ints, visits: Ints, *, step: int, micro: int) -> Batch:
        """The batch of these row numbers (int64 [B]; a row may occur twice) at these visits. Shapes: B rows, L = max_length."""
        plan, length = self._plan, self._plan.max_length
        first = plan.rows[rows]
        each = plan.rows[rows + 1] - first
        row_ends = each.cumsum()
        row_of = np.repeat(np.arange(len(rows)), each)
        number = np.arange(row_ends[-1]) - np.repeat(row_ends - each, each)  # of the piece in its row, from 0
        piece = np.repeat(first, each) + number
        segments = self._segments(piece, rows[row_of], visits[row_of])
        paired = segments.second_lengths > 0
        size = SPECIALS + segments.first_lengths + segments.second_lengths + paired
        behind = size.cumsum() - size
        offset = row_of * length + behind - np.repeat(behind[row_ends - each], each)  # of the piece's [CLS] in the flat rows

        within = np.arange(size.sum()) - np.repeat(behind, size)
        where = np.repeat(offset, size) + within
        positions = np.zeros(len(rows) * length, dtype=np.int64)
        pieces = np.zeros(len(rows) * length, dtype=np.int32)
        positions[where] = within
        pieces[where] = np.repeat(number + 1, size)

        ids = np.full(len(rows) * length, self._pad, dtype=np.int64)
        ids[offset] = self._cls
        ids[offset + segments.first_lengths + 1] = self._sep
        ids[(offset + size - 1)[paired]] = self._sep
        words = np.full(len(rows) * length, -1, dtype=np.int32)
        self._write_tokens(ids, words, segments, offset, row_of)
        shape = (len(rows), length)
        batch = Batch(
            ids_BL=torch.from_numpy(ids.reshape(shape)),
            layout=Layout(torch.from_numpy(pieces.reshape(shape)), torch.from_numpy(positions.reshape(shape))),
            segments_BL=None if self._partners is None else torch.zeros(shape, dtype=torch.int64),
            spelling=self._spelling,
            words_BL=torch.from_numpy(words.reshape(shape)),
            rows=torch.from_numpy(rows.astype(np.int64)),
            step=step,
            micro=micro,
        )
        if batch.segments_BL is None:
            return batch
        second = within > np.repeat(segments.first_lengths + 1, size)
        batch.segments_BL.numpy().reshape(-1)[where[second]] = 1
        return batch.replace(targets={"pairs": torch.from_numpy(offset[paired]), "pair_labels": torch.from_numpy(segments.labels[paired])})

    def _segments(self, pieces: Ints, rows: Ints, visits: Ints) -> Segments:
        if self._partners is not None:
            return self._partners(pieces, rows, visits)
        none = np.zeros(len(pieces), dtype=np.int64)
        lengths = self._plan.lengths[pieces].astype(np.int64)
        return Segments(first_starts=self._plan.starts[pieces], first_lengths=lengths, second_starts=none, second_lengths=none, labels=none)

    def _write_tokens(self, ids: Ints, words: np.ndarray, segments: Segments, offset: Ints, row_of: Ints) -> None:
        """Put every segment's tokens and word numbers in their places."""
        starts = np.stack([segments.first_starts, segments.second_starts], axis=1).ravel()
        tokens = np.stack([segments.first_lengths, segments.second_lengths], axis=1).ravel()
        begins = np.stack([offset + 1, offset + 2 + segments.first_lengths], axis=1).ravel()
        rows = np.repeat(row_of, 2)[tokens > 0]
        starts, begins, tokens = starts[tokens > 0], begins[tokens > 0], tokens[tokens > 0]
        ends = tokens.cumsum()
        inside = np.arange(ends[-1]) - np.repeat(ends - tokens, tokens)
        target = np.repeat(begins, tokens) + inside
        content, word_starts = self._shards.gather(np.repeat(starts, tokens) + inside)
        if (highest := int(content.max())) >= self._vocab_size:
            raise KitaeError(
                f"the token shards are damaged: id {highest} is not in the vocabulary of {self._vocab_size}",
                cure="see with `kitae verify` which file it is; remove the dataset and run its stage again",
                where=str(self._shards.folder),
            )
        ids[target] = content
        word_starts[ends - tokens] = True  # a cut may fall into a word; a word never spans two segments
        word = word_starts.cumsum()
        begin = np.nonzero(np.diff(rows, prepend=-1))[0]  # each row's first segment
        row_tokens = np.add.reduceat(tokens, begin)
        words[target] = word - np.repeat(word[(ends - tokens)[begin]], row_tokens)
