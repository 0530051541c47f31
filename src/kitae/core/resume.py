"""Going on where work was cut off: finished pieces are kept only for the very same work."""

import hashlib
import shutil
from pathlib import Path

from kitae.core.artifact import digest_json
from kitae.core.runtime import package_versions

KEY = "key"


def resume(folder: Path, work: object) -> bool:
    """Make a folder ready for work that this JSON value describes, and say whether it holds pieces of exactly that work.

    What other work, another version of kitae or of its packages left there is removed: it is never taken for finished.
    """
    key = digest_json({"work": work, "packages": package_versions(), "code": _code()})
    mark = folder / KEY
    if mark.is_file() and mark.read_text(encoding="ascii") == key:
        return True
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    mark.write_text(key, encoding="ascii")
    return False


def _code() -> str:
    """sha256 of kitae's own modules, because a version number does not change while one edits them."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
