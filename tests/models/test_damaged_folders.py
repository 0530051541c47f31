"""Folders that are wrong, odd or hostile: one sentence that names the place and the cure, and nothing is executed or allocated."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from model_pairs import FIRST, ORACLES, edit, make
from safetensors.torch import load_file, save_file

from kitae.core.errors import KitaeError
from kitae.models.folder import load, read_parts, write_huggingface

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
KEY = "bert.encoder.layer.1.attention.self.key.weight"


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good folder of a masked language model."""
    return make("bert", "mlm", tmp_path_factory.mktemp("good") / "model").folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of it to change."""
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


def refused(folder: Path, *said: str) -> None:
    """read_parts refuses the folder, says this, says where, and proposes a cure; the message is one sentence and a place."""
    with pytest.raises(KitaeError) as caught:
        read_parts(folder)
    for part in said:
        assert part in str(caught.value)
    assert str(folder) in caught.value.where
    assert caught.value.cure
    assert "\n" not in caught.value.what


def state_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}


def shard(folder: Path) -> dict[str, object]:
    """Split the weights into two shards; returns the index."""
    state = state_of(folder)
    (folder / WEIGHTS).unlink()
    names = sorted(state)
    halves = {"model-1.safetensors": names[: len(names) // 2], "model-2.safetensors": names[len(names) // 2 :]}
    for file, chosen in halves.items():
        save_file({name: state[name] for name in chosen}, folder / file)
    index = {"metadata": {"total_size": 12}, "weight_map": {name: file for file, chosen in halves.items() for name in chosen}}
    (folder / INDEX).write_text(json.dumps(index))
    return index


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "32"}, "hidden_size: Input should be a valid integer"),
        ({"hidden_size": 32.5}, "hidden_size"),
        ({"num_hidden_layers": True}, "num_hidden_layers"),
        ({"hidden_size": -1}, "hidden_size: Input should be greater than or equal to 1"),
        ({"hidden_size": 10**9}, "hidden_size = 1000000000 is more than any model has"),
        ({"num_hidden_layers": 99_999}, "num_hidden_layers: Input should be less than or equal to 1000"),
        ({"vocab_size": 10**15}, "vocab_size = 1000000000000000 is more than any model has"),
        ({"vocab_size": 10**8}, "vocab_size: Input should be less than or equal to 10000000"),
        ({"intermediate_size": [48]}, "intermediate_size"),
        ({"hidden_act": {"name": "gelu"}}, "hidden_act"),
        ({"pad_token_id": 97}, "pad_token_id 97 is none of the 97 tokens"),
        ({"auto_map": {"AutoModel": "code.Model"}}, "code of its own (auto_map)"),
        ({"trust_remote_code": True}, "code of its own (trust_remote_code)"),
        ({"custom_pipelines": {"task": {"impl": "code.Pipeline"}}}, "code of its own (custom_pipelines)"),
        ({"quantization_config": {"load_in_8bit": True}}, "quantization_config"),
        ({"model_type": "brt"}, 'model_type "brt" is not supported: did you mean "bert"?'),
        ({"model_type": None}, "config.json names no model_type"),
        ({"model_type": ["bert"]}, "config.json names no model_type"),
        ({"architectures": "BertForMaskedLM"}, "architectures = 'BertForMaskedLM' is not a list"),
        ({"architectures": ["BertForEverything"]}, "BertForEverything is not supported: supported are BertFor"),
        ({"architectures": [5]}, "architecture 5 is not supported"),
        ({"architectures": [""]}, "is not supported"),
        ({"hidden_siez": 32}, 'unknown key "hidden_siez"'),
    ],
)
def test_configs(folder, changes, said):
    edit(folder, **changes)
    refused(folder, said)


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code", "custom_pipelines"])
def test_a_key_that_asks_for_nothing_is_no_matter(folder, key):
    edit(folder, **{key: False if key == "trust_remote_code" else {}})
    assert read_parts(folder)["encoder"].head == "mlm"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"layer_norm_eps": Infinity}', "Infinity is no number of JSON"),
        ('{"hidden_dropout_prob": NaN}', "NaN is no number of JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"a":' * 100_000, "not JSON"),
        ("[]", "not a JSON object"),
        ("", "not JSON"),
    ],
)
def test_config_files(folder, text, said):
    (folder / "config.json").write_text(text)
    refused(folder, said)


def test_labels(tmp_path):
    make("bert", "token", tmp_path)
    edit(tmp_path, id2label={"0": "B", "\u00b2": "I", "2": "O"})
    refused(tmp_path, "id2label does not number the labels from 0")
    for number in (10**9, 0, "3"):
        edit(tmp_path, id2label=None, num_labels=number)
        refused(tmp_path, "is no number of labels")
    edit(tmp_path, id2label=None, num_labels=3)
    assert read_parts(tmp_path)["encoder"].labels == ("LABEL_0", "LABEL_1", "LABEL_2")


def test_a_head_of_another_form(tmp_path):
    make("electra", "choice", tmp_path)
    edit(tmp_path, summary_type="mean")
    refused(tmp_path, "summary_type = 'mean'", "only 'first' is supported")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "header too small"),
        (b"1234567", "header too small"),
        (struct.pack("<Q", 10**12) + b"{}", "header too large"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "header too large"),
        (struct.pack("<Q", 5) + b'{"a"]', "invalid JSON"),
        (pickle.dumps({"a": 1}), "damaged"),
    ],
)
def test_files_that_are_no_safetensors(folder, content, said):
    (folder / WEIGHTS).write_bytes(content)
    refused(folder, "model.safetensors is damaged", said)


@pytest.mark.parametrize("cut", [1, 100, 5000])
def test_cut_or_lengthened_files(folder, cut):
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-cut])
    refused(folder, "model.safetensors is damaged")
    (folder / WEIGHTS).write_bytes(content + b"x" * cut)
    refused(folder, "model.safetensors is damaged")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("cls.predictions.bias", torch.tensor(1.0), "head.bias has the shape (), not (97,)"),
        (KEY, torch.ones(32), f"weight {KEY} has the shape (32,)"),
        (KEY, torch.ones(3, 5), f"weight {KEY} has the shape (3, 5)"),
        (KEY, torch.full((32, 32), torch.inf), "blocks.1.qkv.weight holds numbers that are not finite"),
        (KEY, torch.full((32, 32), 1e300, dtype=torch.float64), "blocks.1.qkv.weight holds numbers that are not finite"),
        ("bert.embeddings.LayerNorm.gamma", torch.ones(32), "weight bert.embeddings.LayerNorm.weight is there twice"),
    ],
)
def test_weights(folder, name, value, said):
    save_file(state_of(folder) | {name: value}, folder / WEIGHTS)
    refused(folder, said)


def test_queries_and_keys_whose_shapes_only_add_up(folder):
    query = KEY.replace("key", "query")
    save_file(state_of(folder) | {KEY: torch.ones(31, 32), query: torch.ones(33, 32)}, folder / WEIGHTS)
    refused(folder, f"weight {KEY} has the shape (31, 32), {query} (33, 32)")


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_floating_point_numbers(folder, dtype):
    save_file({name: tensor.to(dtype) for name, tensor in state_of(folder).items()}, folder / WEIGHTS)
    refused(folder, f"holds numbers of the type {str(dtype).removeprefix('torch.')}")


@pytest.mark.parametrize("family", ORACLES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_become_fp32(family, dtype, tmp_path):
    pair = make(family, FIRST[family], tmp_path / "model")
    pair.theirs.to(dtype).save_pretrained(tmp_path / "other")
    assert load_file(tmp_path / "other" / WEIGHTS).popitem()[1].dtype == dtype
    (part,) = read_parts(tmp_path / "other").values()
    assert {tensor.dtype for tensor in part.state.values()} == {torch.float32}
    assert all(torch.equal(tensor, pair.part.state[name].to(dtype).float()) for name, tensor in part.state.items())
    assert {parameter.dtype for parameter in load(part).parameters()} == {torch.float32}
    write_huggingface(part, tmp_path / "again")
    assert {tensor.dtype for tensor in load_file(tmp_path / "again" / WEIGHTS).values()} == {torch.float32}
    assert json.loads((tmp_path / "again" / "config.json").read_text())["dtype"] == "float32"


class Run:
    """What a hostile pickle does when it is opened."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.place,))


