"""Kinds of tasks on whole texts: their losses are torch's, however a batch is cut, and cells and predictions are read as they are meant."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from kitae.core.errors import KitaeError
from kitae.models.bert import BertConfig
from kitae.models.families import build_headed
from kitae.tasks.batches import TrainBatches, predict
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example, Gold
from kitae.tasks.formats import read_examples
from kitae.tasks.kind import Feature, Kind, Learner, Predicted
from kitae.tasks.kinds import KINDS, kind_of, options_of
from kitae.tasks.multilabel import best_threshold
from kitae.tensor.random import torch_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

CPU = torch.device("cpu")
WORDS = tuple("abcdefghij")
TOKENIZER = Tokenizer(Definition(tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS), spec=SegmenterSpec(kind="whitespace")))
CONFIG = BertConfig(
    model_type="electra", vocab_size=15, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=40, embedding_size=16,
)  # fmt: skip
LABELS = ("x", "y", "z")


def examples(golds: Sequence[Gold | None], *, choices: bool = False) -> list[Example]:
    generator = np.random.default_rng(3)

    def text() -> str:
        return " ".join(generator.choice(WORDS, size=generator.integers(1, 9)))

    return [
        Example(id=str(i), text=text(), choices=tuple(text() for _ in range(2 + i % 3)) if choices else (), gold=gold, where=f"f, line {i}")
        for i, gold in enumerate(golds)
    ]


def options_for(kind: Kind[Any], **own: object) -> Any:
    return kind.options.model_validate(own)


def made(kind: Kind[Any], options: Any, labels: Sequence[str], train: Sequence[Example]) -> tuple[Learner, list[Feature]]:
    """A learner without dropout whose outputs differ from text to text, and the features of the examples."""
    model = build_headed(
        CONFIG, kind.head(options), num_labels=kind.outputs(labels, options), dropout=0.0, generator=torch_generator(1, "x")
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch_generator(2, "x")))
    features = [kind.features(one, TOKENIZER, labels, options, max_length=12, learn=True)[0] for one in train]
    return kind.learner(model, labels, options, train).eval(), features


def loss_of(learner: Learner, features: Sequence[Feature], micro_batch: int) -> torch.Tensor:
    """Of one step over all features, cut into micro-batches, of which the last are empty."""
    batches = TrainBatches(features, batch=len(features) + 5, micro_batch=micro_batch, pad=0, seed=1)
    micros = [batches.micro(0, micro) for micro in range(batches.micro_batches_per_step)]
    counts = {name: sum(learner.counts(batch)[name] for batch in micros) for name in learner.counts(micros[0])}
    return torch.stack([learner(batch).total(counts) for batch in micros]).sum()


def logits_of(learner: Learner, features: Sequence[Feature]) -> list[torch.Tensor]:
    return [torch.from_numpy(raw) for raw in predict(learner, features, tokens=200, pad=0, device=CPU)]


@pytest.mark.parametrize("micro_batch", [3, 100])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, "balanced", {"x": 0.1, "z": 7.0}])
def test_classification_loss_is_torchs(weights: Any, smoothing: float, micro_batch: int) -> None:
    kind = KINDS["classification"]
    options = options_for(kind, class_weights=weights, label_smoothing=smoothing)
    golds = ["x"] * 2 + ["y"] * 7 + ["z"] * 4
    learner, features = made(kind, options, LABELS, examples(golds))
    table = [0.1, 1.0, 7.0] if isinstance(weights, dict) else compute_class_weight(weights, classes=np.asarray(LABELS), y=golds)
    expected = F.cross_entropy(
        torch.stack(logits_of(learner, features)),
        torch.tensor([LABELS.index(gold) for gold in golds]),
        weight=torch.as_tensor(table, dtype=torch.float32),
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(loss_of(learner, features, micro_batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("micro_batch", [3, 100])
def test_multilabel_loss_is_torchs(micro_batch: int) -> None:
    kind = KINDS["multilabel"]
    golds: list[Gold] = [(), ("x",), ("z", "x"), ("x", "y", "z"), ("y",), (), ("z",)]
    learner, features = made(kind, options_for(kind), LABELS, examples(golds))
    targets = torch.tensor([[float(label in gold) for label in LABELS] for gold in golds if isinstance(gold, tuple)])
    expected = F.binary_cross_entropy_with_logits(torch.stack(logits_of(learner, features)), targets)
    torch.testing.assert_close(loss_of(learner, features, micro_batch), expected, rtol=1e-5, atol=1e-5)


GOLDS = [3.0, 250.5, -20.0, 17.25, 100.0, 99.0, 3.0]


@pytest.mark.parametrize("micro_batch", [3, 100])
@pytest.mark.parametrize(
    ("own", "offset", "scale"),
    [
        ({}, -20.0, 270.5),
        ({"bounds": [-100, 300]}, -100.0, 400.0),
        ({"scaling": "spread"}, float(np.mean(GOLDS)), float(np.std(GOLDS))),
        ({"scaling": "none"}, 0.0, 1.0),
    ],
)
def test_regression_loss_is_that_of_scaled_numbers(own: dict[str, object], offset: float, scale: float, micro_batch: int) -> None:
    kind = KINDS["regression"]
    learner, features = made(kind, options_for(kind, **own), (), examples(GOLDS))
    found = torch.cat(logits_of(learner, features))
    targets = torch.tensor(GOLDS)
    expected = F.mse_loss((found - offset) / scale, (targets - offset) / scale)
    torch.testing.assert_close(loss_of(learner, features, micro_batch), expected, rtol=1e-4, atol=1e-4)
    plain = kind.learner(learner.encoder, (), options_for(kind), ())
    outputs = torch.cat(logits_of(plain.eval(), features))
    torch.testing.assert_close(found, offset + scale * outputs, rtol=1e-5, atol=1e-4)
    plain.load_state_dict(learner.state_dict())
    assert torch.equal(torch.cat(logits_of(plain, features)), found), "the scale travels with the weights"


@pytest.mark.parametrize("micro_batch", [2, 100])
def test_choice_loss_is_the_mean_over_questions(micro_batch: int) -> None:
    kind = KINDS["choice"]
    golds = [0, 2, 1, 1, 0]
    learner, features = made(kind, options_for(kind), (), examples(golds, choices=True))
    logits = logits_of(learner, features)
    assert [len(scores) for scores in logits] == [2, 3, 4, 2, 3]
    each = [F.cross_entropy(scores[None], torch.tensor([gold])) for scores, gold in zip(logits, golds, strict=True)]
    torch.testing.assert_close(loss_of(learner, features, micro_batch), torch.stack(each).mean(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "golds", "labels"),
    [
        ("classification", ["x", "y", "z"], LABELS),
        ("multilabel", [("x",), (), ("y", "z")], LABELS),
        ("regression", [1.0, 2.0, 4.0], ()),
        ("choice", [0, 1, 2], ()),
    ],
)
def test_a_micro_batch_without_examples_has_a_zero_gradient(name: str, golds: Sequence[Gold], labels: tuple[str, ...]) -> None:
    kind = KINDS[name]
    learner, features = made(kind, options_for(kind), labels, examples(golds, choices=name == "choice"))
    batch = TrainBatches(features, batch=8, micro_batch=4, pad=0, seed=1).micro(0, 1)
    assert set(learner.counts(batch).values()) == {0}
    learner(batch).total(dict.fromkeys(learner.counts(batch), 3)).backward()
    gradients = [parameter.grad for parameter in learner.parameters() if parameter.grad is not None]
    assert gradients
    assert not any(gradient.any() for gradient in gradients)


def decoded(name: str, raw: Sequence[float], tuned: dict[str, float] | None = None, **own: object) -> Predicted:
    kind = KINDS[name]
    (example,) = examples([None])
    return kind.decode(example, [], [np.asarray(raw, np.float32)], LABELS, options_for(kind, **own), tuned or {})


def test_what_logits_say() -> None:
    assert decoded("classification", [0.0, 2.0, 1.0]).value == "y"
    assert decoded("choice", [0.0, 2.0, 1.0, 7.0]).value == 3
    assert decoded("regression", [-3.5]).value == -3.5
    assert decoded("multilabel", [0.0, 2.0, -0.1]).value == ("x", "y")
    assert decoded("multilabel", [-2.0, -3.0, -0.1]).value == ()
    assert decoded("multilabel", [0.0, 2.0, -0.1], threshold=0.8).value == ("y",)
    assert decoded("multilabel", [0.0, 2.0, -0.1], {"threshold": 0.9}).value == ("x", "y"), "it was not asked for"
    assert decoded("multilabel", [0.0, 2.0, -0.1], {"threshold": 0.2}, threshold="tuned").value == LABELS


@pytest.mark.parametrize("seed", range(6))
def test_the_tuned_threshold_has_the_best_micro_f1(seed: int) -> None:
    generator = np.random.default_rng(seed)
    true = generator.random((40, 3)) < 0.3
    shares = np.clip(np.round(0.3 * true + generator.random((40, 3)) * 0.6, 2 if seed % 2 else 6), 0.01, 0.99)
    found = best_threshold(shares, true.astype(np.float64))

    def score(threshold: float) -> float:
        return float(f1_score(true, shares >= threshold, average="micro", zero_division=0))

    best = max(score(threshold) for threshold in np.unique(shares))
    assert score(found) == pytest.approx(best)
    kind = KINDS["multilabel"]
    options = options_for(kind, threshold="tuned")
    golds = [tuple(label for label, here in zip(LABELS, row, strict=True) if here) for row in true]
    predicted = [decoded("multilabel", row, threshold="tuned") for row in np.log(shares / (1 - shares))]
    tuned = kind.tune(examples(golds), predicted, options)
    assert tuned["threshold"] == pytest.approx(found, abs=1e-6)
    assert kind.tune(examples(golds), predicted, options_for(kind)) == {}


def test_the_threshold_stays_a_half_where_it_may() -> None:
    shares, true = np.asarray([[0.9, 0.2], [0.8, 0.4]]), np.asarray([[1.0, 0.0], [1.0, 0.0]])
    assert best_threshold(shares, true) == 0.5
    assert best_threshold(shares, np.zeros((2, 2))) == 0.5
    assert 0.2 < best_threshold(shares, np.asarray([[1.0, 0.0], [1.0, 1.0]])) <= 0.4


@pytest.mark.parametrize(
    ("name", "own", "cell", "gold"),
    [
        ("multilabel", {}, "x, y", ("x", "y")),
        ("multilabel", {"separator": "|"}, "x|a, b", ("x", "a, b")),
        ("multilabel", {}, '["a, b", "x"]', ("a, b", "x")),
        ("multilabel", {}, "[]", ()),
        ("multilabel", {"empty": True}, "", ()),
        ("regression", {}, "-1e3", -1000.0),
        ("choice", {}, "3", 3),
        ("choice", {"first": "1"}, "3", 2),
        ("choice", {"first": "A"}, "C", 2),
    ],
)
def test_cells_of_labels(name: str, own: dict[str, object], cell: str, gold: Gold) -> None:
    assert KINDS[name].gold(cell, "f, line 2", options_for(KINDS[name], **own)) == gold


@pytest.mark.parametrize(
    ("name", "own", "cell", "what"),
    [
        ("classification", {}, "", "the label is empty"),
        ("multilabel", {}, "", "the label is empty"),
        ("multilabel", {}, "x,,y", "a label of 'x,,y' is empty"),
        ("multilabel", {}, "x,x", 'the label "x" stands there twice'),
        ("multilabel", {}, "[x", "is no list of JSON"),
        ("multilabel", {}, "[1]", "holds what is no text"),
        ("regression", {}, "high", '"high" is no number'),
        ("regression", {}, "nan", '"nan" is no number'),
        ("choice", {}, "-1", '"-1" is no choice'),
        ("choice", {"first": "1"}, "0", '"0" is no choice'),
        ("choice", {"first": "A"}, "one", '"one" is no choice'),
    ],
)
def test_cells_that_are_no_label_are_named(name: str, own: dict[str, object], cell: str, what: str) -> None:
    with pytest.raises(KitaeError) as error:
        KINDS[name].gold(cell, "f, line 2", options_for(KINDS[name], **own))
    assert what in str(error.value)
    assert error.value.where == "f, line 2"


@pytest.mark.parametrize(
    ("name", "own", "gold", "what"),
    [
        ("classification", {}, "X", 'the label "X" is not one of'),
        ("multilabel", {}, ("x", "w"), 'the label "w" is not one of'),
        ("regression", {"bounds": [0, 5]}, 5.5, "5.5 lies outside bounds"),
        ("choice", {}, 2, "the right choice is 2 (counted from 0), and there are 2"),
    ],
)
def test_golds_that_do_not_belong_are_named(name: str, own: dict[str, object], gold: Gold, what: str) -> None:
    (example,) = examples([gold], choices=name == "choice")
    with pytest.raises(KitaeError) as error:
        KINDS[name].check(example, LABELS if name in ("classification", "multilabel") else (), options_for(KINDS[name], **own))
    assert what in str(error.value)
    assert error.value.where == "f, line 0"


def test_numbers_that_are_all_the_same_cannot_be_learnt() -> None:
    kind = KINDS["regression"]
    with pytest.raises(KitaeError, match="every training number is 2"):
        made(kind, options_for(kind), (), examples([2.0, 2.0]))
    assert kind.constant([Predicted(value=1.00001), Predicted(value=1.00002)])
    assert not kind.constant([Predicted(value=0.0), Predicted(value=0.1)])


def test_class_weights_and_the_positive_label_name_labels() -> None:
    kind = KINDS["classification"]
    with pytest.raises(KitaeError, match='class_weights names "w"'):
        made(kind, options_for(kind, class_weights={"w": 2}), LABELS, examples("xyz"))
    assert kind.labels(examples("zxy"), options_for(kind, positive="x")) == ("y", "z", "x")
    with pytest.raises(KitaeError, match='positive = "w" is no label'):
        kind.labels(examples("zxy"), options_for(kind, positive="w"))
    with pytest.raises(KitaeError, match="is not the last of `labels`"):
        kind.check(examples("x")[0], LABELS, options_for(kind, positive="x"))


def test_scores_of_kinds() -> None:
    kind = KINDS["classification"]
    predicted = [Predicted(value="x"), Predicted(value="y")]
    assert {"f1", "accuracy_and_f1"} & set(kind.scores(examples("xx"), predicted, LABELS)) == set()
    assert kind.scores(examples("xx"), predicted, LABELS[:2])["accuracy"] == 0.5
    assert kind.scores(examples("yy"), predicted, LABELS[:2])["f1"] == pytest.approx(2 / 3)
    found = KINDS["regression"].scores(examples([1.0, 3.0]), [Predicted(value=2.0), Predicted(value=5.0)], ())
    assert found == {"pearson": 1.0, "spearman": 1.0, "pearson_and_spearman": 1.0, "mse": 2.5}


def test_a_recipes_own_table_of_each_kind(tmp_path: Any) -> None:
    (tmp_path / "m.jsonl").write_text('{"text": "a b", "label": ["x", "y"]}\n{"text": "b", "label": []}\n{"text": "c", "label": "y"}\n')
    (tmp_path / "c.csv").write_text("text,one,two,label\na,b,c,1\nb,c,d,2\ne,f,g,1\n")
    (tmp_path / "r.tsv").write_text("text\tother\tlabel\na\tb\t0.5\nc\td\t4\ne\tf\t-\n")

    def task(name: str, kind: str, **own: object) -> TaskConfig:
        file = (str(tmp_path / name),)
        return TaskConfig.model_validate({"name": kind, "kind": kind, "train": file, "test": file, "id": None, **own})

    def golds(config: TaskConfig) -> list[Gold | None]:
        path = tmp_path / config.train[0]
        return [example.gold for example in read_examples(path, config)]

    assert golds(task("m.jsonl", "multilabel")) == [("x", "y"), (), ("y",)]
    assert golds(task("c.csv", "choice", choices=["one", "two"], kind_config={"first": "1"})) == [0, 1, 0]
    assert golds(task("r.tsv", "regression", second="other", hidden=["-"])) == [0.5, 4.0, None]
    with pytest.raises(KitaeError, match="holds a list"):
        golds(task("m.jsonl", "classification"))
    with pytest.raises(KitaeError, match="kind_config"):
        options_of(task("r.tsv", "regression", kind_config={"bound": [0, 5]}))
    assert kind_of(task("r.tsv", "regression")).line
