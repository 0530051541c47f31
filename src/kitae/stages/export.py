"""Trained models -> Hugging Face folders with tokenizer and README.md, for transformers 4.57 and 5."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from kitae.core.artifact import MANIFEST, Inputs, Out, newest, read_manifest
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.models.folder import Part, read_parts, write_model
from kitae.procedures.finetuned import USE
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
from kitae.tasks.batches import collate
from kitae.tasks.encoded import encode
from kitae.tokenization.tokenizer import Tokenizer

folder = Path("FOLDER")
tokenizer, model = Tokenizer.load(folder), load(read_parts(folder)["encoder"])
text = encode(tokenizer, "TEXT", max_length=model.config.positions)
batch = collate([text], [[0]], pad=tokenizer.special.pad, numbers=[0])
with torch.no_grad():
    vectors = model.encoder(batch)"""
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
    checkpoints: Annotated[tuple[str, ...], OPERATIONAL] = ()
    """Checkpoints to export beside the recipe's own models, milestones for example: folders checkpoints/step-... of any run, made before.
    Their content, not their place, enters the fingerprint."""


def sources(config: ExportConfig) -> tuple[str, ...]:
    """The checkpoints beside the parents."""
    return config.checkpoints


def run(config: ExportConfig, inputs: Inputs, out: Out) -> None:
    """Write one folder per parent and checkpoint: the model, or generator/ and discriminator/. Raises KitaeError for a damaged one."""
    written: dict[str, object] = {}
    models = {role: (folder, newest(folder)) for role, folder in inputs.parents.items()} | _checkpoints(config)
    for role, (folder, place) in models.items():
        parts = read_parts(place)
        for name, part in parts.items():
            target = out.path / role / name if len(parts) > 1 else out.path / role
            told = _export(name, part, place, target)
            what = role if role in inputs.parents else f"{role}; results are those at the end of its run"
            title, manifests = f"{part.title} ({what})", _manifests(folder, place, inputs.parents)
            library = "transformers" if part.known.auto else "kitae"
            card.write(target, title=title, manifests=manifests, usage=_usage(part, told, target), library=library)
            written[target.relative_to(out.path).as_posix()] = part.known.architecture or "kitae"
        for licence in _licences(folder):
            if licence not in out.licences:
                out.licences.append(licence)
    out.counts["folders"] = written


def _checkpoints(config: ExportConfig) -> dict[str, tuple[Path, Path]]:
    """Name of the exported folder -> (run, checkpoint) of those beside the parents."""
    found: dict[str, tuple[Path, Path]] = {}
    for path in map(locate, config.checkpoints):
        run = path.absolute().parent.parent
        name = f"{run.name}-{path.name}"
        if path.absolute().parent.name != "checkpoints":
            raise KitaeError("export.checkpoints names no checkpoint", cure="name a folder checkpoints/step-... of a run", where=str(path))
        if name in found:
            raise KitaeError(f"two checkpoints would be exported as {name}", cure="export one at a time", where=str(path))
        found[name] = (run, newest(path))
    return found


def _export(name: str, part: Part, place: Path, target: Path) -> str:
    """Write one folder; returns what transformers has to be told of the tokenizer's dictionary."""
    tokenizer = place / "tokenizer"
    if not tokenizer.is_dir():
        raise KitaeError(f"{place.name} has no tokenizer folder", cure="train it again with this version of kitae", where=str(place))
    definition = definitions.read(tokenizer)
    part = dataclasses.replace(part, config=part.config.padded(definition.special.pad))  # presets do not know it
    write_model(name, part, target)
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
    known = part.known
    if not known.auto:
        return KITAE if not part.config.word_characters else LABELS if part.head == "sequence" else CHARACTERS
    use = USES[part.head] if known is part.form else f"{USES['none']}  # {ENCODER_ALONE}"
    settings = folder / "tokenizer_config.json"
    japanese_words = settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") == JAPANESE
    reader = JAPANESE if part.config.model_type in NO_CLASSES and japanese_words else "AutoTokenizer"
    return f"""from transformers import {reader}, {known.auto}

tokenizer = {reader}.from_pretrained("FOLDER"{f", {told}" if told else ""})
model = {known.auto}.from_pretrained("FOLDER").eval()
batch = tokenizer(["TEXT"], padding=True, truncation=True, return_tensors="pt")
{use}"""
