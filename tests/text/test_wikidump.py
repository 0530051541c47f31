"""Wikipedia dumps: what becomes of pages, damaged files, and equal documents however a multistream file is divided."""

import bz2
import gzip
import itertools
import lzma
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from kitae.core.errors import KitaeError
from kitae.text import streams, wikidump
from kitae.text.build import Built, Holdout, build
from kitae.text.clean import normalize
from kitae.text.corpus import read_shard
from kitae.text.executors import Engine
from kitae.text.format import Columns, Found
from kitae.text.readers import read
from kitae.text.steps import Clean, Part, Source, documents_of

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" version="0.10" xml:lang="pl">
  <siteinfo>
    <sitename>Wikipedia</sitename>
    <base>https://pl.wikipedia.org/wiki/Strona_g%C5%82%C3%B3wna</base>
    <namespaces>
      <namespace key="-2" case="first-letter">Media</namespace>
      <namespace key="0" case="first-letter" />
      <namespace key="6" case="first-letter">Plik</namespace>
      <namespace key="10" case="first-letter">Szablon</namespace>
      <namespace key="14" case="first-letter">Kategoria</namespace>
    </namespaces>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"
JA = "jawiki-country-rewrapped-pages-articles.xml.bz2"
EN = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"


def page(title: str, text: str, *, key: int = 1, ns: str = "<ns>0</ns>", more: str = "", model: str = "wikitext") -> str:
    revision = f"<id>99{key}</id><timestamp>2021-06-01T00:00:00Z</timestamp><contributor><username>u</username><id>7</id></contributor>"
    text = text.replace("&", "&amp;").replace("<", "&lt;")
    whole = f'<revision>{revision}<model>{model}</model><text xml:space="preserve">{text}</text></revision>'
    return f"  <page>\n<title>{title}</title>{ns}<id>{key}</id>{more}{whole}\n  </page>\n"


