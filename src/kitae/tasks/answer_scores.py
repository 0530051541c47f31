"""How answers to questions are scored: the rules of SQuAD 1.1 and 2.0, of MRQA, and of JSQuAD.

Sources: evaluate-v1.1.py and evaluate-v2.0.py of SQuAD (Rajpurkar et al., 2016 and 2018), mrqa_official_eval.py of the MRQA 2019 shared
task, and the changes to transformers' squad_metrics.py that JGLUE's repository prescribes. Their per cent are shares here.
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kitae.tasks.examples import Answer, Gold
from kitae.tasks.metrics import SHARE, Floats, Metric, share

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)
Compare = Callable[[str, str], float]
"""(answer that counts as right, answer given) -> share."""


def english(text: str) -> str:
    """In small letters, without ASCII punctuation and articles, white space as single blanks."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def japanese(text: str) -> str:
    """In small letters, without full stops at the very end, white space as single blanks."""
    return " ".join(text.lower().rstrip("。").split())


def overlap(true: Sequence[str], given: Sequence[str]) -> float:
    """F1 of two bags, 0 where they share nothing."""
    same = sum((Counter(true) & Counter(given)).values())
    if not same:
        return 0.0
    precision, recall = same / len(given), same / len(true)
    return 2 * precision * recall / (precision + recall)


def _same_words(true: str, given: str) -> float:
    return float(english(true) == english(given))


def _words(true: str, given: str) -> float:
    """SQuAD 1.1 and MRQA."""
    return overlap(english(true).split(), english(given).split())


def _words_or_none(true: str, given: str) -> float:
    """SQuAD 2.0: nothing equals nothing."""
    a, b = english(true).split(), english(given).split()
    return overlap(a, b) if a and b else float(a == b)


def _same_characters(true: str, given: str) -> float:
    return float(japanese(true) == japanese(given))


def _characters(true: str, given: str) -> float:
    a, b = list(japanese(true)), list(japanese(given))
    return overlap(a, b) if a and b else float(a == b)


def texts(gold: Gold | None) -> list[str]:
    """The letters of a question's answers."""
    assert isinstance(gold, tuple), "a question's answers"
    return [one.text for one in gold if isinstance(one, Answer)]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The best comparison over all answers that count as right."""

    compare: Compare
    normal: Callable[[str], str] | None = None
    """Answers of which this leaves nothing do not count (SQuAD 2.0, JSQuAD); None: they do."""

    def score(self, gold: Gold | None, given: str) -> float:
        """Of one question. One without an answer wants "" given."""
        right = texts(gold)
        if self.normal is not None:
            right = [text for text in right if self.normal(text)]
        return max(self.compare(text, given) for text in right or [""])

    def items(self, golds: Sequence[Gold | None], values: Sequence[Gold], labels: Sequence[str]) -> Floats:
        """[N, 2]: the score and 1."""
        del labels
        rows = [(self.score(gold, (texts(value) or [""])[0]), 1.0) for gold, value in zip(golds, values, strict=True)]
        return np.asarray(rows, np.float64).reshape(-1, 2)


RULES: Mapping[str, Rule] = {
    "f1": Rule(compare=_words_or_none, normal=english),
    "exact": Rule(compare=_same_words, normal=english),
    "f1_v1": Rule(compare=_words),
    "exact_v1": Rule(compare=_same_words),
    "f1_characters": Rule(compare=_characters, normal=japanese),
    "exact_characters": Rule(compare=_same_characters, normal=japanese),
}
"""f1 and exact are SQuAD 2.0's; ..._v1 SQuAD 1.1's and MRQA's (an answer of articles or punctuation only has F1 0 there);
..._characters JSQuAD's."""
METRICS: Mapping[str, Metric] = {name: Metric(name=name, items=rule.items, value=share, within=SHARE) for name, rule in RULES.items()}


def best_threshold(rows: Sequence[tuple[float, float, bool, bool]]) -> tuple[float, float]:
    """(best score, its threshold) as evaluate-v2.0.py finds them: questions above the threshold have no answer.

    rows: (odds of no answer, score of the answer given, has it an answer, was one given) of every question. The threshold may stand in
    the middle of questions with equal odds, as the official one does; it is 0 where no answer at all is best.
    """
    current = best = float(sum(not has for _, _, has, _ in rows))
    threshold = 0.0
    for odds, score, has, given in sorted(rows, key=lambda row: row[0]):
        current += score if has else -1.0 if given else 0.0
        if current > best:
            best, threshold = current, odds
    return best / len(rows), threshold


def usable_threshold(rows: Sequence[tuple[float, float, bool, bool]]) -> float:
    """The odds of no answer above which it is best to give none; between the odds of two questions, or below or above all."""
    ordered = sorted(rows, key=lambda row: row[0])
    gains = np.cumsum([score if has else -1.0 if given else 0.0 for _, score, has, given in ordered])
    odds = [row[0] for row in ordered]
    last = [i for i in range(len(odds)) if i + 1 == len(odds) or odds[i + 1] > odds[i]]  # a threshold can stand behind these
    best = max(last, key=lambda i: (gains[i], -i))
    if gains[best] <= 0:
        return odds[0] - 1.0
    return odds[best] + 1.0 if best + 1 == len(odds) else (odds[best] + odds[best + 1]) / 2


def squad2_fields(golds: Sequence[Gold | None], values: Sequence[Gold], raw: Sequence[str], odds: Sequence[float]) -> dict[str, float]:
    """What evaluate-v2.0.py prints beside exact and f1, as shares.

    raw: the best answer of each question before the threshold; odds: of there being none.
    """
    has = [bool(texts(gold)) for gold in golds]
    found: dict[str, float] = {"total": float(len(golds))}
    for name in ("exact", "f1"):
        scores = METRICS[name].items(golds, values, ())[:, 0]
        for prefix, wanted in (("HasAns", True), ("NoAns", False)):
            of = [score for score, known in zip(scores, has, strict=True) if known is wanted]
            if of:
                found[f"{prefix}_{name}"] = float(sum(of) / len(of))
                found[f"{prefix}_total"] = float(len(of))
        rows = [
            (chance, RULES[name].score(gold, text), known, bool(text))
            for chance, gold, text, known in zip(odds, golds, raw, has, strict=True)
        ]
        found[f"best_{name}"], found[f"best_{name}_thresh"] = best_threshold(rows)
    return found
