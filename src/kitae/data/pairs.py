"""Sentence pairs: what stands in the second segment, drawn anew at every visit of a row as a pure function of (seed, visit, row).

The plan fixes the pairs [CLS] A [SEP] B [SEP], B being what follows A. For next sentence prediction (Devlin et al. 2019) a share
of them shows another B: text of another document of the same source that begins and ends with a sentence, like every B, and is
nearly as long as the true one, never longer. The little that it is shorter goes to the row's padding, which still tells random
seconds from true ones at an AUC of 0.62 where chance is 0.5. For sentence order prediction (Lan et al. 2020) a share of them
shows B before A, which changes no length.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kitae.core.config import Config
from kitae.data.plan import Plan
from kitae.data.sentences import SHORT
from kitae.data.shards import Ints, Shards
from kitae.tensor.random import key, mixed

TRIES = 32
"""Places that a random second segment is chosen from."""
_OUTSIDE = 1 << 20  # pieces outside a document that are remembered
_COUNTED = 4096  # pairs of a source whose labels are counted


class PairConfig(Config):
    """What is to be told of a pair of segments."""

    task: Literal["nsp", "sop"] = "nsp"
    """"nsp": does the second segment follow the first, or is it from another document? "sop": are the two in their order?"""
    negative: float = Field(default=0.5, ge=0, le=1)
    """Share of the pairs that are not what the text says: random next, or swapped. 0 gives ELECTRA's two segments in a row."""
    next_label: Literal[0, 1] = 0
    """Label of a true pair; the others have the other one. 0 is BERT's and Hugging Face's, 1 that of CharacterBERT's pre-training."""
    short: float = Field(default=SHORT, ge=0, le=1)
    """Share of the rows that begin with a pair of at most a random length."""


@dataclass(frozen=True, kw_only=True)
class Segments:
    """What stands in the pieces of a micro-batch: first and second segments (P each; `second_lengths` 0 = none), and labels."""

    first_starts: Ints
    first_lengths: Ints
    second_starts: Ints
    second_lengths: Ints
    labels: Ints
    """Of every piece; meaningless where there is no second segment."""


