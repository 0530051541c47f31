"""A mask rate that stays, or one that changes while training: straight lines between points.

Wettig et al. 2023 (arXiv:2202.08005) mask up to 40 %; a rate that falls while training begins with harder rows and ends with rows
that look like those of fine-tuning.
"""

import math
from itertools import pairwise

import numpy as np

Points = tuple[tuple[float, float], ...]
"""(share of the training that is done, mask rate there), by the former."""
Rate = float | Points


def parse_rate(value: object) -> Rate:
    """0.15, or [[0.0, 0.3], [1.0, 0.15]]. Raises ValueError for anything else."""
    if _is_number(value):
        return _share(value)
    if not isinstance(value, list | tuple) or not value or not all(_is_point(point) for point in value):
        raise ValueError(f"rate = {value!r} is neither a share nor a list of [part of the training, share]")
    points = tuple((float(part), _share(share)) for part, share in value)
    parts = [part for part, _ in points]
    if not 0 <= parts[0] <= parts[-1] <= 1 or any(later <= part for part, later in pairwise(parts)):
        raise ValueError(f"rate: the parts of the training {parts} do not rise from 0 or more to at most 1")
    return points


def rate_at(rate: Rate, progress: float) -> float:
    """The rate when `progress` (0 to 1) of the training is done: linear between points, level before the first and after the last."""
    if isinstance(rate, float):
        return rate
    return float(np.interp(progress, [part for part, _ in rate], [share for _, share in rate]))


def mean_rate(rate: Rate) -> float:
    """The rate averaged over the training."""
    if isinstance(rate, float):
        return rate
    points = ((0.0, rate[0][1]), *rate, (1.0, rate[-1][1]))
    return sum((later - part) * (one + other) / 2 for (part, one), (later, other) in pairwise(points))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_point(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and all(_is_number(item) for item in value)


def _share(value: object) -> float:
    assert isinstance(value, int | float)
    if not 0 < value <= 1:
        raise ValueError(f"rate = {value!r} is no share of the tokens: it must be above 0 and at most 1")
    return float(value)
