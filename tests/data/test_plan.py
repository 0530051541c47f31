"""Packing: every token in exactly one piece, no piece across documents, rows at least 99 % full, the same every time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kitae.data import plan
from kitae.data.plan import Plan
from kitae.data.shards import Shards, ShardWriter


def packed(folder: Path, lengths: list[int], *, max_length: int) -> Plan:
    """Pack documents of these lengths and check all that must hold for any corpus."""
    with ShardWriter(folder, vocab_size=100) as writer:
        for length in lengths:
            writer.add([[(7,) * length]])
    shards = Shards(folder)
    built = plan.build(shards, max_length=max_length, folder=folder / "plan")
    order = np.argsort(built.starts)
    starts, sizes = built.starts[order], built.lengths[order].astype(np.int64)
    assert sizes.sum() == built.num_tokens == sum(lengths)
    assert (sizes > 0).all()
    assert starts[0] == 0
    assert (starts[1:] == starts[:-1] + sizes[:-1]).all(), "pieces neither overlap nor leave a token out"
    ends = np.cumsum(lengths)
    first, last = (np.searchsorted(ends, at, side="right") for at in (starts, starts + sizes - 1))
    assert (first == last).all(), "a piece lies across documents"
    per_row = np.add.reduceat(built.lengths.astype(np.int64) + 2, built.rows[:-1])
    assert per_row.max() <= max_length
    assert len(per_row) == built.num_rows
    assert built.rows[-1] == built.num_pieces
    return built


@settings(max_examples=80, deadline=None)
@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=60), max_length=st.integers(8, 40))
def test_any_corpus_is_packed_without_loss(tmp_path_factory, lengths: list[int], max_length: int) -> None:
    packed(tmp_path_factory.mktemp("plan"), lengths, max_length=max_length)


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("all 70 of 128", [70] * 5000),
        ("all 120 of 128", [120] * 5000),
        ("all 100 of 128", [100] * 5000),
        ("all of one row and one token", [127] * 5000),
        ("two kinds", [125, 60] * 3000),
        ("all of three", [3] * 20000),
        ("one huge document", [1_000_003]),
        ("lognormal", np.random.default_rng(1).lognormal(5.5, 1.2, 5000).astype(int).clip(1).tolist()),
        ("short messages", np.random.default_rng(2).integers(4, 40, 20000).tolist()),
        ("abstracts of half a row and more", np.random.default_rng(3).integers(66, 123, 8000).tolist()),
    ],
)
def test_rows_are_full(tmp_path: Path, name: str, lengths: list[int]) -> None:
    built = packed(tmp_path, lengths, max_length=128)
    assert built.fill >= 0.99, (name, built.fill)


def test_rows_are_full_at_512(tmp_path: Path) -> None:
    lengths = np.random.default_rng(4).lognormal(5.5, 1.2, 8000).astype(int).clip(1).tolist()
    assert packed(tmp_path, lengths, max_length=512).fill >= 0.99


@pytest.mark.parametrize("length", [1, 124])
def test_where_99_percent_cannot_be_the_two_last_positions_stay_empty(tmp_path: Path, length: int) -> None:
    built = packed(tmp_path, [length] * 4200, max_length=128)
    assert built.fill == pytest.approx(126 / 128, abs=1e-3)


def test_a_corpus_below_one_row(tmp_path: Path) -> None:
    built = packed(tmp_path, [3, 4], max_length=128)
    assert built.num_rows == 1
    assert built.num_pieces == 2


def test_natural_documents_are_seldom_cut(tmp_path: Path) -> None:
    lengths = np.random.default_rng(5).lognormal(4.0, 0.8, 20000).astype(int).clip(1).tolist()
    built = packed(tmp_path, lengths, max_length=512)
    needed = sum(-(-length // 510) for length in lengths)
    assert built.num_pieces <= 1.02 * needed
    assert built.fill >= 0.99


def test_the_same_documents_give_the_same_bytes(tmp_path: Path) -> None:
    lengths = np.random.default_rng(6).integers(1, 300, 2000).tolist()
    for name in ("a", "b"):
        packed(tmp_path / name, lengths, max_length=128)
    for file in ("starts.bin", "lengths.bin", "rows.bin", "plan.json"):
        assert (tmp_path / "a/plan" / file).read_bytes() == (tmp_path / "b/plan" / file).read_bytes()


def test_no_scratch_files_stay(tmp_path: Path) -> None:
    packed(tmp_path, [50] * 100_000, max_length=128)
    assert sorted(item.name for item in (tmp_path / "plan").iterdir()) == ["lengths.bin", "plan.json", "rows.bin", "starts.bin"]
