"""Questions as windows, losses of both heads against the formula, and answers that are always letters of the context."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kitae.core.errors import KitaeError
from kitae.models.bert import BertConfig
from kitae.models.character_bert import CharacterBertConfig
from kitae.models.compose import JointSpanFinder, SpanFinder
from kitae.models.families import build_headed
from kitae.tasks.batches import TrainBatches, assemble, predict
from kitae.tasks.examples import Answer, Example, Gold
from kitae.tasks.finding import ANSWERABLE, TERM, JointSpans, Spans
from kitae.tasks.kind import Feature, Predicted
from kitae.tasks.questions import SpanConfig, SpanKind
from kitae.tensor.random import torch_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

KIND = SpanKind()
CPU = torch.device("cpu")
WORDS = tuple(f"w{i}" for i in range(40))
WHITESPACE = Tokenizer(Definition(tokens=("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS), spec=SegmenterSpec(kind="whitespace")))
CONFIG = BertConfig(
    model_type="electra", vocab_size=45, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
    max_position_embeddings=64, embedding_size=16,
)  # fmt: skip


def learner(options: SpanConfig, seed: int = 1, config: BertConfig = CONFIG) -> Any:
    model = build_headed(config, KIND.head(options), generator=torch_generator(seed, "x"))
    torch.nn.init.normal_(model.head.start.weight if options.answering == "joint" else model.head.out.weight, std=1.0)
    return KIND.learner(model, (), options, ()).eval()


def example(context: str, gold: Gold | None = None, *, question: str = "w1 w2", id: str = "q") -> Example:
    return Example(id=id, text=question, second=context, gold=gold, where=id)


def features(
    one: Example, options: SpanConfig, *, learn: bool = False, max_length: int = 24, known: Tokenizer = WHITESPACE
) -> list[Feature]:
    return KIND.features(one, known, (), options, max_length=max_length, learn=learn)


def words(*numbers: int) -> str:
    return " ".join(f"w{i}" for i in numbers)


def test_windows_hold_the_question_and_a_part_of_the_context() -> None:
    options = SpanConfig(doc_stride=10, max_query_length=3)
    one = example(words(*range(30)), question=words(5, 6, 7, 8, 9))
    found = features(one, options)
    assert len(found) == 3  # 24 - 3 special tokens - 3 of the question leave room for 18
    for number, feature in enumerate(found):
        (text,) = feature.texts
        assert text.segments is not None
        first = 10 * number
        inner = list(range(first, min(first + 18, 30)))
        expected = ["[CLS]", "w5", "w6", "w7", "[SEP]", *(f"w{i}" for i in inner), "[SEP]"]
        assert [WHITESPACE.tokens[i] for i in text.ids] == expected
        assert text.segments.tolist() == [0] * 5 + [1] * (len(inner) + 1)
        assert feature.places["context"].tolist() == list(range(5, 5 + len(inner)))
        assert feature.offsets is not None
        assert [one.second[a:b] for a, b in feature.offsets[5:-1].tolist()] == [f"w{i}" for i in inner]  # type: ignore[index]
        assert not feature.offsets[[0, 1, 2, 3, 4, -1]].any()


def test_two_separators_where_the_tokenizer_wants_them() -> None:
    tokens = ("<pad>", "[UNK]", "<s>", "</s>", "<mask>", *WORDS)
    names = ("<s>", "</s>", "<mask>", "<pad>", "[UNK]")
    definition = Definition(tokens=tokens, spec=SegmenterSpec(kind="whitespace"), names=names)
    (found,) = features(example(words(3, 4)), SpanConfig(), known=Tokenizer(definition))
    assert [tokens[i] for i in found.texts[0].ids] == ["<s>", "w1", "w2", "</s>", "</s>", "w3", "w4", "</s>"]
    assert found.places["context"].tolist() == [5, 6]


def test_an_answer_is_learnt_in_every_window_that_holds_all_of_it() -> None:
    options = SpanConfig(doc_stride=10)
    context = words(*range(30))
    start = context.index("w12")
    one = example(context, (Answer(start=start, text="w12 w13"),))
    found = features(one, options, learn=True)  # windows 0-18, 10-28, 20-29
    assert [feature.values["start"].tolist() for feature in found] == [[4 + 12], [4 + 2], [0]]
    assert [feature.values["end"].tolist() for feature in found] == [[4 + 13], [4 + 3], [0]]
    outside = example(context, (Answer(start=context.index("w19"), text="w19"),))
    assert [feature.values["start"].tolist() for feature in features(outside, options, learn=True)] == [[0], [4 + 9], [0]]
    assert [feature.values["impossible"].tolist() for feature in features(outside, options, learn=True)] == [[1.0], [0.0], [1.0]]
    none = features(example(context, ()), options, learn=True)
    assert [feature.values["end"].tolist() for feature in none] == [[0], [0], [0]]
    assert features(example(context, (Answer(start=-1, text="w3"),)), options, learn=True) == [], "no place is known: nothing to learn"
    assert "start" not in features(example(context, None), options, learn=True)[0].values


def test_a_question_that_leaves_no_room_is_named() -> None:
    with pytest.raises(KitaeError, match="max_length = 24 leaves 1 tokens for the context beside a question of 20"):
        features(example("w3", question=words(*range(20))), SpanConfig())
    with pytest.raises(KitaeError, match="a question needs a context"):
        KIND.features(Example(id="q", text="x", gold=None, where="q"), WHITESPACE, (), SpanConfig(), max_length=24, learn=False)


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("w1", "this is no list of answers"),
        ((), "this question has no answer"),
        ((Answer(start=1, text="w1"),), 'the answer "w1" does not stand in the context at character 1'),
        ((Answer(start=0, text=" "),), "an answer is empty"),
    ],
)
def test_wrong_gold_is_named(gold: Gold, said: str) -> None:
    with pytest.raises(KitaeError, match=said) as caught:
        KIND.check(example("w1 w2", gold), (), SpanConfig())
    assert caught.value.where == "q"
    KIND.check(example("w1 w2", ()), (), SpanConfig(unanswerable=True))


def training(options: SpanConfig) -> tuple[list[Example], list[Feature]]:
    context = words(*(i % 40 for i in range(60)))
    spans = [(0, 1), (17, 17), (25, 27), (59, 59), (18, 21)]
    places = [sum(len(word) + 1 for word in context.split()[:first]) for first, _ in spans]
    golds = [(Answer(start=place, text=" ".join(context.split()[a : b + 1])),) for place, (a, b) in zip(places, spans, strict=True)]
    made = [example(context, gold, question=words(*range(n + 1)), id=f"q{n}") for n, gold in enumerate(golds)] + [
        example(words(7, 8, 9), ())
    ]
    return made, [feature for one in made for feature in features(one, options, learn=True)]


def by_hand(module: Any, feature: Feature, options: SpanConfig) -> tuple[float, float]:
    """(loss of the span, of answerability) of one window alone, from the model's logits."""
    batch = assemble([feature], pad=0, numbers=[0], alone=True)
    inside = torch.zeros(len(feature.texts[0].ids), dtype=torch.bool)
    inside[torch.from_numpy(feature.places["context"])] = True
    start, end = int(feature.values["start"][0]), int(feature.values["end"][0])
    if options.answering == "joint":
        found = module.encoder(batch, allowed_BL=inside[None], starts_P=torch.tensor([start]))
        logits, impossible = (found.start_PL[0], found.end_PL[0]), found.impossible_P[0]
    else:
        inside[0] = True
        both = module.encoder(batch)[0].masked_fill(~inside[:, None], -torch.inf)
        logits, impossible = (both[:, 0], both[:, 1]), torch.tensor(0.0)
    span = -(logits[0].log_softmax(-1)[start] + logits[1].log_softmax(-1)[end]) / 2
    truth = float(feature.values["impossible"][0])
    answerable = torch.nn.functional.softplus(impossible) - truth * impossible
    return float(span), float(answerable)


