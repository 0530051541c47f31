"""Batches: rows laid out right, every row once an epoch, a pure function of (seed, step, micro), any step at once."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import SPECIAL, dataset, of_lengths, write
from torch import Tensor

from kitae.core.errors import KitaeError
from kitae.data import shards as module
from kitae.data.order import Permutation
from kitae.data.plan import Plan
from kitae.data.sampler import Heldout, Sampler, heldout_sources
from kitae.data.shards import Shards
from kitae.models.bert import BertConfig, BertEncoder
from kitae.tensor.batch import Batch


@settings(max_examples=100, deadline=None)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**62))
def test_the_permutation_is_a_bijection(size: int, seed: int) -> None:
    assert sorted(Permutation(size, seed)(np.arange(size)).tolist()) == list(range(size))


def test_the_permutation_mixes_and_scales() -> None:
    size = 100_000
    moved = Permutation(size, 1)(np.arange(size))
    assert abs(np.corrcoef(np.arange(size), moved)[0, 1]) < 0.02
    assert abs(np.corrcoef(moved[:-1], moved[1:])[0, 1]) < 0.02
    assert (Permutation(size, 2)(np.arange(size)) != moved).mean() > 0.99
    huge = Permutation(10**12, 3)(np.arange(1000) + 10**12 - 1000)
    assert len(set(huge.tolist())) == 1000
    assert huge.max() < 10**12


def pieces_of(batch: Batch) -> list[tuple[int, list[int]]]:
    """(row, ids without special tokens) of every piece, after checking its layout."""
    found = []
    for row, start, end in batch.layout.spans():
        ids = batch.ids_BL[row, start:end].tolist()
        assert (ids[0], ids[-1]) == (SPECIAL["cls"], SPECIAL["sep"])
        assert batch.layout.positions_BL[row, start:end].tolist() == list(range(end - start))
        assert batch.words_BL[row, start] == batch.words_BL[row, end - 1] == -1
        found.append((row, ids[1:-1]))
    return found


def test_rows_hold_what_the_plan_says(tmp_path: Path) -> None:
    documents = of_lengths([5, 70, 31, 300, 1, 2, 126, 127, 44] * 3)
    sampler = Sampler(dataset(tmp_path, documents, max_length=64), rows_per_step=4, rows_per_micro_batch=4, seed=1)
    shards, plan = Shards(tmp_path / "train"), Plan(tmp_path / "train/plan")
    starts = shards.gather(np.arange(shards.num_tokens))[1]
    for step in range(5):
        batch = sampler.micro(step, 0)
        expected = [
            (b, int(plan.starts[p]), int(plan.lengths[p]))
            for b, row in enumerate(batch.rows.tolist())
            for p in range(plan.rows[row], plan.rows[row + 1])
        ]
        assert pieces_of(batch) == [(b, shards.tokens(start, start + size).tolist()) for b, start, size in expected]
        padding = ~batch.layout.mask_BL
        assert (batch.ids_BL[padding] == SPECIAL["pad"]).all()
        assert (batch.words_BL[padding] == -1).all()
        for b in range(4):
            words, number = [], -1
            for _, start, size in [item for item in expected if item[0] == b]:
                for i in range(size):
                    number += int(i == 0 or starts[start + i])
                    words.append(number)
            assert batch.words_BL[b][batch.words_BL[b] >= 0].tolist() == words


def test_batches_gather_across_shards(tmp_path: Path) -> None:
    documents = of_lengths([20, 33, 7, 50, 41] * 4)
    one = dataset(tmp_path / "one", documents, max_length=32)
    many = dataset(tmp_path / "many", documents, max_length=32)
    write(many / "train", documents, max_length=32, shard_tokens=1)
    assert len(Shards(many / "train")) == 1, "one flush, one shard"
    before = module._FLUSH_WORDS
    module._FLUSH_WORDS = 1
    try:
        write(many / "train", documents, max_length=32, shard_tokens=1)
    finally:
        module._FLUSH_WORDS = before
    assert len(Shards(many / "train")) == len(documents)

    def contents(folder: Path) -> list[list[int]]:
        sampler = Sampler(folder, rows_per_step=1, rows_per_micro_batch=1, seed=1)
        return sorted(ids for step in range(sampler.rows_per_epoch) for _, ids in pieces_of(sampler.micro(step, 0)))

    assert sum(map(len, contents(many))) == sum(map(len, contents(one))) == sum([20, 33, 7, 50, 41]) * 4
    flat = [token for document in documents for word in document[0] for token in word]
    assert sorted(token for ids in contents(many) for token in ids) == sorted(flat)


def test_every_row_comes_once_an_epoch_and_orders_differ(tmp_path: Path) -> None:
    sampler = Sampler(dataset(tmp_path, of_lengths([40] * 50), max_length=64), rows_per_step=6, rows_per_micro_batch=3, seed=9)
    size = sampler.rows_per_epoch
    rows = torch.cat([sampler.micro(step, micro).rows for step in range(size) for micro in range(2)]).tolist()
    epochs = [rows[i * size : (i + 1) * size] for i in range(6)]
    assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs[3] == [sampler.row(3, k) for k in range(size)]


def same(a: Batch, b: Batch) -> bool:
    """Equal bits in every tensor."""
    tensors: list[tuple[Tensor, Tensor]] = [
        (a.ids_BL, b.ids_BL),
        (a.layout.pieces_BL, b.layout.pieces_BL),
        (a.layout.positions_BL, b.layout.positions_BL),
        (a.words_BL, b.words_BL),
        (a.rows, b.rows),
    ]
    return all(torch.equal(x, y) for x, y in tensors)


def test_micro_batches_are_a_pure_function_and_only_their_size_splits_a_step(tmp_path: Path) -> None:
    folder = dataset(tmp_path, of_lengths([40, 9, 80] * 50), max_length=64)
    whole = Sampler(folder, rows_per_step=8, rows_per_micro_batch=8, seed=5)
    parts = Sampler(folder, rows_per_step=8, rows_per_micro_batch=2, seed=5)
    late = parts.micro(7, 3)
    assert parts.micro_batches_per_step == 4
    assert torch.cat([parts.micro(7, micro).ids_BL for micro in range(4)]).equal(whole.micro(7, 0).ids_BL)
    assert same(late, Sampler(folder, rows_per_step=8, rows_per_micro_batch=2, seed=5).micro(7, 3))
    assert not same(late, Sampler(folder, rows_per_step=8, rows_per_micro_batch=2, seed=6).micro(7, 3))


def test_step_one_million_costs_what_the_first_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = Sampler(dataset(tmp_path, of_lengths([40] * 50), max_length=64), rows_per_step=4096, rows_per_micro_batch=32, seed=5)
    networks: list[int] = []
    network = Permutation._network
    monkeypatch.setattr(Permutation, "_network", lambda self, values: networks.append(len(values)) or network(self, values))
    counts = []
    for step, micro in ((0, 127), (1_000_000, 127)):
        networks.clear()
        batch = sampler.micro(step, micro)
        assert (batch.step, batch.micro) == (step, micro)
        counts.append(sum(networks))
    assert max(counts) < 32 * 8, "about two rounds a row of this micro-batch, however late the step"


def test_a_corpus_smaller_than_a_step_wraps(tmp_path: Path) -> None:
    sampler = Sampler(dataset(tmp_path, of_lengths([5, 5]), max_length=16), rows_per_step=8, rows_per_micro_batch=8, seed=5)
    assert sampler.rows_per_epoch == 1
    assert sampler.micro(3, 0).rows.tolist() == [0] * 8


def test_changing_one_document_leaves_the_others_of_its_row(tmp_path: Path) -> None:
    documents = of_lengths([20, 18, 16])
    changed = [*documents[:1], [[tuple(999 for _ in word) for word in documents[1][0]]], documents[2]]
    batches = [
        Sampler(dataset(tmp_path / name, texts, max_length=64), rows_per_step=1, rows_per_micro_batch=1, seed=1).micro(0, 0)
        for name, texts in (("a", documents), ("b", changed))
    ]
    differs = batches[0].ids_BL != batches[1].ids_BL
    assert set(batches[0].layout.pieces_BL[differs].tolist()) == {2}
    assert batches[0].layout.pieces_BL.equal(batches[1].layout.pieces_BL)
    assert batches[0].words_BL.equal(batches[1].words_BL)
    torch.manual_seed(1)
    encoder = BertEncoder(BertConfig(vocab_size=1000, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64))
    with torch.no_grad():
        states = [encoder.eval()(batch) for batch in batches]
    others = batches[0].layout.mask_BL & (batches[0].layout.pieces_BL != 2)
    assert states[0][others].equal(states[1][others]), "hidden states of the other documents are not bit-equal"
    assert not states[0][differs].equal(states[1][differs])


def test_tokens_per_epoch_counts_real_positions(tmp_path: Path) -> None:
    sampler = Sampler(dataset(tmp_path, of_lengths([40, 9, 80] * 5), max_length=64), rows_per_step=1, rows_per_micro_batch=1, seed=5)
    assert sampler.tokens_per_epoch == sum(sampler.micro(step, 0).num_tokens for step in range(sampler.rows_per_epoch))
    assert sampler.tokens_per_step == 64


def test_heldout_gives_every_row_once_in_one_order(tmp_path: Path) -> None:
    folder = dataset(tmp_path, of_lengths([5]), max_length=16, heldout=of_lengths([30] * 7))
    assert heldout_sources(folder) == ("a",)
    heldout = Heldout(folder, "a", 4)
    batches = list(heldout)
    assert len(batches) == len(heldout)
    rows = torch.cat([batch.rows for batch in batches]).tolist()
    assert sorted(rows) == list(range(heldout.num_rows))
    assert rows == torch.cat([batch.rows for batch in Heldout(folder, "a", 2)]).tolist()
    assert [batch.micro for batch in batches] == list(range(len(batches)))
    with pytest.raises(KitaeError, match='held-out text of "b"'):
        Heldout(folder, "b", 4)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=r"dataset\.json"):
        Sampler(tmp_path, rows_per_step=4, rows_per_micro_batch=4, seed=1)
    with pytest.raises(KitaeError, match="whole micro-batches"):
        Sampler(tmp_path, rows_per_step=4, rows_per_micro_batch=3, seed=1)
    with pytest.raises(KitaeError, match="micro-batches of 0 rows"):
        Sampler(tmp_path, rows_per_step=4, rows_per_micro_batch=0, seed=1)
