"""Do the faster steps learn as much? Held-out loss of kitae (packed rows, bf16) and of ELECTRA composed from transformers.

    python -m benchmarks.convergence RUN [--preset electra-mini] [--steps 400] [--seeds 1 2 3] [--only kitae|transformers] [--most 1]

RUN is the output folder of a recipe with a `dataset`. The peer runs in fp32 on rows of one padded document. Same documents, initial
weights, real tokens a step, optimizer settings and schedule; each side with its own order, masks and dropout. Both are measured
from the folders they write, in fp32, on the same held-out rows with the same masks. Every finished training is kept in the result
at once and not repeated, so that the command can be given again and again (`--most` limits the trainings of one call).
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import ElectraForMaskedLM, ElectraForPreTraining

from benchmarks.paired import RESULTS, command, machine
from benchmarks.peers import ComposedElectra, choose, document_pieces, electra_config, padded_rows
from kitae.core.artifact import content_hash
from kitae.core.runtime import keep_memory
from kitae.data.sampler import DATASET, DatasetFacts, Sampler, heldout_sources
from kitae.data.shards import Shards
from kitae.models.folder import read_parts, write_huggingface
from kitae.models.presets import Architecture, resolve_preset
from kitae.objectives import table
from kitae.objectives.protocol import Objective
from kitae.objectives.rtd import RtdConfig
from kitae.procedures.heldout import HeldoutMeter
from kitae.stages.pretrain import PretrainConfig, new_objective
from kitae.tensor.random import key, numpy_generator
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.config import TrainConfig, step_rows
from kitae.train.loop import fit
from kitae.train.schedule import rate

SIDES = ("kitae", "transformers")
SCORES = ("mlm_loss", "rtd_loss", "rtd_auc", "loss")
Curve = list[dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all trainings share; a result file holds trainings of one plan only."""

    dataset: str
    """Content hash of what the data set says of itself."""
    preset: str
    steps: int
    points: int
    """How often the held-out loss is measured, at equal distances, besides the start."""
    batch: int
    """Positions of kitae's packed rows in a step; the peer gets as many real tokens in as many rows as it takes."""
    learning_rate: float
    warmup: float
    """Share of the steps."""
    heldout_rows: int
    initialization: str
    """Of both sides: "informed" weights learn enough in a few hundred steps for a difference to show."""

    def train_config(self, **more: object) -> TrainConfig:
        """The settings of both sides."""
        settings = {
            "length": f"{self.steps} steps",
            "batch": f"{self.batch} tokens",
            "learning_rate": self.learning_rate,
            "warmup": f"{self.warmup} of length",
        }
        return TrainConfig.model_validate(settings | more)

    @property
    def measured(self) -> list[int]:
        """Steps after which the held-out loss is measured."""
        return sorted({round(self.steps * i / self.points) for i in range(1, self.points + 1)})


class Bench:
    """Data set, architecture and measure."""

    def __init__(self, run: Path, plan: Plan) -> None:
        self.dataset, self.plan = run / "dataset", plan
        self.length = DatasetFacts.read(self.dataset).max_length
        self.tokenizer = Tokenizer.load(self.dataset / "tokenizer")
        self.architecture: Architecture = resolve_preset(plan.preset, {}, self.tokenizer.vocab_size, self.length)

    def new(self, seed: int) -> Objective:
        """kitae's objective with new weights."""
        raw = {"model": self.plan.preset, "objective": "rtd", "initialization": self.plan.initialization, "train": {"length": "1 step"}}
        return new_objective(PretrainConfig.model_validate(raw), self.dataset, self.length, self.tokenizer, seed=seed)

    def score(self, folder: Path) -> dict[str, float]:
        """Held-out scores of the two halves in a folder, in fp32, averaged over the sources."""
        objective = table.load(read_parts(folder), RtdConfig(), self.tokenizer.special, self.tokenizer.vocab_size).eval()
        meter = HeldoutMeter(objective, self.dataset, world=World(), rows=self.plan.heldout_rows)
        found = meter(0)
        sources = heldout_sources(self.dataset)
        mean = {
            name: statistics.mean(found[f"heldout/{source}/{name}"] for source in sources) for name in ("mlm_loss", "rtd_loss", "rtd_auc")
        }
        return mean | {"loss": mean["mlm_loss"] + 50 * mean["rtd_loss"]}

    def kitae(self, seed: int) -> tuple[Curve, dict[str, float]]:
        """The loop itself, with a checkpoint at each point."""
        plan = self.plan
        config = plan.train_config(
            precision="bf16", device="cpu", keep_last=1, save_every=None, milestones=[f"{step} steps" for step in plan.measured]
        )
        rows, micro_rows = step_rows(config, self.length)
        batches = Sampler(self.dataset, rows_per_step=rows, rows_per_micro_batch=micro_rows, seed=seed)
        objective = self.new(seed)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            fitted = fit(objective, batches, config, folder, world=World(), seed=seed, attach={})
            curve = [{"step": step, **self.score(folder / "checkpoints" / f"step-{step:08d}")} for step in plan.measured]
        return curve, {"tokens": fitted.tokens, "seconds": fitted.seconds}

    def transformers(self, seed: int) -> tuple[Curve, dict[str, float]]:
        """The composition of transformers' classes with torch's AdamW."""
        assert self.architecture.generator is not None
        torch.manual_seed(key(seed, "peer") % 2**31)
        config = self.plan.train_config()
        model = ComposedElectra(electra_config(self.architecture.generator), electra_config(self.architecture.encoder)).train()
        with tempfile.TemporaryDirectory() as folder:
            for name, part in self.new(seed).parts().items():
                write_huggingface(part, Path(folder) / name)
            model.generator.load_state_dict(ElectraForMaskedLM.from_pretrained(Path(folder) / "generator").state_dict())
            model.discriminator.load_state_dict(ElectraForPreTraining.from_pretrained(Path(folder) / "discriminator").state_dict())
        optimizer, batches = adamw(model, config), self.padded_batches(seed)
        tokens, seconds, curve = 0, 0.0, []
        for step in range(self.plan.steps):
            begun = time.perf_counter()
            ids_BL = next(batches)
            mask_BL = ids_BL != self.tokenizer.special.pad
            loss = model(ids_BL, mask_BL.long(), choose(mask_BL), self.tokenizer.special.mask)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), config.clip)
            for group in optimizer.param_groups:
                group["lr"] = rate(config, (step + 0.5) / self.plan.steps, self.plan.warmup)
            optimizer.step()
            seconds += time.perf_counter() - begun
            tokens += int(mask_BL.sum())
            if step + 1 in self.plan.measured:
                with tempfile.TemporaryDirectory() as folder:
                    model.generator.save_pretrained(Path(folder) / "generator")
                    model.discriminator.save_pretrained(Path(folder) / "discriminator")
                    curve.append({"step": step + 1, **self.score(Path(folder))})
                print(f"  step {step + 1}: {curve[-1]}, {tokens / seconds:,.0f} tokens/s", flush=True)
        return curve, {"tokens": tokens, "seconds": seconds}

    def padded_batches(self, seed: int) -> Iterator[Tensor]:
        """Documents in mixed order, as many rows a step as hold kitae's real tokens of a step."""
        shards = Shards(self.dataset / "train")
        pieces = document_pieces(shards, self.length, most=1 << 62)
        packed, _ = step_rows(self.plan.train_config(), self.length)
        sampler = Sampler(self.dataset, rows_per_step=packed, rows_per_micro_batch=packed, seed=seed)
        wanted = sampler.tokens_per_epoch / sampler.rows_per_epoch * packed
        given, step, batch = 0, 0, []
        for epoch in range(1 << 62):
            for i in numpy_generator(seed, "peer", epoch).permutation(len(pieces)).tolist():
                batch.append(pieces[i])
                given += pieces[i][1] - pieces[i][0] + 2
                if given >= wanted * (step + 1):  # counted from the start, so that nothing adds up
                    yield padded_rows(shards, batch, self.tokenizer.special)
                    batch, step = [], step + 1


