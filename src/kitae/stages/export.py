"""Trained models -> Hugging Face folders with tokenizer and README.md, for transformers 4.57 and 5."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from kitae.core.artifact import MANIFEST, Inputs, Out, newest, read_manifest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.models.families import FAMILIES
from kitae.models.folder import Part, read_parts, write_huggingface, write_kitae
from kitae.procedures.classifier import USE
from kitae.report import card
from kitae.tokenization import folder as definitions
from kitae.tokenization import japanese

VERSION = 1

USES = {
    "mlm": "logits = model(**batch).logits  # at [MASK]: what the vocabulary's tokens are worth there",
    "pretraining": "found = model(**batch)  # prediction_logits of tokens; seq_relationship_logits of pairs: 0 is the text's own order",
    "rtd": "logits = model(**batch).logits  # positive: the token was replaced",
    "sequence": "logits = model(**batch).logits\nprint([model.config.id2label[i] for i in logits.argmax(-1).tolist()])",
    "token": "logits = model(**batch).logits\nprint([[model.config.id2label[i] for i in row] for row in logits.argmax(-1).tolist()])",
    "span": "found = model(**batch)  # found.start_logits and found.end_logits of every token; give the question as TEXT, the text as pair",
    "choice": "batch = {name: tensor[None] for name, tensor in batch.items()}  # one question, of which every text is a choice\n"
    "logits = model(**batch).logits",
    "none": "vectors = model(**batch).last_hidden_state",
}
JAPANESE = "BertJapaneseTokenizer"
NO_CLASSES = ("modernbert",)
"""Families for which AutoTokenizer of transformers 5 passes over the class that a folder names."""
ENCODER_ALONE = "transformers has no class for the head and reads the encoder alone; kitae reads both"


KITAE = """# transformers has no class for this model
from pathlib import Path

from kitae.models.folder import load, read_parts

models = {name: load(part) for name, part in read_parts(Path("FOLDER")).items()}"""
CHARACTERS = """# transformers has no class for this model
from pathlib import Path

import torch

from kitae.models.folder import load, read_parts
from kitae.tasks.batches import collate, encode
from kitae.tokenization.tokenizer import Tokenizer

folder = Path("FOLDER")
tokenizer, model = Tokenizer.load(folder), load(read_parts(folder)["encoder"])
text = encode(tokenizer, "TEXT", max_length=model.config.positions)
batch = collate([text], [[0]], pad=tokenizer.special.pad, numbers=[0])
with torch.no_grad():
    vectors = model.encoder(batch.ids_BL, batch.layout, None, batch.chars_WC)"""
"""For models that read characters."""
LABELS = """# transformers has no class for this model
from pathlib import Path

from kitae.procedures.predict import Predictor

