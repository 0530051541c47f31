"""Every head of every family through a folder and back, in the layout that `write_model` chooses for it, whole and in shards."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from kitae.models.families import FAMILIES, build_headed
from kitae.models.family import LABELLED
from kitae.models.folder import Part, load, read_parts, write_model
from kitae.models.weights import INDEX, SINGLE

ROWS = [(family, head) for family, record in FAMILIES.items() for head in record.heads]
OURS_ALONE = {("deberta", "choice"), ("electric", "mlm"), *((family, "joint") for family in FAMILIES)}
ENCODER_ALONE = {("deberta", "rtd"), ("deberta-v2", "rtd")}
OWN: dict[str, dict[str, object]] = {
    "electra": {"embedding_size": 8},
    "character_bert": {"cnn_filters": ((1, 4), (2, 8)), "max_word_length": 12},
    "deberta": {"relative_attention": True, "pos_att_type": ("p2c", "c2p")},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ("p2c", "c2p"), "conv_kernel_size": 3, "norm_rel_ebd": "layer_norm"},
}


def part_of(family: str, head: str) -> Part:
    """A model of two blocks with weights that no two tensors share."""
    record = FAMILIES[family]
    numbers = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24, **OWN.get(family, {})}
    config = record.config.model_validate(
        {"model_type": family, "vocab_size": 31, **record.config.room(20, 1), "pad_token_id": 1, **numbers}
    )
    made = build_headed(config, "sequence" if head == "none" else head, num_labels=3)
    kept = "encoder." if head == "none" else ""
    drawn = torch.Generator().manual_seed(1)
    state = {name: torch.randn(tensor.shape, generator=drawn) for name, tensor in made.state_dict().items() if name.startswith(kept)}
    return Part(head=head, config=config, state=state, labels=("a", "b", "c") if head in LABELLED else ())


def split(folder: Path) -> None:
    """Several shards and their index in the place of the one file."""
    state = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    names = [sorted(state)[number::3] for number in range(3)]
    for number, own in enumerate(names):
        save_file({name: state[name] for name in own}, folder / f"model-{number}.safetensors")
    places = {name: f"model-{number}.safetensors" for number, own in enumerate(names) for name in own}
    (folder / INDEX).write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize(("family", "head"), ROWS)
def test_a_folder_gives_back_what_was_written(family: str, head: str, tmp_path: Path) -> None:
    part = part_of(family, head)
    write_model(part.form.name, part, tmp_path)
    assert (tmp_path / "model.json").is_file() == ((family, head) in OURS_ALONE)
    found = [read_parts(tmp_path)]
    if (tmp_path / SINGLE).is_file():
        split(tmp_path)
        found.append(read_parts(tmp_path))
    for parts in found:
        assert set(parts) == {part.form.name}
        again = parts[part.form.name]
        assert (again.head, again.config, again.labels) == (head, part.config, part.labels)
        assert set(again.state) == set(part.state)
        assert all(torch.equal(tensor, part.state[name]) for name, tensor in again.state.items())
    if head != "none":
        load(again)


@pytest.mark.parametrize(("family", "head"), [row for row in ROWS if row not in OURS_ALONE and row[1] != "choice"])
def test_a_folder_that_names_no_class_is_known_by_its_weights(family: str, head: str, tmp_path: Path) -> None:
    """The first of its heads that has all of its names. A choice has those of other heads, and is refused by its shapes."""
    part = part_of(family, head)
    write_model(part.form.name, part, tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    raw.pop("architectures", None)
    (tmp_path / "config.json").write_text(json.dumps(raw))
    (again,) = read_parts(tmp_path).values()
    alike = [name for name, form in part.family.heads.items() if form.rows and form.rows == part.form.rows]
    assert again.head == (alike or [head])[0]
    assert set(again.state) == set(part.state)


@pytest.mark.parametrize(("family", "head"), [row for row in ROWS if FAMILIES[row[0]].heads[row[1]].auto or row in ENCODER_ALONE])
def test_transformers_finds_every_weight_and_writes_it_back(family: str, head: str, tmp_path: Path) -> None:
    part = part_of(family, head)
    write_model(part.form.name, part, tmp_path / "ours")
    auto = getattr(transformers, part.known.auto)
    model, report = auto.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert type(model).__name__ == part.known.architecture
    unknown = {name.split(".")[0] for name in report["unexpected_keys"]}
    assert unknown == ({"mask_predictions"} if (family, head) in ENCODER_ALONE else set())
    assert {name.split(".")[0] for name in report["missing_keys"]} <= ({"pooler"} if head == "none" else set())
    for name, limit in (("one", "1GB"), ("many", "4KB")):
        model.save_pretrained(tmp_path / name, max_shard_size=limit)
        assert (tmp_path / name / INDEX).is_file() == (name == "many")
        (again,) = read_parts(tmp_path / name).values()
        expected = {key: tensor for key, tensor in part.state.items() if part.known is part.form or key.startswith("encoder.")}
        assert all(torch.equal(again.state[key], tensor) for key, tensor in expected.items())
        assert (again.config, again.labels) == (part.config, part.labels)
        assert again.head == (head if part.known is part.form else "none")