def adamw(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Matrices decay, vectors do not."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, eps=config.epsilon)


def summary(runs: dict[str, dict]) -> dict[str, object]:
    """Mean and spread of each side at each point, and whether the sides differ at the end by more than their seeds do."""
    sides: dict[str, Curve] = {}
    for side in SIDES:
        curves = [run["curve"] for name, run in sorted(runs.items()) if name.startswith(f"{side}:")]
        sides[side] = []
        for points in zip(*curves, strict=True):
            line = {"step": points[0]["step"], "seeds": len(points)}
            for name in SCORES:
                values = [point[name] for point in points]
                line[name] = statistics.mean(values)
                line[f"{name}, greatest - least"] = max(values) - min(values)
            sides[side].append(line)
    if not all(sides.values()):
        return {"sides": sides}
    ours, theirs = (sides[side][-1] for side in SIDES)
    end: dict[str, object] = {}
    for name in SCORES:
        difference, spread = ours[name] - theirs[name], max(line[f"{name}, greatest - least"] for line in (ours, theirs))
        end[name] = {"kitae - transformers": difference, "greater spread of the seeds": spread, "within": abs(difference) <= spread}
    return {"sides": sides, "at the end": end}


def main() -> None:
    """Do the trainings that are missing, and write the result after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--preset", default="electra-mini")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--points", type=int, default=8)
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--learning-rate", type=float, default=5e-4)
    parser.add_argument("--warmup", type=float, default=0.1)
    parser.add_argument("--heldout-rows", type=int, default=64)
    parser.add_argument("--initialization", choices=("informed", "normal"), default="informed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--only", choices=SIDES)
    parser.add_argument("--most", type=int, default=1 << 30)
    parser.add_argument("--name", default="convergence")
    arguments = parser.parse_args()
    plan = Plan(
        dataset=content_hash(arguments.run / "dataset" / DATASET),
        **{name: value for name, value in vars(arguments).items() if name in Plan.__dataclass_fields__},
    )
    path = RESULTS / f"{arguments.name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"plan": asdict(plan), "runs": {}}
    if kept["plan"] != asdict(plan):
        parser.error(f"{path.name} holds trainings of another plan: {kept['plan']}; give another --name, or remove it")
    keep_memory()
    bench, runs = Bench(arguments.run, plan), kept["runs"]
    sides = [arguments.only] if arguments.only else SIDES
    missing = [(side, seed) for seed in arguments.seeds for side in sides if f"{side}:{seed}" not in runs]
    for side, seed in missing[: arguments.most]:
        print(f"{side}, seed {seed}", flush=True)
        curve, facts = (bench.kitae if side == "kitae" else bench.transformers)(seed)
        runs[f"{side}:{seed}"] = {**facts, "command": command(), "machine": machine(), "curve": curve}
        RESULTS.mkdir(exist_ok=True)
        text = json.dumps({"plan": asdict(plan), **summary(runs), "runs": runs}, indent=1, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        print(f"  {facts['tokens']:,} tokens, {facts['tokens'] / facts['seconds']:,.0f} tokens/s, at the end {curve[-1]}", flush=True)
    print(json.dumps(summary(runs), indent=1))


if __name__ == "__main__":
    main()
