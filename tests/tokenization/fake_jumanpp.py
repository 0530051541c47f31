"""An executable that speaks Juman++'s line protocol over a MeCab dictionary, with the faults that a test asks for.

The text of a sentence asks for the fault, so that the process that meets it is the real path: "HANG" never answers, "DIE" ends
the process with a message, "GARBAGE" answers with what is no morpheme, "FEWER" is passed over in silence, "OTHER" is answered
with other words, "EMPTY" with none, "ERROR" is refused as Juman++ refuses what it cannot take, behind "SURPLUS" stands one more end,
"LOUD" says much on the standard error, "ONCE" dies the first time that a file does not exist.
"""

import os
import stat
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import ipadic

from kitae.tokenization import dictionary

LONGEST = 4096
ESCAPES = {" ": "\\\u2423", "\t": "\\t"}


def dictionary_path() -> Path:
    """JumanDIC where it is installed, else IPAdic."""
    return next((path for path in map(Path, dictionary.JUMANDIC) if path.is_dir()), Path(ipadic.DICDIR))


def install(folder: Path, *, version: str = "Juman++ Version: 2.0.0-test / Dictionary: 1 / LM: 2", before: str = "") -> Path:
    """Write the executable into a folder and return its path."""
    path = folder / "jumanpp"
    here = Path(__file__).parent
    path.write_text(
        f"#!{sys.executable}\nimport sys\n{before}\nif '--version' in sys.argv:\n    print({version!r})\n    sys.exit(0)\n"
        f"sys.path[:0] = {[str(here), *sys.path]!r}\nimport fake_jumanpp\nfake_jumanpp.serve(__file__)\n",
        encoding="utf-8",
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def rhoknp() -> ModuleType:
    """What transformers reaches Juman++ through, in whose place stands one function over the same dictionary."""
    import fugashi

    tagger = fugashi.GenericTagger(f'-d "{dictionary_path()}" -r /dev/null')

    class Jumanpp:
        def apply_to_sentence(self, text: str) -> SimpleNamespace:
            return SimpleNamespace(morphemes=[SimpleNamespace(text=surface) for surface in surfaces(tagger, text)])

    module = ModuleType("rhoknp")
    module.Jumanpp = Jumanpp
    return module


def serve(place: str) -> None:
    """Answer the lines of standard input."""
    import fugashi

    tagger = fugashi.GenericTagger(f'-d "{dictionary_path()}" -r /dev/null')
    out = sys.stdout.buffer
    for raw in sys.stdin.buffer:
        line = raw.rstrip(b"\n")
        if len(line) > 2 and line.startswith(b"# "):
            continue  # a comment
        text = line.decode()
        if fault(text, place, out):
            continue
        if len(line) > LONGEST or "ERROR" in text:
            out.write(b"# ERROR\nEOS\n")
        else:
            for surface in surfaces(tagger, text):
                shown = ESCAPES.get(surface, surface)
                out.write(f"{shown} {shown} {shown} 名詞 6 普通名詞 1 * 0 * 0 NIL\n".encode())
                out.write(f'@ {shown} {shown} {shown} 動詞 2 * 0 * 0 * 0 "代表表記:x/y z"\n'.encode())
            out.write(b"EOS\nEOS\n" if "SURPLUS" in text else b"EOS\n")
        out.flush()


def surfaces(tagger, text: str) -> list[str]:
    """MeCab's words, and each blank between them as a word, which MeCab leaves out."""
    found, position = [], 0
    for node in tagger(text):
        at = text.index(node.surface, position)
        found.extend(text[position:at])
        found.append(node.surface)
        position = at + len(node.surface)
    return [*found, *text[position:]]


def fault(text: str, place: str, out) -> bool:
    """Do the wrong that the text asks for; whether that was the answer."""
    if "HANG" in text:
        time.sleep(3600)
    if "DIE" in text or ("ONCE" in text and not os.path.exists(place + ".once")):
        Path(place + ".once").touch()
        out.write("半分 半分 半分 名詞 6 普通名詞 1 * 0 * 0 NIL\n".encode())
        out.flush()
        sys.stderr.write("lattice is broken\n")
        sys.stderr.flush()
        os._exit(3)
    if "LOUD" in text:
        sys.stderr.write("x" * (1 << 20))
        sys.stderr.flush()
    if "EMPTY" in text:
        out.write(b"EOS\n")
    elif "GARBAGE" in text:
        out.write(b"\xff\xfe what is this\nEOS\n")
    elif "OTHER" in text:
        out.write("別 別 別 名詞 6 普通名詞 1 * 0 * 0 NIL\nEOS\n".encode())
    elif "FEWER" not in text:
        return False
    out.flush()
    return True
