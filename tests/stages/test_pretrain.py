"""The stage pretrain, and adapt, which is the same stage with a start: real objectives on a tiny synthetic dataset."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from tiny_pretraining import TOKENS, config, losses, pretrain, write_dataset

from kitae.core.artifact import Inputs, Out, checkpoints, newest
from kitae.core.config import Config
from kitae.core.errors import KitaeError, Stopped
from kitae.core.recipe import validate
from kitae.data.sampler import Heldout, Sampler, heldout_sources
from kitae.data.shards import Shards
from kitae.models.folder import read_parts, write_huggingface
from kitae.objectives import table
from kitae.procedures import heldout
from kitae.procedures.heldout import HeldoutMeter
from kitae.stages.pretrain import PretrainConfig, new_objective, run, sources
from kitae.tensor import random
from kitae.tensor.world import World
from kitae.tokenization.tokenizer import Tokenizer
from kitae.train.monitor import read_metrics

SCORES = {
    *("mlm_loss", "mlm_perplexity", "mlm_accuracy", "mlm_top5_accuracy", "generator_entropy"),
    *("rtd_loss", "rtd_accuracy", "rtd_recall", "rtd_auc", "rtd_calibration_error"),
    *("sampled_accuracy", "replaced_share_of_masked", "replaced_share"),
}  # and the precision, where something is said to be replaced


@pytest.fixture(scope="module")
def trained(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Out:
    return pretrain(tmp_path_factory.mktemp("runs") / "pretrain", dataset)


def test_what_a_pretraining_leaves(trained: Out, dataset: Path) -> None:
    place = newest(trained.path)
    parts = read_parts(place)
    assert set(parts) == {"generator", "discriminator"}
    assert parts["discriminator"].config.vocab_size == len(TOKENS)
    assert parts["discriminator"].config.max_position_embeddings == 32
    assert Tokenizer.load(place / "tokenizer").tokens == TOKENS
    assert trained.licences == [{"name": "toy", "licence": "CC0", "source": "made up"}]
    json.dumps(trained.counts)
    batches = Sampler(dataset, split="train", rows_per_step=16, rows_per_micro_batch=8, seed=0)
    assert trained.counts["tokens"] == pytest.approx(12 * 16 * 32 * batches.tokens_per_epoch / (batches.rows_per_epoch * 32), rel=0.02)
    assert trained.counts["flops"] == trained.counts["flops_per_token"] * trained.counts["tokens"]  # type: ignore[operator]
    assert trained.counts["parameters"]["discriminator"] < trained.counts["distinct_parameters"]  # type: ignore[index]


def test_informed_weights_know_the_frequencies_of_this_dataset(dataset: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    made = {name: new_objective(config(initialization=name), dataset, 32, tokenizer, seed=1) for name in ("normal", "informed")}
    shards = Shards(dataset / "train")
    counts = torch.bincount(torch.from_numpy(shards.tokens(0, shards.num_tokens)), minlength=len(TOKENS)) + 0.5
    bias = made["informed"].models()["generator"].head.bias
    torch.testing.assert_close(bias.exp(), (counts / counts.sum()).float())
    assert not made["normal"].models()["generator"].head.bias.any()
    scores = [pretrain(tmp_path / name, dataset, initialization=name).counts["heldout"] for name in made]
    assert scores[1]["heldout/news/mlm_loss"] < scores[0]["heldout/news/mlm_loss"]  # type: ignore[index]


def test_heldout_scores_of_every_source_while_training(trained: Out) -> None:
    records = [record for record in read_metrics(trained.path) if record["kind"] == "evaluate"]
    assert [record["step"] for record in records] == [6, 12]
    names = {f"heldout/{source}{score}" for source in ("news/", "books/", "") for score in SCORES}
    assert {name for name in records[-1] if not name.endswith("precision")} == names | {"kind", "step"}
    assert trained.counts["heldout"] == {name: value for name, value in records[-1].items() if name not in ("kind", "step")}
    assert records[-1]["heldout/news/mlm_loss"] < records[0]["heldout/news/mlm_loss"]  # type: ignore[operator]


def test_a_second_run_does_nothing_and_another_dataset_is_refused(trained: Out, dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(trained.path, tmp_path / "run")
    before = losses(tmp_path / "run")
    again = pretrain(tmp_path / "run", dataset)
    assert again.counts["steps"] == 12
    assert again.counts["heldout"] == trained.counts["heldout"]
    assert losses(tmp_path / "run") == before
    other = write_dataset(tmp_path / "other", documents=90)
    with pytest.raises(KitaeError, match=r"data\.tokens"):
        pretrain(tmp_path / "run", other)
    with pytest.raises(KitaeError, match=r"train\.config\.learning_rate"):
        pretrain(tmp_path / "run", dataset, train={"learning_rate": 1e-3})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_cut_off_goes_on_bit_equal(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    train = {"precision": precision}
    whole = pretrain(tmp_path / "whole", dataset, train=train)
    micro = Sampler.micro

    def stopping(self: Sampler, step: int, number: int):
        if (step, number) == (6, 1):
            signal.raise_signal(signal.SIGTERM)
        return micro(self, step, number)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Sampler, "micro", stopping)
        pretrain(tmp_path / "cut", dataset, train=train)
    assert checkpoints(tmp_path / "cut")[-1].name == "step-00000007"
    shutil.rmtree(checkpoints(tmp_path / "cut")[-1])  # back to step 4, as after a kill
    cut = pretrain(tmp_path / "cut", dataset, train=train)
    assert losses(cut.path) == losses(whole.path)
    assert cut.counts["heldout"] == whole.counts["heldout"]
    for name in ("weights.safetensors", "optimizer.safetensors"):
        assert (newest(cut.path) / name).read_bytes() == (newest(whole.path) / name).read_bytes()


def test_adapting_goes_on_from_the_weights_with_a_new_optimizer(trained: Out, dataset: Path, tmp_path: Path) -> None:
    before = read_parts(newest(trained.path))
    adapted = pretrain(tmp_path / "adapt", dataset, start=trained.path, train={"length": "1 step", "learning_rate": 1e-9})
    after = read_parts(newest(adapted.path))
    for name, part in before.items():
        for key, tensor in part.state.items():
            torch.testing.assert_close(after[name].state[key], tensor, rtol=0, atol=1e-8, msg=key)
    assert json.loads((newest(adapted.path) / "state.json").read_text())["step"] == 1
    assert adapted.licences == trained.licences


def huggingface(out: Out, folder: Path, names: tuple[str, ...]) -> Path:
    parts = read_parts(newest(out.path))
    for name in names:
        write_huggingface(parts[name], folder / name if len(names) > 1 else folder)
        shutil.copytree(newest(out.path) / "tokenizer", folder / name if len(names) > 1 else folder, dirs_exist_ok=True)
    return folder


def test_adapting_an_electra_of_two_huggingface_folders(trained: Out, dataset: Path, tmp_path: Path) -> None:
    start = huggingface(trained, tmp_path / "hf", ("generator", "discriminator"))
    settings = {"train": {"length": "2 steps"}}
    outside = Out(path=tmp_path / "outside")
    chosen = config(**settings, start=str(start))
    assert sources(chosen) == (str(start),)
    run(chosen, Inputs(parents={"dataset": dataset}, seed=1), outside)
    pretrain(tmp_path / "inside", dataset, start=trained.path, **settings)
    assert losses(tmp_path / "outside") == losses(tmp_path / "inside")


def test_adapting_a_bert_of_a_huggingface_folder(dataset: Path, tmp_path: Path) -> None:
    bert = pretrain(tmp_path / "bert", dataset, model="bert-tiny", objective="mlm")
    start = huggingface(bert, tmp_path / "hf", ("encoder",))
    small = {"length": "1 step", "learning_rate": 1e-9}
    adapted = pretrain(tmp_path / "adapted", dataset, model="bert-tiny", objective="mlm", start=start, train=small)
    after = read_parts(newest(adapted.path))["encoder"].state
    for key, tensor in read_parts(newest(bert.path))["encoder"].state.items():
        torch.testing.assert_close(after[key], tensor, rtol=0, atol=1e-8, msg=key)


def test_starts_that_do_not_fit_are_refused(trained: Out, dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", tokens=(*TOKENS[:-1], "other"))
    with pytest.raises(KitaeError, match="token 64 is 'w59' there, 'other' here"):
        pretrain(tmp_path / "a", other, start=trained.path)
    longer = write_dataset(tmp_path / "longer", max_length=64)
    with pytest.raises(KitaeError, match="has 32 positions, the data set's rows have 64: set dataset.max_length = 32"):
        pretrain(tmp_path / "b", longer, start=trained.path)
    assert not (tmp_path / "b" / "metrics.jsonl").exists()
    half = huggingface(trained, tmp_path / "half", ("generator",))
    with pytest.raises(KitaeError, match="discriminator is missing"):
        pretrain(tmp_path / "c", dataset, start=half)
    (half / "vocab.txt").unlink(missing_ok=True)
    (half / "tokenizer.json").unlink(missing_ok=True)
    with pytest.raises(KitaeError, match="has no tokenizer"):
        pretrain(tmp_path / "d", dataset, start=half)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "electra-tini"}, 'there is no preset "electra-tini": did you mean "electra-tiny"'),
        ({"objective": "rtt"}, 'objective = "rtt" is not known'),
        ({"config": {"hiden_size": 3}}, 'hiden_size.*did you mean "hidden_size"'),
        ({"objective_config": {"unit": "wrod"}}, 'unit = "wrod" is not known: did you mean "word"'),
        ({"objective_config": {"rat": 0.2}}, "rat is not a known key"),
        ({"objective_config": {"rate": [[0.5, 0.2], [0.1, 0.3]]}}, "rate: the parts of the training .* do not rise"),
        ({"objective_config": {"longest": 3}}, 'longest has no effect with unit = "token"'),
        ({"objective_config": {"sentence_order": "nsp"}}, "sentence_order is not a known key"),
        ({"train": {"length": "30m", "warmup": "10 steps"}}, "wall-clock"),
    ],
)
def test_settings_that_are_refused_before_anything_is_made(change: dict[str, object], message: str) -> None:
    raw = {"model": "electra-tiny", "objective": "rtd", "train": {"length": "3 steps"}} | change
    with pytest.raises(KitaeError, match=message):
        validate(PretrainConfig, raw, "recipe.toml", "pretrain")


def test_ranks_share_the_heldout_rows(trained: Out, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What two ranks add up is what one measures; each is asked for a share of it only."""
    monkeypatch.setattr(heldout, "POSITIONS", 128)

    class Collecting(World):
        def sum(self, tensor: torch.Tensor) -> torch.Tensor:
            shares.append(tensor.clone())
            return tensor

    row = table.row("rtd")
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    objective = table.load(read_parts(newest(trained.path)), row.config(), tokenizer.special, tokenizer.vocab_size).eval()
    collected: list[list[torch.Tensor]] = []
    for rank, size in ((0, 1), (0, 3), (1, 3), (2, 3)):
        shares: list[torch.Tensor] = []
        HeldoutMeter(objective, dataset, world=Collecting(rank=rank, size=size), rows=1000)(0)
        collected.append(shares)
    for whole, *parts in zip(*collected, strict=True):
        torch.testing.assert_close(sum(parts), whole)


