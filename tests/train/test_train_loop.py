"""The loop: exact averaging, resume to the bit, stops, and what it refuses."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from toy_training import Toy, ToyBatches, config

from kitae.core.artifact import checkpoints, verify
from kitae.core.errors import KitaeError, Stopped
from kitae.core.runtime import lock
from kitae.tensor.random import seed_dropout
from kitae.tensor.world import World
from kitae.train import checkpoint
from kitae.train.loop import Fitted, fit
from kitae.train.monitor import read_metrics

SCRIPT = Path(__file__).with_name("toy_training.py")
WORLD = World()


def train(folder: Path, *, rows: int = 8, micro: int = 4, toy: Toy | None = None, **fields: object) -> tuple[Toy, Fitted]:
    toy = toy or Toy()
    return toy, fit(toy, ToyBatches(rows, micro), config(**fields), folder, world=WORLD, seed=7, attach={})


def losses(folder: Path) -> list[tuple[object, ...]]:
    return [(r["step"], r["loss"], r["mlm_loss"], r["rtd_loss"], r["gradient_norm"]) for r in read_metrics(folder) if r["kind"] == "train"]


def start(folder: Path, **options: object) -> subprocess.Popen:
    arguments = [str(SCRIPT), str(folder), json.dumps({"config": {}} | options)]
    return subprocess.Popen([sys.executable, *arguments], stderr=subprocess.PIPE, text=True)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while len(read_metrics(folder)) < step:
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_training_lowers_the_loss_and_writes_what_it_says(tmp_path: Path) -> None:
    _, fitted = train(tmp_path / "run", length="60 steps", save_every="20 steps")
    records = losses(tmp_path / "run")
    assert [record[0] for record in records] == list(range(1, 61))
    assert records[-1][1] < 0.8 * records[0][1]  # type: ignore[operator]
    expected = sum(ToyBatches().micro(step, micro).num_tokens for step in range(60) for micro in range(2))
    assert fitted.tokens == expected == read_metrics(tmp_path / "run")[-1]["tokens"]
    assert [path.name for path in checkpoints(tmp_path / "run")] == ["step-00000040", "step-00000060"]
    assert verify(fitted.checkpoint).kind == "checkpoint"
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


def test_four_micro_batches_average_as_one_batch(tmp_path: Path) -> None:
    whole, _ = train(tmp_path / "whole", rows=64, micro=64, toy=NoDraw(), precision="fp64", length="5 steps")
    parts, _ = train(tmp_path / "parts", rows=64, micro=16, toy=NoDraw(), precision="fp64", length="5 steps")
    for (name, a), b in zip(whole.named_parameters(), parts.parameters()):
        assert a.dtype == torch.float64
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10, msg=name)


class NoDraw(Toy):
    """Masks that depend on the row alone, and no dropout, so that micro-batches may be cut anywhere."""

    def __init__(self) -> None:
        super().__init__(rate=0.0)

    def prepare(self, batch, seed):
        masked = ((batch.ids_BL + batch.rows[:, None]) % 3 == 0) & batch.layout.mask_BL
        return batch.replace(targets={"masked": masked, "labels": batch.ids_BL})


def test_the_update_is_that_of_the_averaged_loss(tmp_path: Path) -> None:
    """One step by hand: sums over both micro-batches divided by the counts of both, dropout seeded per micro-batch."""
    toy, reference, batches = Toy().double(), Toy().double(), ToyBatches()
    settings = config(length="1 step", schedule="constant", warmup="0 steps", precision="fp64", clip=0.5)
    fit(toy, batches, settings, tmp_path / "run", world=WORLD, seed=7, attach={})
    optimizer = torch.optim.AdamW(
        [{"params": [p for p in reference.parameters() if p.ndim > 1], "weight_decay": 0.01},
         {"params": [p for p in reference.parameters() if p.ndim == 1], "weight_decay": 0.0}],
        lr=0.01, eps=1e-6,
    )  # fmt: skip
    prepared = [reference.prepare(batches.micro(0, micro), 7) for micro in range(2)]
    masked, tokens = (sum(reference.counts(batch)[name] for batch in prepared) for name in ("mlm", "rtd"))
    for batch in prepared:
        seed_dropout(7, "dropout", 0, batch.micro)
        mlm, rtd = reference(batch).terms
        (mlm.sum / masked + 5 * rtd.sum / tokens).backward()
    torch.nn.utils.clip_grad_norm_(reference.parameters(), 0.5)
    optimizer.step()
    for a, b in zip(toy.parameters(), reference.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("precision", "cuts"), [("fp32", (6, 14)), ("bf16", (9,))])
def test_a_killed_run_goes_on_bit_equal(tmp_path: Path, precision: str, cuts: tuple[int, ...]) -> None:
    fields = {"precision": precision, "deterministic": True, "save_every": "4 steps"}
    _, fitted = train(tmp_path / "whole", **fields)
    for cut in cuts:  # between checkpoints
        process = start(tmp_path / "cut", config=fields, delay=0.02)
        wait_for_step(tmp_path / "cut", cut, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    reached = len(read_metrics(tmp_path / "cut"))
    assert reached < 20
    _, resumed = train(tmp_path / "cut", **fields)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    assert resumed.tokens == fitted.tokens
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (fitted.checkpoint / name).read_bytes() == (resumed.checkpoint / name).read_bytes()


def test_weights_and_samples_differ_with_the_seed(tmp_path: Path) -> None:
    """The comparison above can fail."""
    a, b = Toy(), Toy()
    for toy, seed in ((a, 7), (b, 8)):
        fit(toy, ToyBatches(), config(length="3 steps"), tmp_path / str(seed), world=WORLD, seed=seed, attach={})
    assert not torch.equal(a.head.weight, b.head.weight)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_signal_ends_with_a_complete_checkpoint(tmp_path: Path, number: int, code: int) -> None:
    process = start(tmp_path / "run", delay=0.02, config={"save_every": "1000 steps", "length": "1000 steps"})
    wait_for_step(tmp_path / "run", 3, process)
    process.send_signal(number)
    assert process.wait(30) == code, process.stderr.read()
    (found,) = checkpoints(tmp_path / "run")
    verify(found)
    assert int(found.name.removeprefix("step-")) == len(read_metrics(tmp_path / "run"))


def test_a_second_interrupt_ends_at_once(tmp_path: Path) -> None:
    process = start(tmp_path / "run", delay=0.5, config={"length": "1000 steps"})
    wait_for_step(tmp_path / "run", 1, process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert checkpoints(tmp_path / "run") == []


def test_a_stop_within_raises_and_the_next_run_ends_like_an_unbroken_one(tmp_path: Path) -> None:
    class Stopping(ToyBatches):
        def micro(self, step, micro):
            if step == 9:
                signal.raise_signal(signal.SIGTERM)
            return super().micro(step, micro)

    with pytest.raises(Stopped) as stopped:
        fit(Toy(), Stopping(), config(), tmp_path / "cut", world=WORLD, seed=7, attach={}, evaluate=lambda step: {"x": step})
    assert (stopped.value.signal, stopped.value.step) == (signal.SIGTERM, 10)
    fit(Toy(), ToyBatches(), config(), tmp_path / "cut", world=WORLD, seed=7, attach={}, evaluate=lambda step: {"x": step})
    fit(Toy(), ToyBatches(), config(), tmp_path / "whole", world=WORLD, seed=7, attach={}, evaluate=lambda step: {"x": step})
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    evaluated = [[r["step"] for r in read_metrics(tmp_path / name) if r["kind"] == "evaluate"] for name in ("cut", "whole")]
    assert evaluated[0] == evaluated[1] == list(range(2, 21, 2))


def test_the_second_process_on_a_run_is_refused(tmp_path: Path) -> None:
    with lock(tmp_path / "run" / "checkpoints"), pytest.raises(KitaeError, match="in use"):
        train(tmp_path / "run")


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    train(tmp_path / "run", length="4 steps")
    with pytest.raises(KitaeError, match=r"train\.config\.learning_rate: 0\.01 -> 0\.02"):
        train(tmp_path / "run", length="4 steps", learning_rate=0.02)
    with pytest.raises(KitaeError, match=r"train\.seed: 7 -> 8"):
        fit(Toy(), ToyBatches(), config(length="4 steps"), tmp_path / "run", world=WORLD, seed=8, attach={})
    _, fitted = train(tmp_path / "run", length="4 steps", log_every="2 steps", keep_last=1)  # operational
    assert fitted.steps == 4


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    _, first = train(tmp_path / "run")
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    _, second = train(tmp_path / "run")
    assert (second.steps, second.tokens, second.seconds) == (first.steps, first.tokens, first.seconds)
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before


def test_a_gradient_that_is_not_finite_stops_without_an_update(tmp_path: Path) -> None:
    toy = Toy(bad_step=5)
    with pytest.raises(KitaeError, match=r"step 5 is not finite.* rows 44, 45, 46, 47"):
        fit(toy, ToyBatches(), config(save_every="1 step"), tmp_path / "run", world=WORLD, seed=7, attach={})
    newest = checkpoints(tmp_path / "run")[-1]
    assert newest.name == "step-00000005"
    torch.testing.assert_close(load_file(newest / "weights.safetensors")["head.weight"], toy.head.weight.detach(), rtol=0, atol=0)


def test_only_one_batch_of_records_per_step_after_a_crash(tmp_path: Path) -> None:
    train(tmp_path / "run", length="8 steps")
    path = tmp_path / "run" / "metrics.jsonl"
    for folder in checkpoints(tmp_path / "run")[1:]:
        (folder / "manifest.json").unlink()  # as if it had not been completed
    path.write_text(path.read_text() + '{"kind": "train", "st')
    train(tmp_path / "run", length="8 steps")
    assert [record[0] for record in losses(tmp_path / "run")] == list(range(1, 9))


def _flip(data: bytes) -> bytes:
    changed = bytearray(data)
    changed[len(data) // 2] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("part", ["weights", "optimizer"])
@pytest.mark.parametrize("damage", [_flip, lambda data: data[:-1], lambda data: b""], ids=["a bit", "a byte less", "empty"])
def test_the_newest_checkpoint_damaged_the_one_before_is_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, part: str, damage: Callable[[bytes], bytes]
) -> None:
    _, whole = train(tmp_path / "run", deterministic=True)
    expected = {name: (whole.checkpoint / name).read_bytes() for name in ("weights.safetensors", "optimizer.safetensors")}
    (whole.checkpoint / f"{part}.safetensors").write_bytes(damage(expected[f"{part}.safetensors"]))
    with caplog.at_level(logging.INFO):
        _, again = train(tmp_path / "run", deterministic=True)
    assert f"step-00000020 is passed over: {part}.safetensors is damaged" in caplog.text
    assert "goes on after step 16" in caplog.text
    for name, content in expected.items():
        assert (again.checkpoint / name).read_bytes() == content
    verify(again.checkpoint)


def test_the_newest_checkpoint_is_that_of_the_last_step_whatever_the_clock_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when the clock went backwards, or the files came from elsewhere; and a folder without a manifest is none."""
    train(tmp_path / "run", length="12 steps", keep_last=9)
    for number, path in enumerate(checkpoints(tmp_path / "run")):
        for item in (*path.iterdir(), path):
            os.utime(item, (1e9 - number, 1e9 - number))
    (tmp_path / "run" / "checkpoints" / "step-00000099").mkdir()
    with caplog.at_level(logging.INFO):
        train(tmp_path / "run", length="12 steps", keep_last=9)
    assert "goes on after step 12" in caplog.text


