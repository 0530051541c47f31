"""Ids of every kind of tokenizer folder against its reference implementation, on more than ten thousand real sentences each.

    python -m benchmarks.tokenizers [NAME ...]

The cases are those of tests/tokenization/parity.py. transformers 4.57 is compared by recorded hashes (tests/golden).
"""

import argparse
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from benchmarks.paired import keep

ROOT = Path(__file__).parents[1]


def main() -> None:
    """Compare and keep the counts. Exits with 1 when an id differs."""
    sys.path.insert(0, str(ROOT / "tests" / "tokenization"))
    from parity import CASES, differing

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="cases (usually all)")
    kinds = {}
    for name in parser.parse_args().names or CASES:
        with tempfile.TemporaryDirectory() as folder:
            compared, different = differing(ROOT.parent / "shared" / "data", name, Path(folder))
        kinds[name] = {"sentences": compared, "differing": len(different)}
        print(f"{name}: {len(different)} of {compared}", *different[:3], flush=True)
    packages = {name: version(name) for name in ("transformers", "tokenizers", "sentencepiece", "fugashi", "sudachipy", "sudachidict-core")}
    keep("tokenizer-parity", {"packages": packages, "kinds": kinds})
    sys.exit(any(kind["differing"] for kind in kinds.values()))


if __name__ == "__main__":
    main()
