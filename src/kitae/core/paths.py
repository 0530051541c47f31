"""Where things lie: the packaged sample and recipes, and ordinary paths."""

from importlib import resources
from pathlib import Path

from kitae.core.errors import KitaeError, did_you_mean


def locate(path: str) -> Path:
    """`sample:NAME` is a file of the packaged sample (any ending); everything else an ordinary path.

    Raises KitaeError for a sample that does not exist; whether an ordinary path exists is its reader's business.
    """
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