predictor = Predictor.load(Path("FOLDER"))  # or: kitae predict
print([prediction.label for prediction in predictor.predict(["TEXT"])])"""
"""For classifiers that read characters."""


class ExportConfig(Config):
    """What to export, and as what."""

    formats: tuple[Literal["huggingface"], ...] = Field(("huggingface",), min_length=1)
    """Kinds of folders. "huggingface": config.json, model.safetensors, the tokenizer's files and README.md. Models that transformers has
    no class for (Electric's generator) get model.json and weights.safetensors in the place of the first two, which only kitae reads."""


def sources(config: ExportConfig) -> tuple[str, ...]:
    """None: what is exported comes from the parents."""
    return ()


def run(config: ExportConfig, inputs: Inputs, out: Out) -> None:
    """Write one folder per parent: the model itself, or generator/ and discriminator/. Raises KitaeError for a damaged model."""
    written: dict[str, object] = {}
    for role, folder in inputs.parents.items():
        place = newest(folder)
        parts = read_parts(place)
        for name, part in parts.items():
            target = out.path / role / name if len(parts) > 1 else out.path / role
            told = _export(name, part, place, target)
            family = FAMILIES[part.family]
            title, manifests = f"{family.title} {family.heads[part.head].title} ({role})", _manifests(folder, place, inputs.parents)
            architecture, auto = family.written_as(part.head, part.config)
            library = "transformers" if auto else "kitae"
            card.write(target, title=title, manifests=manifests, usage=_usage(part, told, target), library=library)
            if auto and not architecture:  # transformers reads the encoder
                architecture = family.heads["none"].architecture
            written[target.relative_to(out.path).as_posix()] = architecture or "kitae"
        for licence in _licences(folder):
            if licence not in out.licences:
                out.licences.append(licence)
    out.counts["folders"] = written


def _export(name: str, part: Part, place: Path, target: Path) -> str:
    """Write one folder, for transformers where it has a class for the model, else for kitae alone; returns what transformers has to be
    told of the tokenizer's dictionary."""
    tokenizer = place / "tokenizer"
    if not tokenizer.is_dir():
        raise KitaeError(f"{place.name} has no tokenizer folder", cure="train it again with this version of kitae", where=str(place))
    definition = definitions.read(tokenizer)
    part = dataclasses.replace(part, config=part.config.padded(definition.special.pad))  # presets do not know it
    if any(FAMILIES[part.family].written_as(part.head, part.config)):
        write_huggingface(part, target)
    else:
        write_kitae(name, part, target)
    shutil.copytree(tokenizer, target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "README.md", "config.json"))
    longest = part.config.positions
    if (place / USE).is_file():  # a classifier's own length travels with it, so that it predicts the same
        shutil.copyfile(place / USE, target / USE)
        longest = int(json.loads((place / USE).read_text(encoding="utf-8"))["max_length"])
    settings = target / "tokenizer_config.json"
    if settings.is_file():  # so that truncation=True cuts where the model ends
        raw = json.loads(settings.read_text(encoding="utf-8")) | {"model_max_length": longest}
        if part.config.segment_kinds < 2:  # transformers would look the second text's kind up beyond the end of the table
            raw["model_input_names"] = [name for name in raw["model_input_names"] if name != "token_type_ids"]
        settings.write_text(json.dumps(raw, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return japanese.arguments(definition.spec) if settings.is_file() else ""


def _manifests(folder: Path, place: Path, parents: Mapping[str, Path]) -> list[Path]:
    """The model's own records, then those of the other exported models that it came from."""
    own = [path for path in dict.fromkeys((folder, place)) if (path / MANIFEST).is_file()]
    lineage = read_manifest(folder).facts.get("lineage") if (folder / MANIFEST).is_file() else None
    known = lineage if isinstance(lineage, dict) else {}
    return own + [path for role, path in parents.items() if path != folder and role in known and (path / MANIFEST).is_file()]


def _licences(folder: Path) -> list[dict[str, str]]:
    if not (folder / MANIFEST).is_file():
        return []
    listed = read_manifest(folder).facts.get("licences")
    return [{str(key): str(value) for key, value in entry.items()} for entry in listed] if isinstance(listed, list) else []


def _usage(part: Part, told: str, folder: Path) -> str:
    architecture, auto = FAMILIES[part.family].written_as(part.head, part.config)
    if not auto:
        return KITAE if not part.config.word_characters else LABELS if part.head == "sequence" else CHARACTERS
    use = USES[part.head] if architecture else f"{USES['none']}  # {ENCODER_ALONE}"
    settings = folder / "tokenizer_config.json"
    japanese_words = settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") == JAPANESE
    reader = JAPANESE if part.family in NO_CLASSES and japanese_words else "AutoTokenizer"
    return f"""from transformers import {reader}, {auto}

tokenizer = {reader}.from_pretrained("FOLDER"{f", {told}" if told else ""})
model = {auto}.from_pretrained("FOLDER").eval()
batch = tokenizer(["TEXT"], padding=True, truncation=True, return_tensors="pt")
{use}"""
