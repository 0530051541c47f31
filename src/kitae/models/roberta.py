"""RoBERTa (Liu et al. 2019), XLM-RoBERTa (Conneau et al. 2020) and CamemBERT (Martin et al. 2020): BERT's encoder, whose positions are
counted from the row behind [PAD]'s id, as fairseq numbered them."""

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.models.bert import BertEncoder, BertFields, body_flops, pooled_head, rows_of, with_segments
from kitae.models.encoder import EncoderConfig
from kitae.models.family import Family, HeadForm
from kitae.models.forms import JOINT, choice_form, hidden_rate, sequence_form, span_form, token_form
from kitae.models.heads import MlmHead, SequenceHead


class RobertaConfig(BertFields):
    """Numbers of a RoBERTa encoder. The position table has room for `positions` tokens behind its first pad_token_id + 1 rows."""

    model_type: Literal["roberta", "xlm-roberta", "camembert"] = "roberta"
    layer_norm_eps: float = Field(1e-5, gt=0)
    """Epsilon of every LayerNorm."""
    type_vocab_size: int = Field(1, ge=0)
    """Number of segment kinds; 1 says nothing but is what the published models have."""

    @model_validator(mode="after")
    def _reaches(self) -> "RobertaConfig":
        if self.positions < 1:
            raise ValueError(f"max_position_embeddings {self.max_position_embeddings} leaves no position behind [PAD], {self.pad_token_id}")
        return self

    @property
    def first_position(self) -> int:
        """Row of the position table that the first token of a piece takes."""
        return self.pad_token_id + 1

    @property
    def positions(self) -> int:
        """Longest piece that the model takes, in tokens with the special ones."""
        return self.max_position_embeddings - self.first_position

    @classmethod
    def room(cls, length: int, pad_token_id: int, word_bytes: int = 0) -> dict[str, object]:
        """The fields that make room for pieces of `length` tokens in a new model."""
        del word_bytes
        return {"max_position_embeddings": length + pad_token_id + 1}

    def padded(self, pad_token_id: int) -> "RobertaConfig":
        """Itself. Raises KitaeError for another [PAD], behind which other rows of the position table would begin."""
        if pad_token_id != self.pad_token_id:
            raise KitaeError(
                f"the tokenizer's [PAD] is token {pad_token_id}, the model's is {self.pad_token_id}, from which its positions count",
                cure="use the tokenizer that the model was trained with",
            )
        return self


def _mlm_head(config: EncoderConfig, *, num_labels: int, rate: float) -> MlmHead:
    assert isinstance(config, RobertaConfig)
    del num_labels, rate
    return MlmHead(config, activation=F.gelu, eps=config.layer_norm_eps)  # gelu whatever hidden_act says, as transformers has it


def _sequence_head(config: EncoderConfig, *, num_labels: int, rate: float) -> SequenceHead:
    return SequenceHead(config, activation=torch.tanh, num_labels=num_labels, rate=rate, early_rate=rate)


def _family(title: str, *, name: str, vocab_size: int) -> Family:
    """`name` as transformers spells it in class names; the weights of all three begin with "roberta"."""
    pooler, pooled = ("roberta.pooler.",), ("head.dense", "roberta.pooler.dense")
    return Family(
        title=title,
        config=RobertaConfig,
        encoder=BertEncoder,
        root="roberta",
        rows=rows_of("roberta"),
        flops=body_flops,
        outward=with_segments("roberta"),
        defaults={"vocab_size": vocab_size, "type_vocab_size": 2, "layer_norm_eps": 1e-12, "pad_token_id": 1},
        heads={
            "mlm": HeadForm(
                title="masked language model",
                architecture=f"{name}ForMaskedLM",
                auto="AutoModelForMaskedLM",
                make=_mlm_head,
                rows=(("head.dense", "lm_head.dense"), ("head.norm", "lm_head.layer_norm"), ("head.bias", "lm_head.bias")),
                tied=(
                    ("lm_head.decoder.weight", "roberta.embeddings.word_embeddings.weight"),
                    ("lm_head.decoder.bias", "lm_head.bias"),
                ),
                output="lm_head.decoder",
                unused=pooler,
            ),
            "sequence": sequence_form(
                name, _sequence_head, (("head.dense", "classifier.dense"), ("head.out", "classifier.out_proj")), unused=pooler
            ),
            "token": token_form(name, unused=pooler),
            "span": span_form(name, unused=pooler),
            "choice": replace(choice_form(name, pooled_head, (pooled, ("head.out", "classifier"))), rate=hidden_rate),
            "joint": JOINT,
            "none": HeadForm(title="encoder", architecture=f"{name}Model", auto="AutoModel", rows=(pooled,)),
        },
    )


ROBERTA = _family("RoBERTa", name="Roberta", vocab_size=50265)
XLM_ROBERTA = _family("XLM-RoBERTa", name="XLMRoberta", vocab_size=30522)
CAMEMBERT = _family("CamemBERT", name="Camembert", vocab_size=30522)
