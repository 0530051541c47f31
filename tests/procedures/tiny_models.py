"""Fine-tuned models of every kind with random weights, whose answers differ well from text to text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kitae.models.bert import BertConfig
from kitae.models.families import build_headed
from kitae.procedures.finetuned import Finetuned, Use, save
from kitae.tasks.examples import Example
from kitae.tasks.kinds import kind_of, options_of
from kitae.tensor.random import numpy_generator, torch_generator
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

WORDS = tuple(f"w{i}" for i in range(40))
TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *(f"##{i}" for i in range(10)))
POSITIONS = 48


ENTITIES = ("B-LOC", "B-PER", "I-LOC", "I-PER", "O")


@dataclass(frozen=True)
class Case:
    """A model and what it reads."""

    kind: str
    labels: tuple[str, ...] = ()
    kind_config: Mapping[str, object] = field(default_factory=dict)
    second: bool = False
    choices: bool = False
    words: tuple[int, int] = (1, 40)
    """Least and most words of a text; of pairs, of the second text."""


CASES = {
    "classes": Case("classification", ("art", "law", "sea")),
    "classes of pairs": Case("classification", ("no", "yes"), second=True),
    "several labels": Case("multilabel", ("art", "law", "sea")),
    "numbers": Case("regression", second=True),
    "choices": Case("choice", choices=True),
    "entities of long texts": Case("tagging", ENTITIES, words=(1, 150)),
    "entities as they come": Case("tagging", ENTITIES, {"viterbi": False}),
    "entities of a chain": Case("tagging", ENTITIES, {"crf": True}),
    "answers": Case("span", second=True, words=(1, 60)),
    "answers or none": Case("span", kind_config={"unanswerable": True, "threshold": 0.0}, second=True, words=(1, 100)),
    "answers by both ends": Case("span", kind_config={"answering": "joint", "unanswerable": True}, second=True, words=(1, 100)),
    "words": Case("tagging", ("ADJ", "NOUN", "VERB"), {"scheme": "none"}),
}


def rows(case: Case, count: int, seed: int = 1) -> list[dict[str, object]]:
    """Texts of many lengths as mappings, some longer than the model."""
    made = []
    for number in range(count):
        generator = numpy_generator(seed, case.kind, number)
        row: dict[str, object] = {"id": f"n{number}", "text": text(generator, *((1, 8) if case.second or case.choices else case.words))}
        if case.second:
            row["second"] = text(generator, *case.words)
        if case.choices:
            row["choices"] = [text(generator, 1, 12) for _ in range(2 + number % 3)]
        made.append(row)
    return made


def text(generator: np.random.Generator, least: int, most: int) -> str:
    """So many words, some of them of two pieces."""
    words = [WORDS[i] for i in generator.integers(0, len(WORDS), size=generator.integers(least, most + 1))]
    return " ".join(word + "5" if generator.random() < 0.2 else word for word in words)


def model_folder(case: Case, folder: Path, *, family: str = "bert") -> Path:
    """A trial's model folder."""
    use = Use(
        kind=case.kind,
        kind_config=dict(case.kind_config),
        labels=case.labels,
        max_length=POSITIONS,
        second=("second",) if case.second else (),
        choices=("choices[]",) if case.choices else (),
    )
    config = BertConfig(
        model_type=family, vocab_size=len(TOKENS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=POSITIONS, initializer_range=0.3, embedding_size=24 if family == "electra" else None,
    )  # fmt: skip
    kind, options = kind_of(use.task), options_of(use.task)
    count = kind.outputs(case.labels, options)
    model = build_headed(config, kind.head(options), num_labels=count, generator=torch_generator(3, case.kind))
    learner = kind.learner(model, case.labels, options, numbers())
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace"))
    made = Finetuned(kind=kind, options=options, labels=case.labels, learner=learner.eval(), tokenizer=tokenizer, max_length=POSITIONS)
    save(made, use, folder)
    return folder


def numbers() -> Sequence[Example]:
    """Training examples of which a regression takes its scale."""
    return [Example(id=str(gold), text="w1", gold=gold, where="") for gold in (0.0, 2.5)]
