"""What is done to a text before a segmenter gets it: half characters are replaced, and a longer one than it takes is cut."""

import re
from collections.abc import Iterator

CUTS = ("\n", " \t\u3000", "。！？!?", "、，,")
"""Where a longer text is cut: behind the last of the first kind that its second half has."""
SURROGATES = re.compile(r"[\ud800-\udfff]")


def encodable(text: str) -> str:
    """The text with U+FFFD for every unpaired surrogate, which UTF-8 cannot hold."""
    return text if text.isascii() else SURROGATES.sub("\N{REPLACEMENT CHARACTER}", text)


def parts(text: str, *, characters: int, size: int) -> Iterator[str]:
    """Parts of at most so many characters and of at most `size` bytes of UTF-8; joined, they are the text.

    Raises UnicodeEncodeError for an unpaired surrogate where bytes have to be counted.
    """
    start = 0
    while start < len(text):
        part = text[start : start + characters]
        if len(part) * 4 > size:
            part = part.encode()[:size].decode(errors="ignore")
        if start + len(part) < len(text):
            ends = (max(part.rfind(char, len(part) // 2) for char in kind) + 1 for kind in CUTS)
            part = part[: next(filter(None, ends), len(part))]
        yield part
        start += len(part)
