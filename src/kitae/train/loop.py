"""The one loop: any module that knows its loss, over any batches, on any number of processes. It does not know what is learnt."""

import contextlib
import errno
import json
import logging
import math
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NoReturn

import torch
from torch import nn

from kitae.core.artifact import content_hash
from kitae.core.errors import KitaeError, Stopped
from kitae.core.graph import fingerprint
from kitae.core.runtime import StopSignals, keep_memory, lock, stop_signals
from kitae.tensor.batch import Batch
from kitae.tensor.kernels import reproducible
from kitae.tensor.world import World
from kitae.train import checkpoint
from kitae.train.batches import Grouped, arm_blocks
from kitae.train.branch import branch
from kitae.train.clock import SAVE, Clock
from kitae.train.config import TrainConfig
from kitae.train.course import Dealt, attended, of_phase, sizes, times_of
from kitae.train.ending import ends
from kitae.train.exhaustion import smaller, too_large
from kitae.train.feed import Feed
from kitae.train.meter import Meter, Spent, Step, in_words
from kitae.train.monitor import Monitor
from kitae.train.optimizer import Optimizer
from kitae.train.policy import PolicyState
from kitae.train.probing import Measuring, probed_enough
from kitae.train.promise import read_promise
from kitae.train.saver import Saver
from kitae.train.schedule import rate_of_step
from kitae.train.shares import dealt, measured
from kitae.train.slowness import Watch
from kitae.train.update import Updates

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Evaluate = Callable[[int], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a finished training came to."""

    steps: int
    """Steps made."""
    skipped: int
    """Steps whose update was not applied."""
    tokens: int
    """Real tokens seen, padding not counted."""
    seconds: float
    """Time spent in training steps, over all its pieces."""
    waited: float
    """Seconds of these that went into waiting for data, in the mean over the processes."""
    shares: Mapping[str, float]
    """padding_share, waiting_share and mfu over all of it, as far as they are known."""
    memory: int
    """Most bytes of the first process: allocated on its GPU, or resident."""
    checkpoint: Path
    """The last checkpoint (absent with keep_last = 0)."""
    evaluation: Mapping[str, float]
    """The last measurement on held-out data; empty on other ranks than the first."""


def fit(
    module: nn.Module,
    batches: Dealt,
    config: TrainConfig,
    folder: Path,
    *,
    world: World,
    seed: int,
    attach: Mapping[str, Path],
    evaluate: Evaluate | None = None,
) -> Fitted:
    """Train `module` (a `Learner`) in place, from the newest verified checkpoint in `folder` when there is one.

    Every step: this rank's micro-batches are prepared, counts are added up over micro-batches and ranks, each micro-batch
    contributes its share of the exactly averaged loss, gradients are added up over ranks, clipped and applied.
    A training with phases takes a tuple of batches, one for each. `attach` names folders that go into every checkpoint. `evaluate(step)` is
    called on every rank, without gradient and dropout; what it returns on the first rank is recorded. So is what a probe finds, which comes
    with it as `probing.Measuring` and may end the training.

    Raises KitaeError when the folder belongs to other settings or another process, the disk is full, or a gradient is not
    finite; Stopped after SIGTERM or SIGINT, when a complete checkpoint is written (none with keep_last = 0).
    """
    if world.device.type == "cpu":
        keep_memory()
    alone = lock(folder / "checkpoints") if world.main else contextlib.nullcontext()
    with alone, stop_signals() as signals, reproducible(config.deterministic):
        trainer = _Trainer(
            module=module,
            batches=batches,
            config=config,
            folder=folder,
            world=world,
            seed=seed,
            attach=attach,
            evaluate=evaluate,
        )
        try:
            trainer.resume()
            trainer.run(signals)
            return trainer.fitted()
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            cure = "free some space and run again: the earlier checkpoints are intact"
            raise KitaeError("the disk is full", cure=cure, where=str(folder)) from error
        finally:
            trainer.close()


@dataclass(kw_only=True)
class _Trainer:
    """The state of one training. Public use is through `fit`."""

    module: nn.Module
    batches: Dealt
    config: TrainConfig
    folder: Path
    world: World
    seed: int
    attach: Mapping[str, Path]
    evaluate: Evaluate | None

    def __post_init__(self) -> None:
        self.probe = self.evaluate.probe if isinstance(self.evaluate, Measuring) else None
        self.clock = Clock(self.world, self.folder, limit=self.config.budget)
        self.times = times_of(self.config, self.batches, self.clock)
        groups = self.module.groups() if isinstance(self.module, Grouped) else ()
        self.optimizer = Optimizer(self.module, self.config, self.world.device, groups=groups, world=self.world)
        arm_blocks(self.module, compiled=self.config.compile, recomputed=self.config.activation_checkpointing)
        leading = of_phase(self.batches, 0)
        shares = dealt(self.config, leading.rows_per_step // leading.micro_batches_per_step, self.world)
        self.feed = Feed(self.batches, self.module, seed=self.seed, world=self.world, times=self.times, shares=shares)
        self.monitor: Monitor | None = None
        self.meter = Meter(self.module, attended(self.batches, self.times), self.config.precision, self.world)
        self.watch = Watch(read_promise(self.folder), self.world.device)
        self.saver: Saver | None = None
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.saved = -1
        self.policy = PolicyState()

    def resume(self) -> None:
        """Claim the folder, and take up the newest checkpoint that verifies."""
        found, spent = -1, Spent()
        self.world.doing("loading", slow=True)
        if self.world.main:
            checkpoint.tidy(self.folder)
            checkpoint.claim(self.folder, "train", self._identity())
            path = checkpoint.latest(self.folder)
            found = int(path.name.removeprefix("step-")) if path is not None else -1
        found = int(self.world.sum_numbers({"found": found if self.world.main else 0})["found"])
        if found >= 0 or self.config.decay_from is not None:
            own = self.folder / "checkpoints" / checkpoint.name_of(found)
            place = own if found >= 0 else branch(self.config, self.batches, self.folder)
            state = checkpoint.load(place, self.module, self.optimizer)
            self.step, self.tokens, self.seconds, self.saved = state.step, state.tokens_seen, state.seconds, found
            self.policy, spent = state.policy, state.spent
        recorded = self.config.budget is not None and self.world.main
        self.clock.resume(self.step, seconds=self.seconds, identity=fingerprint(self._identity()) if recorded else "")
        if self.step:
            log.info("%s goes on after %s", self.folder.name, self.times.place(self.step))
        if self.world.main:
            settings, total = self.config.model_dump(mode="json"), self.times.expected()
            self.monitor = Monitor(self.folder, step=self.step, total=total, log_to=self.config.log_to, settings=settings)
            if self.config.keep_last:
                kept, behind = self.config.keep_last, self.config.save_async
                what = (self.module, self.world.device, self.attach)
                self.saver = Saver(self.folder, *what, clock=self.clock, monitor=self.monitor, keep_last=kept, background=behind)
                if found >= 0:
                    self.saver.clear(found, self.times.permanent())
        self.meter.resume(spent, done=self.times.work(self.step))

    def _identity(self) -> dict[str, object]:
        described = json.loads(json.dumps(self.module.describe()))
        return {
            "config": self.config.semantic(),
            "seed": self.seed,
            **sizes(self.batches),
            "model": described,
            "attached": {name: content_hash(path) for name, path in self.attach.items()},
        }

    def run(self, signals: StopSignals) -> None:
        """Train to the end."""
        first = self.feed.prepare(min(self.step, self.times.total - 1), 0)
        self.updates = Updates(self.module, self.optimizer, self.world, seed=self.seed, first=first, folder=self.folder, state=self.policy)
        self.module.train()
        if self.config.shares == "auto" and self.world.size > 1 and not self.times.over(self.step):
            rehearse = partial(self.updates.rehearse, first)
            self.feed.shares = measured(rehearse, of_phase(self.batches, 0).micro_batches_per_step, self.world, self.folder)
        if (self.step or self.times.flat) and self._evaluation_missing():  # cut off between checkpoint and evaluation, or new
            self._evaluate()
        while not self.times.over(self.step) and not self._ends():
            stop = self._train_step(signals)
            if stop:
                self._leave(stop)
            measures, saves = self._measures(), self._saves()
            if measures:
                self._evaluate()
            if saves:
                self._save()
            if measures or saves:
                self.clock.rest(self.step)
        if self._evaluation_missing():  # what came after the last step left no time for another one
            self._evaluate()
        self._save(wait=True)
        self.clock.rest(self.step)
        self.world.barrier()
        self.optimizer.flat.hand_back()
        self.module.eval()

    def _leave(self, stop: int) -> NoReturn:
        """Stop after this step, as a signal asked for."""
        self._save(wait=True)
        self.clock.rest(self.step)
        self.world.barrier()  # nobody leaves before the checkpoint is complete
        raise Stopped(stop, self.step, saved=self.config.keep_last > 0)

    def _measures(self) -> bool:
        return self.times.measures(self.step) or self._probes()

    def _probes(self) -> bool:
        return self.probe is not None and self.times.probes(self.step)

    def _saves(self) -> bool:
        return self.times.due(self.times.save, self.step) or self.step in self.times.permanent()

    def _train_step(self, signals: StopSignals) -> int:
        """One update; returns the signal that asks all ranks to stop, or 0."""
        start, waited = time.perf_counter(), self.feed.waited
        self.clock.begin(self.step)
        if self.times.begins_phase(self.step):
            self.updates.begin_phase()
        rate, share = rate_of_step(self.config, self.times, self.step), self.feed.take(self.step)
        try:
            counts = self.updates.make(self.step, share, rate, most=self.feed.most(self.step))
        except torch.OutOfMemoryError as error:
            raise self._too_large(error, share) from None
        waited = self.feed.waited - waited
        asked = {f"signal {number}": float(signals.requested == number) for number in SIGNALS}
        told = self.world.sum_numbers(asked | self.clock.reading() | {"waited": waited})
        stop = next((int(number) for number in SIGNALS if told[f"signal {number}"]), 0)
        self.clock.note(self.step, told)
        self.step += 1
        self.tokens += int(counts["tokens"])
        times, due = self.times, self.times.due
        if stop or self.world.device.type == "cpu" or self._measures() or due(times.log, self.step) or self._saves():
            self.updates.settle()
        seconds = time.perf_counter() - start
        self.seconds += seconds
        of = {name: int(counts[name]) for name in ("tokens", "positions")}
        self.meter.add(self.step - 1, Step(**of, seconds=seconds, waited=told["waited"] / self.world.size))
        self._tell()
        if due(times.log, self.step):
            self._log()
        if self.saver is not None:
            self.saver.check()
        return stop

    def _too_large(self, error: torch.OutOfMemoryError, share: list[Batch]) -> KitaeError:
        """This rank's refusal of micro-batches of this size, which knows the largest that fits where that can be tried."""
        first = share[0] if share else self.feed.prepare(self.step, 0)
        rows, length = first.ids_BL.shape
        tried = self.feed.divisible(self.step, first.micro) and not self.optimizer.flat.in_step  # one rank alone would wait for ever
        sizes = smaller(of_phase(self.batches, self.times.phase(self.step)).rows_per_step, rows) if tried else []

        def attempt(few: int) -> None:
            self.updates.rehearse(self.feed.prepare(self.step, first.micro, rows=few))

        return too_large(error, rows, length, sizes, attempt, self.world.device)

    def _tell(self) -> None:
        """Write down what happened in settled steps."""
        for event in self.updates.events():
            if self.monitor is not None:
                self.monitor.note(event.kind, event.step, event.values)

    def _log(self) -> None:
        if self.monitor is None:
            return
        times, total = self.times, self.times.expected()
        left = None if times.limit is None else times.limit - self.clock.moment(self.step)
        reading = self.meter.read(done=times.work(self.step), whole=times.work(total), left=left)
        clock = {"tokens": self.tokens, "seconds": self.seconds, "waited": self.meter.total.waited}
        self.monitor.record("train", self.step, self.updates.last | clock | reading | self.watch.look(reading))
        self.monitor.total = total
        loss = self.updates.last.get("loss", math.nan)
        self.monitor.show(self.step, f"{times.place(self.step)}, loss {loss:.3f}, {in_words(reading)}")

    def _evaluation_missing(self) -> bool:
        known = None if self.monitor is None else self.monitor.evaluated.get(self.step)
        lacks = self.probe is not None and self._probes() and self.probe.score not in (known or {})
        missing = self.monitor is not None and self._measures() and (known is None or lacks)
        return bool(self.world.sum_numbers({"missing": float(missing)})["missing"])

    def _evaluate(self) -> None:
        if self.evaluate is None:
            return
        probe = self.probe if self._probes() else None
        self.world.doing("measuring held-out text", self.step, slow=True)
        self.module.eval()
        # Replayed graphs would hold the memory of every batch that is measured.
        plain = torch.compiler.set_stance("force_eager") if self.config.compile == "graphs" else contextlib.nullcontext()
        with torch.no_grad(), plain, self.clock.event("evaluate"), self.optimizer.flat.whole():
            values = self.evaluate(self.step)
            if probe is not None:
                probe.take()
        self.module.train()
        if probe is not None:
            try:
                with self.clock.event("probe"):
                    values |= probe.run(self.step)
            except Stopped as stop:  # nothing is recorded: it is all measured when the training goes on
                self._leave(stop.signal)
        if self.monitor is not None:
            self.monitor.record("evaluate", self.step, values)

    def _ends(self) -> bool:
        """Whether the training ends here, before its length."""
        if probed_enough(self.probe, self.times, self.step, monitor=self.monitor, world=self.world):
            log.info("%s: no better by its probe after %s", self.folder.name, self.times.place(self.step))
            return True
        if not ends(self.config.until_flat, self.times, self.step, monitor=self.monitor, world=self.world, folder=self.folder):
            return False
        assert self.config.until_flat is not None
        log.info("%s: the held-out %s is flat after %s", self.folder.name, self.config.until_flat.loss, self.times.place(self.step))
        return True

    def _save(self, *, wait: bool = False) -> None:
        """Save, unless this step is saved already; `wait` until it is on the disk, and an earlier one as well."""
        if not self.config.keep_last:
            return
        due = self.saved != self.step
        if due:
            self.updates.settle()
            self._tell()
        self.world.doing("saving", self.step, slow=True)
        with self.clock.event(SAVE):
            exact = self.optimizer.gathered() if due else None
            if self.saver is not None:
                wait |= self.config.budget is not None and not self.clock.knows(SAVE)  # to know how long the last one will take
                if exact is not None:
                    self.saver.save(self._state(), exact, permanent=self.times.permanent())
                if wait:
                    self.saver.wait()
        self.saved = self.step

    def _state(self) -> checkpoint.State:
        return checkpoint.State(
            step=self.step,
            tokens_seen=self.tokens,
            seconds=self.seconds,
            spent=self.meter.total,
            world_size=self.world.size,
            seed=self.seed,
            config=self.config.model_dump(mode="json"),
            policy=self.updates.state(),
        )

    def fitted(self) -> Fitted:
        """The result, after `run`."""
        return Fitted(
            steps=self.step,
            skipped=self.updates.skipped,
            tokens=self.tokens,
            seconds=self.seconds,
            waited=self.meter.total.waited,
            shares=self.meter.shares(),
            memory=self.meter.total.memory,
            checkpoint=self.folder / "checkpoints" / checkpoint.name_of(self.step),
            evaluation=self.monitor.evaluated.get(self.step, {}) if self.monitor is not None else {},
        )

    def close(self) -> None:
        """Let go of threads, files and hooks."""
        self.feed.close()
        if self.saver is not None:
            self.saver.close()
        self.clock.close()
        self.optimizer.close()
        if self.monitor is not None:
            self.monitor.close()