@pytest.mark.parametrize(
    "name", ["pytorch_model.bin", "model.pt", "model.ckpt", "weights.pth", "model.pkl", "pytorch_model-00001-of-00002.bin"]
)
def test_pickled_weights_are_not_opened(folder, name, tmp_path):
    (folder / WEIGHTS).unlink()
    (folder / name).write_bytes(pickle.dumps(Run(tmp_path / "ran")))
    refused(folder, "pickled", name, "save_pretrained")
    assert not (tmp_path / "ran").exists()


def test_pickled_weights_beside_safetensors_are_no_matter(folder):
    (folder / "pytorch_model.bin").write_bytes(b"whatever")
    assert read_parts(folder)["encoder"].head == "mlm"


@pytest.mark.parametrize(("name", "said"), [("tf_model.h5", "TensorFlow's"), ("flax_model.msgpack", "Flax's"), ("model.onnx", "ONNX's")])
def test_weights_of_other_libraries(folder, name, said):
    (folder / WEIGHTS).rename(folder / name)
    refused(folder, said, "save_pretrained")


def test_no_weights_at_all(folder):
    (folder / WEIGHTS).unlink()
    refused(folder, "model.safetensors is missing")


def test_shards_and_a_total_that_is_wrong(folder, original):
    shard(folder)
    (part,) = read_parts(folder).values()
    (whole,) = read_parts(original).values()
    assert all(torch.equal(tensor, whole.state[name]) for name, tensor in part.state.items())


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/secret.safetensors", "..", "a\\b.safetensors", "pytorch_model.bin", ""])
def test_an_index_that_names_something_else(folder, name):
    index = shard(folder)
    (folder.parent / "secret.safetensors").write_bytes(b"secret")
    index["weight_map"][KEY] = name
    (folder / INDEX).write_text(json.dumps(index))
    refused(folder, "no safetensors file beside it")


