"""Raw text -> Corpus. Read, clean, split into sentences, drop what is empty, short, contaminated or double, hold some out."""

import json
import logging
import os
import re
from pathlib import Path
from typing import Annotated, Literal

from datatrove.pipeline.base import PipelineStep
from pydantic import Field, field_validator, model_validator

from kitae.core.artifact import Inputs, Out
from kitae.core.config import OPERATIONAL, Config
from kitae.core.errors import did_you_mean
from kitae.core.paths import locate
from kitae.tasks.config import TaskConfig
from kitae.tasks.records import find, load
from kitae.text.build import Built, Holdout, Tally, build
from kitae.text.clean import Normalization
from kitae.text.decontaminate import build_index, missing, save_index
from kitae.text.format import Columns
from kitae.text.readers import READERS
from kitae.text.steps import Clean, Decontaminate, Source

log = logging.getLogger(__name__)
VERSION = 1
ENDINGS = (".zst", ".xz", ".bz2", ".gz", ".tar", ".txt", ".jsonl", ".csv", ".tsv", ".zip", ".tgz")
TASK_PATH = re.compile(r"task:(?P<name>.+)/train")


class SourceConfig(Config):
    """One source of raw text."""

    path: Annotated[str, OPERATIONAL]
    """A file, folder or archive; `sample:NAME` is a packaged text, `task:NAME/train` the training texts of a task."""
    format: str = "text"
    """text (blank line between documents), paragraphs (a document a line), files (a document a file), wikipedia (its XML dumps),
    wikiextractor, jsonl, csv, tsv."""
    name: str = ""
    """Name in ids, counts and reports; by default the file's name without its endings."""
    encoding: str | None = None
    """Encoding of the files, for example "cp932"; by default UTF-8."""
    column: str = "text"
    """Column (key) of the text in csv, tsv and jsonl."""
    id_column: str | None = None
    """Column (key) of the documents' ids in csv, tsv and jsonl; by default their numbers."""
    headings: bool = False
    """Keep the headings of sections as lines; only for format = "wikipedia"."""
    limit: int | None = Field(default=None, ge=1)
    """Read at most this many documents, the first ones; for a quick look."""
    licence: str = ""
    """Licence of the text, for the manifest and the model card."""

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in READERS:
            raise ValueError(f'"{value}" is not one of {", ".join(READERS)}: {did_you_mean(value, READERS)}')
        return value

    @model_validator(mode="after")
    def _headings(self) -> "SourceConfig":
        if self.headings and self.format != "wikipedia":
            raise ValueError('headings = true goes with format = "wikipedia" only')
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
        label = Path(self.path.removeprefix("sample:")).name
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
    holdout: float | str = 0.0
    """A share, or "5000 documents", of every source kept apart for evaluation, by whole document."""
    decontaminate: tuple[str, ...] = ()
    """Names of tasks; documents that contain any of their texts are dropped (but for training texts that are a source here)."""
    overlap: float = Field(default=0.5, gt=0, le=1)
    """Share of a task text's (or of the document's) n-grams from which on a document counts as containing it."""
    tasks: tuple[TaskConfig, ...] = ()
    """Definitions of the tasks named above and in `task:NAME/train`; the recipe fills them in."""
    workers: Annotated[int, OPERATIONAL, Field(ge=0)] = 0
    """Processes to work with, 0 for all processors; the result does not depend on it."""

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
        return self

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
    work = out.path / ".work"
    prepared = work / "sources"
    prepared.mkdir(parents=True)
    texts = tuple(_source(config, source, prepared) for source in config.source)
    steps: list[PipelineStep] = [Clean(normalization=config.normalization, language=config.language, min_characters=config.min_characters)]
    index = build_index(item for name in config.decontaminate for item in _evaluation_texts(config, name))
    if config.decontaminate:
        save_index(index, prepared / "index.npz")
        steps.append(Decontaminate(prepared / "index.npz", overlap=config.overlap))
    built = build(
        texts,
        steps,
        holdout=config.held_out(),
        seed=inputs.seed,
        workers=config.workers or len(os.sched_getaffinity(0)),
        work=work,
        out=out.path,
    )
    report = missing(index, built.items_found)
    for name, row in report.items():
        _log_task(name, row, built)
    _write_facts(config, built, report, out)
    out.licences.extend({"name": source.label, "licence": source.licence, "source": source.path} for source in config.source)


