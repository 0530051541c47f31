"""Repeats are exact visits a pass, weights exact quotas a block; both a pure function of (seed, number), at any number at once."""

import json
import math
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import describe, of_lengths, write

from kitae.core.errors import KitaeError
from kitae.data.order import BLOCK, Permutation, quotas
from kitae.data.plan import Plan
from kitae.data.sampler import Sampler
from kitae.data.shards import Shards
from kitae.tensor.batch import Batch
from kitae.tensor.random import key
from kitae.tensor.world import World
from kitae.train.feed import Feed
from kitae.train.schedule import Timetable

NAMES = ("wiki", "web", "books")
SIZES = (12, 300, 70)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources of mixed documents, without dataset.json."""
    made = tmp_path_factory.mktemp("sources")
    numbers = np.random.default_rng(1).permutation(np.repeat(np.arange(3), SIZES))
    lengths = np.random.default_rng(2).integers(10, 90, len(numbers))
    write(made / "train", of_lengths(lengths.tolist()), max_length=64, sources=numbers.tolist())
    return made


def sampler(folder: Path, *, seed: int = 1, rows: int = 8, micro: int = 4, **facts: object) -> Sampler:
    describe(folder, max_length=64, sources=NAMES, **facts)
    return Sampler(folder, rows_per_step=rows, rows_per_micro_batch=micro, seed=seed)


def source_of_rows(folder: Path) -> list[int]:
    """The source of every row, from the documents its pieces lie in; a row of two sources fails."""
    shards, plan = Shards(folder / "train"), Plan(folder / "train/plan")
    ends, numbers = shards.documents(0), shards.sources(0)
    of_pieces = numbers[np.searchsorted(ends, plan.starts, side="right")]
    found = []
    for first, last in zip(plan.rows[:-1], plan.rows[1:], strict=True):
        (number,) = set(of_pieces[first:last].tolist())
        found.append(number)
    return found


def rows_of(made: Sampler, first: int, count: int) -> list[int]:
    return [made.row(0, k) for k in range(first, first + count)]


def test_rows_are_of_one_source_and_the_plan_counts_them(folder: Path) -> None:
    numbers, plan, shards = source_of_rows(folder), Plan(folder / "train/plan"), Shards(folder / "train")
    assert numbers == sorted(numbers), "rows lie source by source"
    assert [source.rows for source in plan.sources] == [numbers.count(number) for number in range(3)]
    documents, tokens = shards.count_sources(3)
    assert documents == list(SIZES)
    assert [source.tokens for source in plan.sources] == tokens
    assert sum(tokens) == shards.num_tokens == int(plan.lengths.sum())


def test_without_repeats_and_weights_a_pass_is_one_permutation_of_all_rows(folder: Path) -> None:
    made = sampler(folder, seed=5)
    size = Plan(folder / "train/plan").num_rows
    assert made.rows_per_epoch == size
    for epoch in (0, 3):
        assert [made.row(epoch, k) for k in range(size)] == Permutation(size, key(5, "epoch", epoch))(np.arange(size)).tolist()


def test_a_repeated_source_is_visited_exactly_so_often_in_every_pass(folder: Path) -> None:
    made = sampler(folder, repeat={"wiki": 10, "books": 2})
    numbers, plan = source_of_rows(folder), Plan(folder / "train/plan")
    times = {0: 10, 1: 1, 2: 2}
    assert made.rows_per_epoch == sum(times[number] for number in numbers)
    assert made.tokens_per_epoch == sum(times[number] * source.real_positions for number, source in enumerate(plan.sources))
    for epoch in (0, 1):
        visits = Counter(made.row(epoch, k) for k in range(made.rows_per_epoch))
        assert visits == {row: times[number] for row, number in enumerate(numbers)}


def test_every_visit_of_a_row_has_its_own_number(folder: Path) -> None:
    made = sampler(folder, repeat={"wiki": 3})
    rows, visits = made._order(np.arange(4 * made.rows_per_epoch))
    for row, number in enumerate(source_of_rows(folder)):
        assert sorted(visits[rows == row].tolist()) == list(range(4 * (3 if number == 0 else 1)))


def test_every_block_has_its_exact_quotas(folder: Path) -> None:
    weights = {"wiki": 3.0, "web": 1.0, "books": 3.5}
    made, numbers = sampler(folder, weight=weights), np.array(source_of_rows(folder))
    expected = quotas(list(weights.values())).tolist()
    assert sum(expected) == BLOCK
    assert expected == [400, 133, 467]
    for block in (0, 1, 2, 123_456):
        drawn = numbers[rows_of(made, block * BLOCK, BLOCK)]
        assert np.bincount(drawn, minlength=3).tolist() == expected
        assert len(set(drawn[:20].tolist())) > 1, "the sources are mixed within the block"


def test_a_weighted_source_goes_through_its_rows_again_and_again(folder: Path) -> None:
    made, numbers = sampler(folder, weight={"wiki": 3, "web": 1, "books": 3}), source_of_rows(folder)
    rows, visits = made._order(np.arange(3 * BLOCK))
    for number in range(3):
        own = [row for row in range(len(numbers)) if numbers[row] == number]
        mine = [numbers[row] == number for row in rows]
        counts = Counter(rows[mine].tolist())
        full, rest = divmod(sum(mine), len(own))
        assert set(counts.values()) <= {full, full + 1}
        assert sum(count == full + 1 for count in counts.values()) == rest
        assert len(set(zip(rows[mine].tolist(), visits[mine].tolist(), strict=True))) == sum(mine)


@pytest.mark.parametrize("facts", [{}, {"repeat": {"wiki": 4}}, {"weight": {"wiki": 2, "web": 1, "books": 1}}])
def test_batches_are_a_pure_function_whatever_the_micro_batches(folder: Path, facts: dict[str, object]) -> None:
    whole = sampler(folder, rows=48, micro=48, **facts)
    parts = sampler(folder, rows=48, micro=6, **facts)
    for step in (0, 21, 1_000_003):
        together = whole.micro(step, 0)
        assert torch.cat([parts.micro(step, number).rows for number in range(8)]).equal(together.rows)
        assert torch.cat([parts.micro(step, number).ids_BL for number in range(8)]).equal(together.ids_BL)
    assert not sampler(folder, seed=2, rows=48, micro=48, **facts).micro(0, 0).rows.equal(whole.micro(0, 0).rows)


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_ranks_share_a_step_out_completely(folder: Path, size: int) -> None:
    facts = {"weight": {"wiki": 2, "web": 1, "books": 1}}
    whole, parts = sampler(folder, rows=48, micro=48, **facts), sampler(folder, rows=48, micro=6, **facts)

    class Unprepared:
        def prepare(self, batch: Batch, seed: int) -> Batch:
            return batch

    times = Timetable(total=50, warmup=0, save=50, evaluate=50, log=50, milestones=frozenset(), flat=0)
    feeds = [Feed(parts, Unprepared(), seed=1, world=World(rank=rank, size=size), times=times) for rank in range(size)]  # type: ignore[arg-type]
    for step in (0, 1, 21):
        shares = [feed.take(step) for feed in feeds]
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
        dealt = {batch.micro: batch for share in shares for batch in share}
        assert sum(map(len, shares)) == len(dealt) == 8, "no micro-batch goes to two ranks"
        assert torch.cat([dealt[number].rows for number in range(8)]).equal(whole.micro(step, 0).rows)
        assert torch.cat([dealt[number].ids_BL for number in range(8)]).equal(whole.micro(step, 0).ids_BL)


def test_quotas_by_largest_remainder() -> None:
    assert quotas([1, 1, 1]).tolist() == [334, 333, 333]
    assert quotas([0.5, 0.2504, 0.2496]).tolist() == [500, 250, 250]
    assert quotas([5, 3, 0]).tolist() == [625, 375, 0]
    for seed in range(20):
        weights = np.random.default_rng(seed).random(7).tolist()
        found = quotas(weights)
        assert found.sum() == BLOCK
        assert (np.abs(found - np.array(weights) / sum(weights) * BLOCK) < 1).all()


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"weight": {"wiki": 1.0}}, 'source "web" has no weight'),
        ({"weight": {"wiki": 1.0, "web": 1.0, "books": 1.0}, "repeat": {"wiki": 2}}, '"wiki" has a repeat and a weight'),
        ({"weight": {"wiki": 1.0, "web": 1e6, "books": 1e6}}, "less than one row in 1,000"),
        ({"weight": {"wiki": 1.0, "web": 1.0, "books": -1.0}}, "weight of {'books': -1.0}"),
        ({"repeat": {"blogs": 2}}, "repeat of {'blogs': 2}"),
        ({"repeat": {"wiki": 0}}, "repeat of {'wiki': 0}"),
        ({"weight": {"wiki": math.inf, "web": 1.0, "books": 1.0}}, "weight of {'wiki': inf}"),
        ({"weight": {"wiki": math.nan, "web": 1.0, "books": 1.0}}, "weight of {'wiki': nan}"),
        ({"repeat": {"wiki": 10**9}}, "repeat of {'wiki': 1000000000}"),
    ],
)
def test_what_cannot_be_honoured_is_refused(folder: Path, facts: dict[str, object], what: str) -> None:
    with pytest.raises(KitaeError, match=what):
        sampler(folder, **facts)


def test_a_weight_on_a_source_without_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train", of_lengths([50, 60]), max_length=64, sources=[0, 2])
    with pytest.raises(KitaeError, match='"web" has a weight, but no text'):
        sampler(tmp_path, weight={"wiki": 1, "web": 1, "books": 1})
    made = sampler(tmp_path, weight={"wiki": 1, "books": 3})
    numbers = np.array(source_of_rows(tmp_path))
    assert np.bincount(numbers[rows_of(made, 0, BLOCK)]).tolist() == [250, 0, 750]


def test_a_plan_of_the_first_layout_keeps_its_batches(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    path = tmp_path / "old/train/plan/plan.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({name: index[name] for name in ("format", "packing", "max_length", "rows", "pieces", "tokens")}))
    new, old = sampler(folder), sampler(tmp_path / "old")
    assert old.tokens_per_epoch == new.tokens_per_epoch
    assert old.micro(77, 1).ids_BL.equal(new.micro(77, 1).ids_BL)
    assert Plan(tmp_path / "old/train/plan").context == pytest.approx(Plan(folder / "train/plan").context)
