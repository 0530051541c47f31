"""Runs of whole words that are masked together: single words, SpanBERT's spans, DeBERTa's n-grams.

The words of a row are cut into runs whose lengths are drawn one by one, and whole runs are chosen. So every run is chosen with the
same probability, every position is masked equally often (also at the ends of rows, where spans with random starts come less often),
and runs never overlap. No run passes a special token, so none spans two documents or two sentences of a pair.

Shapes: N candidate positions, W words, in their order.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEAR = 1e-9
"""What floating-point sums of tokens may be off."""
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
    """chosen_W: row by row, runs in random order until the rows so far have their share of tokens.

    What a row has too much, the next has less. Only the run that would leave the share of the whole micro-batch is cut, at the word
    that is nearest to it: the micro-batch ends within half a word of the rate. (To stop each row at the nearest run instead would
    choose long runs less often.)
    """
    begins_R = np.searchsorted(run_W, np.arange(run_W[-1] + 2))  # the first word of each run, and the end
    rows_R = words.rows_W[begins_R[:-1]]
    tokens_W = np.concatenate([[0], words.sizes_W.cumsum()])
    sizes_R = np.diff(tokens_W[begins_R])
    goals = rate * np.bincount(words.rows_W, weights=words.sizes_W, minlength=num_rows).cumsum()
    order_R = np.lexsort((generator.random(len(rows_R)), rows_R))
    bounds = np.searchsorted(rows_R[order_R], np.arange(num_rows + 1))
    chosen_W = np.zeros(len(words.sizes_W), dtype=np.bool_)
    masked, limit = 0, goals[-1] + NEAR
    for goal, start, end in zip(goals, bounds[:-1], bounds[1:], strict=True):
        for run in order_R[start:end].tolist():
            if masked >= goal - NEAR:
                break
            first, behind = begins_R[run], begins_R[run + 1]
            if masked + sizes_R[run] > limit:
                within = masked + tokens_W[first : behind + 1] - tokens_W[first]
                behind = first + int(np.abs(within - goals[-1]).argmin())
                chosen_W[first:behind] = True
                return chosen_W  # to go on with whatever still fits would prefer short words
            chosen_W[first:behind] = True
            masked += int(tokens_W[behind] - tokens_W[first])
    return chosen_W
