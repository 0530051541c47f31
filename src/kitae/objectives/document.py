"""The first vector of a piece ([CLS]) predicts the words of its piece, in no order.

Neither masked tokens nor replaced ones ask anything of [CLS], from which a classifier reads; with few labels it then has to learn to
gather a text. Here it does so while pre-training, as the document vectors of Le & Mikolov 2014 (arXiv:1405.4053) do. The token table is
the output table, so there are no further weights.

Shapes: B rows, L positions, D hidden size, E embedding size, P pieces, N tokens but for special ones, T = B * L, V vocabulary.
"""

import torch
from torch import Tensor

from kitae.models.encoder import Encoder
from kitae.tensor.batch import Batch


def document_targets(batch: Batch) -> dict[str, Tensor]:
    """Targets, on the CPU: "documents" (int64 [P], where pieces begin in the flattened rows), "document_words" (int64 [N], where all but
    special tokens stand) and "word_document" (int64 [N], the number of the piece of each)."""
    spans, length = batch.layout.spans(), batch.ids_BL.shape[1]
    mask_T, words_T = batch.layout.mask_BL.flatten(), batch.words_BL.flatten() >= 0
    sizes_P = torch.tensor([end - start for _, start, end in spans], dtype=torch.int64)
    return {
        "documents": torch.tensor([row * length + start for row, start, _ in spans], dtype=torch.int64),
        "document_words": words_T.nonzero().view(-1),
        "word_document": torch.repeat_interleave(sizes_P)[words_T[mask_T]],
    }


def document_losses(x_BLD: Tensor, encoder: Encoder, bias_V: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of every word's token given its piece's first vector: losses [N] in fp32 or better.

    x_BLD: the encoder's last states of the (corrupted) batch. bias_V: where the vocabulary's frequencies are known; gets no gradient.
    """
    owner = batch.targets["word_document"]
    tokens = original_ids(batch).index_select(0, batch.targets["document_words"])
    x_PD = x_BLD.flatten(0, 1).index_select(0, batch.targets["documents"])
    project, table_VE = getattr(encoder, "project", None), encoder.table_VE
    assert table_VE is not None, "the token table is the output table"
    x_PE = x_PD if project is None else x_PD @ project.weight
    logits_PV = (x_PE @ table_VE.T).to(torch.promote_types(x_PD.dtype, torch.float32)) + bias_V.detach()
    flat = torch.log_softmax(logits_PV, dim=-1).flatten()
    return -flat.index_select(0, owner * logits_PV.shape[1] + tokens)


def original_ids(batch: Batch) -> Tensor:
    """ids [T] before masking."""
    return batch.ids_BL.flatten().index_copy(0, batch.targets["picks"], batch.targets["labels"])
