"""Measures real steps of the real model on this machine's device, before there is a dataset: seconds and memory of one process.

Every model is measured in a process of its own, by the training loop itself over rows of made-up tokens: a crash there, or too little
memory, leaves the plan alone. What was found is kept beside the run's artifacts: later plans and the training itself take it up.
"""

import gc
import logging
import math
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from pydantic import ValidationError

from kitae import __version__
from kitae.core.artifact import digest_json
from kitae.core.config import Config
from kitae.data.random_rows import SPECIAL, RandomRows
from kitae.objectives import table
from kitae.objectives.protocol import Objective
from kitae.procedures.estimate import Measured, Work
from kitae.procedures.machine import Machine
from kitae.tensor.usage import peak_memory, restart_peak
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

log = logging.getLogger(__name__)
WARM_UP = 2
"""Steps that do not count: the allocator fills up, and kernels are chosen."""
FEWEST, MOST = 3, 30
"""Steps that do."""
COSTLY = frozenset(
    ("precision", "optimizer", "lamb", "muon", "clip", "activation_checkpointing", "freeze", "deterministic", "learning_rate", "loss_scale")
)
"""Settings that decide what a step costs. torch.compile takes a minute to begin, and is left out."""
FROM_DATA = frozenset(("model_type", "vocab_size", "pad_token_id", "max_position_embeddings", "max_word_length"))
"""What of a model is known when its text is, and changes little of what a step costs (the vocabulary counts by its order of size)."""
KNOWN = ".probe.json"


class _Known(Config):
    """What probes found, by `probe_key`."""

    found: dict[str, Measured] = {}


def remembered(output: Path) -> dict[str, Measured]:
    """What earlier probes of a recipe found, by `probe_key`."""
    try:
        return _Known.model_validate_json((output / KNOWN).read_text(encoding="utf-8")).found
    except (OSError, ValidationError):
        return {}


def remember(output: Path, found: Mapping[str, Measured]) -> None:
    """Keep it for later plans, and for the run."""
    output.mkdir(parents=True, exist_ok=True)
    temporary = output / f"{KNOWN}.part"
    temporary.write_text(_Known(found=remembered(output) | dict(found)).model_dump_json(indent=1), encoding="utf-8")
    temporary.replace(output / KNOWN)


def probe_key(work: Work, on: Machine) -> str:
    """The same for two trainings whose micro-batches cost the same on one device of a machine, with these versions."""
    halves = [half for half in (work.architecture.encoder, work.architecture.generator) if half is not None]
    facts = {
        "models": [half.model_dump(mode="json", exclude=set(FROM_DATA)) for half in halves],
        "vocabulary": round(math.log2(work.architecture.encoder.vocab_size)),
        "objective": work.objective,
        "learnt": None if work.learnt is None else work.learnt.model_dump(mode="json"),
        "settings": work.train.model_dump(mode="json", include=set(COSTLY)),
        "rows": [work.micro_rows, work.length, work.micro_batches > 1],
        "device": on.unit,
        "versions": [__version__, torch.__version__],
    }
    return digest_json(facts)


@dataclass(frozen=True, kw_only=True)
class _Case:
    """What a child process measures."""

    work: Work
    kind: str
    """Of the device."""
    threads: int
    until: float
    """By the monotonic clock, which all processes share."""


def probe(works: Mapping[str, Work], kind: str, *, seconds: float) -> dict[str, Measured]:
    """What each of these trainings takes of a device of this kind ("cpu" or "cuda"), all within about so many seconds.

    Those that end badly are left out, with a warning. The last ones are left out when the time is up.
    """
    context, end = multiprocessing.get_context("spawn"), time.monotonic() + seconds
    found: dict[str, Measured] = {}
    for number, (name, work) in enumerate(works.items()):
        left = end - time.monotonic()
        ours, theirs = context.Pipe(duplex=False)
        until = time.monotonic() + left / (len(works) - number)
        case = _Case(work=work, kind=kind, threads=torch.get_num_threads(), until=until)
        child = context.Process(target=_measure, args=(case, theirs), daemon=True)
        child.start()
        theirs.close()
        try:
            while ours.poll(max(0.0, end - time.monotonic())):  # a first result may be followed by a better one
                found[name] = ours.recv()
        except EOFError:  # it is done, or dead
            pass
        child.kill()
        child.join()
        if name not in found:
            log.warning("%s was not measured: %s", name, "no time was left" if time.monotonic() >= end else "its process ended early")
    return found


def _measure(case: _Case, results: Connection) -> None:
    """In the child: one micro-batch, half of one for memory, and two for what a step takes beside them."""
    logging.disable(logging.WARNING)
    torch.set_num_threads(case.threads)
    work, device = case.work, torch.device(case.kind)
    base = restart_peak(device)
    assert work.learnt is not None, "trials are not measured"
    objective = table.build(work.architecture, work.learnt, SPECIAL, work.architecture.encoder.vocab_size, 1)
    loop = _Loop(objective=objective, work=work, world=World(device=device))
    rows, several = work.micro_rows, min(2, work.micro_batches)
    first = loop.seconds(rows=rows, micro_rows=rows, number=WARM_UP + 1)
    memory = {rows: peak_memory(device, base)}
    results.send(Measured(update=0.0, micro_batch=first[-1], memory=memory))
    if rows > 1:
        restart_peak(device)
        loop.seconds(rows=rows // 2, micro_rows=rows // 2, number=1)
        memory[rows // 2] = peak_memory(device, base)
    left = case.until - time.monotonic()
    number = int(min(MOST, max(FEWEST, left / (3 if several > 1 else 1) / max(first[-1], 1e-4) - WARM_UP)))
    one = statistics.median(loop.seconds(rows=rows, micro_rows=rows, number=WARM_UP + number)[WARM_UP:])
    results.send(Measured(update=0.0, micro_batch=one, memory=memory))
    if several > 1:
        two = statistics.median(loop.seconds(rows=2 * rows, micro_rows=rows, number=WARM_UP + number)[WARM_UP:])
        each = min(max(two - one, 0.0), one)
        results.send(Measured(update=one - each, micro_batch=each, memory=memory))
    results.close()


@dataclass(frozen=True, kw_only=True)
class _Loop:
    """The training loop over made-up rows."""

    objective: Objective
    work: Work
    world: World

    def seconds(self, *, rows: int, micro_rows: int, number: int) -> list[float]:
        """Of each of so many steps."""
        encoder = self.work.architecture.encoder
        batches = RandomRows(
            rows=rows,
            micro_rows=micro_rows,
            length=self.work.length,
            context=self.work.context,
            vocab_size=encoder.vocab_size,
            word_bytes=encoder.word_characters,
        )
        own = self.work.train.model_dump(include=set(COSTLY), exclude_none=True)
        steps = {"length": f"{number} steps", "batch": f"{rows} rows", "micro_batch": f"{micro_rows} rows", "log_every": "1 steps"}
        config = TrainConfig.model_validate({**own, **steps, "keep_last": 0, "save_every": None, "evaluate_every": None})
        with tempfile.TemporaryDirectory() as folder:
            fit(self.objective, batches, config, Path(folder), world=self.world, seed=1, attach={})
            ends = [float(str(record["seconds"])) for record in read_metrics(Path(folder)) if record["kind"] == "train"]
        gc.collect()
        return [later - earlier for earlier, later in zip([0.0, *ends], ends, strict=False)]
