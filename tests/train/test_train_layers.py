"""Which weight lies where: layer-wise decay, frozen layers."""

import pytest
import torch
from toy_training import Toy, ToyBatches, config

from kitae.core.errors import KitaeError
from kitae.models.families import build_headed, build_masked_lm
from kitae.models.presets import resolve_preset
from kitae.tensor.batch import Layout, Texts
from kitae.train.freezing import freeze, frozen_names
from kitae.train.layers import fused, hidden_matrix, layer_scales, place_of
from kitae.train.optimizer import Optimizer
from kitae.train.rule_config import FreezeConfig

CPU = torch.device("cpu")


def names_of(depth: int, root: str = "encoder.") -> list[str]:
    blocks = [f"{root}blocks.{number}.out.weight" for number in range(depth)]
    return [f"{root}embed.token.weight", f"{root}project.weight", *blocks, "head.out.weight"]


@pytest.mark.parametrize(("depth", "decay", "expected"), [(12, 0.8, (0.64, 0.055, 0.044)), (24, 0.9, (0.81, 0.072, 0.065))])
def test_the_originals_count_and_ours(depth: int, decay: float, expected: tuple[float, ...]) -> None:
    """The multipliers that google-research/electra really has (top, bottom, embeddings); ours are one step larger each."""
    names = names_of(depth)
    theirs, ours = (layer_scales(names, decay, electra=electra) for electra in (True, False))
    found = [theirs[name] for name in (names[-2], names[2], names[0])]
    assert found == pytest.approx(expected, abs=5e-4)
    assert theirs["head.out.weight"] == ours["head.out.weight"] == 1.0
    assert ours[names[-2]] == decay
    assert [ours[name] * decay for name in names[:-1]] == pytest.approx([theirs[name] for name in names[:-1]])


def test_every_encoder_is_counted_from_its_own_top() -> None:
    names = [*names_of(2, "generator.encoder."), *names_of(4, "discriminator.encoder."), "left.encoder.left.blocks.2.out.weight"]
    scales = layer_scales(names, 0.5)
    for half, depth in (("generator", 2), ("discriminator", 4)):
        assert scales[f"{half}.encoder.blocks.{depth - 1}.out.weight"] == 0.5
        assert scales[f"{half}.encoder.embed.token.weight"] == 0.5 ** (depth + 1)


def test_fused_weights_are_found_by_name_and_shape() -> None:
    shapes = {"a.blocks.0.attention.qkv.weight": (18, 6), "a.blocks.0.attention.qkv.bias": (18,), "a.blocks.0.up.weight": (20, 6)}
    shapes |= {
        "a.blocks.0.down.weight": (6, 10),
        "b.blocks.0.up.weight": (20, 6),
        "b.blocks.0.down.weight": (6, 20),
        "head.up.weight": (8, 4),
    }
    found = fused({name: torch.Size(shape) for name, shape in shapes.items()})
    assert found == {"a.blocks.0.attention.qkv.weight": 3, "a.blocks.0.attention.qkv.bias": 3, "a.blocks.0.up.weight": 2}


@pytest.mark.parametrize(("preset", "gated"), [("modernbert-tiny", True), ("bert-tiny", False), ("deberta-tiny", False)])
def test_the_matrices_of_real_families(preset: str, gated: bool) -> None:
    """Everything in a block is found, a gated feed-forward part is two, and no table or head is a hidden matrix."""
    model = build_masked_lm(resolve_preset(preset, {"num_hidden_layers": 1}, 50, 16).encoder)
    shapes = {name: p.shape for name, p in model.named_parameters()}
    matrices = {name for name, shape in shapes.items() if hidden_matrix(name, shape)}
    assert matrices == {name for name, shape in shapes.items() if ".blocks." in name and len(shape) > 1}
    parts = {name.split(".")[-2]: count for name, count in fused(shapes).items() if name in matrices}
    assert parts == ({"qkv": 3, "up": 2} if gated else {"qkv": 3})
    assert {place_of(name).kind for name in shapes} <= {"block", "embeddings", "beside", "head"}
    assert {name for name in shapes if place_of(name).kind == "head"} == {name for name in shapes if not name.startswith("encoder.")} | {
        name for name in shapes if name.startswith("encoder.norm")
    }


