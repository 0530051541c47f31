"""Speed and memory of a masked language model's training step: kitae against the same model of transformers, by family.

    python -m benchmarks.mlm RUN bert-base [--rows 32] [--rounds 5]

RUN is the output folder of a recipe with a `dataset`, whose max_length is the length of the rows. transformers gets bf16 autocast or
fp32, one padded document a row (86 % real tokens), labels everywhere (logits at every position), AdamW; kitae packs rows and has logits
at the masked positions only. Real tokens a second, by turns, and the memory that a step needs beside weights and optimizer.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import nn

from benchmarks.paired import by_turns, keep, matmul_gflops, profile, ratio, serve
from benchmarks.peers import choose, drawn
from benchmarks.pretrain import filled_rows
from kitae.core.runtime import keep_memory
from kitae.data.sampler import DatasetFacts, Sampler
from kitae.models.cost import flops_per_token
from kitae.models.encoder import Encoder
from kitae.models.families import FAMILIES
from kitae.models.presets import Architecture, resolve_preset
from kitae.models.settings import to_huggingface_config
from kitae.objectives.mlm import MlmConfig
from kitae.objectives.table import build
from kitae.tensor.random import seed_dropout
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.config import TrainConfig
from kitae.train.optimizer import Optimizer

IGNORED = -100
Step = Callable[[], int]
"""One training step; returns its real tokens."""


def architecture_of(run: Path, preset: str) -> Architecture:
    """The preset with the run's vocabulary, for rows of up to 512 tokens."""
    tokenizer = Tokenizer.load(run / "dataset" / "tokenizer")
    length = max(512, DatasetFacts.read(run / "dataset").max_length)
    return resolve_preset(preset, {}, tokenizer.vocab_size, length, pad_token_id=tokenizer.special.pad)


def ours(run: Path, preset: str, precision: str, rows: int, *, compiled: bool = False, all_logits: bool = False) -> Step:
    """A step as the training loop makes it. `all_logits`: the same with logits at every position, to compare the memory."""
    tokenizer = Tokenizer.load(run / "dataset" / "tokenizer")
    objective = build(architecture_of(run, preset), MlmConfig(), tokenizer.special, tokenizer.vocab_size, 1)
    config = TrainConfig.model_validate({"length": "100 steps", "precision": precision})
    sampler = Sampler(run / "dataset", split="train", rows_per_step=rows, rows_per_micro_batch=rows, seed=1)
    optimizer = Optimizer(objective, config, torch.device("cpu"))
    objective.train()
    for part in objective.modules():
        if compiled and isinstance(part, Encoder):
            part.compile_blocks()
    state = {"step": 0}

    def step() -> int:
        batch = objective.prepare(sampler.micro(state["step"], 0), 1)
        optimizer.start_gradient()
        seed_dropout(1, "dropout", batch.step, batch.micro)
        if all_logits:
            logits_BLV = objective.models()["encoder"](batch)
            labels = torch.full((batch.ids_BL.numel(),), IGNORED).index_copy(0, batch.targets["picks"], batch.targets["labels"])
            nn.functional.cross_entropy(logits_BLV.flatten(0, 1).float(), labels).backward()
        else:
            objective(batch).total(objective.counts(batch)).backward()
        optimizer.gradient()
        optimizer.clip()
        optimizer.step(1e-4)
        state["step"] += 1
        return batch.num_tokens

    return step


