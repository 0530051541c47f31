"""Which documents of a source are wanted, by what its format knows of them: date, language, annotations."""

import json
import re
from collections.abc import Mapping

from pydantic import Field, field_validator

from kitae.core.config import Config

Metadata = Mapping[str, str | float | tuple[str, ...]]
DATE = re.compile(r"(\d{4})(?:\D(\d{1,2})(?:\D(\d{1,2}))?|(\d{2})(\d{2}))?(?!\d)")
BOUND = re.compile(r"\d{4}(-\d{2}(-\d{2})?)?")


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
            if not BOUND.fullmatch(bound):
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
        match = DATE.match(str(self._of(metadata, "date")))
        if not match:
            return "no date"
        year, *rest = match.groups()
        date = "-".join([year, *(part.zfill(2) for part in rest if part)])
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


def _list(text: str) -> list[str]:
    """The strings of a list that a table holds as JSON, or the text as the only one."""
    try:
        value = json.loads(text)
    except ValueError:
        return [text]
    return [str(item) for item in value] if isinstance(value, list) else [text]
