"""Which positions a masked language model has to predict, and what it sees there. On the CPU, from an explicit generator.

Positions are drawn without replacement at the asked rate (Devlin et al. 2019, section 3.1, draw them with 80/10/10;
Clark et al. 2020 replace 85 % and keep 15 %), one by one or in runs of whole words (spans.py). Special tokens are neither predicted
nor shown by chance; [UNK], which has nothing to tell, is not predicted.

Shapes: B rows, L positions, T = B * L, N masked positions of the micro-batch, W words.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.objectives.rates import Rate, rate_at
from kitae.objectives.spans import Floats, Ints, Words, choose_runs, cut_into_runs
from kitae.tensor.batch import Batch
from kitae.tokenization.special import SpecialIds

Unit = Literal["token", "word", "span", "ngram"]
Shares = tuple[float, float, float]
"""Shares of the chosen positions that show [MASK], a random token, and the token itself."""


class Masker:
    """Draws masks: `rate` of all candidates (`predictable`), one by one or by runs of whole words.

    `runs`: shares of runs of 1, 2, ... words; None draws single tokens. `together`: a run shows [MASK], random tokens or itself as
    a whole, as SpanBERT's spans do; else every token of it by itself.
    """

    def __init__(
        self, *, rate: Rate, replacement: Shares, special: SpecialIds, vocab_size: int, runs: Floats | None = None, together: bool = False
    ) -> None:
        self._rate, self._runs, self._together, self._replacement, self._mask = rate, runs, together, replacement, special.mask
        self._vocab_size = vocab_size
        self._never = np.array(special.ids, dtype=np.int64)
        self._random_ids = np.setdiff1d(np.arange(vocab_size), self._never)

    def predictable(self, batch: Batch) -> NDArray[np.bool_]:
        """bool [T]: the tokens that can be chosen, which are all but special ones and [UNK]."""
        ids = batch.ids_BL.numpy().reshape(-1)
        # numbers behind the vocabulary are words that a CharacterBERT reads and cannot predict
        known = (ids < self._vocab_size) & ~np.isin(ids, self._never)
        return known & (batch.words_BL.numpy().reshape(-1) >= 0)

    def __call__(self, batch: Batch, generator: np.random.Generator) -> Batch:
        """The batch as the model sees it, with targets "picks" (int64 [N], sorted positions in the flattened rows) and
        "labels" (int64 [N], the ids that stood there). The rate is that of the batch's `progress`."""
        ids, (num_rows, length) = batch.ids_BL.numpy().reshape(-1), batch.ids_BL.shape
        candidates = np.flatnonzero(self.predictable(batch))
        rate = rate_at(self._rate, batch.progress)
        if self._runs is None or not len(candidates):
            picks = _tokens(candidates, num_rows, length, rate, generator)
            groups = np.arange(len(picks))
        else:
            words = Words.of(candidates, batch.words_BL.numpy().reshape(-1), length)
            run_W = cut_into_runs(words, self._runs, generator)
            masked = choose_runs(words, run_W, rate, num_rows, generator)[words.number_N]
            picks = candidates[masked]
            groups = run_W[words.number_N[masked]] if self._together else np.arange(len(picks))
        labels = ids[picks]
        seen = ids.copy()
        seen[picks] = self._replaced(labels, groups, generator)
        return batch.replace(
            ids_BL=torch.from_numpy(seen).view(batch.ids_BL.shape),
            targets={**batch.targets, "picks": torch.from_numpy(picks), "labels": torch.from_numpy(labels)},
        )

    def _replaced(self, labels: Ints, groups: Ints, generator: np.random.Generator) -> Ints:
        """What stands at the masked positions.

        The groups lie in random order, each as long as it has tokens, and where one begins says what it shows. The shares hold as counts
        over the micro-batch, rounded to whole groups. Runs lie on a circle that is turned at random: few of them have their shares too, in
        the mean.
        """
        count = len(labels)
        names, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        order = generator.permutation(len(names))
        begins = np.empty(len(names))
        begins[order] = sizes[order].cumsum() - sizes[order]
        turn = count * generator.random() if self._together else 0.5
        places = ((begins + turn) % max(count, 1))[group]
        masks = places <= self._replacement[0] * count
        random = (places <= (self._replacement[0] + self._replacement[1]) * count) & ~masks
        seen = labels.copy()
        seen[masks] = self._mask
        seen[random] = self._random_ids[generator.integers(len(self._random_ids), size=int(random.sum()))]
        return seen


def _tokens(candidates: Ints, num_rows: int, length: int, rate: float, generator: np.random.Generator) -> Ints:
    """round(rate * candidates) positions. Rounding errors are carried from row to row, so that every row has its share
    to within one token and the micro-batch has its number exactly."""
    row = candidates // length
    each = np.bincount(row, minlength=num_rows)
    quota = np.diff(np.floor(rate * each.cumsum() + 0.5), prepend=0)
    order = np.lexsort((generator.random(len(candidates)), row))
    rank = np.arange(len(candidates)) - np.repeat(each.cumsum() - each, each)
    return np.sort(candidates[order[rank < np.repeat(quota, each)]])
