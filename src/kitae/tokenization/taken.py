"""Finished vocabularies whose files do not say how words are found: a bare vocab.txt, or SentencePiece of text segmented before."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tokenization import folder as folders
from kitae.tokenization import resources
from kitae.tokenization.definition import Around, Definition
from kitae.tokenization.files import CONFIG, SENTENCEPIECE, VOCABULARY
from kitae.tokenization.library import NAME
from kitae.tokenization.segmenter import SURFACES, SegmenterSpec

PLACES = ("tokenizer", "discriminator", "generator")
FILES = (folders.OWN, VOCABULARY, NAME, SENTENCEPIECE, "spm.model", "sentencepiece.bpe.model", "vocab.json")


def home(given: Path) -> Path:
    """Where the tokenizer's files lie: at the place itself, or within a checkpoint or a folder with ELECTRA's two halves."""
    places = (given, *(given / name for name in PLACES))
    return next((place for place in places if any((place / name).is_file() for name in FILES)), given)


def take(given: Path, said: Mapping[str, object]) -> Definition:
    """The vocabulary at `given`, words found as `said`: fields of SegmenterSpec by their names, empty for what its files say.

    A vocab.txt alone takes any words ("basic" when no `kind` is said, never normalized, as BERT's). A SentencePiece model takes the
    words of MeCab, Sudachi or Juman++, normalized to NFKC, and makes pieces of each: as of text whose words were joined by blanks,
    with BertJapaneseTokenizer's rules for commas and quotes, so that its folder gives the same ids in transformers.
    Raises KitaeError for any other vocabulary.
    """
    place = home(given)
    definition = folders.read(place)
    if not said:
        return definition
    bare = place.is_file() or not any((place / name).is_file() for name in (CONFIG, folders.OWN))
    if bare and definition.algorithm == "wordpiece" and not definition.library:
        kind = said.get("kind", "basic")
        spec = SegmenterSpec.model_validate({"kind": kind, "nfkc": kind != "basic", **said})
        return replace(definition, spec=spec, dictionary_fingerprint=resources.find(spec).fingerprint)
    around = definition.around
    if definition.model and said.get("kind") in SURFACES and not (around.fairseq or around.strip_accents):
        spec = SegmenterSpec.model_validate({"lower_case": around.lower_case, **said})
        fingerprint = resources.find(spec).fingerprint
        return replace(definition, spec=spec, dictionary_fingerprint=fingerprint, around=Around(quotes=True, commas=True))
    raise KitaeError(
        f"the words of this {definition.algorithm} tokenizer cannot be said anew",
        cure="remove all settings but `from`; a vocab.txt alone takes them, and a SentencePiece model a segmenter of Japanese",
        where=str(given),
    )
