"""What text becomes: ids with word numbers and places."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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
