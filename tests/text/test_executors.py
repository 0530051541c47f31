"""The same bytes from every executor. Slurm's commands are stood in for by scripts that run the job at once; Ray runs in the slow tests."""

import hashlib
import json
import os
import pickle
import subprocess
import sys
import sysconfig
import textwrap
import venv
from pathlib import Path

import pytest
from datatrove.pipeline.base import PipelineStep

import kitae
from kitae.core.errors import KitaeError
from kitae.text import build as module
from kitae.text import executors
from kitae.text.build import Holdout, build
from kitae.text.decontaminate import build_index, save_index
from kitae.text.executors import Engine
from kitae.text.filters import Filter, Filters
from kitae.text.nearduplicates import WriteSketches
from kitae.text.private import MaskPrivate
from kitae.text.readers import read
from kitae.text.social import CleanSocial, FullWidth
from kitae.text.steps import Clean, CopyShards, Decontaminate, Part, ReadParts, Run, Source, WriteParts

ITEM = "この長い文章は評価用の資料にしか現れないはずのもので、学習用の資料からは除かれます。"


def documents() -> list[str]:
    return [*(f"これは{i % 170}番目の文書で、文が一つあります。" for i in range(200)), f"前置き。{ITEM}", "短"]


def make(folder: Path, engine: Engine, *, encoding: str = "utf-8") -> dict[str, str]:
    """A corpus with every kind of step, from one source in as many parts as the engine says; the shards' hashes."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.parent / "a.txt"
    if not path.exists():
        path.write_bytes("\n\n".join(documents()).encode(encoding))
    save_index(build_index([("task", "1", ITEM)]), folder.parent / "index.npz")
    steps = [Clean(normalization="nfkc", language="ja", min_characters=5), Decontaminate(folder.parent / "index.npz", overlap=0.5)]
    built = build(
        [Source(name="a", path=path, format="text")], steps, holdout=Holdout(documents=9), seed=1, engine=engine,
        work=folder / "work", out=folder / "corpus",
    )  # fmt: skip
    dropped = {reason: tally.documents for reason, tally in built.dropped["a"].items()}
    assert dropped == {"duplicate": 30, "contaminated": 1, "short": 1}
    return {item.name: hashlib.sha256(item.read_bytes()).hexdigest() for item in sorted((folder / "corpus").rglob("*.zst"))}


def engine_of(folder: Path) -> Path:
    (found,) = (folder / "work" / "parts").glob("*/engine")
    return found


@pytest.fixture(autouse=True)
def _parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PARALLEL_BYTES", 1)


def script(path: Path, text: str) -> None:
    path.write_text("#!/bin/sh\n" + textwrap.dedent(text))
    path.chmod(0o755)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands named like Slurm's: sbatch keeps the script and runs its array here, one task after the other."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script(
        folder / "sbatch",
        f"""\
        for script; do :; done
        echo "$@" >> {tmp_path}/submitted
        cp "$script" {tmp_path}/job.sh
        last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
        for task in $(seq 0 $last); do
            RUN_OFFSET=0 SLURM_ARRAY_TASK_ID=$task SLURM_NODELIST=here bash "$script" > {tmp_path}/task-$task.log 2>&1
        done
        echo Submitted batch job 4711
        """,
    )
    script(folder / "srun", 'while [ "${1#-}" != "$1" ]; do [ "$1" = -n ] && shift; shift; done; exec "$@"\n')
    script(folder / "scontrol", "echo here\n")
    script(folder / "squeue", 'echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1\n')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(executors, "POLL_SECONDS", 0.01)
    return tmp_path


SLURM = Engine.model_validate(
    {
        "executor": "slurm", "tasks": 2, "workers": 7,
        "slurm": {"partition": "cpu", "time": "01:30:00", "memory": 3, "options": {"account": "nlp"}, "prepare": "true prepared"},
    }
)  # fmt: skip


def test_a_slurm_job(tmp_path: Path, cluster: Path) -> None:
    by_slurm = make(tmp_path / "slurm", SLURM)
    assert by_slurm == make(tmp_path / "local", Engine(tasks=3, workers=1))
    job = (cluster / "job.sh").read_text()
    for line in (
        "--cpus-per-task=1", "--mem-per-cpu=3G", "--nodes=1", "--partition=cpu", "--job-name=kitae", "--time=01:30:00", "--array=0-1%7",
        "--account=nlp", "--requeue",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in job
    folder = engine_of(tmp_path / "slurm")
    order = [f'export PATH={Path(sys.executable).parent}:"$PATH"', "srun  -l -n 1 launch_pickled_pipeline", str(folder / "executor.pik")]
    places = [job.index(words) for words in ("true prepared", *order)]
    assert places == sorted(places)
    assert (cluster / "submitted").read_text().count("\n") == 1, "one job, and no second one for statistics"


def test_a_slurm_task_that_fails(tmp_path: Path, cluster: Path) -> None:
    with pytest.raises(KitaeError, match='say encoding = "cp932"') as caught:
        make(tmp_path / "slurm", SLURM, encoding="cp932")
    assert caught.value.where.endswith("a.txt")
    (tmp_path / "a.txt").unlink()
    script(cluster / "bin" / "srun", "exit 9\n")
    with pytest.raises(KitaeError, match=r"ended before they were done: a \(1 of 2\), a \(2 of 2\)"):
        make(tmp_path / "again", SLURM)


def test_a_slurm_job_that_still_runs_is_waited_for(tmp_path: Path, cluster: Path) -> None:
    make(tmp_path / "slurm", SLURM)
    folder = engine_of(tmp_path / "slurm")
    (folder / "completions" / "00001").unlink()
    (folder / executors.JOB).write_text("4711")
    script(cluster / "bin" / "squeue", f'echo "$@" >> {cluster}/asked; touch {folder}/completions/00001; echo 4711_1 R 1:00\n')
    make(tmp_path / "slurm", SLURM)
    assert (cluster / "submitted").read_text().count("\n") == 1, "nothing was submitted again"
    assert (cluster / "asked").read_text().splitlines()[0] == "--noheader --format=%T %r --jobs 4711"
    assert not (folder / executors.JOB).exists()


def test_a_slurm_job_that_is_held_or_fails_early(tmp_path: Path, cluster: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(cluster / "bin" / "sbatch", "echo Submitted batch job 4711\n")
    script(cluster / "bin" / "scancel", f'echo "$@" >> {cluster}/cancelled\n')
    script(cluster / "bin" / "squeue", 'echo "PENDING JobHeldUser"\n')
    with pytest.raises(KitaeError, match="4711 will not begin by itself: PENDING JobHeldUser"):
        make(tmp_path / "slurm", SLURM)
    folder = engine_of(tmp_path / "slurm")
    (folder / "errors" / "00001.json").write_text('{"what": "the second part is bad", "cure": "mend it", "where": "line 3"}')
    script(cluster / "bin" / "squeue", 'echo "RUNNING None"\n')
    with pytest.raises(KitaeError, match="the second part is bad"):
        make(tmp_path / "slurm", SLURM)  # the first part runs on, but the error is told at once
    assert (cluster / "cancelled").read_text() == "4711\n"
    monkeypatch.setattr(executors, "SILENT", 2)
    script(cluster / "bin" / "squeue", "echo no route to host >&2; exit 1\n")
    with pytest.raises(KitaeError, match="squeue does not answer: no route to host"):
        make(tmp_path / "slurm", SLURM)


def test_slurm_refuses_the_job(tmp_path: Path, cluster: Path) -> None:
    script(cluster / "bin" / "sbatch", "echo invalid partition >&2; exit 3\n")
    with pytest.raises(KitaeError, match=r"sbatch refused the job \(exit status 3\)"):
        make(tmp_path / "slurm", SLURM)


def test_a_late_task_of_an_older_job_does_no_harm(tmp_path: Path, cluster: Path) -> None:
    """The number of tasks changes while a job of the old number waits: it is cancelled, and what it still writes lies elsewhere."""
    script(cluster / "bin" / "scancel", f'echo "$@" >> {cluster}/cancelled\n')
    make(tmp_path / "slurm", SLURM)
    old = engine_of(tmp_path / "slurm")
    (old / executors.JOB).write_text("4711")
    make(tmp_path / "slurm", SLURM.model_copy(update={"tasks": 3}))
    assert (cluster / "cancelled").read_text() == "4711\n"
    assert not old.exists()
    assert engine_of(tmp_path / "slurm") != old


def test_no_slurm_and_no_ray_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(KitaeError, match="needs the commands sbatch and squeue"):
        make(tmp_path / "slurm", SLURM)
    with pytest.raises(KitaeError, match="needs the package ray"):
        make(tmp_path / "ray", Engine(executor="ray", tasks=2))


@pytest.mark.parametrize(("said", "told"), [(True, "the second part is bad"), (False, r"ended before they were done: a \(1 of 2\)")])
def test_an_error_on_ray_is_the_task_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: bool, told: str) -> None:
    class Ray:
        def __init__(self, pipeline: object, *, tasks: int, workers: int, folder: Path) -> None:
            self.folder = folder

        def run(self) -> None:
            if said:
                text = '{"what": "the second part is bad", "cure": "mend it", "where": null}'
                (self.folder / "errors" / "00001.json").write_text(text)
            raise RuntimeError("ray::RankWorker.run_for_rank() (pid=1)")

    monkeypatch.setattr(executors, "RayExecutor", Ray)
    with pytest.raises(KitaeError, match=told):
        make(tmp_path / "ray", Engine(executor="ray", tasks=2))


def every_step(folder: Path) -> list[PipelineStep]:
    """One of each step that a corpus can be made by."""
    return [
        CleanSocial(("urls", "marks", "kaomoji", "laughter")), Clean(normalization="nfkc", language="ja", min_characters=5),
        Filter(Filters(preset="web"), language="ja"), MaskPrivate(("email", "phone", "card")), FullWidth(),
        Decontaminate(folder / "index.npz", overlap=0.5), WriteSketches(folder), WriteParts(folder),
        CopyShards((Run(split="train", fate=0, shard=0, begin=0, end=1),), parts=folder, decided=folder, out=folder, shard_bytes=9),
        ReadParts((Source(name="a", path=folder / "a.txt", format="text"),), (Part(source=0, part=0, parts=1),)),
    ]  # fmt: skip


def test_all_cleaning_steps_together_give_the_same_bytes_in_fresh_processes(tmp_path: Path, shared: Path) -> None:
    texts = [found.text for _, found in zip(range(150), read(shared / "ja_plain" / "kyoto_wiki.txt.xz", "text"))]
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join([*map(str, texts), "連絡先はmail@example.org、電話は03-1234-5678です。" * 9]), encoding="utf-8")
    save_index(build_index([("task", "1", str(texts[3]))]), tmp_path / "index.npz")
    found = []
    for workers in (1, 2):
        out = tmp_path / str(workers)
        built = build(
            [Source(name="a", path=path, format="text")], every_step(tmp_path)[:6], holdout=Holdout(documents=9), seed=1,
            engine=Engine(tasks=3, workers=workers), work=out / "work", out=out / "corpus", similarity=0.8,
        )  # fmt: skip
        found.append((built, {item.name: item.read_bytes() for item in (out / "corpus").rglob("*.zst")}))
    assert found[0] == found[1]
    assert found[0][0].changes["a"]
    assert "contaminated" in found[0][0].dropped["a"]


def test_every_step_travels_and_gives_the_same_bytes_in_a_fresh_process(tmp_path: Path) -> None:
    """Steps are pickled when they go to a worker, a Slurm job or a Ray task: an unpickled step does what the first one did."""
    here = make(tmp_path / "here", Engine(tasks=2, workers=1))
    assert here == make(tmp_path / "there", Engine(tasks=2, workers=2))
    for step in every_step(tmp_path):
        again = pickle.loads(pickle.dumps(step))
        assert {name: value for name, value in vars(again).items() if name != "stats"} == {
            name: value for name, value in vars(step).items() if name != "stats"
        }


@pytest.mark.slow
def test_ray(tmp_path: Path) -> None:
    """On a Ray of one machine, in an environment that is made here: ray beside what this environment has."""
    place = tmp_path / "environment"
    venv.create(place, with_pip=True)
    python = place / "bin" / "python"
    installed = subprocess.run([python, "-m", "pip", "install", "--quiet", "ray"], capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"ray cannot be installed here: {installed.stderr.strip().splitlines()[-1]}")
    (site,) = (place / "lib").glob("python*/site-packages")
    here = str(Path(kitae.__file__).parents[1])
    (site / "beside.pth").write_text(f"{here}\n{sysconfig.get_path('purelib')}\n")
    code = textwrap.dedent(f"""
        import json, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        import test_executors as test
        test.module.PARALLEL_BYTES = 1
        print("HASHES", json.dumps(test.make(Path({str(tmp_path / "ray")!r}), test.Engine(executor="ray", tasks=3, workers=2))))
    """)
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, timeout=300)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("HASHES ")] or [done.stderr]
    assert json.loads(line.removeprefix("HASHES ")) == make(tmp_path / "local", Engine(tasks=2, workers=1))
