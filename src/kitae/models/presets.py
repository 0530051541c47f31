"""Named model sizes, with the numbers that the papers and their released code use, and how a recipe changes them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.encoder import EncoderConfig
from kitae.models.families import FAMILIES


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A named size. The vocabulary and the longest piece come from tokenizer and data set, not from here."""

    family: str
    """model_type; a row of FAMILIES."""
    encoder: Mapping[str, object]
    """Fields of the family's config."""
    generator: float | None = None
    """ELECTRA, DeBERTa-v3: width of the generator as a share of the discriminator's."""
    generator_layers: int | float = 1.0
    """ELECTRA, DeBERTa-v3: layers of the generator; a whole number is their number, a decimal one a share of the discriminator's."""
    note: str
    """For whom, one line."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a preset and its overrides come to. `encoder` is the discriminator where there is a generator."""

    family: str
    encoder: EncoderConfig
    generator: EncoderConfig | None = None


def _size(hidden: int, layers: int, embedding: int | None = None) -> dict[str, int]:
    numbers = {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": max(1, hidden // 64),
        "intermediate_size": 4 * hidden,
    }
    return numbers if embedding is None else numbers | {"embedding_size": embedding}


_DEBERTA: Mapping[str, object] = {"relative_attention": True, "pos_att_type": ("p2c", "c2p"), "position_biased_input": False}
_DEBERTA_V2 = {**_DEBERTA, "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True}
_DEBERTA_JA = {**_DEBERTA_V2, "conv_kernel_size": 3, "conv_act": "gelu"}
DECODER = "enhanced_mask_decoder"
_DEBERTA_V3 = {**_DEBERTA_V2, DECODER: True}  # microsoft/DeBERTa's generators all have it


def _deberta_v3(size: Mapping[str, int], note: str) -> Preset:
    """A discriminator and a generator of the same width and half the layers (microsoft/DeBERTa, rtd_*.json)."""
    return Preset(family="deberta-v2", encoder={**size, **_DEBERTA_V3}, generator=1.0, generator_layers=0.5, note=note)


def _gated(hidden: int, layers: int, inner: int, **others: object) -> dict[str, object]:
    """ModernBERT's numbers; `inner` is the width behind the gate: the first matrix of the feed-forward part is twice as wide."""
    return {**_size(hidden, layers), "intermediate_size": inner, **others}


PRESETS: Mapping[str, Preset] = {
    "electra-tiny": Preset(family="electra", encoder=_size(64, 2, 64), generator=1.0, note="tests and the quickstart; learns little"),
    "electra-mini": Preset(
        family="electra",
        encoder=_size(192, 4, 128),
        generator=1 / 3,
        note="learns something on two CPU cores within an hour; 5 to 6 MFLOP a token forward at 256 tokens",
    ),
    "electra-small-paper": Preset(family="electra", encoder=_size(256, 12, 128), generator=1 / 4, note="ELECTRA-Small of the paper"),
    "electra-small": Preset(
        family="electra",
        encoder=_size(256, 12, 128),
        generator=1.0,
        note="ELECTRA-Small++: the generator as wide as the discriminator; the released one read 512 tokens",
    ),
    "electra-base": Preset(family="electra", encoder=_size(768, 12, 768), generator=1 / 3, note="ELECTRA-Base; wants a GPU"),
    "electra-large": Preset(
        family="electra", encoder=_size(1024, 24, 1024), generator=1 / 4, note="ELECTRA-Large; mask a quarter of the tokens"
    ),
    "bert-tiny": Preset(family="bert", encoder=_size(64, 2), note="tests"),
    "bert-small": Preset(family="bert", encoder=_size(256, 12), note="12 narrow layers, full-width embeddings"),
    "bert-base": Preset(family="bert", encoder=_size(768, 12), note="BERT-Base"),
    "bert-large": Preset(family="bert", encoder=_size(1024, 24), note="BERT-Large"),
    "character-bert-tiny": Preset(
        family="character_bert", encoder=_size(64, 2) | {"cnn_filters": ((1, 16), (2, 16), (3, 32)), "num_highway_layers": 1}, note="tests"
    ),
    "character-bert-small": Preset(
        family="character_bert",
        encoder=_size(256, 12) | {"cnn_filters": ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256))},
        note="12 narrow layers, a quarter of the base model's filters",
    ),
    "character-bert-base": Preset(family="character_bert", encoder=_size(768, 12), note="CharacterBERT of the paper; no word is unknown"),
    "deberta-tiny": Preset(family="deberta", encoder={**_size(64, 2), **_DEBERTA}, note="tests"),
    "deberta-base": Preset(family="deberta", encoder={**_size(768, 12), **_DEBERTA}, note="DeBERTa-Base of the first version"),
    "deberta-v2-tiny": Preset(family="deberta-v2", encoder={**_size(64, 2), **_DEBERTA_JA}, note="tests"),
    "deberta-v2-base": Preset(
        family="deberta-v2", encoder={**_size(768, 12), **_DEBERTA_JA}, note="DeBERTa-v2-Base as in ku-nlp/deberta-v2-base-japanese"
    ),
    "deberta-v2-large": Preset(
        family="deberta-v2", encoder={**_size(1024, 24), **_DEBERTA_JA}, note="DeBERTa-v2-Large as in ku-nlp/deberta-v2-large-japanese"
    ),
    "deberta-v3-tiny": _deberta_v3(_size(64, 4), "tests"),
    "deberta-v3-xsmall": _deberta_v3(_size(384, 12), "DeBERTa-v3-XSmall"),
    "deberta-v3-small": _deberta_v3(_size(768, 6), "DeBERTa-v3-Small: as wide as base, half as deep"),
    "deberta-v3-base": _deberta_v3(_size(768, 12), "DeBERTa-v3-Base; wants a GPU"),
    "deberta-v3-large": _deberta_v3(_size(1024, 24), "DeBERTa-v3-Large"),
    "roberta-tiny": Preset(family="roberta", encoder=_size(64, 2), note="tests"),
    "roberta-base": Preset(family="roberta", encoder=_size(768, 12), note="RoBERTa-Base; its authors use beta2 = 0.98"),
    "roberta-large": Preset(family="roberta", encoder=_size(1024, 24), note="RoBERTa-Large"),
    "modernbert-tiny": Preset(family="modernbert", encoder=_gated(64, 4, 96, local_attention=16), note="tests"),
    "modernbert-small": Preset(family="modernbert", encoder=_gated(384, 12, 576), note="ModernBERT-base at half its width and depth"),
    "modernbert-base": Preset(
        family="modernbert",
        encoder=_gated(768, 22, 1152, classifier_pooling="mean"),
        note="ModernBERT-base; the published one learnt with rate = 0.3, in rows of 1,024 tokens and then of 8,192",
    ),
    "modernbert-large": Preset(
        family="modernbert", encoder=_gated(1024, 28, 2624, classifier_pooling="mean"), note="ModernBERT-large; published like the base one"
    ),
}

