"""`kitae evaluate FOLDER TEXT`: any model on any text, without training, by the very code that measures a training's held-out text."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from kitae.core.artifact import newest
from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.recipe import validate
from kitae.data.sampler import DatasetFacts
from kitae.models.compose import Discriminator
from kitae.models.folder import Part, read_parts
from kitae.objectives import table
from kitae.objectives.electric import ElectricObjective
from kitae.objectives.mlm import MaskingConfig, MlmConfig
from kitae.objectives.protocol import Objective
from kitae.procedures.any_text import Reading, as_dataset
from kitae.procedures.finetuned import FINETUNED
from kitae.procedures.fitting import MOST_TOKENS, device_named, read_tokenizer
from kitae.procedures.heldout import HeldoutMeter
from kitae.procedures.labelled import Layout, measure_labels
from kitae.procedures.origin import Origin, origin
from kitae.procedures.score import is_electric, likelihood_of_rows
from kitae.report.tables import Cell, Table, comma_separated
from kitae.tensor.world import World
from kitae.text.clean import Normalization
from kitae.tokenization.tokenizer import Tokenizer

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp64": torch.float64}
SHARED = tuple(MaskingConfig.model_fields)
"""Settings that every objective has."""
KINDS = (".json", ".csv")


class MeasureConfig(Config):
    """Settings of `kitae evaluate FOLDER TEXT`, given by `--set`. What is left out is as in the recipe that trained the model, as far as
    its folder says it."""

    output: str | None = None
    """A file to write the scores to, with all digits: NAME.json (with settings and counts) or NAME.csv."""
    rows: Annotated[int, Field(ge=1)] = 1024
    """At most so many rows of each text are measured: a fair sample of it, and the same for every model with this tokenizer."""
    documents: Annotated[int, Field(ge=1)] | None = None
    """At most so many documents of each text are read, the first ones."""
    max_length: Annotated[int, Field(ge=8)] | None = None
    """Positions of a row. Default: as in training; else what the model has, at most 512."""
    packing: Literal["documents", "sentences"] | None = None
    """How text lies in rows, see [dataset]. Default: as in training, else "documents"."""
    objective: Literal["mlm", "rtd", "electric"] | None = None
    """What is measured. Default: what the folder's models have learnt; of a discriminator alone how it finds tokens drawn at random."""
    objective_config: dict[str, object] = Field(default_factory=dict)
    """Overrides of the objective's fields: rate, unit, replacement, ... Default: as in training."""
    format: str | None = None
    """Format of raw text, see [corpus]. Default: csv, tsv, jsonl or parquet by the name's ending, else "text"."""
    encoding: str | None = None
    """Encoding of raw text; by default UTF-8."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    """Columns of a table that hold the text (of a fine-tuned model also several). Default: those of its task, or "text"."""
    label: str | None = None
    """Column of a table that holds the label, for fine-tuned models; by default "label"."""
    task: dict[str, object] = Field(default_factory=dict)
    """Of labelled files, for fine-tuned models: how they are written, in the keys of [task.NAME] (second, choices, format, format_config,
    ...); `like` names a published task whose files they are. Default: as in training."""
    language: Literal["ja", "en"] | None = None
    """Whose sentence ends are looked for. Default: as in training, else "ja"."""
    normalization: Normalization | None = None
    """Unicode normal form of raw text. Default: as in training, else "nfkc"."""
    precision: Literal["fp32", "bf16", "fp64"] = "fp32"
    """Of weights and activations. A training in bf16 measures its own held-out text in bf16."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute; "auto" takes CUDA when there is one."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Scores of a model by source of text, and of all its sources together."""

    model: str
    """What the folder holds."""
    what: str
    """What was measured: an objective, or a kind of task."""
    settings: Mapping[str, object]
    """Those that decide the numbers."""
    counts: Mapping[str, Mapping[str, int]]
    """Of every source: rows or texts that were measured, and that there are."""
    sources: Mapping[str, Mapping[str, float]]
    together: Mapping[str, float]

    def table(self) -> Table:
        """A row for every score, a column for every source."""
        names = list(self.sources)
        several = len(names) > 1
        found = list(dict.fromkeys(score for scores in (*self.sources.values(), self.together) for score in scores))
        counted = list(dict.fromkeys(count for counts in self.counts.values() for count in counts))
        rows: list[list[Cell]] = [[count, *(self.counts[name].get(count) for name in names), *([None] * several)] for count in counted]
        for score in found:
            values: list[Cell] = [self.sources[name].get(score) for name in names]
            rows.append([score, *values, *([self.together.get(score)] if several else [])])
        return Table(title="", columns=["score", *names, *(["all"] * several)], rows=rows, digits=4)

    def json(self) -> dict[str, object]:
        """Everything, with all digits."""
        by_source = {name: {"counts": dict(self.counts[name]), "scores": dict(scores)} for name, scores in self.sources.items()}
        head: dict[str, object] = {"model": self.model, "measured": self.what, "settings": dict(self.settings)}
        return head | {"sources": by_source, "all": dict(self.together)}


def measure(folder: Path, texts: Sequence[str], config: MeasureConfig | None = None) -> Measured:
    """Measure what the folder's models can do on texts (see `as_dataset`; for a fine-tuned one `measure_labels`).

    The same weights, text and settings give the numbers that a training records as its held-out scores. Raises KitaeError for whatever
    a user can get wrong: no such folder or text, a tokenizer that is absent, labels that the model does not know, ...
    """
    config = config or MeasureConfig()
    _check_output(config)
    place = newest(folder)
    parts = read_parts(place)
    title = ", ".join(part.title for part in parts.values())
    if (part := parts.get("encoder")) is not None and part.head in FINETUNED:
        layout = Layout(columns=config.columns, label=config.label, task=config.task)
        found = measure_labels(folder, texts, layout, device=config.device)
        counts = {name: {"texts": number} for name, number in found.texts.items()}
        made = Measured(
            model=title, what=found.kind, settings=found.settings, counts=counts, sources=found.sources, together=found.together
        )
    else:
        made = _pretrained(place, parts, texts, config, title=title)
    if config.output is not None:
        _write(Path(config.output), made)
    return made


def _pretrained(place: Path, parts: Mapping[str, Part], texts: Sequence[str], config: MeasureConfig, *, title: str) -> Measured:
    known = origin(place)
    name = config.objective or _can(parts, place)
    home = next((place / half for half in ("generator", "discriminator") if (place / half).is_dir()), place)
    tokenizer = read_tokenizer(home, next(iter(parts.values())))
    reading = _reading(config, known, parts)
    with tempfile.TemporaryDirectory(prefix="kitae-evaluate-") as temporary:
        written = home / "tokenizer" if (home / "tokenizer").is_dir() else home
        dataset = as_dataset(texts, written, reading, Path(temporary))
        facts = DatasetFacts.read(dataset)
        settings = _settings(name, config, known, parts, facts)
        objective = _objective(parts, settings, tokenizer).to(device_named(config.device), DTYPES[config.precision]).eval()
        world = World(device=device_named(config.device))
        meter = HeldoutMeter(objective, dataset, world=world, rows=config.rows)
        if not meter.rows:
            raise KitaeError("the data set holds no text out", cure="give a text, or make its corpus with holdout", where=texts[0])
        with torch.no_grad():
            scores = meter(0)
        sources = {source: _below(scores, f"heldout/{source}/") for source in meter.rows}
        together = {key.removeprefix("heldout/"): value for key, value in scores.items() if key.count("/") == 1}
        if isinstance(objective, ElectricObjective):
            for source, (total, count) in _likelihoods(objective.discriminator, meter, world.device).items():
                (sources[source] if source else together)["log_likelihood_per_token"] = total / max(count, 1)
    said = {"objective": name, "objective_config": settings.model_dump(mode="json"), "max_length": facts.max_length}
    said |= {"packing": facts.packing, "precision": config.precision, "language": reading.language, "normalization": reading.normalization}
    counts = {source: {"rows measured": rows.measured, "rows": rows.all} for source, rows in meter.rows.items()}
    return Measured(model=title, what=name, settings=said, counts=counts, sources=sources, together=together)


def _below(scores: Mapping[str, float], head: str) -> dict[str, float]:
    return {name.removeprefix(head): value for name, value in scores.items() if name.startswith(head)}


def _can(parts: Mapping[str, Part], place: Path) -> str:
    """The objective that these models can be asked for."""
    if is_electric(parts):
        return "electric"
    if "discriminator" in parts:
        return "rtd"
    part = parts.get("generator") or parts["encoder"]
    if part.head not in ("mlm", "pretraining"):
        cure = "give a masked language model, an ELECTRA's discriminator or pair, an Electric or a fine-tuned model"
        raise KitaeError(f"nothing can be measured of {part.title}", cure=cure, where=str(place))
    return "mlm"


def _settings(name: str, config: MeasureConfig, known: Origin, parts: Mapping[str, Part], facts: DatasetFacts) -> Config:
    """The objective's: as in training, without what a folder or a text lacks, and the user's on top."""
    alone = name == "rtd" and "generator" not in parts
    own = dict(known.objective_config)
    if name != known.objective or alone:
        own = {key: value for key, value in own.items() if key in SHARED and not (alone and key == "replacement")}
    if alone:
        own["uniform_generator"] = True
    kind = table.row(name).config
    if facts.pairs is None and "sentence_order" in own:
        own = {key: value for key, value in own.items() if not key.startswith("sentence_order")}
    forced = {"embedding_sharing": "none", "optimizers": "joint"} if not alone and name != "mlm" else {}
    own = {key: value for key, value in own.items() if key != "generator_learning_rate"}  # of training alone
    return validate(kind, {**own, **forced, **config.objective_config}, "--set", "objective_config")


def _objective(parts: Mapping[str, Part], settings: Config, tokenizer: Tokenizer) -> Objective:
    if isinstance(settings, MlmConfig):
        parts = {name: part for name, part in parts.items() if name != "discriminator"}
        if not parts:
            raise KitaeError("a discriminator predicts no tokens", cure='leave objective = "mlm" out, or give its generator')
    return table.load(parts, settings, tokenizer.special, tokenizer.vocab_size)


def _reading(config: MeasureConfig, known: Origin, parts: Mapping[str, Part]) -> Reading:
    positions = min(part.config.positions for part in parts.values())
    length = config.max_length or known.dataset.get("max_length") or min(positions, MOST_TOKENS)
    if not isinstance(length, int) or length > positions:
        raise KitaeError(f"max_length = {length}, but the model has {positions} positions", cure=f"set max_length = {positions} or less")
    trained = {"packing": known.dataset.get("packing"), "language": known.corpus.get("language")}
    trained["normalization"] = known.corpus.get("normalization")
    if trained["packing"] == "pairs":  # that is for data sets: a text has no pairs
        trained["packing"] = "sentences"
    defaults = {"packing": "documents", "language": "ja", "normalization": "nfkc"}
    chosen = {name: getattr(config, name) or trained[name] or default for name, default in defaults.items()}
    columns = config.columns or ("text",)
    if len(columns) > 1:
        raise KitaeError("one column of a table is text to pre-train on", cure="name one in `columns`")
    own = {"max_length": length, "format": config.format, "column": columns[0], "encoding": config.encoding}
    return Reading.model_validate({**own, "documents": config.documents, **chosen})


def _likelihoods(model: Discriminator, meter: HeldoutMeter, device: torch.device) -> dict[str, tuple[float, int]]:
    """Of every source and, as "", of all: the pseudo-log-likelihood of its rows, and their tokens."""
    found = {source: likelihood_of_rows(model, meter.batches(source), device) for source in meter.rows}
    return found | {"": (sum(total for total, _ in found.values()), sum(count for _, count in found.values()))}


def _check_output(config: MeasureConfig) -> None:
    if config.output is None:
        return
    path = Path(config.output)
    if path.suffix.lower() not in KINDS:
        raise KitaeError(f"the output {path.name} has no known format", cure=f"name it {' or '.join(KINDS)}", where=str(path))
    if not path.parent.is_dir():
        raise KitaeError(f"the folder {path.parent} does not exist", cure="make it, or write elsewhere", where=str(path))


def _write(path: Path, measured: Measured) -> None:
    temporary = path.with_name(f".{path.name}.part")
    if path.suffix.lower() == ".json":
        text = json.dumps(measured.json(), ensure_ascii=False, indent=1) + "\n"
    else:
        text = comma_separated(measured.table())
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
