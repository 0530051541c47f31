"""What the manifest of a checkpoint says of its training."""

from collections.abc import Sequence

from kitae.objectives.protocol import Objective
from kitae.procedures.phase_rows import PhaseRows
from kitae.procedures.probe import split
from kitae.tensor.world import World
from kitae.train.loop import Fitted


def account(objective: Objective, dealt: Sequence[PhaseRows], fitted: Fitted, world: World) -> dict[str, object]:
    """What the manifest says of the training: size, length, speed, cost and the last held-out scores.

    Tokens of a phase are its share of all, as its rows are on the average; each is counted at its own attended length.
    """
    costs = [objective.flops_per_token(one.batches.context(0)) for one in dealt]
    shares = [one.tokens / sum(one.tokens for one in dealt) for one in dealt] if len(dealt) > 1 else [1.0]
    per_token = sum(cost * share for cost, share in zip(costs, shares, strict=True))
    phases = [
        {
            "max_length": one.phase.max_length,
            "rows_per_step": one.phase.rows,
            "steps": one.steps,
            "tokens": share * fitted.tokens,
            "flops_per_token": cost,
        }
        for one, share, cost in zip(dealt, shares, costs, strict=True)
    ]
    heldout, probed = split(fitted.evaluation)
    return {
        "parameters": {name: sum(p.numel() for p in model.parameters()) for name, model in objective.models().items()},
        "distinct_parameters": sum(p.numel() for p in objective.parameters()),
        "steps": fitted.steps,
        "tokens": fitted.tokens,
        "seconds": fitted.seconds,
        "tokens_per_second": fitted.tokens / max(fitted.seconds, 1e-9),
        "seconds_waiting_for_data": fitted.waited,
        **({"skipped_steps": fitted.skipped} if fitted.skipped else {}),
        **fitted.shares,
        "memory": fitted.memory,
        "flops_per_token": per_token,
        "flops": per_token * fitted.tokens,
        **({"phases": phases} if len(phases) > 1 else {}),
        "processes": world.size,
        "checkpoint": fitted.checkpoint.name,
        "heldout": heldout,
        **({"probe": probed} if probed else {}),
    }
