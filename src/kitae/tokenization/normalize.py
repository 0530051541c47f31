"""NFKC with a map back: for every character of the normalized text, which characters of the original it came from."""

import functools
import itertools
import unicodedata
from collections.abc import Sequence

# Starters that compose with the character before them (second halves of canonical compositions; Unicode Character Database).
JOINING = frozenset(
    chr(code)
    for code in (
        *range(0x1161, 0x1176),
        *range(0x11A8, 0x11C3),
        *(0x09BE, 0x09D7, 0x0B3E, 0x0B56, 0x0B57, 0x0BBE, 0x0BD7, 0x0CC2, 0x0CD5, 0x0CD6, 0x0D3E, 0x0D57, 0x0DCF, 0x0DDF),
        *(0x102E, 0x1B35, 0x11127, 0x1133E, 0x11357, 0x114B0, 0x114BA, 0x114BD, 0x115AF, 0x11930),
    )
)


@functools.lru_cache(maxsize=65536)
def _begins(char: str) -> bool:
    first = unicodedata.normalize("NFKD", char)[:1]
    return bool(first) and unicodedata.combining(first) == 0 and first not in JOINING


def nfkc_with_map(text: str) -> tuple[str, Sequence[int], Sequence[int]]:
    """NFKC of `text`, and per normalized character the start and end of its origin in `text` (characters, end exclusive).

    Characters that were composed or expanded together share one origin: each of the four that U+337F becomes comes from that one.
    """
    whole = unicodedata.normalize("NFKC", text)
    if whole == text:
        return text, range(len(text)), range(1, len(text) + 1)
    bounds = [i for i, char in enumerate(text) if i == 0 or _begins(char)]
    bounds.append(len(text))
    pieces = [unicodedata.normalize("NFKC", text[a:b]) for a, b in itertools.pairwise(bounds)]
    if "".join(pieces) != whole:  # a composition that the table lacks: coarse, but never wrong
        bounds, pieces = [0, len(text)], [whole]
    starts: list[int] = []
    ends: list[int] = []
    for piece, start, end in zip(pieces, bounds, bounds[1:], strict=False):
        starts.extend([start] * len(piece))
        ends.extend([end] * len(piece))
    return whole, starts, ends
