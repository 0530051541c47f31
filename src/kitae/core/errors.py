"""The errors that a user sees: one sentence each for what is wrong, how to mend it and where."""

import difflib
from collections.abc import Iterable


class KitaeError(Exception):
    """A mistake that the user can mend. The command line prints it without a traceback and exits with code 2.

    `what` says what is wrong, with the value; `cure` how to mend it; `where` names file, line, table or key.
    """

    def __init__(self, what: str, *, cure: str = "", where: str = "") -> None:
        self.what, self.cure, self.where = what, cure, where
        super().__init__(f"{what}: {cure}" if cure else what)

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}\n       in {self.where}" if self.where else text

    def __reduce__(self) -> tuple[object, ...]:  # worker processes hand errors over by pickling them
        return (_rebuild, (self.what, self.cure, self.where))


class Stopped(Exception):
    """Training stopped cleanly on a signal, after a complete checkpoint (`saved`) or with nothing kept. Exit code 128 + signal."""

    def __init__(self, signal: int, step: int, *, saved: bool = True) -> None:
        self.signal, self.step, self.saved = signal, step, saved
        super().__init__(signal, step)


def _rebuild(what: str, cure: str, where: str) -> KitaeError:
    return KitaeError(what, cure=cure, where=where)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`did you mean "x"?`, or the list of what is known when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(word, names, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else f"known are {', '.join(names) or 'none'}"
