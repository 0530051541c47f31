"""Replaced token detection (ELECTRA, Clark et al. 2020; DeBERTaV3, He et al. 2021): a generator fills masks, a discriminator finds
what it replaced.

Shapes: B rows, L positions, N masked positions, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from kitae.models.compose import Discriminator, MaskedLm
from kitae.objectives.detection import (
    binary_losses,
    detection_scores,
    detection_statistics,
    put_in,
    sampling_scores,
    sampling_statistics,
    uniform_ids,
)
from kitae.objectives.document import document_losses, document_targets
from kitae.objectives.masking import Shares
from kitae.objectives.pair import PairConfig, PairObjective
from kitae.objectives.prediction import prediction_scores, prediction_statistics
from kitae.objectives.softmax import cross_entropy_and_sample
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import numpy_generator
from kitae.tokenization.special import SpecialIds

OF_GENERATORS = ("replacement", "generator_weight", "embedding_sharing", "optimizers", "temperature", "generator_label_smoothing")
"""Settings that mean nothing without a generator."""


class RtdConfig(PairConfig):
    """Settings of replaced token detection; the defaults are those of google-research/electra.

    DeBERTaV3 sets embedding_sharing = "disentangled", discriminator_weight = 10, optimizers = "separate" and
    replacement = [1.0, 0.0, 0.0]. In every form a positive score means "replaced".
    """

    replacement: Shares = (0.85, 0.0, 0.15)
    """Shares of the chosen positions at which the generator sees [MASK], a random token, and the token itself."""
    document_weight: float = Field(0.0, ge=0)
    """Weight of a third loss: the discriminator's [CLS] predicts the words of its document, in no order. Helps classifiers
    with few labels after a short pre-training; 0, as in ELECTRA, leaves it out."""
    temperature: float = Field(1.0, gt=0)
    """Of the softmax that replacements are sampled from."""
    disallow_correct: bool = False
    """Never sample the token that stood there: every chosen position is then replaced."""
    uniform_generator: bool = False
    """Draw replacements from all tokens with equal probability; there is no generator then, and only the discriminator learns."""
    generator_label_smoothing: float = Field(0.0, ge=0, lt=1)
    """This much of the generator's every target is spread evenly over the whole vocabulary. Held-out losses are without it."""
    discriminator_label_smoothing: float = Field(0.0, ge=0, lt=1)
    """s > 0 makes the discriminator's labels s / 2 and 1 - s / 2 instead of 0 and 1. Held-out losses are without it."""

    @model_validator(mode="after")
    def _two_halves(self) -> Self:
        idle = [name for name in OF_GENERATORS if getattr(self, name) != type(self).model_fields[name].default]
        if self.uniform_generator and idle:
            raise ValueError(f"{idle[0]} needs a generator, and a uniform_generator is none")
        return self


@dataclass(frozen=True, kw_only=True)
class _Corrupted:
    """What the discriminator gets, and how the generator did."""

    losses_N: Tensor | None
    ids_BL: Tensor
    replaced_BL: Tensor


