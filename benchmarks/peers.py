"""The usual way: ELECTRA composed from transformers' classes, one padded document a row, logits at every position; and its Trainer."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import ElectraConfig, ElectraForMaskedLM, ElectraForPreTraining

from kitae.data.shards import Shards
from kitae.models.encoder import EncoderConfig
from kitae.tokenization.special import SpecialIds

QUIET: Mapping[str, Any] = {
    "use_cpu": True,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "eval_strategy": "no",
    "disable_tqdm": True,
}
"""A Trainer's arguments for training and nothing else, so that its time is that of the steps."""


def electra_config(config: EncoderConfig) -> ElectraConfig:
    """The same numbers for transformers' classes."""
    return ElectraConfig(**config.model_dump(exclude={"model_type"}) | {"embedding_size": config.embedding_width})


class ComposedElectra(nn.Module):
    """Generator and discriminator of transformers, joined as the ELECTRA paper (Clark et al., 2020) says."""

    def __init__(self, generator: ElectraConfig, discriminator: ElectraConfig) -> None:
        super().__init__()
        self.generator = ElectraForMaskedLM(generator)
        self.discriminator = ElectraForPreTraining(discriminator)
        self.discriminator.electra.embeddings = self.generator.electra.embeddings

    def forward(self, ids_BL: Tensor, mask_BL: Tensor, chosen_BL: Tensor, mask_id: int) -> Tensor:
        """Loss 1 * MLM + 50 * RTD; chosen_BL is true at the positions to predict, exactly 85 % of which show [MASK]."""
        shown = torch.where(drawn(chosen_BL, 0.85), mask_id, ids_BL)
        logits_BLV = self.generator(input_ids=shown, attention_mask=mask_BL).logits
        picked = logits_BLV[chosen_BL].float()
        mlm = nn.functional.cross_entropy(picked, ids_BL[chosen_BL])
        with torch.no_grad():
            sampled = (picked - torch.empty_like(picked).exponential_().clamp_min(1e-9).log()).argmax(-1)  # Gumbel
        corrupted = ids_BL.clone()
        corrupted[chosen_BL] = sampled
        labels = (corrupted != ids_BL).float()
        scores_BL = self.discriminator(input_ids=corrupted, attention_mask=mask_BL).logits
        real = mask_BL.bool()
        rtd = nn.functional.binary_cross_entropy_with_logits(scores_BL[real].float(), labels[real])
        return mlm + 50 * rtd


def choose(mask_BL: Tensor, rate: float = 0.15) -> Tensor:
    """True at exactly `rate` of the real positions but the first and last of each row.

    A coin for every position, as a collator of transformers throws it, would let the share of replaced tokens swing from step
    to step; in front of a loss with weight 50 that is noise enough to slow the training down (docs/log.md).
    """
    inner = mask_BL.bool().clone()
    inner[:, 0] = False
    last = mask_BL.sum(1) - 1
    inner[torch.arange(len(inner), device=inner.device), last] = False
    return drawn(inner, rate)


def drawn(candidates_BL: Tensor, rate: float) -> Tensor:
    """True at exactly `rate` of the candidates."""
    order = torch.rand(candidates_BL.shape, device=candidates_BL.device).masked_fill(~candidates_BL, -1.0).flatten()
    chosen = torch.zeros_like(order, dtype=torch.bool)
    chosen[order.topk(round(rate * int(candidates_BL.sum()))).indices] = True
    return chosen.view(candidates_BL.shape)


def document_pieces(shards: Shards, length: int, *, most: int) -> list[tuple[int, int]]:
    """(first token, end) of each document, cut into consecutive rows of at most `length` with [CLS] and [SEP]; `most` documents."""
    pieces: list[tuple[int, int]] = []
    documents = 0
    for shard in range(len(shards)):
        start = int(shards.starts[shard])
        for end in shards.documents(shard).tolist():
            if documents == most:
                return pieces
            pieces += [(i, min(i + length - 2, end)) for i in range(start, end, length - 2)]
            start, documents = end, documents + 1
    return pieces


def padded_rows(shards: Shards, pieces: list[tuple[int, int]], special: SpecialIds, length: int | None = None) -> Tensor:
    """ids_BL of one piece a row, padded to `length`, or to the longest."""
    width = length or 2 + max(end - start for start, end in pieces)
    ids_BL = torch.full((len(pieces), width), special.pad)
    for row, (start, end) in zip(ids_BL, pieces, strict=True):
        row[0], row[end - start + 1] = special.cls, special.sep
        row[1 : end - start + 1] = torch.from_numpy(shards.tokens(start, end))
    return ids_BL
