"""A CharacterBERT and the tokenizer it is used with: rows of one length, and a head for this tokenizer's words.

Only the head knows a vocabulary, so that a model may go on with the words of another domain: nothing of its encoder is lost. The
authors' code asks its users to take the output layer apart by hand.
"""

import dataclasses
import logging
from collections.abc import Sequence

import torch

from kitae.core.errors import KitaeError
from kitae.models.encoder import EncoderConfig
from kitae.models.families import build_masked_lm
from kitae.models.folder import Part
from kitae.tokenization.definition import Algorithm
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)
WITH_WORDS = ("mlm", "pretraining")
"""Heads that know a vocabulary."""


def check_reading(config: EncoderConfig, tokenizer: Tokenizer, *, where: str = "") -> None:
    """Refuse a model that reads characters with a tokenizer that gives none, the reverse, and rows of another length."""
    check_characters(config, tokenizer.definition.algorithm, tokenizer.definition.word_bytes, where=where)


def check_characters(config: EncoderConfig, algorithm: Algorithm, word_bytes: int, *, where: str = "") -> None:
    """The same by what a tokenizer will be: how it makes tokens, and characters of a word's row (0: it gives none)."""
    wanted, found = config.word_characters, word_bytes
    if wanted and not found:
        raise KitaeError(
            f"the model reads the characters of words, the tokenizer gives {algorithm} tokens",
            cure='set tokenizer.algorithm = "characters-of-words", or take another model',
            where=where,
        )
    if found and not wanted:
        raise KitaeError(
            "the tokenizer gives the characters of words, which the model does not read",
            cure="take a CharacterBERT, or another tokenizer.algorithm",
            where=where,
        )
    if wanted != found:
        raise KitaeError(
            f"a word has {found} characters in the tokenizer (word_bytes) and {wanted} in the model (max_word_length)",
            cure=f"set max_word_length = {found} in the model's config, or word_bytes = {wanted} in the tokenizer",
            where=where,
        )


def with_vocabulary(part: Part, old: Sequence[str], new: Sequence[str], generator: torch.Generator) -> Part:
    """The part with a head for the words `new`; `old` are the words of its present head, none if it has no head.

    A word that both have keeps its row of the output table. A new word begins with a new row and the mean of the known words'
    biases, so that it is no likelier than they are. Without a head, all of it is new. Everything else stays.
    """
    config = part.config.model_copy(update={"vocab_size": len(new)})
    made = {name: tensor for name, tensor in build_masked_lm(config, generator).state_dict().items() if name.startswith("head.")}
    number_of = {word: number for number, word in enumerate(old)} if part.head in WITH_WORDS else {}
    here = [number for number, word in enumerate(new) if word in number_of]
    there = [number_of[new[number]] for number in here]
    state = {**made, **part.state}
    if part.head in WITH_WORDS:
        biases = part.state["head.table.bias"]
        table, bias = made["head.table.weight"], (biases[there] if there else biases).mean().repeat(len(new))
        table[here], bias[here] = part.state["head.table.weight"][there], biases[there]
        state |= {"head.table.weight": table, "head.table.bias": bias}
    log.info(
        "the head gets this data set's %d words: %d keep what the start knows of them, %d begin anew, %d of the start's are left out",
        len(new),
        len(here),
        len(new) - len(here),
        len(number_of) - len(here),
    )
    return dataclasses.replace(part, head=part.head if part.head in WITH_WORDS else "mlm", config=config, state=state)
