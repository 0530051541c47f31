"""Model folders on disk -> parts in our names, and back: kitae checkpoints, Hugging Face folders, ELECTRA's pairs of them."""

import itertools
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor, nn

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.models.convert import State, from_huggingface, modern, to_huggingface
from kitae.models.encoder import Encoder, EncoderConfig
from kitae.models.families import FAMILIES, bare, family_of
from kitae.models.family import LABELLED, Family, Head, HeadForm, Model
from kitae.models.settings import check_head, labels_of, parse_config, read_config, to_config, to_huggingface_config
from kitae.models.weights import WORKING, gather, read_weights

log = logging.getLogger(__name__)
FORMAT = 1
HALVES: Mapping[str, Head] = {"generator": "mlm", "discriminator": "rtd"}
"""Folders of ELECTRA's and DeBERTaV3's pairs, and their heads."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One model of a folder: numbers, weights in our names ("encoder...", "head..."), and the labels of a classifier."""

    family: str
    head: Head
    """What the model is for; "none" is a bare encoder."""
    config: EncoderConfig
    state: Mapping[str, Tensor]
    labels: tuple[str, ...] = ()


class _Entry(Config):
    """A part in model.json."""

    family: str
    """model_type."""
    head: Head
    """Kind of the head."""
    config: dict[str, object]
    """Fields of the family's config."""
    labels: tuple[str, ...] = ()
    """Names of what a classifier tells apart."""


def read_parts(folder: Path) -> dict[str, Part]:
    """The models of a folder by name: "encoder", or "generator" and "discriminator" (one of them, or both).

    A kitae checkpoint (model.json), a Hugging Face folder (config.json) or a folder with generator/ and discriminator/.
    Weights are memory-mapped. Raises KitaeError for anything missing, left over, mis-shaped or not finite, by name.
    """
    if (folder / "model.json").is_file():
        return _read_kitae(folder)
    if (folder / "config.json").is_file():
        part = _read_huggingface(folder)
        return {_name(part): part}
    halves = {
        name: folder / name for name in HALVES if (folder / name / "config.json").is_file() or (folder / name / "model.json").is_file()
    }
    if not halves:
        if not folder.is_dir():
            raise KitaeError(f"{folder} does not exist", cure="give a checkpoint or a Hugging Face folder")
        raise KitaeError(f"{folder} holds no model", cure="give a folder with model.json, config.json, or generator/ and discriminator/")
    parts = {}
    for name, path in halves.items():
        kitae = (path / "model.json").is_file()
        parts[name] = part = next(iter(_read_kitae(path).values())) if kitae else _read_huggingface(path)
        if HALVES[name] != part.head:
            raise KitaeError(f"{name}/ holds a model with the head {part.head}", cure="put the halves in their places", where=str(folder))
    return parts


def load(part: Part, *, dropout: float | None = None) -> Model:
    """The module of a part with its weights, in evaluation mode. Bare encoders have no module of their own: see `load_encoder`."""
    if part.head == "none":
        raise KitaeError("the folder holds an encoder without a head", cure="give a folder of a model with the head that is needed")
    model = bare(part.config, part.head, num_labels=len(part.labels), dropout=dropout).to_empty(device="cpu")
    model.load_state_dict(dict(part.state))
    return model.eval()


def load_encoder(encoder: Encoder, part: Part) -> None:
    """Copy a part's encoder weights into an encoder of the same numbers, whatever its head."""
    root = "encoder."
    encoder.load_state_dict({name.removeprefix(root): tensor for name, tensor in part.state.items() if name.startswith(root)})


def load_pooler(model: Model, part: Part, head: Head) -> None:
    """Copy what pre-training left of this head of the model: modules that have one name in Hugging Face's folders, if they are there.

    BERT's pooler is one: trained with pairs of segments, it goes on as a part of the classifier, as in the paper. Heads of tasks stay new.
    """
    if part.head not in ("pretraining", "none"):
        return
    forms = FAMILIES[part.family].heads
    known = {theirs: ours for ours, theirs in forms[part.head].rows}
    modules = {ours: known[theirs] for ours, theirs in forms[head].rows if theirs in known}
    own = model.state_dict()
    with torch.no_grad():
        for (mine, theirs), leaf in itertools.product(modules.items(), (".weight", ".bias")):
            if theirs + leaf in part.state:
                own[mine + leaf].copy_(part.state[theirs + leaf])


def describe(part: Part) -> dict[str, object]:
    """A part's entry in model.json."""
    return {"family": part.family, "head": part.head, "config": part.config.model_dump(), "labels": list(part.labels)}