def test_heldout_scores_depend_on_neither_seed_nor_batches(trained: Out, dataset: Path, tmp_path: Path) -> None:
    """Nothing is learnt in these runs from the same start: what is left are the rows, masks and samples that they are asked for."""
    scores = []
    for seed, rows in ((1, 8), (2, 4)):
        train = {"length": "1 step", "learning_rate": 1e-30, "micro_batch": f"{rows} rows"}
        out = pretrain(tmp_path / str(seed), dataset, start=trained.path, seed=seed, train=train)
        scores.append(out.counts["heldout"])
    assert scores[0] == scores[1]


@pytest.mark.parametrize(("asked", "read"), [(3, 3), (7, 7), (100, None)])
def test_no_more_heldout_rows_are_read_than_asked_for(
    trained: Out, dataset: Path, monkeypatch: pytest.MonkeyPatch, asked: int, read: int | None
) -> None:
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    objective = table.load(read_parts(newest(trained.path)), table.row("rtd").config(), tokenizer.special, tokenizer.vocab_size).eval()
    rows: list[int] = []
    measure = objective.measure
    monkeypatch.setattr(objective, "measure", lambda batch: (rows.append(len(batch.ids_BL)), measure(batch))[1])
    HeldoutMeter(objective, dataset, world=World(), rows=asked)(0)
    whole = [Heldout(dataset, source, 1).num_rows for source in heldout_sources(dataset)]
    assert sum(rows) == (sum(whole) if read is None else sum(min(read, size) for size in whole))


def test_operational_settings_do_not_change_the_fingerprint() -> None:
    a: Config = config()
    b = config(start="/somewhere", heldout_rows=7, train={"compile": True, "save_every": "5 steps"})
    assert a.semantic() == b.semantic()
    assert a.semantic() != config(train={"precision": "bf16"}).semantic()


def test_all_sources_together_are_the_mean_over_all_their_predictions(trained: Out, dataset: Path) -> None:
    tokenizer = Tokenizer.load(dataset / "tokenizer")
    objective = table.load(read_parts(newest(trained.path)), table.row("rtd").config(), tokenizer.special, tokenizer.vocab_size).eval()
    sums: dict[str, torch.Tensor] = {}
    for source in ("news", "books"):
        for batch in Heldout(dataset, source, heldout.POSITIONS // 32):
            for name, value in objective.measure(objective.prepare(batch, random.key("heldout"))).items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
    found = HeldoutMeter(objective, dataset, world=World(), rows=1024)(0)
    together = {name.removeprefix("heldout/"): value for name, value in found.items() if name.count("/") == 1}
    assert together == objective.summarize(sums)
    parts = [found[f"heldout/{source}/mlm_loss"] for source in ("news", "books")]
    assert min(parts) < together["mlm_loss"] < max(parts)
