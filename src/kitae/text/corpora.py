"""Public corpora by name: where they lie, what proves that they came whole, their licence, and how a recipe reads them.

A corpus is one row in CORPORA. Addresses hold {lang}, {date}, {wiki} and {file}; the first is the publisher's own.
"""

import re
from dataclasses import dataclass

from kitae.core.errors import KitaeError, did_you_mean

LANGUAGE = r"[a-z]{2,3}(?:-[a-z]+)*"
DATE = r"\d{8}|latest"
DUMPS = (
    "https://dumps.wikimedia.org/{wiki}/{date}/{file}",
    "https://mirror.accum.se/mirror/wikimedia.org/dumps/{wiki}/{date}/{file}",
    "https://archive.org/download/{wiki}-{date}/{file}",  # the old ones: Wikimedia keeps the last few
)
SEARCH = (
    "https://dumps.wikimedia.org/other/cirrussearch/{date}/{file}",
    "https://mirror.accum.se/mirror/wikimedia.org/other/cirrussearch/{date}/{file}",
)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """How the beginning of a file becomes a whole small file: it ends before the last `before`, then comes `end`."""

    before: bytes
    end: bytes


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A public corpus, or a family of them by language and date."""

    name: str
    """What the user types, with LANG and DATE where they are chosen."""
    file: str
    urls: tuple[str, ...]
    format: str
    """The format that a recipe reads it with."""
    licence: str
    encoding: str | None = None
    checksums: str | None = None
    """The publisher's list of checksums: a file beside it, or an address (Zenodo's record); None where none is published."""
    cut: Cut | None = None
    """How to take a sample; None where that cannot be done."""
    dates: str = ""
    """Where to see which dates there are."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One corpus with its language and date chosen."""

    corpus: Corpus
    name: str
    places: dict[str, str]

    def filled(self, template: str) -> str:
        """A template of the corpus with everything filled in."""
        return template.format(**self.places)


PAGES = Cut(before=b"  <page>", end=b"</mediawiki>\n")
ROWS = Cut(before=b'{"index"', end=b"")
DOCUMENTS = Cut(before=b"\n\n", end=b"\n")
BY_SA = "CC BY-SA 4.0 (3.0 before June 2023)"
WIKI_FILE = "{wiki}-{date}-pages-articles-multistream.xml.bz2"
PROJECTS = ("wikipedia", "wikinews", "wikibooks", "wikisource", "wikivoyage", "wikiquote", "wiktionary")
CORPORA = (
    *(
        Corpus(
            name=f"{project}:LANG/DATE", file=WIKI_FILE, urls=DUMPS, checksums="{wiki}-{date}-sha1sums.txt", cut=PAGES, format="wikipedia",
            licence="CC BY 2.5 or 4.0" if project == "wikinews" else BY_SA, dates="https://dumps.wikimedia.org/{wiki}/",
        )
        for project in PROJECTS
    ),
    Corpus(
        name="cirrussearch:LANG/DATE", file="{wiki}-{date}-cirrussearch-content.json.gz", urls=SEARCH, cut=ROWS, format="cirrussearch",
        licence=BY_SA, dates="https://dumps.wikimedia.org/other/cirrussearch/",
    ),
    Corpus(
        name="cc100:LANG", file="{lang}.txt.xz", urls=("https://data.statmt.org/cc-100/{file}",), cut=DOCUMENTS, format="text",
        licence="Common Crawl terms of use",
    ),
    Corpus(
        name="openwebtext", file="openwebtext.tar.xz", urls=("https://zenodo.org/records/3834942/files/{file}",), format="files",
        checksums="https://zenodo.org/api/records/3834942", licence="CC0-1.0 for the collection; the texts are their authors'",
    ),
    Corpus(
        name="kyoto", file="wiki_corpus_2.01.tar.gz", urls=("https://alaginrc.nict.go.jp/WikiCorpus/src/{file}",), format="kyoto",
        licence="CC BY-SA 3.0",
    ),
    Corpus(
        name="aozora", file="aozorabunko_text-master.zip", urls=("https://github.com/aozorahack/aozorabunko_text/archive/master.zip",),
        format="aozora", encoding="cp932", licence="public domain in Japan for most works; each file names its own terms",
    ),
)  # fmt: skip


def find(name: str) -> Wanted:
    """The corpus that a name such as "wikipedia:ja/20210601" asks for. Raises KitaeError with what there is instead."""
    kind = name.partition(":")[0]
    corpus = next((row for row in CORPORA if row.name.partition(":")[0] == kind), None)
    if corpus is None:
        raise KitaeError(f'there is no corpus "{name}"', cure=did_you_mean(kind, [row.name.partition(":")[0] for row in CORPORA]))
    form = re.escape(corpus.name).replace("LANG", f"(?P<lang>{LANGUAGE})").replace("DATE", f"(?P<date>{DATE})")
    match = re.fullmatch(form, name)
    if match is None:
        cure = f'write it as "{corpus.name}", for example "{corpus.name.replace("LANG", "ja").replace("DATE", "20210601")}"'
        raise KitaeError(f'"{name}" is no name of a corpus', cure=cure)
    places = {"lang": "", "date": "", **match.groupdict()}
    places["wiki"] = places["lang"].replace("-", "_") + ("wiki" if kind in ("wikipedia", "cirrussearch") else kind)
    return Wanted(corpus=corpus, name=name, places={**places, "file": corpus.file.format(**places)})
