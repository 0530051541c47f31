"""Short pre-trainings that write down what they saw and are cut off on the way: `elastic_pretraining.py FOLDER DATASET CHANGES CUT ...`.

CUT: {} or {"signal": [rank, step]} (SIGTERM to that process while it makes that step) or {"crash": [step, micro-batch]} (an error in
the middle of the step's micro-batches).
"""

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from tiny_pretraining import pretrain

from kitae.core.errors import Stopped
from kitae.core.launch import launch
from kitae.tensor.batch import Batch
from kitae.train import update
from kitae.train.feed import Feed


class Crashed(Exception):
    pass


def main() -> int:
    torch.set_num_threads(1)
    rank, prepare, seed_dropout = launch().rank, Feed.prepare, update.seed_dropout
    for folder, dataset, changes, cut in zip(sys.argv[1::4], sys.argv[2::4], sys.argv[3::4], sys.argv[4::4], strict=True):
        Feed.prepare = noting(prepare, Path(f"{folder}.samples-{rank}"))  # type: ignore[method-assign]
        update.seed_dropout = cutting(seed_dropout, rank, **json.loads(cut))
        try:
            pretrain(Path(folder), Path(dataset), **json.loads(changes))
        except (Stopped, Crashed):
            assert json.loads(cut)
    return 0


def noting(prepare: Callable[..., Batch], file: Path) -> Callable[..., Batch]:
    """Writes step, micro-batch and a digest of rows, ids, masks and labels."""

    def noted(feed: Feed, step: int, micro: int) -> Batch:
        batch = prepare(feed, step, micro)
        parts = [batch.rows, batch.ids_BL, *(batch.targets[name] for name in sorted(batch.targets))]
        digest = hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()
        with file.open("a") as lines:
            lines.write(f"{step} {micro} {digest}\n")
        return batch

    return noted


def cutting(seed_dropout: Callable[..., None], rank: int, **cut: list[int]) -> Callable[..., None]:
    """Called with (seed, name, step, micro-batch) before every forward pass."""

    def called(seed: int, name: str, step: int, micro: int) -> None:
        if cut.get("signal") == [rank, step]:
            os.kill(os.getpid(), signal.SIGTERM)
        if cut.get("crash") == [step, micro]:
            raise Crashed
        seed_dropout(seed, name, step, micro)

    return called


if __name__ == "__main__":
    sys.exit(main())