_FROM_DATA = ("model_type", "vocab_size", "max_position_embeddings", "pad_token_id", "max_word_length")


def fields(family: str) -> tuple[str, ...]:
    """Fields that a recipe may override, for the encoder and, below `generator`, for the generator."""
    return tuple(name for name in FAMILIES[family].config.model_fields if name not in _FROM_DATA)


def resolve_preset(
    name: str, overrides: Mapping[str, object], vocab_size: int, max_length: int, *, pad_token_id: int = 0, word_bytes: int = 0
) -> Architecture:
    """Numbers of a preset with overrides, for pieces of `max_length` tokens (`word_bytes`: characters of a word, where words are read).

    Raises KitaeError for an unknown preset or key, or numbers that do not fit.

    Overrides are fields of the family's config; `generator` is a table of such fields, of `fraction` (its width as a share) and of
    `layers` (a whole number, or a decimal one up to 1.0 for a share of the discriminator's). A new hidden_size brings its own number
    of heads (one per 64) and inner width (as many times as the preset's) unless they are given too: google-research/electra's rule.
    """
    if name not in PRESETS:
        raise KitaeError(f'there is no model preset "{name}"', cure=did_you_mean(name, PRESETS))
    preset = PRESETS[name]
    own = {key: value for key, value in overrides.items() if key != "generator"}
    generator = overrides.get("generator", {})
    if not isinstance(generator, Mapping):
        raise KitaeError(f"generator = {generator!r} is not a table", cure="write generator = { fraction = 0.5 }, or fields of the encoder")
    if preset.generator is None and "generator" in overrides:
        raise KitaeError(f'preset "{name}" has no generator', cure="remove the key `generator`, or take an ELECTRA or DeBERTa-v3 preset")
    known = fields(preset.family)
    _known(own, (*known, "generator") if preset.generator else known)
    _known(generator, (*known, "fraction", "layers"))
    room = FAMILIES[preset.family].config.room(max_length, pad_token_id, word_bytes)
    common = {"model_type": preset.family, "vocab_size": vocab_size, "pad_token_id": pad_token_id, **room}
    encoder = _config({**preset.encoder, **_derived(own, _widening(preset.encoder)), **own, **common})
    if preset.generator is None:
        return Architecture(family=preset.family, encoder=encoder)
    return Architecture(family=preset.family, encoder=encoder, generator=_generator(encoder, preset, generator))


