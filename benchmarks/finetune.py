"""Fine-tuning and prediction on texts of many lengths: kitae against transformers' Trainer and text-classification pipeline.

    python -m benchmarks.finetune RUN [--preset electra-small] [--rounds 7]

RUN is a trained model: an export, a checkpoint, or a run's `pretrain` folder. Both sides load one classifier (same weights, same
head, fp32) and see the same texts: which of four collections does a Japanese text come from? Real tokens a second (special tokens
counted, padding not), by turns. Needs `accelerate`, without which the Trainer does not start.
"""

import argparse
import json
import lzma
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    pipeline,
)

from benchmarks.paired import by_turns, keep, ratio, serve
from benchmarks.peers import QUIET
from kitae.core.duration import BatchSize, Duration
from kitae.core.runtime import keep_memory
from kitae.models.families import build_classifier
from kitae.models.folder import Part, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.procedures.finetuned import USE, Use, load
from kitae.procedures.predict import Predictor
from kitae.procedures.trials import Start, TrialConfig, build, read_start
from kitae.tasks.batches import TrainBatches
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.kind import Feature
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator, torch_generator
from kitae.tensor.world import World
from kitae.text.streams import open_text
from kitae.train.config import TrainConfig
from kitae.train.loop import fit

LABELS = ("caption", "question", "paragraph", "news")
BATCH, PIPELINE_BATCH, RATE = 16, 32, 3e-4
KINDS = ("train", "predict", "forward")


