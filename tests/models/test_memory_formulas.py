"""The formulas of memory against every tensor that a real step makes, and against peaks that an H200 had."""

import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kitae.data.random_rows import SPECIAL, RandomRows
from kitae.models.cost import Objective, count_parameters
from kitae.models.memory import BYTES, Pass, peak, persistent
from kitae.models.presets import Architecture, resolve_preset
from kitae.objectives import table
from kitae.tensor.world import World
from kitae.train.config import TrainConfig
from kitae.train.loop import fit

VOCABULARY = 8000


class Live(TorchDispatchMode):
    """Adds up the bytes of all tensors that are made inside, as long as they live."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.most = 0, 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[object] = (), kwargs: Mapping[str, object] | None = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._sizes:
                    self._sizes[storage._cdata] = storage.nbytes()
                    self.now += storage.nbytes()
                    self.most = max(self.most, self.now)
                    weakref.finalize(storage, self._gone, storage._cdata)
        return out

    def _gone(self, number: int) -> None:
        self.now -= self._sizes.pop(number)


def measured(architecture: Architecture, objective: Objective, rows: int, length: int, folder: Path, **settings: object) -> int:
    """Most bytes of two steps of one micro-batch each, by the real loop."""
    module = table.build(architecture, table.row(objective).config.model_validate({}), SPECIAL, VOCABULARY, 1)
    own = {"length": "2 steps", "batch": f"{rows} rows", "micro_batch": f"{rows} rows", "keep_last": 0, "evaluate_every": None}
    config = TrainConfig.model_validate({**own, **settings})
    batches = RandomRows(rows=rows, micro_rows=rows, length=length, context=length, vocab_size=VOCABULARY)
    with Live() as live:
        fit(module, batches, config, folder, world=World(), seed=1, attach={})
    return live.most


TWO_DEEP: dict[str, object] = {"num_hidden_layers": 2, "generator": {"num_hidden_layers": 2}}


@pytest.mark.parametrize(
    ("preset", "objective", "rows", "length", "overrides", "precision"),
    [
        ("bert-tiny", "mlm", 16, 128, {}, "fp32"),
        ("bert-tiny", "mlm", 4, 512, {}, "fp32"),
        ("bert-tiny", "mlm", 2, 1024, {}, "fp32"),
        ("bert-small", "mlm", 8, 128, {"num_hidden_layers": 3}, "fp32"),
        ("bert-small", "mlm", 8, 128, {"num_hidden_layers": 3}, "bf16"),
        ("roberta-tiny", "mlm", 8, 128, {}, "fp32"),
        ("electra-tiny", "rtd", 16, 128, {}, "fp32"),
        ("electra-tiny", "rtd", 16, 128, {}, "bf16"),
        ("electra-tiny", "rtd", 16, 128, {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}, "fp32"),
        ("electra-small", "rtd", 8, 128, TWO_DEEP, "fp32"),
        ("electra-small", "electric", 4, 128, TWO_DEEP, "fp32"),
        ("deberta-tiny", "mlm", 16, 128, {}, "fp32"),
        ("deberta-v2-tiny", "mlm", 4, 512, {}, "fp32"),
        ("modernbert-tiny", "mlm", 16, 128, {}, "fp32"),
        ("modernbert-small", "mlm", 2, 512, {"num_hidden_layers": 3}, "fp32"),
    ],
)
def test_formulas_agree_with_every_tensor_of_a_step(
    preset: str, objective: Objective, rows: int, length: int, overrides: dict[str, object], precision: str, tmp_path: Path
) -> None:
    architecture = resolve_preset(preset, overrides, VOCABULARY, length)
    most = measured(architecture, objective, rows, length, tmp_path, precision=precision)
    told = peak(architecture, objective, Pass(rows=rows, length=length, context=length, precision=precision))
    fixed = persistent(count_parameters(architecture, objective).total, 0, matrices=0, precision=precision, optimizer="adamw")
    assert fixed.total + told.total == pytest.approx(most, rel=0.1)


def test_frozen_layers_keep_nothing(tmp_path: Path) -> None:
    architecture = resolve_preset("roberta-tiny", {"num_hidden_layers": 4}, VOCABULARY, 128)
    most = measured(architecture, "mlm", 16, 128, tmp_path, freeze={"embeddings": True, "layers": 3})
    at = Pass(rows=16, length=128, context=128, frozen_embeddings=True, frozen_layers=3)
    whole = count_parameters(architecture, "mlm").total
    frozen = 3 * 49_984 + (VOCABULARY + 130 + 1) * 64 + 128
    held = persistent(whole - frozen, frozen, matrices=0, precision="fp32", optimizer="adamw")
    assert held.total - 4 * frozen + peak(architecture, "mlm", at).total == pytest.approx(most, rel=0.1)  # frozen weights were there before
    fixed = persistent(100.0, 50.0, matrices=0, precision="bf16", optimizer="adamw")
    assert (fixed.weights, fixed.gradients, fixed.optimizer) == (6 * 100 + 6 * 50, 400, 800)
    assert persistent(100.0, 0, matrices=60.0, precision="fp32", optimizer="muon").optimizer == 4 * (2 * 100 - 60)


def test_layers_that_are_worked_out_again_keep_their_input_alone(tmp_path: Path) -> None:
    architecture = resolve_preset("bert-tiny", {"num_hidden_layers": 6}, VOCABULARY, 128)
    most = measured(architecture, "mlm", 16, 128, tmp_path, activation_checkpointing=True)
    held = persistent(count_parameters(architecture, "mlm").total, 0, matrices=0, precision="fp32", optimizer="adamw")
    at = Pass(rows=16, length=128, context=128, recompute=True)
    assert held.total + peak(architecture, "mlm", at).total == pytest.approx(most, rel=0.1)


def test_formulas_agree_with_peaks_of_a_gpu() -> None:
    """benchmarks/results/gpu-h200.json is of a day when the activated states of the feed-forward part were kept too."""
    path = Path(__file__).parents[2] / "benchmarks" / "results" / "gpu-h200.json"
    told = json.loads(path.read_text(encoding="utf-8"))
    checked = 0
    for case in told["kitae"]:
        if not {"preset", "rows", "length", "peak_GiB", "compiled"} <= case.keys() or case["compiled"] or "activated_linear" in case:
            continue
        architecture = resolve_preset(case["preset"], {}, told["vocabulary"], case["length"])
        objective: Objective = "mlm" if architecture.generator is None else "rtd"
        at = Pass(rows=case["rows"], length=case["length"], context=case["attended_length"], precision="bf16", device="cuda")
        fixed = persistent(count_parameters(architecture).total, 0, matrices=0, precision="bf16", optimizer="adamw")
        halves = [half for half in (architecture.encoder, architecture.generator) if half is not None]
        then = sum(half.num_hidden_layers * half.intermediate_size for half in halves) * at.positions * BYTES["bf16"]
        whole = fixed.total + peak(architecture, objective, at).total + then
        assert whole / 2**30 == pytest.approx(case["peak_GiB"], rel=0.1)
        checked += 1
    assert checked >= 4
