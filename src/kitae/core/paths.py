"""Where things lie: the packaged sample and recipes, ordinary paths, and the local copies of what is named by a URL."""

import hashlib
import os
import re
from importlib import resources
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def is_url(path: str) -> bool:
    """Whether a path is an address such as https://..., s3://... or memory://..."""
    return URL.match(path) is not None


def file_name(path: str) -> str:
    """The last part of a path or URL, without a URL's query and fragment."""
    if is_url(path):
        path = path.partition("#")[0].partition("::")[0]
        path = path.partition("?")[0] if path.lower().startswith("http") else path
    return Path(path).name


LONGEST_NAME = 200  # bytes: file systems take 255, and a folder that is being written has a longer name
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # Windows's devices, whatever their ending


def unfit(name: str) -> str:
    """Why a name cannot be a folder's on every system and below its parent; "" when it can."""
    if name in ("", ".", "..") or name.startswith(".") or name.endswith((".", " ")):
        return "it begins or ends with a dot or a blank, or is empty"
    if re.search(r'[/\\:*?"<>|\x00-\x1f\x7f]', name):
        return 'none of / \\ : * ? " < > | and control characters may stand in it'
    if RESERVED.fullmatch(name):
        return "Windows keeps it for a device"
    if len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
        return f"it has more than {LONGEST_NAME} bytes"
    return ""


def fit(name: str) -> str:
    """The name itself. Raises ValueError, as a setting's check does, when it is unfit."""
    problem = unfit(name)
    if problem:
        raise ValueError(f"{name[:60]!r} cannot be the name of a folder: {problem}")
    return name


def locate(path: str) -> Path:
    """`sample:NAME` is a file of the packaged sample (any ending), a URL its copy on this machine; all else is an ordinary path.

    Raises KitaeError for a sample that does not exist; whether another path exists is its reader's business. The copy of
    a URL lies below $KITAE_CACHE, or else in kitae's folder of $XDG_CACHE_HOME (~/.cache); nothing is downloaded here.
    """
    if is_url(path):
        cache = Path(os.environ.get("KITAE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "kitae").expanduser()
        return cache / "sources" / hashlib.sha256(path.encode()).hexdigest()[:16] / (file_name(path) or "source")
    if not path.startswith("sample:"):
        return Path(path).expanduser()
    folder = Path(str(resources.files("kitae"))) / "sample"
    found = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in (".txt", ".jsonl")}
    name = path.removeprefix("sample:")
    if name not in found:
        raise KitaeError(f'there is no sample "{name}"', cure=did_you_mean(name, found))
    return found[name]


def locate_recipe(name: str) -> Path:
    """`recipe:NAME` is a packaged recipe; everything else a path to a TOML file. Raises KitaeError when absent."""
    if name.startswith("recipe:"):
        package = Path(str(resources.files("kitae")))
        folders = (package / "recipes", package.parents[1] / "recipes")  # the wheel's place, the checkout's place
        found = {file.stem: file for folder in folders if folder.is_dir() for file in sorted(folder.glob("*.toml"))}
        wanted = name.removeprefix("recipe:")
        if wanted not in found:
            raise KitaeError(f'there is no packaged recipe "{wanted}"', cure=did_you_mean(wanted, found))
        return found[wanted]
    path = Path(name).expanduser()
    if not path.is_file():
        raise KitaeError(f"the recipe {name} does not exist", cure="give the path of a TOML file, or recipe:quickstart for the sample")
    return path
