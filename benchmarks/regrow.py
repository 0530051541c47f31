"""Does a regrown generator do? An ELECTRA's generator is thrown away and regrown; a short adaptation follows, and the pair's own beside it.

    kitae run benchmarks/regrow.toml --until pretrain && kitae run benchmarks/regrow.toml --until adapt.dataset
    python -m benchmarks.regrow runs/regrow [--seeds 1 2 3] [--most 1]

RUN is the output of the recipe (`--recipe`, which has [pretrain] with "rtd" and [adapt]). For every seed the adaptation is done with the
pair itself, with the discriminator alone (whose generator is regrown first), and with the discriminator and new weights for a generator
of the same size. Held-out text of the new domain, all in fp32 on the same rows and masks: the area under the ROC curve by which each
discriminator finds what three generators replaced: its own, which may ask easier or harder questions than others; the adapted pair's,
which the pair's discriminator knows best; and the original one from before the adaptation, the same examiner for all, also for
the discriminator before. Every training resumes where it was cut off, and finished ones are kept in the result.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

from benchmarks.paired import RESULTS, command, machine
from kitae.chain.recipe import load
from kitae.core.artifact import Inputs, Out, newest
from kitae.core.runtime import keep_memory
from kitae.data.sampler import heldout_sources
from kitae.models.families import build_masked_lm
from kitae.models.folder import Part, read_parts, write_huggingface
from kitae.objectives import table
from kitae.objectives.rtd import RtdConfig
from kitae.procedures.heldout import HeldoutMeter
from kitae.stages.pretrain import PretrainConfig, run
from kitae.tensor.random import torch_generator
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer

VARIANTS = ("pair", "regrown", "new")
EXAMINERS = ("own", "pair's", "original")
SCORES = ("mlm_loss", "mlm_accuracy", "rtd_auc", "replaced_share")


class Bench:
    """A pre-trained pair, and the text of another domain."""

    def __init__(self, run: Path, recipe: str, overrides: list[str], name: str) -> None:
        self.dataset, self.work = run / "adapt.dataset", run / f"benchmark-{name}"
        self.before = newest(run / "pretrain")
        self.tokenizer = Tokenizer.load(self.dataset / "tokenizer")
        loaded, _ = load(recipe, tuple(overrides))
        assert loaded.pretrain is not None
        assert loaded.adapt is not None
        own = {"train": loaded.adapt.train} | ({} if loaded.adapt.regrow is None else {"regrow": loaded.adapt.regrow})
        self.config = PretrainConfig.model_validate({**dict(loaded.pretrain), **own})

    def half(self, name: str, part: Part) -> Path:
        """A folder of one half alone, as it is published."""
        folder = self.work / name
        if not folder.is_dir():
            write_huggingface(part, folder)
            shutil.copytree(self.before / "tokenizer", folder, dirs_exist_ok=True)
        return folder

    def adapt(self, variant: str, seed: int) -> tuple[Path, Out]:
        """The short adaptation of one variant: (its folder, what it counted)."""
        parts = read_parts(self.before)
        start, more = self.before, dict[str, str]()
        if variant != "pair":
            start = self.half("discriminator", parts["discriminator"])
        if variant == "new":
            fresh = build_masked_lm(parts["generator"].config, torch_generator(seed, "new")).state_dict()
            embeddings = {name: tensor for name, tensor in parts["discriminator"].state.items() if name.startswith("encoder.embed.")}
            part = Part(family="electra", head="mlm", config=parts["generator"].config, state={**fresh, **embeddings})
            more = {"start_generator": str(self.half(f"new-{seed}", part))}
        out = Out(path=self.work / f"{variant}-{seed}")
        config = PretrainConfig.model_validate({**dict(self.config), **more})
        run(config, Inputs(parents={"dataset": self.dataset, "start": start}, seed=seed), out)
        return newest(out.path), out

    def score(self, discriminator: Path, generator: Path) -> dict[str, float]:
        """Held-out scores of a discriminator against a generator, the mean over the sources."""
        parts = {"discriminator": read_parts(discriminator)["discriminator"], "generator": read_parts(generator)["generator"]}
        settings = RtdConfig(embedding_sharing="none")
        objective = table.load(parts, settings, self.tokenizer.special, self.tokenizer.vocab_size).eval()
        found = HeldoutMeter(objective, self.dataset, world=World(), rows=self.config.heldout_rows)(0)
        sources = heldout_sources(self.dataset)
        return {name: statistics.mean(found[f"heldout/{source}/{name}"] for source in sources) for name in SCORES}


def summary(before: float, runs: dict[str, dict]) -> dict[str, object]:
    """Areas of every variant by examiner: the mean over the seeds, less the pair's of the same seed, less that before the adaptation."""
    seeds = sorted({name.partition(":")[2] for name in runs}, key=int)
    complete = [seed for seed in seeds if all(f"{variant}:{seed}" in runs for variant in VARIANTS)]
    lines: dict[str, object] = {"seeds": len(complete), "before, examined by its own (the original) generator": before}
    for variant in VARIANTS if complete else ():
        for examiner in EXAMINERS:
            found = [runs[f"{variant}:{seed}"][examiner]["rtd_auc"] for seed in complete]
            pair = [runs[f"pair:{seed}"][examiner]["rtd_auc"] for seed in complete]
            less = [a - b for a, b in zip(found, pair, strict=True)]
            line = {"rtd_auc": statistics.mean(found), "less the pair's": statistics.mean(less)}
            if examiner == "original":
                line["less that before"] = statistics.mean(found) - before
            lines[f"{variant}, examined by {examiner}"] = line
    return lines


def main() -> None:
    """Do the adaptations that are missing, and write the result after each."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--recipe", default=str(Path(__file__).with_name("regrow.toml")))
    parser.add_argument("--set", dest="overrides", action="append", default=[], help="of the recipe's [adapt]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--most", type=int, default=1 << 30)
    parser.add_argument("--name", default="regrow")
    arguments = parser.parse_args()
    keep_memory()
    bench = Bench(arguments.run, arguments.recipe, arguments.overrides, arguments.name)
    plan = {"train": bench.config.train.semantic(), "regrow": bench.config.regrow.semantic(), "start": bench.before.name}
    path = RESULTS / f"{arguments.name}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"plan": plan, "runs": {}}
    if kept["plan"] != plan:
        parser.error(f"{path.name} holds trainings of another plan; give another --name, or remove it")
    runs = kept["runs"]
    before = kept.get("before the adaptation") or bench.score(bench.before, bench.before)
    missing = [(variant, seed) for seed in arguments.seeds for variant in VARIANTS if f"{variant}:{seed}" not in runs]
    for variant, seed in missing[: arguments.most]:
        place, out = bench.adapt(variant, seed)
        examiners = dict(zip(EXAMINERS, (place, newest(bench.work / f"pair-{seed}"), bench.before), strict=True))
        scores = {name: bench.score(place, examiner) for name, examiner in examiners.items()}
        counts = {name: out.counts[name] for name in ("steps", "tokens", "seconds", "flops", "regrow") if name in out.counts}
        runs[f"{variant}:{seed}"] = {**scores, **counts, "command": command(), "machine": machine()}
        RESULTS.mkdir(exist_ok=True)
        result = {"plan": plan, "before the adaptation": before, "summary": summary(before["rtd_auc"], runs), "runs": runs}
        path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        print(f"{variant}, seed {seed}: {scores}", flush=True)
    print(json.dumps(summary(before["rtd_auc"], runs), indent=1))


if __name__ == "__main__":
    main()
