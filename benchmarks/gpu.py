"""Pre-training speed on one CUDA device: the real loop over synthetic packed rows, and transformers' models beside it.

    python -m benchmarks.gpu [--only electra-small] [--profile] [--steps 24] [--keep gpu-h200]

Rows are packed from documents of log-normal length (median 300 tokens), ids are Zipf-like. Real tokens a second are the median of the
windows of `metrics.jsonl` after the warm-up; MFU counts `flops_per_token` at the attended length against 989 TFLOP/s (dense bf16, H200).
"""

import argparse
import gc
import json
import logging
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import BertConfig, BertForMaskedLM, ElectraConfig

from benchmarks.paired import RESULTS
from benchmarks.peers import ComposedElectra, choose
from kitae.data.packing import SPECIALS, Packer
from kitae.models.cost import flops_per_token
from kitae.models.presets import Architecture, resolve_preset
from kitae.objectives import table
from kitae.tensor.batch import Batch, Layout
from kitae.tensor.random import numpy_generator
from kitae.tensor.world import World
from kitae.tokenization.special import SpecialIds
from kitae.train.config import TrainConfig
from kitae.train.loop import fit
from kitae.train.monitor import read_metrics

VOCAB = 32_768
PEAK = 989e12
SPECIAL = SpecialIds(pad=0, unk=1, cls=2, sep=3, mask=4)
WINDOW = 8
WARM_UP = 8
ROWS_MADE = 8192


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement of ours."""

    preset: str
    length: int
    rows: int
    """Of a micro-batch, which is also the step."""
    attention_dropout: float | None
    """None is the preset's."""
    compiled: bool


def cases() -> list[Case]:
    """Every preset plain, compiled, and compiled without dropout of attention; ELECTRA-small also in the paper's batch."""
    found = [Case(preset="electra-small", length=128, rows=128, attention_dropout=None, compiled=True)]
    for preset, length, rows in (
        ("electra-small", 128, 1024),
        ("electra-base", 512, 128),
        ("bert-base", 512, 128),
        ("bert-large", 512, 64),
    ):
        for dropout, compiled in ((None, False), (None, True), (0.0, True)):
            found.append(Case(preset=preset, length=length, rows=rows, attention_dropout=dropout, compiled=compiled))
    return found