@pytest.mark.parametrize("options", [SpanConfig(), SpanConfig(answering="joint", unanswerable=True)])
def test_the_loss_is_the_formula_however_windows_are_packed(options: SpanConfig) -> None:
    module = learner(options)
    _, every = training(options)
    expected = np.asarray([by_hand(module, feature, options) for feature in every])
    for micro in (len(every), 3):
        batches = TrainBatches(every, batch=len(every), micro_batch=micro, pad=0, seed=5)
        made = [module(batches.micro(0, number)) for number in range(batches.micro_batches_per_step)]
        sums = {term.name: sum(float(one.sum) for loss in made for one in loss.terms if one.name == term.name) for term in made[0].terms}
        assert sums[TERM] == pytest.approx(expected[:, 0].sum(), rel=1e-5)
        counted = [module.counts(batches.micro(0, number)) for number in range(batches.micro_batches_per_step)]
        assert sum(one[TERM] for one in counted) == len(every)
        if options.unanswerable:
            assert sums[ANSWERABLE] == pytest.approx(expected[:, 1].sum(), rel=1e-5)
            assert {term.name: term.weight for term in made[0].terms} == {TERM: 1.0, ANSWERABLE: 0.5}


@pytest.mark.parametrize("options", [SpanConfig(), SpanConfig(answering="joint", unanswerable=True)])
def test_a_micro_batch_without_windows_has_a_zero_gradient(options: SpanConfig) -> None:
    _, every = training(options)
    module = learner(options)
    batch = TrainBatches(every[:2], batch=4, micro_batch=2, pad=0, seed=1).micro(0, 1)
    counts = module.counts(batch)
    assert set(counts.values()) == {0}
    module(batch).total(dict.fromkeys(counts, 2)).backward()
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    assert gradients
    assert all(bool((gradient == 0).all()) for gradient in gradients)


