"""The ids of transformers 4.57 for the sentences of the tokenizer tests, as hashes (see scripts/golden_transformers4.sh).

`prepare WORK` runs where kitae is installed, `hash WORK OUT` where transformers 4.57 is: one environment cannot hold 4.57 and 5.
"""

import json
import os
import sys
from pathlib import Path


def prepare(work: Path) -> None:
    """Write the tokenizer folders, the sentences, and the stand-in for Juman++."""
    sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tokenization")]
    import fake_jumanpp
    import real_text
    import test_kinds

    shared = Path(__file__).parents[3] / "shared" / "data"
    (work / "bin").mkdir()
    program = fake_jumanpp.install(work / "bin")
    for name in (*real_text.SPECS, *real_text.FURTHER):
        real_text.golden_tokenizer(name, program).save(work / name)
        chosen = real_text.sentences(shared, name)
        (work / f"{name}.json").write_text(json.dumps(chosen, ensure_ascii=False), encoding="utf-8")
    for name in test_kinds.KINDS:  # trained on the spot: the same text gives the same vocabulary
        test_kinds.trained(shared, name).save(work / name)
        (work / f"{name}.json").write_text(json.dumps(test_kinds.chosen(shared, name), ensure_ascii=False), encoding="utf-8")


def hash_ids(work: Path, out: Path) -> None:
    """Tokenize with AutoTokenizer and write one hash per thousand sentences."""
    import hashlib

    import transformers

    os.environ["PATH"] = f"{(work / 'bin').absolute()}{os.pathsep}{os.environ['PATH']}"  # rhoknp calls jumanpp by name
    rows: dict[str, object] = {"transformers": transformers.__version__}
    for path in sorted(work.glob("*.json")):
        sentences = json.loads(path.read_text(encoding="utf-8"))
        tokenizer = transformers.AutoTokenizer.from_pretrained(work / path.stem)
        ids = [tokenizer(sentence, add_special_tokens=False)["input_ids"] for sentence in sentences]
        texts = [json.dumps(ids[i : i + 1000], separators=(",", ":")) for i in range(0, len(ids), 1000)]
        rows[path.stem] = {
            "sentences": len(sentences),
            "text": hashlib.sha256(json.dumps(sentences).encode()).hexdigest(),
            "ids": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
        }
        print(path.stem, flush=True)
    out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1] == "prepare":
        prepare(Path(sys.argv[2]))
    else:
        hash_ids(Path(sys.argv[2]), Path(sys.argv[3]))
