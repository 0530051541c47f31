"""Pre-training speed, ELECTRA on two cores: kitae against the same model composed from transformers.

    python -m benchmarks.pretrain RUN [--preset electra-small] [--rounds 7]

RUN is the output folder of a recipe with a `dataset` (max_length 128). Both sides see the same tokens; the peer has one padded
document a row. Real tokens a second (padding not counted), by turns; both sides keep freed memory unless --memory says otherwise.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.paired import by_turns, keep, matmul_gflops, profile, ratio, serve
from benchmarks.peers import ComposedElectra, choose, document_pieces, electra_config, padded_rows
from kitae.core.runtime import keep_memory
from kitae.data.sampler import Sampler
from kitae.data.shards import Shards
from kitae.models.cost import flops_per_token
from kitae.models.encoder import Encoder
from kitae.models.presets import resolve_preset
from kitae.objectives.rtd import RtdConfig
from kitae.objectives.table import build
from kitae.tensor.random import seed_dropout
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.config import TrainConfig
from kitae.train.optimizer import Optimizer

ROWS, LENGTH, STEPS = 32, 128, 3


def ours(run: Path, preset: str, precision: str, compiled: bool) -> Callable[[], float]:
    """A step as the training loop makes it: packed rows, flat optimizer, clipping."""
    tokenizer = Tokenizer.load(run / "dataset" / "tokenizer")
    architecture = resolve_preset(preset, {}, tokenizer.vocab_size, 512)
    objective = build(architecture, RtdConfig(), tokenizer.special, tokenizer.vocab_size, 1)
    config = TrainConfig.model_validate({"length": "100 steps", "precision": precision})
    sampler = Sampler(run / "dataset", split="train", rows_per_step=ROWS, rows_per_micro_batch=ROWS, seed=1)
    optimizer = Optimizer(objective, config, torch.device("cpu"))
    objective.train()
    if compiled:
        for part in objective.modules():
            if isinstance(part, Encoder):
                part.compile_blocks()
    state = {"step": 0}

    def measure() -> float:
        tokens, begun = 0, time.perf_counter()
        for _ in range(STEPS):
            batch = objective.prepare(sampler.micro(state["step"], 0), 1)
            optimizer.start_gradient()
            seed_dropout(1, "dropout", batch.step, batch.micro)
            objective(batch).total(objective.counts(batch)).backward()
            optimizer.gradient()
            optimizer.clip()
            optimizer.step(1e-4)
            tokens += batch.num_tokens
            state["step"] += 1
        return tokens / (time.perf_counter() - begun)

    return measure


def theirs(run: Path, preset: str, precision: str) -> Callable[[], float]:
    """The usual step: rows of one padded document, all logits, AdamW over separate tensors."""
    tokenizer = Tokenizer.load(run / "dataset" / "tokenizer")
    architecture = resolve_preset(preset, {}, tokenizer.vocab_size, 512)
    assert architecture.generator is not None
    model = ComposedElectra(electra_config(architecture.generator), electra_config(architecture.encoder)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    rows = filled_rows(run, tokenizer)
    state = {"step": 0}

    def measure() -> float:
        tokens, begun = 0, time.perf_counter()
        for _ in range(STEPS):
            start = state["step"] * ROWS % (len(rows) - ROWS)
            ids = rows[start : start + ROWS]
            mask = (ids != tokenizer.special.pad).long()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model(ids, mask, choose(mask), tokenizer.special.mask)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            tokens += int(mask.sum())
            state["step"] += 1
        return tokens / (time.perf_counter() - begun)

    return measure


def filled_rows(run: Path, tokenizer: Tokenizer, fill: float = 0.86, count: int = 4096, length: int = LENGTH) -> torch.Tensor:
    """Rows of one (piece of a) document each, mixed so that the share of real tokens is `fill`, that of ordinary web text."""
    shards = Shards(run / "dataset" / "train")
    pieces = document_pieces(shards, length, most=4000)
    full = [piece for piece in pieces if piece[1] - piece[0] == length - 2]
    short = [piece for piece in pieces if piece[1] - piece[0] < length - 2]
    share = sum(end - start + 2 for start, end in short) / len(short) / length
    num_short = min(count, round(count * (1 - fill) / (1 - share)))
    chosen = [full[i % len(full)] for i in range(count - num_short)] + [short[i % len(short)] for i in range(num_short)]
    padded = padded_rows(shards, chosen, tokenizer.special, length)
    return padded[torch.randperm(count, generator=torch.Generator().manual_seed(1))]


def main() -> None:
    """Measure all sides by turns, or serve as one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--preset", default="electra-small")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", choices=("both", "neither", "ours"), default="both")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    if arguments.worker:
        side, _, precision = arguments.worker.partition(":")
        if arguments.memory == "both" or (arguments.memory == "ours" and side != "transformers"):
            keep_memory()
        if side == "transformers":
            serve(lambda: theirs(arguments.run, arguments.preset, precision))
        else:
            serve(lambda: ours(arguments.run, arguments.preset, precision, side == "compiled"))
        return
    names = ["kitae:fp32", "kitae:bf16", "transformers:fp32", "transformers:bf16", *(["compiled:bf16"] if arguments.compiled else [])]
    common = [str(arguments.run), "--preset", arguments.preset, "--memory", arguments.memory]
    workers = {name: [sys.executable, "-m", "benchmarks.pretrain", *common, "--worker", name] for name in names}
    found = by_turns(workers, arguments.rounds)
    found = {name: values[1:] for name, values in found.items()}  # the first round warms up
    tokenizer = Tokenizer.load(arguments.run / "dataset" / "tokenizer")
    architecture = resolve_preset(arguments.preset, {}, tokenizer.vocab_size, 512)
    flops = flops_per_token(architecture, length=LENGTH, objective="rtd", mask_rate=0.15)
    achieved = {name: statistics.median(values) * flops / 1e9 for name, values in found.items()}
    possible = {"fp32": matmul_gflops(torch.float32), "bf16": matmul_gflops(torch.bfloat16)}
    keep_memory()
    best = "compiled:bf16" if arguments.compiled else "kitae:bf16"
    keep(
        f"pretrain-{arguments.preset}-memory-{arguments.memory}",
        {
            "rows": ROWS,
            "length": LENGTH,
            "real tokens per second": found,
            "flops per token": flops,
            "GFLOPS, median": achieved,
            "GFLOPS of a large matrix product": possible,
            "MFU": {name: value / possible[name.partition(":")[2]] for name, value in achieved.items()},
            "kitae fp32 / transformers fp32": ratio(found["kitae:fp32"], found["transformers:fp32"]),
            f"{best} / transformers fp32": ratio(found[best], found["transformers:fp32"]),
            f"{best} / transformers bf16": ratio(found[best], found["transformers:bf16"]),
            f"profile, {best}, {STEPS} steps": profile(ours(arguments.run, arguments.preset, "bf16", arguments.compiled)),
        },
    )


if __name__ == "__main__":
    main()