def decoded(module: Any, some: Sequence[Example], options: SpanConfig, *, tokens: int = 10_000, **more: Any) -> list[Predicted]:
    made = [features(one, options, **more) for one in some]
    raws = iter(predict(module, [feature for part in made for feature in part], tokens=tokens, pad=0, device=CPU))
    return [KIND.decode(one, part, [next(raws) for _ in part], (), options, {}) for one, part in zip(some, made, strict=True)]


def by_brute_force(module: SpanFinder, one: Example, options: SpanConfig) -> list[tuple[float, str]]:
    """The rules of BERT's run_squad.py, pair by pair."""
    made = features(one, options)
    found: list[tuple[float, str]] = []
    for number, feature in enumerate(made):
        with torch.no_grad():
            logits = module(assemble([feature], pad=0, numbers=[0], alone=True))[0]
        inside = [0, *feature.places["context"].tolist()]
        best = [sorted(inside, key=lambda i, side=side: -float(logits[i, side]))[: options.n_best] for side in (0, 1)]  # type: ignore[misc]
        assert feature.offsets is not None
        for start in best[0]:
            for end in best[1]:
                if 0 in (start, end) or not 0 <= end - start < options.max_answer_length or not _owner(made, number, start):
                    continue
                text = (one.second or "")[feature.offsets[start, 0] : feature.offsets[end, 1]]
                found.append((float(logits[start, 0] + logits[end, 1]), text))
    best_of: dict[str, float] = {}
    for score, text in sorted(found, key=lambda pair: -pair[0]):
        best_of.setdefault(text, score)
    return [(score, text) for text, score in best_of.items()][: options.n_best]


def _owner(made: Sequence[Feature], number: int, position: int) -> bool:
    counts = [len(feature.places["context"]) for feature in made]
    token = number * 10 + position - int(made[0].places["context"][0])
    scores = [min(token - 10 * w, 10 * w + n - 1 - token) + 0.01 * n if 10 * w <= token < 10 * w + n else -1 for w, n in enumerate(counts)]
    return int(np.argmax(scores)) == number


def test_the_n_best_are_those_of_every_pair() -> None:
    options = SpanConfig(doc_stride=10, n_best=6, max_answer_length=4)
    module = learner(options)
    some = [example(words(*np.random.default_rng(seed).integers(0, 40, 50).tolist()), id=f"q{seed}") for seed in range(6)]
    for one, found in zip(some, decoded(module, some, options), strict=True):
        expected = by_brute_force(module.encoder, one, options)
        listed = found.more["nbest"]
        assert isinstance(listed, list)
        assert [entry["text"] for entry in listed] == [text for _, text in expected]
        shares = np.exp([score for score, _ in expected])
        assert [entry["probability"] for entry in listed] == pytest.approx((shares / shares.sum()).tolist(), abs=1e-5)
        assert found.value == (Answer(start=listed[0]["start"], text=listed[0]["text"]),)


