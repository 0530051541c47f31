"""From the candidates of windows to the n best answers of a question, and whether it has one.

Shapes: W windows, K starts, E rows of ends (1 or K), T tokens of a window.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kitae.tasks.examples import Answer
from kitae.tasks.kind import Predicted, Raw
from kitae.tasks.spans import Window, between, most_context


@dataclass(frozen=True, kw_only=True)
class Best:
    """One of the n best answers."""

    answer: Answer
    score: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """How answers are looked for."""

    n_best: int
    longest: int
    """Tokens of an answer."""


def best_answers(
    context: str, raws: Sequence[Raw], places: Sequence[NDArray[np.integer]], of: Sequence[Window], search: Search
) -> list[Best]:
    """The best answers of all windows, best first, each text once.

    places: of every window [T, 2] characters, zeros before and behind the context's tokens; its first token tells where these begin.
    A start counts only where it has most context, as in BERT's run_squad.py.
    """
    rows = [_candidates(raw, len(where), window, chosen, search) for raw, where, window, chosen in _joined(raws, places, of)]
    scores = np.concatenate([row[0] for row in rows])
    number = np.concatenate([np.full(len(row[0]), w) for w, row in enumerate(rows)])
    starts, ends = np.concatenate([row[1] for row in rows]), np.concatenate([row[2] for row in rows])
    found: dict[str, Best] = {}
    for i in np.argsort(-scores, kind="stable"):
        where = places[number[i]]
        answer = between(context, int(where[starts[i], 0]), int(where[ends[i], 1]))
        if answer.text and answer.text not in found:
            found[answer.text] = Best(answer=answer, score=float(scores[i]))
            if len(found) == search.n_best:
                break
    return list(found.values())


def nothing(raws: Sequence[Raw]) -> float:
    """The score of no answer: the least of all windows."""
    return float(min(raw[-1, 0] for raw in raws))


def shares(found: Sequence[Best]) -> list[float]:
    """A softmax over the n best."""
    scores = np.asarray([one.score for one in found], np.float64)
    parts = np.exp(scores - scores.max(initial=-np.inf))
    return (parts / parts.sum()).tolist()


def best_text(predicted: Predicted) -> str:
    """The best answer whether or not it was held back for want of confidence; "" where there is none at all."""
    listed = predicted.more.get("nbest")
    if isinstance(listed, list) and listed and isinstance(listed[0], Mapping):
        return str(listed[0]["text"])
    return text_of(predicted)


def text_of(predicted: Predicted) -> str:
    """The answer given, "" for none."""
    value = predicted.value
    assert isinstance(value, tuple), "a question's answers"
    return value[0].text if value and isinstance(value[0], Answer) else ""


def null_odds(predicted: Predicted) -> float:
    """What the model says for there being no answer; 0 where it says nothing of it."""
    odds = predicted.more.get("null_odds", 0.0)
    assert isinstance(odds, int | float), "odds are a number"
    return float(odds)


def official(ids: Sequence[str], predicted: Sequence[Predicted]) -> dict[str, object]:
    """The files that SQuAD's and MRQA's scripts and leaderboards take, as names and contents.

    predictions.json: id -> answer, "" where there is none. nbest_predictions.json: id -> the best answers. Where a model may say that
    there is no answer also null_odds.json, id -> odds, and best_answers.json, the answers whatever the odds: evaluate-v2.0.py gives our
    scores for best_answers.json with null_odds.json and the model's threshold.
    """
    known = list(zip(ids, predicted, strict=True))
    found: dict[str, object] = {
        "predictions.json": {id_: text_of(one) for id_, one in known},
        "nbest_predictions.json": {id_: one.more.get("nbest", []) for id_, one in known},
    }
    if any("null_odds" in one.more for one in predicted):
        found["null_odds.json"] = {id_: null_odds(one) for id_, one in known}
        found["best_answers.json"] = {id_: best_text(one) for id_, one in known}
    return found


def _joined(
    raws: Sequence[Raw], places: Sequence[NDArray[np.integer]], of: Sequence[Window]
) -> list[tuple[Raw, NDArray[np.integer], Window, NDArray[np.bool_]]]:
    return list(zip(raws, places, of, most_context(of), strict=True))


def _candidates(
    raw: Raw, length: int, window: Window, most: NDArray[np.bool_], search: Search
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """(scores, first tokens, last tokens) of a window's answers that may be given, in positions of the window's text."""
    kinds = (len(raw) - 3) // 2
    starts_K1, start_scores_K1 = raw[0].astype(np.int64)[:, None], raw[1].astype(np.float64)[:, None]
    ends_KK, end_scores_KK = raw[2 : 2 + kinds].astype(np.int64), raw[2 + kinds : 2 + 2 * kinds].astype(np.float64)
    first = length - 1 - (window.end - window.start)  # the context's tokens and one separator stand at the end
    inner = np.zeros(length, np.bool_)
    inner[first:-1] = True
    chosen = np.zeros(length, np.bool_)
    chosen[first:-1] = most
    scores_KK = start_scores_K1 + end_scores_KK
    inside = (starts_K1 < length) & (ends_KK < length) & np.isfinite(scores_KK)
    starts, ends = np.minimum(starts_K1, length - 1), np.minimum(ends_KK, length - 1)
    spans = (ends >= starts) & (ends - starts < search.longest) & chosen[starts] & inner[ends]
    row, column = np.nonzero(inside & spans)
    return scores_KK[row, column], starts_K1[row, 0], np.broadcast_to(ends_KK, scores_KK.shape)[row, column]