def test_frozen_weights_get_no_gradient_and_nothing_is_computed_for_them() -> None:
    settings = config(precision="bf16", freeze={"embeddings": True, "layers": 1})
    toy, exact = Toy(), {name: p.detach().clone() for name, p in Toy().named_parameters()}
    optimizer = Optimizer(toy, settings, CPU)
    states = []
    toy.blocks[0].register_forward_hook(lambda *seen: states.append(seen[-1]))
    batch = toy.prepare(ToyBatches().micro(0, 0), 7)
    optimizer.start_gradient()
    toy(batch).total({"mlm": 10.0, "rtd": 40.0}).backward()
    assert not states[0].requires_grad, "no graph leads into frozen layers"
    optimizer.gradient()
    optimizer.step(0.01)
    frozen = {name for name in exact if name.startswith(("embed.", "blocks.0."))}
    assert frozen == frozen_names(exact, settings.freeze)
    for name, weight in optimizer.weights().items():
        assert torch.equal(weight, exact[name]) == (name in frozen), name
        assert dict(toy.named_parameters())[name].grad is None
    assert not frozen & {name.partition(".")[2] for name in optimizer.state()}


@pytest.mark.parametrize("preset", ["modernbert-tiny", "bert-tiny", "deberta-v3-tiny"])
def test_a_frozen_encoder_leaves_its_head_alone_to_learn(preset: str) -> None:
    encoder = resolve_preset(preset, {}, 50, 16).encoder
    names = [name for name, _ in build_headed(encoder, "sequence", num_labels=2, generator=torch.Generator()).named_parameters()]
    free = set(names) - frozen_names(names, FreezeConfig(encoder=True))
    assert free == {name for name in names if name.startswith("head.")}
    assert "head.out.weight" in free


@pytest.mark.parametrize("embeddings", [True, False])
def test_a_real_model_trains_above_frozen_layers_as_if_they_were_free(embeddings: bool) -> None:
    """DeBERTa, whose layers read a table of positions beside their input: it is frozen with them."""
    fields = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
    encoder = resolve_preset("deberta-v3-small", fields, 50, 16).encoder
    free, model = (build_masked_lm(encoder, torch.Generator().manual_seed(1)) for _ in range(2))
    freeze(model, FreezeConfig(embeddings=embeddings, layers=2))
    ids = torch.arange(12).view(1, 12)
    found = []
    for each in (free, model):
        torch.manual_seed(1)
        states = each.encoder.hidden_states(Texts(ids, Layout.padded(torch.ones_like(ids, dtype=torch.bool))))
        states[-1].square().sum().backward()
        found.append({name: p.grad for name, p in each.named_parameters() if p.grad is not None})
    assert [state.requires_grad for state in states] == [not embeddings] * 3 + [True]
    trained = {name for name in found[0] if name.startswith("encoder.blocks.2.") or (not embeddings and "embed" in name)}
    assert found[1].keys() == trained
    assert all(torch.equal(found[1][name], found[0][name]) for name in trained)


def test_what_cannot_be_frozen_is_refused() -> None:
    names = [*names_of(2, "generator.encoder."), *names_of(4, "discriminator.encoder.")]
    with pytest.raises(KitaeError, match="generator.encoder has 2 layers") as caught:
        frozen_names(names, FreezeConfig(layers=3))
    assert "at most 2" in str(caught.value.cure)
    with pytest.raises(KitaeError, match="no embeddings"):
        frozen_names(["head.weight"], FreezeConfig(embeddings=True))
    with pytest.raises(KitaeError, match="the model has 0 layers"):
        frozen_names(["head.weight"], FreezeConfig(layers=1))
    assert frozen_names(names, FreezeConfig()) == set()
