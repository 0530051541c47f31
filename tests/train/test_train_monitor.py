"""What a training tells of itself: shares, speeds, the remaining time, and a word when it is slower than promised."""

import logging
from pathlib import Path

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tensor.world import World
from kitae.train.checkpoint import read_state
from kitae.train.loop import Fitted, fit
from kitae.train.meter import Meter, Spent, Step, clock_text, in_words
from kitae.train.monitor import read_metrics
from kitae.train.promise import Memory, Promise, write_promise
from kitae.train.slowness import Evidence, Watch, causes, gpu_state

CPU = torch.device("cpu")
EACH = 1000.0


class CostedToy(Toy):
    def flops_per_token(self, context: float) -> float:
        return EACH * context


class LongerBatches(ToyBatches):
    """Rows that grow longer: a token of the second half attends to twice as much."""

    def context(self, step: int) -> float:
        return 1.0 if step < 10 else 2.0


def train(folder: Path, *, batches: ToyBatches | None = None, **fields: object) -> Fitted:
    settings = config(**({"log_every": "5 steps"} | fields))
    return fit(CostedToy(), batches or LongerBatches(), settings, folder, world=World(), seed=7, attach={})


def records(folder: Path) -> list[dict[str, float]]:
    return [{name: value for name, value in r.items() if name != "kind"} for r in read_metrics(folder) if r["kind"] == "train"]  # type: ignore[misc]


def test_the_numbers_of_a_training(tmp_path: Path) -> None:
    fitted = train(tmp_path / "run")
    found, batches = records(tmp_path / "run"), ToyBatches()
    real = [sum(batches.micro(step, micro).num_tokens for micro in range(2)) for step in range(20)]
    for number, record in enumerate(found):
        tokens = sum(real[5 * number : 5 * number + 5])
        assert record["padding_share"] == pytest.approx(1 - tokens / (5 * 8 * 12))
        assert 0 < record["waiting_share"] < 1
        assert record["memory"] > 50e6, "bytes: torch alone takes more"
        peak = record["tokens_per_second"] * EACH * (1 if number < 2 else 2) / record["mfu"]
        assert 1e9 < peak < 1e13, "FLOPs a second of this machine"
    peaks = {round(r["tokens_per_second"] * (1 if i < 2 else 2) / r["mfu"]) for i, r in enumerate(found)}
    assert len(peaks) == 1, "measured once"
    assert found[-1]["seconds_left"] == 0 < found[0]["seconds_left"]
    assert fitted.shares["padding_share"] == pytest.approx(1 - sum(real) / (20 * 8 * 12))
    assert set(fitted.shares) == {"padding_share", "waiting_share", "mfu"}
    assert fitted.memory == max(record["memory"] for record in found)
    spent = read_state(fitted.checkpoint).spent
    assert spent.flops == EACH * (sum(real[:10]) + 2 * sum(real[10:]))
    assert (spent.tokens, spent.positions) == (fitted.tokens, 20 * 8 * 12)


def test_without_costs_there_is_no_mfu(tmp_path: Path) -> None:
    fit(CostedToy(), ToyBatches(), config(length="2 steps", log_to=()), tmp_path / "run", world=World(), seed=7, attach={})
    assert "mfu" not in records(tmp_path / "run")[-1]
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_a_resumed_training_counts_all_its_pieces(tmp_path: Path) -> None:
    class Breaking(LongerBatches):
        def micro(self, step: int, micro: int) -> Batch:
            if step == 10:
                raise RuntimeError("cut off")
            return super().micro(step, micro)

    whole = train(tmp_path / "whole")
    with pytest.raises(RuntimeError, match="cut off"):
        train(tmp_path / "cut", batches=Breaking())
    assert [record["step"] for record in records(tmp_path / "cut")] == [5, 10], "two steps behind the checkpoint of step 8"
    train(tmp_path / "cut")
    assert [record["step"] for record in records(tmp_path / "cut")] == [5, 10, 15, 20]
    for field in ("positions", "tokens", "flops"):
        ours, theirs = (getattr(read_state(path).spent, field) for path in (whole.checkpoint, tmp_path / "cut/checkpoints/step-00000020"))
        assert ours == theirs, field


