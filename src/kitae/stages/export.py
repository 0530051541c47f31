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
from kitae.models.folder import Part, read_parts
from kitae.procedures.handing import Handed, handed
from kitae.procedures.usage import usage
from kitae.report import card
from kitae.tokenization import folder as definitions
from kitae.tokenization import japanese

VERSION = 1


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
            given = handed(_padded(part, place), place)
            told = _export(name, given, place, target)
            what = role if role in inputs.parents else f"{role}; results are those at the end of its run"
            title, manifests = f"{part.title} ({what})", _manifests(folder, place, inputs.parents)
            library = "kitae" if given.alone or not part.known.auto else "transformers"
            code = usage(part, given.use, target, told=told, alone=given.alone)
            card.write(target, title=title, manifests=manifests, usage=code, library=library)
            written[target.relative_to(out.path).as_posix()] = "kitae" if given.alone else part.known.architecture
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


def _padded(part: Part, place: Path) -> Part:
    """With the padding of the tokenizer beside it, which presets do not know. Raises KitaeError when there is none."""
    tokenizer = place / "tokenizer"
    if not tokenizer.is_dir():
        raise KitaeError(f"{place.name} has no tokenizer folder", cure="train it again with this version of kitae", where=str(place))
    return dataclasses.replace(part, config=part.config.padded(definitions.read(tokenizer).special.pad))


def _export(name: str, given: Handed, place: Path, target: Path) -> str:
    """Write one folder; returns what transformers has to be told of the tokenizer's dictionary."""
    given.write(name, target)
    shutil.copytree(place / "tokenizer", target, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, "README.md", "config.json"))
    settings = target / "tokenizer_config.json"
    if not settings.is_file():
        return ""
    config = given.part.config  # a fine-tuned model's own length travels with it, so that it predicts the same
    raw = json.loads(settings.read_text(encoding="utf-8"))
    raw["model_max_length"] = config.positions if given.use is None else given.use.max_length  # truncation=True then cuts there
    if config.segment_kinds < 2:  # transformers would look the second text's kind up beyond the end of the table
        raw["model_input_names"] = [name for name in raw["model_input_names"] if name != "token_type_ids"]
    settings.write_text(json.dumps(raw, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return japanese.arguments(definitions.read(place / "tokenizer").spec)


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
