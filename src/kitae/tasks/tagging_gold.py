"""The gold of tagging: what files say of words and spans, in the one form that tagging works with; and what is wrong with it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field, model_validator

from kitae.core.config import Config
from kitae.core.errors import KitaeError, did_you_mean
from kitae.tasks.examples import Example, Gold, Span
from kitae.tasks.tags import Chunk, Scheme, chunks_of, parse, plain, tags_of
from kitae.tasks.units import Pieces


class TaggingConfig(Config):
    """How words are tagged, or entities found."""

    scheme: Scheme = "bio"
    """What the model's outputs are: "bio" and "bioes" for entities, "none" for plain tags such as parts of speech. Files of entities may
    be in IOB1, BIO, BIOES or BILOU whatever is said here; predictions are always BIO."""
    viterbi: bool = True
    """Predict the likeliest sequence that the scheme allows. Otherwise each word gets its likeliest tag, and illegal sequences are read as
    conlleval reads them."""
    crf: bool = False
    """Learn what follows what: a linear-chain conditional random field over the encoder's outputs."""
    pieces: Pieces = "first"
    """Which tokens of a word are learnt: "first" or "all" (a word's tag is then that of its first). Where no words are given, "first"
    reads the tokenizer's words, "all" every token, so that entities may begin and end within words."""
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of a window that the next one repeats, for sentences of more than `max_length` tokens. Each word is read where it has most
    context."""
    untokenised: bool = False
    """Read the text as if its words were not given: tags become spans over characters."""
    names: tuple[str, ...] = ()
    """The names of tags that a JSON file gives as numbers, from 0 on: Hugging Face's `ClassLabel`. Tags in letters must be among them."""
    rename: dict[str, str] = Field(default_factory=dict)
    """Other names for classes of entities, or plain tags: { "人名" = "PERSON" }; "" makes "O" of a class."""
    only: tuple[str, ...] = ()
    """The classes that stay, by their new names; others become "O". () keeps all."""

    @model_validator(mode="after")
    def _check(self) -> "TaggingConfig":
        if self.scheme == "none" and (self.untokenised or self.only or "" in self.rename.values()):
            raise ValueError('plain tags (scheme = "none") cannot be dropped or become spans')
        return self

    def named(self, label: str) -> str:
        """The present name of a class; "" when it is dropped."""
        name = self.rename.get(label, label)
        return name if not self.only or name in self.only else ""


def canonical(example: Example, options: TaggingConfig) -> Example:
    """The example with BIO tags (or plain ones) of as many words, or with sorted spans, under their present names.

    Raises KitaeError (with the example's `where`) for gold that is neither, for another number of tags than of words, for spans outside of
    the text and overlapping ones.
    """
    words = example.words
    for start, end in words:
        if not 0 <= start <= end <= len(example.text):
            raise KitaeError(f"a word at {start} to {end} is outside of the text", cure="correct the words", where=example.where)
    gold = example.gold
    if isinstance(gold, tuple) and gold and all(isinstance(item, Span) for item in gold):
        spans = _spans(example, [item for item in gold if isinstance(item, Span)], options)
        return replace(example, gold=spans, words=())
    if gold is None or (not gold and not words):
        return replace(example, words=() if options.untokenised else words)
    if not isinstance(gold, tuple) or not all(isinstance(item, str) for item in gold):
        raise KitaeError(f"{gold!r} is no tag for each word", cure="give tags, or spans", where=example.where)
    words = words or _words(example.text)
    tags = [str(tag) for tag in gold]
    if len(tags) != len(words):
        raise KitaeError(f"{len(tags)} tags for {len(words)} words", cure="give a tag for each word", where=example.where)
    if options.scheme == "none":
        return replace(example, words=words, gold=tuple(options.rename.get(tag, tag) for tag in tags))
    if plain(tags):
        odd = next(tag for tag in tags if plain([tag]))
        cure = 'write kind_config = { scheme = "none" } for tags such as parts of speech'
        raise KitaeError(f'the tag "{odd}" is neither "O" nor like "B-CLASS"', cure=cure, where=example.where)
    chunks = [Chunk(start, end, name) for start, end, label in chunks_of(tags) if (name := options.named(label))]
    if options.untokenised:
        return replace(example, words=(), gold=spans_of(chunks, words))
    return replace(example, words=words, gold=tuple(tags_of(chunks, len(words), "bio")))