class RtdObjective(PairObjective):
    """Generator and discriminator, trained together; no gradient goes through the sampling."""

    config: RtdConfig
    kind = "rtd"

    def __init__(
        self, generator: MaskedLm | None, discriminator: Discriminator, config: RtdConfig, *, special: SpecialIds, vocab_size: int
    ) -> None:
        """The generator is None when replacements are drawn uniformly, else not."""
        assert (generator is None) == config.uniform_generator, "a generator, or uniform replacements"
        super().__init__(generator, discriminator, config, special=special, vocab_size=vocab_size)
        self._vocab_size = vocab_size

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Mask, and draw the noise of the sampling: targets "picks", "labels" (see masking.py) and "uniform" (float64 [N]); with
        `document_weight` those of document.py."""
        masked = self._masker(batch, numpy_generator(seed, "mask", batch.step, batch.micro))
        noise = numpy_generator(seed, "sample", batch.step, batch.micro).random(len(masked.targets["picks"]))
        documents = document_targets(batch) if self.config.document_weight else {}
        return masked.replace(targets={**masked.targets, **documents, "uniform": torch.from_numpy(noise)})

    def counts(self, batch: Batch) -> dict[str, int]:
        """mlm: the masked positions (with a generator); rtd: all real tokens, special ones included; document: all but special ones."""
        counts = {} if self.generator is None else {"mlm": len(batch.targets["picks"])}
        counts |= {"rtd": batch.num_tokens}
        return counts | {"document": len(batch.targets["document_words"])} if self.config.document_weight else counts

    def forward(self, batch: Batch) -> Loss:
        """The generator's cross-entropy at the masked positions and the discriminator's at every real token."""
        corrupted = self._corrupt(batch, self._generator_logits(batch))
        x_BLD = self.discriminator.encoder(batch.replace(ids_BL=corrupted.ids_BL))
        logits_BL = self.discriminator.head(x_BLD, batch.layout)
        losses_BL = binary_losses(logits_BL, corrupted.replaced_BL, smoothing=self.config.discriminator_label_smoothing)
        found = losses_BL.masked_fill(~batch.layout.mask_BL, 0.0).sum(dtype=torch.float64)
        counts, terms = self.counts(batch), []
        if corrupted.losses_N is not None:
            learnt = corrupted.losses_N.sum()
            terms.append(Term(name="mlm", sum=learnt, count=counts["mlm"], weight=self.config.generator_weight))
        terms.append(Term(name="rtd", sum=found, count=counts["rtd"], weight=self.config.discriminator_weight))
        if self.config.document_weight:
            losses = self._document_losses(x_BLD, batch)
            terms.append(Term(name="document", sum=losses, count=counts["document"], weight=self.config.document_weight))
        return Loss(terms=tuple(terms))

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of both losses, right answers and counts, of the generator's entropy and hits, and the histogram and bins of the
        discriminator's scores."""
        generator_logits_NV = self._generator_logits(batch)
        corrupted = self._corrupt(batch, generator_logits_NV)
        mask_BL = batch.layout.mask_BL
        x_BLD = self.discriminator.encoder(batch.replace(ids_BL=corrupted.ids_BL))
        logits_T = self.discriminator.head(x_BLD, batch.layout)[mask_BL]
        stats = {} if generator_logits_NV is None else prediction_statistics(generator_logits_NV, batch.targets["labels"])
        if self.config.document_weight:
            count = torch.tensor(float(len(batch.targets["document_words"])), dtype=torch.float64, device=logits_T.device)
            stats |= {"document_sum": self._document_losses(x_BLD, batch), "document_count": count}
        sampled_N = corrupted.ids_BL.flatten().index_select(0, batch.targets["picks"])
        stats |= sampling_statistics(sampled_N, batch.targets["labels"])
        return stats | detection_statistics(logits_T, corrupted.replaced_BL[mask_BL])

    def summarize(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        """Those of `prediction_scores` (the entropy as generator_entropy), `sampling_scores` and `detection_scores`; document_loss;
        replaced_share, of all real tokens."""
        scores = prediction_scores(stats) if "mlm_count" in stats else {}
        if "mlm_entropy" in scores:
            scores["generator_entropy"] = scores.pop("mlm_entropy")
        if words := float(stats.get("document_count", 0)):
            scores["document_loss"] = float(stats["document_sum"]) / words
        scores |= sampling_scores(stats) | detection_scores(stats)
        count = float(stats["rtd_count"])
        return scores | {"replaced_share": float(stats["rtd_positives"]) / count} if count else scores

    def corrupted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(ids_BL as the discriminator sees them, replaced_BL) of a prepared batch; without gradients."""
        with torch.no_grad():
            made = self._corrupt(batch, self._generator_logits(batch))
        return made.ids_BL, made.replaced_BL

    def _generator_logits(self, batch: Batch) -> Tensor | None:
        if self.generator is None:
            return None
        return self.generator(batch, batch.targets["picks"])

    def _document_losses(self, x_BLD: Tensor, batch: Batch) -> Tensor:
        encoder = self.discriminator.encoder
        bias_V = x_BLD.new_zeros(encoder.config.vocab_size) if self.generator is None else self.generator.head.bias
        return document_losses(x_BLD, encoder, bias_V, batch).sum(dtype=torch.float64)

    def _corrupt(self, batch: Batch, logits_NV: Tensor | None) -> _Corrupted:
        labels_N, uniform_N, wrong_only = batch.targets["labels"], batch.targets["uniform"], self.config.disallow_correct
        losses_N = None
        if logits_NV is None:
            sampled_N = uniform_ids(uniform_N, labels_N, self._vocab_size, wrong_only=wrong_only)
        else:
            losses_N, sampled_N = cross_entropy_and_sample(
                logits_NV,
                labels_N,
                uniform_N,
                temperature=self.config.temperature,
                smoothing=self.config.generator_label_smoothing,
                wrong_only=wrong_only,
            )
        ids_BL, replaced_BL = put_in(batch, sampled_N)
        return _Corrupted(losses_N=losses_N, ids_BL=ids_BL, replaced_BL=replaced_BL)
