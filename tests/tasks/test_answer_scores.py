"""Scores of answers equal the official scripts of SQuAD 1.1, SQuAD 2.0, MRQA and JGLUE on the same predictions.

The numbers are what those scripts gave for CASES: evaluate-v1.1.py, evaluate-v2.0.py, mrqa_official_eval.py, and the functions that JGLUE's
patch makes of transformers' squad_metrics.py.
"""

from collections.abc import Sequence

import numpy as np
import pytest

from kitae.tasks.answer_scores import METRICS, RULES, best_threshold, squad2_fields, usable_threshold
from kitae.tasks.examples import Answer

Case = tuple[list[str], str, float]
CASES: list[Case] = [  # answers that count as right, answer given, odds of no answer
    (["Kyoto"], "Kyoto", -3.0),
    (["The Kyoto Protocol", "Kyoto Protocol"], "the  kyoto protocol.", -2.0),
    (["in 1997", "1997"], "december 1997", 0.5),
    (["a"], "the", -1.0),
    (["a"], "", 2.0),
    (["..."], "...", -0.5),
    ([], "", 3.0),
    ([], "Osaka", 1.0),
    ([], "the", 1.0),
    ([], "  ", -4.0),
    (["caf\u00e9 \u00fcber"], "CAF\u00c9 UBER", -1.5),
    (["caf\u00e9 \u00fcber"], "cafe\u0301 \u00fcber", -1.5),
    (["東京都。"], "東京都", -2.5),
    (["東京都"], "東京都。。 ", -2.5),
    (["東京都"], "京都", -0.1),
    (["十二 月", "12月"], "十二\u3000月", 0.0),
    (["。"], "。", 0.2),
    (["\uff21\uff22\uff23"], "\uff41\uff42\uff43", 0.3),
    (["New York City, N.Y.", "NYC"], "new-york city NY", -2.0),
    (["well-known"], "well known", -2.0),
    (["one two two three"], "two two two", -2.0),
    (["an apple a day"], "apple day", -2.0),
    (["theatre"], "the atre", -2.0),
    (["\U0001f600 smile"], "\U0001f600", 4.0),
    (["a\u00a0b"], "A b", 0.0),
    (["Normandy", "Normandy, France", "a region in France"], "France", -0.7),
    (["10th and 11th centuries"], "in the 10th and 11th centuries", -3.3),
]
ANSWERED = [case for case in CASES if case[0]]
WITH_WORDS = [case for case in CASES if case[0] not in (["a"], ["..."])]


def answers(texts: Sequence[str]) -> tuple[Answer, ...]:
    return tuple(Answer(start=-1, text=text) for text in texts)


def score(name: str, cases: Sequence[Case]) -> float:
    golds = [answers(right) for right, _, _ in cases]
    return 100 * METRICS[name].score(golds, [answers([given] if given else []) for _, given, _ in cases], ())


@pytest.mark.parametrize(
    ("name", "cases", "expected"),
    [
        ("exact_v1", ANSWERED, 43.47826086956522),
        ("f1_v1", ANSWERED, 52.311939268460996),
        ("exact", CASES, 48.148148148148145),
        ("f1", CASES, 66.78424456202234),
        ("exact_characters", CASES, 33.333333333333336),
        ("f1_characters", CASES, 72.61006221922322),
    ],
)
def test_equal_to_the_official_scripts(name: str, cases: list[Case], expected: float) -> None:
    assert score(name, cases) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("f1", [1, 1, 2 / 3, 1, 1, 1, 1, 0, 1, 1, 0.5, 0.5, 0, 0, 0, 1, 1, 1, 4 / 7, 0, 4 / 7, 1, 0, 2 / 3, 1, 2 / 3, 8 / 9]),
        ("f1_v1", [1, 1, 2 / 3, 0, 0, 0, 0.5, 0.5, 0, 0, 0, 1, 1, 1, 4 / 7, 0, 4 / 7, 1, 0, 2 / 3, 1, 2 / 3, 8 / 9]),
        ("exact_characters", [1, 0, 0, 0, 0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0]),
    ],
)
def test_every_question_by_itself(name: str, expected: list[float]) -> None:
    cases = ANSWERED if name == "f1_v1" else CASES
    found = [RULES[name].score(answers(right), given) for right, given, _ in cases]
    assert found == pytest.approx(expected, abs=1e-6)


def fields(cases: Sequence[Case], threshold: float) -> dict[str, float]:
    golds = [answers(right) for right, _, _ in cases]
    values = [answers([given] if given and odds <= threshold else []) for _, given, odds in cases]
    found = squad2_fields(golds, values, [given for _, given, _ in cases], [odds for _, _, odds in cases])
    return found | {name: METRICS[name].score(golds, values, ()) for name in ("exact", "f1")}


def test_every_field_of_squad_2_equals_the_official_script() -> None:
    assert fields(CASES, 100.0) == pytest.approx(
        {
            "exact": 0.48148148148148145, "f1": 0.6678424456202234, "total": 27,
            "HasAns_exact": 0.4347826086956522, "HasAns_f1": 0.6535541752933057, "HasAns_total": 23,
            "NoAns_exact": 0.75, "NoAns_f1": 0.75, "NoAns_total": 4,
            "best_exact": 0.4444444444444444, "best_exact_thresh": 0.3, "best_f1": 0.60611405055849495, "best_f1_thresh": 0.5,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [
        (-2.75, {"exact": 0.20833333333333332, "f1": 0.24537037037037038, "HasAns_exact": 0.05, "HasAns_f1": 0.09444444444444445}),
        (0.25, {"exact": 0.41666666666666664, "f1": 0.57076719576719576, "HasAns_exact": 0.3, "HasAns_f1": 0.4849206349206349}),
    ],
)
def test_a_threshold_equals_the_official_script(threshold: float, expected: dict[str, float]) -> None:
    same = {"best_exact": 0.41666666666666664, "best_exact_thresh": 0.3, "best_f1": 0.5985449735449735, "best_f1_thresh": 0.5}
    counts = {"total": 24, "HasAns_total": 20, "NoAns_total": 4, "NoAns_exact": 1.0, "NoAns_f1": 1.0}
    assert fields(WITH_WORDS, threshold) == pytest.approx(expected | same | counts)


@pytest.mark.parametrize("seed", range(30))
def test_the_threshold_that_is_applied_is_the_best_of_all(seed: int) -> None:
    generator = np.random.default_rng(seed)
    count = int(generator.integers(1, 12))
    rows = [
        (float(generator.integers(4)), float(generator.choice([0.0, 0.5, 1.0])) if has else 0.0, has, bool(generator.random() < 0.8))
        for has in (generator.random(count) < 0.5).tolist()
    ]

    def under(threshold: float) -> float:
        return sum((score if has else float(not given)) if odds <= threshold else float(not has) for odds, score, has, given in rows)

    chosen = usable_threshold(rows)
    assert under(chosen) == max(under(threshold) for threshold in (-9.0, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 9.0))
    assert best_threshold(rows)[0] * count >= under(chosen), "the official one may cut between questions of equal odds"
