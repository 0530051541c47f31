"""A CharacterBERT and the tokenizer it is used with: rows of one length, and a head for this tokenizer's words.

Only the head knows a vocabulary, so that a model may go on with the words of another domain: nothing of its encoder is lost. The
authors' code asks its users to take the output layer apart by hand.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from kitae.core.errors import KitaeError
from kitae.models.encoder import EncoderConfig
from kitae.models.families import build_masked_lm
from kitae.models.folder import Part
from kitae.tokenization.definition import Definition
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)
WITH_WORDS = ("mlm", "pretraining")
"""Heads that know a vocabulary."""
LISTED = "mlm_vocab.txt"
"""The authors' list of a head's words: one a line, behind its count where their data generator wrote it."""


def check_reading(config: EncoderConfig, algorithm: str, word_bytes: int, *, where: str = "") -> None:
    """Refuse a model that reads characters with a tokenizer that gives none, the reverse, and rows of another length."""
    wanted = config.word_characters
    if wanted and not word_bytes:
        raise KitaeError(
            f"the model reads the characters of words, the tokenizer gives {algorithm} tokens",
            cure='set tokenizer.algorithm = "characters-of-words", or take another model',
            where=where,
        )
    if word_bytes and not wanted:
        raise KitaeError(
            "the tokenizer gives the characters of words, which the model does not read",
            cure="take a CharacterBERT, or another tokenizer.algorithm",
            where=where,
        )
    if wanted != word_bytes:
        raise KitaeError(
            f"a word has {word_bytes} characters in the tokenizer (word_bytes) and {wanted} in the model (max_word_length)",
            cure=f"set word_bytes = {wanted} in the tokenizer",
            where=where,
        )


def with_words_of(
    tokenizer: Tokenizer, parts: Mapping[str, Part], place: Path, home: Path | None, generator: torch.Generator
) -> dict[str, Part]:
    """The parts of a start at `place` with heads for this tokenizer's words; `home` is where its own tokenizer lies, if anywhere.

    Raises KitaeError when the start lists more words than its head predicts.
    """
    theirs = _words_at(place, home, tokenizer.definition)
    fitted = {}
    for name, part in parts.items():
        if part.head in WITH_WORDS and len(theirs) > part.config.vocab_size:
            raise KitaeError(
                f"the start lists {len(theirs)} words, its head predicts {part.config.vocab_size}",
                cure="use the tokenizer that the model was trained with",
                where=str(place),
            )
        same = part.head in WITH_WORDS and theirs == tokenizer.tokens
        fitted[name] = (
            part if same or part.head not in (*WITH_WORDS, "none") else with_vocabulary(part, theirs, tokenizer.tokens, generator)
        )
    return fitted


def _words_at(place: Path, home: Path | None, here: Definition) -> tuple[str, ...]:
    """The words that a start's head predicts, in their order; none where its folder does not say them."""
    there = None if home is None else Tokenizer.load(home).definition
    if there is not None and there.word_bytes:
        if (there.spec.identity, there.dictionary_fingerprint) != (here.spec.identity, here.dictionary_fingerprint):
            log.warning("the start's tokenizer finds words otherwise (segmenter, dictionary or normalization)")
        return there.tokens
    if not (place / LISTED).is_file():
        return ()
    return tuple(line.split()[-1] for line in (place / LISTED).read_text(encoding="utf-8").splitlines() if line.strip())


def with_vocabulary(part: Part, old: Sequence[str], new: Sequence[str], generator: torch.Generator) -> Part:
    """The part with a head for the words `new`; `old` are the words of its present head, none if it has no head.

    A word that both have keeps its row of the output table. A new word begins with a new row and the mean of the known words'
    biases, so that it is no likelier than they are. Without a head, all of it is new. Everything else stays.
    """
    config = part.config.model_copy(update={"vocab_size": len(new)})
    made = {name: tensor for name, tensor in build_masked_lm(config, generator).state_dict().items() if name.startswith("head.")}
    if part.head not in WITH_WORDS:  # what stands there as a head is the pooler of transformers' class, no layer of this one
        log.info("the model to start from has no head for words: one for this data set's %d begins anew", len(new))
        encoder = {name: tensor for name, tensor in part.state.items() if name.startswith("encoder.")}
        return replace(part, head="mlm", config=config, state={**encoder, **made})
    number_of = {word: number for number, word in enumerate(old)}
    here = [number for number, word in enumerate(new) if word in number_of]
    there = [number_of[new[number]] for number in here]
    table, bias = made["head.table"], made["head.bias"]
    if there:
        known = part.state["head.bias"][there]
        bias.fill_(known.mean())
        table[here], bias[here] = part.state["head.table"][there], known
    log.info(
        "the head gets this data set's %d words: %d keep what the start knows of them, %d begin anew, %d of the start's are left out",
        len(new),
        len(here),
        len(new) - len(here),
        (len(old) or part.config.vocab_size) - len(here),
    )
    if not old:
        log.warning("the folder to start from does not list the words that its head predicts: all begin anew")
    return replace(part, config=config, state={**part.state, "head.table": table, "head.bias": bias})
