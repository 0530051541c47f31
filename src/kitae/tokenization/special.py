"""The ids of the five special tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SpecialIds:
    """Ids of the special tokens; text never encodes to one of them but `unk`."""

    cls: int
    sep: int
    mask: int
    pad: int
    unk: int

    @property
    def ids(self) -> tuple[int, ...]:
        """All five."""
        return self.cls, self.sep, self.mask, self.pad, self.unk
