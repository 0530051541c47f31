"""Presets of the user's own, and the parameters that `kitae plan` shows."""

from pathlib import Path

import pytest

from kitae.chain import nodes, recipe
from kitae.chain.sizes import sizes
from kitae.core.errors import KitaeError
from kitae.models.cost import count_parameters
from kitae.models.families import build_discriminator
from kitae.models.folder import Part, write_huggingface
from kitae.models.presets import resolve_preset
from tiny_recipe import RECIPE, kitae, write_recipe

OWN = """
[presets.slim]
base = "electra-tiny"
hidden_size = 32
num_attention_heads = 2
generator = { fraction = 0.5 }
[presets.slimmer]
base = "slim"
num_hidden_layers = 1
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recipe(tmp_path)
    return tmp_path


def write(place: Path, model: str, presets: str = OWN) -> None:
    (place / "r.toml").write_text(RECIPE.replace('"electra-tiny"', f'"{model}"') + presets, encoding="utf-8")


def test_an_own_preset_is_its_base_with_other_fields(place: Path) -> None:
    write(place, "slimmer")
    loaded, path = recipe.load("r.toml", ("pretrain.config.num_attention_heads=4",))
    assert loaded.pretrain is not None
    assert loaded.pretrain.model == "electra-tiny"
    assert loaded.pretrain.config == {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "generator": {"fraction": 0.5},
        "num_hidden_layers": 1,
    }
    (size,) = sizes(nodes.nodes(loaded, str(path)), Path(loaded.output))
    expected = count_parameters(resolve_preset("electra-tiny", loaded.pretrain.config, 2000, 32))
    assert (size.node, size.vocab_size, size.total) == ("pretrain", 2000, expected.total)
    assert size.parts == {"generator": expected.generator, "discriminator": expected.encoder}


def test_the_name_alone_changes_no_fingerprint(place: Path) -> None:
    """What decides the result is the preset of ours and the fields: a renamed preset makes nothing stale."""
    write(place, "slim")
    before, _ = recipe.load("r.toml")
    write(place, "thin", OWN.replace("slim", "thin"))
    after, _ = recipe.load("r.toml")
    assert before.pretrain == after.pretrain


@pytest.mark.parametrize(
    ("model", "presets", "said"),
    [
        ("slimm", OWN, 'did you mean "slim"'),
        ("slim", OWN.replace('base = "electra-tiny"', ""), "presets.slim names no base"),
        ("slim", OWN.replace('"electra-tiny"', '"slimmer"'), "stands on itself"),
        ("slim", OWN.replace('"electra-tiny"', '"electra-tini"'), 'did you mean "electra-tiny"'),
        ("slim", OWN.replace("hidden_size", "hiden_size"), 'presets.slim: unknown model key "hiden_size"'),
        ("slim", OWN.replace("presets.slim]", 'presets."bert-base"]'), "is a preset of kitae"),
    ],
)
def test_a_preset_that_cannot_be(place: Path, model: str, presets: str, said: str) -> None:
    write(place, model, presets)
    with pytest.raises(KitaeError) as caught:
        recipe.load("r.toml")
    assert said in str(caught.value)


def test_plan_shows_what_a_model_comes_to(place: Path) -> None:
    write(place, "electra-small-paper")
    done = kitae("plan", "r.toml", "--set", "tokenizer.vocab_size=32768", "--set", "dataset.max_length=128")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "32,768" in line]
    assert " ".join(line.split()) == "pretrain electra-small-paper 32,768 generator 4.9, discriminator 13.8, together 14.4"


def test_a_generator_that_will_be_regrown_is_told(place: Path) -> None:
    architecture = resolve_preset("electra-tiny", {}, 50, 32)
    model = build_discriminator(architecture.encoder)
    write_huggingface(Part(head="rtd", config=model.config, state=model.state_dict()), place / "half")
    loaded, path = recipe.load("r.toml", ('adapt.start="half"', "adapt.regrow.generator.fraction=0.5"))
    *_, size = sizes(nodes.nodes(loaded, str(path)), Path(loaded.output))
    expected = count_parameters(resolve_preset("electra-tiny", {"generator": {"fraction": 0.5}}, 50, 32))
    assert (size.node, size.model, size.total) == ("adapt", "half", expected.total)
    assert size.parts == {"regrown generator": expected.generator, "discriminator": expected.encoder}


def test_the_head_for_pairs_is_counted(place: Path) -> None:
    write(place, "bert-tiny")
    pairs = ('pretrain.objective="mlm"', 'dataset.packing="pairs"')
    totals = []
    for overrides in (pairs, (*pairs, 'pretrain.objective_config.sentence_order="nsp"')):
        loaded, path = recipe.load("r.toml", overrides)
        (size,) = sizes(nodes.nodes(loaded, str(path)), Path(loaded.output))
        totals.append(size.total)
    assert totals[1] - totals[0] == 64 * 64 + 64 + 2 * 64 + 2


def test_plan_knows_the_vocabulary_that_is_there(place: Path) -> None:
    assert kitae("run", "r.toml", "--until", "adapt").returncode == 0
    made = len((place / "run" / "tokenizer" / "vocab.txt").read_text(encoding="utf-8").split("\n")) - 1
    done = kitae("plan", "r.toml", "--set", 'adapt.start="run/pretrain"')
    lines = [line.split() for line in done.stdout.splitlines() if "discriminator" in line and f"{made:,}" in line]
    assert [line[:3] for line in lines] == [["pretrain", "electra-tiny", f"{made:,}"], ["adapt", "pretrain", f"{made:,}"]]
    assert [word.strip(",") for word in lines[0][3:7]] == [word.strip(",") for word in lines[1][3:7]], (
        "the same model from a preset and from its folder"
    )
