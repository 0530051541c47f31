"""Dealing whole micro-batches to unequal processes: pure arithmetic, and what is refused."""

import pytest
import torch
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.world import World
from kitae.train.config import TrainConfig, step_rows
from kitae.train.feed import Feed
from kitae.train.schedule import timetable
from kitae.train.shares import Shares, balanced, dealt

SEED = {"0": 80, "1": 80, "2": 48, "3": 48}


def settings(**fields: object) -> TrainConfig:
    return config(**{"batch": "256 rows", "micro_batch": "8 rows"} | fields)


def world(*nodes: int, hosts: tuple[str, ...] = ()) -> World:
    return World(size=len(nodes), nodes=nodes, hosts=hosts or tuple("abcd"[node] for node in nodes))


@pytest.mark.parametrize(
    ("shares", "place", "weights"),
    [
        (SEED, world(0, 0, 1, 1, 2, 2, 3, 3), (5, 5, 5, 5, 3, 3, 3, 3)),
        (SEED, world(0, 1, 2, 3), (10, 10, 6, 6)),
        (SEED, world(0, 0, 0, 1, 2, 3, 3), (4, 3, 3, 10, 6, 3, 3)),  # any number of devices per machine
        (SEED, world(3, 1, 2, 0), (6, 10, 6, 10)),
        ({"a": 192, "b": 64}, world(0, 1, 0), (12, 8, 12)),
        ({"a": 192, "b": 56, "c": 8}, world(0, 1, 0), (12, 7, 12)),  # c does not take part
        ([128, 128, 0], world(0, 0, 0), (16, 16, 0)),
        (None, world(0, 0), ()),
        (SEED, World(), ()),
        ([128, 128], World(), ()),
    ],
)
def test_shares_of_machines_and_ranks(shares: object, place: World, weights: tuple[int, ...]) -> None:
    found = dealt(settings(shares=shares), 8, place)
    assert found == Shares(place.size, weights)
    for whole in (32, 31, 8, 3, 1):
        parts = [list(found.of(rank, whole)) for rank in range(place.size)]
        assert sorted(number for part in parts for number in part) == list(range(whole))
        assert found.most(whole) == max(map(len, parts))
    if sum(weights) == 32:
        assert [len(found.of(rank, 32)) for rank in range(place.size)] == list(weights)


@pytest.mark.parametrize(
    ("shares", "place", "message"),
    [
        (SEED, world(0, 1), "machines 0, 1 take part"),
        ({"0": 256}, world(0, 1), "machines 0, 1 take part"),
        ({"a": 192, "c": 64}, world(0, 1), "a, b take part"),
        ([128, 128], world(0, 0, 0), "for 2 processes, but 3 take part"),
    ],
)
def test_shares_of_other_processes_are_refused(shares: object, place: World, message: str) -> None:
    with pytest.raises(KitaeError, match=message):
        dealt(settings(shares=shares), 8, place)


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"shares": [128, 64]}, ["come to 192 rows, but batch = 256 rows", 'batch = "192 rows"']),
        (
            {"shares": SEED, "micro_batch": "32 rows"},
            ["machine 0, 80 rows, is no whole", "of 32 rows", "take 64 or 96 rows", "16, 8, 4, 2, 1 rows"],
        ),
        ({"shares": [250, 6]}, ["rank 0, 250 rows", "take 248 or 256 rows"]),
    ],
)
def test_a_batch_that_cannot_be_dealt_is_refused_before_the_start(fields: dict, messages: list[str]) -> None:
    with pytest.raises(KitaeError) as caught:
        step_rows(settings(**fields), 128)
    for message in messages:
        assert message in str(caught.value)


@pytest.mark.parametrize("shares", [{"0": 128, "2": 128}, {"0": 128, "b": 128}, {"a": 0}, [], [-8, 264], "fast", {"a": 1.5}])
def test_shares_that_make_no_sense(shares: object) -> None:
    with pytest.raises(ValueError, match="shares"):
        settings(shares=shares)


def test_shares_and_the_automatic_batch_are_operational() -> None:
    plain = settings().semantic()
    assert settings(shares=SEED).semantic() == plain
    assert "shares" not in plain
    automatic, default = (
        TrainConfig.model_validate({"length": "4 steps", "batch": "auto"}),
        TrainConfig.model_validate({"length": "4 steps"}),
    )
    assert automatic.shares == "auto"
    assert automatic.semantic() == default.semantic()
    assert step_rows(settings(shares="auto"), 128) == (256, 8)


def test_who_is_faster_gets_more() -> None:
    assert balanced([1.0, 1.0], 7) == (4, 3)
    assert balanced([1.0, 2.0, 4.0], 7) == (4, 2, 1)
    assert balanced([1.0, 100.0], 5) == (5, 0)
    assert balanced([0.5], 3) == (3,)


def test_a_growing_batch_is_dealt_in_proportion() -> None:
    """The rows of a step are the same as for one process, and nobody's share is left out."""
    times = timetable(config(batch_warmup={"start": "4 rows", "over": "8 steps"}, batch="16 rows", micro_batch="4 rows"), ToyBatches(16, 4))
    shares = Shares(2, (3, 1))
    feeds = [Feed(ToyBatches(16, 4), Toy(), seed=1, world=World(rank=rank, size=2), times=times, shares=shares) for rank in (0, 1)]
    one = Feed(ToyBatches(16, 4), Toy(), seed=1, world=World(), times=times)
    for step in (0, 3, 6, 9):
        both = [batch for feed in feeds for batch in feed.take(step)]
        assert [batch.micro for batch in both] == list(range(len(both)))
        for mine, whole in zip(both, one.take(step), strict=True):
            assert torch.equal(mine.ids_BL, whole.ids_BL)
        assert feeds[0].most(step) == max(len(feed.take(step)) for feed in feeds)
