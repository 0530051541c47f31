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

import torch
from pydantic import model_validator
from torch import Tensor
from torch.nn import functional as F

from kitae.models.compose import MaskedLm
from kitae.objectives.detection import binary_losses, detection_scores, detection_statistics, put_in, sampling_scores, sampling_statistics
from kitae.objectives.masking import Shares
from kitae.objectives.pair import PairConfig, PairObjective
from kitae.objectives.prediction import entropy, prediction_scores
from kitae.objectives.rates import rate_at
from kitae.objectives.softmax import cross_entropy_and_sample
from kitae.objectives.vocabulary import Predicted, predict_all
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import numpy_generator


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

    predicted: Predicted
    """-log q of the original tokens."""
    ids_BL: Tensor
    """With samples at the chosen positions."""
    log_q_R: Tensor
    """float64: of the tokens of `ids_BL`, without a gradient."""
    entropy: Tensor | None
    """float64: summed over the chosen positions, of q; where it was asked for."""


class ElectricObjective(PairObjective):
    """Two-tower generator and energy-based discriminator, trained together; no gradient goes through the sampling."""

    config: ElectricConfig
    kind = "electric"
    generator: MaskedLm

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Choose positions and draw the noise of the sampling; the ids stay as they are. Targets, int64 but for the noise: "picks" [N],
        positions in the flattened rows; "labels" [N]; "uniform" (float64 [N]); "real" [R], positions of real tokens; and places among
        these: "slots" [N] of the picks, "words" [W] of the tokens that the generator learns to predict, all but special ones.
        """
        chosen = self._masker(batch, numpy_generator(seed, "mask", batch.step, batch.micro)).targets
        noise = numpy_generator(seed, "sample", batch.step, batch.micro).random(len(chosen["picks"]))
        mask = batch.layout.mask_BL.flatten()
        real = mask.nonzero().view(-1)
        own = {
            "picks": chosen["picks"],
            "labels": chosen["labels"],
            "uniform": torch.from_numpy(noise),
            "real": real,
            "slots": (mask.cumsum(0) - 1).index_select(0, chosen["picks"]),
            "words": torch.from_numpy(self._masker.predictable(batch)).index_select(0, real).nonzero().view(-1),
        }
        return batch.replace(targets={**batch.targets, **own})

    def counts(self, batch: Batch) -> dict[str, int]:
        """cloze: all tokens but special ones; nce: all real tokens, special ones included."""
        return {"cloze": len(batch.targets["words"]), "nce": batch.num_tokens}

    def forward(self, batch: Batch) -> Loss:
        """The generator's cross-entropy at every token, and the discriminator's at noise and text."""
        noised, counts = self._noise(batch), self.counts(batch)
        losses_R = binary_losses(self._log_odds(batch, noised), self._is_noise(batch))
        return Loss(
            terms=(
                Term(name="cloze", sum=noised.predicted.total, count=counts["cloze"], weight=self.config.generator_weight),
                Term(name="nce", sum=losses_R.sum(), count=counts["nce"], weight=self.config.discriminator_weight),
            )
        )

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of both losses, right answers and counts, of the generator's entropy and hits, and histogram and bins of the log-odds."""
        noised, words = self._noise(batch, measured=True), batch.targets["words"]
        assert noised.entropy is not None
        sampled_N = noised.ids_BL.flatten().index_select(0, batch.targets["picks"])
        right_R = noised.predicted.likeliest_R == batch.ids_BL.flatten().index_select(0, batch.targets["real"])
        count = torch.tensor(float(len(words)), dtype=torch.float64, device=words.device)
        return {
            "cloze_sum": noised.predicted.total,
            "cloze_right": right_R.index_select(0, words).sum(dtype=torch.float64),
            "cloze_count": count,
            "generator_entropy": noised.entropy,
            **sampling_statistics(sampled_N, batch.targets["labels"]),
            **detection_statistics(self._log_odds(batch, noised), self._is_noise(batch), name="nce"),
        }

    def summarize(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        """cloze_loss (nats a token), cloze_perplexity, cloze_accuracy; generator_entropy at the chosen positions (nats); those of
        `sampling_scores`, and of `detection_scores` as nce_loss and so on."""
        scores = prediction_scores(stats, name="cloze") | sampling_scores(stats) | detection_scores(stats, name="nce")
        count = float(stats["sampled_count"])
        return scores | {"generator_entropy": float(stats["generator_entropy"]) / count} if count else scores

    def _noise(self, batch: Batch, *, measured: bool = False) -> _Noised:
        targets, head, known = batch.targets, self.generator.head, self.generator.known
        real, slots, labels_N = targets["real"], targets["slots"], targets["labels"]
        x_RE = head.transform(self.generator.read(batch, real))
        table_VE = self.generator.table_VE
        assert table_VE is not None, "the token table is the output table"
        table_VE, bias_V = table_VE[:known], head.bias[:known]
        weights_R = torch.zeros(len(real), dtype=torch.float64, device=real.device).index_fill(0, targets["words"], 1.0)
        predicted = predict_all(x_RE, table_VE, bias_V, batch.ids_BL.flatten().index_select(0, real), weights_R)
        with torch.no_grad():
            logits_NV = F.linear(x_RE.index_select(0, slots), table_VE, bias_V)
            _, sampled_N = cross_entropy_and_sample(logits_NV, labels_N, targets["uniform"])
            # a softmax over the same logits: its other probabilities differ by the differences of the logits
            gain_N = (logits_NV.gather(1, sampled_N[:, None]).double() - logits_NV.gather(1, labels_N[:, None]).double()).squeeze(1)
            log_q_R = (-predicted.losses_R).index_add(0, slots, gain_N)
        ids_BL, _ = put_in(batch, sampled_N)
        spread = entropy(logits_NV) if measured else None
        return _Noised(predicted=predicted, ids_BL=ids_BL, log_q_R=log_q_R, entropy=spread)

    def _log_odds(self, batch: Batch, noised: _Noised) -> Tensor:
        """float64 [R]: of noise against text."""
        energies_BL = self.discriminator(batch.replace(ids_BL=noised.ids_BL))
        energies_R = energies_BL.flatten().index_select(0, batch.targets["real"])
        rate = rate_at(self.config.rate, batch.progress)
        return energies_R.double() + noised.log_q_R + math.log(rate / (1 - rate))

    def _is_noise(self, batch: Batch) -> Tensor:
        """bool [R]: every chosen position, also where the sample equals the original."""
        real = batch.targets["real"]
        return torch.zeros(len(real), dtype=torch.bool, device=real.device).index_fill(0, batch.targets["slots"], True)
