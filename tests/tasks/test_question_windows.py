"""Windows cover the context, every token has its best window once, and tokens lead back to letters."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kitae.tasks.encoded import tokens_of
from kitae.tasks.examples import Answer
from kitae.tasks.located import located
from kitae.tasks.spans import Window, between, falls_on_tokens, most_context, tokens_of_answer, windows
from kitae.tokenization.characters import Speller
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tokenizer(*words: str, kind: str = "whitespace", **more: object) -> Tokenizer:
    return Tokenizer(Definition(tokens=(*SPECIAL, *words), spec=SegmenterSpec(kind=kind, **more)))  # type: ignore[arg-type]


@given(st.integers(0, 400), st.integers(1, 90), st.integers(1, 120))
def test_windows_leave_no_token_out(count: int, room: int, stride: int) -> None:
    found = windows(count, room=room, stride=stride)
    assert found[0].start == 0
    assert found[-1].end == count
    assert all(one.end - one.start <= room for one in found)
    for one, other in itertools.pairwise(found):
        assert other.start == one.start + min(room, stride)
        assert one.end >= other.start
        assert one.end < count, "no window behind one that reaches the end"


@given(st.integers(1, 200), st.integers(1, 60), st.integers(1, 60))
def test_every_token_has_most_context_in_one_window(count: int, room: int, stride: int) -> None:
    """As BERT's _check_is_max_context says it, token by token."""
    of = windows(count, room=room, stride=stride)
    found = most_context(of)
    for token in range(count):
        scores = [
            min(token - one.start, one.end - 1 - token) + 0.01 * (one.end - one.start) if one.start <= token < one.end else -1.0
            for one in of
        ]
        best = int(np.argmax(scores))
        owners = [number for number, one in enumerate(of) if one.start <= token < one.end and found[number][token - one.start]]
        assert owners == [best]


def test_the_example_of_bert() -> None:
    """'bought' of "the man went to the store and bought a gallon of milk", windows of 5 with stride 3: the third has it."""
    of = windows(12, room=5, stride=3)
    assert of[1:3] == [Window(start=3, end=8), Window(start=6, end=11)]
    found = most_context(of)
    assert not found[1][7 - 3]
    assert found[2][7 - 6]


def test_places_of_lines_and_blanks() -> None:
    known = tokenizer("a", "b", "c", "##c", "d")
    text = " a\tb\n\n cc  d\n"
    found = located(known, text)
    assert found.tokens.ids == tokens_of(known, text).ids
    assert found.tokens.words == tokens_of(known, text).words
    assert [text[start:end] for start, end in found.places.tolist()] == ["a", "b", "c", "c", "d"]
    assert located(known, "").places.shape == (0, 2)


def test_a_marker_becomes_a_separator_without_letters() -> None:
    known = tokenizer("a", "b")
    text = "a [SEP] b[SEP]\na"
    found = located(known, text, markers=("[SEP]",))
    assert [known.tokens[number] for number in found.tokens.ids] == ["a", "[SEP]", "b", "[SEP]", "a"]
    assert found.places.tolist() == [[0, 1], [7, 7], [8, 9], [14, 14], [15, 16]]
    assert found.tokens.words == list(range(5))
    assert known.special.sep not in located(known, text).tokens.ids, "without being told, text is text"


def test_characters_of_words_have_places_too() -> None:
    spec = SegmenterSpec(kind="whitespace")
    known = Tokenizer(Definition(tokens=(*SPECIAL, "ab", "cd"), spec=spec, algorithm="characters-of-words", word_bytes=16))
    assert isinstance(known.speller, Speller)
    text = "ab  xyz\ncd"
    found = located(known, text)
    same = tokens_of(known, text)
    assert (found.tokens.ids, found.tokens.words, found.tokens.rows) == (same.ids, same.words, same.rows)
    assert [text[start:end] for start, end in found.places.tolist()] == ["ab", "xyz", "cd"]


@pytest.mark.parametrize(
    ("start", "letters", "span", "exact"),
    [
        (3, "bb", (1, 1), True),
        (3, "bb cc", (1, 3), True),
        (2, " bb", (1, 1), True),
        (4, "b c", (1, 2), False),
        (6, "c", (2, 2), True),
        (-1, "bb", None, False),
        (2, " ", None, False),
    ],
)
def test_answers_become_the_tokens_that_cover_them(start: int, letters: str, span: tuple[int, int] | None, exact: bool) -> None:
    text = "aa bb cc"
    found = located(tokenizer("aa", "bb", "c", "##c"), text)
    answer = Answer(start=start, text=letters)
    assert tokens_of_answer(answer, found.places) == span
    assert falls_on_tokens(answer, text, found.places) is exact


@given(st.text(alphabet=" a\u3000\n\tb😀", max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_letters_between_places_are_the_contexts(text: str, start: int, end: int) -> None:
    found = between(text, start, end)
    assert text[found.start : found.start + len(found.text)] == found.text
    assert found.text == text[start:end].strip()
