"""Microsoft's enhanced mask decoder and detector of replaced tokens, by golden numbers (tests/golden/make_deberta_golden.py)."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from kitae.models.convert import to_huggingface
from kitae.models.deberta_config import DebertaV2Config
from kitae.models.families import FAMILIES, bare
from kitae.models.folder import load, read_parts
from kitae.tensor.batch import Layout, Texts

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "deberta_microsoft.json").read_text(encoding="utf-8"))
SPEC = importlib.util.spec_from_file_location("make_deberta_golden", FOLDER / "make_deberta_golden.py")
MADE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MADE)
FAMILY = FAMILIES["deberta-v2"]


def published(name: str, head: str, folder: Path) -> None:
    """A folder with the weights of a golden model under Microsoft's names."""
    raw = MADE.CONFIGS[name] | {"model_type": "deberta-v2", **({"enhanced_mask_decoder": True} if head == "mlm" else {})}
    config = DebertaV2Config.model_validate(DebertaV2Config.adapted(raw))
    rows = (*FAMILY.rows, *FAMILY.heads[head].rows)
    state = FAMILY.outward(to_huggingface(bare(config, head).state_dict(), rows, layers=3), config)
    save_file({key: MADE.tensor(key, weight.shape) for key, weight in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(raw))


@pytest.mark.parametrize("head", ["mlm", "rtd"])
@pytest.mark.parametrize("name", MADE.CONFIGS)
def test_logits_and_gradients_of_microsoft(name, head, tmp_path):
    published(name, head, tmp_path)
    (part,) = read_parts(tmp_path).values()
    assert part.head == head
    model = load(part)
    ids, labels = torch.tensor(MADE.IDS), torch.tensor(MADE.LABELS)
    layout = Layout.padded(ids > 0)
    golden = GOLDEN[name][head]
    expected = torch.tensor(golden["logits"])
    if head == "mlm":
        picks = (labels > 0).flatten().nonzero().squeeze(1)
        logits = model(Texts(ids, layout), picks)
        loss = F.cross_entropy(logits, labels.flatten()[picks], reduction="sum")
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
    else:
        logits = model(Texts(ids, layout))
        mask, replaced = layout.mask_BL, ((labels > 0) & (labels != ids)).float()
        loss = F.binary_cross_entropy_with_logits(logits[mask], replaced[mask], reduction="sum")  # positive = replaced
        torch.testing.assert_close(logits[mask], expected[mask], rtol=1e-5, atol=1e-5)
    loss.backward()
    rows = (*FAMILY.rows, *FAMILY.heads[head].rows)
    gradients = to_huggingface({key: p.grad for key, p in model.named_parameters() if p.grad is not None}, rows, layers=3)
    gradients = FAMILY.outward(gradients, part.config)
    assert set(gradients) == set(golden["gradients"])
    for key, gradient in gradients.items():
        assert float(gradient.abs().sum()) == pytest.approx(golden["gradients"][key], rel=2e-4, abs=2e-4), key
