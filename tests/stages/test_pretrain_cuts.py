"""Cut off after every single step, in the first epoch and in later ones, each objective ends where an unbroken run does, to the bit."""

from pathlib import Path

import pytest
from tiny_pretraining import losses, pretrain, write_pairs

from kitae.core.artifact import checkpoints, newest
from kitae.data.sampler import Sampler
from kitae.tensor.batch import Batch

OBJECTIVES = {
    "mlm": {"model": "bert-tiny", "objective": "mlm"},
    "next sentence": {"model": "bert-tiny", "objective": "mlm", "objective_config": {"sentence_order": "nsp"}},
    "rtd": {"model": "electra-tiny", "objective": "rtd"},
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_cut_off_after_every_step(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """In the middle of the next step's data, with the checkpoint before it still on its way to the disk."""
    data = write_pairs(tmp_path / "pairs", dataset) if name == "next sentence" else dataset
    fields = {
        **OBJECTIVES[name],
        "train": {"length": "6 steps", "batch": "24 rows", "save_every": "1 step", "keep_last": 1, "evaluate_every": None},
    }
    whole = pretrain(tmp_path / "whole", data, **fields)
    batches = Sampler(data, split="train", rows_per_step=24, rows_per_micro_batch=8, seed=0)
    assert batches.rows_per_epoch % 24
    assert batches.rows_per_epoch < 5 * 24, "some cuts are within the first epoch, some within a later one"
    micro = Sampler.micro
    for cut in range(1, 6):

        def stopping(self: Sampler, step: int, number: int, cut: int = cut) -> Batch:
            if (step, number) == (cut, 1):
                raise InterruptedError
            return micro(self, step, number)

        with monkeypatch.context() as patch, pytest.raises(InterruptedError):
            patch.setattr(Sampler, "micro", stopping)
            pretrain(tmp_path / "cut", data, **fields)
        assert [path.name for path in checkpoints(tmp_path / "cut")] == [f"step-{cut:08d}"]
    out = pretrain(tmp_path / "cut", data, **fields)
    assert losses(out.path) == losses(whole.path)
    for file in ("weights.safetensors", "optimizer.safetensors"):
        assert (newest(out.path) / file).read_bytes() == (newest(whole.path) / file).read_bytes()
