"""How the learning rate rises and falls: closed formulas of the share of the training that is done."""

import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from kitae.core.config import Config
from kitae.core.duration import Duration

Schedule = Literal["linear", "polynomial", "cosine", "constant", "warmup-stable-decay", "inverse-square-root"]
TAKEN: dict[str, frozenset[str]] = {
    "linear": frozenset({"end", "warmup_form"}),
    "polynomial": frozenset({"power", "end", "warmup_form"}),
    "cosine": frozenset({"end", "warmup_form"}),
    "constant": frozenset(),
    "warmup-stable-decay": frozenset({"decay", "decay_form", "end"}),
    "inverse-square-root": frozenset(),
}
"""The numbers of `CurveConfig` that each schedule reads."""


class CurveConfig(Config):
    """Numbers of a schedule; each is for the schedules that its text names, and refused with others."""

    power: Annotated[float, Field(gt=0)] = 1.0
    """"polynomial": the rate falls as this power of the share that is left. 1 is linear, 0.5 is CharacterBERT's with LAMB."""
    end: Annotated[float, Field(ge=0, le=1)] = 0.0
    """"linear", "polynomial", "cosine", "warmup-stable-decay": the rate ends at this share of the highest."""
    warmup_form: Literal["before", "product", "cut"] = "before"
    """"linear", "polynomial", "cosine": where the fall begins. "before" it comes the warm-up, at whose end it begins from the highest rate.
    "product": it runs over the whole length and is multiplied by the warm-up (ELECTRA). "cut": it runs over the whole length, the warm-up
    stands in place of its beginning, and the rate drops where they meet (NVIDIA's BERT, CharacterBERT)."""
    decay: Duration = Duration(0.1, "of length")
    """"warmup-stable-decay": how long the rate falls at the end, in any unit (Hu et al. 2024, arXiv:2404.06395)."""
    decay_form: Literal["linear", "cosine", "1-sqrt"] = "linear"
    """"warmup-stable-decay": how it falls. "1-sqrt" falls by the root of the share of the decay that is done (Haegele et al. 2024,
    arXiv:2405.18392)."""

    @field_validator("decay")
    @classmethod
    def _a_length(cls, value: Duration) -> Duration:
        if value.amount <= 0:
            raise ValueError(f'"{value}" is no length of a decay: write a positive one, or schedule = "constant"')
        return value

    def unread(self, schedule: str) -> list[str]:
        """The fields that are set to something and that this schedule does not read."""
        return [
            name for name, field in type(self).model_fields.items() if name not in TAKEN[schedule] and getattr(self, name) != field.default
        ]


def curve(schedule: Schedule, numbers: CurveConfig, peak: float, *, fraction: float, warmup: float, decay: float) -> float:
    """The rate when `fraction` (0..1) is done, of which `warmup` (0..1) is the warm-up and `decay` the decay at the end.

    Rises as fraction / warmup to `peak`; with left = (1 - fraction) / (1 - warmup) it then is, from peak to end * peak,

    linear: left. polynomial: left ** power. cosine: (1 - cos(pi left)) / 2. constant: 1. inverse-square-root: sqrt(warmup / fraction).
    warmup-stable-decay: 1 until 1 - decay; then with left = (1 - fraction) / decay linear, cosine, or 1 - sqrt(1 - left).
    """
    if numbers.warmup_form == "product":
        return _fallen(schedule, numbers, peak, fraction, begin=0.0, decay=decay) * (fraction / warmup if fraction < warmup else 1)
    if fraction < warmup:
        return peak * fraction / warmup
    if warmup >= 1:
        return peak
    if schedule == "inverse-square-root":
        return peak * math.sqrt(warmup / fraction)
    return _fallen(schedule, numbers, peak, fraction, begin=0.0 if numbers.warmup_form == "cut" else warmup, decay=decay)


def _fallen(schedule: Schedule, numbers: CurveConfig, peak: float, fraction: float, *, begin: float, decay: float) -> float:
    """The rate when the fall begins at the share `begin`, or at 1 - decay."""
    if schedule == "constant":
        return peak
    floor, above, whole = peak * numbers.end, peak - peak * numbers.end, 1 - begin
    if schedule == "warmup-stable-decay":
        if fraction <= 1 - decay:
            return peak
        whole = decay
    left = max(0.0, 1 - fraction)
    form = numbers.decay_form if schedule == "warmup-stable-decay" else schedule
    if form == "linear":
        return floor + above * left / whole
    share = min(1.0, left / whole)
    if form == "cosine":
        return floor + above * (1 - math.cos(math.pi * share)) / 2
    return floor + above * (1 - math.sqrt(1 - share) if form == "1-sqrt" else share**numbers.power)
