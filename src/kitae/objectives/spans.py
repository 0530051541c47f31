"""Runs of whole words that are masked together: single words, SpanBERT's spans, DeBERTa's n-grams.

The words of a row are cut into runs whose lengths are drawn one by one, and whole runs are chosen. So every run is chosen with the
same probability, every position is masked equally often (also at the ends of rows, where spans with random starts come less often),
and runs never overlap. No run passes a special token, so none spans two documents or two sentences of a pair.

Shapes: N candidate positions, W words, in their order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Words:
    """The words of a micro-batch, among its candidates."""

    number_N: Ints
    """Which word each candidate belongs to."""
    sizes_W: Ints
    """Candidates of each word."""
    rows_W: Ints
    """Row of each word."""
    opens_W: NDArray[np.bool_]
    """Whether something else than a word stands before it, or nothing: no run goes on into it."""

    @classmethod
    def of(cls, candidates_N: Ints, words_T: NDArray[np.int32], length: int) -> "Words":
        """Of sorted candidate positions in the flattened rows; words_T: word numbers within the row, everywhere."""
        rows_N = candidates_N // length
        begins_N = np.diff(rows_N * length + words_T[candidates_N], prepend=-1) != 0
        first_W = np.nonzero(begins_N)[0]
        return cls(
            number_N=begins_N.cumsum() - 1,
            sizes_W=np.diff(first_W, append=len(candidates_N)),
            rows_W=rows_N[first_W],
            opens_W=(np.diff(candidates_N, prepend=-2) != 1)[first_W],
        )


def geometric_shares(end: float, longest: int) -> Floats:
    """Shares of runs of 1, 2, ... `longest` words: a run ends after each word with this probability (Joshi et al. 2020,
    arXiv:1907.10529, section 3.1: 0.2 and 10; longer ones are drawn again)."""
    shares = end * (1 - end) ** np.arange(longest)
    return shares / shares.sum()


def harmonic_shares(longest: int) -> Floats:
    """Shares of runs of 1, 2, ... `longest` words: 1 / n (microsoft/DeBERTa, NGramMaskGenerator; longest 3)."""
    shares = 1 / np.arange(1, longest + 1)
    return shares / shares.sum()


def cut_into_runs(words: Words, shares: Floats, generator: np.random.Generator) -> Ints:
    """run_W: the number of each word's run. Lengths follow `shares`; what stands before a special token may be shorter."""
    count = len(words.sizes_W)
    if len(shares) == 1:
        return np.arange(count)
    lengths = (1 + np.searchsorted(shares.cumsum(), generator.random(count), side="right").clip(max=len(shares) - 1)).tolist()
    begins = [False] * count
    end = 0
    for word, opens in enumerate(words.opens_W.tolist()):
        if opens or word == end:
            begins[word], end = True, word + lengths[word]
    return np.cumsum(begins) - 1


def choose_runs(words: Words, run_W: Ints, rate: float, num_rows: int, generator: np.random.Generator) -> NDArray[np.bool_]:
    """chosen_W: in every row the runs that begin in a window, when all of its runs lie on a circle in random order.

    The circle is turned at random, so that long and short runs of a row are chosen equally often, and their tokens are as many as the
    window's in the mean. The window is the share of the rows so far less what is masked of them: what a row has too much, the next
    has less, and the micro-batch ends within a run of the rate.
    """
    first_R = np.flatnonzero(np.diff(run_W, prepend=-1))
    rows_R, sizes_R = words.rows_W[first_R], np.add.reduceat(words.sizes_W, first_R)
    tokens_B = np.bincount(rows_R, weights=sizes_R, minlength=num_rows)
    order_R = np.lexsort((generator.random(len(rows_R)), rows_R))
    bounds = np.searchsorted(rows_R, np.arange(1, num_rows))
    goals_B, turns_B = rate * tokens_B.cumsum(), generator.random(num_rows)
    chosen_R = np.zeros(len(rows_R), dtype=np.bool_)
    masked = 0
    for row, mine in enumerate(np.split(order_R, bounds)):
        sizes = sizes_R[mine]
        begins = (sizes.cumsum() - sizes + turns_B[row] * tokens_B[row]) % max(tokens_B[row], 1)
        chosen_R[mine] = begins < goals_B[row] - masked
        masked += int(sizes[chosen_R[mine]].sum())
    return chosen_R[run_W]
