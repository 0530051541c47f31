"""Folders of models that the command line refuses: one message, exit code 2, nothing begun."""

import json
import shutil
import struct
from collections.abc import Callable
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
    return Part(head=head, config=config, state=model.state_dict(), labels=labels)


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


def header(tensors: dict[str, object], size: int) -> bytes:
    """A safetensors file with this header, whatever it claims, and so many bytes behind it."""
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text + b"\0" * size


def claims(dtype: str, shape: list[int], *offsets: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": list(offsets)}


def reweigh(folder: Path, **changes: torch.Tensor | None) -> None:
    """Change the classifier's bias or weight, or another weight by its name with dots; None takes one away."""
    path = folder / "model.safetensors"
    names = {"bias": "classifier.bias", "weight": "classifier.weight"}
    state = load_file(path) | {names.get(name, name): tensor for name, tensor in changes.items()}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, path)


def index(folder: Path, places: dict[str, object], **more: object) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places, **more}))


def loop(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("model.safetensors")


def away(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("/etc/hostname")


def renamed(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)


Harm = Callable[[Path], object]
HARMS: dict[str, tuple[Harm, str]] = {
    "a weight is missing": (lambda place: reweigh(place, bias=None), "weight head.out.bias is missing"),
    "one too many": (lambda place: reweigh(place, **{"bert.more": torch.ones(2)}), "bert.more"),
    "mis-shaped": (lambda place: reweigh(place, bias=torch.ones(3)), "head.out.bias has the shape (3,), not (2,)"),
    "no dimension": (lambda place: reweigh(place, bias=torch.tensor(1.0)), "has the shape (), not (2,)"),
    "nothing in it": (lambda place: reweigh(place, weight=torch.ones(2, 0)), "has the shape (2, 0)"),
    "not finite": (lambda place: reweigh(place, bias=torch.tensor([0.0, -torch.inf])), "not finite"),
    "whole numbers": (lambda place: reweigh(place, bias=torch.tensor([1, 2])), "holds numbers of the type int64"),
    "eight bits": (lambda place: reweigh(place, bias=torch.ones(2).to(torch.float8_e5m2)), "holds numbers of the type float8_e5m2"),
    "no file": (lambda place: (place / "model.safetensors").unlink(), "model.safetensors is missing"),
    "empty": (lambda place: (place / "model.safetensors").write_bytes(b""), "model.safetensors is damaged"),
    "cut short": (lambda place: (place / "model.safetensors").write_bytes((place / "model.safetensors").read_bytes()[:-9]), "is damaged"),
    "no tensor": (lambda place: (place / "model.safetensors").write_bytes(header({}, 0)), "is missing"),
    "a link to nowhere": (loop, "model.safetensors is missing"),
    "a link to something else": (away, "model.safetensors is damaged"),
    "a shard outside": (lambda place: index(place, {"classifier.bias": "../model-1.safetensors"}), "no safetensors file beside it"),
    "a shard of an endless name": (lambda place: index(place, {"classifier.bias": "x" * 300 + ".safetensors"}), "name too long"),
    "a shard that is not there": (lambda place: index(place, {"classifier.bias": "model-2.safetensors"}), "model-2.safetensors is missing"),
    "a shard that is a number": (lambda place: index(place, {"classifier.bias": 1}), "no weight_map"),
    "an index with code": (lambda place: index(place, {"a": "model-1.safetensors"}, auto_map={"a": "b"}), "code of its own (auto_map)"),
    "pickled": (lambda place: renamed(place, "pytorch_model.bin"), "pickled (pytorch_model.bin)"),
    "pickled too": (lambda place: renamed(place, "model.pt"), "pickled (model.pt)"),
    "of TensorFlow": (lambda place: renamed(place, "tf_model.h5"), "TensorFlow's"),
    "settings of a training alone": (lambda place: renamed(place, "training_args.bin"), "model.safetensors is missing"),
    "an unknown key": (lambda place: edit(place, rotary=True), 'unknown key "rotary"'),
    "code": (lambda place: edit(place, auto_map={"AutoModel": "code.Model"}), "code of its own (auto_map)"),
    "trusted code": (lambda place: edit(place, trust_remote_code=True), "code of its own (trust_remote_code)"),
    "text for a number": (lambda place: edit(place, hidden_size="64"), "hidden_size: Input should be a valid integer"),
    "a list for a number": (lambda place: edit(place, vocab_size=[45]), "vocab_size: Input should be a valid integer"),
    "a negative number": (lambda place: edit(place, num_hidden_layers=-2), "num_hidden_layers: Input should be greater"),
    "a huge number": (lambda place: edit(place, intermediate_size=10**30), "is more than any model has"),
    "no number": (lambda place: edit(place, layer_norm_eps=float("nan")), "NaN is no number of JSON"),
    "an unknown family": (lambda place: edit(place, model_type="gpt2"), 'model_type "gpt2" is not supported'),
    "a family of ours alone": (lambda place: edit(place, model_type="electric", architectures=None), "only kitae has models of the family"),
    "a family of another form": (lambda place: edit(place, model_type={"a": 1}), "names no model_type"),
    "a head that nobody has": (lambda place: edit(place, architectures=["BertForEverything"]), "BertForEverything is not supported"),
    "one label twice": (lambda place: edit(place, id2label={"0": "no", "1": "no"}), 'id2label has the label "no" twice'),
    "no labels": (lambda place: edit(place, id2label={}), "id2label does not number the labels"),
    "a problem that nobody has": (lambda place: edit(place, problem_type="ranking"), "problem_type"),
    "several numbers at once": (lambda place: edit(place, problem_type="regression"), "the model gives 2 numbers for every text"),
    "no settings": (lambda place: (place / "config.json").unlink(), "holds no model"),
    "settings that are no JSON": (lambda place: (place / "config.json").write_bytes(b"\xff\xfe"), "config.json is not JSON"),
    "half a character": (lambda place: edit(place, id2label={"0": "no", "1": "\ud800"}), "config.json is not JSON"),
    "an odd length": (lambda place: (place / "task.json").write_text('{"max_length": -5}'), "task.json is damaged: max_length"),
    "no column": (lambda place: (place / "task.json").write_text('{"columns": []}'), "task.json is damaged: columns"),
} | {
    f"a header that lies, {number}": (
        lambda place, content=content: (place / "model.safetensors").write_bytes(content),
        "model.safetensors is damaged",
    )
    for number, content in enumerate(
        (
            header({"classifier.bias": claims("F32", [2], 0, 4)}, 8),
            header({"classifier.bias": claims("F32", [2], 0, 8)}, 4),
            header({"classifier.bias": claims("F32", [2], 8, 16)}, 16),
            header({"a": claims("F32", [2], 0, 8), "b": claims("F32", [2], 4, 12)}, 12),
            header({"classifier.bias": claims("F32", [2**62, 2**62], 0, 8)}, 8),
            header({"classifier.bias": claims("F32", [-2], 0, 8)}, 8),
            header({"classifier.bias": claims("P32", [2], 0, 8)}, 8),
            header({"classifier.bias": 5}, 8),
            struct.pack("<Q", 5) + b"[1,2]",
        )
    )
}


@pytest.mark.parametrize("harm", HARMS)
def test_harmed_folders(place: Path, harm: str) -> None:
    """One message with a place and nothing else, and no predictions, of every way in which a folder can be wrong."""
    Path("texts.txt").write_text("w1 w2\n", encoding="utf-8")
    change, said = HARMS[harm]
    change(place / "classifier")
    done = kitae("predict", "classifier", "texts.txt", "labels.jsonl")
    refused(done, said)
    _, *where = done.stderr.removeprefix("kitae: ").rstrip("\n").split("\n")
    assert len(where) <= 1, done.stderr
    assert "classifier" in done.stderr
    assert all(line.startswith("       in ") for line in where)
    assert sorted(path.name for path in place.iterdir() if path.name.endswith((".jsonl", ".part"))) == ["topics.jsonl"]
