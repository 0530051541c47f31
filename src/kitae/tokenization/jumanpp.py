"""Words of Juman++ through one process of it that stays open: batches of sentences go in, morphemes come out, nothing waits for ever.

The protocol is Juman++'s default output (its docs/output.md; JUMAN's is the same): a line per morpheme, whose first column is the
surface, "@ " before readings of the same surface, "# " before comments, "EOS" behind every sentence. Surfaces are looked up in the
text that was sent, so that the escapes of the several versions (a blank is "\\ ", "\\␣" or a wide one) never reach a word, and an
answer that does not belong to its sentence is noticed.
"""

import contextlib
import functools
import hashlib
import logging
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tokenization.cuts import parts
from kitae.tokenization.pipe import Pipe

log = logging.getLogger(__name__)
USUAL = "jumanpp"
VARIABLE = "KITAE_JUMANPP"
HOME = "https://github.com/ku-nlp/jumanpp/releases"
LONGEST_BYTES = 4096
"""Juman++ refuses a longer sentence (core/analysis/analyzer.h, maxInputBytes)."""
BATCH = 256
"""Sentences sent at once."""
START_SECONDS = 120.0
"""For the model of several hundred megabytes to come from the disk."""
SENTENCE_SECONDS = 20.0
"""Juman++ analyses 4,096 bytes in a few milliseconds; a sentence without an answer for so long will have none."""
MOST_FAILURES = 20
"""Sentences one after another; then it is not the sentences."""
MOST_WARNINGS = 10
"""Further failures are only counted."""
PROBE = "日本語"

COMMENT, PROTECTED = "# ", "\uff03 "
"""A line that begins with the first would be a comment, and no sentence; the second has as many characters, and more bytes."""
LINE_BREAKS = str.maketrans("\n\r\0", "   ")
NARROW = {"\u201d": '"', "\uff1c": "<", "\uff1e": ">"}
"""What 2.0.0-rc3 writes for these."""
BLANKS = frozenset(("", "\\", "\\\u2423", "\\t", "\u3000"))
"""What the versions write for a blank."""
SPACE = re.compile(r"\s*")
REPEATED = re.compile(r"(.+) \1 \1 \S+ \d+ ")


@dataclass(frozen=True, kw_only=True)
class Program:
    """An executable of Juman++ that was found on this machine."""

    path: Path
    """Its file."""
    version: str
    """What `--version` says: the program's version, and those of the dictionary and the language model in its model file."""

    @property
    def fingerprint(self) -> str:
        """sha256 over the versions, for they decide the words; the path does not."""
        return hashlib.sha256(f"jumanpp {self.version}".encode()).hexdigest()


def find(program: str = "") -> Program:
    """The program of a name on the search path or of a file ("" is "jumanpp"). Raises KitaeError when it is absent or does not run."""
    wanted = program or os.environ.get(VARIABLE, USUAL)
    path = shutil.which(os.path.expanduser(wanted))
    if path is None:
        raise KitaeError(
            f'Juman++ is not on this machine: there is no program "{wanted}"',
            cure=f"build the package with the model from {HOME}, then name its program (`program`, or {VARIABLE})",
        )
    place = Path(path).absolute()
    return Program(path=place, version=_version(place, place.stat().st_mtime_ns))


@functools.cache
def _version(path: Path, changed: int) -> str:
    cure = f"give the program of Juman++ ({HOME})"
    try:
        pipe = Pipe([str(path), "--version"])
    except OSError as error:
        raise KitaeError(f"{path} --version fails: {error.strerror}", cure=cure) from error
    lines = pipe.until_end(START_SECONDS)
    pipe.close()
    if lines is None:
        raise KitaeError(f"{path} --version fails: it {pipe.trouble}", cure=cure)
    return b"\n".join(lines).decode(errors="replace").strip()


