"""Prediction of a file that is larger than the memory it takes: a million rows through a tiny classifier, and how memory grows.

    python -m benchmarks.stream [--rows 1000000]

The file is predicted in processes of its own, a hundredth of the rows first: the greatest memory of either process is kept, and what the
rest of the rows added to it. The model is a BERT of two small layers with random weights; rows are short, some are empty, their ids tell
their order.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paired import keep
from kitae.models.bert import BertConfig
from kitae.models.families import build_classifier
from kitae.models.folder import Part, write_huggingface
from kitae.procedures.predict import PredictConfig, predict_file
from kitae.tensor.random import numpy_generator, torch_generator
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40)))
EMPTY = 1000
"""One row in so many has no text."""


def write_model(folder: Path) -> None:
    """A classifier as a Hugging Face folder."""
    config = BertConfig(
        model_type="bert", vocab_size=len(TOKENS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    state = build_classifier(config, 2, None, torch_generator(1)).state_dict()
    write_huggingface(Part(head="sequence", config=config, state=state, labels=("no", "yes")), folder)
    Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace")).save(folder)


def write_rows(path: Path, rows: int) -> None:
    """CSV with an id and a text of 2 to 12 words."""
    words = numpy_generator(1, "words").integers(0, 40, size=(rows, 12))
    lengths = numpy_generator(1, "lengths").integers(2, 13, size=rows)
    with path.open("w", encoding="utf-8") as file:
        file.write("id,text\n")
        for number, (row, length) in enumerate(zip(words, lengths, strict=True)):
            text = "" if number % EMPTY == EMPTY - 1 else " ".join(f"w{i}" for i in row[:length])
            file.write(f"{number},{text}\n")


def predicted(model: Path, source: Path, target: Path) -> dict[str, float]:
    """Seconds and greatest memory of a process that predicts a file."""
    line = [sys.executable, "-m", "benchmarks.stream", "--predict", str(model), str(source), str(target)]
    done = subprocess.run(line, stdout=subprocess.PIPE, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return json.loads(done.stdout.splitlines()[-1])


def check(target: Path, rows: int) -> None:
    """Every row with a text is there, in its place."""
    expected = (number for number in range(rows) if number % EMPTY != EMPTY - 1)
    with target.open(encoding="utf-8") as file:
        next(file)
        for number, line in zip(expected, file, strict=True):
            if not line.startswith(f"{number + 2},{number},"):
                raise SystemExit(f"row {number} is not in its place: {line}")


def main() -> None:
    """Measure, or be what is measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--limit", type=float, default=64.0, help="MB that the file may add")
    parser.add_argument("--name", default="predict-stream")
    parser.add_argument("--predict", nargs=3, type=Path)
    arguments = parser.parse_args()
    if arguments.predict:
        begun = time.perf_counter()
        count = predict_file(*arguments.predict, PredictConfig(device="cpu"))
        seconds = time.perf_counter() - begun
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"texts": count, "seconds": seconds, "peak in MB": peak}))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_model(folder / "model")
        found: dict[str, dict[str, float]] = {}
        for name, rows in (("a hundredth", arguments.rows // 100), ("all", arguments.rows)):
            source, target = folder / "in.csv", folder / "out.csv"
            write_rows(source, rows)
            found[name] = predicted(folder / "model", source, target)
            check(target, rows)
            found[name] |= {"rows": rows, "MB read": source.stat().st_size / 1e6, "MB written": target.stat().st_size / 1e6}
    added = found["all"]["peak in MB"] - found["a hundredth"]["peak in MB"]
    speed = found["all"]["texts"] / found["all"]["seconds"]
    keep(arguments.name, {"runs": found, "MB that the rest of the rows added": added, "texts per second": speed})
    if added > arguments.limit:
        raise SystemExit(f"{added:.0f} MB more for {arguments.rows} rows than for a hundredth of them")


if __name__ == "__main__":
    main()
