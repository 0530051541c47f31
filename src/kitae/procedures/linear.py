"""Linear models of n-grams for every form of gold that they can say something of.

Shapes: N examples, F features, C labels.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, hstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from kitae.core.errors import KitaeError
from kitae.procedures.outcome import Outcome
from kitae.tasks.examples import Answer, Example, Span
from kitae.tasks.kind import Predicted
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.metrics import places
from kitae.tasks.records import TaskData

MOST_TEXTS = 4000
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)
"""Inverse regularisation, from strong to weak."""
WORD_STRENGTHS = (1.0, 10.0)
"""Of models of single words, whose features are many and whose examples too."""
Features: TypeAlias = NDArray[np.float64] | csr_matrix


class Model(Protocol):
    """A fitted model: what it says of examples."""

    def __call__(self, examples: Sequence[Example]) -> list[Predicted]: ...


def label_texts(data: TaskData, metric: str) -> Outcome:
    """One label a text: logistic regression."""
    texts = Texts(data.train)
    features, truth = texts.turned(data.train), places([example.gold for example in data.train], data.labels)

    def fit(strength: float) -> Model:
        model = LogisticRegression(C=strength, max_iter=2000).fit(features, truth)

        def guess(examples: Sequence[Example]) -> list[Predicted]:
            shares = np.zeros((len(examples), len(data.labels)))
            shares[:, model.classes_] = model.predict_proba(texts.turned(examples))
            return [Predicted(value=data.labels[int(row.argmax())], more={"probabilities": row.tolist()}) for row in shares]

        return guess

    return _best(data, metric, fit)


def value_texts(data: TaskData, metric: str) -> Outcome:
    """A number for a text: ridge regression, within the range of the training examples."""
    texts = Texts(data.train)
    features, truth = texts.turned(data.train), np.asarray([float(str(example.gold)) for example in data.train])

    def fit(strength: float) -> Model:
        model = Ridge(alpha=1 / strength).fit(features, truth)
        return lambda examples: [
            Predicted(value=float(value)) for value in model.predict(texts.turned(examples)).clip(truth.min(), truth.max())
        ]

    return _best(data, metric, fit)


def name_several(data: TaskData, metric: str) -> Outcome:
    """Several labels a text: a logistic regression for each. Raises KitaeError for entities and answers."""
    lists = [example.gold for example in data.train if isinstance(example.gold, tuple)]
    item = next((gold[0] for gold in lists if gold), None)
    if item is None or isinstance(item, Span | Answer):
        cure = 'take "tfidf" out of finetune.compare for this task; "majority" has an answer'
        raise KitaeError(f"tfidf finds no places in a text, which {data.config.name} asks for", cure=cure)
    texts = Texts(data.train)
    features = texts.turned(data.train)
    truth = np.asarray([[label in gold for label in data.labels] for gold in lists])

    def fit(strength: float) -> Model:
        models = [
            LogisticRegression(C=strength, max_iter=2000).fit(features, column) if 0 < column.sum() < len(column) else float(column.all())
            for column in truth.T
        ]

        def guess(examples: Sequence[Example]) -> list[Predicted]:
            turned = texts.turned(examples)
            columns = [np.full(len(examples), m) if isinstance(m, float) else m.predict_proba(turned)[:, 1] for m in models]
            return [
                Predicted(
                    value=tuple(label for label, share in zip(data.labels, row, strict=True) if share > 0.5),
                    more={"probabilities": row.tolist()},
                )
                for row in np.stack(columns, axis=1)
            ]

        return guess

    return _best(data, metric, fit)


def choose(data: TaskData, metric: str) -> Outcome:
    """The right one of several choices: of each choice beside the text, whether it is right; the likeliest wins."""
    pairs = [pair for example in data.train for pair in _with_choices(example)]
    texts = Texts(pairs)
    features, truth = texts.turned(pairs), np.concatenate([np.arange(len(e.choices)) == e.gold for e in data.train])

    def fit(strength: float) -> Model:
        model = LogisticRegression(C=strength, max_iter=2000).fit(features, truth)

        def guess(examples: Sequence[Example]) -> list[Predicted]:
            scores = model.decision_function(texts.turned([pair for example in examples for pair in _with_choices(example)]))
            parts = np.split(scores, np.cumsum([len(example.choices) for example in examples])[:-1])
            shares = [np.exp(part - part.max()) / np.exp(part - part.max()).sum() for part in parts]
            return [Predicted(value=int(row.argmax()), more={"probabilities": row.tolist()}) for row in shares]

        return guess

    return _best(data, metric, fit)


def _with_choices(example: Example) -> list[Example]:
    return [Example(id=example.id, text=example.text, second=choice, gold=None, where=example.where) for choice in example.choices]


def label_words(data: TaskData, metric: str) -> Outcome:
    """A tag a word: logistic regression of the word, its ends of up to three characters, its neighbours and its form."""
    vectorizer = TfidfVectorizer(analyzer=list, dtype=np.float32)
    features = vectorizer.fit_transform(_word_features(data.train))
    tags = [str(tag) for example in data.train for tag in (example.gold if isinstance(example.gold, tuple) else ())]

    def fit(strength: float) -> Model:
        model = LogisticRegression(C=strength, max_iter=200, tol=1e-3).fit(features, tags)

        def guess(examples: Sequence[Example]) -> list[Predicted]:
            found = model.predict(vectorizer.transform(_word_features(examples))) if any(example.words for example in examples) else []
            parts = np.split(np.asarray(found), np.cumsum([len(example.words) for example in examples])[:-1])
            return [Predicted(value=tuple(str(tag) for tag in part)) for part in parts]

        return guess

    return _best(data, metric, fit, WORD_STRENGTHS)


def _word_features(examples: Sequence[Example]) -> Iterator[list[str]]:
    for example in examples:
        words = ["", *(example.text[start:end] for start, end in example.words), ""]
        for before, word, after in zip(words, words[1:], words[2:], strict=False):
            ends = [f"{side}:{part}" for n in (1, 2, 3) for side, part in (("begins", word[:n]), ("ends", word[-n:]))]
            form = "".join("9" if c.isdigit() else "A" if c.isupper() else "a" if c.isascii() and c.isalpha() else c for c in word[:1])
            yield [f"word:{word}", f"before:{before}", f"after:{after}", f"form:{form}", *ends]


class Texts:
    """TF-IDF of the texts of examples: of pairs both texts, what they share, and how alike they are (cosine)."""

    def __init__(self, train: Sequence[Example]) -> None:
        self._vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
        self._paired = any(example.second is not None for example in train)
        seconds = [example.second or "" for example in train] if self._paired else []
        self._vectorizer.fit([example.text for example in train] + seconds)
        self._turn = rotation(self._features(train))

    def turned(self, examples: Sequence[Example]) -> Features:
        """[N, F]"""
        return self._turn(self._features(examples))

    def _features(self, examples: Sequence[Example]) -> csr_matrix:
        first = self._vectorizer.transform([example.text for example in examples])
        if not self._paired:
            return first
        second = self._vectorizer.transform([example.second or "" for example in examples])
        alike = csr_matrix(first.multiply(second).sum(axis=1))
        return hstack([first, second, first.minimum(second), alike]).tocsr()


def rotation(features: csr_matrix) -> Callable[[csr_matrix], Features]:
    """Coordinates along the training texts instead of one per n-gram, when there are fewer texts than n-grams.

    A regularised linear model's weights lie in the span of its training texts, and rotating the coordinates changes neither
    products nor norms: the same model, fitted about a hundred times faster. Many texts are left as they are.
    """
    texts, grams = features.shape
    if texts > MOST_TEXTS or texts >= grams:
        return lambda rows: rows
    spectrum, vectors = np.linalg.eigh((features @ features.T).toarray().astype(np.float64))
    kept = spectrum > spectrum.max() * 1e-10
    basis = vectors[:, kept] / np.sqrt(spectrum[kept])
    return lambda rows: (rows @ features.T).toarray() @ basis


def _best(data: TaskData, metric: str, fit: Callable[[float], Model], strengths: Sequence[float] = STRENGTHS) -> Outcome:
    """The first best model by validation, and what it says of the test examples."""
    begun = time.perf_counter()
    kind, name = kind_of(data.config), metric_of(data.config, metric)
    curve: list[dict[str, float]] = []
    best: tuple[Model, dict[str, float]] | None = None
    for strength in strengths:
        model = fit(strength)
        found = {"C": strength} | kind.scores(data.validation, model(data.validation), data.labels)
        if best is None or found[name] > best[1][name]:
            best = (model, found)
        curve.append(found)
    assert best is not None, "there are strengths"
    trained = time.perf_counter()
    predicted = best[0](data.test)
    seconds = {"train": trained - begun, "predict": time.perf_counter() - trained}
    return Outcome(predicted=predicted, chosen=best[1], curve=curve, seconds=seconds)
