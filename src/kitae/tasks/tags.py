"""Tags of words and the entities that they spell: BIO and BIOES, conversion, repair, and which tag may follow which.

A tag is "O" or "B-CLASS", "I-CLASS", "E-CLASS", "S-CLASS" ("L-" and "U-" of BILOU are read as E and S); a tag without such a prefix
is a plain one (part of speech), and a word with it is an entity of that class by itself. Sequences are read as conlleval and seqeval
(default mode) read them, so that illegal ones are repaired and IOB1 is understood:
https://www.clips.uantwerpen.be/conll2000/chunking/conlleval.txt

Shapes: C tags.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Scheme = Literal["bio", "bioes", "none"]
OUTSIDE = "O"
PREFIXES = {"B": "B", "I": "I", "E": "E", "S": "S", "L": "E", "U": "S"}
OF_SCHEME = {"bio": "BI", "bioes": "BIES"}


class Chunk(NamedTuple):
    """Words [start, end) of one class."""

    start: int
    end: int
    label: str


def parse(tag: str) -> tuple[str, str]:
    """(prefix, class) of a tag: ("O", "") outside, ("", tag) of a plain one."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    prefix, dash, label = tag.partition("-")
    if dash and label and prefix in PREFIXES:
        return PREFIXES[prefix], label
    return "", tag


def plain(tags: Iterable[str]) -> bool:
    """Whether any of them is neither "O" nor of BIO or BIOES."""
    return any(parse(tag)[0] == "" for tag in tags)


def chunks_of(tags: Sequence[str]) -> list[Chunk]:
    """The entities that tags spell, by the rules of conlleval: I and E go on with an entity of their class that is begun and not ended,
    everything else that is not "O" begins one.
    """
    found: list[Chunk] = []
    start, before, of = 0, OUTSIDE, ""
    for i, tag in enumerate((*tags, OUTSIDE)):
        prefix, label = parse(tag)
        if before in ("B", "I") and prefix in ("I", "E") and label == of:
            before = prefix
            continue
        if before != OUTSIDE:
            found.append(Chunk(start, i, of))
        start, before, of = i, prefix, label
    return found


def tags_of(chunks: Iterable[Chunk], count: int, scheme: Scheme) -> list[str]:
    """The tags of `count` words that spell these entities, which do not overlap. Of plain tags every word gets its own."""
    tags = [OUTSIDE] * count
    for start, end, label in chunks:
        if scheme == "none":
            tags[start:end] = [label] * (end - start)
        elif scheme == "bio":
            tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 1)]
        elif end - start == 1:
            tags[start] = f"S-{label}"
        else:
            tags[start:end] = [f"B-{label}", *[f"I-{label}"] * (end - start - 2), f"E-{label}"]
    return tags


def outputs(classes: Iterable[str], scheme: Scheme) -> tuple[str, ...]:
    """Every tag that words can have, sorted."""
    if scheme == "none":
        return tuple(sorted(classes))
    return tuple(sorted([OUTSIDE, *(f"{prefix}-{label}" for label in classes for prefix in OF_SCHEME[scheme])]))


def scheme_of(tags: Sequence[str]) -> Scheme:
    """The scheme of which these are all tags; "none" where there is no such."""
    classes = classes_of(tags)
    schemes: tuple[Scheme, ...] = ("bio", "bioes")
    return next((scheme for scheme in schemes if classes and set(outputs(classes, scheme)) == set(tags)), "none")


def classes_of(tags: Iterable[str]) -> tuple[str, ...]:
    """The classes that tags name, sorted."""
    return tuple(sorted({label for _, label in map(parse, tags) if label}))


def legal(tags: Sequence[str]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """([C, C] whether tag j may follow tag i, [C] whether a sentence may begin with a tag, [C] whether it may end with it).

    Of BIO an entity begins with B; where there are tags of BIOES it also ends with E, or is one word S. Plain tags may stand anywhere.
    """
    parsed = [parse(tag) for tag in tags]
    ends = any(prefix in ("E", "S") for prefix, _ in parsed)
    inner = np.asarray([prefix in ("I", "E") for prefix, _ in parsed], np.bool_)
    begun = np.asarray([prefix in ("B", "I") for prefix, _ in parsed], np.bool_)
    same = np.asarray([[of == other for _, other in parsed] for _, of in parsed], np.bool_).reshape(len(tags), len(tags))
    goes_on = begun[:, None] & inner[None, :] & same
    fresh = ~inner[None, :] & ~(begun[:, None] & ends)
    return goes_on | fresh, ~inner, ~(begun & ends)
