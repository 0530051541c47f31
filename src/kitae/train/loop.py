"""The one loop: any module that knows its loss, over any batches, on any number of processes. It does not know what is learnt."""

import contextlib
import errno
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from kitae.core.artifact import content_hash
from kitae.core.errors import KitaeError, Stopped
from kitae.core.runtime import StopSignals, keep_memory, lock, stop_signals
from kitae.tensor.batch import Batch
from kitae.tensor.random import seed_dropout
from kitae.tensor.world import World
from kitae.train import checkpoint
from kitae.train.batches import Batches, Compilable, Grouped
from kitae.train.config import TrainConfig
from kitae.train.feed import Feed
from kitae.train.monitor import Monitor
from kitae.train.optimizer import FlatAdamW
from kitae.train.schedule import is_flat, rate_of_step, timetable

log = logging.getLogger(__name__)
SIGNALS = (signal.SIGTERM, signal.SIGINT)
Evaluate = Callable[[int], dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a finished training came to."""

    steps: int
    """Updates made."""
    tokens: int
    """Real tokens seen, padding not counted."""
    seconds: float
    """Time spent in training steps, over all its pieces."""
    waited: float
    """Seconds of this process that went into waiting for data."""
    checkpoint: Path
    """The last checkpoint (absent with keep_last = 0)."""
    evaluation: Mapping[str, float]
    """The last measurement on held-out data; empty on other ranks than the first."""


def fit(
    module: nn.Module,
    batches: Batches,
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
    `attach` names folders that go into every checkpoint. `evaluate(step)` is called on every rank, without gradient and
    dropout; what it returns on the first rank is recorded.

    Raises KitaeError when the folder belongs to other settings or another process, the disk is full, or a gradient is not
    finite; Stopped after SIGTERM or SIGINT, when a complete checkpoint is written (none with keep_last = 0).
    """
    if world.device.type == "cpu":
        keep_memory()
    alone = lock(folder / "checkpoints") if world.main else contextlib.nullcontext()
    with alone, stop_signals() as signals, _determinism(config.deterministic):
        trainer = _Trainer(
            module=module, batches=batches, config=config, folder=folder, world=world, seed=seed, attach=attach, evaluate=evaluate
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


@contextlib.contextmanager
def _determinism(wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    before, fill = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # it would fill every new tensor first
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = fill


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A step whose update is under way on the device, and whose numbers nobody has read yet."""

    step: int
    share: list[Batch]
    counts: Mapping[str, float]
    rate: float
    numbers: torch.Tensor
    """float64 on the device: sums of the terms, this rank's share of the loss, norm of the gradient."""


@dataclass(kw_only=True)
class _Trainer:
    """The state of one training. Public use is through `fit`."""

    module: nn.Module
    batches: Batches
    config: TrainConfig
    folder: Path
    world: World
    seed: int
    attach: Mapping[str, Path]
    evaluate: Evaluate | None

    def __post_init__(self) -> None:
        self.times = timetable(self.config, self.batches)
        groups = self.module.groups() if isinstance(self.module, Grouped) else ()
        self.optimizer = FlatAdamW(self.module, self.config, self.world.device, groups=groups)
        if self.config.compile:
            for part in self.module.modules():
                if isinstance(part, Compilable):
                    part.compile_blocks()
        self.feed = Feed(self.batches, self.module, seed=self.seed, world=self.world, total=self.times.total)
        self.monitor: Monitor | None = None
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.saved = -1
        self.names: tuple[str, ...] = ()
        self.last: dict[str, float] = {}
        self._logged = (0, 0.0)
        self._open: _Open | None = None

    def resume(self) -> None:
        """Claim the folder, and take up the newest checkpoint that verifies."""
        found = -1
        if self.world.main:
            checkpoint.tidy(self.folder)
            checkpoint.claim(self.folder, "train", self._identity())
            path = checkpoint.latest(self.folder)
            found = int(path.name.removeprefix("step-")) if path is not None else -1
        found = int(self.world.sum_numbers({"found": found if self.world.main else 0})["found"])
        if found >= 0:
            state = checkpoint.load(self.folder / "checkpoints" / f"step-{found:08d}", self.module, self.optimizer)
            self.step, self.tokens, self.seconds, self.saved = state.step, state.tokens_seen, state.seconds, state.step
            log.info("%s goes on after step %d of %d", self.folder.name, self.step, self.times.total)
        if self.world.main:
            self.monitor = Monitor(self.folder, step=self.step, total=self.times.total)
        self._logged = (self.tokens, self.seconds)

    def _identity(self) -> dict[str, object]:
        described = json.loads(json.dumps(self.module.describe()))
        return {
            "config": self.config.semantic(),
            "seed": self.seed,
            "micro_batches": self.batches.micro_batches_per_step,
            "rows": self.batches.rows_per_step,
            "model": described,
            "attached": {name: content_hash(path) for name, path in self.attach.items()},
        }

    def run(self, signals: StopSignals) -> None:
        """Train to the end."""
        first = self.feed.prepare(min(self.step, self.times.total - 1), 0)
        self.names = tuple(sorted(self.module.counts(first)))  # a rank without a share needs them too
        self.module.train()
        if (self.step or self.times.flat) and self._evaluation_missing():  # cut off between checkpoint and evaluation, or new
            self._evaluate()
        while self.step < self.times.total and not self._is_flat():
            stop = self._train_step(signals)
            if stop:
                self._save()
                self.world.barrier()  # nobody leaves before the checkpoint is complete
                raise Stopped(stop, self.step, saved=self.config.keep_last > 0)
            if self.times.measures(self.step):
                self._evaluate()
            if self.times.due(self.times.save, self.step) or self.step in self.times.milestones:
                self._save()
        self._save()
        self.world.barrier()
        self.module.eval()

    def _train_step(self, signals: StopSignals) -> int:
        """One update; returns the signal that asks all ranks to stop, or 0."""
        start = time.perf_counter()
        share = self.feed.take(self.step)
        local = dict.fromkeys(self.names, 0.0) | {"tokens": 0.0}
        for batch in share:
            local["tokens"] += batch.num_tokens
            for name, count in self.module.counts(batch).items():
                local[name] += count
        counts = self.world.sum_numbers(local)
        sums = self._backward(share, counts)
        self._settle()
        self.world.sum(self.optimizer.gradient())
        norm = self.optimizer.clip()
        rate = rate_of_step(self.config, self.times, self.step)
        self.optimizer.step(rate, unless=~(torch.isfinite(norm) & torch.isfinite(sums).all()))
        numbers = torch.cat([sums, norm.to(torch.float64)[None]])
        self._open = _Open(step=self.step, share=share, counts=counts, rate=rate, numbers=numbers)
        stops = self.world.sum_numbers({f"signal {number}": float(signals.requested == number) for number in SIGNALS})
        stop = next((int(number) for number in SIGNALS if stops[f"signal {number}"]), 0)
        self.step += 1
        self.tokens += int(counts["tokens"])
        times, due = self.times, self.times.due
        if stop or self.world.device.type == "cpu" or times.measures(self.step) or due(times.log, self.step) or due(times.save, self.step):
            self._settle()
        if self.step in times.milestones or self.step == times.total:
            self._settle()
        self.seconds += time.perf_counter() - start
        if due(times.log, self.step):
            self._log()
        return stop

    def _settle(self) -> None:
        """Wait for the numbers of the last step, if they are not known yet, and refuse what is not finite.

        On CUDA that happens when the next step's work is under way, so that the device never waits for the host.
        """
        if self._open is None:
            return
        done, self._open = self._open, None
        *values, norm = done.numbers.tolist()
        seen = self.world.sum_numbers(dict(zip((*self.names, "loss"), values, strict=True)))
        if not math.isfinite(norm) or not all(math.isfinite(value) for value in seen.values()):
            self._refuse(done, norm)
        self.last = {f"{name}_loss": seen[name] / max(done.counts[name], 1) for name in self.names}
        self.last |= {"loss": seen["loss"], "learning_rate": done.rate, "gradient_norm": norm}

    def _backward(self, share: list[Batch], counts: Mapping[str, float]) -> torch.Tensor:
        """Gradients of this rank's share into the flat buffer; on the device, in float64: the sums of its terms (`names`), and
        last its share of the loss."""
        sums = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=self.world.device)
        self.optimizer.start_gradient()
        for batch in share:
            seed_dropout(self.seed, "dropout", batch.step, batch.micro)
            loss = self.module(batch.to(self.world.device))
            total = loss.total(counts)
            total.backward()
            found = {term.name: term.sum.detach() for term in loss.terms} | {"loss": total.detach()}
            zero = sums.new_zeros(())
            sums += torch.stack([found.get(name, zero).to(torch.float64) for name in (*self.names, "loss")])
        return sums

    def _refuse(self, done: _Open, norm: float) -> None:
        """Name the first micro-batch of this rank whose gradient is not finite, and stop without an update."""
        rows: list[int] = []
        for batch in done.share:
            sums = self._backward([batch], done.counts)
            if not bool(sums[-1].isfinite()) or not bool(torch.isfinite(self.optimizer.gradient()).all()):
                rows = batch.rows.tolist()
                break
        shown = ", ".join(str(row) for row in rows[:16]) + (", ..." if len(rows) > 16 else "")
        raise KitaeError(
            f"the gradient of step {done.step} is not finite (norm {norm}), "
            + (f"in the micro-batch of rows {shown}" if rows else "but no single micro-batch of this process makes it so"),
            cure="the update was not applied: lower learning_rate, or use precision fp32, and run again from the last checkpoint",
            where=str(self.folder),
        )

    def _log(self) -> None:
        if self.monitor is None:
            return
        tokens, seconds = self.tokens - self._logged[0], self.seconds - self._logged[1]
        self._logged = (self.tokens, self.seconds)
        speed = tokens / max(seconds, 1e-9)
        clock = {"tokens": self.tokens, "seconds": self.seconds, "tokens_per_second": speed, "waited": self.feed.waited}
        self.monitor.record("train", self.step, self.last | clock)
        text = f"step {self.step} of {self.times.total}, loss {self.last['loss']:.3f}, {speed:,.0f} tokens/s"
        self.monitor.show(self.step, text)

    def _evaluation_missing(self) -> bool:
        missing = self.monitor is not None and self.times.measures(self.step) and self.step not in self.monitor.evaluated
        return bool(self.world.sum_numbers({"missing": float(missing)})["missing"])

    def _evaluate(self) -> None:
        if self.evaluate is None:
            return
        self.module.eval()
        with torch.no_grad():
            values = self.evaluate(self.step)
        self.module.train()
        if self.monitor is not None:
            self.monitor.record("evaluate", self.step, values)

    def _is_flat(self) -> bool:
        """Whether `until_flat` ends the training here: a function of what was measured so far, which every rank learns."""
        config, times = self.config.until_flat, self.times
        if config is None or not self.step or self.step % times.flat:
            return False
        measured = self.monitor.evaluated if self.monitor is not None else {}
        counted = [step for step in range(times.flat, self.step + 1, times.flat) if step >= times.warmup]
        found = {
            step: [v for name, v in measured.get(step, {}).items() if name.rpartition("/")[2] == config.loss] for step in [0, *counted]
        }
        losses = {step: sum(values) / len(values) for step, values in found.items() if values}
        flat = 0 in losses and is_flat(config, losses[0], [losses[step] for step in counted if step in losses])
        absent = self.monitor is not None and 0 not in losses
        answer = self.world.sum_numbers({"flat": float(flat), "absent": float(absent)})
        if answer["absent"]:
            raise KitaeError(
                f'until_flat waits for the held-out loss "{config.loss}", which nothing measures',
                cure="set corpus.holdout, name another loss, or remove until_flat",
                where=str(self.folder),
            )
        if answer["flat"]:
            log.info("%s: the held-out %s is flat after step %d of %d", self.folder.name, config.loss, self.step, times.total)
        return bool(answer["flat"])

    def _save(self) -> None:
        if self.saved == self.step or self.config.keep_last == 0:
            return
        if self.world.main:
            state = checkpoint.State(
                step=self.step,
                tokens_seen=self.tokens,
                seconds=self.seconds,
                world_size=self.world.size,
                seed=self.seed,
                config=self.config.model_dump(mode="json"),
            )
            checkpoint.save(self.folder, self.module, self.optimizer, state, self.attach)
            checkpoint.prune(self.folder, self.config.keep_last, self.times.milestones)
        self.saved = self.step

    def fitted(self) -> Fitted:
        """The result, after `run`."""
        return Fitted(
            steps=self.step,
            tokens=self.tokens,
            seconds=self.seconds,
            waited=self.feed.waited,
            checkpoint=self.folder / "checkpoints" / f"step-{self.step:08d}",
            evaluation=self.monitor.evaluated.get(self.step, {}) if self.monitor is not None else {},
        )

    def close(self) -> None:
        """Let go of threads, files and hooks."""
        self.feed.close()
        self.optimizer.close()
        if self.monitor is not None:
            self.monitor.close()
