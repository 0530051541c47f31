"""Exported folders: transformers loads them and gives our logits; the README tells what the manifests tell."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import save_file

from kitae.core.artifact import Inputs, Out, seal
from kitae.core.errors import KitaeError
from kitae.models.families import FAMILIES, build_classifier, build_discriminator, build_headed, build_masked_lm
from kitae.models.folder import Part, describe, load, read_parts
from kitae.models.presets import resolve_preset
from kitae.models.sharing import share_embeddings
from kitae.procedures.usage import USES
from kitae.stages.export import ExportConfig, run, sources
from kitae.tensor.batch import Layout, Texts
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

LENGTH = 128
TOKENS = ("[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "今日", "は", "天気", "が", "よい", "株価", "##会社", "。", "利益", "の", "株式")
TEXTS = ("今日は天気がよい。", "株式会社の利益", "今日の株価は、よい。" * 40)


def checkpoint(folder: Path, module: torch.nn.Module, parts: dict[str, Part], *, step: int | None) -> Path:
    """A checkpoint as training writes it (with a step), or a trial's model folder."""
    place = folder / "checkpoints" / f"step-{step:08d}" if step is not None else folder / "model"
    place.mkdir(parents=True)
    save_file({name: tensor.clone() for name, tensor in module.state_dict().items()}, place / "weights.safetensors")
    described = describe(parts)
    (place / "model.json").write_text(json.dumps(described, ensure_ascii=False))
    Tokenizer.new(TOKENS, SegmenterSpec(kind="mecab", dictionary="ipadic")).save(place / "tokenizer")
    if step is None:
        (place / "task.json").write_text(json.dumps({"max_length": 50}))
    seal(place, kind="checkpoint", facts={"step": step} if step is not None else {})
    return place


def electra(folder: Path, *, seed: int) -> None:
    architecture = resolve_preset("electra-tiny", {"embedding_size": 32}, len(TOKENS), LENGTH)
    assert architecture.generator is not None
    module = torch.nn.Module()
    module.generator = build_masked_lm(architecture.generator, torch.Generator().manual_seed(seed))
    module.discriminator = build_discriminator(architecture.encoder, torch.Generator().manual_seed(seed + 1))
    share_embeddings(module.generator, module.discriminator)
    parts = {
        "generator": Part(head="mlm", config=architecture.generator, state={}),
        "discriminator": Part(head="rtd", config=architecture.encoder, state={}),
    }
    checkpoint(folder, module, parts, step=400)


def single(folder: Path, *, head: str, family: str, step: int | None) -> None:
    config = resolve_preset(f"{family}-tiny", {}, len(TOKENS), LENGTH).encoder
    module = torch.nn.Module()
    labels = ("経済", "天気", "other") if head == "sequence" else ()
    generator = torch.Generator().manual_seed(5)
    module.encoder = build_masked_lm(config, generator) if head == "mlm" else build_classifier(config, 3, 0.1, generator)
    checkpoint(folder, module, {"encoder": Part(head=head, config=config, state={}, labels=labels)}, step=step)


