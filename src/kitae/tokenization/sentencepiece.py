"""SentencePiece models (Kudo & Richardson 2018): what their file says, encoding by the library itself, offsets into the text.

The file is read by its wire format (protocol buffers; field numbers of sentencepiece_model.proto), so that no generated code is
needed, of which one process can hold one version only.
"""

import re
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from kitae.core.errors import KitaeError
from kitae.tokenization.definition import Around

SPACE = "\u2581"
"""What SentencePiece writes for a blank."""
NORMAL, UNKNOWN, CONTROL, USER = 1, 2, 3, 4
UNIGRAM, BPE = 1, 2
FAIRSEQ = ("<s>", "<pad>", "</s>", "<unk>")


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What a model file says."""

    pieces: tuple[tuple[str, float, int], ...]
    """Id -> text, score, kind (NORMAL, UNKNOWN, CONTROL, USER, ...)."""
    kind: int
    """UNIGRAM or BPE."""
    charsmap: bytes
    """The compiled normalization rules; empty for none."""
    dummy_prefix: bool
    """Whether a blank is put before every text."""
    fold_blanks: bool
    """Whether blanks at the ends go and several become one."""
    split_blanks: bool
    """Whether no piece has a blank inside."""
    plain: bool
    """Whether nothing else is asked for: no blanks as suffixes, no fall-back to bytes, blanks escaped."""


def read(model: bytes, where: Path) -> Contents:
    """The contents of a model file. Raises KitaeError for a file that is none, and for models other than unigram and BPE."""
    try:
        fields = list(_fields(model))
        pieces = tuple(_piece(value) for number, value in fields if number == 1 and isinstance(value, bytes))
        trainer = dict(_fields(_message(fields, 2)))
        normalizer = dict(_fields(_message(fields, 3)))
    except (IndexError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise _broken(where) from error
    kind = trainer.get(3, UNIGRAM)
    if not pieces:
        raise _broken(where)
    if kind not in (UNIGRAM, BPE):
        raise KitaeError("the SentencePiece model is neither unigram nor BPE", cure="take one of these", where=str(where))
    charsmap = normalizer.get(2, b"")
    return Contents(
        pieces=pieces,
        kind=int(kind),
        charsmap=charsmap if isinstance(charsmap, bytes) else b"",
        dummy_prefix=bool(normalizer.get(3, 1)),
        fold_blanks=bool(normalizer.get(4, 1)),
        split_blanks=bool(trainer.get(22, 1)),
        plain=not trainer.get(24, 0) and not trainer.get(35, 0) and bool(normalizer.get(5, 1)),
    )


def _broken(where: Path) -> KitaeError:
    return KitaeError(f"{where.name} is not a SentencePiece model", cure="bring the file again", where=str(where))


def _message(fields: Sequence[tuple[int, int | bytes]], wanted: int) -> bytes:
    return next((value for number, value in reversed(fields) if number == wanted and isinstance(value, bytes)), b"")


def _piece(message: bytes) -> tuple[str, float, int]:
    text, score, kind = "", 0.0, NORMAL
    for number, value in _fields(message):
        if number == 1 and isinstance(value, bytes):
            text = value.decode()
        elif number == 2 and isinstance(value, bytes):
            (score,) = struct.unpack("<f", value)
        elif number == 3 and isinstance(value, int):
            kind = value
    return text, score, kind


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    return ((number, value) for number, value, _ in _placed(message))


def _placed(message: bytes) -> Iterator[tuple[int, int | bytes, int]]:
    """Field numbers with their values, numbers as int and all else as bytes, and where each ends."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        if key & 7 == 0:
            number, at = _varint(message, at)
            yield key >> 3, number, at
            continue
        if key & 7 == 2:
            size, at = _varint(message, at)
        else:
            size = {1: 8, 5: 4}.get(key & 7, len(message) + 1)
        if at + size > len(message):
            raise ValueError("the message ends early")
        at += size
        yield key >> 3, message[at - size : at], at


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at


def tidied(model: bytes, scratch: str) -> bytes:
    """The model with every score rounded to 1/256 and without the paths below `scratch` that its training wrote down.

    Rounded, sums of scores are exact in 32-bit and in 64-bit numbers alike. SentencePiece adds up in 32 bits and the `tokenizers`
    library in 64: in long lines the two choose differently between pieces of nearly equal scores (7 of 16,000 lines with a
    vocabulary of 3,500).
    """
    out = []
    path, at = scratch.encode(), 0
    for number, value, end in _placed(model):
        whole = model[at:end]
        if isinstance(value, bytes) and number in (1, 2):
            parts, inner_at = [], 0
            for inner, part, inner_end in _placed(value):
                if number == 1 and inner == 2 and isinstance(part, bytes):
                    (exact,) = struct.unpack("<f", part)
                    parts.append(value[inner_at : inner_end - 4] + struct.pack("<f", round(exact * 256) / 256))
                elif not (isinstance(part, bytes) and path in part):
                    parts.append(value[inner_at:inner_end])
                inner_at = inner_end
            inside = b"".join(parts)
            whole = _number(number << 3 | 2) + _number(len(inside)) + inside
        out.append(whole)
        at = end
    return b"".join(out)


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def load(model: bytes) -> sentencepiece.SentencePieceProcessor:
    """The library's encoder, on one thread: kitae runs one process per core."""
    return sentencepiece.SentencePieceProcessor(model_proto=model, num_threads=1)


