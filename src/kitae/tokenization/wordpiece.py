"""Pieces of one word, and the cache that makes them cost nothing: WordPiece (Devlin et al. 2019), characters, SentencePiece."""

import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence

from kitae.tokenization.sentencepiece import Encoder

PREFIX = "##"
Span = tuple[int, int]


class Cache(dict[str, tuple[int, ...]], ABC):
    """Word -> ids. `cache[word]` computes what it lacks and keeps at most `limit` words."""

    def __init__(self, *, limit: int = 1_000_000) -> None:
        super().__init__()
        self._limit = limit

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self.split(word)
        if len(self) < self._limit:
            self[word] = ids
        return ids

    @abstractmethod
    def split(self, word: str) -> tuple[int, ...]:
        """The ids of a word."""

    @abstractmethod
    def spans(self, word: str) -> list[Span]:
        """Where in the word each of its ids stands."""


class WordCache(Cache):
    """WordPiece, greedily from the left.

    A word longer than `max_chars`, or with any part that no piece covers, is one unknown token, as in BERT. The tokens in
    `reserved` match no text: "[SEP]" as a word of the text becomes pieces or unknown, never the separator.
    """

    def __init__(self, tokens: Sequence[str], *, reserved: frozenset[str], unk: int, max_chars: int, limit: int = 1_000_000) -> None:
        super().__init__(limit=limit)
        self._vocabulary = {token: number for number, token in enumerate(tokens) if token not in reserved}
        self._longest = max((len(token) for token in self._vocabulary), default=1)
        self._lengths = [len(token) for token in tokens]
        self._unknown, self._max_chars = (unk,), max_chars

    def split(self, word: str) -> tuple[int, ...]:
        """The pieces, or one unknown token."""
        if len(word) > self._max_chars:
            return self._unknown
        ids: list[int] = []
        start, prefix, find = 0, "", self._vocabulary.get
        while start < len(word):
            for end in range(min(len(word), start + self._longest), start, -1):
                found = find(prefix + word[start:end])
                if found is not None:
                    break
            else:
                return self._unknown
            ids.append(found)
            start, prefix = end, PREFIX
        return tuple(ids)

    def spans(self, word: str) -> list[Span]:
        """Pieces follow each other without a gap."""
        ids = self[word]
        if ids == self._unknown:
            return [(0, len(word))]
        out: list[Span] = []
        for number in ids:
            start = out[-1][1] if out else 0
            out.append((start, start + self._lengths[number] - (len(PREFIX) if out else 0)))
        return out


class CharacterCache(Cache):
    """Every character a token, as in BertJapaneseTokenizer's "character": normalized to NFKC, unknown ones one by one."""

    def __init__(self, tokens: Sequence[str], *, reserved: frozenset[str], unk: int, nfkc: bool) -> None:
        super().__init__()
        self._find = {token: number for number, token in enumerate(tokens) if token not in reserved}.get
        self._unk, self._nfkc = unk, nfkc

    def split(self, word: str) -> tuple[int, ...]:
        """One id per character."""
        word = unicodedata.normalize("NFKC", word) if self._nfkc else word
        return tuple(self._find(char, self._unk) for char in word)

    def spans(self, word: str) -> list[Span]:
        """One place per character; the whole word where normalizing changed its length."""
        size = len(self[word])
        return [(i, i + 1) for i in range(size)] if size == len(word) else [(0, len(word))] * size


class SentencePieceCache(Cache):
    """SentencePiece of each word by itself, so that every word begins with a blank, as in BertJapaneseTokenizer's "sentencepiece".

    Text whose words are joined by blanks gives the same ids in one call, because no piece has a blank inside: the way of
    nlp-waseda's and ku-nlp's models.
    """

    def __init__(self, encoder: Encoder, *, limit: int = 1_000_000) -> None:
        super().__init__(limit=limit)
        self._encoder = encoder
        self._places: dict[str, list[Span]] = {}  # three calls of the library each

    def split(self, word: str) -> tuple[int, ...]:
        """The pieces; none for a word that the model's rules make nothing of."""
        return tuple(self._encoder.ids([word])[0])

    def spans(self, word: str) -> list[Span]:
        """The places that the library gives, kept like the ids."""
        places = self._places.get(word)
        if places is None:
            places = self._encoder.spans(word)[1]
            if len(self._places) < self._limit:
                self._places[word] = places
        return places
