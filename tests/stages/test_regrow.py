"""An ELECTRA of two folders, of one discriminator alone, and what is refused: real trainings on a tiny synthetic dataset."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from tiny_pretraining import TOKENS, config, losses, pretrain, write_dataset

from kitae.core.artifact import Inputs, Out, checkpoints, newest
from kitae.core.errors import KitaeError, Stopped
from kitae.core.recipe import validate
from kitae.data.frequencies import log_frequencies
from kitae.data.sampler import Sampler
from kitae.models.bert import BertConfig
from kitae.models.families import build_discriminator
from kitae.models.folder import Part, read_parts, write_huggingface
from kitae.models.presets import generator_for, resolve_preset
from kitae.procedures.phase_rows import deal
from kitae.procedures.regrow import Ground, RegrowConfig, RegrowFlatConfig, _planted
from kitae.stages.pretrain import PretrainConfig, run, sources
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.ending import is_flat
from kitae.train.monitor import read_metrics
from kitae.train.phases import phases_of

SCRIPT = Path(__file__).with_name("tiny_pretraining.py")
FLAT = {"every": "4 steps", "share": 0.02, "patience": 1, "drop": 0.03}
REGROW = {"length": "40 steps", "until_flat": FLAT, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def pair(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """generator/ and discriminator/ of a trained pair, as kitae exports them."""
    train = {"length": "60 steps", "learning_rate": 5e-3, "save_every": None}
    out = pretrain(tmp_path_factory.mktemp("pair") / "run", dataset, initialization="informed", train=train)
    folder = out.path.parent / "huggingface"
    for name, part in read_parts(newest(out.path)).items():
        write_huggingface(part, folder / name)
        shutil.copytree(newest(out.path) / "tokenizer", folder / name, dirs_exist_ok=True)
    return folder


def adapt(folder: Path, dataset: Path, start: Path, **changes: object) -> Out:
    return pretrain(folder, dataset, start=start, **({"train": {"length": "6 steps", "save_every": "3 steps"}} | changes))


@pytest.fixture(scope="module")
def regrown(dataset: Path, pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    return adapt(tmp_path_factory.mktemp("regrown") / "run", dataset, pair / "discriminator", regrow=REGROW)


def curve(out: Path) -> dict[int, float]:
    """The mean held-out loss of both sources by step."""
    records = [record for record in read_metrics(out / "regrow") if record["kind"] == "evaluate"]
    return {int(r["step"]): (r["heldout/news/mlm_loss"] + r["heldout/books/mlm_loss"]) / 2 for r in records}  # type: ignore[operator, call-overload]


def test_the_generator_learns_on_frozen_embeddings_until_its_loss_is_flat(regrown: Out, pair: Path) -> None:
    found = curve(regrown.path)
    steps = [step for step in found if step % 4 == 0 and step >= 2]
    rule = RegrowFlatConfig.model_validate(FLAT)
    ends = [step for n, step in enumerate(steps, 1) if is_flat(rule, found[0], [found[s] for s in steps[:n]])]
    counts = regrown.counts["regrow"]
    assert isinstance(counts, dict)
    assert counts["steps"] == (ends[0] if ends else 40)
    assert counts["most_steps"] == 40
    assert list(counts["heldout"]) == [str(step) for step in found]
    assert min(found.values()) < 0.95 * found[0]
    rates = [record["learning_rate"] for record in read_metrics(regrown.path / "regrow") if record["kind"] == "train"]
    assert rates[0] < rates[-1] == 1e-2, "which stays, since nobody knows the end"
    (grown,) = read_parts(newest(regrown.path / "regrow")).values()
    original = read_parts(pair)["discriminator"]
    shared = [name for name in original.state if name.startswith("encoder.embed.")]
    assert len(shared) == 5
    for name in shared:
        assert torch.equal(grown.state[name], original.state[name]), f"{name} is the discriminator's, to the bit"
    assert (grown.config.hidden_size, grown.config.num_hidden_layers) == (64, 2), "as electra-tiny has it"
    after = read_parts(newest(regrown.path))
    assert set(after) == {"generator", "discriminator"}
    assert not torch.equal(after["discriminator"].state[shared[0]], original.state[shared[0]]), "then both train on"
    assert torch.equal(after["discriminator"].state[shared[0]], after["generator"].state[shared[0]]), "with one set of embeddings"
    assert regrown.counts["steps"] == 6
    json.dumps(regrown.counts)


def test_a_generator_begins_with_the_frequencies_of_the_tokens(dataset: Path, pair: Path) -> None:
    part, tokenizer = read_parts(pair)["discriminator"], Tokenizer.load(dataset / "tokenizer")
    (rows,) = deal(phases_of(config().train, 32), dataset, {32: dataset}, seed=1)
    ground = Ground(dataset=dataset, tokenizer=tokenizer, world=World(), seed=1, informed=False, rows=rows)
    state = _planted(part, generator_for(part.config, None, {}), ground).state
    assert torch.equal(state["head.bias"], log_frequencies(dataset, len(TOKENS)))
    assert all(torch.equal(state[name], weight) for name, weight in part.state.items() if name.startswith("encoder.embed."))


def test_both_go_on_from_the_regrown_generator(regrown: Out, dataset: Path, pair: Path, tmp_path: Path) -> None:
    """The ordinary start from the same discriminator and the regrown generator in a folder of its own gives the same training."""
    (grown,) = read_parts(newest(regrown.path / "regrow")).values()
    write_huggingface(grown, tmp_path / "generator")
    shutil.copytree(newest(regrown.path) / "tokenizer", tmp_path / "generator", dirs_exist_ok=True)
    other = adapt(tmp_path / "run", dataset, pair / "discriminator", start_generator=str(tmp_path / "generator"))
    assert losses(other.path) == losses(regrown.path)
    assert "regrow" not in other.counts
    assert not (other.path / "regrow").exists()


def stopping_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Ask for a stop at the so-manyeth micro-batch that is read for training."""
    micro, count = Sampler.micro, 0

    def counted(self: Sampler, step: int, number: int):
        nonlocal count
        count += 1
        if count == call:
            signal.raise_signal(signal.SIGTERM)
        return micro(self, step, number)

    monkeypatch.setattr(Sampler, "micro", counted)