def theirs(run: Path, preset: str, precision: str, rows: int) -> Step:
    """The usual step: rows of one padded document, all logits, AdamW over separate tensors."""
    tokenizer = Tokenizer.load(run / "dataset" / "tokenizer")
    config = architecture_of(run, preset).encoder
    architecture = FAMILIES[config.model_type].heads["mlm"].architecture
    raw = to_huggingface_config(config, architecture=architecture, labels=())
    kind = getattr(transformers, architecture)
    model = kind(kind.config_class.from_dict(raw)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    length = DatasetFacts.read(run / "dataset").max_length
    padded = filled_rows(run, tokenizer, length=length)
    state = {"step": 0}

    def step() -> int:
        start = state["step"] * rows % (len(padded) - rows)
        ids = padded[start : start + rows]
        mask = (ids != tokenizer.special.pad).long()
        chosen = choose(mask)
        labels = ids.masked_fill(~chosen, IGNORED)
        shown = torch.where(drawn(chosen, 0.8), tokenizer.special.mask, ids)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(input_ids=shown, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state["step"] += 1
        return int(mask.sum())

    return step


def timed(step: Step, steps: int) -> Callable[[], float]:
    """Real tokens a second of a few steps."""

    def measure() -> float:
        begun = time.perf_counter()
        tokens = sum(step() for _ in range(steps))
        return tokens / (time.perf_counter() - begun)

    return measure


def weighed(step: Step) -> Callable[[], float]:
    """Megabytes of tensors that live at a step's peak beside what lives between steps (weights, gradients, optimizer), as torch's
    allocator counts them: no rounding by the system, and the same on a busy machine."""
    step()

    def measure() -> float:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
            step()
        assert profiler.profiler is not None
        events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
        living = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
        return max(living) / 1e6

    return measure


def work(arguments: argparse.Namespace) -> None:
    """Serve as one of the sides: what:side:precision."""
    what, side, precision = arguments.worker.split(":")
    if what == "speed" and (side != "transformers" or arguments.memory == "both"):
        keep_memory()
    common = (arguments.run, arguments.preset, precision, arguments.rows)
    if side == "transformers":
        serve(lambda: (weighed if what == "memory" else lambda step: timed(step, arguments.steps))(theirs(*common)))
    else:
        make = ours(*common, compiled=side == "compiled", all_logits=side == "all-logits")
        serve(lambda: weighed(make) if what == "memory" else timed(make, arguments.steps))


def main() -> None:
    """Measure all sides by turns, or serve as one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("preset")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", choices=("both", "ours"), default="both")
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
        return
    sides = ["kitae:fp32", "kitae:bf16", "transformers:fp32", "transformers:bf16", *(["compiled:bf16"] if arguments.compiled else [])]
    options = ["--rows", str(arguments.rows), "--steps", str(arguments.steps), "--memory", arguments.memory]
    common = [sys.executable, "-m", "benchmarks.mlm", str(arguments.run), arguments.preset, *options, "--worker"]
    found = by_turns({side: [*common, f"speed:{side}"] for side in sides}, arguments.rounds + 1)
    found = {side: values[1:] for side, values in found.items()}  # the first round warms up
    weights = ["kitae:fp32", "all-logits:fp32", "transformers:fp32", "kitae:bf16", "all-logits:bf16", "transformers:bf16"]
    memory = {
        side: values[0] for side in weights for values in by_turns({side: [*common, f"memory:{side}"]}, 1).values()
    }  # one after the other, so that they fit
    length = DatasetFacts.read(arguments.run / "dataset").max_length
    flops = flops_per_token(architecture_of(arguments.run, arguments.preset), length=length, objective="mlm", mask_rate=0.15)
    achieved = {side: statistics.median(values) * flops / 1e9 for side, values in found.items()}
    possible = {"fp32": matmul_gflops(torch.float32), "bf16": matmul_gflops(torch.bfloat16)}
    keep(
        f"mlm-{arguments.preset}-{length}-memory-{arguments.memory}",
        {
            "rows": arguments.rows,
            "length": length,
            "real tokens per second": found,
            "flops per token": flops,
            "GFLOPS of a large matrix product": possible,
            "MFU": {side: value / possible[side.partition(":")[2]] for side, value in achieved.items()},
            **{
                f"{ours} / {peer}": ratio(found[ours], found[peer])
                for ours, peer in (
                    ("kitae:fp32", "transformers:fp32"),
                    ("kitae:bf16", "transformers:bf16"),
                    *((("compiled:bf16", "transformers:bf16"),) if arguments.compiled else ()),
                )
            },
            "megabytes of a step beside weights and optimizer": memory,
            **{
                f"memory, kitae / {peer}": {p: memory[f"kitae:{p}"] / memory[f"{peer}:{p}"] for p in ("fp32", "bf16")}
                for peer in ("all-logits", "transformers")
            },
            "profile, kitae:bf16": profile(ours(arguments.run, arguments.preset, "bf16", arguments.rows)),
        },
    )


if __name__ == "__main__":
    main()
