"""Packing whole sentences: none cut but those longer than a row, no token lost, rows as full as sentences allow, equal every time."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import in_sentences

from kitae.data import plan, sentences
from kitae.data.plan import Plan
from kitae.data.shards import Shards, ShardWriter

DOCUMENTS = st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=12), min_size=1, max_size=12)


def packed(folder: Path, lengths: list[list[int]], *, max_length: int, packing: plan.Packing, seed: int = 1, short: float = 0.1) -> Plan:
    """Pack documents of sentences of these lengths, and check all that must hold for any corpus."""
    with ShardWriter(folder, vocab_size=1 << 20) as writer:
        for document in in_sentences(lengths):
            writer.add(document)
    shards = Shards(folder)
    built = plan.build(shards, max_length=max_length, folder=folder / "plan", packing=packing, seed=seed, short=short)
    order = np.argsort(built.starts)
    starts, sizes = built.starts[order], built.lengths[order].astype(np.int64)
    assert sizes.sum() == built.num_tokens == sum(map(sum, lengths))
    assert (sizes > 0).all()
    assert starts[0] == 0
    assert (starts[1:] == starts[:-1] + sizes[:-1]).all(), "pieces neither overlap nor leave a token out"
    documents = np.cumsum([sum(document) for document in lengths])
    first, last = (np.searchsorted(documents, at, side="right") for at in (starts, starts + sizes - 1))
    assert (first == last).all(), "a piece lies across documents"
    cuts = allowed_cuts(lengths, max_length - 2)
    assert set((starts + sizes).tolist()) <= cuts, "a sentence that fits into a row was cut"
    splits = np.zeros(len(starts), dtype=np.int64)
    if built.splits is not None:
        splits = built.splits[order].astype(np.int64)
        assert set((starts + splits)[splits > 0].tolist()) <= cuts, "a pair was split within a sentence"
        assert (splits < sizes).all()
    assert built.num_pairs == (splits > 0).sum()
    per_piece = built.lengths.astype(np.int64) + 2 + (0 if built.splits is None else built.splits > 0)
    per_row = np.add.reduceat(per_piece, built.rows[:-1])
    assert per_row.max() <= max_length
    assert built.real_positions == per_row.sum()
    assert built.context == pytest.approx((per_piece**2).sum() / per_piece.sum())
    return built


def allowed_cuts(lengths: list[list[int]], capacity: int) -> set[int]:
    """Ends of sentences, and any place in those that are longer than a row."""
    found, at = set(), 0
    for document in lengths:
        for length in document:
            found |= {at + length} if length <= capacity else set(range(at + 1, at + length + 1))
            at += length
    return found


@settings(max_examples=80, deadline=None)
@given(lengths=DOCUMENTS, max_length=st.integers(8, 40), packing=st.sampled_from(["sentences", "pairs"]), window=st.integers(1, 4))
def test_any_corpus_is_packed_without_loss(tmp_path_factory, lengths, max_length: int, packing, window: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sentences, "WINDOW", window)
        patch.setattr(sentences, "PORTION", 5)
        patch.setattr(sentences, "_PORTION_ROWS", window)
        patch.setattr(sentences, "_TOKENS", 100)
        packed(tmp_path_factory.mktemp("plan"), lengths, max_length=max_length, packing=packing)


def natural(count: int, *, seed: int, mean: float = 15.0) -> list[list[int]]:
    """Documents of about `mean` sentences of 29 tokens in the mean, both log-normal."""
    random = np.random.default_rng(seed)
    counts = random.lognormal(np.log(mean), 0.9, count).astype(int).clip(1)
    return [random.lognormal(3.2, 0.6, size).astype(int).clip(1).tolist() for size in counts]


@pytest.mark.parametrize("packing", ["sentences", "pairs"])
@pytest.mark.parametrize(
    ("name", "max_length", "lengths"),
    [
        ("natural", 128, natural(400, seed=1)),
        ("natural at 512", 512, natural(600, seed=2)),
        ("long documents", 128, natural(12, seed=3, mean=500)),
        ("short sentences", 128, [np.random.default_rng(i).integers(4, 14, 15).tolist() for i in range(300)]),
        ("two sentences each", 128, np.random.default_rng(4).integers(5, 60, (900, 2)).tolist()),
        ("one sentence each", 128, np.random.default_rng(5).integers(5, 50, (1500, 1)).tolist()),
    ],
)
def test_rows_are_full(tmp_path: Path, name: str, max_length: int, lengths: list[list[int]], packing: plan.Packing) -> None:
    built = packed(tmp_path, lengths, max_length=max_length, packing=packing)
    assert built.fill >= 0.97, (name, built.fill)


def test_where_sentences_do_not_allow_it_rows_stay_empty_and_sentences_whole(tmp_path: Path) -> None:
    built = packed(tmp_path, [[70] * 10] * 20, max_length=128, packing="sentences")
    assert built.num_rows == 200
    assert set(built.lengths.tolist()) == {70}


def test_a_sentence_longer_than_a_row_is_cut_where_the_row_ends_and_its_rest_joins_the_next(tmp_path: Path) -> None:
    built = packed(tmp_path, [[12, 70, 15, 29, 5]], max_length=32, packing="sentences")
    assert list(zip(built.starts.tolist(), built.lengths.tolist(), strict=True)) == [
        (0, 30),
        (30, 30),
        (60, 22),
        (82, 15),
        (97, 29),
        (126, 5),
    ]
    pairs = packed(tmp_path / "pairs", [[12, 70]], max_length=32, packing="pairs", short=0)
    assert pairs.splits is not None
    assert list(zip(pairs.lengths.tolist(), pairs.splits.tolist(), strict=True)) == [(29, 12), (30, 0), (23, 0)]


def test_documents_stay_nearly_whole(tmp_path: Path) -> None:
    lengths = natural(600, seed=6)
    built = packed(tmp_path, lengths, max_length=512, packing="sentences")
    needed = sum(-(-sum(document) // 510) for document in lengths)
    assert built.num_pieces <= 2 * needed


@pytest.mark.parametrize("packing", ["sentences", "pairs"])
@pytest.mark.parametrize("max_length", [2048, 8192])
def test_documents_of_many_sentences_fill_long_rows(tmp_path: Path, max_length: int, packing: plan.Packing) -> None:
    built = packed(tmp_path, [[10] * 2000] * 12, max_length=max_length, packing=packing, short=0)
    needed = 12 * -(-20_000 // (max_length - 2))
    assert built.num_pieces <= 1.3 * needed
    assert built.lengths.max() > 0.98 * max_length
    assert built.fill >= 0.97


def test_natural_sentences_fill_long_rows_with_few_pieces(tmp_path: Path) -> None:
    built = packed(tmp_path, natural(12, seed=10, mean=3000), max_length=8192, packing="sentences")
    assert built.num_pieces <= 1.6 * built.num_rows
    assert built.fill >= 0.97


def test_most_pieces_of_pairs_are_pairs(tmp_path: Path) -> None:
    built = packed(tmp_path, natural(400, seed=1), max_length=128, packing="pairs")
    assert built.num_pairs >= 0.75 * built.num_pieces
    assert built.splits is not None
    share = built.splits[built.splits > 0] / built.lengths[built.splits > 0]
    assert 0.4 < share.mean() < 0.6, "first segments are as long as second ones in the mean"


def test_a_share_of_rows_begins_short(tmp_path: Path) -> None:
    lengths = natural(25, seed=7, mean=300)  # long documents, whose ends are few
    means = []
    for short in (0.0, 0.1, 1.0):
        built = packed(tmp_path / str(short), lengths, max_length=512, packing="pairs", short=short)
        means.append(float((built.lengths[built.rows[:-1]] < 300).mean()))
    assert means[0] < 0.15
    assert means[0] + 0.03 < means[1] < means[0] + 0.1
    assert means[2] > 0.5


@pytest.mark.parametrize("packing", ["sentences", "pairs"])
def test_the_same_documents_give_the_same_bytes(tmp_path: Path, packing: plan.Packing) -> None:
    for name in ("a", "b"):
        packed(tmp_path / name, natural(60, seed=8), max_length=64, packing=packing)
    files = sorted(path.name for path in (tmp_path / "a/plan").iterdir())
    assert files == sorted(["lengths.bin", "plan.json", "rows.bin", "starts.bin", *(["splits.bin"] if packing == "pairs" else [])])
    for file in files:
        assert (tmp_path / "a/plan" / file).read_bytes() == (tmp_path / "b/plan" / file).read_bytes()


def test_shard_borders_do_not_matter(tmp_path: Path) -> None:
    lengths = natural(30, seed=9)
    for name, flush in (("one", 1 << 18), ("many", 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("kitae.data.shards._FLUSH_WORDS", flush)
            with ShardWriter(tmp_path / name, vocab_size=1 << 20, shard_tokens=1000) as writer:
                for document in in_sentences(lengths):
                    writer.add(document)
        plan.build(Shards(tmp_path / name), max_length=64, folder=tmp_path / name / "plan", packing="pairs")
    assert len(Shards(tmp_path / "many")) > 5
    for file in ("starts.bin", "lengths.bin", "rows.bin", "splits.bin"):
        assert (tmp_path / "one/plan" / file).read_bytes() == (tmp_path / "many/plan" / file).read_bytes()