@pytest.mark.parametrize("options", [SpanConfig(doc_stride=7), SpanConfig(answering="joint", unanswerable=True, doc_stride=7, beam=5)])
def test_batch_size_and_order_change_nothing(options: SpanConfig) -> None:
    module = learner(options)
    generator = np.random.default_rng(3)
    some = [example(words(*generator.integers(0, 40, size).tolist()), id=f"q{size}") for size in (0, 1, 3, 9, 17, 18, 19, 33, 50)]
    together = decoded(module, some, options)
    alone = [decoded(module, [one], options, tokens=1)[0] for one in some]
    turned = decoded(module, some[::-1], options, tokens=50)[::-1]
    for one, other, third in zip(together, alone, turned, strict=True):
        assert one.value == other.value == third.value
        for name in ("nbest", "null_odds"):
            assert _numbers(one.more.get(name)) == pytest.approx(_numbers(other.more.get(name)), abs=1e-5)
            assert _numbers(one.more.get(name)) == pytest.approx(_numbers(third.more.get(name)), abs=1e-5)
    assert together[0].value == (), "an empty context has no answer"


def _numbers(value: object) -> list[float]:
    return [entry["probability"] for entry in value] if isinstance(value, list) else [float(value or 0.0)]  # type: ignore[arg-type]


def test_a_character_bert_answers_too() -> None:
    spec = SegmenterSpec(kind="whitespace")
    definition = Definition(tokens=WHITESPACE.tokens, spec=spec, algorithm="characters-of-words", word_bytes=12)
    config = CharacterBertConfig(
        vocab_size=45, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=64,
        max_word_length=12, cnn_filters=((1, 4), (2, 4)), character_embeddings_dim=4,
    )  # fmt: skip
    options = SpanConfig(doc_stride=10)
    model = build_headed(config, "span", generator=torch_generator(1, "x"))
    module = KIND.learner(model, (), options, ()).eval()
    one = example("w1 outside\nof w3 " * 8)
    (found,) = decoded(module, [one], options, known=Tokenizer(definition))
    listed = found.more["nbest"]
    assert isinstance(listed, list)
    assert len(listed) == options.n_best
    assert all((one.second or "")[entry["start"] : entry["end"]] == entry["text"] for entry in listed)


def test_long_contexts_take_few_bytes() -> None:
    made = features(example(words(*(i % 40 for i in range(10_000)))), SpanConfig(), max_length=384)
    assert len(made) == 77
    taken = 0
    for feature in made:
        (text,) = feature.texts
        assert text.segments is not None
        assert feature.offsets is not None
        taken += sum(array.nbytes for array in (text.ids, text.words, text.segments, feature.places["context"], feature.offsets))
    assert taken <= 21 * sum(feature.tokens for feature in made)


LETTERS = st.text(alphabet=" \u3000\t\n😀👍🏽ＡａABé\u0301か゛ﾊﾞ㌔東京は。、#[]w1", max_size=60)
GOLDEN = Path(__file__).parents[1] / "golden"


def committed(vocabulary: str, spec: SegmenterSpec) -> Tokenizer:
    return Tokenizer.new((GOLDEN / vocabulary).read_text(encoding="utf-8").splitlines(), spec)


TOKENIZERS = {
    "mecab": committed("vocab_japanese.txt", SegmenterSpec(kind="mecab", dictionary="ipadic")),
    "lower": committed("vocab_english.txt", SegmenterSpec(kind="basic", lower_case=True)),
    "whitespace": WHITESPACE,
}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(context=LETTERS, seed=st.integers(0, 3), joint=st.booleans())
@settings(max_examples=30)
def test_every_answer_is_letters_of_the_context(name: str, context: str, seed: int, joint: bool) -> None:
    known = TOKENIZERS[name]
    options = SpanConfig(doc_stride=5, answering="joint" if joint else "simple", unanswerable=joint)
    config = CONFIG.model_copy(update={"vocab_size": len(known.tokens)})
    (found,) = decoded(learner(options, seed, config), [example(context, question="京都 w1")], options, known=known)
    listed = found.more["nbest"]
    assert isinstance(listed, list)
    for entry in listed:
        assert context[entry["start"] : entry["end"]] == entry["text"]
        assert entry["text"].strip() == entry["text"] != ""
    for answer in found.value:  # type: ignore[union-attr]
        assert context[answer.start : answer.start + len(answer.text)] == answer.text  # type: ignore[union-attr]


def said(text: str, odds: float) -> Predicted:
    listed = [{"text": text, "start": 0, "end": len(text), "probability": 1.0}]
    return Predicted(value=(Answer(start=0, text=text),), more={"nbest": listed, "null_odds": odds})