def tokens_of(contents: Contents, around: Around) -> tuple[str, ...]:
    """Id -> token, in the order of a tokenizer's ids."""
    pieces = tuple(text for text, _, _ in contents.pieces)
    return (*FAIRSEQ, *pieces[3:], "<mask>") if around.fairseq else pieces


def prepared(text: str, around: Around) -> str:
    """The text as a public class hands it to its model."""
    if around.quotes:
        text = " ".join(text.split()).replace("``", '"').replace("''", '"')
    if around.strip_accents:
        text = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return text.lower() if around.lower_case else text


class Encoder:
    """Text to ids of one model, with what the public class does around it.

    Needs nothing but the model file. `ids` takes many texts at once, which is the fast way; `spans` adds where each id stands.
    """

    def __init__(self, model: bytes, contents: Contents, around: Around) -> None:
        self._processor = load(model)
        self._around = around
        commas = {number for number, (text, _, _) in enumerate(contents.pieces) if ends_in_digit_comma(text)}
        self._commas = commas if around.commas else set()
        self._table: list[int] | None = None
        if around.fairseq:
            self._table = [3, 0, 2, *range(4, len(contents.pieces) + 1)]  # <unk>, <s>, </s> of the model
        self._prepares = around != Around(fairseq=around.fairseq, commas=around.commas)

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Per text its ids."""
        if self._prepares:
            texts = [prepared(text, self._around) for text in texts]
        rows: list[list[int]] = self._processor.encode(texts, num_threads=1)
        if self._commas:
            rows = [self._without_commas(row) if not self._commas.isdisjoint(row) else row for row in rows]
        table = self._table
        return rows if table is None else [[table[number] for number in row] for row in rows]

    def _without_commas(self, row: list[int]) -> list[int]:
        """Each piece that ends in a digit and a comma: its front encoded by itself, then the comma."""
        out: list[int] = []
        for number in row:
            if number in self._commas:
                out.extend(map(self._processor.piece_to_id, self._without_comma(self._processor.id_to_piece(number))))
            else:
                out.append(number)
        return out

    def _without_comma(self, piece: str) -> list[str]:
        front = self._processor.encode(piece[:-1].replace(SPACE, ""), return_type=str)
        if not piece.startswith(SPACE) and front[0].startswith(SPACE):
            front = front[1:] if len(front[0]) == 1 else [front[0][1:], *front[1:]]
        return [*front, piece[-1]]

    def spans(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids of a text and their places in it: first character, and one behind the last.

        Pieces that one character was expanded to share its place; a blank that stands alone has the empty place behind it.
        """
        (ids,) = self.ids([text])
        given, origins = _with_origins(text, self._around)
        normal, came = self._processor.normalize(given, with_offsets=True)
        found: list[str] = self._processor.encode(given, return_type=str)
        if "".join(found) != normal:  # a model that falls back to bytes
            return ids, [(0, len(text))] * len(ids)

        def place(first: int, behind: int) -> tuple[int, int]:
            """Where these characters of the normal text came from."""
            start = end = came[first]
            if first < behind:
                last = came[behind - 1]
                while came[behind] <= last:  # the rest of what one character was expanded to
                    behind += 1
                end = came[behind]
            begin = origins[start] if start < len(origins) else len(text)
            return begin, origins[end - 1] + 1 if end > start else begin

        places: list[tuple[int, int]] = []
        at = 0
        for piece in found:
            parts = self._without_comma(piece) if self._processor.piece_to_id(piece) in self._commas else [piece]
            whole = "".join(parts) != piece  # blanks went from its inside: its parts share its place
            for part in parts:
                shown = piece if whole else part
                places.append(place(at + len(shown) - len(shown.lstrip(SPACE)), at + len(shown)))
                at += 0 if whole else len(part)
            at += len(piece) if whole else 0
        return ids, places


def _with_origins(text: str, around: Around) -> tuple[str, Sequence[int]]:
    """`prepared` text, and for each of its characters the one that it came from."""
    given = prepared(text, around)
    if given == text:
        return text, range(len(text))
    pairs = list(zip(text, range(len(text)), strict=True))
    if around.quotes:
        words = [[(match[0][i], match.start() + i) for i in range(len(match[0]))] for match in re.finditer(r"\S+", text)]
        pairs = [pair for word in words for pair in ((" ", word[0][1]), *_straight(word))][1:]
    if around.strip_accents:
        pairs = [(part, i) for char, i in pairs for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part)]
    if around.lower_case:
        pairs = [(part, i) for char, i in pairs for part in char.lower()]
    assert len(pairs) == len(given), "every step of `prepared` is told here character by character"
    return given, [i for _, i in pairs]


def _straight(word: list[tuple[str, int]]) -> list[tuple[str, int]]:
    """A word's characters with `` and '' as one straight quote."""
    for pair in ("`", "'"):
        out: list[tuple[str, int]] = []
        i = 0
        while i < len(word):
            double = i + 1 < len(word) and word[i][0] == word[i + 1][0] == pair
            out.append(('"', word[i][1]) if double else word[i])
            i += 2 if double else 1
        word = out
    return word


def ends_in_digit_comma(piece: str) -> bool:
    """Whether ALBERT's rule takes the comma off."""
    return len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit()
