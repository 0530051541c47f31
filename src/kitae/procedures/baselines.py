"""What an encoder has to beat: the most frequent label, and character n-grams with logistic regression (scikit-learn)."""

import time
from collections.abc import Callable, Mapping

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from kitae.procedures.outcome import Outcome
from kitae.tasks.metrics import Metric, scores
from kitae.tasks.records import TaskData

MOST_TEXTS = 4000
STRENGTHS = (1.0, 10.0, 100.0, 1000.0)  # inverse regularisation, from strong to weak
Baseline = Callable[[TaskData, Metric], Outcome]


def majority(data: TaskData, metric: Metric) -> Outcome:
    """The training examples' most frequent label for every text; probabilities are the labels' shares. Nothing is chosen."""
    share = np.bincount(data.numbers(data.train), minlength=len(data.labels)) / len(data.train)
    return Outcome(
        probabilities=np.tile(share, (len(data.test), 1)),
        chosen=_validate(data, np.full(len(data.validation), share.argmax())),
        curve=[],
        seconds={"train": 0.0, "predict": 0.0},
    )


def tfidf(data: TaskData, metric: Metric) -> Outcome:
    """TF-IDF of character 1- to 3-grams and logistic regression, trained on train; C is the first best on validation."""
    start = time.perf_counter()
    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, dtype=np.float32)
    counted, truth = vectorizer.fit_transform([example.text for example in data.train]), data.numbers(data.train)
    turn = rotation(counted)
    features, held = turn(counted), turn(vectorizer.transform([example.text for example in data.validation]))
    curve, best = [], None
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=2000).fit(features, truth)
        found = {"C": strength} | _validate(data, model.predict(held))
        if best is None or found[metric] > best[1][metric]:
            best = (model, found)
        curve.append(found)
    assert best is not None
    trained = time.perf_counter()
    probabilities = np.zeros((len(data.test), len(data.labels)))
    probabilities[:, best[0].classes_] = best[0].predict_proba(turn(vectorizer.transform([example.text for example in data.test])))
    seconds = {"train": trained - start, "predict": time.perf_counter() - trained}
    return Outcome(probabilities=probabilities, chosen=best[1], curve=curve, seconds=seconds)


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
    return scores(data.numbers(data.validation), predicted, labels=len(data.labels))


BASELINES: Mapping[str, Baseline] = {"majority": majority, "tfidf": tfidf}