def their_logits(folder: Path, auto: type) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    batch = tokenizer(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
    with torch.no_grad():
        return batch["input_ids"], batch["attention_mask"].bool(), model.eval()(**batch).logits


def same_logits(place: Path, name: str, folder: Path, auto: type, *, length: int = LENGTH) -> None:
    """transformers' logits of an exported folder equal ours of the checkpoint, for the ids of our tokenizer."""
    ids, mask, theirs = their_logits(folder, auto)
    assert ids.shape[1] == length, "the longest text must fill the model"
    model = load(read_parts(place)[name])
    tokenizer = Tokenizer.load(place / "tokenizer")
    special = tokenizer.special
    for row, text in enumerate(TEXTS):
        own = [special.cls, *tokenizer.encode(text).ids.tolist()[: length - 2], special.sep]
        assert ids[row, : len(own)].tolist() == own
        assert int(mask[row].sum()) == len(own)
    with torch.no_grad():
        ours = model(Texts(ids, Layout.padded(mask)))
    if ours.shape[:2] == mask.shape:
        ours, theirs = ours[mask], theirs[mask]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def facts(node: str, lineage: dict[str, object]) -> dict[str, object]:
    return {
        "node": node,
        "counts": {"steps": 400, "heldout": {"general": {"rtd_auc": 0.91234}}},
        "licences": [{"name": "Aozora", "licence": "public domain", "source": "https://www.aozora.gr.jp"}],
        "settings": {"model": "electra-tiny"},
        "lineage": {**lineage, node: {"stage": "pretrain", "seed": 1, "config": {"model": "electra-tiny", "node": node}}},
        "packages": {"kitae": "0.1.0", "torch": "2.13.0"},
    }


@pytest.fixture
def exported(tmp_path):
    """An export of a pre-trained ELECTRA, its adaptation, and a fine-tuned classifier."""
    lineage: dict[str, object] = {"corpus": {"stage": "corpus", "seed": 1, "config": {"source": ["general text"]}}}
    electra(tmp_path / "pretrain", seed=1)
    seal(tmp_path / "pretrain", kind="pretrain", facts=facts("pretrain", lineage))
    electra(tmp_path / "adapt", seed=7)
    seal(tmp_path / "adapt", kind="pretrain", facts=facts("adapt", lineage | {"pretrain": {"config": {}, "seed": 1}}))
    trial = "finetune/topics/adapt/1"
    single(tmp_path / trial, head="sequence", family="electra", step=None)
    counts = {"scores": {"accuracy": 0.9375}, "chosen": {"epoch": 3}}
    licences = [{"name": "topics", "licence": "CC0-1.0", "source": "kitae"}]
    own = {**facts(trial, lineage | {"adapt": {"config": {}, "seed": 1}}), "counts": counts, "licences": licences}
    seal(tmp_path / trial, kind="finetune", facts=own)
    roles = ("pretrain", "adapt", trial)
    out = Out(path=tmp_path / "export")
    out.path.mkdir()
    run(ExportConfig(), Inputs(parents={role: tmp_path / role for role in roles}, seed=1), out)
    return tmp_path, out


def test_halves_and_classifier_give_our_logits(exported):
    folder, out = exported
    for node in ("pretrain", "adapt"):
        place = folder / node / "checkpoints" / "step-00000400"
        same_logits(place, "generator", out.path / node / "generator", transformers.AutoModelForMaskedLM)
        same_logits(place, "discriminator", out.path / node / "discriminator", transformers.AutoModelForPreTraining)
    trial = "finetune/topics/adapt/1"
    auto = transformers.AutoModelForSequenceClassification
    same_logits(folder / trial / "model", "encoder", out.path / trial, auto, length=50)
    config = json.loads((out.path / trial / "config.json").read_text(encoding="utf-8"))
    assert config["id2label"] == {"0": "経済", "1": "天気", "2": "other"}
    assert config["max_position_embeddings"] == LENGTH
    assert config["pad_token_id"] == TOKENS.index("[PAD]") == 1
    assert json.loads((out.path / trial / "task.json").read_text())["max_length"] == 50
    assert out.counts["folders"] == {
        "pretrain/generator": "ElectraForMaskedLM",
        "pretrain/discriminator": "ElectraForPreTraining",
        "adapt/generator": "ElectraForMaskedLM",
        "adapt/discriminator": "ElectraForPreTraining",
        trial: "ElectraForSequenceClassification",
    }
    assert [entry["name"] for entry in out.licences] == ["Aozora", "topics"]
    assert set(read_parts(out.path / "adapt")) == {"generator", "discriminator"}


def test_readme_says_what_the_manifests_say(exported):
    _, out = exported
    text = (out.path / "finetune/topics/adapt/1" / "README.md").read_text(encoding="utf-8")
    for said in ("0.9375", "CC0-1.0", "public domain", "https://www.aozora.gr.jp", "general text", "torch 2.13.0", "0.9123"):
        assert said in text, said
    assert "AutoModelForSequenceClassification" in text
    assert "Results of adapt" in text
    assert "Results of pretrain" not in text, "the classifier came from adapt, whose lineage alone names pretrain"
    discriminator = (out.path / "pretrain" / "discriminator" / "README.md").read_text(encoding="utf-8")
    assert discriminator.startswith("---\nlibrary_name: transformers\n")
    assert "ELECTRA discriminator" in discriminator
    assert "0.9375" not in discriminator
    assert str(out.path) not in text + discriminator


def test_usage_in_the_readme_runs(exported):
    _, out = exported
    for folder in (out.path / "pretrain" / "discriminator", out.path / "adapt" / "generator", out.path / "finetune/topics/adapt/1"):
        code = (folder / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
        names: dict[str, object] = {}
        exec(code.replace("FOLDER", str(folder)).replace("TEXT", "今日は天気がよい。"), names)
        assert isinstance(names["logits"], torch.Tensor)


def test_masked_lm(tmp_path):
    single(tmp_path / "pretrain", head="mlm", family="bert", step=10)
    seal(tmp_path / "pretrain", kind="pretrain", facts=facts("pretrain", {}))
    out = Out(path=tmp_path / "export")
    run(ExportConfig(), Inputs(parents={"pretrain": tmp_path / "pretrain"}, seed=1), out)
    place = tmp_path / "pretrain" / "checkpoints" / "step-00000010"
    same_logits(place, "encoder", out.path / "pretrain", transformers.AutoModelForMaskedLM)


def test_refused(tmp_path):
    assert sources(ExportConfig()) == ()
    with pytest.raises(ValueError, match="huggingface"):
        ExportConfig.model_validate({"formats": ["onnx"]})
    with pytest.raises(ValueError, match="at least 1"):
        ExportConfig.model_validate({"formats": []})
    single(tmp_path / "pretrain", head="mlm", family="bert", step=10)
    weights = tmp_path / "pretrain" / "checkpoints" / "step-00000010" / "weights.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-5] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(KitaeError, match="no model"):
        run(ExportConfig(), Inputs(parents={"pretrain": tmp_path / "pretrain"}, seed=1), Out(path=tmp_path / "export"))


@pytest.mark.parametrize("family", ["bert", "electra", "roberta"])
@pytest.mark.parametrize("head", ["token", "span", "choice"])
def test_heads_of_tasks_give_our_logits(head, family, tmp_path):
    config = resolve_preset(f"{family}-tiny", {}, len(TOKENS), LENGTH, pad_token_id=1).encoder
    labels = ("B", "I", "O") if head == "token" else ()
    module = torch.nn.Module()
    module.encoder = build_headed(config, head, num_labels=3, generator=torch.Generator().manual_seed(5))
    place = checkpoint(tmp_path / "task", module, {"encoder": Part(head=head, config=config, state={}, labels=labels)}, step=1)
    out = Out(path=tmp_path / "export")
    out.path.mkdir()
    run(ExportConfig(), Inputs(parents={"task": tmp_path / "task"}, seed=1), out)
    folder = out.path / "task"
    form = FAMILIES[family].heads[head]
    assert form.auto in (folder / "README.md").read_text(encoding="utf-8")
    model, report = getattr(transformers, form.auto).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert type(model).__name__ == form.architecture == out.counts["folders"]["task"]
    batch = transformers.AutoTokenizer.from_pretrained(folder)(list(TEXTS), padding=True, truncation=True, return_tensors="pt")
    mask = batch["attention_mask"].bool()
    told = {"batch": batch, "model": model.eval()}
    with torch.no_grad():
        exec(USES[head].split("\nprint")[0], told)  # what the README says to write
        ours = load(read_parts(place)["encoder"])(Texts(batch["input_ids"], Layout.padded(mask)))
    if head == "span":
        torch.testing.assert_close(ours[mask].unbind(-1), (told["found"].start_logits[mask], told["found"].end_logits[mask]))
    elif head == "token":
        torch.testing.assert_close(ours[mask], told["logits"][mask], rtol=1e-5, atol=1e-5)
        assert model.config.id2label == {0: "B", 1: "I", 2: "O"}
    else:
        torch.testing.assert_close(ours.T, told["logits"], rtol=1e-5, atol=1e-5)


def test_a_head_without_a_class_in_transformers_stays_with_kitae(tmp_path):
    config = resolve_preset("electra-tiny", {}, len(TOKENS), LENGTH, pad_token_id=1).encoder
    module = torch.nn.Module()
    module.encoder = build_headed(config, "joint", generator=torch.Generator().manual_seed(5))
    place = checkpoint(tmp_path / "task", module, {"encoder": Part(head="joint", config=config, state={})}, step=1)
    out = Out(path=tmp_path / "export")
    out.path.mkdir()
    run(ExportConfig(), Inputs(parents={"task": tmp_path / "task"}, seed=1), out)
    assert out.counts["folders"] == {"task": "kitae"}
    (before,), (after,) = (read_parts(folder).values() for folder in (place, out.path / "task"))
    assert (after.head, after.config) == ("joint", config)
    assert all(torch.equal(tensor, after.state[name]) for name, tensor in before.state.items())
    assert "read_parts" in (out.path / "task" / "README.md").read_text(encoding="utf-8")
