"""Documents to tokens, many in one call of the tokenizer: Juman++ takes sentences in batches, which short documents never fill."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from kitae.tokenization.encoding import Flat
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.wordpiece import Cache

CHARACTERS = 1 << 18
"""Of documents that are tokenized together: some thousand sentences, some megabytes of tokens."""


@dataclass(frozen=True, kw_only=True)
class Documents:
    """Some documents' tokens, and of each the number of its sentences and of its source."""

    tokens: Flat
    sentences: list[int]
    sources: list[int]


def tokens_of_documents(tokenizer: Tokenizer, documents: Iterable[tuple[int, str]], numbers: Cache | None = None) -> Iterator[Documents]:
    """Documents, given as (source number, text with one sentence a line), some at a time. The order stays. `numbers`: other ids."""
    gathered: list[tuple[int, list[str]]] = []
    size = 0
    for number, text in documents:
        gathered.append((number, text.split("\n")))
        size += len(text)
        if size >= CHARACTERS:
            yield _tokens(tokenizer, gathered, numbers)
            gathered, size = [], 0
    if gathered:
        yield _tokens(tokenizer, gathered, numbers)


def _tokens(tokenizer: Tokenizer, documents: list[tuple[int, list[str]]], numbers: Cache | None) -> Documents:
    tokens = tokenizer.flat([sentence for _, sentences in documents for sentence in sentences], numbers)
    return Documents(tokens=tokens, sentences=[len(sentences) for _, sentences in documents], sources=[number for number, _ in documents])
