"""Tokenizers as the `tokenizers` library writes them (tokenizer.json): made from our definitions, and run without special tokens."""

import json
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Library

from kitae.core.errors import KitaeError
from kitae.tokenization import sentencepiece as pieces
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import library_parts
from kitae.tokenization.wordpiece import PREFIX

HIDDEN = "\ufdd0{}\ufdd1"
"""How a special token is named where text must not meet it: noncharacters, which no text interchanges."""


NAME = "tokenizer.json"
ROBERTA_MASK = {"single_word": False, "lstrip": True, "rstrip": False, "normalized": False, "special": True}
"""How vocab.json and merges.txt mean their mask (fairseq's RoBERTa, transformers 4): the blank before it belongs to it."""
ODD = (
    "",
    " ",
    "\u3000 \u3042\u3000\u3000\u4e9c ",
    "a  b\tc\x0bd\x1ce\x85f\u2028g",
    "\uff21\uff22\uff11\u33d4\u337f\uff8a\uff9e\u304b\u3099",
    "[CLS] x[SEP] </s><mask>\u2581y",
    "\U0001f600\U0001f468\u200d\U0001f469\ufe0f\U00020bb7\u200b\ufeff",
    "``1,000'' 3.14, U.S. don't",
    "e\u0301\u00e9\u0130\ufb01\u00df",
    "\ud55c\uad6d\uc5b4 \u0e44\u0e17\u0e22 \u0440\u0443\u0441",
    "\u9b31" * 40 + "x" * 120,
    "-- ... !!! (\u300c\u300d)",
)
"""Text that shows where tokenizers differ: blanks, widths, composed letters, special tokens, scripts, unknown and long words."""


