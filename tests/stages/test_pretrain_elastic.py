"""A training that begins with two processes, goes on with one and ends with four sees and learns what one process does."""

import json
from pathlib import Path

import pytest
from tiny_pretraining import losses, write_dataset, write_pairs

from kitae.core.artifact import checkpoints
from warm import Warm

STEPS = 7
OBJECTIVES = {
    "mlm": {"model": "bert-tiny", "objective": "mlm", "objective_config": {"unit": "word"}},
    "rtd": {"model": "electra-tiny", "objective": "rtd"},
    "nsp": {"model": "bert-tiny", "objective": "mlm", "objective_config": {"sentence_order": "nsp"}},
}
TRAIN = {
    "precision": "fp64", "length": f"{STEPS} steps", "batch": "32 rows", "save_every": "2 steps", "keep_last": 9,
    "evaluate_every": "9 steps",
}  # fmt: skip


def samples(folder: Path) -> dict[tuple[int, int], str]:
    """Digest of rows, ids, masks and labels of every micro-batch; those that were repeated must have had the same."""
    found: dict[tuple[int, int], str] = {}
    for file in folder.parent.glob(f"{folder.name}.samples-*"):
        for line in file.read_text().splitlines():
            step, micro, digest = line.split()
            assert found.setdefault((int(step), int(micro)), digest) == digest
    return found


def test_two_then_one_then_four_processes(tmp_path: Path) -> None:
    """Unequal shares, stopped by a signal to one rank only, then cut off in the middle of an accumulation; for MLM, RTD and NSP."""
    plain = write_dataset(tmp_path / "plain")
    datasets = {"mlm": plain, "rtd": plain, "nsp": write_pairs(tmp_path / "pairs", plain)}
    warm = Warm(tmp_path, Path(__file__).with_name("elastic_pretraining.py"))

    def run(place: str, size: int, cut: dict[str, list[int]], shares: object = None) -> None:
        (tmp_path / place).mkdir(exist_ok=True)
        jobs: list[object] = []
        for name, settings in OBJECTIVES.items():
            jobs += [tmp_path / place / name, datasets[name], json.dumps(settings | {"train": TRAIN | {"shares": shares}}), json.dumps(cut)]
        ranks = warm.ranks(tmp_path, [{"LOCAL_RANK": "0", "GROUP_RANK": str(rank)} for rank in range(size)], *jobs)
        assert [one.wait(100) for one in ranks] == [0] * size, [one.stderr for one in ranks]

    try:
        run("one", 1, {})
        run("many", 2, {"signal": [1, 2]}, shares={"0": 24, "1": 8})
        for name in OBJECTIVES:  # all stopped after the step in which one of them was asked to
            assert checkpoints(tmp_path / "many" / name)[-1].name == "step-00000003"
        run("many", 1, {"crash": [5, 2]})
        run("many", 4, {}, shares=[8, 0, 16, 8])
    finally:
        warm.close()
    for name in OBJECTIVES:
        one, many = tmp_path / "one" / name, tmp_path / "many" / name
        assert len(samples(one)) == STEPS * 4
        assert samples(many) == samples(one)
        assert losses(many) == pytest.approx(losses(one), rel=1e-8)
        assert json.loads((checkpoints(many)[-1] / "state.json").read_text())["world_size"] == 4
