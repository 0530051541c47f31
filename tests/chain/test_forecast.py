"""What `kitae plan` says of time, memory, cost and disk, word by word where no measurement is in it."""

import itertools
import re
from pathlib import Path

import pytest

from tiny_recipe import kitae, write_recipe

OPTIONS = (
    'plan.device="H200x8"',
    "plan.mfu=0.3",
    "plan.price_per_hour=4",
    'pretrain.model="electra-small"',
    'pretrain.train={ length = "16.4e9 tokens", batch = "1024 rows", micro_batch = "128 rows", precision = "bf16" }',
    "dataset.max_length=128",
)
TRAINING = """
 training               steps  tokens     epochs  MFLOP/token     PFLOP   MFU    tokens/s    time  cost
 pretrain             125,123  16.2 B  2,595,371          123     2,001  0.30  19,064,381  14 min  7.57
 adapt                      2   1,014      0.331          123  0.000125  0.04     161,440   < 1 s  0.00
 finetune/topics x 2        2   1,104                    58.1  0.000128  0.30     345,696   < 1 s  0.00
 together                                                                                  14 min  7.57
"""
MEMORY = """
 memory           weights  gradients  optimizer  activations  logits  saving  together  rows  at most
 pretrain          116 MB      78 MB     155 MB       2.8 GB   10 MB     0 B    3.1 GB   128    6,320
 adapt              78 MB      78 MB     155 MB       180 MB  614 kB     0 B    490 MB     4    3,059
 finetune/topics    39 MB      39 MB      79 MB       101 MB     0 B     0 B    259 MB     8   10,998
"""
SIZES = """
 size   layers  hidden  parameters  MFLOP/token   PFLOP   memory  rows at most    tokens/s    time    cost
 small      12     256      19.4 M          123   2,001   3.1 GB         6,320  19,064,381  14 min    7.57
 base       12     768      97.2 M          590   9,587   7.5 GB         3,041   3,979,824  68 min   36.26
 large      24    1024     325.0 M        1,980  32,147  19.6 GB         1,229   1,186,823   3.8 h  121.60
"""


def settings(*values: str) -> list[str]:
    return list(itertools.chain(*(("--set", value) for value in values)))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def plain(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


def test_a_plan_for_devices_that_are_not_there(folder: Path) -> None:
    done = kitae("plan", "r.toml", *settings(*OPTIONS, 'plan.sizes=["small", "base", "large"]'))
    assert done.returncode == 0, done.stderr
    lines = plain(done.stdout)
    for table in (TRAINING, MEMORY, SIZES):
        assert table.strip("\n") in "\n".join(lines)
    assert "- on the disk, when all is made: 1.2 GB" in lines
    assert "! pretrain sees its text 2,595,371 times: what is read more than 40 times teaches next to nothing" in lines
    assert "! adapt sees 33% of its text: train longer, or give it less" in lines
    assert "! adapt leaves 7 of 8 devices idle, because a step has one micro-batch: make" in done.stdout
    assert "~465 MB" in next(line for line in lines if line.startswith(" pretrain "))
    assert max(map(len, lines)) <= 106
    assert not (folder / "run").exists()


def test_a_plan_for_this_machine_measures_its_peak(folder: Path) -> None:
    done = kitae("plan", "r.toml", "--until", "pretrain", "--set", 'pretrain.train.length="9000 steps"')
    assert re.search(r"this machine's CPU \(\d+ threads?\), [\d.e-]+ TFLOP/s in fp32 \(measured\)", done.stdout)
    assert "--set plan.probe=true" in " ".join(done.stdout.split())
    assert re.search(r"\n pretrain +9,000 +1.1 M +182 ", done.stdout)


def test_a_micro_batch_that_does_not_fit_and_a_card_without_bf16(folder: Path) -> None:
    train = 'pretrain.train={ length = "1 epochs", batch = "1024 rows", micro_batch = "1024 rows", precision = "bf16" }'
    model = ('pretrain.model="electra-large"', "dataset.max_length=512", 'plan.device="T4"')
    done = kitae("plan", "r.toml", "--until", "pretrain", *settings(train, *model))
    text = " ".join(done.stdout.split())
    assert re.search(r"! pretrain needs [\d.]+ GB of T4, which gives 14.3 GB: train.micro_batch = \"\d+ rows\" at most", text)
    assert "! T4 has no units for bf16: pretrain will be as slow as in fp32" in text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('plan.device="H2000"', 'did you mean "H200"?'),
        ("plan.price_per_hour=-1", "plan.price_per_hour"),
        ("plan.mfu=1.5", "plan.mfu"),
        ('plan.sizes=["smal"]', 'no size "smal" of electra-tiny: did you mean "small"?'),
        ("plan.probe=100", "a probe takes 1 to 60 seconds"),
        ("plan.prices=1", "prices"),
    ],
)
def test_mistakes_in_the_table_are_refused(folder: Path, value: str, words: str) -> None:
    done = kitae("plan", "r.toml", "--until", "pretrain", "--set", value)
    assert done.returncode == 2
    assert words in done.stderr
    assert "[plan]" in done.stderr
