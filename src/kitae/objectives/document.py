"""The first vector of a piece ([CLS]) predicts the words of its piece, in no order.

Neither masked tokens nor replaced ones ask anything of [CLS], from which a classifier reads; with few labels it then has to learn to
gather a text. Here it does so while pre-training, as the document vectors of Le & Mikolov 2014 (arXiv:1405.4053) do. The token table is
the output table, so there are no further weights.

Shapes: B rows, L positions, D hidden size, E embedding size, P pieces, T = B * L, V vocabulary.
"""

import torch
from torch import Tensor

from kitae.models.encoder import Encoder
from kitae.tensor.batch import Batch


def document_losses(x_BLD: Tensor, encoder: Encoder, bias_V: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of every word's token given its piece's first vector: losses in fp32 or better, one per `document_count`.

    x_BLD: the encoder's last states of the (corrupted) batch. bias_V: where the vocabulary's frequencies are known; gets no gradient.
    """
    spans, length = batch.layout.spans(), batch.ids_BL.shape[1]
    device = x_BLD.device
    starts_P = torch.tensor([row * length + start for row, start, _ in spans], device=device)
    lengths_P = torch.tensor([end - start - 2 for _, start, end in spans], device=device)
    total = document_count(batch)
    owner = torch.repeat_interleave(torch.arange(len(spans), device=device), lengths_P, output_size=total)
    offset = torch.arange(total, device=device) - (lengths_P.cumsum(0) - lengths_P).index_select(0, owner)
    places = (starts_P + 1).index_select(0, owner) + offset
    tokens = original_ids(batch).index_select(0, places)
    x_PD = x_BLD.flatten(0, 1).index_select(0, starts_P)
    project, table_VE = getattr(encoder, "project", None), encoder.table_VE
    assert table_VE is not None, "the token table is the output table"
    x_PE = x_PD if project is None else x_PD @ project.weight
    logits_PV = (x_PE @ table_VE.T).to(torch.promote_types(x_PD.dtype, torch.float32)) + bias_V.detach()
    flat = torch.log_softmax(logits_PV, dim=-1).flatten()
    return -flat.index_select(0, owner * logits_PV.shape[1] + tokens)


def document_count(batch: Batch) -> int:
    """Tokens that are predicted: all but the two special ones of every piece."""
    return batch.num_tokens - 2 * len(batch.layout.spans())


def original_ids(batch: Batch) -> Tensor:
    """ids [T] before masking."""
    return batch.ids_BL.flatten().index_copy(0, batch.targets["picks"], batch.targets["labels"])
