"""README.md of an exported model, written from the manifests alone: use, scores, sources, licences, settings, packages."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kitae.core.artifact import Manifest, read_manifest
from kitae.report.tables import Cell, Table, markdown

WHOLE = ("epoch", "epochs")
"""Counts that records keep beside scores, as numbers with a fraction."""


def write(folder: Path, *, title: str, manifests: Sequence[Path], usage: str, library: str = "transformers") -> None:
    """Write README.md into a model folder.

    `manifests` are artifact folders, what the model is first and what it came from after it; `usage` is Python code that loads it
    with `library`.
    """
    read = [read_manifest(path) for path in manifests]
    parts = [
        f"---\nlibrary_name: {library}\n---",
        f"# {_line(title)}",
        f"Made by kitae. Everything below comes from the records of the run.\n\n## Use\n\n```python\n{usage.strip()}\n```",
        *_results(read),
        _licences(read),
        *_settings(read),
        _packages(read),
    ]
    (folder / "README.md").write_text("\n\n".join(part.strip() for part in parts if part) + "\n", encoding="utf-8")


def _results(manifests: Sequence[Manifest]) -> Iterator[str]:
    """The counts and scores of every manifest, one table each."""
    for manifest in manifests:
        rows: list[Sequence[Cell]] = [list(row) for row in _flat(manifest.facts.get("counts", {}), "")]
        if rows:
            yield markdown(Table(title=f"Results of {_name(manifest)}", columns=("what", "value"), rows=rows, digits=4))


def _licences(manifests: Sequence[Manifest]) -> str:
    """Every source once, with its licence."""
    rows: list[Sequence[Cell]] = []
    for manifest in manifests:
        licences = manifest.facts.get("licences")
        for entry in licences if isinstance(licences, list) else []:
            row = [str(entry.get(key) or "not stated") for key in ("name", "licence", "source")]
            if row not in rows:
                rows.append(row)
    if not rows:
        return "## Sources and licences\n\nThe records name none."
    return markdown(Table(title="Sources and licences", columns=("name", "licence", "source"), rows=rows))


def _settings(manifests: Sequence[Manifest]) -> Iterator[str]:
    """The settings of every node that the model came from, parents first, each once."""
    nodes: dict[str, tuple[object, object]] = {}
    for manifest in manifests:
        lineage = manifest.facts.get("lineage")
        for name, entry in (lineage if isinstance(lineage, dict) else {}).items():
            nodes.setdefault(str(name), (entry.get("config"), entry.get("seed")))
        if not isinstance(lineage, dict) and "settings" in manifest.facts:
            nodes.setdefault(_name(manifest), (manifest.facts["settings"], None))
    if nodes:
        yield "## Settings\n\nOf every step, from the text to the model."
    for name, (config, seed) in nodes.items():
        shown = {"seed": seed, "settings": config} if seed is not None else {"settings": config}
        text = json.dumps(shown, ensure_ascii=False, indent=1).replace("```", "` ` `")
        yield f"<details><summary>{_line(name)}</summary>\n\n```json\n{text}\n```\n\n</details>"


def _packages(manifests: Sequence[Manifest]) -> str:
    found: dict[str, str] = {}
    for manifest in manifests:
        packages = manifest.facts.get("packages")
        if isinstance(packages, Mapping):
            found = {str(name): str(version) for name, version in packages.items()} | found
    return "## Versions\n\n" + ", ".join(f"{name} {version}" for name, version in found.items()) if found else ""


def _flat(value: object, path: str) -> Iterator[tuple[str, Cell]]:
    """(dotted key, number or text) of a nested JSON value; lists of numbers stay together."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if all(not isinstance(item, Mapping | list) for item in value):
            texts = [str(item) for item in value]
            yield path, ("; " if any("," in text for text in texts) else ", ").join(texts)
        else:
            for number, inner in enumerate(value):
                yield from _flat(inner, f"{path}[{number}]")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield path, _number(value, whole=path.rpartition(".")[2] in WHOLE)
    else:
        yield path, str(value)


def _number(value: float, *, whole: bool) -> Cell:
    """A number as people read it: large ones in groups of three digits and without a fraction."""
    return f"{value:,.0f}" if whole or abs(value) >= 1000 else value


def _name(manifest: Manifest) -> str:
    node, step = manifest.facts.get("node"), manifest.facts.get("step")
    return str(node) if node else f"{manifest.kind}, step {step}" if step is not None else manifest.kind


def _line(text: str) -> str:
    return " ".join(text.replace("<", "&lt;").split())
