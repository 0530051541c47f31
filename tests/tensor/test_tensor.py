"""The shared torch types: layouts, exact averaging, explicit randomness."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from kitae.tensor.batch import Layout
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import key, mixed, numpy_generator, seed_dropout, torch_generator


def test_layout_of_packed_rows() -> None:
    layout = Layout(torch.tensor([[1, 1, 2, 0], [1, 2, 2, 2]], dtype=torch.int32), torch.tensor([[0, 1, 0, 0], [0, 0, 1, 2]]))
    assert layout.spans() == [(0, 0, 2), (0, 2, 3), (1, 0, 1), (1, 1, 4)]
    assert layout.mask_BL.sum() == 7
    mask = layout.block_mask_BLL
    assert mask[0, 0].tolist() == [True, True, False, False]
    assert mask[0, 3].tolist() == [False, False, False, True]
    assert mask.any(-1).all()
    assert layout.bounds.tolist() == [0, 2, 3, 4, 5, 8, 8, 8], "the padding is a piece; empty ones fill up to a power of two"
    assert layout.bounds.dtype == torch.int32
    assert (layout.longest, layout.num_tokens) == (3, 7)


def test_a_padded_row_is_a_row_with_one_piece() -> None:
    layout = Layout.padded(torch.tensor([[True, True, False], [True, True, True]]))
    assert layout.spans() == [(0, 0, 2), (1, 0, 3)]
    assert layout.positions_BL.tolist() == [[0, 1, 2]] * 2


def test_shares_of_unequal_micro_batches_add_up_to_the_global_mean() -> None:
    values = torch.randn(10, dtype=torch.float64)
    parts = [Loss(terms=(Term(name="a", sum=part.sum(), count=len(part), weight=3.0),)) for part in (values[:1], values[1:10], values[:0])]
    total = sum(part.total({"a": 10}) for part in parts)
    torch.testing.assert_close(total, 3 * values.mean())
    assert parts[2].total({"a": 0}) == 0


def test_keys_do_not_depend_on_the_process() -> None:
    code = "from kitae.tensor.random import key; print(key(1, 'mask', 2, 3))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(other.stdout) == key(1, "mask", 2, 3)
    assert len({key(1, "a"), key("1", "a"), key(1, "a", 0), key(2, "a")}) == 4


def test_random_numbers_are_the_same_on_every_machine_and_in_every_version() -> None:
    assert key(1, "mask", 2, 3) == 6665251090244256330
    first = 0xE220A8397B1DCDAF  # splitmix64's first number from the seed 0
    zeros, same = np.zeros(2, dtype=np.int64), np.full(2, first, dtype=np.uint64).view(np.int64)
    assert mixed(0, zeros).tolist() == mixed(0, zeros, same).tolist() == mixed(5, zeros + 5).tolist() == [first, first]
    assert mixed(0, zeros, zeros + 1)[0] != mixed(0, zeros + 1, zeros)[0], "in their order"


def test_generators_are_pure_functions_of_their_parts() -> None:
    assert numpy_generator(1, "x").integers(0, 1000, 5).tolist() == numpy_generator(1, "x").integers(0, 1000, 5).tolist()
    assert torch.equal(torch.rand(3, generator=torch_generator(1, "x")), torch.rand(3, generator=torch_generator(1, "x")))
    seed_dropout(1, "dropout", 4, 0)
    first = torch.rand(3)
    torch.rand(100)
    seed_dropout(1, "dropout", 4, 0)
    assert torch.equal(first, torch.rand(3))


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"))]
)
def test_dropout_is_seeded_as_torch_does_it(device: str) -> None:
    ones = torch.ones(500, device=device)
    seed_dropout(3, "dropout", 7, 1)
    ours = torch.nn.functional.dropout(ones)
    torch.manual_seed(key(3, "dropout", 7, 1))
    assert torch.equal(ours, torch.nn.functional.dropout(ones))
    seed_dropout(3, "dropout", 7, 2)
    assert not torch.equal(ours, torch.nn.functional.dropout(ones))