@pytest.mark.parametrize(("step", "where"), [(6, "regrow"), (3, "both")])
def test_a_run_cut_off_in_either_part_goes_on_bit_equal(
    regrown: Out, dataset: Path, pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, where: str
) -> None:
    before = 0 if where == "regrow" else 2 * regrown.counts["regrow"]["steps"] + 1  # type: ignore[index]
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        stopping_at(patch, before + 2 * step + 2)
        adapt(tmp_path / "cut", dataset, pair / "discriminator", regrow=REGROW)
    place = tmp_path / "cut" / ("regrow" if where == "regrow" else "")
    assert 0 < int(checkpoints(place)[-1].name.removeprefix("step-")) <= step + 1
    assert bool(checkpoints(tmp_path / "cut")) is (where == "both")
    shutil.rmtree(checkpoints(place)[-1])  # as after a kill: back to the checkpoint before, or to the beginning
    cut = adapt(tmp_path / "cut", dataset, pair / "discriminator", regrow=REGROW)
    assert losses(cut.path) == losses(regrown.path)
    assert curve(cut.path) == curve(regrown.path)
    assert cut.counts["heldout"] == regrown.counts["heldout"]
    for part in (Path("regrow"), Path()):
        for name in ("weights.safetensors", "optimizer.safetensors"):
            assert (newest(cut.path / part) / name).read_bytes() == (newest(regrown.path / part) / name).read_bytes()


def test_a_second_run_does_nothing_and_other_settings_are_refused(regrown: Out, dataset: Path, pair: Path, tmp_path: Path) -> None:
    shutil.copytree(regrown.path, tmp_path / "run")
    before = read_metrics(tmp_path / "run" / "regrow")
    again = adapt(tmp_path / "run", dataset, pair / "discriminator", regrow=REGROW)
    assert again.counts["heldout"] == regrown.counts["heldout"]
    assert read_metrics(tmp_path / "run" / "regrow") == before
    with pytest.raises(KitaeError, match=r"until_flat\.patience"):
        adapt(tmp_path / "run", dataset, pair / "discriminator", regrow=REGROW | {"until_flat": FLAT | {"patience": 3}})
    with pytest.raises(KitaeError, match=r"data\.heldout_rows"):
        adapt(tmp_path / "run", dataset, pair / "discriminator", regrow=REGROW | {"heldout_rows": 7})


