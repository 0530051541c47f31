"""Formats that installed packages bring: a real package in a folder of its own, found by its entry points."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kitae.core.errors import KitaeError
from kitae.stages.corpus import SourceConfig
from kitae.text.readers import READERS, known, read
from tiny_recipe import kitae

MODULE = '''
"""Poems: stanzas parted by a line of three stars."""

from kitae.text.format import Format, Found


def read_poems(stream, columns):
    """A document a poem."""
    for number, poem in enumerate(stream.read().split("***\\n")):
        yield Found(poem, key=f"poem-{number}", metadata={"kind": "poem"})


POEMS = Format(text=read_poems, encoding="euc_jp", endings=(".poem",))
NOTHING = 3
'''
Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a package and its dist-info, as an installer writes it, into a folder of sys.path."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))

    def put(package: str, entries: str) -> None:
        (site / package).mkdir()
        (site / package / "__init__.py").write_text(MODULE, encoding="utf-8")
        info = site / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n", encoding="utf-8")
        (info / "entry_points.txt").write_text(f"[kitae.readers]\n{entries}\n", encoding="utf-8")
        monkeypatch.delitem(sys.modules, package, raising=False)

    return put


def poems(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a.poem").write_bytes("春\n***\n夏\n".encode("euc_jp"))
    (folder / "a.txt").write_text("not this one", encoding="utf-8")
    return folder


def test_a_package_brings_a_format(install: Install, tmp_path: Path) -> None:
    assert "poems" not in known()
    install("kitae_outside_poems", "poems = kitae_outside_poems:POEMS")
    assert known() == (*READERS, "poems")
    assert "kitae_outside_poems" not in sys.modules  # looking at the names imports nothing
    found = list(read(poems(tmp_path / "p"), "poems"))
    assert [(one.content, one.key, one.metadata) for one in found] == [
        ("春\n", "poem-0", {"kind": "poem"}),
        ("夏\n", "poem-1", {"kind": "poem"}),
    ]
    assert SourceConfig(path="p", format="poems").format == "poems"
    with pytest.raises(ValueError, match='did you mean "poems"'):
        SourceConfig(path="p", format="poem")
    with pytest.raises(KitaeError) as caught:
        list(read(tmp_path / "p", "poem"))
    assert caught.value.cure == 'did you mean "poems"?'


def test_a_recipe_uses_it(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install("kitae_outside_poems", "poems = kitae_outside_poems:POEMS")
    poems(tmp_path / "p")
    (tmp_path / "r.toml").write_text('output = "run"\n[corpus]\nsource = [{ path = "p", format = "poems" }]\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    done = kitae("run", "r.toml")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "corpus" / "corpus.json").read_text(encoding="utf-8"))["documents"]["train"] == 2


def test_what_a_package_cannot_do(install: Install, tmp_path: Path) -> None:
    install(
        "kitae_outside_first", "text = kitae_outside_first:POEMS\ntwice = kitae_outside_first:POEMS\nnumber = kitae_outside_first:NOTHING"
    )
    install(
        "kitae_outside_second", "twice = kitae_outside_second:POEMS\nabsent = kitae_outside_second:GONE\nlost = kitae_outside_third:POEMS"
    )
    path = tmp_path / "a.txt"
    path.write_text("一\n\n二\n", encoding="utf-8")
    assert [one.content for one in read(path, "text")] == ["一\n", "二\n"]  # a core format is not replaced
    assert known().count("text") == 1
    for name, message in (
        ("twice", "by several packages: kitae_outside_first:POEMS, kitae_outside_second:POEMS"),
        ("number", "no Format"),
        ("absent", "cannot be loaded"),
        ("lost", "cannot be loaded"),
    ):
        with pytest.raises(KitaeError, match=message):
            list(read(path, name))
