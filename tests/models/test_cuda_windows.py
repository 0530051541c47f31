"""ModernBERT on CUDA: windows by flash attention, against the CPU in fp64; skipped where there is no CUDA device."""

import pytest
import torch
from model_layouts import packed

from kitae.models.attention import attend, make_plan
from kitae.models.families import build_classifier, build_masked_lm
from kitae.models.modernbert_config import ModernBertConfig
from kitae.tensor.batch import Texts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
ROWS = ((60, 70, 50), (200,), (3, 1, 190), (40, 160))


@pytest.mark.parametrize("window", [0, 1, 17, 64, 127, 128, 300])
def test_the_kernel_sees_the_window_and_no_farther(window):
    layout = packed(ROWS, 200)
    qkv = torch.randn(4, 200, 3 * 128, generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4, 200, 128, generator=torch.Generator().manual_seed(1))
    results = []
    for kind, device, dtype in (("dense", "cpu", torch.float64), ("varlen", "cuda", torch.bfloat16)):
        x = qkv.to(device, dtype).requires_grad_()
        out = attend(x, make_plan(layout.to(device), kind=kind, dtype=dtype, window=window), heads=2, dropout=0.0).double().cpu()
        (out * weights)[layout.mask_BL].sum().backward()
        results.append((out.detach()[layout.mask_BL], x.grad.double().cpu()))
    for mine, exact in zip(results[1], results[0], strict=True):
        assert float((mine - exact).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize(("kind", "dtype", "tolerance"), [("varlen", torch.bfloat16, 0.05), ("sdpa", torch.float32, 1e-5)])
@pytest.mark.parametrize("pooling", ["mlm", "cls", "mean"])
def test_values_and_gradients(kind, dtype, tolerance, pooling):
    torch.backends.cuda.matmul.allow_tf32 = False
    config = ModernBertConfig(
        vocab_size=300, hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384, local_attention=32,
        pad_token_id=0, classifier_pooling="mean" if pooling == "mean" else "cls",
    )  # fmt: skip
    layout = packed(ROWS, 200)
    ids = torch.randint(5, 300, (4, 200), generator=torch.Generator().manual_seed(0))
    results = []
    for which, device, precision in (("dense", "cpu", torch.float64), (kind, "cuda", dtype)):
        model = (build_masked_lm(config) if pooling == "mlm" else build_classifier(config, 7)).to(device, precision).eval()
        model.encoder.kind = which
        logits = model(Texts(ids.to(device), layout.to(device))).double().cpu()
        logits = logits[layout.mask_BL] if pooling == "mlm" else logits
        weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
        (logits * weights).sum().backward()
        results.append((logits.detach(), torch.cat([p.grad.double().cpu().flatten() for p in model.parameters()])))
    for mine, exact in zip(results[1], results[0], strict=True):
        assert float((mine - exact).norm() / exact.norm()) < tolerance


def test_training_at_8192_with_dropout_and_compiled_blocks():
    config = ModernBertConfig(
        vocab_size=300, hidden_size=128, num_hidden_layers=4, num_attention_heads=2, intermediate_size=192, max_position_embeddings=8192,
        attention_dropout=0.1, mlp_dropout=0.1, pad_token_id=0,
    )  # fmt: skip
    layout = packed(((8192,), (100, 8000)), 8192).to("cuda")
    ids = torch.randint(5, 300, (2, 8192)).cuda()
    for compiled in (False, True):
        model = build_masked_lm(config).to("cuda", torch.bfloat16).train()
        if compiled:
            model.encoder.compile_blocks()
        torch.cuda.reset_peak_memory_stats()
        model(Texts(ids, layout), torch.arange(0, 16384, 64).cuda()).float().logsumexp(-1).sum().backward()
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
        assert torch.cuda.max_memory_allocated() < 2 * 2 * 8192 * 8192, "the scores of one layer, at two bytes"
