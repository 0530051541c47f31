"""Every step's time grows with the text and not with its square, on the text that is worst for it.

No speed is asserted: the time of four times the text is compared with the time before, the same on any machine.
"""

import functools
import time
from collections.abc import Callable

import pytest

from kitae.text.clean import normalize
from kitae.text.decontaminate import build_index, find
from kitae.text.filters import MEASURES, Numbers
from kitae.text.private import MARKS, mask
from kitae.text.sentences import split_english, split_japanese
from kitae.text.social import CLEANERS

SIZES = (5_000, 20_000, 80_000)
GROWTH = 8  # in a step from one size to the next: a square would make it 16
UNSURE = 0.25  # seconds that tell nothing: a slow machine takes them where a quick one takes a twentieth; squares take minutes

RUNS = [" ", ".", "!", "(", ")", "「", "」", '"', "a", "w", "笑", "0", "#", "@", "-", "字", "。", "\n"]
REPEATED = [
    "word... next ", "(a. B) ", "A b. (", "「。", "。」", "「」。", "あ!", '"。', "Mr. A ", "no. 1 ",  # sentences
    " #a", "#あ", "#a ", " #a x", "RT ", "@a ", "(^_^)m", "(^_^) ", "あww ", "https://", "(https://a.jp", "www.", "t.co/(",  # posts
    "a@", "a@b.", "a.b-", ".a", "+81", "+1 2", "090-", "0 ", "(03)", "12-34.", "4111 ",  # private data
    "か゛", "ｶﾞ", "\u200bか", "Ａ ",  # normal form
]  # fmt: skip
HALVES = [("(", "」あ"), ("(", ")"), ("「", "」あ"), (" ", "@a"), ("A", "@a.bc"), ("0", "a")]  # many of one, then many of another
STEPS: dict[str, Callable[[str], object]] = {
    "normalize": normalize,
    "ja": lambda text: split_japanese(text + "あ"),
    "en": split_english,
    **CLEANERS,
    **{kind: functools.partial(mask, kind=kind) for kind in MARKS},
    "decontaminate": lambda text: find(build_index([("t", "i", "a" * 30)]), text, 0.5),
    "filters": lambda text: [measure(Numbers(text, language)) for measure in MEASURES.values() for language in ("ja", "en")],
}  # fmt: skip


def texts(size: int) -> list[str]:
    one = [piece * (size // len(piece)) for piece in [*RUNS, *REPEATED]]
    return one + [left * (size // 2 // len(left)) + right * (size // 2 // len(right)) for left, right in HALVES]


@pytest.mark.parametrize("step", STEPS)
def test_time_grows_as_the_text(step: str) -> None:
    before = [UNSURE] * len(texts(0))
    for size in SIZES:
        for number, text in enumerate(texts(size)):
            most = GROWTH * max(before[number], UNSURE)
            seconds = took(step, text)
            if seconds >= most:  # on a busy machine the same work may take several times as long
                seconds = min(took(step, text) for _ in range(3))
            assert seconds < most, f"{text[:8]!r}...{text[-8:]!r}: {seconds:.1f} s for {size:,} characters"
            before[number] = seconds


def took(step: str, text: str) -> float:
    start = time.process_time()
    STEPS[step](text)
    return time.process_time() - start
