"""Texts as tokens together with the characters that each token covers.

Shapes: T tokens.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.encoded import Tokens
from kitae.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Located:
    """The tokens of one text without special ones, and where they stand."""

    tokens: Tokens
    places: NDArray[np.int32]
    """[T, 2]: first character of the text that a token covers, and one behind the last. Both are equal for a token of no character."""


def located(tokenizer: Tokenizer, text: str, *, markers: Sequence[str] = ()) -> Located:
    """Every token of a text; lines are separate sentences, as in `encoded.tokens_of`, which gives the same ids.

    Each of the `markers` in the text becomes one separator, a token of no character.
    """
    found, words = Tokens(), 0
    starts: list[int] = []
    ends: list[int] = []
    for first, part, marker in _parts(text, markers):
        if marker:
            found.ids.append(tokenizer.special.sep)
            found.words.append(words)
            words += 1
            starts.append(first + len(part))
            ends.append(first + len(part))
            if tokenizer.speller is not None:
                found.rows.append(tokenizer.speller.special("sep"))
            continue
        encoding = tokenizer.encode(part)
        if not len(encoding.ids):
            continue
        found.ids += encoding.ids.tolist()
        found.words += (encoding.word_ids + words).tolist()
        words += int(encoding.word_ids[-1]) + 1
        starts += (encoding.starts + first).tolist()
        ends += (encoding.ends + first).tolist()
        if tokenizer.speller is not None:
            found.rows += [tokenizer.speller[word] for word in tokenizer.surfaces(part)]
    assert not found.rows or len(found.rows) == len(found.ids), "every token is a word"
    return Located(tokens=found, places=np.asarray([starts, ends], np.int32).T.reshape(-1, 2))


def _parts(text: str, markers: Sequence[str]) -> Iterator[tuple[int, str, bool]]:
    """(first character, letters, is it a marker) of the lines of a text, cut at markers."""
    longest_first = sorted(markers, key=len, reverse=True)
    cut = re.compile("|".join(re.escape(marker) for marker in (*longest_first, "\n")))
    first = 0
    for match in cut.finditer(text):
        yield first, text[first : match.start()], False
        if match.group() != "\n":
            yield match.start(), match.group(), True
        first = match.end()
    yield first, text[first:], False
