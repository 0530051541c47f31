"""`kitae fetch`: a public corpus by name into a folder, whole and checked, or its beginning for a try."""

import bz2
import gzip
import json
import logging
import lzma
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from kitae.core.download import PATIENCE, Checksum, Patience, Remote, beginning, download, text_of
from kitae.core.errors import KitaeError
from kitae.text.corpora import Corpus, Wanted, find

log = logging.getLogger(__name__)
SAMPLE_BYTES = 4 << 20  # packed
MOST_SAMPLE_BYTES = 1 << 28  # unpacked
ENDINGS = (".bz2", ".gz", ".xz")


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What is there now."""

    path: Path
    checked: str
    """What proves it whole, in words."""
    source: str
    """The line that reads it in a recipe."""


def fetch(name: str, folder: Path, *, sample: bool = False, mirrors: Sequence[str] = (), patience: Patience = PATIENCE) -> Fetched:
    """Bring a corpus into a folder; one that is there already is only checked.

    `mirrors` are asked instead of the public servers, for HOST/PATH of the publisher's address, as `wget --mirror` lays files out.
    Raises KitaeError for an unknown name, and as `core.download.download` does.
    """
    wanted = find(name)
    corpus = wanted.corpus
    if sample and corpus.cut is None:
        raise KitaeError(f'of "{name}" no sample can be taken: it is one archive', cure="fetch all of it")
    if wanted.places["date"] == "latest":
        wanted = _dated(wanted, mirrors, patience)
    cure = f"see {wanted.filled(corpus.dates)} for the dates that there are" if corpus.dates else ""
    remote = Remote(name=wanted.places["file"], urls=_addresses(wanted, corpus.urls, mirrors))
    if sample:
        path, checked = _sample(remote, corpus, folder, cure, patience), "a sample: whole documents from its beginning"
    else:
        checksum = _published(wanted, mirrors, cure, patience)
        path = download(replace(remote, checksum=checksum), folder, cure=cure, patience=patience)
        size = f"{path.stat().st_size / 1e6:,.1f} MB"
        checked = f"{size}, {checksum.algorithm} as published" if checksum else f"{size}; no checksum is published"
    return Fetched(path=path, checked=checked, source=_recipe_line(path, corpus))


def _addresses(wanted: Wanted, templates: Sequence[str], mirrors: Sequence[str]) -> tuple[str, ...]:
    """The addresses in the order in which they are tried."""
    public = tuple(wanted.filled(template) for template in templates)
    parts = urlsplit(public[0])
    return tuple(f"{mirror.rstrip('/')}/{parts.netloc}{parts.path}" for mirror in mirrors) or public


def _beside(wanted: Wanted, file: str) -> tuple[str, ...]:
    """The address templates of another file that lies beside the corpus."""
    return tuple(template.replace("{file}", file) for template in wanted.corpus.urls)


def _dated(wanted: Wanted, mirrors: Sequence[str], patience: Patience) -> Wanted:
    """ "latest" with its date, which the list of checksums tells. Only the names of a fixed form in it are believed."""
    corpus = wanted.corpus
    if corpus.checksums is None:
        raise KitaeError(f'"{wanted.name}" needs a date', cure=f"choose one of {wanted.filled(corpus.dates)}")
    listed = wanted.filled(corpus.checksums)
    text = text_of(_addresses(wanted, _beside(wanted, listed), mirrors), listed, patience=patience)
    form = re.escape(wanted.places["file"]).replace("latest", r"(\d{8})")
    dates = re.findall(rf"^[0-9a-f]+ [ *]{form}$", text, re.MULTILINE)
    if not dates:
        what = f"the newest dump has no {wanted.places['file'].replace('latest', 'DATE')} yet"
        raise KitaeError(what, cure=f"choose a date of {wanted.filled(corpus.dates)}")
    log.info("%s is of %s", wanted.name, dates[-1])
    return find(wanted.name.replace("latest", dates[-1]))


def _published(wanted: Wanted, mirrors: Sequence[str], cure: str, patience: Patience) -> Checksum | None:
    corpus, file = wanted.corpus, wanted.places["file"]
    if corpus.checksums is None:
        return None
    listed = wanted.filled(corpus.checksums)
    aside = "://" in listed
    addresses = _addresses(wanted, (listed,) if aside else _beside(wanted, listed), mirrors)
    text = text_of(addresses, listed.rpartition("/")[2], cure=cure, patience=patience)
    found = _of_record(text, file) if aside else re.search(rf"^([0-9a-f]{{40}}) [ *]{re.escape(file)}$", text, re.MULTILINE)
    if found is None:
        what = f"{listed} does not name {file}: the dump may not be finished"
        raise KitaeError(what, cure=cure or "try again later", where=addresses[0])
    return found if isinstance(found, Checksum) else Checksum(algorithm="sha1", digest=found[1])


def _of_record(text: str, file: str) -> Checksum | None:
    """A file's checksum in a record of Zenodo: `files[].key` and `files[].checksum`, "md5:..."."""
    try:
        files = {row["key"]: row["checksum"] for row in json.loads(text)["files"]}
    except (ValueError, KeyError, TypeError):
        return None
    algorithm, _, digest = str(files.get(file, "")).partition(":")
    return Checksum(algorithm=algorithm, digest=digest) if algorithm in ("md5", "sha1", "sha256") else None