def _source(config: CorpusConfig, source: SourceConfig, prepared: Path) -> Source:
    columns = Columns(source.column, source.id_column, source.headings)
    if not source.task:
        return Source(
            name=source.label, path=locate(source.path), format=source.format, columns=columns, encoding=source.encoding, limit=source.limit
        )
    path = prepared / f"{source.label}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for example in load(config.task_named(source.task)).train:
            file.write(json.dumps({"id": example.id, "text": example.text}, ensure_ascii=False) + "\n")
    return Source(name=source.label, path=path, format="jsonl", columns=Columns("text", "id"), limit=source.limit)


def _evaluation_texts(config: CorpusConfig, name: str) -> list[tuple[str, str, str]]:
    """All texts of a task, whichever way it is split later; without its training texts when these are a source themselves."""
    data = load(config.task_named(name).model_copy(update={"limit": None}))
    wanted = name in {source.task for source in config.source}
    return [(name, example.id, example.text) for part in (() if wanted else data.train, data.validation, data.test) for example in part]


def _log_task(name: str, row: dict[str, object], built: Built) -> None:
    dropped = [tallies["contaminated"] for tallies in built.dropped.values() if "contaminated" in tallies]
    log.info(
        "de-contamination: %s of %s texts of %s stand in the sources; %s documents (%s characters) dropped for all tasks together",
        row["found"], row["items"], name, sum(tally.documents for tally in dropped), sum(tally.characters for tally in dropped),
    )  # fmt: skip


def _write_facts(config: CorpusConfig, built: Built, report: dict[str, dict[str, object]], out: Out) -> None:
    """corpus.json, drops.json and drops.md, and the counts of the manifest."""
    characters = {split: sum(tally.characters for tally in tallies.values()) for split, tallies in _splits(built)}
    documents = {split: sum(tally.documents for tally in tallies.values()) for split, tallies in _splits(built)}
    dropped: dict[str, int] = {}
    for tallies in built.dropped.values():
        for reason, tally in tallies.items():
            dropped[reason] = dropped.get(reason, 0) + tally.documents
    total = sum(built.documents_in.values())
    assert total == documents["train"] + documents["heldout"] + sum(dropped.values()), "documents in and out differ"
    out.counts.update(
        documents_in=total, documents_kept=documents["train"], heldout=documents["heldout"], dropped=dropped,
        characters={split: {name: tally.characters for name, tally in tallies.items()} for split, tallies in _splits(built)},
        decontaminated=report,
    )  # fmt: skip
    facts = {"sources": list(built.documents_in), "language": config.language, "documents": documents, "characters": characters}
    drops = {name: {reason: _drop(tally) for reason, tally in sorted(tallies.items())} for name, tallies in built.dropped.items()}
    _write_json(out.path / "corpus.json", facts)
    _write_json(out.path / "drops.json", drops)
    (out.path / "drops.md").write_text(_table(built), encoding="utf-8")


def _splits(built: Built) -> tuple[tuple[str, dict[str, Tally]], tuple[str, dict[str, Tally]]]:
    return ("train", built.train), ("heldout", built.heldout)


def _drop(tally: Tally) -> dict[str, object]:
    examples = [{"id": name, "text": text} for _, name, text in tally.examples]
    return {"documents": tally.documents, "characters": tally.characters, "examples": examples}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _table(built: Built) -> str:
    lines = ["# What became of the documents", "", "| source | fate | documents | characters | examples |", "|---|---|---:|---:|---|"]
    for name, count in built.documents_in.items():
        rows = [("kept", built.train[name]), ("held out", built.heldout[name])]
        rows += [(f"dropped: {reason}", tally) for reason, tally in sorted(built.dropped[name].items())]
        lines.append(f"| {_cell(name)} | read | {count:,} | | |")
        for fate, tally in rows:
            examples = "<br>".join(f"{_cell(one)}: {_cell(text[:40])}" for _, one, text in tally.examples)
            lines.append(f"| {_cell(name)} | {fate} | {tally.documents:,} | {tally.characters:,} | {examples} |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|").replace("`", "'")
