"""Raw text -> Corpus. Read, clean, split into sentences, drop what is empty, short, contaminated or double, hold some out."""

import json
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from datatrove.pipeline.base import PipelineStep
from pydantic import Field, field_validator, model_validator

from kitae.core.artifact import Inputs, Out
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import did_you_mean
from kitae.core.paths import file_name, fit, is_url, locate, unfit
from kitae.tasks.config import TaskConfig
from kitae.tasks.examples import Example
from kitae.tasks.records import find, load, read_all
from kitae.text import account
from kitae.text.build import Built, Holdout, build
from kitae.text.clean import Normalization
from kitae.text.decontaminate import Index, build_index, missing, save_index
from kitae.text.encodings import known as known_encoding
from kitae.text.executors import Engine
from kitae.text.filters import Filter, Filters
from kitae.text.format import Columns
from kitae.text.private import MaskPrivate, Private
from kitae.text.readers import READERS, known
from kitae.text.selection import Drop, Keep, Selection
from kitae.text.social import CleanSocial, FullWidth, Social
from kitae.text.steps import Clean, Decontaminate, Source
from kitae.text.streams import Errors

log = logging.getLogger(__name__)
VERSION = 3
ENDINGS = (".zst", ".xz", ".bz2", ".gz", ".tar", ".txt", ".jsonl", ".csv", ".tsv", ".zip", ".tgz", ".parquet", ".xbrl", ".xml")
TABLES = ("csv", "tsv", "jsonl", "parquet", "hf")
METADATA = ("date", "language", "language_probability", "annotations")
EVALUATED = ("name", "text", "id", "format")
"""Settings of a task that decide which texts de-contamination looks for."""
LEARNT = (*EVALUATED, "label", "split", "split_seed", "validation_share", "limit")
"""Those that decide which texts are its training texts."""
TASK_PATH = re.compile(r"task:(?P<name>.+)/train")