def test_the_threshold_is_tuned_and_applied() -> None:
    options = SpanConfig(unanswerable=True)
    some = [example("w1 w2", (Answer(start=0, text="w1"),)), example("w1 w2", ()), example("w1 w2", (Answer(start=3, text="w2"),))]
    predicted = [said("w1", -3.0), said("w1", 2.0), said("w2", 0.0)]
    assert KIND.tune(some, predicted, options) == {"null_threshold": 1.0}
    assert KIND.tune(some, predicted, SpanConfig(unanswerable=True, threshold=-2.75)) == {"null_threshold": -2.75}
    assert KIND.tune(some, predicted, SpanConfig()) == {}
    module = learner(options)
    one = example(words(3, 4, 5))
    made = features(one, options)
    raws = predict(module, made, tokens=100, pad=0, device=CPU)
    odds = KIND.decode(one, made, raws, (), options, {}).more["null_odds"]
    assert isinstance(odds, float)
    kept = KIND.decode(one, made, raws, (), options, {"null_threshold": odds + 0.1})
    dropped = KIND.decode(one, made, raws, (), options, {"null_threshold": odds - 0.1})
    assert kept.value
    assert dropped.value == ()
    assert dropped.more == kept.more, "the list of the best stays"


def test_scores_of_all_and_of_those_without_an_answer() -> None:
    some = [example("w1 w2", (Answer(start=0, text="w1"),)), example("w1 w2", ())]
    wrong = Predicted(value=(), more=said("w1", 3.0).more)
    found = KIND.scores(some, [said("w1", 0.0), wrong], ())
    assert (found["exact"], found["HasAns_exact"], found["NoAns_f1"], found["total"], found["unaligned"]) == (1.0, 1.0, 1.0, 2.0, 0.0)
    assert (found["best_exact"], found["best_exact_thresh"]) == (1.0, 0.0)
    plain = KIND.scores(some[:1], [Predicted(value=(Answer(start=0, text="w1"),))], ())
    assert set(plain) == {*KIND.metrics, "unaligned"}


def test_answers_that_fall_between_tokens_are_counted() -> None:
    options = SpanConfig()
    some = [example("w1 w2", (Answer(start=0, text="w1"),)), example("w1 w2", (Answer(start=1, text="1"),), id="q2")]
    found = decoded(learner(options), some, options)
    assert ["unaligned" in one.more for one in found] == [False, True]
    assert KIND.scores(some, found, ())["unaligned"] == 1.0
    (window,) = features(some[1], options, learn=True)
    assert window.values["start"].tolist() == [4], "the token that covers it is learnt"


def test_what_cannot_be_learnt_is_remarked() -> None:
    options = SpanConfig(doc_stride=19, unanswerable=True)
    context = words(*range(40))  # windows 0-18, 19-37, 38-39

    def learnt(*gold: Answer) -> list[Feature]:
        return features(example(context, gold), options, learn=True)

    fine, none = learnt(Answer(start=0, text="w0")), learnt()
    moved, lost = learnt(Answer(start=1, text="0 w")), learnt(Answer(start=-1, text="w0"))
    cut = learnt(Answer(start=context.index("w18"), text="w18 w19"))
    assert KIND.remarks([fine, none]) == []
    said = KIND.remarks([fine, moved, none, lost, cut])
    assert [one.partition(":")[0] for one in said] == [
        "1 of 5 questions teach nothing",
        "1 of 3 answers to learn do not begin and end where tokens do",
        "1 of 3 answers to learn stand in no window as a whole",
    ]


def test_cells_hold_lists_of_answers() -> None:
    assert KIND.gold('[{"start": 3, "text": "京都"}]', "x", SpanConfig()) == (Answer(start=3, text="京都"),)
    assert KIND.gold("", "x", SpanConfig()) == KIND.gold("[]", "x", SpanConfig()) == ()
    for cell in ("京都", '{"start": 3}', '[{"start": "3", "text": "x"}]', '[{"start": true, "text": "x"}]', "[" * 100_000):
        with pytest.raises(KitaeError, match="is no list of answers"):
            KIND.gold(cell, "x", SpanConfig())


def test_models_are_what_the_settings_say() -> None:
    assert isinstance(learner(SpanConfig()), Spans)
    assert isinstance(learner(SpanConfig(answering="joint")), JointSpans)
    assert isinstance(learner(SpanConfig(answering="joint")).encoder, JointSpanFinder)
