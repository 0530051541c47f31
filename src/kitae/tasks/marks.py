"""What a gold or a prediction says, taken apart into pieces that are right or wrong by themselves, and in words for people to read."""

from collections.abc import Iterator

from kitae.tasks.examples import Answer, Example, Gold, Span
from kitae.tasks.tags import chunks_of

ANSWERED, UNANSWERED = "an answer", "no answer"
Mark = tuple[str, int, int]
"""A class, and where it is said: word or character [start, end), or (0, 0) of the example as a whole."""


def marks(example: Example, gold: Gold) -> frozenset[Mark]:
    """The label; each of several labels; each entity (of words, that tags spell; plain tags: each word); whether there is an answer.
    Nothing of a number."""
    return frozenset(_marks(example, gold))


def _marks(example: Example, gold: Gold) -> Iterator[Mark]:
    if isinstance(gold, int | float) and not example.choices:
        return
    if isinstance(gold, str | int | float):
        yield str(gold), 0, 0
        return
    answers = [item for item in gold if isinstance(item, Answer)]
    if answers or (example.second is not None and not gold):
        yield ANSWERED if answers else UNANSWERED, 0, 0
        return
    if example.words:
        yield from ((chunk.label, chunk.start, chunk.end) for chunk in chunks_of([item for item in gold if isinstance(item, str)]))
        return
    for item in gold:
        if isinstance(item, Span):
            yield item.label, item.start, item.end
        elif isinstance(item, str):
            yield item, 0, 0


def shown(example: Example, gold: Gold, *, texts: bool) -> str:
    """A gold or a prediction in words; without `texts` nothing of the example's own text is said, but where it stands."""
    if isinstance(gold, str):
        return gold
    if isinstance(gold, int) and gold < len(example.choices) and texts:
        return f"{gold}: {example.choices[gold]}"
    if isinstance(gold, int | float):
        return f"{gold:g}"
    if any(isinstance(item, Answer) for item in gold) or (example.second is not None and not gold):
        found = [item for item in gold if isinstance(item, Answer)]
        said = [item.text if texts else f"at {item.start}" for item in found]
        return " | ".join(dict.fromkeys(said)) if found else UNANSWERED
    return " ".join(_piece(example, item, i, texts=texts) for i, item in enumerate(gold))


def _piece(example: Example, item: object, place: int, *, texts: bool) -> str:
    if isinstance(item, Span):
        said = example.text[item.start : item.end] if texts else ""
        return f"{said}[{item.start}-{item.end}]/{item.label}"
    if isinstance(item, str) and place < len(example.words) and texts:
        start, end = example.words[place]
        return f"{example.text[start:end]}/{item}"
    return str(item)