@pytest.mark.parametrize(
    "numbers", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGTERM], [signal.SIGINT]], ids=["term", "term twice", "int"]
)
def test_a_stop_signal_while_a_checkpoint_is_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, numbers: list[int]) -> None:
    """In the background: the checkpoint under way is completed, that of the present step written, and the exit is that of a stop."""
    real, saving, told = checkpoint.save, threading.Event(), threading.Event()

    def slow(folder: Path, content: checkpoint.Content, attach: dict[str, Path]) -> Path:
        saving.set()
        assert told.wait(30)
        return real(folder, content, attach)

    class Signalling(ToyBatches):
        def micro(self, step: int, micro: int):
            if (step, micro) == (5, 1):
                assert saving.wait(30)
                for number in numbers:
                    signal.raise_signal(number)
                told.set()
            return super().micro(step, micro)

    monkeypatch.setattr(checkpoint, "save", slow)
    with pytest.raises(Stopped) as stopped:
        fit(Toy(), Signalling(), config(keep_last=9), tmp_path, world=WORLD, seed=7, attach={})
    assert (stopped.value.signal, stopped.value.step) == (numbers[0], 6)
    assert [path.name for path in checkpoints(tmp_path)] == ["step-00000004", "step-00000006"]
    for path in checkpoints(tmp_path):
        verify(path)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"learning_rate": 0.02}, r"train\.config\.learning_rate: 0\.01 -> 0\.02"),
        ({"schedule": "cosine"}, r"train\.config\.schedule: 'linear' -> 'cosine'"),
        ({"length": "30 steps"}, r"train\.config\.length"),
        ({"warmup": "3 steps"}, r"train\.config\.warmup"),
        ({"optimizer": "lamb"}, r"train\.config\.optimizer: 'adamw' -> 'lamb'"),
        ({"precision": "bf16"}, r"train\.config\.precision"),
    ],
)
def test_going_on_with_another_setting_is_refused_by_its_name(tmp_path: Path, changes: dict[str, object], key: str) -> None:
    class Ending(ToyBatches):
        def micro(self, step: int, micro: int):
            if step == 5:
                raise InterruptedError
            return super().micro(step, micro)

    with pytest.raises(InterruptedError):
        fit(Toy(), Ending(), config(), tmp_path, world=WORLD, seed=7, attach={})
    with pytest.raises(KitaeError, match=key):
        train(tmp_path, **changes)
    _, fitted = train(tmp_path)
    assert fitted.steps == 20


