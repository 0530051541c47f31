"""`kitae inspect` of trainings: how far they are, by what they wrote last."""

import json
from pathlib import Path

from typer.testing import CliRunner

from kitae.chain.watching import watched
from kitae.cli import app


def write(folder: Path, *records: dict) -> None:
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def test_the_last_numbers_of_every_training(tmp_path: Path) -> None:
    shares = {"mfu": 0.3512, "padding_share": 0.004, "waiting_share": 0.02, "memory": 2.5e9, "seconds_left": 7500.0}
    train = {"kind": "train", "loss": 12.3456, "tokens_per_second": 12345.6}
    write(
        tmp_path / "pretrain",
        train | {"step": 10, "loss": 20.0},
        {"kind": "evaluate", "step": 10, "news/mlm_loss": 6.5},
        train | {"step": 20} | shares,
        {"kind": "skipped", "step": 21, "samples": [1, 2]},
    )
    write(tmp_path / "adapt", train | {"step": 5})
    (tmp_path / "corpus").mkdir()
    adapt, pretrain = watched(tmp_path)
    assert adapt.row == ("adapt", "5", "12.346", "12,346", "-", "-", "-", "-", "-")
    assert adapt.heldout == ()
    assert pretrain.row == ("pretrain", "20", "12.346", "12,346", "35.1%", "0.4%", "2.0%", "2.50 GB", "2 h 05 min")
    assert pretrain.heldout == ("step 10", "news/mlm_loss 6.5")
    assert watched(tmp_path / "pretrain") == [pretrain]


def test_inspect_shows_a_training_that_is_not_finished(tmp_path: Path) -> None:
    write(tmp_path / "pretrain", {"kind": "train", "step": 20, "loss": 1.5, "tokens_per_second": 1000.0})
    for folder in (tmp_path, tmp_path / "pretrain"):
        answer = CliRunner().invoke(app, ["inspect", str(folder)])
        assert answer.exit_code == 0, answer.output
        assert "pretrain" in answer.output
        assert "1.500" in answer.output
    (tmp_path / "empty").mkdir()
    assert CliRunner().invoke(app, ["inspect", str(tmp_path / "empty")]).exit_code != 0
