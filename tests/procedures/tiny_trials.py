"""A small encoder and a task that a small encoder can learn: each label has words of its own among common ones."""

from pathlib import Path

import numpy as np

from kitae.models.bert import BertConfig
from kitae.models.families import build_discriminator
from kitae.models.folder import Part, write_huggingface
from kitae.procedures.trials import Start, TrialConfig, read_start
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator, torch_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

WORDS = tuple(f"w{i}" for i in range(60))
LABELS = ("art", "law", "sea")
QUICK = TrialConfig(epochs=16, batch=8, learning_rate=3e-3)


def start_folder(folder: Path, *, positions: int = 32, extra_tokens: int = 0) -> Path:
    """A Hugging Face folder of an ELECTRA discriminator with random weights and a white-space tokenizer."""
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS)
    config = BertConfig(
        model_type="electra", vocab_size=len(tokens), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=positions, embedding_size=32,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    more = tuple(f"x{i}" for i in range(extra_tokens))
    Tokenizer(Definition(tokens=(*tokens, *more), spec=SegmenterSpec(kind="whitespace"))).save(folder)
    state = build_discriminator(config, torch_generator(3, "start")).state_dict()
    write_huggingface(Part(head="rtd", config=config, state=state), folder)
    return folder


def start(folder: Path) -> Start:
    """The same, read."""
    return read_start(start_folder(folder))


def examples(count: int, *, name: str, seed: int) -> tuple[Example, ...]:
    """Texts of 4 to 24 words, two of them words of the label; labels in equal shares."""
    made = []
    for i in range(count):
        generator = numpy_generator(seed, name, i)
        label = i % len(LABELS)
        words = [WORDS[j] for j in generator.integers(9, 60, size=generator.integers(2, 23))]
        for _ in range(2):
            words.insert(int(generator.integers(len(words) + 1)), WORDS[3 * label + int(generator.integers(3))])
        made.append(Example(id=f"{name}{i}", text=" ".join(words), gold=LABELS[label], where=f"{name}, line {i}"))
    return tuple(made)


def task(*, train: int = 240, validation: int = 30, test: int = 60, seed: int = 0) -> TaskData:
    """A task in memory."""
    return TaskData(
        config=TaskConfig(name="t", train=("-",), test=("-",)),
        train=examples(train, name="train", seed=seed),
        validation=examples(validation, name="validation", seed=seed),
        test=examples(test, name="test", seed=seed),
        labels=LABELS,
        leaked=0,
    )


def relabelled(part: tuple[Example, ...], seed: int) -> tuple[Example, ...]:
    """The same texts with their labels permuted."""
    order = np.random.default_rng(seed).permutation(len(part))
    return tuple(Example(id=e.id, text=e.text, gold=part[i].gold, where=e.where) for e, i in zip(part, order, strict=True))
