"""Masked language modelling (Devlin et al. 2019): predict the tokens behind the masks.

Shapes: B rows, L positions, N masked positions, V vocabulary.
"""

from collections.abc import Mapping
from typing import Annotated, Self

import torch
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor

from kitae.core.config import LATER, Config
from kitae.models.compose import Discriminator, MaskedLm, PretrainingLm
from kitae.models.cost import flops_per_token
from kitae.models.presets import Architecture
from kitae.objectives.masking import Masker, Shares, Unit
from kitae.objectives.prediction import prediction_scores, prediction_statistics
from kitae.objectives.protocol import Objective
from kitae.objectives.rates import Rate, mean_rate, parse_rate
from kitae.objectives.sentence_order import SentenceOrder, order_count, order_scores, order_statistics, order_term
from kitae.objectives.softmax import cross_entropy
from kitae.objectives.spans import geometric_shares, harmonic_shares
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import numpy_generator
from kitae.tokenization.special import SpecialIds

LONGEST = {"span": 10, "ngram": 3}
"""Words of the longest run where nothing else is said: SpanBERT's and DeBERTa's."""


class MaskingConfig(Config):
    """How positions are masked."""

    rate: Annotated[Rate, BeforeValidator(parse_rate)] = 0.15
    """Share of the tokens that are predicted; special tokens and [UNK] never are. A list of [part of the training, share] changes it
    while training, along straight lines: [[0.0, 0.3], [1.0, 0.15]]. Held-out text is always masked at the last share."""
    unit: Unit = "token"
    """What is masked together. "token": every token by itself. "word": all tokens of a word (whole word masking). "span": runs of
    words whose lengths are geometric (SpanBERT); a whole run shows [MASK], random tokens, or itself. "ngram": runs of n words, in
    shares of 1/n (DeBERTa)."""
    longest: int | None = Field(None, ge=1)
    """Words of the longest run, of the units "span" (default 10) and "ngram" (default 3)."""
    span_end: float = Field(0.2, gt=0, lt=1)
    """Of the unit "span": probability that a run ends after each word. 0.2 makes 3.8 words in the mean."""
    replacement: Shares = (0.8, 0.1, 0.1)
    """Shares of the chosen positions that show [MASK], a random token, and the token itself."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if min(self.replacement) < 0 or abs(sum(self.replacement) - 1) > 1e-9:
            raise ValueError(f"replacement = {list(self.replacement)} are not three shares that add up to 1")
        if self.longest is not None and self.unit not in LONGEST:
            raise ValueError(f'longest has no effect with unit = "{self.unit}": set unit = "span" or "ngram"')
        if self.unit != "span" and self.span_end != 0.2:
            raise ValueError(f'span_end has no effect with unit = "{self.unit}": set unit = "span"')
        return self

    @property
    def mean_rate(self) -> float:
        """The rate averaged over the training."""
        return mean_rate(self.rate)

    def masker(self, *, special: SpecialIds, vocab_size: int) -> Masker:
        """What draws the masks for a vocabulary."""
        longest = self.longest or LONGEST.get(self.unit, 1)
        runs = {
            "token": None,
            "word": harmonic_shares(1),
            "span": geometric_shares(self.span_end, longest),
            "ngram": harmonic_shares(longest),
        }[self.unit]
        together = self.unit == "span"
        return Masker(rate=self.rate, replacement=self.replacement, special=special, vocab_size=vocab_size, runs=runs, together=together)


class MlmConfig(MaskingConfig):
    """Settings of masked language modelling."""

    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """This much of every target is spread evenly over the whole vocabulary. Held-out losses are measured without it."""
    sentence_order: SentenceOrder = "none"
    """What is learnt of pairs of segments beside the tokens. "nsp": does the second follow the first (BERT)? "sop": are the two in
    their order (ALBERT)? The dataset has to have such pairs: packing = "pairs", pairs.task. Exported as BertForPreTraining."""
    sentence_order_weight: float = Field(1.0, ge=0)
    """Weight of that loss, the mean over pairs; the loss of the tokens has 1."""
    new_head: Annotated[bool, LATER] = False
    """Also start from a model without a vocabulary head (a classifier, an encoder of sentences), which gets a new one."""


class MlmObjective(Objective):
    """One masked language model, with `sentence_order` a PretrainingLm; its part is called "encoder"."""

    def __init__(self, encoder: MaskedLm, config: MlmConfig, *, special: SpecialIds, vocab_size: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = config
        self._order = config.sentence_order
        self._masker = config.masker(special=special, vocab_size=vocab_size)

    def prepare(self, batch: Batch, seed: int) -> Batch:
        """Mask; targets "picks" and "labels" (see masking.py)."""
        return self._masker(batch, numpy_generator(seed, "mask", batch.step, batch.micro)).spelled()

    def counts(self, batch: Batch) -> dict[str, int]:
        """mlm: the masked positions; nsp or sop: the pairs."""
        counts = {"mlm": len(batch.targets["picks"])}
        return counts if self._order == "none" else counts | {self._order: order_count(batch)}

    def forward(self, batch: Batch) -> Loss:
        """Cross-entropy at the masked positions, and of the pairs' labels."""
        logits_NV, logits_P2 = self._logits(batch)
        losses_N = cross_entropy(logits_NV, batch.targets["labels"], smoothing=self.config.label_smoothing)
        terms = [Term(name="mlm", sum=losses_N.sum(), count=len(losses_N))]
        if logits_P2 is not None:
            terms.append(order_term(self._order, logits_P2, batch, weight=self.config.sentence_order_weight))
        return Loss(terms=tuple(terms))

    @torch.no_grad()
    def measure(self, batch: Batch) -> dict[str, Tensor]:
        """Sums of loss, right answers, entropies and masked positions; those of loss, right answers and number of the pairs."""
        logits_NV, logits_P2 = self._logits(batch)
        stats = prediction_statistics(logits_NV, batch.targets["labels"])
        return stats if logits_P2 is None else stats | order_statistics(self._order, logits_P2, batch)

    def summarize(self, stats: Mapping[str, Tensor]) -> dict[str, float]:
        """Those of `prediction_scores`; nsp_loss (nats a pair), nsp_accuracy, or the same of sop."""
        scores = prediction_scores(stats)
        return scores if self._order == "none" else scores | order_scores(self._order, stats)

    def models(self) -> dict[str, MaskedLm | Discriminator]:
        """The masked language model as "encoder"."""
        return {"encoder": self.encoder}

    def flops_per_token(self, context: float) -> float:
        """See Objective."""
        return flops_per_token(Architecture(encoder=self.encoder.config), context, "mlm", self.config.mean_rate)

    def _logits(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """logits_NV of the masked positions, logits_P2 of the pairs if they are learnt."""
        picks = batch.targets["picks"]
        if self._order == "none":
            return self.encoder(batch, picks), None
        assert isinstance(self.encoder, PretrainingLm), "the table of objectives gives pairs a model that judges them"
        return self.encoder.with_order(batch, picks, batch.targets["pairs"])
