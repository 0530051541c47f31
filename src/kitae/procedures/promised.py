"""The estimate that a pre-training is started with, in its folder and in its manifest, and what came of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from kitae.core.config import Config
from kitae.models.cost import Objective as Name
from kitae.models.cost import Parameters
from kitae.models.presets import Architecture
from kitae.objectives.mlm import MaskingConfig
from kitae.objectives.pair import PairConfig
from kitae.objectives.protocol import Objective
from kitae.procedures.estimate import Estimate, Work, estimate
from kitae.procedures.machine import Machine, machine
from kitae.procedures.measured_steps import probe_key, remembered
from kitae.procedures.phase_rows import PhaseRows
from kitae.tensor.world import World
from kitae.train.loop import Fitted
from kitae.train.promise import Promise, read_promise, write_promise


def promise(name: Name, settings: Config, objective: Objective, dealt: Sequence[PhaseRows], world: World, *, run: Path) -> Promise:
    """What this training will take on this machine: as a probe measured it (`plan.probe`), or from FLOPs and the MFU that is usual for the
    model's width. Written into `run`, where a resumed training finds it again.
    """
    told = read_promise(run)
    if told is not None and told.processes == world.size and told.device == _on(world).name:
        return told
    parts = [_estimate(name, settings, objective, one, world, run.parent) for one in dealt]
    seconds = sum(part.seconds for part in parts)
    flops = sum(part.mfu * part.seconds for part in parts)
    made = parts[-1].promise.model_copy(
        update={
            "source": "probe" if all(part.measured for part in parts) else "flops",
            "seconds": seconds,
            "tokens_per_second": sum(part.tokens for part in parts) / seconds,
            "mfu": flops / seconds,
            "memory": max((part.memory for part in parts), key=lambda memory: memory.total),
        }
    )
    write_promise(run, made)
    return made


def outcome(told: Promise | None, fitted: Fitted, memory: float) -> dict[str, object]:
    """For the manifest: the estimate, and what came of it as a multiple (1 = it was right). `memory`: bytes that the training took."""
    if told is None or not fitted.seconds or not fitted.tokens:
        return {}
    found = {"tokens_per_second": fitted.tokens / fitted.seconds / told.tokens_per_second, "memory": memory / told.memory.total}
    return {"estimate": told.model_dump(mode="json"), "outcome_to_estimate": {name: round(value, 4) for name, value in found.items()}}


def _estimate(name: Name, settings: Config, objective: Objective, one: PhaseRows, world: World, output: Path) -> Estimate:
    models = objective.models()
    main = models.get("discriminator") or models["encoder"]
    counted = sum(p.numel() for p in objective.parameters())
    assert isinstance(settings, MaskingConfig), "every objective masks"
    config = one.phase.config
    work = Work(
        architecture=Architecture(encoder=main.config, generator=models["generator"].config if "generator" in models else None),
        objective=name,
        learnt=settings,
        train=config,
        length=one.phase.max_length,
        context=one.batches.context(0),
        fill=one.batches.tokens_per_epoch / (one.batches.rows_per_epoch * one.phase.max_length),
        rows=one.phase.rows,
        micro_rows=one.phase.micro_rows,
        steps=float(one.steps) if one.steps else None,
        mask_rate=settings.mean_rate,
        shared=isinstance(settings, PairConfig) and settings.embedding_sharing == "shared",
        checkpoints=config.keep_last,
        parameters=Parameters(encoder=counted, total=counted),
    )
    on = _on(world)
    return estimate(work, on, measured=remembered(output).get(probe_key(work, on)))


def _on(world: World) -> Machine:
    return replace(machine("auto" if world.device.type == "cuda" else "cpu"), count=world.size)