def test_the_time_that_is_left() -> None:
    meter = Meter(Toy(), ToyBatches(), "fp32", World())
    meter.resume(Spent(), done=0)
    meter.add(0, Step(tokens=10, positions=20, seconds=1.0, waited=0.25))
    assert meter.read(done=0, whole=100, left=None).keys() == {"tokens_per_second", "padding_share", "waiting_share", "memory"}, (
        "no pace yet"
    )
    budget = meter.read(done=1, whole=100, left=42.0)
    assert budget["seconds_left"] == 42.0, "a wall-clock length knows it"
    meter.add(1, Step(tokens=30, positions=40, seconds=1.0, waited=0.0))
    reading = meter.read(done=2, whole=2, left=None)
    assert (reading["tokens_per_second"], reading["padding_share"], reading["waiting_share"]) == (30.0, 0.25, 0.0)
    assert meter.shares() == {"padding_share": 1 - 40 / 60, "waiting_share": 0.125}
    shares = {"mfu": 0.351, "padding_share": 0.004, "waiting_share": 0.2}
    text = in_words(shares | {"tokens_per_second": 1234.5, "memory": 2.5e9, "seconds_left": 7500})
    assert text == "1,234 tokens/s, MFU 35 %, 20 % waiting, 2.5 GB, 2 h 05 min left"
    assert [clock_text(seconds) for seconds in (7.4, 100, 5900, 6000, 200000)] == ["7 s", "2 min", "98 min", "1 h 40 min", "2 d 7 h"]


def reading(speed: float, **shares: float) -> dict[str, float]:
    return {"tokens_per_second": speed, **shares}


def promise(speed: float) -> Promise:
    memory = Memory(weights=1, gradients=1, optimizer=1, activations=1, logits=1)
    return Promise(source="probe", device="cpu", processes=1, seconds=1.0, tokens_per_second=speed, mfu=0.5, memory=memory)


def test_slowness_is_said_once_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    watch = Watch(promise(1000.0), CPU)
    speeds = [100, 990, 500, 980, 600, 610, 620, 630, 720, 720, 900, 900, 500, 500]
    with caplog.at_level(logging.WARNING):
        shares = [watch.look(reading(speed, waiting_share=0.31, padding_share=0.1)) for speed in speeds]
    assert [record.getMessage() for record in caplog.records] == [
        "600 tokens/s are 60 % of the 1,000 that were estimated: 31 % of the time it waits for data",
        "500 tokens/s are 50 % of the 1,000 that were estimated: 31 % of the time it waits for data",
    ], "not for the start, not for one slow moment, not again before it was well"
    assert shares[1] == {"promise_share": 0.99}
    caplog.clear()
    silent = Watch(None, CPU)
    assert [silent.look(reading(1.0)) for _ in range(5)] == [{}] * 5
    assert not caplog.records


def test_only_what_was_measured_is_a_cause() -> None:
    still = {"moment": 10.0, "queued": 0.0, "ran": 10.0, "throttled": 0.0, "swapped": 0, "compiled": 0}
    assert causes(Evidence(**still), reading(1.0, waiting_share=0.02, padding_share=0.1)) == []
    trouble = Evidence(**(still | {"queued": 6.0, "ran": 4.0, "throttled": 2.0, "swapped": 5000, "compiled": 3}))
    found = causes(trouble, reading(1.0, waiting_share=0.15, padding_share=0.45))
    assert [text.partition(" (")[0] for text in found] == [
        "60 % of the time others have its processor",
        "it reads 500 pages a second back from the disk",
        "45 % of the positions are padding",
        "torch.compile made 3 graphs anew",
        "its control group is held back by a limit on processor time",
        "15 % of the time it waits for data",
    ]


def test_counters_of_the_system_are_read() -> None:
    before = Evidence.now()
    torch.randn(300, 300) @ torch.randn(300, 300)
    passed = Evidence.now().since(before)
    assert passed.moment > 0 <= passed.queued
    assert 0 < passed.ran <= passed.moment + 0.1 or not Path("/proc/self/schedstat").exists()


