"""What text becomes: ids with word numbers and places."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Word = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Flat:
    """The tokens of many sentences one after the other, no special tokens."""

    ids: NDArray[np.int64]
    """Token ids."""
    begins: NDArray[np.bool_]
    """Where a word begins."""
    lengths: NDArray[np.int64]
    """Tokens of each sentence."""


def flat(words: Sequence[Word], counts: Sequence[int]) -> Flat:
    """From words, each of some ids or none, and the number of words in each sentence."""
    sizes = np.fromiter(map(len, words), dtype=np.int64, count=len(words))
    ends = np.concatenate([[0], sizes.cumsum()])
    begins = np.zeros(int(ends[-1]), dtype=np.bool_)
    begins[ends[:-1][sizes > 0]] = True
    ids = np.fromiter(chain.from_iterable(words), dtype=np.int64, count=len(begins))
    return Flat(ids=ids, begins=begins, lengths=np.diff(ends[np.asarray(counts, dtype=np.int64).cumsum()], prepend=0))


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Tokens of a text, no special tokens; int32 arrays of one length."""

    ids: np.ndarray
    """Token ids."""
    word_ids: np.ndarray
    """Number of the word, counted over the text."""
    starts: np.ndarray
    """First character in the original text."""
    ends: np.ndarray
    """One behind the last character in the original text; equal to the start for a blank of SentencePiece that stands alone."""


def arrays(ids: Sequence[int], word_ids: Sequence[int], starts: Sequence[int], ends: Sequence[int]) -> Encoding:
    """An encoding from lists."""
    ids_, words_, starts_, ends_ = (np.asarray(values, dtype=np.int32) for values in (ids, word_ids, starts, ends))
    return Encoding(ids=ids_, word_ids=words_, starts=starts_, ends=ends_)
