"""From words and spans to tokens and back: a model that is always right must give the gold again, whatever the tokenizer."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kitae.core.errors import KitaeError
from kitae.models.bert import BertConfig
from kitae.models.compose import TokenClassifier
from kitae.models.families import build_headed
from kitae.tasks.batches import TrainBatches, assemble, predict
from kitae.tasks.examples import Example, Gold, Span
from kitae.tasks.kind import Feature, Predicted
from kitae.tasks.tagging import TagFeature, Tagging, TaggingKind
from kitae.tasks.tagging_gold import TaggingConfig
from kitae.tasks.tags import legal
from kitae.tasks.units import windows_of
from kitae.tensor.random import torch_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

KIND = TaggingKind()
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
JAPANESE = "東京都の山田花子さんはトヨタ自動車で働く。"
CHARACTERS = tuple(dict.fromkeys(JAPANESE + "abcdefghijklmnopqrstuvwxyz.,'"))
PIECES = ("山田", "花", "##子", "トヨタ", "自動車", "東京", "都", *(f"##{c}" for c in CHARACTERS))


def tokenizers() -> dict[str, Tokenizer]:
    spec = SegmenterSpec(kind="mecab")
    blanks = SegmenterSpec(kind="whitespace", lower_case=True)
    return {
        "mecab-wordpiece": Tokenizer(Definition(tokens=(*SPECIAL, *CHARACTERS, *PIECES), spec=spec)),
        "blanks-wordpiece": Tokenizer(Definition(tokens=(*SPECIAL, *CHARACTERS, *PIECES), spec=blanks)),
        "characters": Tokenizer(Definition(tokens=(*SPECIAL, *CHARACTERS), spec=spec, algorithm="character")),
        "character-bert": Tokenizer(Definition(tokens=(*SPECIAL, *CHARACTERS), spec=spec, algorithm="characters-of-words", word_bytes=50)),
    }


BLANKS = Tokenizer(Definition(tokens=(*SPECIAL, *CHARACTERS, *PIECES), spec=SegmenterSpec(kind="whitespace", lower_case=True)))


def example(text: str, gold: Gold | None, words: tuple[tuple[int, int], ...] = ()) -> Example:
    return Example(id="x", text=text, words=words, gold=gold, where="x.txt, line 1")


def words_in(text: str, words: list[str]) -> tuple[tuple[int, int], ...]:
    found, position = [], 0
    for word in words:
        position = text.index(word, position)
        found.append((position, position + len(word)))
        position += len(word)
    return tuple(found)


def knowing(
    one: Example, tokenizer: Tokenizer, options: TaggingConfig, *, max_length: int = 128
) -> tuple[list[Feature], Predicted, tuple[str, ...]]:
    """What is decoded from logits that say what is to be learnt."""
    one = KIND.canonical(one, options)
    labels = KIND.labels([one], options)
    features = KIND.features(one, tokenizer, labels, options, max_length=max_length, learn=True)
    raws = [np.eye(len(labels), dtype=np.float32)[feature.values["tags"]] * 9 for feature in features]
    return features, KIND.decode(one, features, raws, labels, options, {}), labels


@given(st.integers(0, 60), st.integers(1, 12), st.floats(0, 0.95))
def test_a_token_is_asked_of_where_it_has_most_context(count: int, size: int, overlap: float) -> None:
    windows = windows_of(count, size=size, overlap=overlap)
    assert [token for window in windows for token in range(window.first, window.last)] == list(range(count))
    assert all(0 <= window.start <= window.first <= window.last <= window.end <= count for window in windows)
    assert all(window.end - window.start <= size for window in windows)
    for window in windows:
        for token in range(window.first, window.last):
            context = [min(token - w.start, w.end - 1 - token) if w.start <= token < w.end else -1 for w in windows]
            assert windows.index(window) == context.index(max(context))


@pytest.mark.parametrize("name", tokenizers())
@pytest.mark.parametrize("scheme", ["bio", "bioes"])
@pytest.mark.parametrize("pieces", ["first", "all"])
@pytest.mark.parametrize("max_length", [128, 7])
def test_words_keep_their_tags(name: str, scheme: str, pieces: str, max_length: int) -> None:
    options = TaggingConfig.model_validate({"scheme": scheme, "pieces": pieces, "overlap": 0.5})
    words = ["東京", "都", "の", "山田", "花子", "さん", "は", "トヨタ自動車", "で", "働く", "。"]
    gold = ("B-LOC", "I-LOC", "O", "B-PER", "I-PER", "O", "O", "B-ORG", "O", "O", "O")
    features, found, _ = knowing(example(JAPANESE, gold, words_in(JAPANESE, words)), tokenizers()[name], options, max_length=max_length)
    assert found.value == gold
    assert [(entity["text"], entity["label"]) for entity in found.more["entities"]] == [  # type: ignore[index, union-attr, attr-defined]
        ("東京都", "LOC"), ("山田花子", "PER"), ("トヨタ自動車", "ORG"),
    ]  # fmt: skip
    assert (len(features) > 1) == (max_length == 7)
    assert all(feature.tokens <= max_length for feature in features)


@pytest.mark.parametrize("name", ["mecab-wordpiece", "characters", "character-bert"])
@pytest.mark.parametrize("max_length", [128, 7])
def test_spans_over_characters_come_back(name: str, max_length: int) -> None:
    spans = tuple(
        Span(start=JAPANESE.index(text), end=JAPANESE.index(text) + len(text), label=label)
        for text, label in (("東京都", "地名"), ("山田花子", "人名"))
    )
    features, found, labels = knowing(example(JAPANESE, spans), tokenizers()[name], TaggingConfig(pieces="all"), max_length=max_length)
    assert found.value == spans
    assert labels == ("B-人名", "B-地名", "I-人名", "I-地名", "O")
    assert all(JAPANESE[span.start : span.end] in ("東京都", "山田花子") for span in found.value if isinstance(span, Span))  # type: ignore[union-attr]
    assert KIND.remarks([features]) == []


def test_spans_within_a_token_are_moved_and_counted() -> None:
    text = "トヨタ自動車で"
    inside = (Span(start=1, end=3, label="X"),)
    features, found, _ = knowing(example(text, inside), tokenizers()["mecab-wordpiece"], TaggingConfig(pieces="all"))
    assert found.value == (Span(start=0, end=3, label="X"),)
    assert KIND.remarks([features, features]) == [
        "2 of 2 entities to learn do not begin and end where tokens do: they were moved to the tokens that they touch"
    ]
    both = (Span(start=0, end=1, label="X"), Span(start=1, end=3, label="X"))  # one token for two: the first gets it
    features, found, _ = knowing(example(text, both), tokenizers()["mecab-wordpiece"], TaggingConfig(pieces="all"))
    assert found.value == (Span(start=0, end=3, label="X"),)
    assert [(feature.entities, feature.moved) for feature in features if isinstance(feature, TagFeature)] == [(2, 2)]


def test_english_words_and_words_that_become_no_token() -> None:
    text = "she's \u200b in new york ."
    words = words_in(text, ["she", "'s", "\u200b", "in", "new", "york", "."])
    gold = ("O", "O", "O", "O", "B-LOC", "I-LOC", "O")
    _, found, _ = knowing(example(text, gold, words), tokenizers()["blanks-wordpiece"], TaggingConfig())
    assert found.value == gold
    assert "unread" not in found.more
    tokenizer = Tokenizer(Definition(tokens=(*SPECIAL, *CHARACTERS, *PIECES), spec=SegmenterSpec(kind="basic", lower_case=True)))
    _, found, _ = knowing(example(text, gold, words), tokenizer, TaggingConfig())
    assert found.value == gold
    assert found.more["unread"] == [2]
    plain = ("PRON", "AUX", "X", "ADP", "PROPN", "PROPN", "PUNCT")
    _, found, _ = knowing(example(text, plain, words), tokenizer, TaggingConfig(scheme="none"))
    assert found.value == ("PRON", "AUX", "ADP", "ADP", "PROPN", "PROPN", "PUNCT"), "the first tag stands for what is not read"


def test_text_without_words_or_tokens() -> None:
    tokenizer = tokenizers()["blanks-wordpiece"]
    for one in (example("", None), example("  ", None), example("a bc", None)):
        for options in (TaggingConfig(), TaggingConfig(scheme="none"), TaggingConfig(crf=True, pieces="all")):
            labels = ("O", "X") if options.scheme == "none" else ("B-X", "I-X", "O")
            features = KIND.features(KIND.canonical(one, options), tokenizer, labels, options, max_length=16, learn=False)
            extra = len(labels) + 2 if options.crf else 0
            raws = [np.zeros((len(feature.places["units"]) + extra, len(labels)), np.float32) for feature in features]
            found = KIND.decode(one, features, raws, labels, options, {})
            assert isinstance(found.value, tuple)


CONFIG = BertConfig(
    model_type="electra", vocab_size=200, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=64, embedding_size=16,
)  # fmt: skip


def learner(labels: tuple[str, ...], options: TaggingConfig) -> Tagging:
    model = build_headed(CONFIG, KIND.head(options), num_labels=KIND.outputs(labels, options), generator=torch_generator(1, "x"))
    assert isinstance(model, TokenClassifier)
    made = KIND.learner(model, labels, options, ())
    if made.crf is not None:
        with torch.no_grad():
            for parameter in made.crf.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch_generator(2, "crf")))
    return made.eval()


@pytest.mark.parametrize("crf", [False, True])
def test_losses_of_windows_add_up_in_any_batch(crf: bool) -> None:
    options, tokenizer = TaggingConfig(crf=crf, overlap=0.5), tokenizers()["blanks-wordpiece"]
    texts = ["a b c d e f g h i j k l", "ab c", "x", "a bc d e f g"]
    examples = [
        KIND.canonical(example(text, tuple(("B-X", "I-X", "O", "O")[i % 4] for i in range(len(text.split())))), options) for text in texts
    ]
    labels = KIND.labels(examples, options)
    features = [f for one in examples for f in KIND.features(one, tokenizer, labels, options, max_length=8, learn=True)]
    assert len(features) > len(examples)
    model = learner(labels, options)
    with torch.no_grad():
        alone = [model(assemble([feature], pad=0, numbers=[0])).terms[0] for feature in features]
        together = model(assemble(features, pad=0, numbers=range(len(features)))).terms[0]
    assert sum(term.count for term in alone) == together.count == sum(len(text.split()) for text in texts)
    assert float(together.sum) == pytest.approx(sum(float(term.sum) for term in alone), rel=1e-5)
    raws = [predict(model, features, tokens=tokens, pad=0, device=torch.device("cpu")) for tokens in (8, 1000)]
    for one, other in zip(*raws, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    batches = TrainBatches(features, batch=len(features) + 3, micro_batch=4, pad=0, seed=1)
    counts = [model.counts(batches.micro(0, micro)) for micro in range(batches.micro_batches_per_step)]
    assert sum(count["tagging"] for count in counts) == together.count


@pytest.mark.parametrize("crf", [False, True])
def test_a_batch_without_anything_to_learn_has_a_gradient(crf: bool) -> None:
    options, tokenizer = TaggingConfig(crf=crf), tokenizers()["blanks-wordpiece"]
    one = KIND.canonical(example("a b", ("B-X", "O")), options)
    labels = KIND.labels([one], options)
    features = KIND.features(one, tokenizer, labels, options, max_length=8, learn=True)
    batches = TrainBatches(features, batch=2, micro_batch=1, pad=0, seed=1)
    made = assemble(features, pad=0, numbers=[0])
    empty = made.replace(targets={**made.targets, **{name: made.targets[name][:0] for name in features[0].values}})
    model = learner(labels, options)
    for batch in (empty, batches.micro(0, 1) if batches.micro_batches_per_step > 1 else empty):
        loss = model(batch)
        assert loss.terms[0].count == 0
        loss.total({"tagging": 1}).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        assert all(one is not None and not one.any() for one in gradients)


@pytest.mark.parametrize("viterbi", [False, True])
def test_predictions_are_legal_only_with_viterbi_and_repaired_without(viterbi: bool) -> None:
    options = TaggingConfig(viterbi=viterbi)
    labels = ("B-X", "B-Y", "I-X", "I-Y", "O")
    one = example("a b c", None, ((0, 1), (2, 3), (4, 5)))
    features = KIND.features(one, tokenizers()["blanks-wordpiece"], labels, options, max_length=8, learn=False)
    raw = np.asarray([[0, 0, 0, 0, 1], [0, 0.2, 0, 1, 0.9], [0, 0, 0.1, 0, 1]], np.float32)
    found = KIND.decode(one, features, [raw], labels, options, {})
    assert found.value == (("O", "O", "O") if viterbi else ("O", "B-Y", "O"))


def canonical(one: Example, **options: object) -> Example:
    return KIND.canonical(one, TaggingConfig.model_validate(options))


def test_classes_are_renamed_and_dropped() -> None:
    one = example("a b c d", ("B-人名", "I-人名", "B-製品名", "I-地名"))
    assert canonical(one, rename={"人名": "PERSON"}, only=["PERSON"]).gold == ("B-PERSON", "I-PERSON", "O", "O")
    assert canonical(one, rename={"製品名": ""}).gold == ("B-人名", "I-人名", "O", "B-地名")
    assert canonical(one, untokenised=True, only=["人名"]).gold == (Span(start=0, end=3, label="人名"),)
    assert canonical(one, untokenised=True).words == ()
    assert canonical(example("a b", ("NN", "VB")), scheme="none", rename={"NN": "N"}).gold == ("N", "VB")
    spans = (Span(start=2, end=3, label="b"), Span(start=0, end=1, label="a"))
    assert canonical(example("a b", spans), rename={"b": "c"}).gold == (Span(start=0, end=1, label="a"), Span(start=2, end=3, label="c"))
    with pytest.raises(KitaeError, match='no training example has the class "PERSN"'):
        KIND.labels([canonical(one)], TaggingConfig(only=("PERSN",)))
    with pytest.raises(ValueError, match="cannot be dropped"):
        TaggingConfig(scheme="none", only=("N",))


@pytest.mark.parametrize(
    ("one", "message"),
    [
        (example("a b", ("O",)), "1 tags for 2 words"),
        (example("a b", ("O", "NN")), '"NN" is neither "O" nor like "B-CLASS".*scheme = "none"'),
        (example("a b", (Span(start=1, end=4, label="X"),)), r"1 to 4 \(\"X\"\) is outside of the text, which has 3 characters"),
        (example("a b", (Span(start=1, end=1, label="X"),)), "is outside of the text"),
        (example("a b", (Span(start=0, end=2, label="X"), Span(start=1, end=3, label="Y"))), "overlaps with 0 to 2"),
        (example("a b", "O"), "'O' is no tag for each word"),
        (example("a b", ("O", "O"), ((0, 1), (2, 9))), "a word at 2 to 9 is outside"),
    ],
)
def test_bad_gold_is_named(one: Example, message: str) -> None:
    with pytest.raises(KitaeError, match=message) as caught:
        canonical(one)
    assert caught.value.where == "x.txt, line 1"


def test_unknown_classes_and_labels_that_do_not_fit() -> None:
    options = TaggingConfig()
    with pytest.raises(KitaeError, match='the class "LCO" of word 2, "b", is not one .* did you mean "LOC"'):
        KIND.check(example("a b", ("O", "B-LCO"), ((0, 1), (2, 3))), ("B-LOC", "I-LOC", "O"), options)
    with pytest.raises(KitaeError, match='the class "LCO" of "b" is not one'):
        KIND.check(example("a b", (Span(start=2, end=3, label="LCO"),)), ("B-LOC", "I-LOC", "O"), options)
    with pytest.raises(KitaeError, match="plain tags are of words"):
        KIND.check(example("a b", (Span(start=2, end=3, label="LCO"),)), ("LCO", "O"), TaggingConfig(scheme="none"))
    with pytest.raises(KitaeError, match='scheme = "bio" differ in "I-LOC"'):
        KIND.outputs(("B-LOC", "O"), options)


@pytest.mark.parametrize(
    ("cell", "gold"),
    [
        ("O B-X  O", ("O", "B-X", "O")),
        ('["O", "B-X"]', ("O", "B-X")),
        ("[]", ()),
    ],
)
def test_a_cell_of_a_table_holds_tags(cell: str, gold: Gold) -> None:
    assert KIND.gold(cell, "here", TaggingConfig()) == gold


@pytest.mark.parametrize("cell", ["[1]", "[", '[{"start": 1}]', '[["O"]]'])
def test_other_lists_are_refused(cell: str) -> None:
    with pytest.raises(KitaeError):
        KIND.gold(cell, "here", TaggingConfig())


def test_constant_predictions_are_seen() -> None:
    nothing = Predicted(value=("O", "O"), more={"entities": []})
    something = Predicted(value=("O", "B-X"), more={"entities": [{}]})
    assert KIND.constant([nothing, nothing])
    assert not KIND.constant([nothing, something])
    assert KIND.constant([Predicted(value=("N", "N"), more={"words": []})])
    assert not KIND.constant([Predicted(value=("N", "V"), more={"words": []})])


@given(st.lists(st.lists(st.floats(-3, 3), min_size=5, max_size=5), min_size=1, max_size=4))
def test_legal_sequences_of_likeliest_tags_need_no_search(logits: list[list[float]]) -> None:
    """The short cut gives what Viterbi gives: a legal sequence of the highest sum of logits."""
    labels, raw = ("B-X", "B-Y", "I-X", "I-Y", "O"), np.asarray(logits, np.float32)
    options, count = TaggingConfig(scheme="bio"), len(logits)
    one = example(" ".join("a" * count), None, tuple((2 * i, 2 * i + 1) for i in range(count)))
    features = KIND.features(one, BLANKS, labels, options, max_length=16, learn=False)
    value = KIND.decode(one, features, [raw], labels, options, {}).value
    assert isinstance(value, tuple)
    between, first, _ = legal(labels)
    sums = {
        path: float(raw[range(count), list(path)].astype(np.float64).sum())
        for path in itertools.product(range(5), repeat=count)
        if first[path[0]] and all(between[a, b] for a, b in itertools.pairwise(path))
    }
    assert sums[tuple(labels.index(str(tag)) for tag in value)] == pytest.approx(max(sums.values()))
