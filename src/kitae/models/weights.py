"""Weights on disk -> tensors: single safetensors files and shards. Nothing that could run code is opened.

Symbolic links are followed, because the caches of Hugging Face consist of them; what an index names must stand beside it.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from kitae.core.errors import KitaeError
from kitae.models.convert import State
from kitae.models.settings import read_config

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that Python's pickle may have written: to open one is to run it."""
ELSEWHERE = {".h5": "TensorFlow's", ".msgpack": "Flax's", ".index": "TensorFlow's", ".onnx": "ONNX's"}
"""Endings of weights of other libraries."""
PROGRESS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
"""Beginnings of pickled files of a training, which are no weights."""
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
"""Ends of the names of what older classes save beside weights, and which only counts."""
FLOATING = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""Types of weights; a Hugging Face folder's are read as fp32."""


def read_weights(path: Path) -> State:
    """The weights of one safetensors file, memory-mapped. Raises KitaeError when it is damaged or absent, or holds other numbers."""
    where = str(path.parent)
    if not path.is_file():
        raise KitaeError(f"{path.name} is missing", cure="fetch the model again", where=where)
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys() if not name.endswith(BUFFERS)}  # noqa: SIM118 (safe_open is no mapping)
    except SafetensorError as error:
        raise KitaeError(f"{path.name} is damaged: {error}", cure="fetch the model again", where=where) from error
    for name, tensor in state.items():
        if tensor.dtype not in FLOATING:
            what = f"weight {name} holds numbers of the type {str(tensor.dtype).removeprefix('torch.')}"
            raise KitaeError(what, cure="use a model in fp32, bf16 or fp16, not a quantized one", where=where)
    return state


def gather(folder: Path) -> State:
    """All tensors of a Hugging Face folder, half and double precision as fp32. Raises KitaeError when they cannot be had safely."""
    if (folder / SINGLE).is_file():
        state = read_weights(folder / SINGLE)
    elif (folder / INDEX).is_file():
        state = _shards(folder)
    else:
        raise _nothing(folder)
    return {name: tensor.float() for name, tensor in state.items()}


def _shards(folder: Path) -> State:
    """What the index maps. Its metadata are not needed: a file that was cut short tells so itself."""
    where = str(folder / INDEX)
    places = read_config(folder / INDEX).get("weight_map")
    if not isinstance(places, Mapping) or not places or not all(isinstance(name, str) for name in places.values()):
        raise KitaeError("the index of the weights has no weight_map from weights to files", cure="fetch the model again", where=where)
    state: State = {}
    for name in sorted(set(places.values())):
        if Path(name).name != name or "\\" in name or not name.endswith(".safetensors"):
            raise KitaeError(f'the index names "{name}", no safetensors file beside it', cure="fetch the model again", where=where)
        shard = read_weights(folder / name)
        twice = sorted(set(shard) & set(state))
        if twice:
            raise KitaeError(f"weight {twice[0]} is in {name} and in another shard", cure="fetch the model again", where=where)
        state |= shard
    absent = sorted(name for name in set(places) - set(state) if not name.endswith(BUFFERS))
    if absent:
        raise KitaeError(f"weight {absent[0]} is not in its shard", cure="fetch the model again", where=where)
    return state


def _nothing(folder: Path) -> KitaeError:
    """Why there are no weights to read."""
    names = sorted(path.name for path in folder.iterdir())
    pickled = next((name for name in names if name.endswith(PICKLED) and not name.startswith(PROGRESS)), None)
    if pickled is not None:
        return KitaeError(
            f"the weights are pickled ({pickled}), which can run code",
            cure="load the model with transformers, which then reads tensors only, and write it with save_pretrained: that makes " + SINGLE,
            where=str(folder),
        )
    for ending, whose in ELSEWHERE.items():
        if any(name.endswith(ending) for name in names):
            cure = f"write the model with save_pretrained of transformers, which makes {SINGLE}"
            return KitaeError(f"the weights are {whose} ({ending})", cure=cure, where=str(folder))
    return KitaeError(f"{SINGLE} is missing", cure="fetch the model again", where=str(folder))