def _bytes() -> dict[str, int]:
    """The character that stands for each byte in byte-level vocabularies (Radford et al. 2019): itself where it can be printed."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


BYTES = _bytes()
_PAIRS = (chr(letter) + chr(mark) for letter in range(0xFF66, 0xFF9E) for mark in (0xFF9E, 0xFF9F))
VOICED = tuple((pair, whole) for pair in _PAIRS if len(whole := unicodedata.normalize("NFKC", pair)) == 1)
"""Half-width kana with their voicing marks. The library's reading of compiled rules misses rules for two letters of three bytes
each, which is what these are, and letters with combining marks (NFC before it heals those)."""


def library_text(definition: Definition) -> str:
    """The tokenizer.json of a tokenizer whose words need no dictionary. Raises KitaeError where none can give the same ids."""
    if definition.library:
        return definition.library
    if definition.model:
        library = _sentencepiece(definition)
    elif definition.algorithm == "character":
        library = _characters(definition)
    else:
        library = _wordpiece(definition)
    finish(library, definition)
    return str(library.to_str(pretty=False))


def finish(library: Library, definition: Definition) -> None:
    """Add the special tokens and how they stand around one text and two."""
    numbers = {token: number for number, token in enumerate(definition.tokens)}
    by_id = sorted(definition.names, key=numbers.__getitem__)
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in by_id])
    cls, sep = definition.names[:2]
    pair = f"{cls}:0 $A:0 {sep}:0 {sep}:0 $B:0 {sep}:0" if definition.around.fairseq else f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1"
    library.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0", pair=pair, special_tokens=[(cls, numbers[cls]), (sep, numbers[sep])]
    )


def _wordpiece(definition: Definition) -> Library:
    library = library_parts(definition.spec)
    numbers = {token: number for number, token in enumerate(definition.tokens)}
    library.model = models.WordPiece(
        numbers, unk_token=definition.names[4], continuing_subword_prefix=PREFIX, max_input_chars_per_word=definition.max_chars
    )
    library.decoder = decoders.WordPiece(prefix=PREFIX, cleanup=False)
    return library


def _characters(definition: Definition) -> Library:
    library = library_parts(definition.spec)
    numbers = {token: number for number, token in enumerate(definition.tokens)}
    library.model = models.WordLevel(numbers, unk_token=definition.names[4])
    single = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    library.pre_tokenizer = pre_tokenizers.Sequence([library.pre_tokenizer, single])
    return library


def _sentencepiece(definition: Definition) -> Library:
    """The model's scores and its compiled normalization rules, which the library reads as they are."""
    contents = pieces.read(definition.model, Path("spiece.model"))
    if not (contents.plain and contents.dummy_prefix and contents.fold_blanks):
        raise KitaeError(
            "this SentencePiece model treats blanks or bytes in a way that tokenizer.json cannot say",
            cure="use it with kitae alone, or take a model with the usual settings of SentencePiece",
        )
    around = definition.around
    steps: list[normalizers.Normalizer] = []
    if around.quotes:
        steps += [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if around.strip_accents:
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if around.lower_case:
        steps.append(normalizers.Lowercase())
    if contents.charsmap:
        steps += [normalizers.NFC(), *(normalizers.Replace(pair, letter) for pair, letter in VOICED)]
        steps.append(normalizers.Precompiled(contents.charsmap))
    # blanks as the model has them: folded, none at the ends, one before the text; an empty text stays empty
    steps += [normalizers.Replace(Regex(" +"), " "), normalizers.Replace(Regex(r"\A | \z"), "")]
    steps += [normalizers.Prepend(pieces.SPACE), normalizers.Replace(" ", pieces.SPACE)]
    scores = _scores(contents, around.commas)
    if around.fairseq:
        scores = [(name, 0.0) for name in pieces.FAIRSEQ] + scores[3:]
    scores += [(token, 0.0) for token in definition.tokens[len(scores) :]]
    unk = definition.special.unk
    if contents.kind == pieces.UNIGRAM:
        library = Library(models.Unigram(scores, unk_id=unk, byte_fallback=False))
    else:
        numbers = {token: number for number, (token, _) in enumerate(scores)}
        merges = _merges(contents, numbers)
        library = Library(models.BPE(numbers, merges, unk_token=definition.names[4], fuse_unk=True, byte_fallback=False))
    library.normalizer = normalizers.Sequence(steps)
    if contents.split_blanks:  # pieces never cross a blank: shorter stretches, the same pieces
        library.pre_tokenizer = pre_tokenizers.Split(pieces.SPACE, behavior="merged_with_next")
    library.decoder = decoders.Sequence([decoders.Replace(pieces.SPACE, " "), decoders.Strip(" ", 1, 0)])
    return library


def _scores(contents: pieces.Contents, commas: bool) -> list[tuple[str, float]]:
    """Pieces with scores. Pieces that text never meets keep their places out of reach; user-defined ones always win, as in
    unigram_model.cc (length in bytes times the best score, less 0.1)."""
    best = max(score for _, score, kind in contents.pieces if kind == pieces.NORMAL)
    out = []
    for text, score, kind in contents.pieces:
        if kind == pieces.USER:
            score = len(text.encode()) * best - 0.1
        elif commas and pieces.ends_in_digit_comma(text):
            score -= 100
        out.append((text, score))
    return out


def _merges(contents: pieces.Contents, numbers: dict[str, int]) -> list[tuple[str, str]]:
    """BPE merges from pieces: every way to put a piece together, the best piece first."""
    made = [(-score, text) for text, score, kind in contents.pieces if kind == pieces.NORMAL and len(text) > 1]
    usable = {text for text, _, kind in contents.pieces if kind == pieces.NORMAL} & numbers.keys()
    return [(text[:i], text[i:]) for _, text in sorted(made) for i in range(1, len(text)) if text[:i] in usable and text[i:] in usable]


def runtime_library(definition: Definition, *, masks: bool = False) -> Library:
    """The library's tokenizer that never makes a special token from text; with `masks`, the mask's name stands for the mask.

    WordPiece: its names carry a blank in the vocabulary, which no word has. Elsewhere they are hidden behind noncharacters.
    """
    raw = json.loads(library_text(definition))
    names, mask = set(definition.names), definition.names[2]
    raw |= {"post_processor": None, "truncation": None, "padding": None}
    model = raw["model"]
    if definition.algorithm == "wordpiece":
        assert not masks, "names of words are found before the library sees them"
        model["vocab"] = {f"{token} " if token in names else token: number for token, number in model["vocab"].items()}
        model["unk_token"] += " "
        return library_of(raw | {"added_tokens": []})
    names |= {entry["content"] for entry in raw["added_tokens"] if entry["special"]}
    if masks:
        names.discard(mask)
        if all(entry["content"] != mask for entry in raw["added_tokens"]):
            raw["added_tokens"].append({**ROBERTA_MASK, "content": mask, "id": definition.special.mask})
    if isinstance(model["vocab"], dict):
        model["vocab"] = {_hidden(token, names): number for token, number in model["vocab"].items()}
    else:
        model["vocab"] = [[_hidden(token, names), score] for token, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = _hidden(model["unk_token"], names)
    for entry in raw["added_tokens"]:
        entry["content"] = _hidden(entry["content"], names)
    library = library_of(raw)
    assert [library.token_to_id(_hidden(token, names)) for token in definition.tokens] == list(range(len(definition.tokens)))
    return library


def library_of(raw: Mapping[str, object]) -> Library:
    """The library's tokenizer of a tokenizer.json's content. Raises KitaeError for what the library does not take."""
    try:
        return Library.from_str(json.dumps(raw))
    except Exception as error:  # the library raises no narrower class
        raise KitaeError(f"{NAME} is refused by the tokenizers library: {error}", cure="bring the file again", where=NAME) from error


def _hidden(token: str, names: set[str]) -> str:
    return HIDDEN.format(token) if token in names else token
