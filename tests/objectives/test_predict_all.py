"""Predictions whose logits never exist together: those of one product, whatever the chunks, with the same gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kitae.objectives import vocabulary
from kitae.objectives.softmax import cross_entropy
from kitae.objectives.vocabulary import predict_all


def made(count: int, dtype: torch.dtype, *, frozen: bool = False) -> tuple[list[Tensor], Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype) for shape in ((count, 8), (50, 8), (50,))]
    for number, tensor in enumerate(inputs):
        tensor.requires_grad_(not frozen or number == 0)
    return inputs, torch.randint(50, (count,), generator=generator), torch.randint(2, (count,), generator=generator).double()


@pytest.mark.parametrize("count", [0, 1, 7, 23])
@pytest.mark.parametrize("frozen", [False, True])
def test_equal_to_all_logits_at_once(count: int, frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "LOGITS", 350)  # 7 predictions
    inputs, labels, weights = made(count, torch.float64, frozen=frozen)
    logits = F.linear(*inputs)
    losses = cross_entropy(logits, labels)
    found = predict_all(*inputs, labels, weights)
    torch.testing.assert_close(found.losses_R, losses.detach(), atol=1e-12, rtol=0)
    assert torch.equal(found.likeliest_R, logits.argmax(dim=1))
    torch.testing.assert_close(found.total, (losses * weights).sum(), atol=1e-11, rtol=0)
    trained = [tensor for tensor in inputs if tensor.requires_grad]
    gradients = [torch.autograd.grad(0.3 * total, trained) for total in (found.total, (losses * weights).sum())]
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)
    with torch.no_grad():
        assert not predict_all(*inputs, labels, weights).total.requires_grad


def test_shares_of_chunks_in_half_precision_are_not_rounded_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "LOGITS", 50)
    exact, labels, _ = made(2000, torch.float64)
    inputs = [tensor.detach().bfloat16().requires_grad_() for tensor in exact]
    gradients = []
    for each in (inputs, [tensor.detach().double().requires_grad_() for tensor in inputs]):
        found = predict_all(*each, labels, torch.ones(2000, dtype=torch.float64))
        gradients.append(torch.autograd.grad(found.total, each)[1].double())
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 0.01
