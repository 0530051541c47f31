"""Any text as held-out rows for one tokenizer: cleaned, tokenized and packed as a recipe's own, so that the numbers can be compared."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.core.paths import locate
from kitae.data import plan
from kitae.data.sampler import DATASET
from kitae.data.shards import Shards
from kitae.data.tokenize import facts_of, tokenize
from kitae.tasks.examples import Example
from kitae.tasks.records import find, load
from kitae.text.clean import Normalization, normalize
from kitae.text.corpus import Corpus, ShardWriter
from kitae.text.format import Columns
from kitae.text.readers import read
from kitae.text.sentences import SPLITTERS
from kitae.text.streams import claimed_compression
from kitae.text.tables import FORMATS
from kitae.tokenization.tokenizer import Tokenizer

TASK = "task:"
SPLITS = ("train", "validation", "test")
CORPUS = "corpus.json"
ENDINGS = ("zst", "xz", "bz2", "gz", "tar", "zip", "tgz", "txt", "json", "ndjson", "parquet", *FORMATS)


class Reading(Config):
    """How raw text is read, cleaned and packed."""

    max_length: int
    """Positions of a row."""
    packing: Literal["documents", "sentences"] = "documents"
    """How text lies in rows."""
    language: Literal["ja", "en"] = "ja"
    """Whose sentence ends are looked for."""
    normalization: Normalization = "nfkc"
    """Unicode normal form."""
    format: str | None = None
    """None: what the name says."""
    column: str = "text"
    """Column of a table that holds the text."""
    encoding: str | None = None
    """None: the format's."""
    documents: int | None = None
    """At most so many of each text, the first ones."""


def as_dataset(names: Sequence[str], tokenizer: Path, reading: Reading, folder: Path) -> Path:
    """A data set whose held-out text these are, one source each, below `folder`; a data set is taken as it is.

    A name is a file, folder or archive of text, "sample:NAME", "task:NAME/SPLIT"; or it is alone, and the folder of a corpus, of which
    the held-out text counts. Raises KitaeError for what does not exist, cannot be read or holds no text.
    """
    loaded = Tokenizer.load(tokenizer)
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise KitaeError(f"{double} is given twice", cure="give it once")
    whole = [name for name in names if not name.startswith(TASK) and any((locate(name) / file).is_file() for file in (DATASET, CORPUS))]
    if whole and len(names) > 1:
        raise KitaeError(f"{whole[0]} holds all that there is to measure", cure="give it alone", where=whole[0])
    if whole and (locate(whole[0]) / DATASET).is_file():
        return _finished(locate(whole[0]), loaded)
    if whole:
        corpus = Corpus(locate(whole[0]))
        sources, shards = list(corpus.sources), corpus.shards("heldout")
        if not shards:
            raise KitaeError("the corpus holds no text out", cure="give a text, or make it with corpus.holdout", where=whole[0])
    else:
        sources, shards = [], []
        for number, name in enumerate(names):
            sources.append(_title(name, sources))
            shards += _write(name, sources[-1], reading, folder / "text" / f"{number}")
    _, heldout, _ = tokenize(
        {"train": [], "heldout": shards},
        tokenizer=tokenizer,
        sources=tuple(sources),
        folder=folder / "rows",
        work=folder / "work",
        workers=0,
    )
    return _packed(folder / "rows", heldout, tuple(sources), loaded, reading)


def _finished(dataset: Path, tokenizer: Tokenizer) -> Path:
    theirs = Tokenizer.load(dataset / "tokenizer")
    if theirs.tokens != tokenizer.tokens:
        what = f"the data set was made with another vocabulary ({theirs.vocab_size} tokens, the model's has {tokenizer.vocab_size})"
        raise KitaeError(what, cure="give the text itself, or the corpus", where=str(dataset))
    return dataset


def _title(name: str, taken: Sequence[str]) -> str:
    """What a text is called in the table: its file's name without endings, or all of it where two are called the same."""
    short = name if name.startswith(TASK) else locate(name).resolve().name
    while Path(short).suffix[1:].lower() in ENDINGS:
        short = Path(short).stem
    return name if short in taken else short


def _write(name: str, source: str, reading: Reading, folder: Path) -> list[Path]:
    """The documents of a text as shards of a corpus. Raises KitaeError when there are none."""
    count = 0
    with ShardWriter(folder) as writer:
        for number, text in enumerate(islice(_documents(name, reading), reading.documents)):
            clean = normalize(text, reading.normalization)
            if clean:
                lines = "\n".join(SPLITTERS[reading.language](clean))
                writer.write(json.dumps({"text": lines, "id": f"{source}/{number}", "source": source}, ensure_ascii=False).encode())
                count += 1
    if not count:
        raise KitaeError("there is no text in it", cure="give a file with text, or say its format and column", where=name)
    return sorted(folder.glob("*.jsonl.zst"), key=lambda path: (len(path.name), path.name))


def _documents(name: str, reading: Reading) -> Iterator[str]:
    if name.startswith(TASK):
        for example in examples_of(name):
            yield "\n".join(example.texts)
        return
    path = locate(name)
    if not path.exists():
        raise KitaeError(f"{name} does not exist", cure="give a file, a folder or an archive of text")
    for found in read(path, reading.format or format_of(path), columns=Columns(reading.column), encoding=reading.encoding):
        if not found.drop:
            yield found.content


def examples_of(name: str) -> tuple[Example, ...]:
    """The examples of "task:NAME/SPLIT", a built-in task. Raises KitaeError when it is not written so, or there is none."""
    task, _, split = name.removeprefix(TASK).rpartition("/")
    if split not in SPLITS:
        raise KitaeError(f'"{name}" is no part of a task', cure=f'write "task:NAME/test", /{" or /".join(SPLITS[:2])}')
    data = load(find(task))
    return {"train": data.train, "validation": data.validation, "test": data.test}[split]


def format_of(path: Path) -> str:
    """The format that the name of a file, or of a folder's first file, announces; plain text (blank lines between documents) else."""
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        return "hf"
    file = next((item for item in sorted(path.rglob("*")) if item.is_file()), path) if path.is_dir() else path
    name = file.stem if claimed_compression(file.name) else file.name
    ending = Path(name).suffix[1:].lower()
    return {"json": "jsonl", "ndjson": "jsonl"}.get(ending, ending) if ending in (*FORMATS, "json", "ndjson", "parquet") else "text"


def _packed(folder: Path, heldout: Mapping[int, Path], sources: tuple[str, ...], tokenizer: Tokenizer, reading: Reading) -> Path:
    for place in heldout.values():
        plan.build(Shards(place), max_length=reading.max_length, folder=place / "plan", packing=reading.packing)
    facts_of(folder, tokenizer, max_length=reading.max_length, packing=reading.packing, sources=sources).write(folder)
    return folder
