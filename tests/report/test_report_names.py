"""Names of encoders for people: as short as they can be told apart."""

import pytest

from kitae.report.names import addresses, short_names


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["adapt", "tfidf"], ["adapt", "tfidf"]),
        (["/data/runs/kyoto/pretrain", "/data/runs/kyoto/adapt", "tfidf"], ["pretrain", "adapt", "tfidf"]),
        (["/a/one/pretrain", "/a/two/pretrain"], ["one/pretrain", "two/pretrain"]),
        (["/a/x/one/pretrain", "/b/x/one/pretrain"], ["a/x/one/pretrain", "b/x/one/pretrain"]),
        (["runs/pretrain", "pretrain"], ["runs/pretrain", "pretrain"]),
        (["x/runs/pretrain", "runs/pretrain"], ["x/runs/pretrain", "runs/pretrain"]),
        (["org/bert-base", "other/bert-large/"], ["bert-base", "bert-large"]),
        (["a/b", "a/b/"], ["a/b", "a/b/"]),
    ],
)
def test_the_shortest_ending_that_no_other_name_has(names: list[str], short: list[str]) -> None:
    made = short_names(names)
    assert list(made.items()) == list(zip(names, short, strict=True))
    assert len(set(made.values())) == len(names)


def test_what_stands_beside_is_told_apart_too_and_the_folders_are_said_once() -> None:
    made = short_names(["models/bert", "tfidf"], ["bert"])
    assert made == {"models/bert": "models/bert", "tfidf": "tfidf"}
    assert addresses(made) == ""
    assert addresses(short_names(["/m/bert", "tfidf", "/m/gpt"])) == "bert is /m/bert; gpt is /m/gpt"