class Partners:
    """Draws the second segments."""

    def __init__(self, shards: Shards, plan: Plan, config: PairConfig, *, seed: int) -> None:
        assert plan.splits is not None
        self._shards, self._plan, self._config = shards, plan, config
        self._splits = plan.splits
        self._key = key(seed, "pairs")
        self._first_pieces: Ints = np.append(plan.rows[plan.source_rows[:-1]], plan.num_pieces)  # of each source
        self._outside: dict[int, Ints] = {}

    def __call__(self, pieces: Ints, rows: Ints, visits: Ints) -> Segments:
        """Of these pieces, in these rows (row numbers of the plan), at these visits of theirs; all int64 [P]."""
        starts, lengths = self._plan.starts[pieces], self._plan.lengths[pieces].astype(np.int64)
        splits = self._splits[pieces].astype(np.int64)
        paired = splits > 0
        a_starts, a_lengths = starts, np.where(paired, splits, lengths)
        b_starts, b_lengths = starts + splits, np.where(paired, lengths - splits, 0)
        seeds = mixed(self._key, rows, visits, pieces)
        negative = paired & ((seeds >> np.uint64(11)) * 2.0**-53 < self._config.negative)
        if self._config.task == "sop":
            a_starts, b_starts = np.where(negative, b_starts, a_starts), np.where(negative, a_starts, b_starts)
            a_lengths, b_lengths = np.where(negative, b_lengths, a_lengths), np.where(negative, a_lengths, b_lengths)
        elif negative.any():
            where = np.nonzero(negative)[0]
            others, sizes = self._random(pieces[where], b_lengths[where], seeds[where])
            found = sizes > 0
            negative[where[~found]] = False  # a source of one document has no other: its pairs stay true, which `shares` shows
            b_starts, b_lengths = b_starts.copy(), b_lengths.copy()
            b_starts[where[found]], b_lengths[where[found]] = others[found], sizes[found]
        labels = np.where(negative, 1 - self._config.next_label, self._config.next_label)
        return Segments(
            first_starts=a_starts, first_lengths=a_lengths, second_starts=b_starts, second_lengths=b_lengths, labels=labels.astype(np.int64)
        )

    def shares(self) -> list[float | None]:
        """Of each source, the share of its pairs that are not what the text says: counted on a few thousand; None without pairs."""
        found: list[float | None] = []
        for first, end in pairwise(self._first_pieces.tolist()):
            pieces = np.arange(first, end, max(1, (end - first) // _COUNTED))
            pieces = pieces[self._splits[pieces] > 0]
            none = np.zeros_like(pieces)
            found.append(float((self(pieces, none, none).labels != self._config.next_label).mean()) if len(pieces) else None)
        return found

    def _random(self, pieces: Ints, room: Ints, seeds: NDArray[np.uint64]) -> tuple[Ints, Ints]:
        """(start, tokens) of text of other documents with at most `room` tokens each; 0 tokens where the source has no other."""
        source = np.searchsorted(self._first_pieces, pieces, side="right") - 1
        first, count = self._first_pieces[source], np.diff(self._first_pieces)[source]
        draws = mixed(self._key, np.repeat(seeds, TRIES).view(np.int64), np.tile(np.arange(TRIES), len(pieces))).reshape(-1, TRIES)
        others = first[:, None] + (draws % count[:, None].astype(np.uint64)).astype(np.int64)
        own, own_ends = self._shards.document_at(self._plan.starts[pieces])
        starts, sizes = self._best(others, own, room)
        for failed in np.flatnonzero(sizes == 0).tolist():  # where one document is most of its source, all tries may have been in it
            outside = self._pieces_outside(int(own[failed]), int(own_ends[failed]), int(first[failed]), int(count[failed]))
            if len(outside):
                some = outside[(draws[failed] % np.uint64(len(outside))).astype(np.int64)]
                start, size = self._best(some[None], own[failed, None], room[failed, None])
                starts[failed], sizes[failed] = start[0], size[0]
        return starts, sizes

    def _best(self, others: Ints, own: Ints, room: Ints) -> tuple[Ints, Ints]:
        """(start, tokens) of the best second segment that begins like one of these pieces ([P, TRIES]); 0 tokens if all are of `own`."""
        starts = (self._plan.starts[others] + self._splits[others]).ravel()  # where a second segment, or a single one, begins
        document, end = self._shards.document_at(starts)
        limit = np.minimum(starts + np.repeat(room, TRIES), end)
        whole = self._shards.sentence_end_before(limit) - starts
        shown = np.where(whole > 0, whole, limit - starts)
        # whole sentences first, then the longest; a sentence is cut only when none of the tries has a short enough one
        rank = np.where(document == np.repeat(own, TRIES), 0, np.where(whole > 0, whole + (1 << 32), shown)).reshape(-1, TRIES)
        at = np.arange(len(others)) * TRIES + rank.argmax(axis=1)
        return starts[at], np.where(rank.max(axis=1) > 0, shown[at], 0)

    def _pieces_outside(self, start: int, end: int, first: int, count: int) -> Ints:
        """Pieces of a source that are not of the document from token `start` to `end`: the first of them, enough to choose from."""
        if start not in self._outside:  # but for freaks of chance only documents that are most of their source are asked for
            parts, found = [np.zeros(0, dtype=np.int64)], 0
            for begin in range(first, first + count, _OUTSIDE):
                places = self._plan.starts[begin : min(begin + _OUTSIDE, first + count)]
                parts.append(begin + np.flatnonzero((places < start) | (places >= end)))
                found += len(parts[-1])
                if found >= _OUTSIDE:
                    break
            self._outside[start] = np.concatenate(parts)[:_OUTSIDE]
        return self._outside[start]
