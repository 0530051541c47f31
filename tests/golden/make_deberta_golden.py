"""Golden numbers of microsoft/DeBERTa: its enhanced mask decoder and its detector of replaced tokens, which transformers lacks.

`make_deberta_golden.py CHECKOUT OUT` runs the code of a local checkout (made with commit 4d7fe0b) on small models of which every
weight follows from its name, so that the numbers alone need to be kept.
"""

import importlib
import json
import sys
import types
import zlib
from pathlib import Path

import torch
from torch import Tensor, nn

COMMON = {
    "vocab_size": 19, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20,
    "max_position_embeddings": 24, "type_vocab_size": 0, "hidden_act": "gelu", "hidden_dropout_prob": 0.0, "initializer_range": 0.02,
    "attention_probs_dropout_prob": 0.0, "layer_norm_eps": 1e-7, "relative_attention": True, "max_relative_positions": -1,
    "position_biased_input": False,
}  # fmt: skip
CONFIGS = {
    "japanese": COMMON
    | {"position_buckets": 4, "share_att_key": True, "norm_rel_ebd": "layer_norm", "pos_att_type": "p2c|c2p"}
    | {"conv_kernel_size": 3, "conv_act": "gelu"},
    "plain": COMMON | {"position_buckets": -1, "share_att_key": False, "norm_rel_ebd": "none", "pos_att_type": "c2p"},
}
IDS = [[2, 7, 4, 9, 4, 11, 12, 13, 4, 15, 16, 17, 18, 3], [2, 5, 6, 4, 8, 4, 3, 0, 0, 0, 0, 0, 0, 0]]
LABELS = [[0, 0, 8, 0, 10, 0, 0, 13, 14, 0, 0, 0, 0, 0], [0, 0, 0, 7, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0]]
"""What stood at the predicted positions; 0 elsewhere."""


def tensor(name: str, shape: torch.Size) -> Tensor:
    """The weight of a name: a wave between -0.6 and 0.6, around 1 for a LayerNorm's scale."""
    count = torch.arange(int(torch.Size(shape).numel()), dtype=torch.float64)
    wave = 0.6 * torch.sin(count * 0.7310585 + zlib.crc32(name.encode()) % 1000)
    return ((1 + wave / 2) if name.endswith("LayerNorm.weight") else wave).view(shape).float()


def microsoft(checkout: Path) -> tuple[type, type, type]:
    """Its config and models. The packages' own __init__ import what is not needed here (tokenizers, tasks) and not everywhere installed."""
    for name in ("DeBERTa", "DeBERTa.deberta", "DeBERTa.apps", "DeBERTa.apps.models", "DeBERTa.utils"):
        package = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
        sys.modules[name] = package
    sys.modules["DeBERTa.utils"].get_logger = lambda *_: None
    sys.modules["DeBERTa.utils"].xtqdm = None
    cache = types.ModuleType("DeBERTa.deberta.cache_utils")
    cache.load_model_state = None
    sys.modules[cache.__name__] = cache
    for part in ("ops", "config", "nnmodule", "bert", "deberta"):
        module = importlib.import_module(f"DeBERTa.deberta.{part}")
        vars(sys.modules["DeBERTa.deberta"]).update({key: value for key, value in vars(module).items() if not key.startswith("_")})
    masked = importlib.import_module("DeBERTa.apps.models.masked_language_model")
    replaced = importlib.import_module("DeBERTa.apps.models.replaced_token_detection_model")
    return sys.modules["DeBERTa.deberta"].ModelConfig, masked.MaskedLanguageModel, replaced.ReplacedTokenDetectionModel


def run(model: nn.Module) -> dict[str, object]:
    """A model's logits, and how large the gradient of its summed loss is for every weight that has one."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensor(name, parameter.shape))
    ids = torch.tensor(IDS)
    said = model.eval()(input_ids=ids, input_mask=(ids > 0).long(), labels=torch.tensor(LABELS))
    logits = said["logits"]
    said["loss"].sum().backward()
    return {
        "logits": [[round(x, 6) for x in row] for row in logits.tolist()],
        "gradients": {name: round(float(p.grad.abs().sum()), 5) for name, p in model.named_parameters() if p.grad is not None},
    }


if __name__ == "__main__":
    config_class, masked_class, replaced_class = microsoft(Path(sys.argv[1]))
    golden = {
        name: {"mlm": run(masked_class(config_class.from_dict(config))), "rtd": run(replaced_class(config_class.from_dict(config)))}
        for name, config in CONFIGS.items()
    }
    Path(sys.argv[2]).write_text(json.dumps(golden, separators=(",", ":")) + "\n", encoding="utf-8")
