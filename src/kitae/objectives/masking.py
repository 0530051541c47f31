"""Which positions a masked language model has to predict, and what it sees there. On the CPU, from an explicit generator.

Positions are drawn without replacement at exactly the asked rate (Devlin et al. 2019, section 3.1, draw them with 80/10/10;
Clark et al. 2020 replace 85 % and keep 15 %). Shapes: B rows, L positions, N masked positions of the micro-batch.
"""

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.tensor.batch import Batch
from kitae.tokenization.special import SpecialIds

Unit = Literal["token", "word"]
Shares = tuple[float, float, float]
"""Shares of the chosen positions that show [MASK], a random token, and the token itself."""
Ints = NDArray[np.int64]


class Masker:
    """Draws masks: `rate` of all candidates (every token but special ones), by tokens or by whole words."""

    def __init__(self, *, rate: float, unit: Unit, replacement: Shares, special: SpecialIds, vocab_size: int) -> None:
        self._rate, self._unit, self._replacement, self._special = rate, unit, replacement, special
        self._vocab_size = vocab_size
        self._never = np.array([special.cls, special.sep, special.mask, special.pad], dtype=np.int64)
        self._random_ids = np.setdiff1d(np.arange(vocab_size), [*self._never, special.unk])

    def __call__(self, batch: Batch, generator: np.random.Generator) -> Batch:
        """The batch as the model sees it, with targets "picks" (int64 [N], sorted positions in the flattened rows) and
        "labels" (int64 [N], the ids that stood there)."""
        ids = batch.ids_BL.numpy().reshape(-1)
        candidate = (batch.words_BL.numpy().reshape(-1) >= 0) & ~np.isin(ids, self._never) & (ids < self._vocab_size)
        candidates = np.nonzero(candidate)[0]
        draw = self._tokens if self._unit == "token" else self._words
        picks = draw(candidates, batch, generator)
        labels = ids[picks]
        seen = ids.copy()
        seen[picks] = self._replaced(labels, generator)
        return batch.replace(
            ids_BL=torch.from_numpy(seen).view(batch.ids_BL.shape),
            targets={**batch.targets, "picks": torch.from_numpy(picks), "labels": torch.from_numpy(labels)},
        )

    def _tokens(self, candidates: Ints, batch: Batch, generator: np.random.Generator) -> Ints:
        """round(rate * candidates) positions. Rounding errors are carried from row to row, so that every row has its share
        to within one token and the micro-batch has its number exactly."""
        rows, length = batch.ids_BL.shape
        row = candidates // length
        each = np.bincount(row, minlength=rows)
        quota = np.diff(np.floor(self._rate * each.cumsum() + 0.5), prepend=0)
        order = np.lexsort((generator.random(len(candidates)), row))
        rank = np.arange(len(candidates)) - np.repeat(each.cumsum() - each, each)
        return np.sort(candidates[order[rank < np.repeat(quota, each)]])

    def _words(self, candidates: Ints, batch: Batch, generator: np.random.Generator) -> Ints:
        """Whole words in random order, row by row, until the number of tokens is nearest to the rate; what is missing or too
        much goes over to the next row, so that the micro-batch ends within half a word of the rate."""
        rows, length = batch.ids_BL.shape
        if not len(candidates):
            return candidates
        row = candidates // length
        each = np.bincount(row, minlength=rows)
        word = batch.words_BL.numpy().reshape(-1)[candidates].astype(np.int64)
        keys, number, sizes = np.unique(row * length + word, return_inverse=True, return_counts=True)
        order = np.lexsort((generator.random(len(keys)), keys // length))
        chosen = np.zeros(len(keys), dtype=np.bool_)
        bounds = np.searchsorted(keys[order] // length, np.arange(rows + 1))
        goals, masked = self._rate * each.cumsum(), 0
        for goal, start, end in zip(goals, bounds[:-1], bounds[1:], strict=True):
            totals = np.concatenate([[0], sizes[order[start:end]].cumsum()])
            take = int(np.abs(masked + totals - goal).argmin())
            chosen[order[start : start + take]] = True
            masked += int(totals[take])
        return candidates[chosen[number]]

    def _replaced(self, labels: Ints, generator: np.random.Generator) -> Ints:
        """What stands at the masked positions: the shares hold exactly, as rounded counts over the micro-batch."""
        count = len(labels)
        order = generator.permutation(count)
        masks = int(self._replacement[0] * count + 0.5)
        others = int((self._replacement[0] + self._replacement[1]) * count + 0.5)
        seen = labels.copy()
        seen[order[:masks]] = self._special.mask
        seen[order[masks:others]] = self._random_ids[generator.integers(len(self._random_ids), size=others - masks)]
        return seen
