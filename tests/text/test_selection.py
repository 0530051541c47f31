"""Filters by what a format knows: each with what it keeps and what it drops, and why."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from kitae.text.readers import read
from kitae.text.selection import Drop, Keep, Selection


@pytest.mark.parametrize(
    ("selection", "kept", "dropped"),
    [
        (
            Selection(keep=Keep(date=("2019-03", "2020"))),
            [
                {"date": "2019-03-01"},
                {"date": "2020-12-31T23:59:59Z"},
                {"date": "20190401"},
                {"date": "2019/4/1"},
                {"date": "2019"},
                {"date": 2019.0},
                {"date": "2019.0"},
                {"date": 20190401.0},
                {"date": "201904"},
                {"date": "２０１９年４月"},
            ],
            {
                "date": [{"date": "2019-02-28"}, {"date": "2021-01-01"}, {"date": "2018"}, {"date": "201902"}, {"date": 2018.0}],
                "no date": [{}, {"date": ""}, {"date": "yesterday"}, {"date": "2019-13"}, {"date": "2019-04-31"}, {"date": "1554076800"}],
            },
        ),
        (
            Selection(keep=Keep(date=("2019-01-15", "2019-01-15"))),
            [{"date": "2019-01-15T00:00:00"}, {"date": "2019-01"}, {"date": "2019.1.15"}],
            {"date": [{"date": "2019-01-14"}, {"date": "2019-01-16"}, {"date": "2019-02"}]},
        ),
        (
            Selection(keep=Keep(language=("ja", "en"), language_probability=0.8)),
            [
                {"language": "ja", "language_probability": 0.8},
                {"language": "en", "language_probability": "0.95"},
                {"language": "ja", "language_probability": 1.0},
            ],
            {
                "language": [{"language": name, "language_probability": 0.99} for name in ("zh", "JA", "jav")],
                "no language": [{"language_probability": 0.99}, {}, {"language": ""}],
                "language probability": [
                    {"language": "ja", "language_probability": 0.7},
                    {"language": "ja", "language_probability": "nan"},
                    {"language": "en", "language_probability": "0.79"},
                ],
                "no language probability": [{"language": "ja", "language_probability": value} for value in ("", "high", "0,9")],
            },
        ),
        (
            Selection(drop=Drop(annotations=("header", "tiny"))),
            [{}, {"annotations": ()}, {"annotations": ("noisy",)}, {"annotations": "[]"}, {"annotations": "null"}],
            {
                "annotation:header": [{"annotations": ("tiny", "header")}, {"annotations": '["header"]'}, {"annotations": "header"}],
                "annotation:tiny": [{"annotations": ("noisy", "tiny")}, {"annotations": "tiny"}, {"annotations": '["tiny", "noisy"]'}],
            },
        ),
        (
            Selection(keep=Keep(language=("ja",)), names={"language": "lang"}),
            [{"lang": "ja", "language": "zh"}, {"lang": "ja"}, {"lang": "ja", "language": ""}],
            {"language": [{"lang": "zh", "language": "ja"}, {"lang": "en"}, {"lang": "ja-JP"}]},
        ),
    ],
)
def test_what_is_kept_and_what_is_dropped(selection: Selection, kept: list, dropped: dict) -> None:
    assert [selection.reason(metadata) for metadata in kept] == [None] * len(kept)
    for reason, several in dropped.items():
        assert [selection.reason(metadata) for metadata in several] == [reason] * len(several)


@pytest.mark.parametrize(
    "date",
    [
        ("2019", "2018"),
        ("2019-02", "2019-01"),
        ("19", "2020"),
        ("2019-1", "2020"),
        ("2019",),
        ("2019-99", "2020"),
        ("2019-02-30", "2020"),
        ("2019", "2020-00"),
        ("２０１９", "2020"),
    ],
)
def test_dates_that_are_none(date: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError):
        Keep(date=date)


def test_a_tables_columns_are_its_metadata(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "date": "2019", "annotations": ["tiny"], "p": 0.5}\n')
    (tmp_path / "a.csv").write_text("text,date\na,2019\n")
    (line,), (row,) = read(tmp_path / "a.jsonl", "jsonl"), read(tmp_path / "a.csv", "csv")
    assert Selection(drop=Drop(annotations=("tiny",))).reason(line.metadata) == "annotation:tiny"
    assert (
        Selection(keep=Keep(language_probability=0.6), names={"language_probability": "p"}).reason(line.metadata) == "language probability"
    )
    assert Selection(keep=Keep(date=("2019", "2019"))).reason(row.metadata) is None