class Synthetic:
    """The loop's batches over rows that were packed once: real lengths, made-up ids."""

    def __init__(self, *, rows: int, length: int) -> None:
        self.micro_batches_per_step, self.rows_per_step, self.rows_per_epoch = 1, rows, ROWS_MADE
        self.tokens_per_step = float(rows * length)
        generator = numpy_generator(1, "documents")
        documents = np.exp(generator.normal(np.log(300), 1.0, 60_000)).astype(np.int64).clip(8)
        pieces = np.concatenate(
            [documents % (length - SPECIALS), np.full(int((documents // (length - SPECIALS)).sum()), length - SPECIALS)]
        )
        packer = Packer(np.bincount(pieces[pieces > 0]), max_length=length)
        self.lengths = []
        for pattern in packer.patterns():
            recipe = [size + SPECIALS for size in (*pattern.lengths, *((pattern.head,) if pattern.cut else ()))]
            self.lengths += [recipe] * pattern.repeats
        chosen = generator.choice(len(self.lengths), ROWS_MADE, replace=len(self.lengths) < ROWS_MADE)
        self.lengths = [self.lengths[i] for i in chosen]
        shape = (ROWS_MADE, length)
        self.ids = 5 + ((VOCAB - 5) ** generator.random(shape)).astype(np.int64) - 1
        self.pieces, self.positions = np.zeros(shape, np.int32), np.zeros(shape, np.int64)
        self.words = np.tile(np.arange(length, dtype=np.int32), (ROWS_MADE, 1))
        for row, recipe in enumerate(self.lengths):
            end = 0
            for number, size in enumerate(recipe, start=1):
                start, end = end, end + size
                self.pieces[row, start:end], self.positions[row, start:end] = number, np.arange(size)
                self.ids[row, start], self.ids[row, end - 1] = SPECIAL.cls, SPECIAL.sep
                self.words[row, [start, end - 1]] = -1
            self.ids[row, end:], self.words[row, end:] = SPECIAL.pad, -1

    @property
    def attended(self) -> float:
        """Mean number of positions that a real token attends to."""
        sizes = np.concatenate([np.array(recipe, float) for recipe in self.lengths])
        return float((sizes**2).sum() / sizes.sum())

    @property
    def fill(self) -> float:
        """Share of real positions."""
        return float((self.pieces > 0).mean())

    def micro(self, step: int, micro: int) -> Batch:
        """A random choice of rows."""
        rows = numpy_generator(2, step, micro).integers(ROWS_MADE, size=self.rows_per_step)
        layout = Layout(torch.from_numpy(self.pieces[rows]), torch.from_numpy(self.positions[rows]))
        ids, words = torch.from_numpy(self.ids[rows]), torch.from_numpy(self.words[rows])
        return Batch(ids_BL=ids, layout=layout, words_BL=words, rows=torch.from_numpy(rows), step=step, micro=micro)


def architecture_of(preset: str, attention_dropout: float | None, length: int) -> Architecture:
    """A preset, with another dropout on attention in both halves."""
    overrides: dict[str, object] = {}
    if attention_dropout is not None:
        overrides["attention_probs_dropout_prob"] = attention_dropout
    return resolve_preset(preset, overrides, VOCAB, length)


def ours(case: Case, steps: int, profiled: bool) -> dict[str, object]:
    """Train with the real loop, and read what it wrote."""
    architecture = architecture_of(case.preset, case.attention_dropout, case.length)
    goal = "rtd" if architecture.generator else "mlm"
    objective = table.build(architecture, table.row(goal).config.model_validate({}), SPECIAL, VOCAB, seed=1)
    batches = Synthetic(rows=case.rows, length=case.length)
    settings = {"precision": "bf16", "compile": case.compiled, "save_every": None, "keep_last": 0, "evaluate_every": None, "clip": 1.0}
    world = World(device=torch.device("cuda", 0))
    torch.cuda.reset_peak_memory_stats()

    def train(number: int) -> list[dict[str, object]]:
        config = TrainConfig.model_validate(settings | {"length": f"{number} steps", "log_every": f"{WINDOW} steps"})
        with tempfile.TemporaryDirectory() as folder:
            fit(objective, batches, config, Path(folder), world=world, seed=1, attach={})
            return [record for record in read_metrics(Path(folder)) if record["kind"] == "train"]

    if profiled:
        show_profile(train)
    begun = time.perf_counter()
    records = train(WARM_UP + steps)
    kept = [record for record in records if int(str(record["step"])) > WARM_UP]
    speeds = [float(str(record["tokens_per_second"])) for record in kept]
    first, last = records[WARM_UP // WINDOW - 1], records[-1]
    spent, waited = (float(str(last[key])) - float(str(first[key])) for key in ("seconds", "waited"))
    flops = flops_per_token(architecture, batches.attended, goal)
    speed = statistics.median(speeds)
    return {
        **asdict(case),
        "tokens_per_second": round(speed),
        "slowest_window": round(min(speeds)),
        "fastest_window": round(max(speeds)),
        "milliseconds_per_step": round(1000 * spent / steps, 2),
        "flops_per_token": round(flops),
        "attended_length": round(batches.attended, 1),
        "fill": round(batches.fill, 4),
        "mfu": round(speed * flops / PEAK, 4),
        "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "share_waiting_for_data": round(waited / spent, 4),
        "last_loss": round(float(str(last["loss"])), 3),
        "seconds_with_start": round(time.perf_counter() - begun, 1),
    }


def show_profile(train: object) -> None:
    """Print where a few steps go."""
    assert callable(train)
    train(2 * WINDOW)
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        train(2 * WINDOW)
    events = sorted(found.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events if event.device_type == torch.autograd.DeviceType.CUDA)
    print(f"device time {total / 1e3:.1f} ms in {2 * WINDOW} steps")
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    for event in kernels[:30]:
        print(f"  {event.self_device_time_total / 1e3:8.2f} ms {event.count:6d} x {event.key[:110]}")
    print("on the host:")
    for event in sorted(found.key_averages(), key=lambda event: -event.self_cpu_time_total)[:8]:
        print(f"  {event.self_cpu_time_total / 1e3:8.2f} ms {event.count:6d} x {event.key[:80]}")


def theirs(preset: str, *, length: int, rows: int, steps: int) -> dict[str, object]:
    """transformers' models in autocast with SDPA and fused AdamW: one padded document a row, 86 % filled, logits everywhere."""
    architecture = architecture_of(preset, None, length)
    fields = [part.model_dump(exclude={"model_type"}) for part in (architecture.generator, architecture.encoder) if part is not None]
    device = torch.device("cuda", 0)
    torch.cuda.reset_peak_memory_stats()
    if architecture.generator is not None:
        composed = ComposedElectra(*(ElectraConfig(**field) for field in fields)).to(device).train()
        model: torch.nn.Module = composed
    else:
        known = {key: value for key, value in fields[0].items() if key != "embedding_size"}
        model = BertForMaskedLM(BertConfig(**known)).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    generator = torch.Generator(device=device).manual_seed(1)
    sizes = torch.where(torch.rand(rows, generator=generator, device=device) < 0.72, length, length // 2)
    mask = (torch.arange(length, device=device) < sizes[:, None]).long()
    ids = torch.randint(5, VOCAB, (rows, length), generator=generator, device=device) * mask

    def step() -> None:
        chosen = choose(mask)
        with torch.autocast("cuda", torch.bfloat16):
            if architecture.generator is not None:
                loss = model(ids, mask, chosen, SPECIAL.mask)
            else:
                shown = torch.where(chosen, SPECIAL.mask, ids)
                loss = model(input_ids=shown, attention_mask=mask, labels=torch.where(chosen, ids, -100)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    for _ in range(WARM_UP):
        step()
    speeds = []
    for _ in range(max(1, steps // WINDOW)):
        torch.cuda.synchronize()
        begun = time.perf_counter()
        for _ in range(WINDOW):
            step()
        torch.cuda.synchronize()
        speeds.append(WINDOW * int(mask.sum()) / (time.perf_counter() - begun))
    return {
        "preset": preset,
        "length": length,
        "rows": rows,
        "tokens_per_second": round(statistics.median(speeds)),
        "fill": round(float(mask.float().mean()), 3),
        "peak_GiB": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def clean() -> None:
    """Give everything back between measurements."""
    gc.collect()
    torch.cuda.empty_cache()
    torch._dynamo.reset()


def ratios(measured: list[dict[str, object]], peers: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Real tokens a second of the preset as it is, in its large batch, over those of transformers."""
    found: dict[str, dict[str, float]] = {}
    for peer in peers:
        for ours in measured:
            large = ours["preset"] != "electra-small" or int(str(ours["rows"])) > 128
            if ours["preset"] == peer["preset"] and ours["attention_dropout"] is None and large and "tokens_per_second" in ours:
                ratio = float(str(ours["tokens_per_second"])) / float(str(peer["tokens_per_second"]))
                found.setdefault(str(peer["preset"]), {})["compiled" if ours["compiled"] else "plain"] = round(ratio, 2)
    return found


def write(target: Path | None, measured: list[dict[str, object]], peers: list[dict[str, object]]) -> None:
    """Keep what is there so far."""
    result = {
        "command": "python -m benchmarks.gpu",
        "device": torch.cuda.get_device_name(0),
        "torch": torch.__version__,
        "vocabulary": VOCAB,
        "peak_flops": PEAK,
        "kitae": measured,
        "transformers": peers,
        "kitae / transformers": ratios(measured, peers),
    }
    target = target or RESULTS / "gpu-h200.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure every case in this process, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--mode", choices=("all", "eager", "compiled"), default="all")
    parser.add_argument("--last", action="store_true", help="only the last of the chosen cases")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--no-peers", action="store_true")
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    logging.disable(logging.INFO)
    assert arguments.steps % WINDOW == 0
    measured: list[dict[str, object]] = []
    compiled = {"all": (False, True), "eager": (False,), "compiled": (True,)}[arguments.mode]
    chosen = [case for case in cases() if case.preset.startswith(arguments.only) and case.compiled in compiled]
    for case in chosen[-1:] if arguments.last else chosen:
        try:
            measured.append(ours(case, arguments.steps, arguments.profile))
        except (RuntimeError, torch.OutOfMemoryError) as error:
            measured.append({**asdict(case), "error": str(error)[:600]})
        print(json.dumps(measured[-1]), flush=True)
        write(arguments.keep, measured, [])
        clean()
    peers: list[dict[str, object]] = []
    for preset, length, rows in (("electra-small", 128, 512), ("bert-base", 512, 128)):
        if arguments.no_peers or not preset.startswith(arguments.only):
            continue
        peers.append(theirs(preset, length=length, rows=rows, steps=arguments.steps))
        print(json.dumps(peers[-1]), flush=True)
        clean()
    write(arguments.keep, measured, peers)


if __name__ == "__main__":
    main()
