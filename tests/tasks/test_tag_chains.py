"""Viterbi, marginals and the CRF against sums and maxima over every chain that there is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from kitae.tasks.chains import Crf, Floats, Steps, shares, viterbi


def random_steps(labels: int, generator: np.random.Generator) -> Steps:
    return Steps(
        between_CC=generator.normal(size=(labels, labels)), first_C=generator.normal(size=labels), last_C=generator.normal(size=labels)
    )


def score(chain: tuple[int, ...], logits: Floats, steps: Steps) -> float:
    """The formula itself (Lample et al., 2016, section 2.2): P[i, y_i] summed, A[y_i, y_i+1] summed, with start and end."""
    inner = sum(logits[i, y] for i, y in enumerate(chain)) + sum(steps.between_CC[a, b] for a, b in itertools.pairwise(chain))
    return float(inner + steps.first_C[chain[0]] + steps.last_C[chain[-1]])


@pytest.mark.parametrize("labels", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 2, 5])
def test_decoding_and_marginals_equal_brute_force(labels: int, length: int) -> None:
    generator = np.random.default_rng(labels * 10 + length)
    for _ in range(5):
        logits, steps = generator.normal(size=(length, labels)), random_steps(labels, generator)
        chains = list(itertools.product(range(labels), repeat=length))
        scores = np.asarray([score(chain, logits, steps) for chain in chains])
        assert viterbi(logits, steps) == list(chains[int(scores.argmax())])
        weights = np.exp(scores - scores.max())
        expected = np.zeros((length, labels))
        for chain, weight in zip(chains, weights / weights.sum(), strict=True):
            expected[range(length), list(chain)] += weight
        assert shares(logits, steps) == pytest.approx(expected)


def test_of_nothing_there_is_nothing() -> None:
    steps = random_steps(3, np.random.default_rng(0))
    assert viterbi(np.zeros((0, 3)), steps) == []
    assert shares(np.zeros((0, 3)), steps).shape == (0, 3)


def filled(labels: int, seed: int) -> Crf:
    crf = Crf(labels).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in crf.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return crf


def steps_of(crf: Crf) -> Steps:
    return Steps(**{name: parameter.detach().numpy() for name, parameter in crf.named_parameters()})


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(2, 3), st.integers(0, 1000), st.booleans(), st.booleans())
def test_likelihood_equals_brute_force(lengths: list[int], labels: int, seed: int, first: bool, last: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    crf = filled(labels, seed)
    logits = torch.randn(len(lengths), max(lengths), labels, generator=generator, dtype=torch.float64, requires_grad=True)
    tags = torch.randint(0, labels, (len(lengths), max(lengths)), generator=generator)
    edges = torch.tensor([[first, last]] * len(lengths))
    loss = crf.loss(logits, tags, torch.tensor(lengths), edges)
    known = steps_of(crf)
    steps = Steps(between_CC=known.between_CC, first_C=known.first_C * first, last_C=known.last_C * last)
    expected, marginals = 0.0, np.zeros(logits.shape)
    for s, length in enumerate(lengths):
        numbers = logits[s, :length].detach().numpy()
        chains = list(itertools.product(range(labels), repeat=length))
        scores = np.asarray([score(chain, numbers, steps) for chain in chains])
        expected += float(np.log(np.exp(scores).sum())) - score(tuple(tags[s, :length].tolist()), numbers, steps)
        marginals[s, :length] = shares(numbers, steps)
        marginals[s, range(length), tags[s, :length]] -= 1
    assert float(loss) == pytest.approx(expected)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.numpy() == pytest.approx(marginals), "the gradient of logits is marginals minus the truth; behind the end it is 0"


def test_without_steps_it_is_a_softmax() -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
    tags = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 0]])
    lengths, edges = torch.tensor([4, 2]), torch.ones(2, 2, dtype=torch.bool)
    expected = torch.nn.functional.cross_entropy(torch.cat([logits[0], logits[1, :2]]), torch.cat([tags[0], tags[1, :2]]), reduction="sum")
    assert float(Crf(3).loss(logits, tags, lengths, edges)) == pytest.approx(float(expected), rel=1e-6)


def test_gradients_of_its_own_numbers_are_right() -> None:
    crf = filled(3, 5)
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    tags, lengths = torch.tensor([[0, 1, 2, 0], [2, 2, 0, 0]]), torch.tensor([4, 2])
    edges = torch.tensor([[True, True], [False, True]])

    def loss(between: torch.Tensor, first: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        given = {"between_CC": between, "first_C": first, "last_C": last}
        return torch.func.functional_call(
            _Loss(crf), {f"crf.{name}": value for name, value in given.items()}, (logits, tags, lengths, edges)
        )

    assert torch.autograd.gradcheck(loss, [parameter.detach().requires_grad_() for parameter in crf.parameters()])


class _Loss(torch.nn.Module):
    def __init__(self, crf: Crf) -> None:
        super().__init__()
        self.crf = crf

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        return self.crf.loss(*given)


def test_a_long_chain_neither_overflows_nor_becomes_nothing() -> None:
    logits = np.random.default_rng(0).normal(size=(5000, 5)) * 100
    steps = random_steps(5, np.random.default_rng(1))
    assert shares(logits, steps).sum(1) == pytest.approx(np.ones(5000))
    crf = filled(5, 3).float()
    loss = crf.loss(
        torch.from_numpy(logits[None]).float(),
        torch.zeros(1, 5000, dtype=torch.long),
        torch.tensor([5000]),
        torch.ones(1, 2, dtype=torch.bool),
    )
    assert torch.isfinite(loss)
