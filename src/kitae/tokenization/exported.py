"""Whether an exported tokenizer gives transformers the ids that it gives kitae: told from its files, on text, before it is used.

A tokenizer.json runs in the library that transformers uses. For BertJapaneseTokenizer (models/bert_japanese of transformers 4.57
and 5) its rules are told here once more, on plain fugashi, sudachipy and SentencePiece, because transformers is no dependency.
Of kitae's own ways it shares the pipe to Juman++ alone.
"""

import importlib
import itertools
import logging
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import fugashi
import sentencepiece

from kitae.core.errors import KitaeError
from kitae.tokenization import dictionary as dictionaries
from kitae.tokenization import jumanpp, sudachi
from kitae.tokenization.definition import Definition
from kitae.tokenization.files import CONFIG, LIBRARY, SENTENCEPIECE, VOCABULARY, json_of
from kitae.tokenization.jumanpp import JumanppSegmenter
from kitae.tokenization.library import runtime_library
from kitae.tokenization.segmenter import SURFACES, SegmenterSpec
from kitae.tokenization.sentencepiece import SPACE

LONGEST_WORD = 100
"""A longer word is unknown to the class's WordPiece, whatever its settings say."""
log = logging.getLogger(__name__)


def check(definition: Definition, folder: Path, ours: Sequence[list[int]], sentences: list[str], *, allowed: float) -> None:
    """Refuse a written folder that gives other ids than `ours`. Raises KitaeError with the first sentence that shows it.

    Special tokens are text here, which is what kitae does. `allowed`: share of sentences that may differ. A CharacterBERT's tokenizer
    has no class in transformers, and passes.
    """
    if definition.algorithm == "characters-of-words":
        return
    if definition.spec.kind in SURFACES:
        name, theirs = "BertJapaneseTokenizer", list(map(bert_japanese(folder, definition), sentences))
    else:
        rows = runtime_library(definition).encode_batch_fast(sentences, add_special_tokens=False)
        name, theirs = LIBRARY, [row.ids for row in rows]
    different = [sentence for sentence, a, b in zip(sentences, theirs, ours, strict=True) if a != b]
    if len(different) > allowed * len(sentences):
        raise KitaeError(
            f"{name} would give other ids than kitae for {len(different)} of {len(sentences)} sentences, the first {different[0][:60]!r}",
            cure="train with the usual settings, or take a vocabulary that transformers can use",
            where=str(folder),
        )
    if different:
        log.warning("%s gives other ids than kitae for %d of %d sentences", name, len(different), len(sentences))


def bert_japanese(folder: Path, definition: Definition) -> Callable[[str], list[int]]:
    """Text to ids, as BertJapaneseTokenizer does it with this folder's files and the dictionary or program of the definition."""
    config = json_of(folder / CONFIG)
    words = _words(config, definition.spec)
    subword = config["subword_tokenizer_type"]
    pieces = cache(
        _sentencepiece(folder) if subword == "sentencepiece" else _vocabulary(folder, definition, characters=subword == "character")
    )
    lower = bool(config["do_lower_case"])
    return lambda text: list(itertools.chain.from_iterable(pieces(word.lower() if lower else word) for word in words(text)))


def _words(config: dict[str, object], spec: SegmenterSpec) -> Callable[[str], list[str]]:
    """MecabTokenizer, SudachiTokenizer and JumanppTokenizer. The place of a dictionary without a public name comes from the definition."""
    options = config.get(f"{spec.kind}_kwargs") or {}
    assert isinstance(options, dict), "kitae wrote it"
    surfaces: Callable[[str], list[str]]
    if spec.kind == "mecab":
        found = dictionaries.find(spec.dictionary)
        option = str(options.get("mecab_option") or "") if found.named else f'-d "{found.path}" -r /dev/null {spec.flags}'
        if options["mecab_dic"]:
            option = f'-d "{found.path}" -r "{found.path / "mecabrc"}" {option}'
        tagger = fugashi.GenericTagger(option)
        surfaces = lambda text: [node.surface for node in tagger(text)]  # noqa: E731  # beside its siblings
    elif spec.kind == "sudachi":
        system = sudachi.find(spec.dictionary)
        place = options["sudachi_dict_type"] if system.named else str(system.path)
        tokenize = importlib.import_module("sudachipy").Dictionary(dict=place).create(options["sudachi_split_mode"]).tokenize
        surfaces = lambda text: [word.surface() for word in tokenize(text)]  # noqa: E731
    else:
        segmenter = JumanppSegmenter(jumanpp.find(spec.program), whole=True)
        surfaces = lambda text: segmenter.segment(text.strip())  # noqa: E731
    normalize = options.get("normalize_text", True)
    trim = bool(options.get("trim_whitespace"))

    def words(text: str) -> list[str]:
        text = text.replace("\0", " ")
        found = surfaces(unicodedata.normalize("NFKC", text) if normalize else text)
        return [word.strip() for word in found if word.strip()] if trim else found

    return words


def _vocabulary(folder: Path, definition: Definition, *, characters: bool) -> Callable[[str], list[int]]:
    """WordpieceTokenizer and CharacterTokenizer, over vocab.txt as load_vocab reads it, less the special tokens."""
    with (folder / VOCABULARY).open(encoding="utf-8") as file:
        numbers = {line.rstrip("\n"): number for number, line in enumerate(file.readlines())}
    unknown = numbers[definition.names[4]]
    known = {token: number for token, number in numbers.items() if token not in definition.names}
    if characters:
        return lambda word: [known.get(char, unknown) for char in unicodedata.normalize("NFKC", word)]

    def pieces(word: str) -> list[int]:
        return [number for part in word.split() for number in one(part)]

    def one(word: str) -> list[int]:
        ids: list[int] = []
        start = 0
        while start < len(word) <= LONGEST_WORD:
            tries = (("##" if start else "") + word[start:end] for end in range(len(word), start, -1))
            found = next((piece for piece in tries if piece in known), None)
            if found is None:
                return [unknown]
            ids.append(known[found])
            start += len(found) - (2 if start else 0)
        return ids or [unknown]

    return pieces


def _sentencepiece(folder: Path) -> Callable[[str], list[int]]:
    """SentencepieceTokenizer."""
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / SENTENCEPIECE))

    def pieces(word: str) -> list[int]:
        found: list[str] = []
        for piece in model.encode(" ".join(word.split()).replace("``", '"').replace("''", '"'), out_type=str):
            if len(piece) < 2 or piece[-1] != "," or not piece[-2].isdigit():
                found.append(piece)
                continue
            front = model.encode(piece[:-1].replace(SPACE, ""), out_type=str)
            if piece[0] != SPACE and front[0][0] == SPACE:
                front = [*([front[0][1:]] if len(front[0]) > 1 else []), *front[1:]]
            found += [*front, ","]
        return [model.piece_to_id(piece) for piece in found]

    return pieces
