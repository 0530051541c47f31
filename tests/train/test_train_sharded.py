"""Weights in shards (FSDP2) on two gloo processes against DDP and one process."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from sharded_training import run
from test_train_parallel import PLAIN
from toy_training import config

from kitae.tensor.world import World

SCRIPT = Path(__file__).with_name("sharded_training.py")
RESULT = Path(__file__).parents[2] / "benchmarks" / "results" / "sharded.json"
STEPS = 10
BASE = {"precision": "fp64", "length": f"{STEPS} steps", "save_every": "4 steps", "keep_last": 9, "evaluate_every": "5 steps"}
APART = {"head_rate": 0.02}  # the head is clipped by itself
EXACT: dict[str, dict] = {
    "groups": {"model": "toy", **APART, "config": BASE | {"clip": 0.05, "layer_decay": 0.9}},
    "frozen": {"model": "toy", "config": BASE | {"length": "2 steps", "shares": [0, 12], "freeze": {"embeddings": True, "layers": 1}}},
    "short": {"model": "toy", "rows": 4, "config": BASE | {"length": "2 steps"}},  # one micro-batch for two processes
    "skip": {"model": "toy", "bad_step": 1, "config": BASE | {"length": "3 steps", "non_finite": "skip"}},
    "bert": {"model": "bert", "config": BASE},
    "lamb": {"model": "bert", "config": BASE | {"length": "2 steps", "optimizer": "lamb", "lamb": {"adapts": "all"}}},
    "muon": {"model": "electra", "config": BASE | {"length": "2 steps", "optimizer": "muon"}},
    "electra": {"model": "electra", "config": BASE},
    "deberta-v3": {"model": "deberta-v3", "config": BASE | {"length": "2 steps", "activation_checkpointing": True}},
}
MIXED = {"model": "bert", "config": BASE | {"precision": "bf16", "length": "3 steps"}}
WIDE = {"model": "bert", "weigh": True, "overrides": {"hidden_size": 128}, "config": BASE | {"precision": "fp32", "length": "3 steps"}}
BAD = {"model": "toy", "bad_step": 1, "config": BASE}


def job(folder: Path, case: Mapping, parallel: str = "fsdp2", **others: object) -> dict:
    return {"rows": 12, **case, "config": case["config"] | {"parallel": parallel}, "folder": str(folder), **others}  # 3 for 2 processes


def together(tmp_path: Path, jobs: Sequence[dict], *, processes: int = 2) -> None:
    listed = tmp_path / f"jobs-{len(list(tmp_path.glob('jobs-*')))}.json"
    listed.write_text(json.dumps(jobs))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), str(SCRIPT), str(listed)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=PLAIN, timeout=300, check=False)
    assert done.returncode == 0, done.stdout


def records(folder: Path, kind: str) -> list[dict]:
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["kind"] == kind]


def curve(folder: Path) -> dict[int, float]:
    return {record["step"]: record.get("loss", 0.0) for record in records(folder, "train")}  # what is not finite is not written


def tensors(folder: Path, step: int, name: str) -> dict[str, torch.Tensor]:
    return load_file(place(folder, step) / f"{name}.safetensors")


def place(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}"


def measured(folder: Path, rank: int) -> dict[str, float]:
    return json.loads((folder / f"measured-{rank}.json").read_text())


def alike(one: Path, other: Path, *, last: int, first: int = 1) -> None:
    """Losses from the first step to the last, and what the last checkpoint holds."""
    steps = list(range(first, last + 1))
    assert list(curve(one)) == steps
    assert list(curve(one).values()) == pytest.approx([curve(other)[step] for step in steps], rel=1e-8)
    for name in ("weights", "optimizer"):
        torch.testing.assert_close(tensors(one, last, name), tensors(other, last, name), rtol=1e-6, atol=1e-9)


def test_shards_learn_what_whole_weights_learn(tmp_path: Path) -> None:
    for name, case in EXACT.items():
        run(job(tmp_path / f"one-{name}", case), World())
    jobs = [job(tmp_path / name, case) for name, case in EXACT.items()]
    jobs += [job(tmp_path / "ddp-electra", EXACT["electra"], "ddp")]
    jobs += [job(tmp_path / f"{how}-{name}", case, how) for name, case in (("mixed", MIXED), ("wide", WIDE)) for how in ("ddp", "fsdp2")]
    jobs += [job(tmp_path / f"from-{name}", EXACT["groups"], start=str(place(tmp_path / name, 4))) for name in ("one-groups", "groups")]
    together(tmp_path, [*jobs, job(tmp_path / "bad", BAD)])

    for name, case in EXACT.items():
        sharded, one = tmp_path / name, tmp_path / f"one-{name}"
        alike(sharded, one, last=int(case["config"]["length"].split()[0]))
        for rank in (0, 1):  # both held all weights when they were measured, and hold them now
            seen = measured(sharded, rank)
            assert seen["squares"] == seen["left"] == pytest.approx(measured(one, 0)["left"], rel=1e-9)
    alike(tmp_path / "ddp-electra", tmp_path / "electra", last=STEPS)
    ddp, mixed = (list(curve(tmp_path / f"{how}-mixed").values()) for how in ("ddp", "fsdp2"))
    assert mixed == pytest.approx(ddp, rel=1e-3)

    alike(tmp_path / "from-one-groups", tmp_path / "one-groups", first=5, last=STEPS)
    run(job(tmp_path / "alone", EXACT["groups"], start=str(place(tmp_path / "groups", 4))), World())
    alike(tmp_path / "alone", tmp_path / "one-groups", first=5, last=STEPS)
    for name in ("weights", "optimizer"):
        again, before = tensors(tmp_path / "from-groups", STEPS, name), tensors(tmp_path / "groups", STEPS, name)
        assert all(torch.equal(again[key], value) for key, value in before.items()), "shards go on to the bit"

    texts = {(tmp_path / "bad" / f"error-{rank}.txt").read_text() for rank in (0, 1)}
    assert len(texts) == 1, "both processes know"
    assert "of step 1 is not finite" in texts.pop()
    for rank in (0, 1):
        whole, part = (measured(tmp_path / f"{how}-wide", rank)["bytes"] for how in ("ddp", "fsdp2"))
        assert 0.5 <= part / whole < 0.54


@pytest.mark.slow
def test_every_kind_of_model(tmp_path: Path) -> None:
    """About a minute; with layers compiled as well."""
    cases = {name: {"model": name, "config": BASE | {"length": "3 steps"}} for name in ("modernbert", "roberta", "electric")}
    for name, case in cases.items():
        run(job(tmp_path / f"one-{name}", case), World())
    jobs = [job(tmp_path / name, case) for name, case in cases.items()]
    for name, wanted in (("plain", False), ("compiled", True)):
        jobs.append(job(tmp_path / name, {"model": "bert", "config": MIXED["config"] | {"precision": "fp32", "compile": wanted}}))
    together(tmp_path, jobs)
    for name in cases:
        alike(tmp_path / name, tmp_path / f"one-{name}", last=3)
    assert list(curve(tmp_path / "compiled").values()) == pytest.approx(list(curve(tmp_path / "plain").values()), rel=1e-5)


LEGS = (("ddp", 2), ("fsdp2", 2), ("fsdp2", 1), ("fsdp2", 4), ("ddp", 4))
"""How a training of 40 steps changes its form after every eight."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "electra"])
def test_a_training_changes_between_forms_and_numbers_of_processes(tmp_path: Path, name: str) -> None:
    """About two minutes each on two cores. Every leg goes to the end, so that every form is compared over what is left of the 40 steps."""
    case = EXACT[name] | {"config": BASE | {"length": "40 steps", "save_every": "8 steps"}}
    run(job(tmp_path / "one", case), World())
    start, worst = {}, {}
    for number, (parallel, processes) in enumerate(LEGS):
        folder = tmp_path / f"leg-{number}"
        together(tmp_path, [job(folder, case, parallel, **start)], processes=processes)
        alike(folder, tmp_path / "one", first=8 * number + 1, last=40)
        apart = [abs(loss / curve(tmp_path / "one")[step] - 1) for step, loss in curve(folder).items()]
        worst[f"{processes} x {parallel} from step {8 * number}"] = max(apart)
        start = {"start": str(place(folder, 8 * number + 8))}
    found = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
    RESULT.write_text(
        json.dumps(found | {f"{name}: greatest relative difference of a loss from one process's, fp64": worst}, indent=1) + "\n"
    )


def test_speed_of_processes_in_step_is_not_measured() -> None:
    with pytest.raises(ValueError, match="work in step: name the rows"):
        config(parallel="fsdp2", shares="auto")
