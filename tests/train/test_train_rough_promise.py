"""An estimate from FLOPs is trusted half as far as one that was measured."""

import logging

import pytest
import torch

from kitae.train.promise import Memory, Promise
from kitae.train.slowness import Watch

MEMORY = Memory(weights=1, gradients=1, optimizer=1, activations=1, logits=1)


@pytest.mark.parametrize(("source", "speed", "said"), [("probe", 600.0, 1), ("flops", 600.0, 0), ("flops", 300.0, 1)])
def test_slowness_against_the_kind_of_estimate(source: str, speed: float, said: int, caplog: pytest.LogCaptureFixture) -> None:
    told = {"device": "cpu", "processes": 1, "seconds": 1.0, "tokens_per_second": 1000.0, "mfu": 0.5, "memory": MEMORY}
    watch = Watch(Promise.model_validate({"source": source, **told}), torch.device("cpu"))
    with caplog.at_level(logging.WARNING):
        for _ in range(6):
            watch.look({"tokens_per_second": speed})
    assert len(caplog.records) == said