def put(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def fate(path: Path) -> list[tuple[str, str]]:
    return [(str(one.metadata["title"]), one.drop or one.content) for one in read(path, "wikipedia")]


def test_pages_and_what_becomes_of_them(tmp_path: Path) -> None:
    pages = (
        page("A &amp; B", "{{x}}'''A''' & [[b]] [[Plik:a.jpg|c]][[kategoria:d]]\n== e ==\n<ref>f</ref>g", key=12)
        + page("Szablon:C", "text", ns="<ns>10</ns>")
        + page("Szablon:D", "dumps before 2012 name no namespace", ns="")
        + page("E", "#REDIRECT [[A]]", more='<redirect title="A" />')
        + page("F", "#patrz [[A]]", more='<redirect title="A" />')
        + page("G", "#転送 [[A]]")
        + page("H", "{{infobox}}\n[[Kategoria:I]]")
        + page("I", "x = 1", model="Scribunto")
        + page("J", "J")
    )
    path = put(tmp_path / "dump.xml", HEAD + pages + TAIL)
    first = next(iter(read(path, "wikipedia")))
    assert (first.key, first.drop, first.content) == ("12", None, "A & B\n\nA & b \ng\n")
    assert first.metadata == {
        "title": "A & B", "date": "2021-06-01T00:00:00Z", "language": "pl", "url": "https://pl.wikipedia.org/wiki/A_%26_B",
    }  # fmt: skip
    assert [drop for _, drop in fate(path)[1:]] == ["namespace", "namespace", "redirect", "redirect", "redirect", "", "model", ""]
    assert next(iter(read(path, "wikipedia", columns=Columns(headings=True)))).content == "A & B\n\nA & b \ne\ng\n"


def test_of_a_history_the_last_revision_stays_and_giants_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = page("A", "old").replace("</revision>", "</revision><revision><id>3</id><text>new text</text></revision>")
    monkeypatch.setattr(wikidump, "MOST_CHARACTERS", 1000)
    path = put(tmp_path / "dump.xml", HEAD + both + page("B", "x" * 1001) + page("C", "x" * 1000) + TAIL)
    assert [(title, text[:8]) for title, text in fate(path)] == [("A", "A\n\nnew t"), ("B", "giant"), ("C", "C\n\nxxxxx")]


def test_a_giant_page_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikidump, "MOST_CHARACTERS", 1 << 20)
    opening, ending = page("A", "@").split("@")
    text = HEAD + opening + "many words " * 3_000_000 + ending + page("B", "small") + TAIL
    put(tmp_path / "dump.xml", text)
    tracemalloc.start()
    assert [text for _, text in fate(tmp_path / "dump.xml")] == ["giant", "B\n\nsmall\n"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the page has 33 MB


def test_other_slots_of_a_revision_are_no_text(tmp_path: Path) -> None:
    slot = "<content><role>media</role><model>json</model><text>slot</text><timestamp>x</timestamp></content></revision>"
    path = put(tmp_path / "dump.xml", HEAD + page("A", "main").replace("</revision>", slot) + TAIL)
    assert fate(path) == [("A", "A\n\nmain\n")]
    assert next(iter(read(path, "wikipedia"))).metadata["date"] == "2021-06-01T00:00:00Z"


def test_every_compression(tmp_path: Path) -> None:
    text = (HEAD + page("A", "b") + TAIL).encode()
    for ending, packed in (
        (".gz", gzip.compress(text)),
        (".xz", lzma.compress(text)),
        (".zst", zstandard.compress(text)),
        (".bz2", bz2.compress(text)),
        ("", text),
    ):
        (tmp_path / f"d.xml{ending}").write_bytes(packed)
        assert fate(tmp_path / f"d.xml{ending}") == [("A", "A\n\nb\n")]


def test_damaged_and_wrong_files(tmp_path: Path) -> None:
    whole = HEAD + page("A", "b") + page("Last", "c" * 1000) + TAIL
    for name, text, message, place in (
        ("cut.xml", whole[: -len(TAIL) - 500], "truncated: it ends inside page 'Last'", "line 17"),
        ("tail.xml", whole[: -len(TAIL)], "truncated", "line 19"),
        ("page.xml", "<!DOCTYPE html>\n<html><body>404</body></html>", "HTML page", "line 1"),
        ("page2.xml", "<html><body>404</body></html>", "HTML page", "page2.xml"),
        ("rss.xml", "<rss><channel/></rss>", "XML file of <rss>", "rss.xml"),
        ("text.xml", "just text", "not a Wikipedia dump", "line 1"),
        ("broken.xml", whole.replace("</title>", "</titel>"), "mismatched tag", "unpacked byte"),
        ("bomb.xml", '<!DOCTYPE m [<!ENTITY a "aaaa">]>' + whole.replace("b<", "&a;<"), "no document type", "line 1"),
        ("entity.xml", whole.replace(">b<", ">&a;<"), "undefined entity", "line 14"),
        ("title.xml", whole.replace("<title>Last", "<title>" + "x" * (8 << 20)), "longer than any title", "line"),
        ("nested.xml", whole.replace("<page>", "<page><page>", 1), "<page> stands in <page>", "line 13"),
        ("encoding.xml", '<?xml version="1.0" encoding="Shift_JIS"?>' + whole, "encoding", "encoding.xml"),
        ("unknown.xml", '<?xml version="1.0" encoding="klingon"?>' + whole, "encoding", "unknown.xml"),
        ("empty.xml", HEAD + TAIL, "no document found", "empty.xml"),
    ):
        with pytest.raises(KitaeError, match=message) as caught:
            list(read(put(tmp_path / name, text), "wikipedia"))
        assert place in caught.value.where, (name, caught.value.where)
    packed = bz2.compress(whole.encode())
    for name, data, message in (
        ("cut.xml.bz2", packed[:-20], "truncated or damaged"),
        ("page.xml.bz2", b"<html>404</html>", "HTML page"),
        ("cut.xml.gz", gzip.compress(whole.encode())[:-20], "truncated or damaged"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(KitaeError, match=message):
            list(read(tmp_path / name, "wikipedia"))


def multistream(shared: Path, path: Path, pages: int, most: int = 60, dump: str = EN) -> Path:
    """Real pages as Wikimedia packs them: the head, some pages, ..., the end, each a bz2 stream of its own."""
    text = bz2.decompress((shared / "wiki_dump" / dump).read_bytes()).decode()
    head, *all_pages = text.partition("</mediawiki>")[0].split("  <page>\n")[: most + 1]
    pieces = ["".join("  <page>\n" + one for one in all_pages[start : start + pages]) for start in range(0, len(all_pages), pages)]
    path.write_bytes(b"".join(bz2.compress(piece.encode()) for piece in [head, *pieces, "</mediawiki>\n"]))
    return path


def part(path: Path, number: int, of: int) -> Iterator[tuple[int, Found]]:
    source = Source(name="wiki", path=path, format="wikipedia")
    return ((place, found) for place, found, _ in documents_of(source, Part(source=0, part=number, parts=of)))


def test_parts_of_a_multistream_dump_are_the_whole(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = multistream(shared, tmp_path / "multi.xml.bz2", 10)
    whole = [(one.key, one.drop, dict(one.metadata)) for _, one in part(path, 0, 1)]
    assert len(whole) == 60
    numbers = None
    for parts in (2, 3, 5, 40):
        read = [list(part(path, number, parts)) for number in range(parts)]
        together = [one for each in read for one in each]
        assert [(one.key, one.drop, dict(one.metadata)) for _, one in together] == whole
        found = [number for number, _ in together]
        assert numbers in (None, found)
        numbers = found
        assert found == sorted(set(found))
        assert sum(map(bool, read)) > 1
    monkeypatch.setattr(wikidump, "CHUNK_BYTES", 1000)  # many chunks a stream
    assert [number for each in range(3) for number, _ in part(path, each, 3)] == numbers
    texts = [one.content for _, one in part(path, 0, 5) if not one.drop]
    assert texts == [one.content for _, one in part(path, 0, 1) if not one.drop][: len(texts)] != []


def test_a_japanese_multistream_dump_is_the_single_stream(shared: Path, tmp_path: Path) -> None:
    path = multistream(shared, tmp_path / "multi.xml.bz2", 7, most=40, dump=JA)
    single = [(one.key, one.content) for one in itertools.islice(read(shared / "wiki_dump" / JA, "wikipedia"), 40)]
    for parts in (1, 3):
        assert [(one.key, one.content) for each in range(parts) for _, one in part(path, each, parts)] == single


def test_a_part_unpacks_its_share_only(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = multistream(shared, tmp_path / "multi.xml.bz2", 5, most=206)
    unpacked: list[int] = []
    unpack = wikidump._unpack
    monkeypatch.setattr(wikidump, "_unpack", lambda *a: (data := unpack(*a), unpacked.append(len(data or b"")))[0])
    shares = []
    for number in range(4):
        unpacked.clear()
        assert list(part(path, number, 4))
        shares.append(sum(unpacked))
    assert max(shares) < 0.5 * len(bz2.decompress(path.read_bytes()))


def test_what_looks_like_a_stream_is_none(tmp_path: Path) -> None:
    """The bytes that begin a stream, inside a stream, do not begin one."""
    false = b"BZh91AY&SY" + b"no stream" * 50
    pieces = [HEAD, page("A", "a", key=1), page("B", "b", key=2), page("C", "c", key=3), TAIL]
    packed = [bz2.compress(piece.encode()) for piece in pieces]
    assert wikidump.STREAM.match(packed[1])
    (tmp_path / "d.bz2").write_bytes(b"".join(packed))
    starts = [sum(map(len, packed[:count])) for count in range(5)]
    with (tmp_path / "e.bz2").open("wb") as file:
        file.write(packed[0] + packed[1] + false)
    assert [number >> 20 for each in range(5) for number, _ in part(tmp_path / "d.bz2", each, 5)] == starts[1:4]
    with pytest.raises(KitaeError, match="damaged"):
        [list(part(tmp_path / "e.bz2", each, 2)) for each in range(2)]
    broken = bytearray((tmp_path / "d.bz2").read_bytes())
    for start in starts[1:4]:  # a stream damaged at its beginning is missed, whoever's it is
        broken[start + 12] ^= 255
        (tmp_path / "d.bz2").write_bytes(broken)
        for parts in (2, 3, 5, 9):
            with pytest.raises(KitaeError):
                [list(part(tmp_path / "d.bz2", each, parts)) for each in range(parts)]
        broken[start + 12] ^= 255


def test_other_bz2_files_are_read_in_one_piece(shared: Path, tmp_path: Path) -> None:
    single = shared / "wiki_dump" / JA
    halves = tmp_path / "halves.xml.bz2"  # as pbzip2 packs: streams end anywhere
    text = (HEAD + page("A", "a", key=1) + page("B", "b", key=2) + TAIL).encode()
    halves.write_bytes(b"".join(bz2.compress(text[start : start + 300]) for start in range(0, len(text), 300)))
    for path, count in ((single, 150), (halves, 2)):
        found = [[number for number, _ in part(path, each, 3)] for each in range(3)]
        assert sorted(number for each in found for number in each) == list(range(count))


def test_damaged_multistream_dumps(shared: Path, tmp_path: Path) -> None:
    whole = multistream(shared, tmp_path / "multi.xml.bz2", 20).read_bytes()
    path = tmp_path / "damaged.xml.bz2"
    for data, message in (
        (whole[:-40], "truncated"),
        (whole[: len(whole) // 2], "truncated"),
        (whole[: len(whole) // 3] + b"x" * 100 + whole[len(whole) // 3 + 100 :], "damaged"),
        (whole[: whole.rindex(b"BZh91AY&SY")], "truncated"),
        (whole + b"what bzip2 ignores", "damaged"),
    ):
        path.write_bytes(data)
        for parts in (1, 2, 3):
            with pytest.raises(KitaeError, match=message):
                [list(part(path, number, parts)) for number in range(parts)]


@pytest.mark.parametrize("ending", ["</mediawiki>\n", ""])
def test_a_dump_without_pages_is_an_error_for_any_number_of_parts(tmp_path: Path, ending: str) -> None:
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(b"".join(bz2.compress(piece.encode()) for piece in (HEAD, ending or "<!-- -->")))
    for parts in (1, 2):
        for number in range(parts):
            with pytest.raises(KitaeError, match="no document found" if ending else "truncated"):
                list(part(path, number, parts))


@pytest.mark.parametrize("odd", ["", " \n", "<!-- a comment -->", "@comment", "@space"])
def test_streams_that_begin_otherwise_are_no_damage(tmp_path: Path, odd: str) -> None:
    pages = [page(f"P{number}", f"text {number}", key=number) for number in range(12)]
    for number in (3, 4, 7):
        if odd.startswith("@"):
            pages[number] = "<!-- c -->" + pages[number] if odd == "@comment" else pages[number].replace("<page>", "<page >")
        else:
            pages.insert(number, odd)
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(b"".join(bz2.compress(piece.encode()) for piece in (HEAD, *pages, TAIL)))
    whole = [(number, one.content) for number, one in part(path, 0, 1)]
    assert len(whole) == 12
    for parts in range(2, 16):
        assert [(number, one.content) for each in range(parts) for number, one in part(path, each, parts)] == whole


@pytest.mark.parametrize("parts", [1, 3])
def test_a_bomb_is_refused_with_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: int) -> None:
    monkeypatch.setattr(streams, "ALWAYS_ALLOWED_BYTES", 1 << 24)
    path = tmp_path / "d.xml.bz2"
    bomb = page("A", "@").replace("@", " " * 40_000_000)  # about 40 bytes of bz2 a million
    for pieces in ((HEAD, page("B", "b"), bomb, TAIL), (HEAD + " " * 40_000_000, page("B", "b"), TAIL)):
        path.write_bytes(b"".join(bz2.compress(piece.encode()) for piece in pieces))
        tracemalloc.start()
        with pytest.raises(KitaeError, match="bomb|looks like"):
            for number in range(parts):
                list(part(path, number, parts))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 16 << 20


def test_a_single_stream_is_known_by_its_first_page(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked: list[int] = []
    unpack = wikidump._unpack
    monkeypatch.setattr(wikidump, "_unpack", lambda *a: (data := unpack(*a), unpacked.append(len(data or b"")))[0])
    assert wikidump._site(shared / "wiki_dump" / JA) is None
    assert sum(unpacked) <= wikidump.MOST_UNPACKED_BYTES


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("how", [{"encoding": "cp932"}, {"errors": "skip"}])
def test_settings_are_checked_for_any_number_of_parts(shared: Path, tmp_path: Path, parts: int, how: dict[str, str]) -> None:
    source = Source(name="wiki", path=multistream(shared, tmp_path / "m.xml.bz2", 10), format="wikipedia", **how)  # type: ignore[arg-type]
    with pytest.raises(KitaeError, match=next(iter(how))):
        list(documents_of(source, Part(source=0, part=0, parts=parts)))


def test_numbers_of_pages_without_id_do_not_depend_on_the_parts(tmp_path: Path) -> None:
    pages = [page(f"P{number}", "text").replace("<id>1</id>", "", 1) for number in range(6)]
    path = tmp_path / "d.xml.bz2"
    path.write_bytes(b"".join(bz2.compress(piece.encode()) for piece in (HEAD, *pages, TAIL)))
    numbers = [[(number, one.key) for each in range(parts) for number, one in part(path, each, parts)] for parts in (1, 2, 4)]
    assert numbers[0] == numbers[1] == numbers[2]
    assert {key for _, key in numbers[0]} == {None}


def corpus(source: Path, work: Path, workers: int) -> tuple[Built, dict[str, bytes]]:
    steps = [Clean(normalization="nfkc", language="en", min_characters=1)]
    sources = [Source(name="wiki", path=source, format="wikipedia")]
    built = build(sources, steps, holdout=Holdout(share=0.05), seed=1, engine=Engine(workers=workers), work=work / "work", out=work)
    return built, {str(file.relative_to(work)): file.read_bytes() for split in ("train", "heldout") for file in (work / split).iterdir()}


def test_the_corpus_does_not_depend_on_the_parts(shared: Path, tmp_path: Path) -> None:
    source = multistream(shared, tmp_path / "multi.xml.bz2", 10, most=206)
    made = {workers: corpus(source, tmp_path / str(workers), workers) for workers in (1, 3)}
    assert made[1] == made[3]
    built = made[1][0]
    assert {reason: tally.documents for reason, tally in built.dropped["wiki"].items()} == {"redirect": 99, "namespace": 1}
    assert built.train["wiki"].documents + built.heldout["wiki"].documents == 106
    first = next(read_shard(min((tmp_path / "3" / "train").iterdir())))
    assert first.id == "wiki/12"
    assert first.text.startswith("Anarchism\nAnarchism is a political philosophy")


def test_stubs_are_counted(tmp_path: Path) -> None:
    source = put(tmp_path / "d.xml", HEAD + page("A", "{{x}}", key=1) + page("B", "a text", key=2) + TAIL)
    built, _ = corpus(source, tmp_path / "out", 1)
    assert {reason: tally.documents for reason, tally in built.dropped["wiki"].items()} == {"stub": 1}


def test_real_japanese_pages(shared: Path) -> None:
    found = list(read(shared / "wiki_dump" / JA, "wikipedia"))
    assert len(found) == 150
    assert not any(one.drop for one in found)
    egypt = normalize(found[0].content)
    assert egypt.startswith(
        "エジプト\nエジプト・アラブ共和国(エジプト・アラブきょうわこく)、通称エジプトは、中東・アフリカの共和国。首都はカイロ。\n"
    )
    assert "「エジプトはナイルの賜物」という古代ギリシアの歴史家ヘロドトスの言葉で有名なように、" in egypt
    text = "\n".join(one.content for one in found)
    assert not [mark for mark in ("{{", "}}", "[[", "]]", "<ref", "''", "{|", "|}", "__", "\0", "==", "\n*", "ファイル:") if mark in text]
