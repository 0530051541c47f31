"""What an encoder has to beat: the most frequent label, and character n-grams with logistic regression (scikit-learn)."""

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from kitae.core.errors import KitaeError
from kitae.procedures.outcome import Outcome
from kitae.tasks.examples import Example
from kitae.tasks.kind import Predicted
from kitae.tasks.kinds import kind_of, metric_of
from kitae.tasks.metrics import places
from kitae.tasks.records import TaskData

MOST_TEXTS = 4000
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # inverse regularisation, from strong to weak
Baseline = Callable[[TaskData, str], Outcome]


def majority(data: TaskData, metric: str) -> Outcome:
    """The training examples' most frequent label for every text; probabilities are the labels' shares. Nothing is chosen."""
    share = np.bincount(_numbers(data, data.train), minlength=len(data.labels)) / len(data.train)
    return Outcome(
        predicted=_predicted(data, np.tile(share, (len(data.test), 1))),
        chosen=_validate(data, np.full(len(data.validation), share.argmax())),
        curve=[],
        seconds={"train": 0.0, "predict": 0.0},
    )


def tfidf(data: TaskData, metric: str) -> Outcome:
    """TF-IDF of character 1- to 3-grams and logistic regression, trained on train; C is the first best on validation."""
    start = time.perf_counter()
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
    counted, truth = vectorizer.fit_transform([example.text for example in data.train]), _numbers(data, data.train)
    turn = rotation(counted)
    features, held = turn(counted), turn(vectorizer.transform([example.text for example in data.validation]))
    curve, best, name = [], None, metric_of(data.config, metric)
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(features, truth)
        found = {"C": strength} | _validate(data, model.predict(held))
        if best is None or found[name] > best[1][name]:
            best = (model, found)
        curve.append(found)
    assert best is not None
    trained = time.perf_counter()
    probabilities = np.zeros((len(data.test), len(data.labels)))
    probabilities[:, best[0].classes_] = best[0].predict_proba(turn(vectorizer.transform([example.text for example in data.test])))
    seconds = {"train": trained - start, "predict": time.perf_counter() - trained}
    return Outcome(predicted=_predicted(data, probabilities), chosen=best[1], curve=curve, seconds=seconds)


def rotation(features: csr_matrix) -> Callable[[csr_matrix], csr_matrix | np.ndarray]:
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


def _validate(data: TaskData, predicted: np.ndarray) -> dict[str, float]:
    guessed = [Predicted(value=data.labels[number]) for number in predicted]
    return kind_of(data.config).scores(data.validation, guessed, data.labels)


def _numbers(data: TaskData, examples: Sequence[Example]) -> NDArray[np.int64]:
    if data.config.kind != "classification":
        raise KitaeError(f"this baseline is one of classification, not of {data.config.kind}", cure="take it out of finetune.compare")
    return places([example.gold for example in examples], data.labels)


def _predicted(data: TaskData, shares: NDArray[np.float64]) -> list[Predicted]:
    return [Predicted(value=data.labels[int(row.argmax())], more={"probabilities": row.tolist()}) for row in shares]


BASELINES: Mapping[str, Baseline] = {"majority": majority, "tfidf": tfidf}
