"""The area under the curve from summed histograms is scikit-learn's, for spread, crowded and tied scores."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from kitae.objectives.auc import area, histogram


@pytest.mark.parametrize(("shift", "spread", "center"), [(1.5, 2.0, -2.0), (0.02, 0.02, -1.7), (6.0, 4.0, 0.0), (0.0, 1.0, 0.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_to_scikit_learn(shift: float, spread: float, center: float, dtype: torch.dtype) -> None:
    random = np.random.default_rng(1)
    replaced = torch.from_numpy(random.random(30_000) < 0.1)
    logits = torch.from_numpy(center + spread * random.standard_normal(30_000) + shift * replaced.numpy()).to(dtype)
    parts = [histogram(logits[i::3], replaced[i::3]) for i in range(3)]
    expected = roc_auc_score(replaced.numpy(), logits.double().numpy())
    assert area(sum(parts)) == pytest.approx(expected, abs=0.001)


def test_ties_count_half_and_one_kind_has_no_area() -> None:
    tied = histogram(torch.zeros(4), torch.tensor([True, False, True, False]))
    assert area(tied) == 0.5
    assert area(histogram(torch.zeros(4), torch.zeros(4, dtype=torch.bool))) is None
