"""Numbers of DeBERTa (He et al. 2020, arXiv:2006.03654) and of DeBERTa-v2 and -v3 (arXiv:2111.09543), under Hugging Face's names."""

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from kitae.models.encoder import Act, PostNormConfig

Term = Literal["p2c", "c2p"]
WideAct = Literal[Act, "tanh"]


class DisentangledConfig(PostNormConfig):
    """What all versions of DeBERTa have in common; hidden_dropout_prob falls on the table of relative positions too."""

    type_vocab_size: int = Field(0, ge=0)
    """Number of segment kinds; 0 leaves the segment table out."""
    layer_norm_eps: float = Field(1e-7, gt=0)
    """Epsilon of every LayerNorm."""
    relative_attention: bool = False
    """Whether attention sees relative positions; all published models have it."""
    max_relative_positions: int = Field(-1, ge=-1)
    """Distances from here on are all alike; below 1 = max_position_embeddings."""
    pos_att_type: tuple[Term, ...] = ()
    """Terms that attention scores have beside content to content: "c2p" (content to position), "p2c" (position to content)."""
    position_biased_input: bool = True
    """Whether absolute positions are added to the embeddings, as BERT does."""
    enhanced_mask_decoder: bool = False
    """Predict masked words by running the last block twice more, with absolute positions in its queries (He et al. 2020, section 3.2)."""
    legacy: bool = True
    """Which names the vocabulary head has on disk: transformers' older ones (true) or Microsoft's (false). The numbers are the same."""
    pooler_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the dense layer of the classification head."""
    pooler_hidden_act: WideAct = "gelu"
    """Activation of the classification head."""
    cls_dropout: float | None = Field(None, ge=0, lt=1)
    """Dropout before the last layer of the classification head; None = hidden_dropout_prob."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.pos_att_type)) < len(self.pos_att_type):
            raise ValueError("pos_att_type names a term twice")
        if self.pos_att_type and not self.relative_attention:
            raise ValueError("pos_att_type needs relative_attention = true")
        if not self.legacy and self.embedding_width != self.hidden_size:
            raise ValueError("legacy = false has no embedding_size of its own: leave it out")
        if not self.tie_word_embeddings and (self.enhanced_mask_decoder or not self.legacy):
            raise ValueError("Microsoft's vocabulary head (legacy = false, enhanced_mask_decoder = true) has tie_word_embeddings = true")
        if self.enhanced_mask_decoder:
            self._decodable()
        return self

    def _decodable(self) -> None:
        if self.position_biased_input:
            raise ValueError("enhanced_mask_decoder is for models with position_biased_input = false")
        if self.embedding_width != self.hidden_size:
            raise ValueError("enhanced_mask_decoder needs embeddings as wide as hidden_size")
        if self.num_hidden_layers < 2:
            raise ValueError("enhanced_mask_decoder needs at least two blocks")
        if not self.legacy:
            raise ValueError("enhanced_mask_decoder has one layout on disk only: leave legacy at true")

    @property
    def head_dropout(self) -> float:
        """Dropout rate before the last layer of a classification head."""
        return self.hidden_dropout_prob if self.cls_dropout is None else self.cls_dropout

    @property
    def reach(self) -> int:
        """Distance from which on all are alike."""
        return self.max_relative_positions if self.max_relative_positions > 0 else self.max_position_embeddings

    @property
    def buckets(self) -> int:
        """Number of buckets of distances on either side; 0 = every distance for itself."""
        return 0

    @property
    def span(self) -> int:
        """Distances that are told apart on either side; the table of relative positions has twice as many rows."""
        return self.buckets or self.reach

    @classmethod
    def adapted(cls, raw: Mapping[str, object]) -> dict[str, object]:
        """Without the widths that follow from others, and with terms as a list. A width that does not follow stays, and is refused."""
        fields = dict(raw)
        terms = fields.get("pos_att_type", [])
        if terms is None or isinstance(terms, str):  # transformers takes "p2c|c2p" and null too
            fields["pos_att_type"] = [part.strip() for part in (terms or "").lower().split("|") if part.strip()]
        hidden, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
        if fields.get("embedding_size") == hidden:
            fields["embedding_size"] = None
        if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
            for key, only in (("attention_head_size", hidden // heads), ("pooler_hidden_size", hidden)):
                if fields.get(key) in (None, only):
                    fields.pop(key, None)
        return fields

    def huggingface(self) -> dict[str, object]:
        """The fields as transformers and Microsoft's own models write them."""
        raw = self.model_dump() | {
            "embedding_size": self.embedding_width,
            "pos_att_type": list(self.pos_att_type),
            "attention_head_size": self.hidden_size // self.num_attention_heads,
            "pooler_hidden_size": self.hidden_size,
        }
        if not self.enhanced_mask_decoder:
            del raw["enhanced_mask_decoder"]  # a key of our own
        return raw


class DebertaConfig(DisentangledConfig):
    """Numbers of a DeBERTa encoder of the first version."""

    model_type: Literal["deberta"] = "deberta"


class DebertaV2Config(DisentangledConfig):
    """Numbers of a DeBERTa-v2 encoder; DeBERTa-v3 is the same model trained otherwise."""

    model_type: Literal["deberta-v2"] = "deberta-v2"
    position_buckets: int = Field(-1, ge=-1)
    """Number of buckets of distances on either side, logarithmic from half of them on; below 1 = every distance for itself."""
    share_att_key: bool = False
    """Whether relative positions go through the projections of queries and keys, or have their own."""
    norm_rel_ebd: Literal["none", "layer_norm"] = "none"
    """Whether the table of relative positions goes through a LayerNorm."""
    conv_kernel_size: int = Field(0, ge=0)
    """Width of a convolution beside the first block, in tokens; 0 = none."""
    conv_act: WideAct = "tanh"
    """Activation of the convolution."""
    conv_groups: int = Field(1, ge=1)
    """Groups of the convolution."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.conv_kernel_size and self.conv_kernel_size % 2 == 0:
            raise ValueError(f"conv_kernel_size {self.conv_kernel_size} is even: the convolution looks equally far to both sides")
        if self.position_buckets == 1:
            raise ValueError("position_buckets 1 is too few: give at least 2, or -1 for none")
        nearest = self.position_buckets // 2 + 2
        if self.position_buckets > 0 and self.reach < min(nearest, self.max_position_embeddings):
            raise ValueError(f"max_relative_positions {self.reach} is within half of position_buckets: give at least {nearest}, or -1")
        if self.hidden_size % self.conv_groups:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of conv_groups {self.conv_groups}")
        if self.norm_rel_ebd != "none" and not self.relative_attention:
            raise ValueError('norm_rel_ebd = "layer_norm" needs relative_attention = true')
        return self

    @property
    def buckets(self) -> int:
        """Number of buckets of distances on either side; 0 = every distance for itself."""
        return max(self.position_buckets, 0)
