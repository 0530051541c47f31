"""Going on where work was cut off: finished pieces are kept only for the very same work."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from kitae.core.artifact import digest_json
from kitae.core.runtime import package_versions


def resume(folder: Path, work: object, *, leave: Callable[[Path], None] = lambda _: None) -> Path:
    """The folder for work that this JSON value describes, with the finished pieces of exactly that work, if there are any.

    It is below `folder` and called by the work's key, so that whoever is still at other work writes elsewhere. What other work, another
    version of kitae or of its packages left there is removed, each after `leave` was called with its folder.
    """
    key = digest_json({"work": work, "packages": package_versions(), "code": _code()})[:16]
    for old in folder.glob("*/"):
        if old.name != key:
            leave(old)
            shutil.rmtree(old, ignore_errors=True)
    (folder / key).mkdir(parents=True, exist_ok=True)
    return folder / key


def _code() -> str:
    """sha256 of kitae's own modules, because a version number does not change while one edits them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
