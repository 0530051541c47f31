"""Processes that hang, fail or die while others train with them: they are named, all end, and the same command goes on."""

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from toy_training import losses, samples, train

from kitae.tensor.watch import Doing, _Seen, judge
from kitae.tensor.world import World
from warm import Running, Warm

HOST = socket.gethostname()
LENGTH = {"precision": "fp64", "length": "12 steps", "save_every": "4 steps"}


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    server = Warm(tmp_path_factory.mktemp("toy"), Path(__file__).with_name("toy_training.py"))
    yield server
    server.close()


def begin(warm: Warm, folder: Path, size: int, meeting: dict[str, str] | None = None, **options: object) -> list[Running]:
    """`size` processes that train in `folder`, each as if on a machine of its own."""
    said = {"samples": str(folder / "samples-"), "rows": 16, "config": LENGTH} | options
    environments = [{"LOCAL_RANK": "0", "GROUP_RANK": str(rank)} | (meeting or {}) for rank in range(size)]
    return warm.ranks(folder, environments, folder / "run", json.dumps(said))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    train(folder / "run", {"samples": str(folder / "samples-"), "rows": 16, "config": LENGTH}, World())
    return folder


@pytest.mark.parametrize("parallel", ["ddp", pytest.param("fsdp2", marks=pytest.mark.slow)])
def test_a_process_that_hangs_is_named_and_all_end(warm: Warm, tmp_path: Path, parallel: str) -> None:
    """What takes long by its nature does not count: here measuring takes longer than the limit. In shards the others wait in the middle of
    their forward pass."""
    settings = LENGTH | {"hang_limit": "2s", "evaluate_every": "6 steps", "parallel": parallel}
    ranks = begin(warm, tmp_path, 2, config=settings, measuring=3.0, trouble=[1, 7, 3, "sleep"])
    assert {one.wait(60) for one in ranks} <= {1, 2}  # 2: the other's end was seen before the verdict
    for one in ranks:
        assert f"rank 1 (host {HOST}) hangs: " in one.stderr
        assert '"forward and backward" of step 7: see to that' in one.stderr
    assert "make_trouble" in ranks[1].stderr  # where it hangs
    assert "make_trouble" not in ranks[0].stderr


def test_failures_and_kills_end_all_and_any_number_goes_on(warm: Warm, tmp_path: Path, whole: Path) -> None:
    """2 -> 1 -> 4 processes, the last step of each cut off in the middle of its micro-batches; what was lost is repeated the same.
    Nobody waits for a time-out of minutes."""
    shares = {"0": 4, "1": 12}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.2", "MASTER_PORT": str(free.getsockname()[1])}  # the same at once for the next ones
    first = begin(warm, tmp_path, 2, meeting, trouble=[1, 5, 2, "kill"], config=LENGTH | {"shares": shares})
    assert [one.wait(60) for one in first] == [2, -signal.SIGKILL]
    assert 'another process was lost, as "all-reduce" of step 5 shows (' in first[0].stderr
    assert "Traceback" not in first[0].stderr
    (second,) = begin(warm, tmp_path, 1, meeting, trouble=[0, 9, 1, "kill"])
    assert second.wait(60) == -signal.SIGKILL
    third = begin(warm, tmp_path, 4, meeting, trouble=[0, 10, 0, "raise"])
    assert [one.wait(60) for one in third] == [1, 2, 2, 2]
    for one in third[1:]:
        assert f"rank 0 (host {HOST}) failed: ValueError: planted" in one.stderr
        assert "Traceback" not in one.stderr
    assert [one.wait(60) for one in begin(warm, tmp_path, 2, meeting)] == [0, 0]
    assert samples(tmp_path) == samples(whole)
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-8)
    assert not left_behind([*first, second, *third])


def left_behind(processes: list[Running]) -> list[str]:
    """What processes that have ended may leave in a system: themselves, those that they started, and shared memory."""
    pids = [one.pid for one in processes]
    alive = [f"/proc/{pid}" for pid in pids if Path(f"/proc/{pid}").exists()]
    children = [str(stat) for stat in Path("/proc").glob("[0-9]*/stat") if session_of(stat) in pids]
    memory = [name for name in os.listdir("/dev/shm") if any(str(pid) in name for pid in pids)]
    return alive + children + memory


def session_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[3])
    except OSError:
        return -1


def test_two_tasks_of_slurm_train_together(warm: Warm, tmp_path: Path, whole: Path) -> None:
    """As far as it goes without Slurm: two processes with the variables of a job's tasks. The second node computes three quarters."""
    said = {"samples": str(tmp_path / "samples-"), "rows": 16, "config": LENGTH | {"shares": {"0": 4, "1": 12}}}
    job = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost,gpu[03-06]"}
    tasks = [
        warm.start(
            tmp_path,
            tmp_path / "run",
            json.dumps(said),
            environment=job | {"SLURM_PROCID": str(rank), "SLURM_LOCALID": "0", "SLURM_NODEID": str(rank)},
        )
        for rank in range(2)
    ]
    assert [one.wait(60) for one in tasks] == [0, 0], [one.stderr for one in tasks]
    assert samples(tmp_path) == samples(whole)
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-8)
    assert [len((tmp_path / f"samples-{rank}").read_text().splitlines()) for rank in range(2)] == [12, 36]


def seen(silent: float = 0.0, still: float = 0.0, **doing: object) -> _Seen:
    return _Seen(doing=Doing(**{"slow": False, "operation": "data", "step": 3} | doing), silent=silent, still=still)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("processes", "rank", "words"),
    [
        ([seen(), seen(still=9)], None, ""),
        ([seen(waiting=True, still=50), seen(still=11)], 1, 'rank 1 (host b) hangs: 11 s in "data" of step 3'),
        ([seen(waiting=True, still=50), seen(still=11, slow=True)], None, ""),
        ([seen(waiting=True, still=200), seen(still=101, slow=True, operation="saving")], 1, '101 s in "saving"'),
        ([seen(), seen(silent=11)], 1, "has not been heard of for 11 s"),
        ([seen(), seen(silent=11, still=11, left=True)], None, ""),
        ([seen(waiting=True, still=11, count=7), seen(waiting=True, still=11, count=5)], 1, "all processes wait for each other, rank 1"),
        ([seen(waiting=True, still=11), seen(waiting=True, still=1)], None, ""),
    ],
)
def test_who_is_to_blame(processes: list[_Seen], rank: int | None, words: str) -> None:
    verdict = judge(processes, ("a", "b"), 10)
    assert (verdict and verdict[0]) == rank
    assert words in (verdict[1] if verdict else "")


def test_ages_are_counted_in_words_that_came() -> None:
    one = _Seen()
    one.hear(1, Doing(count=4), 0.5)
    assert (one.silent, one.still) == (0, 0)
    one.hear(2, Doing(count=4), 0.5)
    assert (one.silent, one.still) == (0, 0.5)
    one.hear(2, Doing(count=4), 0.5)
    assert (one.silent, one.still) == (0.5, 1.0)
    one.hear(3, Doing(count=5), 0.5)
    assert (one.silent, one.still) == (0, 0)
