"""Replaced token detection (ELECTRA, Clark et al. 2020): a generator fills masks, a discriminator finds what it replaced.

Shapes: B rows, L positions, N masked positions, V vocabulary.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from kitae.models.compose import Discriminator, MaskedLm, share_embeddings
from kitae.objectives.auc import area, histogram
from kitae.objectives.document import document_count, document_losses
from kitae.objectives.masking import Shares
from kitae.objectives.mlm import MaskingConfig, prediction_scores, prediction_statistics
from kitae.objectives.protocol import Objective
from kitae.objectives.softmax import cross_entropy_and_sample
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import numpy_generator
from kitae.tokenization.special import SpecialIds


class RtdConfig(MaskingConfig):
    """Settings of replaced token detection; the defaults are those of google-research/electra."""

    replacement: Shares = (0.85, 0.0, 0.15)
    """Shares of the chosen positions at which the generator sees [MASK], a random token, and the token itself."""
    generator_weight: float = Field(1.0, ge=0)
    """Weight of the generator's loss."""
    discriminator_weight: float = Field(50.0, ge=0)
    """Weight of the discriminator's loss."""
    document_weight: float = Field(0.0, ge=0)
    """Weight of a third loss: the discriminator's [CLS] predicts the words of its document, in no order. Helps classifiers
    with few labels after a short pre-training; 0, as in ELECTRA, leaves it out."""
    temperature: float = Field(1.0, gt=0)
    """Of the softmax that replacements are sampled from."""
    embedding_sharing: Literal["shared", "none"] = "shared"
    """"shared": both halves have one set of embedding tables (token, position, segment) and one LayerNorm behind them."""


@dataclass(frozen=True, kw_only=True)
class _Corrupted:
    """What the discriminator gets, and how the generator did."""

    losses_N: Tensor
    ids_BL: Tensor
    replaced_BL: Tensor


