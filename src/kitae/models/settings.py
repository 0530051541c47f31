"""config.json of Hugging Face <-> a family's config: fields map by identity; what would change the model and is not ours is refused."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from kitae.core.errors import KitaeError
from kitae.models.encoder import EncoderConfig
from kitae.models.family import Family, HeadForm

FIXED: Mapping[str, tuple[object, ...]] = {
    "position_embedding_type": ("absolute", None),
    "is_decoder": (False, None),
    "add_cross_attention": (False, None),
    "is_encoder_decoder": (False, None),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
    "chunk_size_feed_forward": (0, None),
}
"""Keys of any family that change what a model computes, with the values that we can compute."""

_NEUTRAL = """
architectures transformers_version torch_dtype dtype use_cache bos_token_id eos_token_id sep_token_id cls_token_id mask_token_id
unk_token_id decoder_start_token_id id2label label2id num_labels problem_type finetuning_task task_specific_params tokenizer_class
output_hidden_states output_attentions output_past return_dict use_return_dict torchscript use_bfloat16 _name_or_path name_or_path
_commit_hash _attn_implementation attn_implementation gradient_checkpointing directionality pooler_fc_size pooler_num_attention_heads
pooler_num_fc_layers pooler_size_per_head pooler_type summary_type summary_use_proj summary_activation summary_last_dropout
summary_first_dropout vocab_pad_token author language license prefix cross_attention_hidden_size tie_encoder_decoder generator_size
"""
NEUTRAL = frozenset(_NEUTRAL.split())
"""Keys that do not change the hidden states or logits of the heads we have."""


CODE = ("auto_map", "trust_remote_code", "custom_pipelines")
"""Keys by which a folder asks for code of its own."""
LARGEST = 100_000_000
"""No number of a config is larger; checked before any memory is asked for."""
MOST_LABELS = 100_000


def read_config(path: Path) -> dict[str, object]:
    """The JSON of a config file. Raises KitaeError when it is no JSON object or asks for code."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise KitaeError(f"{path.name} is not JSON: {error}", cure="fetch the model again", where=str(path)) from error
    if not isinstance(raw, dict):
        raise KitaeError(f"{path.name} is not a JSON object", cure="fetch the model again", where=str(path))
    for key in CODE:
        if raw.get(key):
            what = f"the model wants code of its own ({key}), and kitae runs none"
            raise KitaeError(what, cure="use a model of a family that kitae has", where=str(path))
    return raw


def _no_number(name: str) -> object:
    """JSON has no NaN and no Infinity, though Python reads them."""
    raise ValueError(f"{name} is no number of JSON")


def to_config(raw: Mapping[str, object], family: Family, *, where: str) -> EncoderConfig:
    """A family's config from the JSON of Hugging Face. Raises KitaeError naming a key or value that we cannot follow."""
    own: dict[str, object] = {}
    fixed = {**FIXED, **family.fixed}
    for key, value in family.config.adapted(raw).items():
        if key in family.config.model_fields:
            own[key] = value
        elif key in fixed:
            if value not in fixed[key]:
                raise KitaeError(f"config.json has {key} = {value!r}", cure=f"only {fixed[key][0]!r} is supported", where=where)
        elif key not in NEUTRAL and key not in CODE and key not in family.neutral:
            raise KitaeError(
                f'config.json has the unknown key "{key}"', cure="remove it if it does not change the model's numbers", where=where
            )
    if own.get("pad_token_id") is None:
        own["pad_token_id"] = family.defaults.get("pad_token_id", 0)
    return parse_config({**family.defaults, **own}, family, where=where)


def check_head(raw: Mapping[str, object], form: HeadForm, *, where: str) -> None:
    """Raise KitaeError when the JSON asks for another form of a head."""
    for key, values in form.fixed.items():
        if key in raw and raw[key] not in values:
            raise KitaeError(f"config.json has {key} = {raw[key]!r}", cure=f"only {values[0]!r} is supported", where=where)


def parse_config(fields: Mapping[str, object], family: Family, *, where: str) -> EncoderConfig:
    """A family's config from fields. Raises KitaeError naming the first that does not fit."""
    for key, value in fields.items():
        if isinstance(value, int) and value > LARGEST:
            raise KitaeError(f"{key} = {value} is more than any model has", cure="use a folder of a supported model", where=where)
    try:  # as JSON, so that lists may stand for tuples, but "768" not for 768
        return family.config.model_validate_json(json.dumps(dict(fields)), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise KitaeError(f"{key or 'config'}: {first['msg']}", cure="use a folder of a supported model", where=where) from error


def to_huggingface_config(config: EncoderConfig, *, architecture: str, labels: tuple[str, ...]) -> dict[str, object]:
    """The JSON that transformers 4.57 and 5 read; `architecture` "" names no class."""
    raw: dict[str, object] = {**config.huggingface(), "dtype": "float32"}
    if architecture:
        raw = {"architectures": [architecture], **raw}
    if labels:
        raw["id2label"] = {str(number): label for number, label in enumerate(labels)}
        raw["label2id"] = {label: number for number, label in enumerate(labels)}
    return raw


def labels_of(raw: Mapping[str, object], *, where: str) -> tuple[str, ...]:
    """The labels of a classifier in order; Hugging Face's default is LABEL_0 and LABEL_1."""
    table = raw.get("id2label")
    if not isinstance(table, dict):
        number = raw.get("num_labels", 2)
        if not isinstance(number, int) or not 0 < number <= MOST_LABELS:
            raise KitaeError(f"num_labels = {number!r} is no number of labels", cure="correct config.json", where=where)
        return tuple(f"LABEL_{i}" for i in range(number))
    if set(table) != {str(i) for i in range(len(table))}:
        raise KitaeError("id2label does not number the labels from 0", cure="correct config.json", where=where)
    return tuple(str(table[str(i)]) for i in range(len(table)))