class SourceConfig(Config):
    """One source of raw text."""

    path: Annotated[str, OPERATIONAL]
    """A file, folder or archive; `sample:NAME` is a packaged text, `task:NAME/train` the training texts of a task.
    A URL (https, s3, ...) is downloaded once; with `#sha256=...` at its end the download is checked."""
    format: str = "text"
    """text (blank line between documents, as CC-100), paragraphs (a document a line), files (a document a file), jsonl, csv, tsv,
    parquet, hf (a dataset saved on disk), wikipedia (its XML dumps), wikiextractor, cirrussearch, oscar, aozora, kyoto, edinet, xbrl,
    ixbrl; or an installed package's."""
    name: str = ""
    """Name in ids, counts and reports; by default the file's name without its endings."""
    encoding: str | None = None
    """Encoding of the files, for example "cp932"; by default UTF-8 (aozora: CP932, edinet: UTF-16)."""
    errors: Errors = "fail"
    """Bytes that are no text in this encoding: "fail" stops, "replace" makes U+FFFD of them, "skip" drops their documents."""
    column: str = "text"
    """Column (key) of the text in csv, tsv, jsonl, parquet and hf; "a.b" is key b of the object a in jsonl. In kyoto: "ja" or "en"."""
    id_column: str | None = None
    """Column (key) of the documents' ids in csv, tsv, jsonl, parquet and hf; by default their numbers."""
    headings: bool = False
    """Keep the headings of sections as lines; only for format = "wikipedia"."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most this many documents, the first ones; for a quick look."""
    max_characters: int | None = Field(default=None, ge=1)
    """Read documents until their raw text has this many characters; what `keep` and `drop` drop does not count."""
    keep: Keep = Keep()
    """Filters by what the format knows of a document (in csv, tsv, jsonl, parquet and hf: by the other columns)."""
    drop: Drop = Drop()
    """The same, for what is not wanted."""
    metadata: dict[str, str] = {}
    """Where the filters find date, language, language_probability and annotations when the format or table calls them otherwise."""
    repeat: int = Field(default=1, ge=1, le=1_000_000)
    """Every document is visited exactly this many times in a pass over the dataset."""
    weight: float | None = Field(default=None, gt=0, le=1e6)
    """Or: this source's share of the rows drawn, in relation to the other sources' weights, whatever its size."""
    licence: str = ""
    """Licence of the text, for the manifest and the model card."""

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in READERS and value not in (names := known()):
            raise ValueError(f'"{value}" is not one of {", ".join(names)}: {did_you_mean(value, names)}')
        return value

    @field_validator("encoding")
    @classmethod
    def _encoding(cls, value: str | None) -> str | None:
        try:
            return value if value is None or known_encoding(value) else None
        except LookupError as error:
            raise ValueError(f'"{value}" is no encoding of text files: use "utf-8", "cp932", "euc_jp" or "utf-16"') from error

    @field_validator("name")
    @classmethod
    def _fit(cls, value: str) -> str:
        return fit(value) if value else value

    @field_validator("metadata")
    @classmethod
    def _names(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if name not in METADATA:
                raise ValueError(f'no filter goes by "{name}": {did_you_mean(name, METADATA)}')
        return value

    @model_validator(mode="after")
    def _one_of_two(self) -> "SourceConfig":
        if self.weight is not None and self.repeat != 1:
            raise ValueError("repeat and weight are two ways to say how often a source is read: remove one")
        return self

    @model_validator(mode="after")
    def _of_format(self) -> "SourceConfig":
        if self.headings and self.format != "wikipedia":
            raise ValueError('headings = true goes with format = "wikipedia" only')
        own = {"format": "text", "encoding": None, "errors": "fail", "column": "text", "id_column": None}
        given = [name for name, default in own.items() if getattr(self, name) != default]
        if self.path.startswith("task:"):
            if given:
                raise ValueError(f"a task says itself how its files are read: remove {given[0]}")
        elif self.format in READERS and self.format not in TABLES:
            idle = [name for name in given if name == "id_column" or (name == "column" and self.format != "kyoto")]
            if idle:
                raise ValueError(f'{idle[0]} goes with {", ".join(TABLES)} only, not with format = "{self.format}"')
        return self

    @model_validator(mode="after")
    def _called(self) -> "SourceConfig":
        if problem := unfit(self.label):
            raise ValueError(f'the name {self.label[:60]!r} that follows from the path does not do: {problem}; say `name = "..."`')
        return self

    @property
    def task(self) -> str | None:
        """The task whose training texts this is, if it is that."""
        match = TASK_PATH.fullmatch(self.path)
        return match["name"] if match else None

    @property
    def label(self) -> str:
        """The source's name, given or derived from its path."""
        if self.name or self.task:
            return self.name or f"{self.task}-train"
        path = self.path.removeprefix("sample:")
        label = file_name(path) if is_url(path) else Path(os.path.normpath(path)).name
        label = Path(path).resolve().name if label in ("", "..") and not is_url(path) else label
        while label.lower().endswith(ENDINGS):
            label = label[: label.rindex(".")]
        return label


class CorpusConfig(Config):
    """Settings of the corpus stage."""

    source: tuple[SourceConfig, ...] = Field(min_length=1)
    """Where the text comes from; de-duplication keeps the first of equal documents in this order."""
    language: Literal["ja", "en"] = "ja"
    """Whose sentence ends are looked for."""
    normalization: Normalization = "nfkc"
    """Unicode normal form: "nfkc", or "none". Blanks and control characters are folded in both cases."""
    min_characters: int = Field(default=1, ge=1)
    """Documents with fewer characters are dropped as "short"."""
    social: tuple[Social, ...] = ()
    """Taken out of posts before sentences are found: "urls", "marks" (RT, @name, #), "kaomoji" (faces in brackets), "laughter" (www)."""
    private: tuple[Private, ...] = ()
    """Replaced by marks: "email" by <EMAIL>, "phone" by <PHONE>, "card" by <CARD>; tokens of the vocabulary keep them whole."""
    full_width: bool = False
    """Write ASCII signs in full width, for a vocabulary made so; its tokenizer must not normalize them back."""
    filters: Filters = Filters()
    """Quality limits; `filters = "web"` takes all of the preset."""
    near_duplicates: float = 0.0
    """Similarity (Jaccard, of character 5-grams), 0.5 to 1, from which on the later of two documents is dropped; 0: only equal ones."""
    holdout: float | str = 0.0
    """A share, or "5000 documents", of every source kept apart for evaluation, by whole document."""
    decontaminate: tuple[str, ...] = ()
    """Names of tasks; documents that contain any of their texts are dropped (but for training texts that are a source here)."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of a task text's (or of the document's) n-grams from which on a document counts as containing it."""
    tasks: tuple[TaskConfig, ...] = ()
    """Definitions of the tasks named above and in `task:NAME/train`; the recipe fills them in."""
    engine: Annotated[Engine, OPERATIONAL] = Engine()
    """Where and in how many processes the corpus is made, for example { executor = "local", tasks = 8, workers = 2 }."""

    @field_validator("filters", mode="before")
    @classmethod
    def _preset(cls, value: object) -> object:
        return {"preset": value} if isinstance(value, str) else value

    @field_validator("near_duplicates")
    @classmethod
    def _similarity(cls, value: float) -> float:
        if value and not 0.5 <= value <= 1:
            raise ValueError(f"the similarity {value} must be 0 (off), or at least 0.5 and at most 1; 0.8 is usual")
        return value

    @field_validator("holdout")
    @classmethod
    def _holdout(cls, value: float | str) -> float | str:
        if isinstance(value, str) and not re.fullmatch(r"[1-9]\d* documents", value):
            raise ValueError(f'"{value}" is neither a share such as 0.02 nor a count such as "5000 documents"')
        if not isinstance(value, str) and not 0 <= value < 1:
            raise ValueError(f"the share {value} must be at least 0 and below 1")
        return value

    @model_validator(mode="after")
    def _names(self) -> "CorpusConfig":
        labels = [source.label for source in self.source]
        double = sorted({label for label in labels if labels.count(label) > 1})
        if double:
            raise ValueError(f'two sources are called "{double[0]}": give them different names (`name = "..."`)')
        bare = [source.label for source in self.source if source.weight is None]
        if bare and len(bare) < len(self.source):
            raise ValueError(f'some sources have a weight, but "{bare[0]}" has none: give every source one, or none')
        return self

    def semantic(self) -> dict[str, object]:
        """As of every `Config`; of a task only what decides the texts that are read: the split and labels of one to be scored do not."""
        settings = super().semantic()
        learnt = {source.task for source in self.source}
        tasks = [(task.semantic(), LEARNT if task.name in learnt else EVALUATED) for task in self.tasks]
        return {**settings, "tasks": [{name: task[name] for name in names} for task, names in tasks]}

    def held_out(self) -> Holdout:
        """`holdout` as numbers."""
        if isinstance(self.holdout, str):
            return Holdout(documents=int(self.holdout.split()[0]))
        return Holdout(share=self.holdout)

    def task_named(self, name: str) -> TaskConfig:
        """A task's definition: the recipe's own, or a built-in one. Raises KitaeError for an unknown name."""
        return next((task for task in self.tasks if task.name == name), None) or find(name)


def sources(config: CorpusConfig) -> tuple[str, ...]:
    """The paths whose contents decide the result: text, and the files of the tasks that are read."""
    names = dict.fromkeys([*(source.task for source in config.source if source.task), *config.decontaminate])
    tasks = [config.task_named(name) for name in names]
    files = [path for task in tasks for path in task.files]
    return tuple(dict.fromkeys([*(source.path for source in config.source if not source.task), *files]))


def run(config: CorpusConfig, inputs: Inputs, out: Out) -> None:
    """Fill `out` with the corpus. Every document read is accounted for in the counts."""
    with out.workplace() as work:
        built, index = _build(config, inputs, out.path, work)
    report = missing(index, built.items_found)
    for name, row in report.items():
        _log_task(name, row, built)
    _write_facts(config, built, report, out)
    out.licences.extend({"name": source.label, "licence": source.licence, "source": source.path} for source in config.source)


def _build(config: CorpusConfig, inputs: Inputs, out: Path, work: Path) -> tuple[Built, Index]:
    prepared = work / "sources"
    prepared.mkdir(exist_ok=True)
    texts = tuple(_source(config, source, prepared, number) for number, source in enumerate(config.source))
    steps = _cleaning(config)
    index = build_index(item for name in config.decontaminate for item in _evaluation_texts(config, name))
    if config.decontaminate:
        save_index(index, prepared / "index.npz")
        # First of all: the tasks' texts are raw, and cleaned or masked copies of them would be missed.
        steps.insert(0, Decontaminate(prepared / "index.npz", overlap=config.overlap))
    built = build(
        texts, steps, holdout=config.held_out(), seed=inputs.seed, engine=config.engine, work=work, out=out,
        similarity=config.near_duplicates,
    )  # fmt: skip
    return built, index


def _cleaning(config: CorpusConfig) -> list[PipelineStep]:
    steps: list[PipelineStep] = [CleanSocial(config.social)] if config.social else []
    steps.append(Clean(normalization=config.normalization, language=config.language, min_characters=config.min_characters))
    if config.filters.limits(config.language):
        steps.append(Filter(config.filters, language=config.language))
    if config.private:
        steps.append(MaskPrivate(config.private))
    if config.full_width:
        steps.append(FullWidth())
    return steps


def _source(config: CorpusConfig, source: SourceConfig, prepared: Path, number: int) -> Source:
    selection = Selection(keep=source.keep, drop=source.drop, names=source.metadata)
    columns = Columns(source.column, source.id_column, source.headings, selection.columns)
    path, format = (prepared / f"{number}.jsonl", "jsonl") if source.task else (locate(source.path), source.format)
    if source.task:
        columns = Columns("text", "id")
        with path.open("w", encoding="utf-8") as file:
            for example in load(config.task_named(source.task)).train:
                file.write(json.dumps({"id": example.id, "text": "\n".join(example.texts)}, ensure_ascii=False) + "\n")
    return Source(
        name=source.label, path=path, format=format, columns=columns, encoding=None if source.task else source.encoding,
        errors="fail" if source.task else source.errors, limit=source.limit, max_characters=source.max_characters,
        selection=selection,
    )  # fmt: skip


def _evaluation_texts(config: CorpusConfig, name: str) -> list[tuple[str, str, str]]:
    """All texts of a task, whichever way it is split later; without its training texts when these are a source themselves."""
    task = config.task_named(name)
    examples: Iterable[Example] = read_all(task)
    if name in {source.task for source in config.source}:
        data = load(task.model_copy(update={"limit": None}))
        examples = (*data.validation, *data.test)
    return [(name, example.id, text) for example in examples for text in example.texts]


def _log_task(name: str, row: dict[str, object], built: Built) -> None:
    dropped = [tallies["contaminated"] for tallies in built.dropped.values() if "contaminated" in tallies]
    log.info(
        "de-contamination: %s of %s texts of %s stand in the sources; %s documents (%s characters) dropped for all tasks together",
        row["found"], row["items"], name, sum(tally.documents for tally in dropped), sum(tally.characters for tally in dropped),
    )  # fmt: skip


def _write_facts(config: CorpusConfig, built: Built, report: dict[str, dict[str, object]], out: Out) -> None:
    """corpus.json, drops.json and drops.md, and the counts of the manifest."""
    characters = {split: sum(tally.characters for tally in tallies.values()) for split, tallies in account.splits(built)}
    documents = {split: sum(tally.documents for tally in tallies.values()) for split, tallies in account.splits(built)}
    dropped: dict[str, int] = {}
    for tallies in built.dropped.values():
        for reason, tally in tallies.items():
            dropped[reason] = dropped.get(reason, 0) + tally.documents
    total = sum(built.documents_in.values())
    by_source = {name: account.row(built, name) for name in built.documents_in}
    for name, row in by_source.items():
        log.info("%s: %s", name, ", ".join(f"{number:,} {what}" for what, number in row.items()))
    assert total == documents["train"] + documents["heldout"] + sum(dropped.values()), "documents in and out differ"
    out.counts.update(
        documents_in=total, documents_kept=documents["train"], heldout=documents["heldout"], dropped=dropped,
        characters={split: {name: tally.characters for name, tally in tallies.items()} for split, tallies in account.splits(built)},
        decontaminated=report, by_source=by_source,
        changes={name: changes for name, changes in built.changes.items() if changes},
    )  # fmt: skip
    if built.replaced:
        out.counts["replaced"] = built.replaced
    if built.first_bad:
        out.counts["first_bad_bytes"] = built.first_bad
    facts = {
        "sources": list(built.documents_in), "language": config.language, "documents": documents, "characters": characters,
        "repeat": {source.label: source.repeat for source in config.source if source.repeat != 1},
        "weight": {source.label: source.weight for source in config.source if source.weight is not None},
    }  # fmt: skip
    _write_json(out.path / "corpus.json", facts)
    _write_json(out.path / "drops.json", account.drops(built))
    (out.path / "drops.md").write_text(account.table(built), encoding="utf-8")


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
