"""Answers as places in their context: checked, and mended only where the task says so."""

import logging
from typing import Literal

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.tasks.examples import Answer

log = logging.getLogger(__name__)


class AnswerConfig(Config):
    """What becomes of answers that do not stand in the context where the file says."""

    misplaced: Literal["fail", "nearest"] = "fail"
    """"nearest": an answer that stands elsewhere in the context moves to its nearest place; each is counted."""
    absent: Literal["fail", "drop"] = "fail"
    """"drop": an answer that stands nowhere in the context is left out, and a question that has no other; each is counted."""


class Placer:
    """Places the answers of one file, and counts what it mends."""

    def __init__(self, config: AnswerConfig, file: str) -> None:
        self._config, self._file = config, file
        self.moved = self.dropped = self.questions = 0

    def place(self, text: str, start: int, context: str, where: str) -> Answer | None:
        """The answer at its place; None where it is left out. Raises KitaeError unless the settings say otherwise."""
        if context.startswith(text, start):
            return Answer(start=start, text=text)
        beside = nearest(text, start, context)
        short = text if len(text) <= 60 else text[:59] + "…"
        what = f'the answer "{short}" does not stand in the context at character {start}'
        if beside is None and self._config.absent == "drop":
            self.dropped += 1
            return None
        if beside is None:
            cure = 'correct it, or say format_config.absent = "drop" to leave such answers out'
            raise KitaeError(f"{what}, nor anywhere else", cure=cure, where=where)
        if self._config.misplaced == "nearest":
            self.moved += 1
            return Answer(start=beside, text=text)
        cure = 'correct it, or say format_config.misplaced = "nearest" to move such answers'
        raise KitaeError(f"{what} but at {beside}", cure=cure, where=where)

    def tell(self) -> None:
        """Log what was mended, if anything was."""
        if self.moved or self.dropped:
            log.warning(
                "%s: %d answers moved to their nearest place, %d left out that stand nowhere in the context, and %d questions with them",
                self._file, self.moved, self.dropped, self.questions,
            )  # fmt: skip


def nearest(text: str, start: int, context: str) -> int | None:
    """The place of a text that is nearest to `start`, the earlier of two; None where there is none."""
    before, behind = context.rfind(text, 0, start + len(text)), context.find(text, start)
    found = [place for place in (before, behind) if place >= 0]
    return min(found, key=lambda place: (abs(place - start), place)) if found else None
