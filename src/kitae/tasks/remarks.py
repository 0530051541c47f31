"""What looks wrong in a task's labels, though it may be right: said before the first training step, and in every trial's results."""

import difflib
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence

from kitae.tasks.examples import Example, Span

RARE = 20
"""A label that resembles another one that is so many times as frequent is perhaps a misspelt one."""
ALIKE, SHORTEST = 0.8, 4
"""difflib's ratio from which two labels resemble each other, and how many letters both must have."""


def labels_in(example: Example) -> list[str]:
    """The labels, tags and kinds of entities in an example's gold."""
    golds = example.gold if isinstance(example.gold, tuple) else (example.gold,)
    return [gold if isinstance(gold, str) else gold.label for gold in golds if isinstance(gold, str | Span)]


def remarks(labels: Sequence[str], train: Sequence[Example], others: Sequence[Example]) -> list[str]:
    """A sentence for labels that are never learnt, of which nothing is asked, that differ in case only, or that may be misspelt.

    `others` are the validation and test examples. Places are those of the first training example.
    """
    learned, first = Counter[str](), dict[str, str]()
    for example in train:
        for label in labels_in(example):
            learned[label] += 1
            first.setdefault(label, example.where)
    asked = Counter(label for example in others for label in labels_in(example))
    found = []
    spans = any(isinstance(gold, Span) for example in train if isinstance(example.gold, tuple) for gold in example.gold)
    absent = [label for label in labels if learned and not learned[label]] if not spans else []  # labels then are tags of their classes
    if absent:
        found.append(f"no training example has the {_named(absent)}")
    alone = [label for label in learned if asked and not asked[label]]
    if alone:
        found.append(f"only training examples have the {_named(alone)}, the first in {first[alone[0]]}")
    by_form = defaultdict(list)
    for label in sorted(learned):
        by_form[unicodedata.normalize("NFKC", label).casefold()].append(label)
    found += [
        f"the {_named(same)} differ in case or width only, the first in {first[same[0]]}" for same in by_form.values() if len(same) > 1
    ]
    for label in sorted(learned):
        known = [other for other in learned if len(other) >= SHORTEST and learned[other] >= RARE * learned[label]]
        near = difflib.get_close_matches(label, known, n=1, cutoff=ALIKE) if len(label) >= SHORTEST and label.isalpha() else []
        if near:
            counts = f"{learned[label]} times, beside {learned[near[0]]} of"
            found.append(f'the label "{label}" occurs {counts} "{near[0]}": is it misspelt, in {first[label]}?')
    return found


def _named(labels: Sequence[str]) -> str:
    shown = ", ".join(f'"{label}"' for label in labels[:10]) + (f" and {len(labels) - 10} more" if len(labels) > 10 else "")
    return f"label{'s' if len(labels) > 1 else ''} {shown}"