class RtdObjective(Objective):
    """Generator and discriminator, trained together; no gradient goes through the sampling."""

    def __init__(
        self, generator: MaskedLm, discriminator: Discriminator, config: RtdConfig, *, special: SpecialIds, vocab_size: int
    ) -> None:
        super().__init__()
        self.generator, self.discriminator = generator, discriminator
        self.config = config
        if config.embedding_sharing == "shared":
            share_embeddings(generator, discriminator)
        self._masker = config.masker(special=special, vocab_size=vocab_size)

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Mask, and draw the noise of the sampling: targets "picks", "labels" (see masking.py) and "uniform" (float64 [N])."""
        masked = self._masker(batch, numpy_generator(seed, "mask", batch.step, batch.micro))
        noise = numpy_generator(seed, "sample", batch.step, batch.micro).random(len(masked.targets["picks"]))
        return masked.replace(targets={**masked.targets, "uniform": torch.from_numpy(noise)})

    def counts(self, batch: Batch) -> dict[str, int]:
        """mlm: the masked positions; rtd: all real tokens, special ones included; document: all but special ones."""
        counts = {"mlm": len(batch.targets["picks"]), "rtd": batch.num_tokens}
        return counts | {"document": document_count(batch)} if self.config.document_weight else counts

    def forward(self, batch: Batch) -> Loss:
        """The generator's cross-entropy at the masked positions and the discriminator's at every real token."""
        corrupted = self._corrupt(batch, self._generator_logits(batch))
        x_BLD = self.discriminator.encoder(corrupted.ids_BL, batch.layout, batch.segments_BL)
        logits_BL = self.discriminator.head(x_BLD, batch.layout)
        losses_BL = _binary_losses(logits_BL, corrupted.replaced_BL)
        mask_BL = batch.layout.mask_BL
        counts = self.counts(batch)
        terms = [
            Term(name="mlm", sum=corrupted.losses_N.sum(), count=counts["mlm"], weight=self.config.generator_weight),
            Term(
                name="rtd",
                sum=losses_BL.masked_fill(~mask_BL, 0.0).sum(dtype=torch.float64),
                count=counts["rtd"],
                weight=self.config.discriminator_weight,
            ),
        ]
        if self.config.document_weight:
            losses = self._document_losses(x_BLD, batch)
            terms.append(Term(name="document", sum=losses, count=counts["document"], weight=self.config.document_weight))
        return Loss(terms=tuple(terms))

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of both losses, right answers, counts, and the histogram of the discriminator's scores."""
        generator_logits_NV = self._generator_logits(batch)
        corrupted = self._corrupt(batch, generator_logits_NV)
        mask_BL = batch.layout.mask_BL
        x_BLD = self.discriminator.encoder(corrupted.ids_BL, batch.layout, batch.segments_BL)
        logits_T = self.discriminator.head(x_BLD, batch.layout)[mask_BL]
        replaced_T = corrupted.replaced_BL[mask_BL]
        document = {}
        if self.config.document_weight:
            count = torch.tensor(float(document_count(batch)), dtype=torch.float64, device=logits_T.device)
            document = {"document_sum": self._document_losses(x_BLD, batch), "document_count": count}
        return (
            prediction_statistics(generator_logits_NV, batch.targets["labels"])
            | document
            | {
                "rtd_sum": _binary_losses(logits_T, replaced_T).sum(dtype=torch.float64),
                "rtd_right": ((logits_T > 0) == replaced_T).sum(dtype=torch.float64),
                "rtd_count": torch.tensor(float(len(replaced_T)), dtype=torch.float64, device=logits_T.device),
                "rtd_replaced": replaced_T.sum(dtype=torch.float64),
                "rtd_scores": histogram(logits_T, replaced_T),
            }
        )

    def summarize(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        """mlm_loss, mlm_accuracy, rtd_loss, rtd_accuracy, rtd_auc, replaced_share (of all real tokens), document_loss."""
        scores = prediction_scores(stats)
        count = float(stats["rtd_count"])
        if count:
            scores["rtd_loss"] = float(stats["rtd_sum"]) / count
            scores["rtd_accuracy"] = float(stats["rtd_right"]) / count
            scores["replaced_share"] = float(stats["rtd_replaced"]) / count
        if "document_sum" in stats:
            scores["document_loss"] = float(stats["document_sum"]) / max(float(stats["document_count"]), 1.0)
        auc = area(stats["rtd_scores"])
        return scores if auc is None else {**scores, "rtd_auc": auc}

    def models(self) -> dict[str, MaskedLm | Discriminator]:
        """Both halves."""
        return {"generator": self.generator, "discriminator": self.discriminator}

    def corrupted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(ids_BL as the discriminator sees them, replaced_BL) of a prepared batch; without gradients."""
        with torch.no_grad():
            made = self._corrupt(batch, self._generator_logits(batch))
        return made.ids_BL, made.replaced_BL

    def _generator_logits(self, batch: Batch) -> Tensor:
        return self.generator(batch.ids_BL, batch.layout, batch.segments_BL, batch.targets["picks"])

    def _document_losses(self, x_BLD: Tensor, batch: Batch) -> Tensor:
        losses = document_losses(x_BLD, self.discriminator.encoder, self.generator.head.bias, batch)
        return losses.sum(dtype=torch.float64)

    def _corrupt(self, batch: Batch, logits_NV: Tensor) -> _Corrupted:
        """Put samples of the generator at the masked positions; a sample equal to the original counts as not replaced."""
        picks, labels = batch.targets["picks"], batch.targets["labels"]
        losses_N, sampled_N = cross_entropy_and_sample(logits_NV, labels, batch.targets["uniform"], temperature=self.config.temperature)
        shape = batch.ids_BL.shape
        ids = batch.ids_BL.flatten().index_copy(0, picks, sampled_N)
        replaced = torch.zeros(ids.shape, dtype=torch.bool, device=ids.device).index_copy(0, picks, sampled_N != labels)
        return _Corrupted(losses_N=losses_N, ids_BL=ids.view(shape), replaced_BL=replaced.view(shape))


def _binary_losses(logits: Tensor, replaced: Tensor) -> Tensor:
    """Cross-entropy of each position, in float32 or better, whatever the precision of the logits."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.binary_cross_entropy_with_logits(wide, replaced.to(wide.dtype), reduction="none")
