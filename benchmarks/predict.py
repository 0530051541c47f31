"""Prediction on texts of many lengths, from text to answers: kitae against transformers' pipelines, for classes and entities.

    python -m benchmarks.predict RUN [--rounds 7] [--kinds classes entities]

RUN is a trained model: an export, a checkpoint, or a run's `pretrain` folder. Both sides load one folder per kind (RUN's encoder, a new
head, fp32) and see the same lines of four collections, those that it reads whole. Texts a second by turns; the pipelines get batches of
32. No accuracy is measured. transformers 5.23 has no pipeline for questions any more.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import transformers

from benchmarks.finetune import PIPELINE_BATCH, mixture, timed
from benchmarks.paired import by_turns, keep, ratio, serve
from kitae.core.runtime import keep_memory
from kitae.models.families import build_headed
from kitae.models.folder import Part, load_encoder, write_huggingface
from kitae.procedures.finetuned import USE, Use, load, outputs
from kitae.procedures.inputs import Reads, example_from
from kitae.procedures.predict import Predictor
from kitae.procedures.trials import read_start
from kitae.tasks.kinds import kind_of, options_of
from kitae.tensor.random import torch_generator

KINDS = {
    "classes": Use(kind="classification", labels=("caption", "news", "paragraph", "question")),
    "entities": Use(kind="tagging", labels=("B-LOC", "B-PER", "I-LOC", "I-PER", "O"), kind_config={"viterbi": False}),
}
Texts = list[dict[str, object]]


def texts_of(data: Path, count: int, folder: Path) -> Texts:
    """What both sides are asked: texts that the model reads whole, because the pipelines cut longer ones where kitae's tagger goes on."""
    model, _ = load(folder)
    room = model.max_length - 2
    drawn = (text for text, _ in mixture(data, 3 * count))
    return [{"text": text} for text in drawn if len(model.tokenizer.encode(text).ids) <= room][:count]


def write(run: Path, use: Use, max_length: int, folder: Path) -> None:
    """The one folder that both sides load."""
    start = read_start(run)
    config = start.part.config
    length = min(max_length, config.positions)
    use = use.model_copy(update={"max_length": length})
    kind, options = kind_of(use.task), options_of(use.task)
    head, count = kind.head(options), kind.outputs(use.labels, options)
    model = build_headed(config, head, num_labels=count, generator=torch_generator(1, "head"))
    load_encoder(model.encoder, start.part)
    labels = outputs(kind, use.labels, options)
    start.tokenizer.save(folder, max_length=length)
    write_huggingface(Part(head=head, config=config, state=model.state_dict(), labels=labels), folder)
    (folder / USE).write_text(use.model_dump_json(), encoding="utf-8")


def tokens(folder: Path, texts: Texts) -> int:
    """Tokens that kitae reads of the texts, those of all windows."""
    model, use = load(folder)
    reads = Reads(text=use.columns, second=use.second)
    examples = [example_from(text, reads, number=number) for number, text in enumerate(texts, start=1)]
    return sum(feature.tokens for example in examples for feature in model.features(example))


def kitae(folder: Path, kind: str, texts: Texts) -> Callable[[], object]:
    """From texts to answers, with a fresh tokenizer each time: no word is known from an earlier round."""
    del kind
    predictor = Predictor.load(folder, device="cpu")
    return lambda: list(predictor.predict(texts))


def pipelines(folder: Path, kind: str, texts: Texts) -> Callable[[], object]:
    """The pipeline of a kind, with padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    common = {"tokenizer": tokenizer, "device": "cpu", "batch_size": PIPELINE_BATCH}
    plain = [str(text["text"]) for text in texts]
    if kind == "entities":
        model = transformers.AutoModelForTokenClassification.from_pretrained(folder)
        tag = transformers.pipeline("token-classification", model=model, **common)
        return lambda: tag(plain)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    classify = transformers.pipeline("text-classification", model=model, **common)
    return lambda: classify(plain, padding=True, truncation=True, top_k=None)


SIDES = {"kitae": kitae, "transformers": pipelines}


def main() -> None:
    """Measure both sides by turns, or serve as one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--kinds", nargs="+", choices=tuple(KINDS), default=list(KINDS))
    parser.add_argument("--name", default="predict")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    if arguments.worker:  # run is then the folder of the kind
        kind, _, side = arguments.worker.partition(":")
        texts = texts_of(arguments.data, arguments.texts, arguments.run)
        keep_memory()
        serve(lambda: lambda: len(texts) / timed(SIDES[side](arguments.run, kind, texts)))
        return
    found: dict[str, object] = {}
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write(arguments.run, KINDS[kind], arguments.max_length, folder)
            line = [sys.executable, "-m", "benchmarks.predict", str(folder), "--data", str(arguments.data), "--texts", str(arguments.texts)]
            speeds = by_turns({side: [*line, "--worker", f"{kind}:{side}"] for side in SIDES}, arguments.rounds + 1)
            texts = texts_of(arguments.data, arguments.texts, folder)
            speeds = {side: values[1:] for side, values in speeds.items()}  # the first round warms up
            found[kind] = {
                "texts": len(texts),
                "tokens of a text, mean": tokens(folder, texts) / len(texts),
                "texts per second": speeds,
                "texts per second, median": {side: float(np.median(values)) for side, values in speeds.items()},
                "kitae over transformers": ratio(speeds["kitae"], speeds["transformers"]),
            }
    keep(arguments.name, {"model": str(arguments.run), "precision": "fp32", "max_length": arguments.max_length, "kinds": found})


if __name__ == "__main__":
    main()
