"""Any checkpoint, not only the last one, is exported, measured, adapted and fine-tuned by the ordinary commands."""

import json
from pathlib import Path

import pytest
import torch
import transformers

from kitae.core.artifact import checkpoints, read_manifest
from kitae.models.folder import read_parts
from kitae.train.checkpoint import PERMANENT
from tiny_recipe import TEXT, Done, kitae, write_recipe

FIRST = (
    TEXT
    + """[pretrain]
model = "bert-tiny"
objective = "mlm"
train = { length = "6 steps", batch = "4 rows", learning_rate = 1e-2, save_every = "3 steps", keep_last = 1, milestones = ["2 steps"] }
"""
)
THEN = """
output = "then"
[tokenizer]
from = "{milestone}/tokenizer"
[dataset]
max_length = 32
[adapt]
start = "{milestone}"
objective = "mlm"
holdout = 0.1
source = [{{ path = "domain.txt", format = "text" }}]
train = {{ length = "1 step", batch = "4 rows", learning_rate = 1e-3 }}
[task.topics]
path = ["topics.jsonl"]
split = {{ train = 0.5, validation = 0.25, test = 0.25 }}
[finetune]
task = ["topics"]
epochs = 1
seeds = [1]
compare = ["{milestone}"]
[export]
checkpoints = ["{milestone}"]
"""


def succeed(done: Done) -> Done:
    assert done.returncode == 0, done.stderr
    return done


def test_a_milestone_is_exported_measured_adapted_and_fine_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    Path("first.toml").write_text(FIRST, encoding="utf-8")
    succeed(kitae("run", "first.toml"))
    milestone, last = checkpoints(Path("run/pretrain"))
    assert (milestone.name, last.name) == ("step-00000002", "step-00000006")
    assert read_manifest(milestone).facts[PERMANENT]
    assert "mlm" in succeed(kitae("evaluate", milestone, "domain.txt")).stdout
    Path("then.toml").write_text(THEN.format(milestone=milestone), encoding="utf-8")
    succeed(kitae("run", "then.toml"))
    exported = Path("then/export/pretrain-step-00000002")
    ours, theirs = read_parts(milestone)["encoder"].state, read_parts(exported)["encoder"].state
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(ours[name], other) for name, other in read_parts(last)["encoder"].state.items())
    transformers.AutoModelForMaskedLM.from_pretrained(exported)
    assert "results are those at the end of its run" in (exported / "README.md").read_text(encoding="utf-8")
    assert (Path("then/export") / "adapt" / "config.json").is_file()
    assert json.loads(Path("then/evaluate/topics/results.json").read_text(encoding="utf-8"))
    done = kitae("run", "then.toml", "--set", 'export.checkpoints=["run/pretrain"]', "--set", "export_trials=false")
    assert done.returncode == 2
    assert "export.checkpoints names no checkpoint" in done.stderr
