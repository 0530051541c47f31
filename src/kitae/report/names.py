"""Names of encoders as people read them: of a folder the end of its path, as long as it takes to tell it apart from the others."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath


def short_names(names: Sequence[str], beside: Sequence[str] = ()) -> dict[str, str]:
    """For each name the shortest ending of its path, in whole components, that is an ending of no other name.

    `beside`: names that stand on the same page as they are. A name that cannot be shortened stays what it is.
    """
    parts = {name: PurePath(name).parts for name in dict.fromkeys((*names, *beside))}
    made = {}
    for name in names:
        own = parts[name]
        others = [of for other, of in parts.items() if other != name]
        lengths = (n for n in range(1, len(own)) if all(of[-n:] != own[-n:] for of in others))
        length = next(lengths, len(own))
        made[name] = str(PurePath(*own[-length:])) if length < len(own) else name
    return made


def addresses(names: Mapping[str, str]) -> str:
    """A line that says which folder every shortened name stands for; "" where none was shortened."""
    return "; ".join(f"{short} is {name}" for name, short in names.items() if short != name)
