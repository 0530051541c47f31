"""Wikipedia XML to plain text: megabytes of unpacked XML a processor second, ours against mwparserfromhell, by turns.

    python -m benchmarks.wikipedia DUMP.xml.bz2 [--slice 4e6] [--rounds 5]

Four sides: `kitae` reads the whole .bz2 dump to text; `kitae from XML` the same from unpacked bytes; `unpacking` is bz2
alone; `mwparserfromhell` is its `strip_code` (which cleans less) on the wikitext of a slice, without bz2 and XML.
"""

import argparse
import bz2
import io
import itertools
import sys
import time
from collections.abc import Callable
from pathlib import Path

import mwparserfromhell

from benchmarks.paired import by_turns, keep, ratio, serve
from kitae.text.format import Columns, Found
from kitae.text.readers import read
from kitae.text.streams import CheckedStream
from kitae.text.wikidump import read_dump


def prepare(side: str, path: Path, limit: float) -> Callable[[], float]:
    """What measures one side: MB of XML a processor second."""
    xml = bz2.decompress(path.read_bytes())
    found = [one for one in read_dump(CheckedStream(io.BytesIO(xml), where=path.name), Columns()) if not one.drop]
    texts = [one.text.args[1] for one in found]  # type: ignore[union-attr]
    sizes = itertools.accumulate(len(text.encode()) for text in texts)
    few = [text for text, size in zip(texts, sizes) if size <= limit] or texts[:1]

    def measure() -> float:
        begun = time.process_time()
        size = len(xml)
        if side == "kitae":
            consume(list(read(path, "wikipedia")))
        elif side == "kitae from XML":
            consume(list(read_dump(CheckedStream(io.BytesIO(xml), where=path.name), Columns())))
        elif side == "unpacking":
            bz2.decompress(path.read_bytes())
        else:
            size = sum(len(text.encode()) for text in few)
            for text in few:
                mwparserfromhell.parse(text).strip_code()
        return size / 1e6 / (time.process_time() - begun)

    return measure


def consume(documents: list[Found]) -> int:
    """Characters of all texts, made now."""
    return sum(len(one.content) for one in documents)


def main() -> None:
    """Measure all sides, each in a process of its own."""
    sides = ("kitae", "kitae from XML", "unpacking", "mwparserfromhell")
    parser = argparse.ArgumentParser()
    parser.add_argument("dump", type=Path)
    parser.add_argument("--slice", type=float, default=4e6)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="wikipedia")
    parser.add_argument("--worker", choices=sides)
    arguments = parser.parse_args()
    if arguments.worker:
        serve(lambda: prepare(arguments.worker, arguments.dump, arguments.slice))
        return
    options = [str(arguments.dump), "--slice", str(arguments.slice)]
    workers = {side: [sys.executable, "-m", "benchmarks.wikipedia", *options, "--worker", side] for side in sides}
    found = {side: values[1:] for side, values in by_turns(workers, arguments.rounds + 1).items()}
    speeds = {
        "MB of XML a processor second": found,
        "kitae from XML / mwparserfromhell": ratio(found["kitae from XML"], found["mwparserfromhell"]),
        "kitae / unpacking": ratio(found["kitae"], found["unpacking"]),
    }
    keep(arguments.name, {"dump": arguments.dump.name, "XML MB": len(bz2.decompress(arguments.dump.read_bytes())) / 1e6, **speeds})


if __name__ == "__main__":
    main()
