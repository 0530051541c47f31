"""A toy learner and toy batches; run as a script it trains them in a process of its own.

`python toy_training.py FOLDER '{"config": {...}, "delay": 0.1}' [FOLDER OPTIONS ...]`
"""

import hashlib
import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from kitae.core.errors import KitaeError, Stopped
from kitae.core.runtime import leave
from kitae.tensor.batch import Batch, Layout
from kitae.tensor.groups import ParameterGroup
from kitae.tensor.loss import Loss, Term
from kitae.tensor.random import torch_generator
from kitae.tensor.world import World, session
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

VOCAB, LENGTH = 50, 12


class Block(nn.Module):
    def __init__(self, size: int, rate: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.mlp = nn.Linear(size, size)
        self.dropout = nn.Dropout(rate)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return x_BLD + self.dropout(torch.tanh(self.mlp(self.norm(x_BLD))))


class Toy(nn.Module):
    """Two terms with different counts, a shared table under two names, dropout, masks drawn in prepare."""

    def __init__(
        self, rate: float = 0.1, log: Path | None = None, bad_step: int = -1, head_rate: float | None = None, spike_step: int = -1
    ) -> None:
        super().__init__()
        self.bare: tuple[int, ...] = ()
        """Numbers of the micro-batches of every step in which nothing is masked."""
        self.trouble: tuple[int, int, str] | None = None
        """(step, micro-batch, what): there this process sleeps for ever ("sleep"), fails ("raise"), or is killed ("kill")."""
        generator = torch_generator(0, "toy")
        self.embed = nn.Embedding(VOCAB, 16)
        self.blocks = nn.ModuleList([Block(16, rate) for _ in range(2)])
        self.tied = self.embed
        self.head = nn.Linear(16, 2)
        self.register_buffer("offset", torch.zeros(2))
        self.log, self.bad_step, self.head_rate, self.spike_step = log, bad_step, head_rate, spike_step
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2

    def prepare(self, batch: Batch, seed: int) -> Batch:
        generator = torch_generator(seed, "mask", batch.step, batch.micro)
        drawn = torch.rand(batch.ids_BL.shape, generator=generator) < 0.3
        masked = drawn & batch.layout.mask_BL & (batch.micro not in self.bare)
        return batch.replace(ids_BL=batch.ids_BL.masked_fill(masked, 3), targets={"masked": masked, "labels": batch.ids_BL})

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"mlm": int(batch.targets["masked"].sum()), "rtd": batch.num_tokens}

    def forward(self, batch: Batch) -> Loss:
        if self.log is not None:
            parts = (batch.rows, batch.ids_BL, batch.targets["masked"], batch.targets["labels"])
            digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
            with self.log.open("a") as file:
                file.write(f"{batch.step} {batch.micro} {digest}\n")
        if self.trouble is not None and self.trouble[:2] == (batch.step, batch.micro):
            make_trouble(self.trouble[2])
        x_BLD = self.embed(batch.ids_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        masked, real = batch.targets["masked"], batch.layout.mask_BL
        logits = x_BLD[masked] @ self.tied.weight.T
        logits = logits.float() if logits.dtype.itemsize == 2 else logits
        mlm = nn.functional.cross_entropy(logits, batch.targets["labels"][masked], reduction="sum")
        rtd = nn.functional.cross_entropy(self.head(x_BLD)[real], masked[real].long(), reduction="sum")
        if batch.step == self.bad_step and batch.micro == 1:
            mlm = mlm * float("nan")
        if batch.step == self.spike_step:
            mlm = mlm * 100
        first = Term(name="mlm", sum=mlm, count=int(masked.sum()))
        return Loss(terms=(first, Term(name="rtd", sum=rtd, count=batch.num_tokens, weight=5.0)))

    def compile_blocks(self, *, graphs: bool = False) -> None:
        for block in self.blocks:
            block.compile(options={"triton.cudagraphs": graphs})

    def groups(self) -> tuple[ParameterGroup, ...]:
        if self.head_rate is None:
            return ()
        names = {name for name, _ in self.named_parameters()}
        head = frozenset(name for name in names if name.startswith("head."))
        rest = ParameterGroup(name="rest", parameters=frozenset(names - head))
        return (ParameterGroup(name="head", parameters=head, learning_rate=self.head_rate), rest)

    def describe(self) -> dict[str, object]:
        return {"format": 1, "parts": {"encoder": {"family": "toy", "head": "mlm", "config": {"size": 16}, "labels": ()}}}


def make_trouble(what: str) -> None:
    if what == "raise":
        raise ValueError("planted")
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


class ToyBatches:
    """Rows of random ids and lengths, each a pure function of its number."""

    def __init__(self, rows: int = 8, micro: int = 4, delay: float = 0.0) -> None:
        self.rows_per_step, self.micro_rows, self.delay = rows, micro, delay
        self.micro_batches_per_step = rows // micro
        self.rows_per_epoch, self.tokens_per_step = 40, float(rows * LENGTH)

    def micro(self, step: int, micro: int) -> Batch:
        time.sleep(self.delay)
        first = step * self.rows_per_step + micro * self.micro_rows
        rows = torch.arange(first, first + self.micro_rows)
        lengths = torch.stack([torch.randint(4, LENGTH + 1, (), generator=torch_generator(int(row), "length")) for row in rows])
        ids = torch.stack([torch.randint(5, VOCAB, (LENGTH,), generator=torch_generator(int(row), "ids")) for row in rows])
        mask = torch.arange(LENGTH) < lengths[:, None]
        words = torch.arange(LENGTH, dtype=torch.int32).expand(len(rows), LENGTH)
        return Batch(ids_BL=ids * mask, layout=Layout.padded(mask), words_BL=words, rows=rows, step=step, micro=micro)


def config(**fields: object) -> TrainConfig:
    base = {"length": "20 steps", "learning_rate": 0.01, "log_every": "1 step", "save_every": "4 steps", "batch": "8 rows"}
    return TrainConfig.model_validate(base | fields)


def train(folder: Path, options: dict, world: World) -> None:
    """One training as `options` say: rows, micro (sizes: of each phase), rate, head_rate, bare, bad_step, spike_step, delay, samples (a
    file name's beginning), trouble ([rank, step, micro-batch, what]), measuring (seconds that it takes the first rank), config."""
    log = Path(f"{options['samples']}{world.rank}") if "samples" in options else None
    delay, sizes = options.get("delay", 0.0), options.get("sizes")
    one = ToyBatches(options.get("rows", 8), options.get("micro", 4), delay)
    batches = one if sizes is None else tuple(ToyBatches(rows, micro, delay) for rows, micro in sizes)
    steps = {name: options.get(name, -1) for name in ("bad_step", "spike_step")}
    toy = Toy(options.get("rate", 0.1), log, head_rate=options.get("head_rate"), **steps)
    toy.bare = tuple(options.get("bare", ()))
    rank, *trouble = options.get("trouble", (-1,))
    toy.trouble = tuple(trouble) if rank == world.rank else None
    patience = options.get("measuring", 0.0) if world.main else 0.0
    evaluate = (lambda step: time.sleep(patience) or {}) if "measuring" in options else None
    fit(toy, batches, config(**options["config"]), folder, world=world, seed=7, attach={}, evaluate=evaluate)


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    try:
        jobs = [(Path(folder), json.loads(options)) for folder, options in zip(sys.argv[1::2], sys.argv[2::2], strict=True)]
        with session("cpu", hang_limit=config(**jobs[0][1]["config"]).hang_limit.amount) as world:
            for folder, options in jobs:
                train(folder, options, world)
    except Stopped as stopped:
        return 128 + stopped.signal
    except KitaeError as error:
        logging.error("%s", error)
        return 2
    return 0


def samples(folder: Path) -> dict[tuple[int, int], str]:
    """Digest of rows, ids, masks and labels of every micro-batch; those that were repeated must have had the same."""
    found: dict[tuple[int, int], str] = {}
    for file in folder.glob("samples-*"):
        for line in file.read_text().splitlines():
            step, micro, digest = line.split()
            assert found.setdefault((int(step), int(micro)), digest) == digest
    return found


def losses(folder: Path) -> list[float]:
    """What metrics.jsonl says of every step."""
    return [float(str(record["loss"])) for record in read_metrics(folder / "run") if record["kind"] == "train"]


if __name__ == "__main__":
    leave(main())