def test_a_length_in_the_other_s_share_and_no_held_out_text(
    dataset: Path, pair: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(dataset, tmp_path / "dataset")
    shutil.rmtree(tmp_path / "dataset" / "heldout")
    half = {"length": "0.5 of length", "generator": {"fraction": 0.5}}
    out = adapt(tmp_path / "run", tmp_path / "dataset", pair / "discriminator", regrow=half)
    assert out.counts["regrow"]["steps"] == 3  # type: ignore[index]
    assert "no held-out text that could tell when the generator is good enough: it trains for 3 steps" in caplog.text
    assert read_parts(newest(out.path))["generator"].config.hidden_size == 32


def test_two_folders_given_separately_are_the_pair(dataset: Path, pair: Path, tmp_path: Path) -> None:
    together = adapt(tmp_path / "together", dataset, pair)
    for name, other in (("apart", pair / "generator"), ("from-pair", pair)):
        apart = Out(path=tmp_path / name)
        settings = {"train": {"length": "6 steps", "save_every": "3 steps"}}
        chosen = config(**settings, start=str(pair / "discriminator"), start_generator=str(other))
        assert sources(chosen) == (str(pair / "discriminator"), str(other))
        run(chosen, Inputs(parents={"dataset": dataset}, seed=1), apart)
        assert losses(apart.path) == losses(together.path)


def test_generators_that_do_not_fit_are_refused(dataset: Path, pair: Path, tmp_path: Path) -> None:
    for change, message in (
        ({"start": pair / "discriminator", "start_generator": str(pair / "discriminator")}, "start_generator holds no generator"),
        ({"start_generator": str(pair / "generator")}, "start_generator without a start"),
        ({"start": pair / "generator"}, "the discriminator is missing"),
    ):
        with pytest.raises(KitaeError, match=message):
            pretrain(tmp_path / "run", dataset, **change)  # type: ignore[arg-type]
    shutil.copytree(pair / "generator", tmp_path / "other")
    write_dataset(tmp_path / "strange", tokens=(*TOKENS[:-1], "other"))
    shutil.copytree(tmp_path / "strange" / "tokenizer", tmp_path / "other", dirs_exist_ok=True)
    with pytest.raises(KitaeError, match="token 64 is 'other' there, 'w59' here"):
        pretrain(tmp_path / "run", dataset, start=pair / "discriminator", start_generator=str(tmp_path / "other"))
    with pytest.raises(KitaeError, match=r'regrow\.lenght is not a known key: did you mean "length"'):
        validate(
            PretrainConfig, {"model": "electra-tiny", "objective": "rtd", "train": {"length": "3 steps"}, "regrow": {"lenght": 1}}, "r", ""
        )
    with pytest.raises(KitaeError, match='unknown model key "fractoin"'):
        adapt(tmp_path / "odd", dataset, pair / "discriminator", regrow={"generator": {"fractoin": 0.5}})
    with pytest.raises(KitaeError, match="freeze.layers = 9, but discriminator has"):
        adapt(tmp_path / "deep", dataset, pair / "discriminator", train={"length": "6 steps", "freeze": {"layers": 9}})
    assert not (tmp_path / "deep" / "regrow").exists(), "before hours of regrowing"


def test_a_regrown_generator_trains_whole_and_then_both_keep_their_frozen_layers(dataset: Path, pair: Path, tmp_path: Path) -> None:
    train = {"length": "6 steps", "save_every": "3 steps", "optimizer": "muon", "freeze": {"embeddings": True, "layers": 1}}
    out = adapt(tmp_path / "run", dataset, pair / "discriminator", regrow={**REGROW, "length": "4 steps"}, train=train)
    regrow = json.loads((out.path / "regrow" / "identity.json").read_text())["train"]["config"]
    assert (regrow["optimizer"], regrow["freeze"]) == ("muon", {"embeddings": False, "layers": 0})
    (grown,) = read_parts(newest(out.path / "regrow")).values()
    halves = {"generator": grown, "discriminator": read_parts(pair)["discriminator"]}
    for half, part in read_parts(newest(out.path)).items():
        for name, weight in part.state.items():
            still = name.startswith(("encoder.embed.", "encoder.project.", "encoder.blocks.0."))
            assert torch.equal(weight, halves[half].state[name]) == still, f"{half}.{name}"


@pytest.mark.parametrize(
    ("hidden", "layers", "name", "overrides", "expected"),
    [
        (256, 12, None, {}, (64, 1, 256)),  # electra-small-paper comes first
        (256, 12, "electra-small", {}, (256, 4, 1024)),
        (768, 12, None, {}, (256, 4, 1024)),
        (1024, 24, None, {}, (256, 4, 1024)),
        (768, 12, "electra-base", {"fraction": 0.5}, (384, 6, 1536)),
        (768, 12, "bert-small", {}, (256, 4, 1024)),
        (320, 6, None, {"hidden_size": 128}, (128, 2, 512)),
    ],
)
def test_the_usual_size_of_a_generator(
    hidden: int, layers: int, name: str | None, overrides: dict[str, object], expected: tuple[int, int, int]
) -> None:
    discriminator = BertConfig(
        model_type="electra", vocab_size=99, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=4, embedding_size=128
    )
    made = generator_for(discriminator, name, overrides)
    assert isinstance(made, BertConfig)
    assert (made.hidden_size, made.num_attention_heads, made.intermediate_size) == expected
    assert (made.num_hidden_layers, made.embedding_width, made.vocab_size) == (layers, 128, 99)


def test_a_table_that_does_not_fit_the_vocabulary(dataset: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fewer rows than tokens are refused before anything is trained; surplus rows are neither predicted nor taught."""
    for rows in (64, 128):
        model = build_discriminator(resolve_preset("electra-tiny", {}, rows, 32).encoder)
        write_huggingface(Part(head="rtd", config=model.config, state=model.state_dict()), tmp_path / str(rows))
        Tokenizer.load(dataset / "tokenizer").save(tmp_path / str(rows))
    with pytest.raises(KitaeError, match="the generator knows 64 tokens, the data set's tokenizer has 65"):
        adapt(tmp_path / "few", dataset, tmp_path / "64", regrow=REGROW)
    caplog.set_level("INFO")
    many = adapt(tmp_path / "many", dataset, tmp_path / "128", regrow=REGROW | {"length": "8 steps"})
    assert "parameters are trained first, for 8 steps at most" in caplog.text
    (grown,) = read_parts(newest(many.path / "regrow")).values()
    bias = grown.state["head.bias"]
    assert bool((bias[65:] == bias[65]).all()), "never learnt"
    assert len(set(bias[5:65].tolist())) > 50


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"length": "55m"}, "is a time"),
        ({"warmup": "5m"}, "is a time"),
        ({"length": "0 steps"}, "is no length"),
    ],
)
def test_lengths_that_cannot_be(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        RegrowConfig.model_validate(settings)


def test_two_processes_regrow_what_one_does(dataset: Path, pair: Path, tmp_path: Path) -> None:
    train = {"precision": "fp64", "batch": "24 rows", "length": "4 steps", "save_every": "2 steps"}
    regrow = {"length": "30 steps", "until_flat": FLAT | {"share": 0.2, "drop": 0.0}}
    changes = {"train": train, "regrow": regrow, "start": str(pair / "discriminator")}
    one = adapt(tmp_path / "one", dataset, pair / "discriminator", train=train, regrow=regrow)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", SCRIPT]
    done = subprocess.run(
        [*command, tmp_path / "two", dataset, json.dumps(changes)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert one.counts["regrow"]["steps"] < 30, "the ranks agree on an early end"  # type: ignore[index]
    assert curve(tmp_path / "two") == pytest.approx(curve(tmp_path / "one"), rel=1e-8)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-7)
