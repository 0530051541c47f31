"""How far trainings are, by what they wrote last, for `kitae inspect`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kitae.train.meter import clock_text
from kitae.train.monitor import METRICS, read_metrics

COLUMNS = ("training", "step", "loss", "tokens/s", "MFU", "padding", "waiting", "memory", "left")


@dataclass(frozen=True, kw_only=True)
class Watched:
    """The last lines of a training's metrics."""

    row: tuple[str, ...]
    """By COLUMNS; "-" for what nobody knows."""
    heldout: tuple[str, ...]
    """The last scores on held-out text, "name value" each, behind the step; empty when nothing was measured."""


def watched(folder: Path) -> list[Watched]:
    """The training of a folder, or those of the nodes directly below it, by name; none when there are no metrics."""
    folders = [folder] if (folder / METRICS).is_file() else sorted(file.parent for file in folder.glob(f"*/{METRICS}"))
    return [_read(place) for place in folders]


def _read(folder: Path) -> Watched:
    records = read_metrics(folder)
    trained = next((record for record in reversed(records) if record["kind"] == "train"), {})
    measured = next((record for record in reversed(records) if record["kind"] == "evaluate"), {})
    scores = [f"{name} {float(str(value)):.4g}" for name, value in measured.items() if name not in ("kind", "step")]
    row = (
        folder.absolute().name,
        str(trained.get("step", "-")),
        _shown(trained, "loss", "{:.3f}"),
        _shown(trained, "tokens_per_second", "{:,.0f}"),
        *(_shown(trained, name, "{:.1%}") for name in ("mfu", "padding_share", "waiting_share")),
        _shown(trained, "memory", "{:.2f} GB", 1e-9),
        clock_text(float(str(trained["seconds_left"]))) if "seconds_left" in trained else "-",
    )
    return Watched(row=row, heldout=(f"step {measured['step']}", *scores) if scores else ())


def _shown(record: Mapping[str, object], name: str, form: str, factor: float = 1.0) -> str:
    return form.format(float(str(record[name])) * factor) if name in record else "-"
