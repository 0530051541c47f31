"""MeCab dictionaries: by name or folder, with a fingerprint, because dictionaries of the same name differ."""

import functools
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import ipadic
import unidic_lite

from kitae.core.artifact import sha256_of
from kitae.core.errors import KitaeError

NAMES = ("ipadic", "unidic-lite")
NEEDED = ("sys.dic", "unk.dic", "matrix.bin", "char.bin")
VARIABLE = "KITAE_MECAB_DICTIONARY"


@dataclass(frozen=True, kw_only=True)
class Dictionary:
    """A compiled MeCab dictionary that was found on this machine."""

    name: str
    """ "ipadic", "unidic-lite", or the last part of the folder's path."""
    path: Path
    """Its folder."""
    packaged: bool
    """Whether it is a Python package that BertJapaneseTokenizer finds by name."""

    @property
    def options(self) -> str:
        """MeCab's options that choose this dictionary and no settings of the user."""
        settings = self.path / "mecabrc"
        return f'-d "{self.path}" -r "{settings if settings.is_file() else os.devnull}"'

    def fingerprint(self, flags: str = "") -> str:
        """sha256 over the files that decide the segmentation and MeCab's further flags; computed once per process."""
        digest = hashlib.sha256()
        for name in (*NEEDED, "dicrc"):
            file = self.path / name
            digest.update(f"{name} {_sha256(str(file), file.stat().st_mtime_ns) if file.is_file() else '-'}\n".encode())
        digest.update(f"flags {flags}".encode())
        return digest.hexdigest()


@functools.cache
def _sha256(path: str, changed: int) -> str:
    return sha256_of(Path(path))


def find(dictionary: str) -> Dictionary:
    """The dictionary of a name ("ipadic", "unidic-lite") or of a folder of compiled files.

    Raises KitaeError when the folder is absent or is not a compiled MeCab dictionary.
    """
    name = dictionary.replace("_", "-")
    if name in NAMES:
        path = Path(str(ipadic.DICDIR if name == "ipadic" else unidic_lite.DICDIR))
    else:
        path = Path(dictionary).expanduser()
        name = path.name
        if not path.is_dir():
            raise KitaeError(
                f'the MeCab dictionary "{dictionary}" is not on this machine',
                cure=f"name one of {', '.join(NAMES)}, or the folder of a compiled dictionary (also through {VARIABLE})",
            )
    missing = [file for file in NEEDED if not (path / file).is_file()]
    if missing:
        raise KitaeError(
            f"{path} is not a compiled MeCab dictionary: it lacks {', '.join(missing)}",
            cure="give the folder that mecab-dict-index wrote",
        )
    return Dictionary(name=name, path=path, packaged=name in NAMES and dictionary.replace("_", "-") in NAMES)


def find_again(name: str, path: str) -> Dictionary:
    """The dictionary of a saved tokenizer: by name when packaged, else where it was, else where the environment says."""
    if not path:
        return find(name)
    return find(path if Path(path).is_dir() else os.environ.get(VARIABLE, path))


def check(dictionary: Dictionary, *, flags: str, expected: str, where: str) -> None:
    """Refuse another dictionary than the one that a tokenizer was made with. Raises KitaeError with both fingerprints."""
    found = dictionary.fingerprint(flags)
    if found != expected:
        raise KitaeError(
            f"the MeCab dictionary {dictionary.name} at {dictionary.path} is not the one this tokenizer was made with "
            f"(fingerprint {found[:16]}, expected {expected[:16]})",
            cure="install the same version of the dictionary (the manifest names the packages), or train the tokenizer again",
            where=where,
        )