def generator_config(discriminator: EncoderConfig, fraction: float, layers: int | float = 1.0) -> dict[str, object]:
    """ELECTRA's rule: hidden size scaled and rounded, heads one per 64, inner width four times, the same embeddings.

    layers: a whole number is their number, a decimal one a share of the discriminator's, rounded, at least one.
    """
    hidden = round(discriminator.hidden_size * fraction)
    depth = layers if isinstance(layers, int) else max(1, round(discriminator.num_hidden_layers * layers))
    numbers = {"hidden_size": hidden, "num_hidden_layers": depth, "embedding_size": discriminator.embedding_width}
    return discriminator.model_dump() | _derived({"hidden_size": hidden}) | numbers


def _generator(encoder: EncoderConfig, preset: Preset, overrides: Mapping[str, object]) -> EncoderConfig:
    share, layers = overrides.get("fraction", preset.generator), overrides.get("layers", preset.generator_layers)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
        raise KitaeError(f"generator.fraction = {share!r} is not a share of the hidden size", cure="give a number above 0 and up to 1")
    if isinstance(layers, bool) or not isinstance(layers, int | float) or layers <= 0 or (isinstance(layers, float) and layers > 1):
        cure = "give a whole number from 1, or a share of the discriminator's layers such as 0.5"
        raise KitaeError(f"generator.layers = {layers!r} is no number of layers", cure=cure)
    own = {key: value for key, value in overrides.items() if key not in ("fraction", "layers")}
    config = _config({**generator_config(encoder, float(share), layers), **_derived(own), **own}, "generator.")
    for key, field in (("embedding_width", "embedding_size"), ("segment_kinds", "type_vocab_size")):
        if getattr(config, key) != getattr(encoder, key):
            raise KitaeError(f"generator and discriminator differ in {field}", cure="remove it from `generator`: both share it")
    return config


def _derived(own: Mapping[str, object], widening: float = 4.0) -> dict[str, object]:
    hidden = own.get("hidden_size")
    return {"num_attention_heads": max(1, hidden // 64), "intermediate_size": round(widening * hidden)} if isinstance(hidden, int) else {}


def _widening(numbers: Mapping[str, object]) -> float:
    """Inner width as a multiple of the hidden size: 4, but for gated feed-forward parts."""
    hidden, inner = numbers["hidden_size"], numbers["intermediate_size"]
    assert isinstance(hidden, int)
    assert isinstance(inner, int)
    return inner / hidden


def _known(keys: Mapping[str, object], known: tuple[str, ...]) -> None:
    for key in keys:
        if key in _FROM_DATA:
            raise KitaeError(f'model key "{key}" cannot be set', cure="it follows from the preset, the tokenizer and the data set")
        if key not in known:
            raise KitaeError(f'unknown model key "{key}"', cure=did_you_mean(key, known))


def _config(numbers: Mapping[str, object], prefix: str = "") -> EncoderConfig:
    """The family's config. `prefix` stands before the key that an error names. Numbers have to be numbers, not text."""
    try:  # as JSON, so that lists may stand for tuples
        return FAMILIES[str(numbers["model_type"])].config.model_validate_json(json.dumps(dict(numbers), default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        key, message = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        place = f"{prefix}{key} = {first['input']!r}" if key else prefix.removesuffix(".")
        what = f"{place}: {message}" if place else message
        raise KitaeError(what, cure="change the overrides of the preset") from error


def generator_for(discriminator: EncoderConfig, name: str | None, overrides: Mapping[str, object]) -> EncoderConfig:
    """Numbers of a new generator for a discriminator that came without one, by the rule of a preset and its `generator` overrides.

    Without a name, or with one of another family: by the preset of the same family whose width is nearest. Raises KitaeError for a
    family whose presets have no generator, an unknown key, or numbers that do not fit.
    """
    usual = [(key, preset) for key, preset in PRESETS.items() if preset.family == discriminator.model_type and preset.generator]
    usual = [(key, preset) for key, preset in usual if key == name] or usual
    if not usual:
        raise KitaeError(
            f"nothing says how large a generator of the family {discriminator.model_type} is",
            cure="name an ELECTRA preset as `model`, or bring the generator (start_generator)",
        )
    _known(overrides, (*fields(discriminator.model_type), "fraction", "layers"))
    _, preset = min(usual, key=lambda item: abs(math.log(_width(item[1]) / discriminator.hidden_size)))
    # Microsoft's folders of discriminators say nothing of the decoder that their generators have
    decoder = {DECODER: True} if DECODER in preset.encoder and not discriminator.model_dump()["position_biased_input"] else {}
    return _generator(discriminator, preset, {**decoder, **overrides})


def _width(preset: Preset) -> int:
    return int(str(preset.encoder["hidden_size"]))
