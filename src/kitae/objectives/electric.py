"""Electric (Clark et al. 2020, "Pre-Training Transformers as Energy-Based Cloze Models", arXiv:2012.08561).

A two-tower generator (models/towers.py) gives q(token | everything around it) at every position of the unchanged text. At a share k
of the positions stands a sample of it, and the discriminator's scores E become energies by noise-contrastive estimation: that position t is
noise has the log-odds E_t + log q(x_t) + log(k / (1 - k)), so that -E_t learns to be log p(x_t | everything around it). A whole text gets
a pseudo-log-likelihood, the sum of -E_t, in one pass. A sample equal to the original counts as noise too.

Shapes: B rows, L positions, R real tokens, N positions with a sample, V vocabulary.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor

from kitae.models.compose import Discriminator, MaskedLm
from kitae.objectives.detection import binary_losses, detection_scores, detection_statistics, put_in
from kitae.objectives.masking import Shares
from kitae.objectives.pair import PairConfig, PairObjective
from kitae.objectives.rates import rate_at
from kitae.objectives.softmax import cross_entropy, cross_entropy_and_sample
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import numpy_generator
from kitae.tokenization.special import SpecialIds


class ElectricConfig(PairConfig):
    """Settings of Electric; the defaults are those of google-research/electra with electric_objective."""

    replacement: Shares = (1.0, 0.0, 0.0)
    """No choice here: the generator sees the text as it is, and every chosen position gets a sample of it."""

    @model_validator(mode="after")
    def _noise_everywhere(self) -> Self:
        if self.replacement != (1.0, 0.0, 0.0):
            raise ValueError("replacement has no effect on Electric, whose chosen positions all get a sample")
        if 1.0 in ((self.rate,) if isinstance(self.rate, float) else [share for _, share in self.rate]):
            raise ValueError("rate = 1 leaves no token of the text for the noise to be told from")
        return self


@dataclass(frozen=True, kw_only=True)
class _Noised:
    """The generator's part of a forward pass."""

    logits_RV: Tensor
    losses_R: Tensor
    """-log q of the original tokens, with a gradient."""
    ids_BL: Tensor
    """With samples at the chosen positions."""
    log_q_R: Tensor
    """float64: of the tokens of `ids_BL`, without a gradient."""


class ElectricObjective(PairObjective):
    """Two-tower generator and energy-based discriminator, trained together; no gradient goes through the sampling."""

    generator: MaskedLm

    def __init__(
        self, generator: MaskedLm, discriminator: Discriminator, config: ElectricConfig, *, special: SpecialIds, vocab_size: int
    ) -> None:
        super().__init__(generator, discriminator, config)
        self.config = config
        self._masker = config.masker(special=special, vocab_size=vocab_size)
        self._special = [special.cls, special.sep, special.mask, special.pad, special.unk]

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Choose positions and draw the noise of the sampling; the ids stay as they are. Targets: "picks" (int64 [N], positions in the
        flattened rows), "labels" (int64 [N]), "uniform" (float64 [N]), "real" (int64 [R], positions of real tokens), "slots" (int64
        [N], the picks among them), "words" (bool [R], whether the generator learns to predict the token: special ones it does not).
        """
        chosen = self._masker(batch, numpy_generator(seed, "mask", batch.step, batch.micro)).targets
        noise = numpy_generator(seed, "sample", batch.step, batch.micro).random(len(chosen["picks"]))
        mask = batch.layout.mask_BL.flatten()
        real = mask.nonzero().view(-1)
        words = (batch.words_BL.numpy() >= 0) & ~np.isin(batch.ids_BL.numpy(), self._special)
        own = {
            "picks": chosen["picks"],
            "labels": chosen["labels"],
            "uniform": torch.from_numpy(noise),
            "real": real,
            "slots": (mask.cumsum(0) - 1).index_select(0, chosen["picks"]),
            "words": torch.from_numpy(words).flatten().index_select(0, real),
        }
        return batch.replace(targets={**batch.targets, **own})

    def counts(self, batch: Batch) -> dict[str, int]:
        """cloze: all tokens but special ones; nce: all real tokens, special ones included."""
        return {"cloze": int(batch.targets["words"].sum()), "nce": batch.num_tokens}

    def forward(self, batch: Batch) -> Loss:
        """The generator's cross-entropy at every token, and the discriminator's at noise and text."""
        noised, counts = self._noise(batch), self.counts(batch)
        cloze = (noised.losses_R * batch.targets["words"]).sum()
        losses_R = binary_losses(self._log_odds(batch, noised), self._is_noise(batch))
        return Loss(
            terms=(
                Term(name="cloze", sum=cloze, count=counts["cloze"], weight=self.config.generator_weight),
                Term(name="nce", sum=losses_R.sum(), count=counts["nce"], weight=self.config.discriminator_weight),
            )
        )

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of both losses, right answers, counts, and the histogram of the log-odds."""
        noised, words_R = self._noise(batch), batch.targets["words"]
        labels_R = batch.ids_BL.flatten().index_select(0, batch.targets["real"])
        right_R = (noised.logits_RV.argmax(dim=1) == labels_R) & words_R
        return {
            "cloze_sum": (noised.losses_R * words_R).sum(),
            "cloze_right": right_R.sum(dtype=torch.float64),
            "cloze_count": words_R.sum(dtype=torch.float64),
        } | detection_statistics(self._log_odds(batch, noised), self._is_noise(batch), name="nce")

    def summarize(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        """cloze_loss (nats a token), cloze_accuracy, nce_loss, nce_accuracy, nce_auc."""
        scores, count = detection_scores(stats, name="nce"), float(stats["cloze_count"])
        if not count:
            return scores
        return {"cloze_loss": float(stats["cloze_sum"]) / count, "cloze_accuracy": float(stats["cloze_right"]) / count} | scores

    def _noise(self, batch: Batch) -> _Noised:
        targets = batch.targets
        real, slots, labels_N = targets["real"], targets["slots"], targets["labels"]
        logits_RV = self.generator(batch, real)
        losses_R = cross_entropy(logits_RV, batch.ids_BL.flatten().index_select(0, real))
        with torch.no_grad():
            chosen_NV = logits_RV.index_select(0, slots)
            _, sampled_N = cross_entropy_and_sample(chosen_NV, labels_N, targets["uniform"])
            # a softmax over the same logits: its other probabilities differ by the differences of the logits
            gain_N = (chosen_NV.gather(1, sampled_N[:, None]).double() - chosen_NV.gather(1, labels_N[:, None]).double()).squeeze(1)
            log_q_R = (-losses_R).index_add(0, slots, gain_N)
        ids_BL, _ = put_in(batch, sampled_N)
        return _Noised(logits_RV=logits_RV, losses_R=losses_R, ids_BL=ids_BL, log_q_R=log_q_R)

    def _log_odds(self, batch: Batch, noised: _Noised) -> Tensor:
        """float64 [R]: of noise against text."""
        energies_BL = self.discriminator(batch.replace(ids_BL=noised.ids_BL))
        energies_R = energies_BL.flatten().index_select(0, batch.targets["real"])
        rate = rate_at(self.config.rate, batch.progress)
        return energies_R.double() + noised.log_q_R + math.log(rate / (1 - rate))

    def _is_noise(self, batch: Batch) -> Tensor:
        """bool [R]: every chosen position, also where the sample equals the original."""
        return torch.zeros_like(batch.targets["words"]).index_fill(0, batch.targets["slots"], True)
