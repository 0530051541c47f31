"""The estimate in a training's folder."""

from pathlib import Path

from kitae.train.promise import ESTIMATE, Memory, Promise, read_promise, write_promise

PROMISE = Promise(
    source="flops",
    device="H200",
    processes=8,
    seconds=3600.0,
    tokens_per_second=1e6,
    mfu=0.3,
    memory=Memory(weights=6.0, gradients=4.0, optimizer=8.0, activations=100.0, logits=10.0),
)


def test_a_promise_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_promise(tmp_path) is None
    write_promise(tmp_path, PROMISE)
    assert read_promise(tmp_path) == PROMISE
    assert PROMISE.memory.total == 128.0
    assert [path.name for path in tmp_path.iterdir()] == [ESTIMATE]


def test_a_damaged_promise_counts_as_none(tmp_path: Path) -> None:
    (tmp_path / ESTIMATE).write_text('{"source": "flops", "devi', encoding="utf-8")
    assert read_promise(tmp_path) is None
