"""The CUDA attention paths against the CPU in fp64; skipped where there is no CUDA device."""

import pytest
import torch
from model_layouts import packed

from kitae.models.attention import attend, make_plan
from kitae.models.bert import BertConfig
from kitae.models.families import build_masked_lm
from kitae.tensor.batch import Texts

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
ROWS = ((60, 70, 50), (200,), (3, 1, 190), (40, 160))


@pytest.mark.parametrize(
    ("kind", "dtype", "tolerance"),
    [("varlen", torch.bfloat16, 0.05), ("sdpa", torch.bfloat16, 0.05), ("sdpa", torch.float32, 1e-5), ("dense", torch.float32, 1e-5)],
)
def test_values_and_gradients(kind, dtype, tolerance):
    torch.backends.cuda.matmul.allow_tf32 = False
    config = BertConfig(vocab_size=300, hidden_size=256, num_hidden_layers=3, num_attention_heads=4, intermediate_size=512)
    layout = packed(ROWS, 200)
    ids = torch.randint(5, 300, (4, 200), generator=torch.Generator().manual_seed(0))
    weights = torch.randn(4, 200, 300, generator=torch.Generator().manual_seed(1))
    mask = layout.mask_BL
    results = []
    for which, device, precision in (("dense", "cpu", torch.float64), (kind, "cuda", dtype)):
        model = build_masked_lm(config).to(device, precision).eval()
        model.encoder.kind = which
        logits = model(Texts(ids.to(device), layout.to(device))).double().cpu()
        (logits * weights)[mask].sum().backward()
        results.append((logits[mask], torch.cat([p.grad.double().cpu().flatten() for p in model.parameters() if p.grad is not None])))
    for mine, exact in zip(results[1], results[0], strict=True):
        assert float((mine.detach() - exact.detach()).norm() / exact.detach().norm()) < tolerance


def test_another_document():
    config = BertConfig(vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256)
    layout = packed(ROWS, 200).to("cuda")
    ids = torch.randint(5, 300, (4, 200)).cuda()
    other = ids.clone()
    other[0, 60:130] = torch.randint(5, 300, (70,)).cuda()
    for kind in ("varlen", "sdpa"):
        encoder = build_masked_lm(config).encoder.to("cuda", torch.bfloat16).eval()
        encoder.kind = kind
        with torch.no_grad():
            before, after = encoder(Texts(ids, layout)), encoder(Texts(other, layout))
        for start, end in ((0, 60), (130, 180)):
            assert torch.equal(before[0, start:end], after[0, start:end]), kind
        assert torch.equal(before[1:][layout.mask_BL[1:]], after[1:][layout.mask_BL[1:]]), kind
        assert not torch.equal(before[0, 60:130], after[0, 60:130])


def test_dropout_of_probabilities_in_flash_attention():
    """Values that form an identity matrix show the dropped probabilities; with the same seed the same ones drop, forward and back."""
    heads, size, rate = 2, 64, 0.1
    layout = packed(((60, 40), (64, 30, 6), (100 - 36, 36)), 100)
    plan = make_plan(layout.to("cuda"), kind="varlen", dtype=torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, 100, 3, heads, size, generator=generator).to("cuda", torch.bfloat16)
    shown = qkv.clone()
    shown[:, :, 2] = torch.eye(size, device="cuda", dtype=torch.bfloat16)[layout.positions_BL.cuda()][:, :, None]
    torch.manual_seed(5)
    dropped_BLNS = attend(shown.view(3, 100, -1), plan, heads=heads, dropout=rate).view(3, 100, heads, size).double()
    learnt = qkv.view(3, 100, -1).clone().requires_grad_()
    torch.manual_seed(5)
    out = attend(learnt, plan, heads=heads, dropout=rate)
    weights = torch.randn(out.shape, generator=generator).cuda().double()
    (out.double() * weights).sum().backward()
    exact = qkv.double().requires_grad_()
    reference, kept, all_of_them = torch.zeros(out.shape, dtype=torch.float64, device="cuda"), 0, 0
    for row, start, end in layout.spans():
        q, k, v = exact[row, start:end].permute(1, 2, 0, 3).unbind(0)
        probabilities = torch.softmax(q @ k.transpose(1, 2) * size**-0.5, dim=-1)
        keep = (dropped_BLNS[row, start:end, :, : end - start] != 0).transpose(0, 1)
        kept, all_of_them = kept + int(keep.sum()), all_of_them + keep.numel()
        reference[row, start:end] = ((probabilities * keep / (1 - rate)) @ v).transpose(0, 1).reshape(end - start, heads * size)
    (reference * weights).sum().backward()
    assert abs(kept / all_of_them - (1 - rate)) < 0.01
    assert learnt.grad is not None
    assert exact.grad is not None
    for mine, right in ((out.double(), reference), (learnt.grad.double(), exact.grad.view(3, 100, -1))):
        assert float((mine - right).norm() / right.norm()) < 0.02


def test_training_runs_with_dropout():
    config = BertConfig(vocab_size=300, hidden_size=128, num_hidden_layers=2, num_attention_heads=2, intermediate_size=256)
    model = build_masked_lm(config).to("cuda", torch.bfloat16).train()
    layout = packed(ROWS, 200).to("cuda")
    ids = torch.randint(5, 300, (4, 200)).cuda()
    torch.manual_seed(1)
    first = model(Texts(ids, layout), torch.tensor([1, 5, 300]).cuda())
    first.float().sum().backward()
    torch.manual_seed(1)
    assert torch.equal(first, model(Texts(ids, layout), torch.tensor([1, 5, 300]).cuda()))
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for name, p in model.named_parameters() if "segment" not in name)
