"""Compiled blocks give what plain ones do: outputs, gradients of all parameters, and the same dropped elements."""

import pytest
import torch
from model_layouts import packed
from model_pairs import FIRST, make

from kitae.models.folder import load

FIELDS = {
    "bert": {"num_hidden_layers": 1},
    "deberta": {"num_hidden_layers": 1},
    "deberta-v2": {"num_hidden_layers": 1},
    "modernbert": {"num_hidden_layers": 2, "attention_dropout": 0.1, "mlp_dropout": 0.1, "embedding_dropout": 0.1},
}
"""A block of every kind; dropout is on by default but in ModernBERT."""


@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_blocks_give_the_same_numbers(backend, family, tmp_path):
    torch.compiler.reset()
    part = make(family, FIRST[family], tmp_path, **FIELDS[family]).part
    layout = packed(((10, 20, 6), (36,), (3, 1, 25)), 36)
    ids = torch.randint(7, 97, (3, 36), generator=torch.Generator().manual_seed(1))
    names, outputs = [], []
    for compiled in (False, True):
        encoder = load(part).encoder.train()
        if compiled:
            encoder.compiled = True
            for block in encoder.blocks:
                block.compile(backend=backend, fullgraph=True)
        torch.manual_seed(4)  # the same elements are dropped
        out = encoder(ids, layout)[layout.mask_BL]
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        names.append(set(encoder.state_dict()))
        outputs.append((out.detach(), torch.cat([p.grad.flatten() for p in encoder.parameters() if p.grad is not None])))
    assert names[0] == names[1]
    torch.testing.assert_close(outputs[1][0], outputs[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs[1][1], outputs[0][1], rtol=1e-4, atol=1e-4)
