"""The one-pass softmax: torch's loss and gradient, and samples that follow the distribution exactly."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare
from torch.nn import functional as F

from kitae.objectives.softmax import _at_once, cross_entropy, cross_entropy_and_sample


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("vocab", [3, 256, 700])
def test_loss_and_gradient_are_torchs(dtype: torch.dtype, tolerance: float, vocab: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (5 * torch.randn(150, vocab, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(vocab, (150,), generator=generator)
    weight = torch.rand(150, generator=generator, dtype=torch.float64)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = cross_entropy(ours, labels)
    expected = F.cross_entropy(theirs, labels, reduction="none")
    torch.testing.assert_close(loss, expected, atol=max(tolerance, 1e-12) * 10, rtol=0)
    (loss * weight).sum().backward()
    (expected * weight).sum().backward()
    assert ours.grad.dtype == dtype
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize("vocab", [3, 256, 700])
@pytest.mark.parametrize("smoothing", [0.1, 0.9])
def test_smoothed_loss_and_gradient_are_torchs(dtype: torch.dtype, tolerance: float, vocab: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (5 * torch.randn(150, vocab, generator=generator, dtype=torch.float64)).to(dtype)
    labels = torch.randint(vocab, (150,), generator=generator)
    ours, theirs = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = cross_entropy(ours, labels, smoothing=smoothing)
    expected = F.cross_entropy(theirs, labels, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, atol=max(tolerance, 1e-12) * 10, rtol=0)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad.double(), theirs.grad, atol=tolerance, rtol=0)


def test_a_smoothed_loss_by_hand_and_samples_that_know_nothing_of_it() -> None:
    logits = torch.tensor([[3.0, 1.0]], dtype=torch.float64).log()  # 3/4 and 1/4
    labels, uniform = torch.tensor([0]), torch.tensor([0.7499], dtype=torch.float64)
    loss, ids = cross_entropy_and_sample(logits, labels, uniform, smoothing=0.2)
    assert float(loss) == pytest.approx(-(0.9 * np.log(3 / 4) + 0.1 * np.log(1 / 4)))
    assert ids.tolist() == cross_entropy_and_sample(logits, labels, uniform)[1].tolist() == [0]


def test_the_factor_of_a_plain_sum_is_not_rounded_to_half_precision() -> None:
    logits = torch.randn(500, 40, generator=torch.Generator().manual_seed(1)).bfloat16()
    labels = torch.arange(500) % 40
    sizes = []
    for count in (1, 510):
        leaf = logits.clone().requires_grad_()
        (cross_entropy(leaf, labels).sum() / count).backward()
        sizes.append(leaf.grad.double().abs().sum() * count)
    assert float(sizes[1] / sizes[0]) == pytest.approx(1, abs=2e-3), "1/510 in bfloat16 is off by 0.0039"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
@pytest.mark.parametrize("vocab", [40, 1000])
def test_samples_follow_the_softmax(temperature: float, vocab: int) -> None:
    draws = 60_000
    logits = 2 * torch.randn(vocab, generator=torch.Generator().manual_seed(2))
    uniform = torch.from_numpy(np.random.default_rng(3).random(draws))
    _, ids = cross_entropy_and_sample(logits.expand(draws, -1), torch.zeros(draws, dtype=torch.int64), uniform, temperature=temperature)
    expected = torch.softmax(logits.double() / temperature, dim=0).numpy() * draws
    counts = np.bincount(ids.numpy(), minlength=vocab)
    often = expected >= 5
    tail = ([counts[~often].sum()], [expected[~often].sum()]) if (~often).any() else ([], [])
    assert chisquare(np.append(counts[often], tail[0]), np.append(expected[often], tail[1])).pvalue > 1e-4


def test_the_ends_of_the_distribution_and_impossible_tokens() -> None:
    logits = torch.full((3, 600), -torch.inf)
    logits[:, [7, 300, 301]] = torch.tensor([0.0, 1.0, 0.5])
    uniform = torch.tensor([0.0, 1 - 2**-53, 0.5], dtype=torch.float64)
    _, ids = cross_entropy_and_sample(logits, torch.full((3,), 7), uniform)
    assert ids.tolist() == [7, 301, 300]


def test_a_second_backward_pass_is_refused() -> None:
    logits = torch.zeros(2, 10, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([1, 2])).sum()
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_no_predictions() -> None:
    logits = torch.zeros(0, 10, requires_grad=True)
    losses, ids = cross_entropy_and_sample(logits, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.float64))
    assert ids.shape == (0,)
    losses.sum().backward()
    assert logits.grad.shape == (0, 10)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_label_can_be_left_out_of_the_samples(temperature: float) -> None:
    draws, vocab = 60_000, 300
    logits = 2 * torch.randn(vocab, generator=torch.Generator().manual_seed(2))
    logits[5] = 9.0
    uniform = torch.from_numpy(np.random.default_rng(3).random(draws))
    labels = torch.full((draws,), 5)
    losses, ids = cross_entropy_and_sample(logits.expand(draws, -1), labels, uniform, temperature=temperature, wrong_only=True)
    torch.testing.assert_close(losses[:1], F.cross_entropy(logits[None].double(), labels[:1], reduction="none"), atol=1e-5, rtol=0)
    logits[5] = -torch.inf
    expected = torch.softmax(logits.double() / temperature, dim=0).numpy() * draws
    counts = np.bincount(ids.numpy(), minlength=vocab)
    assert counts[5] == 0
    often, seldom = expected >= 5, (expected < 5) & (expected > 0)
    tail = ([counts[seldom].sum()], [expected[seldom].sum()]) if seldom.any() else ([], [])
    assert chisquare(np.append(counts[often], tail[0]), np.append(expected[often], tail[1])).pvalue > 1e-4


def test_a_certain_label_leaves_something_to_sample() -> None:
    logits = torch.full((1, 600), -1e6)
    logits[0, 400] = 1e6
    uniform = torch.tensor([0.5], dtype=torch.float64)
    _, ids = cross_entropy_and_sample(logits, torch.tensor([400]), uniform, wrong_only=True)
    assert ids.tolist() == [299]


@pytest.mark.parametrize("wrong_only", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_form_for_devices_gives_the_same(smoothing: float, wrong_only: bool) -> None:
    logits = 3 * torch.randn(20, 300, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels, uniform = torch.arange(20), torch.linspace(0, 0.99, 20, dtype=torch.float64)
    leaf = logits.clone().requires_grad_()
    expected, ids = cross_entropy_and_sample(leaf, labels, uniform, smoothing=smoothing, wrong_only=wrong_only)
    expected.sum().backward()
    losses, sampled, slopes = _at_once(logits, labels, uniform, 1.0, smoothing, wrong_only=wrong_only)
    torch.testing.assert_close(losses, expected.detach(), atol=1e-12, rtol=0)
    torch.testing.assert_close(slopes * 20, leaf.grad, atol=1e-12, rtol=0)
    assert sampled.tolist() == ids.tolist()


def test_the_form_for_devices_keeps_small_slopes_of_fp16() -> None:
    logits = torch.zeros(600, 30000, dtype=torch.float16)
    _, _, slopes = _at_once(logits, torch.arange(600), None, 1.0, 0.0)
    assert float(slopes[0, 1]) == pytest.approx(1 / 30000, rel=1e-2)
    assert float(slopes[0, 0]) == pytest.approx(-1, rel=1e-2)
