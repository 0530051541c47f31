"""What a model is used with: a tokenizer that fits it, texts that are not too long for it, a device."""

from pathlib import Path

import torch

from kitae.core.errors import KitaeError
from kitae.core.launch import launch
from kitae.models.encoder import EncoderConfig
from kitae.models.folder import Part
from kitae.procedures.words import check_reading
from kitae.tokenization.tokenizer import Tokenizer

MOST_TOKENS = 512
"""Longest text in tokens where nothing else is said."""


def read_tokenizer(place: Path, part: Part) -> Tokenizer:
    """The tokenizer of a model's folder. Raises KitaeError when it has tokens that the model lacks, or does not fit otherwise."""
    tokenizer = Tokenizer.load(place / "tokenizer" if (place / "tokenizer").is_dir() else place)
    check_reading(part.config, tokenizer.definition.algorithm, tokenizer.definition.word_bytes, where=str(place))
    if tokenizer.speller is None and tokenizer.vocab_size > part.config.vocab_size:
        raise KitaeError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the encoder {part.config.vocab_size}",
            cure="use the tokenizer that the encoder was trained with",
            where=str(place),
        )
    return tokenizer


def check_length(max_length: int, encoder: EncoderConfig, *, where: str) -> None:
    """Raise KitaeError when texts of so many tokens do not fit the model."""
    positions = encoder.positions
    if max_length > positions:
        what = f"max_length = {max_length}, but the encoder has {positions} positions"
        raise KitaeError(what, cure=f"set max_length = {positions} or less", where=where)


def device_named(wanted: str) -> torch.device:
    """The device ("auto", "cpu", "cuda") of one process that works alone, also when torchrun started several of them."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise KitaeError('device = "cuda", but torch sees no CUDA device', cure='set device = "cpu" or "auto", or mend the driver')
    cuda = wanted != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", launch().local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