@pytest.mark.slow
def test_compiled_layers_see_the_same_samples_and_losses(tmp_path: Path) -> None:
    for name, wanted in (("eager", False), ("compiled", True), ("graphs", "graphs")):
        (tmp_path / name).mkdir()
        toy = Toy(rate=0.0, log=tmp_path / name / "samples")
        run = tmp_path / name / "run"
        fit(toy, ToyBatches(), config(compile=wanted, length="6 steps"), run, world=WORLD, seed=7, attach={}, evaluate=held_out(toy))
    for name in ("compiled", "graphs"):
        assert (tmp_path / "eager" / "samples").read_text() == (tmp_path / name / "samples").read_text()
        for a, b in zip(losses(tmp_path / "eager" / "run"), losses(tmp_path / name / "run"), strict=True):
            assert a == pytest.approx(b, rel=1e-4)


def held_out(toy: Toy) -> Callable[[int], dict[str, float]]:
    """A measurement that runs the compiled layers."""

    def measure(step: int) -> dict[str, float]:
        return {"size": float(toy.blocks[0](torch.ones(2, 3, 16)).abs().sum())}

    return measure


def test_graphs_need_memory_that_stays_in_its_place() -> None:
    for moving in ({"activation_checkpointing": True}, {"parallel": "fsdp2"}):
        with pytest.raises(ValueError, match='compile = "graphs" does not go together with'):
            config(compile="graphs", **moving)
