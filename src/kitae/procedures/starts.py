"""The models that a pre-training starts from: read, and refused when they do not fit tokenizer, rows or pairs."""

import logging
from collections.abc import Mapping
from pathlib import Path

from kitae.core.artifact import newest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.data.sampler import DatasetFacts
from kitae.models.encoder import EncoderConfig
from kitae.models.folder import Part, read_parts
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.sentence_order import SentenceOrder, check_order
from kitae.procedures.words import check_reading, with_words_of
from kitae.tensor.random import torch_generator
from kitae.tokenization.tokenizer import Tokenizer

log = logging.getLogger(__name__)


def lacks_generator(settings: Config, parts: Mapping[str, Part]) -> bool:
    """Whether these models of a start are a discriminator alone, for an objective that needs its generator."""
    return isinstance(settings, RtdConfig) and not settings.uniform_generator and set(parts) == {"discriminator"}


def generator_of(folder: str) -> tuple[Path, Part]:
    """(checkpoint, model) of the generator of a folder of its own, or of a pair."""
    place = newest(locate(folder))
    parts = read_parts(place)
    part = parts.get("generator") or parts.get("encoder")  # DeBERTa's is a masked language model like any other
    if part is None or part.head != "mlm":
        held = ", ".join(part.title for part in parts.values())
        cure = "name the folder of a generator, such as ElectraForMaskedLM"
        raise KitaeError(f"start_generator holds no generator, but: {held}", cure=cure, where=str(place))
    return place, part


def fitting(place: Path, parts: Mapping[str, Part], tokenizer: Tokenizer, max_length: int, *, seed: int) -> dict[str, Part]:
    """The parts of a start, with heads for this tokenizer's words where only the head knows words. Raises KitaeError when one does not
    fit otherwise, or has too few positions for rows of `max_length`."""
    homes = [place / "tokenizer", place, *(place / name for name in parts)]
    home = next((folder for folder in homes if any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json"))), None)
    for name, part in parts.items():
        _check_start(name, part, tokenizer, max_length, where=str(place))
    if tokenizer.speller is None:
        _check_tokens(home, tokenizer, where=str(place))
        return dict(parts)
    return with_words_of(tokenizer, parts, place, home, torch_generator(seed, "weights", "vocabulary"))


def _check_tokens(home: Path | None, tokenizer: Tokenizer, *, where: str) -> None:
    """Refuse a start that counts tokens otherwise."""
    if home is None:
        raise KitaeError("the folder to start from has no tokenizer", cure="bring its vocab.txt or tokenizer.json", where=where)
    theirs = Tokenizer.load(home)
    if theirs.tokens != tokenizer.tokens:
        pairs = enumerate(zip(theirs.tokens, tokenizer.tokens, strict=False))
        odd = next((f"token {i} is {a!r} there, {b!r} here" for i, (a, b) in pairs if a != b), "one is longer than the other")
        raise KitaeError(
            f"the vocabulary of the start ({theirs.vocab_size} tokens) is not the data set's ({tokenizer.vocab_size}): {odd}",
            cure="make the tokenizer with `from`, the start's folder",
            where=str(home),
        )
    if theirs.fingerprint != tokenizer.fingerprint:
        log.warning("the start's tokenizer has the same tokens but other settings (segmenter, dictionary or normalization)")


def _check_start(name: str, part: Part, tokenizer: Tokenizer, max_length: int, *, where: str) -> None:
    """Refuse a start that reads words otherwise than the tokenizer writes them, or has too few positions."""
    check_reading(part.config, tokenizer.definition.algorithm, tokenizer.definition.word_bytes, where=where)
    check_positions(name, part, max_length, where=where)


def check_positions(name: str, part: Part, max_length: int, *, where: str) -> None:
    """Refuse a model with fewer positions than rows of `max_length` have."""
    if part.config.positions < max_length:
        raise KitaeError(
            f"the {name} has {part.config.positions} positions, the data set's rows have {max_length}",
            cure=f"set dataset.max_length = {part.config.positions} or less, and that of every phase",
            where=where,
        )


def check_segments(part: str, model: EncoderConfig, order: SentenceOrder, *, paired: bool) -> None:
    """Refuse a model that cannot tell the segments of a dataset's pairs apart."""
    kinds = model.segment_kinds
    if paired and (kinds == 1 or (kinds == 0 and order != "none")):
        raise KitaeError(
            f"the {part} knows {kinds} kinds of segments (type_vocab_size = {kinds}), but the dataset has pairs of two",
            cure='set type_vocab_size = 2 in pretrain.config, or make the dataset with packing = "sentences"',
        )


def check_pairs(objective: Objective, name: str, order: SentenceOrder, facts: DatasetFacts) -> None:
    """Refuse a dataset and an objective, called `name`, that pairs cannot be learnt from; say it when nothing reads the labels."""
    pairs = facts.pairs
    check_order(order, pairs)
    if pairs is None:
        return
    for part, model in objective.models().items():
        check_segments(part, model.config, order, paired=True)
    if order == "none" and pairs.negative:
        log.warning(
            'the dataset shows %.0f %% of its pairs otherwise than the text ("%s"), but nothing learns to tell: set pairs.negative = 0%s',
            100 * pairs.negative,
            pairs.task,
            f' or sentence_order = "{pairs.task}"' if name == "mlm" else "",
        )
    if order != "none" and pairs.next_label == 1:
        log.warning("label 1 is the true order in this dataset; in the class that the model is exported as, 0 is")
