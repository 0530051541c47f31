"""WordPiece of one word, greedily from the left (Devlin et al. 2019), and the cache that makes it cost nothing."""

from collections.abc import Sequence

PREFIX = "##"


class WordCache(dict[str, tuple[int, ...]]):
    """Word -> ids. `cache[word]` computes what it lacks and keeps at most `limit` words.

    A word longer than `max_chars`, or with any part that no piece covers, is one unknown token, as in BERT. The tokens in
    `reserved` match no text: "[SEP]" as a word of the text becomes pieces or unknown, never the separator.
    """

    def __init__(self, tokens: Sequence[str], *, reserved: frozenset[str], unk: int, max_chars: int, limit: int = 1_000_000) -> None:
        super().__init__()
        self._vocabulary = {token: number for number, token in enumerate(tokens) if token not in reserved}
        self._longest = max((len(token) for token in self._vocabulary), default=1)
        self._unknown, self._max_chars, self._limit = (unk,), max_chars, limit

    def __missing__(self, word: str) -> tuple[int, ...]:
        ids = self._split(word)
        if len(self) < self._limit:
            self[word] = ids
        return ids

    def _split(self, word: str) -> tuple[int, ...]:
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
