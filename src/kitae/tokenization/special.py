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