@pytest.mark.parametrize(
    ("answer", "others", "told"),
    [
        ("1980 MHz, 1980 MHz, 0x0000000000000004, 99 %\n", 0, []),
        ("1200 MHz, 1980 MHz, 0x0000000000000001, 0 %\n", 0, []),
        ("1200 MHz, 1980 MHz, 0x0000000000000004, 99 %\n", 0, ["the GPU runs at 1200 of 1980 MHz (power)"]),
        ("900 MHz, 1980 MHz, 0x0000000000000060, 99 %\n", 2, ["2 other processes use the GPU", "the GPU runs at 900 of 1980 MHz (heat)"]),
        ("[N/A], [N/A], [N/A], [N/A]\n", 0, []),
        ("", 1, ["1 other processes use the GPU"]),
    ],
)
def test_what_nvidia_smi_says(answer: str, others: int, told: list[str]) -> None:
    assert gpu_state(answer, others) == told


def test_the_promise_is_read_where_it_lies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    write_promise(folder, promise(1e12))
    train(folder, log_every="1 step", length="5 steps")
    assert "that were estimated" in caplog.text
    assert records(folder)[-1]["promise_share"] < 1e-3


WAITING = {torch.Tensor.item, torch.Tensor.tolist, torch.Tensor.numpy, torch.Tensor.cpu, torch.Tensor.nonzero, torch.nonzero}
WAITING |= {getattr(torch.Tensor, f"__{name}__") for name in ("bool", "int", "float", "index")}


class Waits:
    """Counts what would make the host wait for a device, by the step that is under way; data are prepared on the host, and do not count."""

    def __init__(self) -> None:
        self.step, self.counted = 0, dict[int, list[str]]()
        self.host = False

    def note(self, name: str) -> None:
        if not self.host:
            self.counted.setdefault(self.step, []).append(name)


class Calls(TorchFunctionMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in WAITING:
            self.waits.note(func.__name__)
        return func(*args, **(kwargs or {}))


class Kernels(TorchDispatchMode):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default):
            self.waits.note(func.name())
        return func(*args, **(kwargs or {}))


class Watched(ToyBatches):
    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def micro(self, step: int, micro: int) -> Batch:
        self.waits.step, self.waits.host = step, True
        batch = super().micro(step, micro)
        self.waits.host = False
        return batch


class Steady(Toy):
    """Shapes that depend on no value, as a learner on a device has to have them."""

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def prepare(self, batch: Batch, seed: int) -> Batch:
        self.waits.host = True
        prepared = super().prepare(batch, seed)
        assert prepared.num_tokens, "worked out here and remembered"
        self.waits.host = False
        return prepared

    def counts(self, batch: Batch) -> dict[str, int]:
        self.waits.host = True
        count = int(batch.targets["masked"].sum())
        self.waits.host = False
        return {"mlm": count}

    def forward(self, batch: Batch) -> Loss:
        x_BLD = self.embed(batch.ids_BL)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        logits = x_BLD @ self.tied.weight.T + self.head(x_BLD).sum() * 0
        each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets["labels"], reduction="none")
        return Loss(terms=(Term(name="mlm", sum=(each * batch.targets["masked"]).sum(), count=1),))


@pytest.mark.parametrize("rule", ["adamw", "lamb", "muon"])
def test_a_step_waits_once_for_its_numbers(tmp_path: Path, rule: str) -> None:
    """Whether it is logged or not; what a device would have to answer in between would stop the host again. Clipping has a way of its
    own on a CPU, where nobody waits; the other is watched in test_train_cuda.py."""
    waits = Waits()
    own = {"save_every": None, "keep_last": 0, "evaluate_every": None, "clip": None, "optimizer": rule}
    settings = config(length="12 steps", log_every="3 steps", **own)
    with Calls(waits), Kernels(waits):
        fit(Steady(waits), Watched(waits), settings, tmp_path / "run", world=World(), seed=7, attach={})
    waits.counted.pop(12, None)
    assert waits.counted == {step: ["tolist"] for step in range(12)}
    assert len(records(tmp_path / "run")) == 4


def test_sinks_that_are_not_there_are_refused_before_the_first_step(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="names one of them twice"):
        config(log_to=["wandb", "wandb"])
    for name in ("wandb", "mlflow"):
        try:
            __import__(name)
        except ImportError:
            with pytest.raises(KitaeError, match=rf'log_to names "{name}".*pip install \'kitae\[{name}\]\''):
                train(tmp_path / name, log_to=[name])
            assert not (tmp_path / name / "metrics.jsonl").exists()
