"""What the manifest of a checkpoint says of its training."""

from pathlib import Path

from kitae.data.plan import Plan
from kitae.objectives.protocol import Objective
from kitae.procedures.probe import split
from kitae.tensor.world import World
from kitae.train.loop import Fitted


def account(objective: Objective, dataset: Path, fitted: Fitted, world: World) -> dict[str, object]:
    """What the manifest says of the training: size, length, speed, cost and the last held-out scores."""
    per_token = objective.flops_per_token(Plan(dataset / "train" / "plan").context)
    heldout, probed = split(fitted.evaluation)
    return {
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in objective.models().items()},
        "distinct_parameters": sum(p.numel() for p in objective.parameters()),
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "seconds": fitted.seconds,
        "tokens_per_second": fitted.tokens / max(fitted.seconds, 1e-9),
        "seconds_waiting_for_data": fitted.waited,
        **fitted.shares,
        "memory": fitted.memory,
        "flops_per_token": per_token,
        "flops": per_token * fitted.tokens,
        "processes": world.size,
        "checkpoint": fitted.checkpoint.name,
        "heldout": heldout,
        **({"probe": probed} if probed else {}),
    }
