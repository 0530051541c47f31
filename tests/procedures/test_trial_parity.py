"""A trial is transformers' training step by step: same weights, examples, order and rates give the same losses and the same predictions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.trainer import Peer
from tiny_trials import LABELS, WORDS, start
from torch.nn import functional as F

from kitae.procedures.trials import Start, TrialConfig, build, tune
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Answer, Example, Gold
from kitae.tasks.kind import Feature
from kitae.tasks.kinds import metric_of
from kitae.tasks.records import TaskData
from kitae.tensor.random import numpy_generator
from kitae.train.monitor import read_metrics

SEED = 7
TAGS = ("B-LOC", "I-LOC", "O")
CONFIG = TrialConfig(epochs=1, batch=8, learning_rate=5e-3, weight_decay=0.1, dropout=0.0)

Draw = Callable[[np.random.Generator, list[str]], tuple[Gold, Mapping[str, object]]]
"""Of a text's words the gold, and what else the example has."""


def _tags(generator: np.random.Generator, words: list[str]) -> tuple[Gold, Mapping[str, object]]:
    ends = np.cumsum([len(word) + 1 for word in words])
    places = tuple((int(end) - len(word) - 1, int(end) - 1) for word, end in zip(words, ends, strict=True))
    return tuple(("B-LOC", "I-LOC")[i % 2] if i // 2 % 2 else "O" for i in range(len(words))), {"words": places}


def _span(generator: np.random.Generator, words: list[str]) -> tuple[Gold, Mapping[str, object]]:
    first = int(generator.integers(len(words) - 1))
    start = sum(len(word) + 1 for word in words[:first])
    text = " ".join(words[first : first + 2])
    return (Answer(text=text, start=start),), {"text": WORDS[first], "second": " ".join(words)}


def _choices(generator: np.random.Generator, words: list[str]) -> tuple[Gold, Mapping[str, object]]:
    choices = tuple(WORDS[i] for i in generator.integers(0, 60, size=3))
    return int(generator.integers(3)), {"choices": choices}


CASES: Mapping[str, tuple[tuple[str, ...], Draw]] = {
    "classification": (LABELS, lambda generator, words: (LABELS[generator.integers(3)], {})),
    "multilabel": (LABELS, lambda generator, words: (tuple(label for label in LABELS if generator.random() < 0.4), {})),
    "regression": ((), lambda generator, words: (float(generator.integers(6)), {})),
    "choice": ((), _choices),
    "tagging": (TAGS, _tags),
    "span": ((), _span),
}


def without_dropout(start: Start) -> Start:
    """Dropout is each side's own."""
    config = start.part.config.model_copy(update={"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    return replace(start, part=replace(start.part, config=config))


def examples(kind: str, name: str, count: int) -> tuple[Example, ...]:
    """Texts of 3 to 13 words."""
    made = []
    for i in range(count):
        generator = numpy_generator(4, kind, name, i)
        words = [WORDS[j] for j in generator.integers(0, 60, size=generator.integers(3, 14))]
        gold, more = CASES[kind][1](generator, words)
        made.append(Example(**{"id": f"{name}{i}", "text": " ".join(words), "gold": gold, "where": f"{name}, line {i}", **more}))
    return tuple(made)


def reference(peer: Peer) -> tuple[torch.nn.Module, list[float]]:
    """What the Trainer does, written out: the trained model and the loss of every step."""
    model = peer.load().train()
    decayed = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": decayed, "weight_decay": CONFIG.weight_decay}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, eps=1e-6)
    rows, losses = peer.rows, []
    for numbers, rate in zip(*peer.plan(SEED), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = peer.collate([dict(rows[number]) for number in numbers])
        found = model(**batch)
        loss = found.loss if peer.data.config.kind != "span" else _of_places(found, batch, [peer.features[number] for number in numbers])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(float(loss))
    return model, losses


def same(one: object, other: object) -> None:
    """Values of JSON, numbers to 1e-4."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        assert one.keys() == other.keys()
        same(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            same(first, second)
    else:
        assert one == (pytest.approx(other, abs=1e-4) if isinstance(other, float) else other)


def _of_places(found: Any, batch: Mapping[str, torch.Tensor], features: Sequence[Feature]) -> torch.Tensor:
    """transformers' loss of questions, but over the context and [CLS]: no answer begins in the question or in the padding."""
    mask = torch.full_like(found.start_logits, -torch.inf)
    for row, feature in enumerate(features):
        mask[row, [0, *feature.places["context"]]] = 0.0
    sides = ((found.start_logits, "start_positions"), (found.end_logits, "end_positions"))
    return torch.stack([F.cross_entropy(logits + mask, batch[name]) for logits, name in sides]).mean()


@pytest.mark.parametrize("kind", CASES)
def test_losses_and_predictions_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    """The last step has fewer examples than the others; texts differ in length, so that one side packs and the other pads."""
    parts = {name: examples(kind, name, count) for name, count in {"train": 77, "validation": 9, "test": 9}.items()}
    task = TaskConfig(name="t", kind=kind, train=("-",), test=("-",))
    data = TaskData(config=task, labels=CASES[kind][0], leaked=0, **parts)
    begun = without_dropout(start(tmp_path / "start"))
    (tmp_path / "trial").mkdir()
    tuned = tune(data, begun, CONFIG, seed=SEED, folder=tmp_path / "trial")
    last = next(float(str(line["loss"])) for line in read_metrics(tmp_path / "trial") if line["kind"] == "train")
    untrained = build(begun, data, CONFIG, seed=SEED)
    peer = Peer(data, untrained, CONFIG, metric_of(data.config))
    model, losses = reference(peer)
    assert len(losses) == 10
    assert last == pytest.approx(losses[-1], rel=1e-4)
    found, expected = tuned.model.predict(data.test), peer.predict(model, data.test, tuned.model.tuned)
    for one, other in zip(found, expected, strict=True):
        same([one.value, one.more], [other.value, other.more])
    with pytest.raises(AssertionError):
        same([[one.value, one.more] for one in untrained.predict(data.test)], [[one.value, one.more] for one in found])
