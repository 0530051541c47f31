"""What the manifest of a checkpoint says of its training."""

from pathlib import Path
from typing import Literal

from kitae.core.config import Config
from kitae.data.plan import Plan
from kitae.models.cost import flops_per_token
from kitae.models.presets import Architecture
from kitae.objectives.mlm import MaskingConfig
from kitae.objectives.protocol import Objective
from kitae.tensor.world import World
from kitae.train.loop import Fitted


def account(
    name: Literal["mlm", "rtd", "electric"], settings: Config, objective: Objective, dataset: Path, fitted: Fitted, world: World
) -> dict[str, object]:
    """What the manifest says of the training: size, length, speed, cost and the last held-out scores."""
    models = objective.models()
    main = models.get("discriminator") or models["encoder"]
    generator = models["generator"].config if "generator" in models else None
    architecture = Architecture(encoder=main.config, generator=generator)
    assert isinstance(settings, MaskingConfig), "every objective masks"
    per_token = flops_per_token(architecture, Plan(dataset / "train" / "plan").context, name, settings.mean_rate)
    return {
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()},
        "distinct_parameters": sum(p.numel() for p in objective.parameters()),
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "seconds": fitted.seconds,
        "tokens_per_second": fitted.tokens / max(fitted.seconds, 1e-9),
        "seconds_waiting_for_data": fitted.waited,
        "flops_per_token": per_token,
        "flops": per_token * fitted.tokens,
        "processes": world.size,
        "checkpoint": fitted.checkpoint.name,
        "heldout": dict(fitted.evaluation),
    }
