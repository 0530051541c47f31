"""A mask rate that changes while training: values by hand, as a function of the step alone, and what is refused."""

import dataclasses

import pytest
from pydantic import ValidationError
from rows import SPECIAL, VOCAB, batch, bert

from kitae.objectives import table
from kitae.objectives.mlm import LONGEST, MaskingConfig, MlmConfig
from kitae.objectives.rates import mean_rate, parse_rate, rate_at


def test_values_worked_by_hand() -> None:
    falling = parse_rate([[0, 0.3], [0.5, 0.2], [1, 0.1]])
    assert [rate_at(falling, part) for part in (0, 0.25, 0.5, 0.9, 1)] == pytest.approx([0.3, 0.25, 0.2, 0.12, 0.1])
    assert mean_rate(falling) == pytest.approx(0.2)
    late = parse_rate([[0.5, 0.4], [0.75, 0.2]])
    assert [rate_at(late, part) for part in (0.0, 0.5, 0.625, 0.9)] == pytest.approx([0.4, 0.4, 0.3, 0.2])
    assert mean_rate(late) == pytest.approx(0.5 * 0.4 + 0.25 * 0.3 + 0.25 * 0.2)
    assert rate_at(0.15, 0.3) == mean_rate(0.15) == 0.15


@pytest.mark.parametrize("unit", ["token", "word", "span", "ngram"])
def test_masks_follow_the_schedule_and_heldout_text_its_end(unit: str) -> None:
    config = MlmConfig.model_validate({"rate": [[0.0, 0.5], [1.0, 0.1]], "unit": unit})
    objective = table.build(bert(), config, SPECIAL, VOCAB, 1)
    plain = batch([[100]] * 4, length=104, word=2)
    assert plain.progress == 1.0, "of held-out batches"
    for progress, share in ((0.125, 0.45), (0.875, 0.15), (1.0, 0.1)):
        prepared = objective.prepare(dataclasses.replace(plain, progress=progress), 1)
        again = objective.prepare(dataclasses.replace(plain, progress=progress), 1)
        assert prepared.targets["picks"].equal(again.targets["picks"])
        assert abs(objective.counts(prepared)["mlm"] - 400 * share) < 2 * LONGEST.get(unit, 1), "nearer than one run, of words of 2 tokens"
        assert prepared.progress == progress


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        (0, "must be above 0"),
        (1.5, "at most 1"),
        ("high", "neither a share nor a list"),
        (True, "neither a share nor a list"),
        (float("nan"), "neither a share nor a list"),
        ([], "neither a share nor a list"),
        ([0.3, 0.1], "neither a share nor a list"),
        ([[0.0, 0.3, 1], [1.0, 0.1, 2]], "neither a share nor a list"),
        ([[0.5, 0.3], [0.5, 0.1]], "do not rise"),
        ([[0.5, 0.3], [0.2, 0.1]], "do not rise"),
        ([[0.0, 0.3], [1.2, 0.1]], "do not rise"),
        ([[0.0, 0.0], [1.0, 0.1]], "must be above 0"),
    ],
)
def test_what_is_no_rate_is_refused(rate: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MaskingConfig.model_validate({"rate": rate})


def test_a_schedule_survives_json() -> None:
    config = MlmConfig.model_validate({"rate": [[0, 0.3], [1, 0.15]]})
    assert MlmConfig.model_validate_json(config.model_dump_json()) == config
    assert config.semantic()["rate"] == [[0.0, 0.3], [1.0, 0.15]]
