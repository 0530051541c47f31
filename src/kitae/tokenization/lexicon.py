"""The words that a compiled MeCab dictionary knows, looked up in its double array (sys.dic), without reading its text sources."""

import mmap
import struct
from pathlib import Path

from kitae.core.errors import KitaeError

HEADER = struct.Struct("<10I32s")
"""magic, version, type, entries, left and right sizes, bytes of the double array, of tokens, of features, nothing, charset."""
MAGIC = 0xEF718F77
"""The first number is the file's size, exclusive or this."""


WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
"""ASCII to its full-width forms, in which Japanese dictionaries list it."""


class Lexicon:
    """`word in lexicon`: whether the dictionary lists the word, as it stands or with ASCII in full width.

    Needs the compiled dictionary's folder.
    """

    def __init__(self, folder: Path) -> None:
        file = folder / "sys.dic"
        with file.open("rb") as opened:
            head = opened.read(HEADER.size)
        fields = HEADER.unpack(head) if len(head) == HEADER.size else (0,) * 11
        charset = fields[10].rstrip(b"\0").decode("ascii", "replace") if isinstance(fields[10], bytes) else ""
        if fields[0] ^ MAGIC != file.stat().st_size:
            raise KitaeError("sys.dic is not a dictionary of MeCab", cure="give the folder that mecab-dict-index wrote", where=str(file))
        self._charset = charset
        with file.open("rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._units = memoryview(self._map)[HEADER.size : HEADER.size + fields[6] // 8 * 8].cast("i")  # base, check, base, check, ...

    def __contains__(self, word: object) -> bool:
        wide = str(word).translate(WIDE)
        return self._lists(str(word)) or (wide != word and self._lists(wide))

    def _lists(self, word: str) -> bool:
        units = self._units
        at, size = units[0], len(units) // 2
        for byte in word.encode(self._charset, "replace"):
            place = at + byte + 1
            if not 0 <= place < size or units[2 * place + 1] != at:
                return False
            at = units[2 * place]
        return 0 <= at < size and units[2 * at + 1] == at and units[2 * at] < 0
