"""The numbers of a ModernBERT encoder, in one set of fields for the two ways in which transformers writes them."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from kitae.models.encoder import EncoderConfig

Activation = Literal["gelu", "gelu_new", "gelu_pytorch_tanh", "relu"]
LOCAL, GLOBAL = "sliding_attention", "full_attention"
FIXED: Mapping[str, tuple[object, ...]] = {
    "layer_types": ("every n-th layer, from the first, as full_attention and the others as sliding_attention", None),
    "rope_parameters": ("a rope_theta of rope_type default for each kind of layer", None),
    "rope_scaling": (None,),
}
"""Keys that `adapted` leaves when it cannot say them in our fields, with what it can say."""
_NEUTRAL = """
layer_norm_eps deterministic_flash_attn sparse_prediction sparse_pred_ignore_index reference_compile repad_logits_with_grad
"""
NEUTRAL = frozenset(_NEUTRAL.split())
"""Keys that change no logits; the published models have a layer_norm_eps that no code reads."""


class ModernBertConfig(EncoderConfig):
    """Numbers of a ModernBERT encoder, under Hugging Face's field names (those of transformers 4.57, which 5 reads too)."""

    model_type: Literal["modernbert"] = "modernbert"
    hidden_activation: Activation = "gelu"
    """Activation of the gated feed-forward part; gelu is the exact one, by erf."""
    norm_eps: float = Field(1e-5, gt=0)
    """Epsilon of every LayerNorm."""
    norm_bias: bool = False
    """Whether every LayerNorm adds a bias."""
    attention_bias: bool = False
    """Whether the projections of attention add biases."""
    mlp_bias: bool = False
    """Whether the projections of the feed-forward part add biases."""
    decoder_bias: bool = True
    """Whether the logits of masked language modelling get a bias for each token."""
    embedding_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on embeddings."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on attention probabilities, and on what attention gives to the residual stream."""
    mlp_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout inside the feed-forward part."""
    global_attn_every_n_layers: int = Field(3, ge=1)
    """The first layer and every n-th after it see the whole piece, the others a window."""
    local_attention: int = Field(128, ge=1)
    """Width of the window: half of it on either side."""
    global_rope_theta: float = Field(160_000.0, gt=0)
    """Base of the rotary wavelengths in layers that see the whole piece."""
    local_rope_theta: float = Field(10_000.0, gt=0)
    """Base of the rotary wavelengths in layers with a window."""
    initializer_cutoff_factor: float = Field(2.0, gt=0)
    """New weights are cut off at so many standard deviations."""
    classifier_pooling: Literal["cls", "mean"] = "cls"
    """What a classifier reads of a text: the state of its first position, or the mean of all."""
    classifier_activation: Activation = "gelu"
    """Activation in all heads."""
    classifier_bias: bool = False
    """Whether the dense layer of all heads adds a bias."""
    classifier_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout in the classification head."""

    @model_validator(mode="after")
    def _fits(self) -> "ModernBertConfig":
        size = self.hidden_size // self.num_attention_heads
        if size % 2:
            raise ValueError(f"hidden_size / num_attention_heads = {size} is odd: rotary positions need pairs")
        return self

    @property
    def head_dropout(self) -> float:
        """Dropout rate of a classification head."""
        return self.classifier_dropout

    @property
    def pooling(self) -> Literal["cls", "mean"]:
        """What a classifier reads of a text."""
        return self.classifier_pooling

    @property
    def window(self) -> int:
        """How far a position sees on either side in layers with a window."""
        return self.local_attention // 2

    def is_global(self, number: int) -> bool:
        """Whether a layer sees the whole piece."""
        return number % self.global_attn_every_n_layers == 0

    @classmethod
    def adapted(cls, raw: Mapping[str, object]) -> dict[str, object]:
        """`layer_types` and `rope_parameters` of transformers 5 as 4.57's fields; what these cannot say stays and is refused."""
        own = {"pad_token_id": 50283, **raw}
        own.pop("position_embedding_type", None)  # a name of the training code ("sans_pos" in mmBERT's); positions are always rotary
        kinds, every = own.get("layer_types"), own.get("global_attn_every_n_layers", 3)
        if isinstance(kinds, list):
            periods = (n for n in (every, *range(1, len(kinds) + 1)) if isinstance(n, int) and n > 0)
            found = next((n for n in periods if kinds == _layer_types(len(kinds), n)), None)
            if found is not None:
                own["global_attn_every_n_layers"] = found
                del own["layer_types"]
        ropes = own.get("rope_parameters")
        if isinstance(ropes, dict) and set(ropes) <= {GLOBAL, LOCAL} and all(map(_is_plain_rope, ropes.values())):
            for kind, key in ((GLOBAL, "global_rope_theta"), (LOCAL, "local_rope_theta")):
                theta = (ropes.get(kind) or {}).get("rope_theta")
                if theta is not None:
                    own[key] = theta
            del own["rope_parameters"]
        if "local_rope_theta" in own and own["local_rope_theta"] is None:  # 4.57: as global
            own["local_rope_theta"] = own.get("global_rope_theta", 160_000.0)
        if "initializer_cutoff_factor" in own and own["initializer_cutoff_factor"] is None:
            own["initializer_cutoff_factor"] = 3.0
        return own

    def huggingface(self) -> dict[str, object]:
        """The fields in the words of both, and no ids of special tokens, of which transformers would assume those of its own vocabulary."""
        ropes = ((GLOBAL, self.global_rope_theta), (LOCAL, self.local_rope_theta))
        return self.model_dump() | {
            "layer_types": _layer_types(self.num_hidden_layers, self.global_attn_every_n_layers),
            "rope_parameters": {kind: {"rope_theta": theta, "rope_type": "default"} for kind, theta in ropes},
            **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
        }


def _layer_types(count: int, every: int) -> list[str]:
    return [LOCAL if number % every else GLOBAL for number in range(count)]


def _is_plain_rope(rope: object) -> bool:
    return rope is None or (
        isinstance(rope, dict) and set(rope) <= {"rope_theta", "rope_type"} and rope.get("rope_type") in (None, "default")
    )
