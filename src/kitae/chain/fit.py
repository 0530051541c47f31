"""The fit report of a tokenizer on one or two text files, as rows of tables: `kitae inspect TOKENIZER FILE [FILE]`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitae.text.streams import open_text
from kitae.tokenization.fit import measure
from kitae.tokenization.taken import home
from kitae.tokenization.tokenizer import Tokenizer

WORST = 50
LOST = 10
OF_WORDS = ("words", "tokens per word", "words that are one token", "words spelled out in characters")
"""Measures that mean nothing for text without blanks under a tokenizer without a segmenter."""
MEASURES = (
    ("characters (without blanks)", "{0.characters:,}"),
    ("words", "{0.words:,}"),
    ("tokens", "{0.tokens:,}"),
    ("tokens per character", "{0.tokens_per_character:.4f}"),
    ("tokens per word", "{0.tokens_per_word:.4f}"),
    ("words that are one token", "{0.whole_share:.2%}"),
    ("words spelled out in characters", "{0.spelled_share:.2%}"),
    ("tokens of one character", "{0.single_share:.2%}"),
    ("unknown tokens", "{0.unknown_share:.4%}"),
)


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the report."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def report(place: Path, files: Sequence[Path]) -> list[Table]:
    """The measures side by side, the words of each file that cost most, and what is unknown.

    Raises KitaeError when the tokenizer or a file cannot be read.
    """
    tokenizer = Tokenizer.load(home(place))
    fits = [measure(tokenizer, _lines(file)) for file in files]
    names = tuple(file.name for file in files)
    tables = [
        Table(
            title=f"{place}: {tokenizer.vocab_size:,} tokens, words by {tokenizer.definition.spec.kind}",
            columns=("", *names),
            rows=tuple(
                (name, *(form.format(fit) if fit.has_words or name not in OF_WORDS else "no segmenter" for fit in fits))
                for name, form in MEASURES
            ),
        )
    ]
    split = [[(tokenizer.decode(word), f"{count:,}", _pieces(tokenizer, word)) for word, count in fit.worst(WORST)] for fit in fits]
    if any(fit.has_words for fit in fits):
        tables.append(_beside("words split worst (times * further tokens)", ("word", "times", "tokens"), names, split))
    lost = [[(repr(text)[1:-1], f"{count:,}") for text, count in fit.lost(LOST)] for fit in fits]
    if any(lost):
        tables.append(_beside("unknown most often", ("text", "times"), names, lost))
    return tables


def _beside(title: str, heads: tuple[str, ...], names: Sequence[str], parts: Sequence[Sequence[tuple[str, ...]]]) -> Table:
    """Rows of several files next to each other; the first column of each names the file where there are two."""
    empty = ("",) * len(heads)
    rows = [
        tuple(cell for part in parts for cell in (part[number] if number < len(part) else empty)) for number in range(max(map(len, parts)))
    ]
    columns = tuple(
        f"{names[which]}: {head}" if number == 0 and len(parts) > 1 else head
        for which in range(len(parts))
        for number, head in enumerate(heads)
    )
    return Table(title=title, columns=columns, rows=tuple(rows))


def _pieces(tokenizer: Tokenizer, word: Sequence[int]) -> str:
    return " ".join(tokenizer.tokens[number] for number in word)


def _lines(file: Path) -> Iterator[str]:
    for line in open_text(file):
        if not line.isspace():
            yield line.rstrip("\n")