@pytest.mark.parametrize("places", [None, {}, [], {KEY: 5}, {KEY: None}])
def test_an_index_without_a_map(folder, places):
    shard(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))
    refused(folder, "no weight_map")


def test_shards_that_disagree_with_their_index(folder):
    index = shard(folder)
    second = load_file(folder / "model-2.safetensors")
    save_file({**second, "bert.embeddings.LayerNorm.bias": torch.ones(32)}, folder / "model-2.safetensors")
    refused(folder, "weight bert.embeddings.LayerNorm.bias is in model-2.safetensors and in another shard")
    save_file({**second, "bert.extra": torch.ones(2)}, folder / "model-2.safetensors")
    refused(folder, "bert.extra")
    gone = sorted(second)[0]
    save_file({name: tensor for name, tensor in second.items() if name != gone}, folder / "model-2.safetensors")
    refused(folder, f"weight {gone} is not in its shard")
    (folder / "model-2.safetensors").unlink()
    refused(folder, "model-2.safetensors is missing")
    assert "model-2.safetensors" in index["weight_map"].values()


def test_links_as_the_cache_of_the_hub_has_them(folder, original):
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for name in ("config.json", WEIGHTS):
        (folder / name).rename(blobs / name)
        (folder / name).symlink_to(Path("..") / "blobs" / name)
    assert read_parts(folder)["encoder"].config == read_parts(original)["encoder"].config
    (blobs / WEIGHTS).unlink()
    refused(folder, "model.safetensors is missing")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "model.json: family: Field required"),
        ("bert", "model.json: "),
        ({"family": "brt"}, 'model_type "brt" is not supported: did you mean "bert"?'),
        ({"head": "rtd"}, 'model.json: BERT has no head "rtd"'),
        ({"head": "mlmm"}, "model.json: head"),
        ({"config": {"model_type": "bert", "vocab_size": "97"}}, "vocab_size: Input should be a valid integer"),
        ({"config": {"model_type": "bert", "vocab_size": 97, "rotary": True}}, "rotary"),
        ({"more": 1}, "model.json: more: Extra inputs are not permitted"),
    ],
)
def test_entries_of_a_kitae_folder(tmp_path, entry, said):
    good = {"family": "bert", "head": "mlm", "config": {"model_type": "bert", "vocab_size": 97}, "labels": []}
    entry = entry if not entry or isinstance(entry, str) else good | entry
    (tmp_path / "model.json").write_text(json.dumps({"format": 1, "parts": {"encoder": entry}}))
    save_file({"encoder.x": torch.ones(1)}, tmp_path / "weights.safetensors")
    refused(tmp_path, said)