def find_again(place: str) -> Program:
    """The program for a saved tokenizer: what the environment names, or what is on the search path.

    `place`, where it was when the tokenizer was made, is for the message only: a folder from elsewhere could name any program.
    """
    try:
        return find()
    except KitaeError as error:
        raise KitaeError(error.what, cure=name_it(place)) from error


def name_it(place: str) -> str:
    """What its user does to have the program run that a saved tokenizer was made with."""
    return f"name its program in {VARIABLE} (the tokenizer was made with {place!r}, but none is run because a folder names it)"


@contextlib.contextmanager
def named(program: str) -> Iterator[None]:
    """Meanwhile, here and in the processes that start here, saved tokenizers are used with this program ("": as before)."""
    before = os.environ.get(VARIABLE)
    if program:
        os.environ[VARIABLE] = program
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


class JumanppSegmenter:
    """Words of Juman++ as they stand in the text: the choice of Kyoto University's models.

    Needs the program with its model, which is in no package registry. Next to MeCab with JumanDIC it knows the meaning of words
    better, at a tenth of the speed. `segment_all` sends sentences in batches; `segment` costs a way there and back. A longer
    sentence than Juman++ takes is cut. A sentence that Juman++ dies of, hangs at or answers with rubbish is tried once more alone in
    a new process; then what stands between blanks are its words, a warning says so, and `failures` counts it. Threads take turns,
    and a fork starts a program of its own. `whole` leaves the blanks inside of words.
    Tolmachev et al. 2018, "Juman++: A Morphological Analysis Toolkit for Scriptio Continua".
    """

    def __init__(self, program: Program, *, patience: float = SENTENCE_SECONDS, whole: bool = False) -> None:
        self.failures = 0
        self._program, self._patience, self._whole, self._in_a_row = program, patience, whole, 0
        self._pipe: Pipe | None = None
        self._trouble = ""
        self._process, self._lock = os.getpid(), threading.Lock()

    def segment(self, text: str) -> list[str]:
        """The words of one sentence."""
        return self.segment_all([text])[0]

    def segment_all(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each sentence. Raises KitaeError when Juman++ cannot be started or fails at many sentences in a row."""
        if self._process != os.getpid():  # a fork: the pipe belongs to the process before it, and the lock may be held for ever
            self._process, self._lock, self._pipe = os.getpid(), threading.Lock(), None
        with self._lock:
            return self._segment_all(texts)

    def _segment_all(self, texts: Sequence[str]) -> list[list[str]]:
        words: list[list[str]] = [[] for _ in texts]
        waiting = deque((number, part) for number, text in enumerate(texts) for part in _clean(text))
        while waiting:
            batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
            found = self._ask([part for _, part in batch])
            for (number, _), answer in zip(batch, found):
                words[number] += answer
            if len(found) < len(batch):
                number, part = batch[len(found)]
                words[number] += self._again(part)
                waiting.extendleft(reversed(batch[len(found) + 1 :]))
        return words

    def close(self) -> None:
        """End the process; the next sentence starts another."""
        if self._pipe is not None:
            self._pipe.close()
            self._pipe = None

    def _ask(self, sentences: Sequence[str]) -> list[list[str]]:
        """The words of the sentences up to the first without a right answer; there the process is ended, and `_trouble` says why."""
        if self._pipe is None:
            self._pipe = self._start()
        lines = [_protected(sentence) for sentence in sentences]
        found: list[list[str]] = []
        answers = self._pipe.exchange([line.encode() for line in lines], self._patience)
        for sentence, line, answer in zip(sentences, lines, answers):
            spans = read_spans(line, answer)
            if spans is not None:
                self._in_a_row = 0
                words = [sentence[start:end] for start, end in spans]
                found.append(words if self._whole else [part for word in words for part in word.split()])
            elif answer and answer[0].startswith(b"# ERROR"):
                found.append(self._give_up(sentence, "refuses it"))
            else:
                break
        if len(found) < len(sentences) or self._pipe.trouble:
            self._trouble = self._pipe.trouble if len(found) == len(answers) else "gave an answer that does not fit it"
            self.close()
        return found

    def _start(self) -> Pipe:
        try:
            pipe = Pipe([str(self._program.path)])
        except OSError as error:
            raise KitaeError(
                f"{self._program.path} cannot be started: {error.strerror}", cure=f"mend it, or build it anew ({HOME})"
            ) from error
        answers = pipe.exchange([PROBE.encode()], START_SECONDS)
        if pipe.trouble or not answers or not read_spans(PROBE, answers[0]):
            pipe.close()
            what = pipe.trouble or "gave another answer than words"
            raise KitaeError(f"{self._program.path} does not work as Juman++ does: it {what}", cure=f"give the program of Juman++ ({HOME})")
        return pipe

    def _again(self, sentence: str) -> list[str]:
        """Once more, alone in a new process: it may have died of what came before."""
        found = self._ask([sentence])
        return found[0] if found else self._give_up(sentence, self._trouble)

    def _give_up(self, sentence: str, why: str) -> list[str]:
        self.failures += 1
        self._in_a_row += 1
        if self._in_a_row > MOST_FAILURES:
            raise KitaeError(
                f"Juman++ failed at {self._in_a_row} sentences in a row; at the last it {why}",
                cure=f"try {self._program.path} by hand: echo '...' | {self._program.path.name}",
            )
        if self.failures <= MOST_WARNINGS:
            last = ", the last warning of its kind" if self.failures == MOST_WARNINGS else ""
            log.warning("Juman++ %s: what stands between blanks counts as words (%d so far%s): %.60s", why, self.failures, last, sentence)
        return sentence.split()


def _clean(text: str) -> Iterator[str]:
    """What is sent of a text: its parts, each one line that is short enough also when it is protected; nothing of a blank one."""
    text = text.translate(LINE_BREAKS).strip()
    for part in parts(text, characters=LONGEST_BYTES, size=LONGEST_BYTES):
        grows = len(PROTECTED.encode()) - len(COMMENT) if part.startswith(COMMENT) else 0
        yield from filter(str.strip, parts(part, characters=LONGEST_BYTES, size=LONGEST_BYTES - grows))


def _protected(sentence: str) -> str:
    return PROTECTED + sentence.removeprefix(COMMENT) if sentence.startswith(COMMENT) else sentence


def read_spans(sentence: str, answer: Sequence[bytes]) -> list[tuple[int, int]] | None:
    """Where the words of an answer stand in the sentence that was sent; None when the answer does not make up the sentence."""
    spans: list[tuple[int, int]] = []
    position = 0
    for line in answer:
        surface = _surface(line.decode(errors="replace"))
        if surface is None:
            continue
        if surface.strip() in BLANKS and sentence[position : position + 1].isspace():
            position += max(1, len(surface) - len(surface.strip()))
            continue
        position = SPACE.match(sentence, position).end()  # type: ignore[union-attr]  # it matches the empty string too
        if surface in NARROW and not sentence.startswith(surface, position):
            surface = NARROW[surface]
        if not surface.strip() or not sentence.startswith(surface, position):
            return None
        spans.append((position, position + len(surface)))
        position += len(surface)
    return None if sentence[position:].strip() else spans


def _surface(line: str) -> str | None:
    """The first column of a morpheme's line; None for a comment and for another reading of the morpheme before.

    Columns are surface, reading, base form, part of speech, its number, ...; "@ " and "# " before that shift the number, while a
    word "@" or "#" does not. A surface that holds a blank is known by standing there three times.
    """
    columns = line.split(" ", 5)
    if len(columns) > 4 and columns[4].isdigit():
        return columns[0]
    if line.startswith(("@ ", "# ")):
        return None
    repeated = REPEATED.match(line)
    return repeated[1] if repeated else line