def _sample(remote: Remote, corpus: Corpus, folder: Path, cure: str, patience: Patience) -> Path:
    """The whole documents among the first few megabytes, packed as the file itself is."""
    assert corpus.cut is not None
    stem = next(remote.name.removesuffix(ending) for ending in ENDINGS if remote.name.endswith(ending))
    ending = remote.name.removeprefix(stem)
    base, dot, kind = stem.rpartition(".")
    path = folder / f"{base}-sample{dot}{kind}{ending}"
    if path.is_file():
        return path
    text = _unpacked(beginning(remote, SAMPLE_BYTES, cure=cure, patience=patience), ending, remote)
    place = text.rfind(corpus.cut.before)
    if place <= 0:
        raise KitaeError(f"the beginning of {remote.name} holds no whole document", cure="fetch all of it", where=remote.urls[0])
    whole = text[:place] + corpus.cut.end
    packed = {".bz2": bz2.compress, ".gz": lambda data: gzip.compress(data, mtime=0), ".xz": lzma.compress}[ending](whole)
    folder.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_bytes(packed)
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def _unpacked(packed: bytes, ending: str, remote: Remote) -> bytes:
    """What a file's first bytes unpack to, as far as they go; at most MOST_SAMPLE_BYTES."""
    text = b""
    try:
        while packed and len(text) < MOST_SAMPLE_BYTES:
            if ending == ".gz":
                member = zlib.decompressobj(wbits=31)
                text += member.decompress(packed, MOST_SAMPLE_BYTES - len(text))
                packed = member.unused_data
            else:
                stream = bz2.BZ2Decompressor() if ending == ".bz2" else lzma.LZMADecompressor()
                text += stream.decompress(packed, MOST_SAMPLE_BYTES - len(text))
                packed = stream.unused_data if stream.eof else b""
    except (OSError, lzma.LZMAError, zlib.error, EOFError) as error:
        what = f"{remote.name} is not what its ending says, or was damaged on its way"
        raise KitaeError(what, cure="try again later", where=remote.urls[0]) from error
    return text


def _recipe_line(path: Path, corpus: Corpus) -> str:
    encoding = f', encoding = "{corpus.encoding}"' if corpus.encoding else ""
    where = json.dumps(str(path), ensure_ascii=False)  # a TOML string, too
    return f'source = [{{ path = {where}, format = "{corpus.format}"{encoding}, licence = "{corpus.licence}" }}]'
