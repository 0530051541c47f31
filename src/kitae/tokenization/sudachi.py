"""Words of Sudachi: its dictionaries by name or file, with a fingerprint, and its segmenter. An extra: `pip install kitae[sudachi]`."""

import hashlib
import importlib
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kitae.core.errors import KitaeError
from kitae.tokenization.cuts import parts
from kitae.tokenization.dictionary import file_digest

SplitMode = Literal["A", "B", "C"]
SPLIT_MODES: tuple[SplitMode, ...] = ("A", "B", "C")
NAMES = ("small", "core", "full")
USUAL = "core"
VARIABLE = "KITAE_SUDACHI_DICTIONARY"
LONGEST_BYTES = 49_149
"""Sudachi refuses a longer text: its offsets have 16 bits, and its rewriting may let a text grow by a third."""


@dataclass(frozen=True, kw_only=True)
class SudachiDictionary:
    """A system dictionary of Sudachi that was found on this machine."""

    name: str
    """One of NAMES, or the file's name."""
    path: Path
    """The file."""
    named: bool
    """Whether it is one of the packages that Sudachi finds by name."""

    @property
    def fingerprint(self) -> str:
        """sha256 over the dictionary and over the rules that stand beside it in sudachipy; computed once per process."""
        rules = sorted((_package("sudachipy") / "resources").glob("*.*"))
        digest = hashlib.sha256()
        for name, file in (("system.dic", self.path), *((file.name, file) for file in rules)):
            digest.update(f"{name} {file_digest(file)}\n".encode())
        return digest.hexdigest()


def find(dictionary: str) -> SudachiDictionary:
    """The dictionary of a name (NAMES; "" is "core") or of a compiled file. Raises KitaeError when it is absent."""
    name = dictionary or USUAL
    if importlib.util.find_spec("sudachipy") is None:
        raise KitaeError("sudachipy is not installed", cure="pip install 'kitae[sudachi]'")
    if name in NAMES:
        if importlib.util.find_spec(f"sudachidict_{name}") is None:
            raise KitaeError(f'the Sudachi dictionary "{name}" is not installed', cure=f"pip install sudachidict-{name}")
        return SudachiDictionary(name=name, path=_package(f"sudachidict_{name}") / "resources" / "system.dic", named=True)
    path = Path(dictionary).expanduser().absolute()
    if not path.is_file():
        raise KitaeError(
            f'the Sudachi dictionary "{dictionary}" is not on this machine',
            cure=f"name one of {', '.join(NAMES)}, or a compiled .dic file (also through {VARIABLE})",
        )
    return SudachiDictionary(name=path.name, path=path, named=False)


def _package(name: str) -> Path:
    found = importlib.util.find_spec(name)
    assert found is not None, "asked for before"
    assert found.origin is not None, "a package has a file"
    return Path(found.origin).parent


def find_again(name: str, path: str) -> SudachiDictionary:
    """The dictionary of a saved tokenizer: by its name or where it was, else where the environment says."""
    return find(path if Path(path).is_file() else os.environ.get(VARIABLE, path)) if path else find(name)


class SudachiSegmenter:
    """Words of Sudachi, as they stand in the text: short (A), middle (B) or long units (C).

    Needs the extra `sudachi`. Next to MeCab it has a dictionary that is kept up to date and three lengths of words, at less than
    half of the speed. The default A gives the smallest vocabulary and is BertJapaneseTokenizer's. One tokenizer per process; the
    work is done without the interpreter's lock. A longer text than Sudachi takes is cut. `whole` leaves the blanks inside of words
    ("World Wide Web").
    Example: `SudachiSegmenter(find("core"), "C").segment("...")`. Takaoka et al. 2018, "Sudachi: a Japanese Tokenizer for Business".
    """

    failures = 0

    def __init__(self, dictionary: SudachiDictionary, split_mode: SplitMode = "A", *, whole: bool = False) -> None:
        self._whole = whole
        library = importlib.import_module("sudachipy")
        self._error: type[Exception] = importlib.import_module("sudachipy.errors").SudachiError
        try:
            self._tokenize = library.Dictionary(dict=str(dictionary.path)).tokenizer(mode=split_mode).tokenize
        except self._error as error:
            raise KitaeError(
                f"Sudachi refuses the dictionary {dictionary.path}: {error}", cure="give a dictionary that fits the installed sudachipy"
            ) from error

    def segment(self, text: str) -> list[str]:
        """The words of one sentence. A NUL character counts as white space, as for the other segmenters."""
        text = text.replace("\0", " ") if "\0" in text else text
        return [word for part in parts(text, characters=LONGEST_BYTES, size=LONGEST_BYTES) for word in self._words(part)]

    def segment_all(self, texts: Sequence[str]) -> list[list[str]]:
        """Text by text."""
        return [self.segment(text) for text in texts]

    def _words(self, part: str) -> list[str]:
        try:
            found = self._tokenize(part)
        except self._error:  # its rewriting made the text longer than it takes
            middle = len(part) // 2
            if not middle:
                raise
            return self._words(part[:middle]) + self._words(part[middle:])
        words = [word.surface() for word in found]
        return [word.strip() for word in words if not word.isspace()] if self._whole else " ".join(words).split()
