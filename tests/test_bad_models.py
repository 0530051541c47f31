"""Folders of models that the command line refuses: one message, exit code 2, nothing begun."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from kitae.models.families import build_headed, build_masked_lm
from kitae.models.folder import Part, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import Done, kitae, write_recipe

TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(40)))


def part(*, vocab_size: int, head: str) -> Part:
    config = resolve_preset("bert-tiny", {}, vocab_size, 32).encoder
    model = build_masked_lm(config) if head == "mlm" else build_headed(config, "sequence", num_labels=2)
    labels = ("no", "yes") if head == "sequence" else ()
    return Part(family="bert", head=head, config=config, state=model.state_dict(), labels=labels)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe, and a masked language model in model/ and a classifier in classifier/ for 45 tokens, as the working directory."""
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    for name, head in (("model", "mlm"), ("classifier", "sequence")):
        write_huggingface(part(vocab_size=len(TOKENS), head=head), Path(name))
        Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace")).save(Path(name))
    return tmp_path


def refused(done: Done, *expected: str) -> None:
    """Exit code 2 and a message with all of `expected`, no traceback."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    for words in ("kitae: ", *expected):
        assert words in done.stderr


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def adapt(folder: str) -> Done:
    return kitae("run", "r.toml", "--set", f'pretrain={{ start = "{folder}", objective = "mlm", train = {{ length = "1 steps" }} }}')


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"auto_map": {"AutoModel": "code.Model"}}, "the model wants code of its own (auto_map)"),
        ({"hidden_size": 10**9}, "hidden_size = 1000000000 is more than any model has"),
        ({"model_type": "robrta"}, 'did you mean "roberta"?'),
        ({"num_hidden_layers": 3}, "is missing"),
    ],
)
def test_a_start_that_cannot_be_followed(place: Path, changes: dict[str, object], said: str) -> None:
    edit(place / "model", **changes)
    refused(adapt("model"), said, "model")
    assert not (place / "run" / "corpus").exists(), "said before hours of work"


def test_a_start_that_is_pickled_or_cut_short(place: Path) -> None:
    weights = place / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    refused(adapt("model"), "model.safetensors is damaged")
    weights.rename(weights.with_name("pytorch_model.bin"))
    refused(adapt("model"), "pickled", "save_pretrained")
    assert not (place / "run" / "corpus").exists()


def test_predictions_of_a_model_that_is_not_whole(place: Path) -> None:
    Path("texts.txt").write_text("w1 w2\n", encoding="utf-8")
    assert kitae("predict", "classifier", "texts.txt", "labels.jsonl").returncode == 0
    whole = load_file(place / "classifier" / "model.safetensors")
    save_file({**whole, "classifier.bias": torch.tensor([0.0, torch.nan])}, place / "classifier" / "model.safetensors")
    refused(kitae("predict", "classifier", "texts.txt", "labels.jsonl"), "head.out.bias holds numbers that are not finite")


def test_predictions_with_a_tokenizer_of_more_tokens_than_the_model(place: Path) -> None:
    Path("texts.txt").write_text("w1 w2\n", encoding="utf-8")
    shutil.rmtree("classifier")
    write_huggingface(part(vocab_size=44, head="sequence"), Path("classifier"))
    Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace")).save(Path("classifier"))
    refused(kitae("predict", "classifier", "texts.txt", "labels.jsonl"), "the tokenizer has 45 tokens, the encoder 44")
