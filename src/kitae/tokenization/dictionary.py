"""MeCab dictionaries: by name or folder, with a fingerprint, because dictionaries of the same name differ."""

import functools
import hashlib
import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

import fugashi
import ipadic
import unidic_lite

from kitae.core.artifact import sha256_of
from kitae.core.errors import KitaeError

NAMES = ("ipadic", "unidic-lite", "unidic", "jumandic")
USUAL = "ipadic"
JUMANDIC = (  # Debian's mecab-jumandic-utf8, and MeCab's own places
    "/var/lib/mecab/dic/juman-utf8",
    "/usr/share/mecab/dic/jumandic",
    "/usr/lib/mecab/dic/jumandic",
    "/usr/local/lib/mecab/dic/jumandic",
    "/opt/homebrew/lib/mecab/dic/jumandic",
)
NEEDED = ("sys.dic", "unk.dic", "matrix.bin", "char.bin")
VARIABLE = "KITAE_MECAB_DICTIONARY"


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """A compiled MeCab dictionary that was found on this machine."""

    name: str
    """One of NAMES, or the last part of the folder's path."""
    path: Path
    """Its folder, absolute."""
    named: bool
    """Whether it is found by its name."""

    @property
    def packaged(self) -> bool:
        """Whether it is a Python package that BertJapaneseTokenizer finds by name."""
        return self.named and self.name != "jumandic"

    @property
    def options(self) -> str:
        """MeCab's options that choose this dictionary and no settings of the user."""
        settings = self.path / "mecabrc"
        return f'-d "{self.path}" -r "{settings if settings.is_file() else os.devnull}"'

    def fingerprint(self, flags: str = "") -> str:
        """sha256 over the files that decide the segmentation, user dictionaries among them, and MeCab's further flags.

        Raises KitaeError when MeCab refuses the flags.
        """
        digest = hashlib.sha256()
        for name in (*NEEDED, "dicrc"):
            file = self.path / name
            digest.update(f"{name} {file_digest(file) if file.is_file() else '-'}\n".encode())
        digest.update(f"flags {flags}".encode())
        for file in self._user_dictionaries(flags):
            digest.update(f"\nuser dictionary {file_digest(file)}".encode())
        return digest.hexdigest()

    def tagger(self, flags: str = "") -> fugashi.GenericTagger:
        """MeCab with this dictionary and further flags; it writes words with blanks between them. Raises KitaeError if it refuses."""
        try:
            return fugashi.GenericTagger(f"{self.options} -Owakati {flags}")
        except RuntimeError as error:
            raise KitaeError(
                f"MeCab refuses the dictionary {self.path} with the flags {flags!r}", cure="correct the flags or the dictionary"
            ) from error

    def _user_dictionaries(self, flags: str) -> list[Path]:
        """The user dictionaries that MeCab takes besides: of the flags, of the dictionary's dicrc or mecabrc."""
        system, *users = (Path(str(found["filename"])) for found in self.tagger(flags).dictionary_info)
        if not system.samefile(self.path / "sys.dic"):
            raise KitaeError(f"the flags {flags!r} name another dictionary, {system.parent}", cure="name it as `dictionary`")
        return users


def file_digest(path: Path) -> str:
    """sha256 of a file, computed once per process as long as it does not change."""
    return _sha256(str(path), path.stat().st_mtime_ns)


@functools.cache
def _sha256(path: str, changed: int) -> str:
    return sha256_of(Path(path))


def find(dictionary: str) -> Dictionary:
    """The dictionary of a name (NAMES; "" is "ipadic") or of a folder of compiled files.

    Raises KitaeError when it is absent or is not a compiled MeCab dictionary.
    """
    name = (dictionary or USUAL).replace("_", "-")
    named = name in NAMES
    path = _named(name) if named else Path(dictionary).expanduser().absolute()
    if path is None or not path.is_dir():
        raise KitaeError(
            f'the MeCab dictionary "{dictionary}" is not on this machine',
            cure=_install(name) or f"name one of {', '.join(NAMES)}, or the folder of a compiled dictionary (also through {VARIABLE})",
        )
    missing = [file for file in NEEDED if not (path / file).is_file()]
    if missing:
        raise KitaeError(
            f"{path} is not a compiled MeCab dictionary: it lacks {', '.join(missing)}",
            cure=_install(name) or "give the folder that mecab-dict-index wrote",
        )
    return Dictionary(name=name if named else path.name, path=path, named=named)


def _named(name: str) -> Path | None:
    """Where the dictionary of a name lies, or None where it is not."""
    if name == "ipadic":
        return Path(str(ipadic.DICDIR))
    if name == "unidic-lite":
        return Path(str(unidic_lite.DICDIR))
    if name == "unidic":
        found = importlib.util.find_spec("unidic") is not None
        return Path(str(importlib.import_module("unidic").DICDIR)) if found else None
    return next((path for path in map(Path, JUMANDIC) if path.is_dir()), None) if name == "jumandic" else None


def _install(name: str) -> str:
    """How a dictionary that is no dependency comes onto a machine."""
    if name == "unidic":
        return "pip install unidic && python -m unidic download"
    return "apt-get install mecab-jumandic-utf8, or give the folder of a compiled JumanDIC" if name == "jumandic" else ""


def find_again(name: str, path: str) -> Dictionary:
    """The dictionary of a saved tokenizer: by its name or where it was, else where the environment says."""
    place = Path(path) if path else _named(name)
    return find((path or name) if place is not None and place.is_dir() else os.environ.get(VARIABLE, path or name))
