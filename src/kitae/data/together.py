"""Documents to words, many documents in one call of the tokenizer: Juman++ takes sentences in batches, which short documents never fill."""

import itertools
from collections.abc import Iterable, Iterator

from kitae.data.shards import Word
from kitae.tokenization.tokenizer import Tokenizer

CHARACTERS = 1 << 18
"""Of documents that are tokenized together: some thousand sentences, some megabytes of words."""


def words_of_documents(tokenizer: Tokenizer, documents: Iterable[tuple[int, str]]) -> Iterator[tuple[int, list[list[Word]]]]:
    """Per document, given as (source number, text with one sentence a line), its number and per sentence its words. The order stays."""
    gathered: list[tuple[int, list[str]]] = []
    size = 0
    for number, text in documents:
        gathered.append((number, text.split("\n")))
        size += len(text)
        if size >= CHARACTERS:
            yield from _words(tokenizer, gathered)
            gathered, size = [], 0
    yield from _words(tokenizer, gathered)


def _words(tokenizer: Tokenizer, documents: list[tuple[int, list[str]]]) -> Iterator[tuple[int, list[list[Word]]]]:
    words = iter(tokenizer.words_of_each([sentence for _, sentences in documents for sentence in sentences]))
    for number, sentences in documents:
        yield number, list(itertools.islice(words, len(sentences)))