def spans_of(chunks: Iterable[Chunk], words: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    """Entities of words as stretches of characters."""
    return tuple(Span(start=words[start][0], end=words[end - 1][1], label=label) for start, end, label in chunks)


def classes_in(examples: Iterable[Example], options: TaggingConfig) -> list[str]:
    """The classes (or plain tags) of examples, sorted. Raises KitaeError when the settings name one that never occurs."""
    found: set[str] = set()
    for example in examples:
        if isinstance(example.gold, tuple):
            found.update(_classes(example.gold, options.scheme))
    wanted = {*options.only, *(name for name in options.rename.values() if name and (not options.only or name in options.only))}
    absent = sorted(wanted - found)
    if absent:
        what = f'no training example has the class "{absent[0]}", which kind_config names'
        raise KitaeError(what, cure=did_you_mean(absent[0], found))
    return sorted(found)


def check_classes(example: Example, known: Sequence[str], scheme: Scheme) -> None:
    """Raise KitaeError for a class, or plain tag, that is not among the known ones."""
    assert isinstance(example.gold, tuple), "canonical"
    if (example.gold and isinstance(example.gold[0], Span)) and scheme == "none":
        raise KitaeError("plain tags are of words, not of spans", cure='set scheme = "bio" or "bioes"', where=example.where)
    for label in _classes(example.gold, scheme):
        if label not in known:
            what = f'the {"tag" if scheme == "none" else "class"} "{label}" {_place(example, label)} is not one of the training examples\''
            raise KitaeError(what, cure=f"{did_you_mean(label, known)} Or give `labels`", where=example.where)


def _classes(gold: Gold, scheme: Scheme) -> list[str]:
    assert isinstance(gold, tuple)
    found = [item.label if isinstance(item, Span) else str(item) if scheme == "none" else parse(str(item))[1] for item in gold]
    return [label for label in dict.fromkeys(found) if label]


def _place(example: Example, label: str) -> str:
    assert isinstance(example.gold, tuple)
    for number, item in enumerate(example.gold):
        if isinstance(item, Span) and item.label == label:
            return f'of "{example.text[item.start : item.end]}"'
        if isinstance(item, str) and label in (item, parse(item)[1]):
            start, end = example.words[number]
            return f'of word {number + 1}, "{example.text[start:end]}",'
    return ""


def _words(text: str) -> tuple[tuple[int, int], ...]:
    """The words between blanks."""
    found, position = [], 0
    for word in text.split():
        position = text.index(word, position)
        found.append((position, position + len(word)))
        position += len(word)
    return tuple(found)


def _spans(example: Example, spans: Sequence[Span], options: TaggingConfig) -> tuple[Span, ...]:
    kept = sorted(spans)
    for before, span in zip([None, *kept], kept, strict=False):
        shown = f'the span {span.start} to {span.end} ("{span.label}")'
        if not 0 <= span.start < span.end <= len(example.text):
            what = f"{shown} is outside of the text, which has {len(example.text)} characters"
            raise KitaeError(what, cure="correct it: [start, end) in characters", where=example.where)
        if before is not None and span.start < before.end:
            what = f'{shown} overlaps with {before.start} to {before.end} ("{before.label}")'
            raise KitaeError(what, cure="keep one of them", where=example.where)
    return tuple(replace(span, label=name) for span in kept if (name := options.named(span.label)))


def from_cell(cell: str, where: str, names: Sequence[str] = ()) -> Gold:
    """Tags between blanks, or a JSON list of tags or of their numbers among `names`. Raises KitaeError for another list, and for a tag
    that is empty or not among the names, where there are any."""
    listed: object = cell.split()
    if cell.startswith("["):
        try:
            listed = json.loads(cell)
        except ValueError as error:
            raise KitaeError("the label begins like a list and is none", cure="write JSON", where=where) from error
    if not isinstance(listed, list) or not all(isinstance(item, str | int) and not isinstance(item, bool) for item in listed):
        cure = 'write "B-PER O O" or ["B-PER", "O", "O"]; where entities are given by their characters, set format = "spans"'
        raise KitaeError("the label is no list of tags", cure=cure, where=where)
    return tuple(_tag(item, number, names, where) for number, item in enumerate(listed, start=1))


def _tag(item: str | int, number: int, names: Sequence[str], where: str) -> str:
    """A tag's name."""
    if isinstance(item, int):
        if not names:
            cure = 'name them in the order of their numbers: kind_config = { names = ["O", "B-PER", ...] }'
            raise KitaeError(f"tag {number} is the number {item}", cure=cure, where=where)
        if not 0 <= item < len(names):
            cure = f"correct the line, or kind_config.names, which has {len(names)}: 0 to {len(names) - 1}"
            raise KitaeError(f"tag {number} is the number {item}, which has no name", cure=cure, where=where)
        return names[item]
    if not item or (names and item not in names):
        what = f'tag {number}, "{item}", is not among kind_config.names' if item else f"tag {number} is empty"
        raise KitaeError(what, cure=did_you_mean(item, names) if item else "fill it in", where=where)
    return item