def write_huggingface(part: Part, folder: Path) -> None:
    """Write config.json and model.safetensors (fp32, without tied copies) into a folder, for transformers 4.57 and 5, or, for families
    that it lacks, for the code of their authors.

    Raises KitaeError when neither knows anything of such a model; see `write_kitae` for those.
    """
    family = FAMILIES[part.family]
    form = family.heads[part.head]
    architecture, auto = family.written_as(part.head, part.config)
    if not architecture and not auto:
        raise KitaeError(f"transformers has no class for this model ({family.title}, {form.title})", cure="keep it as a kitae folder")
    folder.mkdir(parents=True, exist_ok=True)
    state = to_huggingface(part.state, (*family.rows, *form.table(part.config)), layers=part.config.num_hidden_layers)
    if form.untied(part.config):  # transformers 5 then reads the bias under its second name, 4.57 under its first
        state |= {copy: state[original] for copy, original in form.tied if original.endswith(".bias")}
    state = family.outward(state, part.config)
    if part.head == "none":
        state = {name.removeprefix(f"{family.root}."): tensor for name, tensor in state.items()}
    tensors = {name: tensor.detach().to("cpu", torch.float32).clone().contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    raw = to_huggingface_config(part.config, architecture=architecture, labels=part.labels)
    (folder / "config.json").write_text(json.dumps(raw, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_kitae(name: str, part: Part, folder: Path) -> None:
    """Write model.json and weights.safetensors (fp32): for models that transformers has no class for. `read_parts` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"{name}.{key}": tensor.detach().to("cpu", torch.float32).clone().contiguous() for key, tensor in part.state.items()}
    save_file(tensors, folder / "weights.safetensors")
    raw = {"format": FORMAT, "parts": {name: describe(part)}}
    (folder / "model.json").write_text(json.dumps(raw, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _name(part: Part) -> str:
    if part.head == "rtd":
        return "discriminator"
    halved = part.family == "electra" and part.head == "mlm"
    return "generator" if halved else "encoder"  # others' masked language models stand alone


def _read_kitae(folder: Path) -> dict[str, Part]:
    raw = read_config(folder / "model.json")
    where = str(folder / "model.json")
    entries = raw.get("parts")
    if raw.get("format") != FORMAT or not isinstance(entries, dict):
        raise KitaeError(
            f"model.json has format {raw.get('format')!r}", cure="read it with the version of kitae that wrote it", where=where
        )
    weights = _added_up(read_weights(folder / "weights.safetensors"), raw.get("differences", {}), where=where)
    parts = {}
    for name, entry in entries.items():
        state = {key.removeprefix(f"{name}."): weights.pop(key) for key in list(weights) if key.startswith(f"{name}.")}
        parts[name] = _part(entry, state, where=where)
    if weights:
        raise KitaeError(
            f"weights have no place in the model: {', '.join(sorted(weights)[:3])}", cure="make the checkpoint again", where=where
        )
    for name, part in parts.items():
        _check(part, where=f"{folder / 'weights.safetensors'}, part {name}")
    return parts


def _part(entry: object, state: State, *, where: str) -> Part:
    """A part from its entry in model.json, as `describe` writes it."""
    try:
        said = _Entry.model_validate(entry)
    except ValidationError as error:
        first = error.errors()[0]
        what = f"model.json: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise KitaeError(what, cure="take the model.json that belongs to the weights", where=where) from error
    family = family_of(said.family, where=where)
    if said.head not in family.heads:
        what = f'model.json: {family.title} has no head "{said.head}"'
        raise KitaeError(what, cure=did_you_mean(said.head, family.heads), where=where)
    config = parse_config({"model_type": said.family, **said.config}, family, where=where)
    return Part(family=said.family, head=said.head, config=config, state=state, labels=said.labels)


def _added_up(weights: State, differences: object, *, where: str) -> State:
    """The weights with whole tables where the checkpoint holds differences (`kitae.models.gdes.DisentangledTable`)."""
    if not isinstance(differences, dict):
        raise KitaeError("model.json has differences that are no table", cure="make the checkpoint again", where=where)
    for name, base in differences.items():
        delta, table = weights.pop(f"{name}.delta", None), weights.get(f"{base}.weight")
        if delta is None or table is None or delta.shape != table.shape:
            raise KitaeError(f"weight {name}.delta or what it adds to is missing", cure="make the checkpoint again", where=where)
        weights[f"{name}.weight"] = table + delta
    return weights


def _read_huggingface(folder: Path) -> Part:
    where = str(folder / "config.json")
    raw = read_config(folder / "config.json")
    if not isinstance(raw.get("model_type"), str):
        raise KitaeError("config.json names no model_type", cure=f"known are {', '.join(sorted(FAMILIES))}", where=where)
    family = family_of(str(raw["model_type"]), where=where)
    config = to_config(raw, family, where=where)
    state = family.older_names(modern(gather(folder), where=str(folder)))
    head = _head(raw, family, state, where=where)
    form = family.heads[head]
    check_head(raw, form, where=where)
    state = family.inward(_own_weights(state, family, form, config, where=str(folder)), config)
    ours = from_huggingface(state, (*family.rows, *form.table(config)), layers=config.num_hidden_layers, where=str(folder))
    labels = labels_of(raw, where=where) if head in LABELLED else ()
    part = Part(family=str(raw["model_type"]), head=head, config=config, state=ours, labels=labels)
    _check(part, where=str(folder))
    return part


def _head(raw: Mapping[str, object], family: Family, state: State, *, where: str) -> Head:
    """The head by the architecture in config.json, or, when it names none, by the weights."""
    names = raw.get("architectures")
    if names:
        if not isinstance(names, list):
            raise KitaeError(f"architectures = {names!r} is not a list", cure="correct config.json", where=where)
        head = family.head_of(str(names[0]))
        if head is None:
            known = ", ".join(form.architecture for form in family.heads.values() if form.architecture)
            raise KitaeError(f"architecture {names[0]} is not supported", cure=f"supported are {known}", where=where)
        return head
    for head, form in family.heads.items():
        if (
            (form.auto or form.architecture)
            and form.rows
            and all(any(key.startswith(str(theirs)) for key in state) for _, theirs in form.rows)
        ):
            return head
    return "none"


def _own_weights(state: State, family: Family, form: HeadForm, config: EncoderConfig, *, where: str) -> State:
    """Without buffers, tied copies (which must be equal) and heads that the class does not use; with the encoder's prefix."""
    root = f"{family.root}."
    if not any(name.startswith(root) for name in state):
        state = {root + name if name.startswith(family.bodies) else name: tensor for name, tensor in state.items()}
    kept = {name: tensor for name, tensor in state.items() if not name.endswith(("embeddings.position_ids", "embeddings.token_type_ids"))}
    for copy, original in form.tied:
        tensor = kept.pop(copy, None)
        if tensor is None:
            continue
        if form.untied(config):  # the table is no copy; of the bias's two names transformers 5 reads this one
            kept[original if original.endswith(".bias") else copy] = tensor
            continue
        if original in kept and not torch.equal(tensor, kept[original]):
            raise KitaeError(
                f"{copy} differs from {original}",
                cure="where they are meant to differ, set tie_word_embeddings = false in config.json",
                where=where,
            )
        kept.setdefault(original, tensor)
    unused = sorted(name for name in kept if form.unused and name.startswith(form.unused))
    if unused:
        log.info("%s: not used by %s: %s", where, form.architecture, ", ".join(unused))
    return {name: tensor for name, tensor in kept.items() if name not in unused}


def _check(part: Part, *, where: str) -> None:
    """Every weight there, of its shape, finite. Raises KitaeError naming the first that is not."""
    expected = _shapes(part)
    absent = sorted(set(expected) - set(part.state))
    extra = sorted(set(part.state) - set(expected))
    if absent or extra:
        kind, names = ("is missing", absent) if absent else ("has no place in the model", extra)
        more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
        raise KitaeError(f"weight {names[0]}{more} {kind}", cure="use a folder whose config matches its weights", where=where)
    for name, tensor in part.state.items():
        if tensor.shape != expected[name]:
            raise KitaeError(
                f"weight {name} has the shape {tuple(tensor.shape)}, not {tuple(expected[name])}",
                cure="use a folder whose config matches its weights",
                where=where,
            )
        if tensor.dtype not in (torch.float32, *WORKING):
            what = f"weight {name} holds numbers of the type {str(tensor.dtype).removeprefix('torch.')}"
            raise KitaeError(what, cure="use a model in fp32, bf16 or fp16, not a quantized one", where=where)
        if not bool(torch.isfinite(tensor).all()):
            raise KitaeError(f"weight {name} holds numbers that are not finite", cure="use an earlier checkpoint", where=where)


def _shapes(part: Part) -> dict[str, torch.Size]:
    if part.head == "none":
        with torch.device("meta"):
            encoder, pooler = FAMILIES[part.family].encoder(part.config), nn.Linear(part.config.hidden_size, part.config.hidden_size)
        passed = {f"head.dense.{name}": tensor.shape for name, tensor in pooler.state_dict().items()} if _pooler(part) else {}
        return {f"encoder.{name}": tensor.shape for name, tensor in encoder.state_dict().items()} | passed
    return {name: tensor.shape for name, tensor in bare(part.config, part.head, num_labels=len(part.labels)).state_dict().items()}


def _pooler(part: Part) -> bool:
    """Whether a bare encoder brings the pooler of transformers' class, which kitae keeps but does not use."""
    return any(name.startswith("head.") for name in part.state)
