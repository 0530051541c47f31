"""What an encoder has to beat: what is most frequent, whatever the text says, and linear models of n-grams (scikit-learn)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from kitae.procedures.linear import choose, label_texts, label_words, name_several, value_texts
from kitae.procedures.outcome import Outcome
from kitae.tasks.examples import Answer, Example, Gold, Span
from kitae.tasks.kind import Predicted
from kitae.tasks.kinds import kind_of
from kitae.tasks.records import TaskData

Baseline = Callable[[TaskData, str], Outcome]
"""(task, the metric that chooses) -> predictions. Test labels are not looked at."""


def majority(data: TaskData, metric: str) -> Outcome:
    """What training examples say most often. Nothing is learnt from the texts but which words and names occurred; nothing is chosen.

    A label: the most frequent one; probabilities are the labels' shares. The place of the right choice: the most frequent place. A number:
    the mean. Several labels: those that more than half of the examples have. A tag per word: the word's own most frequent tag, and for new
    words the most frequent of all. Entities: every name that was one in training and not more often none, the longest first. An answer:
    none, which is right where questions have none.
    """
    guess = _majority(data)
    predicted = [guess(example) for example in data.test]
    chosen = kind_of(data.config).scores(data.validation, [guess(example) for example in data.validation], data.labels)
    return Outcome(predicted=predicted, chosen=chosen, curve=[], seconds={"train": 0.0, "predict": 0.0})


def _majority(data: TaskData) -> Callable[[Example], Predicted]:
    golds = [example.gold for example in data.train]
    first = golds[0]
    if isinstance(first, tuple):
        return _several(data)
    if isinstance(first, str):
        counts = [golds.count(label) for label in data.labels]
        shares = [count / len(golds) for count in counts]
        label = data.labels[int(np.argmax(counts))]
        return lambda example: Predicted(value=label, more={"probabilities": shares})
    numbers = [float(str(gold)) for gold in golds]
    if data.train[0].choices:
        counts_of = Counter(int(number) for number in numbers)

        def place(example: Example) -> Predicted:
            found = [counts_of[i] + 1 for i in range(len(example.choices))]  # one more, so that none is impossible
            return Predicted(value=int(np.argmax(found)), more={"probabilities": [count / sum(found) for count in found]})

        return place
    mean = float(np.mean(numbers))
    return lambda example: Predicted(value=mean)


def _several(data: TaskData) -> Callable[[Example], Predicted]:
    """Of gold that is a list: which kind of list the first one says that is not empty."""
    lists = [example.gold for example in data.train if isinstance(example.gold, tuple)]
    item = next((gold[0] for gold in lists if gold), None)
    if isinstance(item, Span):
        return _names(data.train)
    if isinstance(item, Answer) or item is None:
        return lambda example: Predicted(value=())
    if any(example.words for example in data.train):
        return _tags(data.train)
    counts = Counter(label for gold in lists for label in gold)
    shares = [counts[label] / len(lists) for label in data.labels]
    labels = tuple(label for label, share in zip(data.labels, shares, strict=True) if share > 0.5)
    return lambda example: Predicted(value=labels, more={"probabilities": shares})


def _tags(train: Sequence[Example]) -> Callable[[Example], Predicted]:
    tags: dict[str, Counter[str]] = {}
    for example in train:
        assert isinstance(example.gold, tuple), "a tag per word"
        for (start, end), tag in zip(example.words, example.gold, strict=True):
            tags.setdefault(example.text[start:end], Counter())[str(tag)] += 1
    usual = _most(sum(tags.values(), Counter()))
    by_word = {word: _most(found) for word, found in tags.items()}
    return lambda example: Predicted(value=tuple(by_word.get(example.text[start:end], usual) for start, end in example.words))


def _most(counts: Counter[str]) -> str:
    """The most frequent one; of equals the first by name, so that the order of the examples plays no part."""
    return min(counts, key=lambda name: (-counts[name], name))


def _names(train: Sequence[Example]) -> Callable[[Example], Predicted]:
    labels: dict[str, Counter[str]] = {}
    for example in train:
        for span in example.gold if isinstance(example.gold, tuple) else ():
            assert isinstance(span, Span), "gold of one form"
            labels.setdefault(example.text[span.start : span.end], Counter())[span.label] += 1
    text = "\n".join(example.text for example in train)
    known = {name: _most(found) for name, found in labels.items() if 2 * sum(found.values()) >= text.count(name)}
    lengths = sorted({len(name) for name in known}, reverse=True)

    def guess(example: Example) -> Predicted:
        found, place = [], 0
        while place < len(example.text):
            length = next((size for size in lengths if example.text[place : place + size] in known), 0)
            if length:
                found.append(Span(start=place, end=place + length, label=known[example.text[place : place + length]]))
            place += length or 1
        return Predicted(value=tuple(found))

    return guess


def tfidf(data: TaskData, metric: str) -> Outcome:
    """Linear models of TF-IDF of character 1- to 3-grams, trained on train; their strength is the first best on validation.

    Labels, several labels and choices by logistic regression, numbers by ridge regression, a tag per word by the word, its ends and its
    neighbours. Of pairs both texts and what they share. Raises KitaeError for entities and answers: n-grams say nothing of places.
    """
    first: Gold | None = data.train[0].gold
    if isinstance(first, str):
        return label_texts(data, metric)
    if isinstance(first, tuple):
        worded = any(example.words for example in data.train)
        return label_words(data, metric) if worded else name_several(data, metric)
    return choose(data, metric) if data.train[0].choices else value_texts(data, metric)


BASELINES: Mapping[str, Baseline] = {"majority": majority, "tfidf": tfidf}