def collections(data: Path) -> dict[str, list[str]]:
    """Texts of the four collections, one line each: JSTS, JCommonsenseQA, JSQuAD and Wikinews (its spaces taken out)."""

    def lines(path: str) -> list[dict]:
        with lzma.open(data / path, "rt", encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    with lzma.open(data / "jglue/jsquad-v1.3/valid-v1.3.json.xz", "rt", encoding="utf-8") as file:
        articles = json.load(file)["data"]
    news = [line.split("\t")[1].replace(" ", "") for line in open_text(data / "ja_plain/wikinews_full-articles_origin.tsv.gz")]
    return {
        "caption": [row["sentence1"] for row in lines("jglue/jsts-v1.3/train-v1.3.json.xz")],
        "question": [row["question"] for row in lines("jglue/jcommonsenseqa-v1.3/train-v1.3.json.xz")],
        "paragraph": [paragraph["context"].replace("[SEP]", "") for article in articles for paragraph in article["paragraphs"]],
        "news": news[1:],
    }


def mixture(data: Path, count: int) -> list[tuple[str, int]]:
    """`count` texts with the number of their collection, as many of each, in a fixed mixed order."""
    chosen: list[tuple[str, int]] = []
    for number, (name, texts) in enumerate(collections(data).items()):
        clean = sorted({" ".join(text.split()) for text in texts} - {""})
        order = numpy_generator("benchmark", name).permutation(len(clean))[: count // len(LABELS)]
        chosen += [(clean[i], number) for i in order]
    return [chosen[i] for i in numpy_generator("benchmark", "order").permutation(len(chosen))]


def write_classifier(run: Path, preset: str | None, max_length: int | None, folder: Path) -> None:
    """The one folder that both sides load: RUN's encoder (or new weights of a preset) with a new head, its tokenizer, its length."""
    start = read_start(run)
    if preset is not None:
        config = resolve_preset(preset, {}, start.tokenizer.vocab_size, 512).encoder
        state = build_classifier(config, len(LABELS), None, torch_generator(1, "weights")).state_dict()
        start = Start(part=Part(head="sequence", config=config, state=state), tokenizer=start.tokenizer)
    task = TaskConfig(name="collections", train=("-",), test=("-",))
    data = TaskData(config=task, train=(), validation=(), test=(), labels=LABELS, leaked=0)
    module = build(start, data, TrialConfig(), seed=1).learner
    config = module.encoder.config.model_copy(update={"pad_token_id": start.tokenizer.special.pad})
    length = min(max_length or 512, config.max_position_embeddings)
    start.tokenizer.save(folder, max_length=length)
    write_huggingface(Part(head="sequence", config=config, state=module.encoder.state_dict(), labels=LABELS), folder)
    (folder / USE).write_text(Use(labels=LABELS, max_length=length).model_dump_json(), encoding="utf-8")


Work = tuple[Callable[[], float], int]
"""What does the work once and says how many seconds it took; the real tokens in it."""


def timed(work: Callable[[], object]) -> float:
    """Seconds that it takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Side:
    """What both sides share: the texts and their lengths. Each kind of work gives what does it and the real tokens in it."""

    def __init__(self, folder: Path, texts: list[tuple[str, int]], training: int) -> None:
        self.folder, self.texts, self.training = folder, [text for text, _ in texts], training
        self.labels = [label for _, label in texts]
        self.max_length = json.loads((folder / USE).read_text(encoding="utf-8"))["max_length"]

    def prepare(self, kind: str) -> Callable[[], float]:
        """What measures this kind of work."""
        work, tokens = {"train": self.train, "predict": self.predict, "forward": self.forward}[kind]()
        return lambda: tokens / work()

    def train(self) -> Work:
        raise NotImplementedError

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text, special ones included."""
        raise NotImplementedError

    def predict(self) -> Work:
        """From text to probabilities, with a fresh tokenizer each time: no word is known from an earlier round."""
        return lambda: timed(self.predictor()), sum(self.lengths)

    def predictor(self) -> Callable[[], list[list[float]]]:
        raise NotImplementedError

    def forward(self) -> Work:
        raise NotImplementedError


class Kitae(Side):
    """Packed rows for training, batches of like length for prediction."""

    @cached_property
    def examples(self) -> list[Example]:
        """All texts with the names of their collections."""
        return [Example(id="", text=text, gold=LABELS[label], where="") for text, label in zip(self.texts, self.labels, strict=True)]

    @cached_property
    def features(self) -> list[list[Feature]]:
        """All texts as ids."""
        model = load(self.folder)[0]
        return [model.features(example, learn=True) for example in self.examples]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text, special ones included."""
        return [feature.tokens for (feature,) in self.features]

    def train(self) -> Work:
        """One epoch of the training loop over the first texts, from the same weights every time."""
        features = [feature for (feature,) in self.features[: self.training]]
        pad = load(self.folder)[0].tokenizer.special.pad
        batches = TrainBatches(features, batch=BATCH, micro_batch=BATCH, pad=pad, seed=1)
        length = Duration(batches.steps_per_epoch, "steps")
        config = TrainConfig(
            length=length,
            batch=BatchSize(BATCH, "rows"),
            micro_batch=BatchSize(BATCH, "rows"),
            learning_rate=RATE,
            keep_last=0,
            device="cpu",
        )

        def epoch() -> float:
            module = load(self.folder)[0].learner
            with tempfile.TemporaryDirectory() as folder:
                return timed(lambda: fit(module, batches, config, Path(folder), world=World(), seed=1, attach={}))

        return epoch, sum(self.lengths[: self.training])

    def predictor(self) -> Callable[[], list[list[float]]]:
        """From text to probabilities."""
        predictor = Predictor.load(self.folder, device="cpu")
        return lambda: [list(found.probabilities.values()) for found in predictor.predict(self.texts)]

    def forward(self) -> Work:
        """The same without tokenization."""
        model, examples, features = load(self.folder)[0], self.examples, self.features
        return lambda: timed(lambda: model.of(examples, features)), sum(self.lengths)


class Transformers(Side):
    """Rows padded to the longest of their batch, batches in the given order."""

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """As transformers loads it."""
        return AutoTokenizer.from_pretrained(self.folder)

    @cached_property
    def ids(self) -> list[list[int]]:
        """All texts as ids."""
        return [self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"] for text in self.texts]

    @property
    def lengths(self) -> list[int]:
        """Tokens of each text, special ones included."""
        return [len(ids) for ids in self.ids]

    def model(self) -> torch.nn.Module:
        """The same weights."""
        return AutoModelForSequenceClassification.from_pretrained(self.folder, dtype=torch.float32)

    def train(self) -> Work:
        """One epoch of the Trainer without evaluation, saving and logging."""
        rows = [{"input_ids": ids, "labels": label} for ids, label in zip(self.ids, self.labels, strict=True)][: self.training]

        def epoch() -> float:
            with tempfile.TemporaryDirectory() as folder:
                arguments = TrainingArguments(
                    output_dir=folder,
                    num_train_epochs=1,
                    per_device_train_batch_size=BATCH,
                    learning_rate=RATE,
                    warmup_steps=0.1,
                    weight_decay=0.01,
                    **QUIET,
                )
                collator = DataCollatorWithPadding(self.tokenizer)
                return timed(Trainer(self.model(), arguments, data_collator=collator, train_dataset=rows).train)

        return epoch, sum(self.lengths[: self.training])

    def predictor(self) -> Callable[[], list[list[float]]]:
        """From text to probabilities."""
        tokenizer, model = AutoTokenizer.from_pretrained(self.folder), self.model().eval()
        classify = pipeline("text-classification", model=model, tokenizer=tokenizer, device="cpu", batch_size=PIPELINE_BATCH)
        limits = {"padding": True, "truncation": True, "max_length": self.max_length, "top_k": None}

        def run() -> list[list[float]]:
            rows = [{entry["label"]: entry["score"] for entry in row} for row in classify(self.texts, **limits)]
            return [[row[label] for label in LABELS] for row in rows]

        return run

    def forward(self) -> Work:
        """The same without tokenization: padding and the model."""
        model, rows = self.model().eval(), [{"input_ids": ids} for ids in self.ids]

        @torch.inference_mode()
        def run() -> None:
            for start in range(0, len(rows), PIPELINE_BATCH):
                model(**self.tokenizer.pad(rows[start : start + PIPELINE_BATCH], return_tensors="pt")).logits.softmax(-1)

        return lambda: timed(run), sum(self.lengths)


SIDES = {"kitae": Kitae, "transformers": Transformers}


def agreement(folder: Path, texts: list[tuple[str, int]]) -> dict[str, float]:
    """Whether both sides do the same work: texts with equal ids, and the greatest difference of a probability."""
    few = texts[:64]
    kitae, peer = Kitae(folder, few, 0), Transformers(folder, few, 0)
    ours, theirs = kitae.predictor()(), peer.predictor()()
    same = sum(a.texts[0].ids.tolist() == b for (a,), b in zip(kitae.features, peer.ids, strict=True))
    return {
        "texts": len(few),
        "with equal ids": same,
        "greatest difference of a probability": float(np.abs(np.array(ours) - np.array(theirs)).max()),
    }


def main() -> None:
    """Measure both sides by turns, or serve as one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--preset", help="new weights of this size instead of RUN's (RUN gives the tokenizer)")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--texts", type=int, default=1024)
    parser.add_argument("--training", type=int, default=512)
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--memory", choices=("both", "ours"), default="both")
    parser.add_argument("--name", default="finetune")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    texts = mixture(arguments.data, arguments.texts)
    if arguments.worker:  # run is then the classifier's folder
        kind, _, side = arguments.worker.partition(":")
        if arguments.memory == "both" or side == "kitae":
            keep_memory()
        serve(lambda: SIDES[side](arguments.run, texts, arguments.training).prepare(kind))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_classifier(arguments.run, arguments.preset, arguments.max_length, folder)
        common = ["--data", str(arguments.data), "--texts", str(arguments.texts), "--training", str(arguments.training)]
        common = [sys.executable, "-m", "benchmarks.finetune", str(folder), *common, "--memory", arguments.memory, "--worker"]
        found: dict[str, dict[str, list[float]]] = {}
        for kind in KINDS:
            speeds = by_turns({side: [*common, f"{kind}:{side}"] for side in SIDES}, arguments.rounds + 1)
            found[kind] = {side: values[1:] for side, values in speeds.items()}  # the first round warms up
        kitae = Kitae(folder, texts, arguments.training)
        lengths, max_length = np.array(kitae.lengths), kitae.max_length
        same_work = agreement(folder, texts)
    named = {"train": "fine-tuning, tokens at hand", "predict": "prediction, from text", "forward": "prediction, tokens at hand"}
    padded = [int(part.max() * len(part) - part.sum()) for part in np.split(lengths, range(PIPELINE_BATCH, len(lengths), PIPELINE_BATCH))]
    keep(
        arguments.name,
        {
            "model": arguments.preset or str(arguments.run),
            "precision": "fp32",
            "max_length": max_length,
            "texts": {"prediction": len(texts), "training": arguments.training, "batch": BATCH, "pipeline batch": PIPELINE_BATCH},
            "tokens of a text (min, quartiles, max)": np.percentile(lengths, [0, 25, 50, 75, 100]).tolist(),
            "share of real tokens in the pipeline's batches": float(lengths.sum() / (lengths.sum() + sum(padded))),
            "same work": same_work,
            "real tokens per second": {named[kind]: speeds for kind, speeds in found.items()},
            "texts per second, median": {
                named[kind]: {
                    side: float(np.median(values)) / mean_length(lengths, kind, arguments.training) for side, values in speeds.items()
                }
                for kind, speeds in found.items()
            },
            "kitae / transformers": {named[kind]: ratio(speeds["kitae"], speeds["transformers"]) for kind, speeds in found.items()},
        },
    )


def mean_length(lengths: np.ndarray, kind: str, training: int) -> float:
    """Tokens of a text, on the average of those that this kind of work sees."""
    return float((lengths[:training] if kind == "train" else lengths).mean())


if __name__ == "__main__":
    main()
