"""Which documents of a source are wanted, by what its format knows of them: date, language, annotations."""

import datetime
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence

from pydantic import Field, field_validator

from kitae.core.config import Config

Metadata = Mapping[str, str | float | tuple[str, ...]]
DATE = re.compile(r"(\d{4})(?:\D(\d{1,2})(?:\D(\d{1,2}))?|(\d{2})(\d{2})?)?(?!\d)", re.ASCII)
BOUND = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2}))?)?", re.ASCII)


class Keep(Config):
    """What a document must have to be kept. One that lacks what is asked for is dropped, and counted as such ("no date")."""

    date: tuple[str, str] | None = None
    """First and last date, both included, each "2019", "2019-04" or "2019-04-01"; compared as far as the coarser of two dates goes."""
    language: tuple[str, ...] = ()
    """Languages as the format names them, for example ["ja"]."""
    language_probability: float = Field(default=0.0, ge=0, le=1)
    """The format's own certainty of the language must be at least this."""

    @field_validator("date")
    @classmethod
    def _bounds(cls, value: tuple[str, str] | None) -> tuple[str, str] | None:
        for bound in value or ():
            match = BOUND.fullmatch(bound)
            if not match or not _is_date(match.groups()):
                raise ValueError(f'"{bound}" is not a date such as "2019", "2019-04" or "2019-04-01"')
        if value and value[0] > value[1] + "~":  # "2019-04" to "2019" is no empty range
            raise ValueError(f"the first date, {value[0]}, is later than the last, {value[1]}")
        return value


class Drop(Config):
    """What a document must not have."""

    annotations: tuple[str, ...] = ()
    """Annotations of the format, for example OSCAR's ["header", "footer", "noisy", "tiny", "short_sentences"]."""


class Selection(Config):
    """Both, and what they go by."""

    keep: Keep = Keep()
    """What a document must have."""
    drop: Drop = Drop()
    """What it must not have."""
    names: dict[str, str] = {}
    """Where date, language, language_probability or annotations stand when the format calls them otherwise."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names that the filters which are set go by, as the format calls them."""
        asked = {
            "date": self.keep.date, "language": self.keep.language, "language_probability": self.keep.language_probability,
            "annotations": self.drop.annotations,
        }  # fmt: skip
        return tuple(self.names.get(name, name) for name, filter in asked.items() if filter)

    def reason(self, metadata: Metadata) -> str | None:
        """Why a document with this metadata is not wanted, or None."""
        return self._annotation(metadata) or self._date(metadata) or self._language(metadata)

    def _of(self, metadata: Metadata, name: str) -> str | float | tuple[str, ...]:
        return metadata.get(self.names.get(name, name), "")

    def _annotation(self, metadata: Metadata) -> str | None:
        if not self.drop.annotations:
            return None
        found = self._of(metadata, "annotations")
        given = _list(found) if isinstance(found, str) else found if isinstance(found, tuple) else ()
        return next((f"annotation:{name}" for name in self.drop.annotations if name in given), None)

    def _date(self, metadata: Metadata) -> str | None:
        if self.keep.date is None:
            return None
        text = unicodedata.normalize("NFKC", str(self._of(metadata, "date"))).removesuffix(".0")  # a table may hold 2019.0
        match = DATE.match(text.strip())
        parts = [part for part in match.groups() if part] if match else []
        if not _is_date(parts):
            return "no date"
        date = "-".join(part.zfill(2) for part in parts)
        first, last = self.keep.date
        return None if first[: len(date)] <= date and date[: len(last)] <= last else "date"

    def _language(self, metadata: Metadata) -> str | None:
        if self.keep.language:
            language = self._of(metadata, "language")
            if language not in self.keep.language:
                return "language" if language else "no language"
        if self.keep.language_probability:
            try:
                probability = float(str(self._of(metadata, "language_probability")))
            except ValueError:
                return "no language probability"
            if not probability >= self.keep.language_probability:
                return "language probability"
        return None


def _is_date(parts: Sequence[str | None]) -> bool:
    """Whether the calendar has this year, or year and month, or day."""
    given = [int(part) for part in parts if part]
    if not given:
        return False
    try:
        datetime.date(*[*given, 1, 1][:3])
    except ValueError:
        return False
    return True


def _list(text: str) -> list[str]:
    """The strings of a list that a table holds as JSON, or the text as the only one."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    return [str(item) for item in value] if isinstance(value, list) else [text]
