"""The command line: verbs over recipes, folders and artifacts. Settings live in recipes; the flags are a closed list."""

import contextlib
import errno
import logging
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import FrameType, ModuleType
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kitae import __version__
from kitae.core.artifact import MANIFEST, dropped, read_manifest, verify
from kitae.core.errors import KitaeError, Stopped
from kitae.core.graph import Node
from kitae.core.launch import launch
from kitae.core.recipe import overridden, validate
from kitae.core.runtime import leave, report_failure
from kitae.stages.table import STAGES

app = typer.Typer(
    name="kitae",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="From raw text to an encoder that knows your domain.",
)
RecipePath = Annotated[str, typer.Argument(metavar="RECIPE", help='A TOML file, or "recipe:quickstart" for the sample.')]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="a.b.c=VALUE", help="Override a setting with a TOML value.")]
Until = Annotated[str | None, typer.Option("--until", metavar="NODE", help="Stop after this node.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.command()
def plan(recipe: RecipePath, overrides: Overrides = None, until: Until = None, debug: Debug = False) -> None:
    """Show every node: done, stale (and why), started, missing, or its source absent; what models, time, memory and disk come to."""
    load, nodes, status = _chain("recipe").load, _chain("nodes"), _chain("status")
    loaded, path = load(recipe, tuple(overrides or ()))
    wanted = nodes.select(nodes.nodes(loaded, str(path)), until)
    found = status.statuses(wanted, Path(loaded.output), loaded.seed)
    told = _chain("forecast").forecast(loaded, found)
    table = Table("node", "stage", "state", "disk", "why", box=None)
    for name, row in found.items():
        table.add_row(name, row.node.stage, row.state, told.room[name], escape("; ".join(row.reasons)))
    console = _console()
    console.print(table)
    for grid in told.grids:
        table = Table(box=None)
        for number, title in enumerate(grid.columns):
            table.add_column(title, justify="left" if number == 0 or number in grid.words else "right")
        for cells in grid.rows:
            table.add_row(*map(escape, cells))
        console.print("", table)
    console.print("")
    for text in (*(f"- {note}" for note in told.notes), *(f"! {warning}" for warning in told.warnings)):
        print(textwrap.fill(text, width=100, subsequent_indent="  "))


@app.command()
def run(recipe: RecipePath, overrides: Overrides = None, until: Until = None, debug: Debug = False) -> None:
    """Make what is missing, continue what was cut off."""
    _run(recipe, overrides, lambda nodes, all_nodes: nodes.select(all_nodes, until))


def _run(recipe: str, overrides: list[str] | None, choose: Callable[[ModuleType, list[Node]], list[Node]]) -> None:
    load, nodes, execute = _chain("recipe").load, _chain("nodes"), _chain("execute").execute
    loaded, path = load(recipe, tuple(overrides or ()))
    whole = nodes.nodes(loaded, str(path))
    wanted = choose(nodes, whole)
    made = execute(loaded, path, wanted, whole)
    if not launch().main:
        return
    if not made:
        print(f"nothing to do: all {len(wanted)} nodes of {path.name} are done in {loaded.output}")
    for node in wanted:
        folder = Path(loaded.output) / node.name
        if node.stage in ("curve", "overview"):
            print(f"\n{(folder / 'results.md').read_text(encoding='utf-8')}\nresults: {folder}")
        elif node.stage == "evaluate":
            summary = (folder / "results.md").read_text(encoding="utf-8").partition("\n## Pairs of encoders")[0]
            print(f"\n{summary}\nresults: {folder} (pairs, every seed, errors, times)")
        elif node.stage == "export":
            made = sorted({str(item.parent) for name in ("config.json", "model.json") for item in folder.rglob(name)})
            print(f"exported models: {', '.join(made)}")


def _verb(name: str) -> None:
    def command(recipe: RecipePath, overrides: Overrides = None, debug: Debug = False) -> None:
        _run(recipe, overrides, lambda nodes, all_nodes: nodes.of_stage(all_nodes, name))

    app.command(name, help=f"Run the recipe up to this stage: {STAGES[name].line}.")(command)


for _name in STAGES:
    if _name != "evaluate" and STAGES[_name].verb:
        _verb(_name)


@app.command(help=f"Run a recipe up to this stage ({STAGES['evaluate'].line}), or measure any model on any text without training.")
def evaluate(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE|FOLDER", help="A recipe; or a checkpoint, run, trial, export or Hugging Face folder.")
    ],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help="With a folder: files, folders, sample:NAME, task:NAME/test, a corpus, a dataset."),
    ] = None,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """See the help of the command."""
    if not texts:
        if Path(recipe).is_dir():
            cure = "name a text behind it: kitae evaluate FOLDER TEXT; of labelled texts for a fine-tuned model"
            raise KitaeError(f"{recipe} is a folder, and no text is named to measure it on", cure=cure)
        _run(recipe, overrides, lambda nodes, all_nodes: nodes.of_stage(all_nodes, "evaluate"))
        return
    if recipe.endswith(".toml") or recipe.startswith("recipe:"):
        raise KitaeError(f"{recipe} is a recipe, and texts are measured with a model", cure="give the folder of a model before the texts")
    module = import_module("kitae.procedures.measure")
    config = validate(module.MeasureConfig, overridden(tuple(overrides or ())), "--set")
    measured = module.measure(Path(recipe), texts, config)
    print(f"{measured.model}: {measured.what}\n{import_module('kitae.report.tables').plain(measured.table())}", end="")
    if config.output is not None:
        print(f"scores -> {config.output}")


@app.command()
def predict(
    folder: Annotated[
        Path, typer.Argument(help="A trial, pre-training, export or Hugging Face folder: fine-tuned, masked LM or Electric.")
    ],
    source: Annotated[Path, typer.Argument(help="CSV, TSV, JSONL or plain text, a text a line; - for standard input.")],
    target: Annotated[Path, typer.Argument(help="CSV, TSV or JSONL to write; - for standard output.")],
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Predict new texts by what FOLDER holds: labels, numbers, choices, entities, answers, tokens for [MASK] (candidates=5), scores."""
    module = import_module("kitae.procedures.predict")
    config = validate(module.PredictConfig, overridden(tuple(overrides or ())), "--set")
    try:
        count = module.predict_file(folder, source, target, config)
    except BrokenPipeError:  # whoever reads the answers has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise typer.Exit(128 + signal.SIGPIPE) from None
    print(f"{count} texts -> {target}", file=sys.stderr if str(target) == "-" else sys.stdout)


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A stage, predict, an objective (mlm, ...), a model family (bert, ...), a kind of task, a format, or slurm.",
        ),
    ],
    debug: Debug = False,
) -> None:
    """Print the settings of a stage, an objective, a model family, a kind or a format, documented; of slurm, a script for sbatch."""
    if name == "slurm":
        print(_chain("slurm").job_script(), end="")
        return
    title, lines = _chain("show").settings(name)
    console = _console()
    console.print(f"[bold]{name}[/bold]: {escape(title)}")
    for text in lines:
        console.print(text, markup=False, highlight=False)


@app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="Folder of an artifact, a training or a run; with FILES, of a tokenizer, or a vocab.txt.")],
    files: Annotated[list[Path] | None, typer.Argument(help="A text, or two to compare: how does the tokenizer fit?")] = None,
    debug: Debug = False,
) -> None:
    """Say what an artifact is, what made it and what came out; of trainings, how far they are; with text, how well a tokenizer fits it."""
    if files:
        _fit(path, files)
        return
    trainings = _trainings(path)
    if trainings and not (path / MANIFEST).is_file():
        return
    manifest = read_manifest(path)
    facts = manifest.facts
    size = sum(record.size for record in manifest.files.values())
    gone = "".join(f"; {part}/ was dropped" for part in dropped(path))
    print(f"{path}: {manifest.kind}, {len(manifest.files)} files, {size / 1e6:.1f} MB{gone}")
    for key in ("node", "settings", "counts", "licences", "packages", "seconds", "step"):
        if facts.get(key):
            _console().print(f"{key}:", facts[key], markup=False)


def _trainings(folder: Path) -> bool:
    """Show the last metrics of the trainings in a folder; returns whether there are any."""
    if not any(folder.glob("metrics.jsonl")) and not any(folder.glob("*/metrics.jsonl")):
        return False  # without torch
    watching = _chain("watching")
    found = watching.watched(folder)
    table = Table(*watching.COLUMNS, box=None)
    for training in found:
        table.add_row(*map(escape, training.row))
    _console().print(table)
    for training in found:
        if training.heldout:
            _console().print(f"{training.row[0]}, held-out text, {', '.join(training.heldout)}", markup=False, highlight=False)
    return True


def _fit(tokenizer: Path, files: list[Path]) -> None:
    for part in _chain("fit").report(tokenizer, files):
        table = Table(*part.columns, title=part.title, title_justify="left", box=None)
        for row in part.rows:
            table.add_row(*map(escape, row))
        _console().print(table)


@app.command("verify")
def verify_(path: Annotated[Path, typer.Argument(help="An artifact's folder.")], debug: Debug = False) -> None:
    """Check every file of an artifact against its recorded sha256."""
    print(f"{path}: {len(verify(path).files)} files are as recorded")


@app.command()
def fetch(
    name: Annotated[str, typer.Argument(help="wikipedia:ja/20210601, wikipedia:en/latest, cc100:ja, openwebtext, kyoto, aozora, ...")],
    folder: Annotated[Path, typer.Argument(help='Where to put it; the word "sample" here or behind takes its first few MB only.')] = Path(),
    part: Annotated[str, typer.Argument(metavar="sample", help="Take the first few MB only.")] = "",
    debug: Debug = False,
) -> None:
    """Download a public corpus: checked, and continued where it stopped. KITAE_MIRROR names servers of your own to ask instead."""
    if part not in ("", "sample"):
        raise KitaeError(f'"{part}" is not understood', cure='write "sample", or leave it out')
    short = str(folder) == "sample" and not part
    mirrors = os.environ.get("KITAE_MIRROR", "").split()
    got = import_module("kitae.text.fetch").fetch(name, Path() if short else folder, sample=short or bool(part), mirrors=mirrors)
    print(f"{got.path}: {got.checked}\nin a recipe, under [corpus] or [adapt]:\n  {got.source}")


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"kitae {__version__}")
        raise typer.Exit


def _chain(name: str) -> ModuleType:
    return import_module(f"kitae.chain.{name}")  # torch comes with it, and `kitae --help` has no time for that


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 200)


def main() -> None:
    """Run the command line: exit code 2 and one line for a user's mistake, 128 + signal for a stop that was asked for."""
    try:
        _answer()
    except SystemExit as end:
        if _several():
            leave(end.code if isinstance(end.code, int) else int(end.code is not None))
        raise


def _several() -> bool:
    """Whether this is one of several processes; after an error in the launcher's variables the answer is no."""
    with contextlib.suppress(KitaeError):
        return launch().size > 1
    return False


def _answer() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    try:
        logging.basicConfig(format="%(message)s", level=logging.INFO if launch().main else logging.WARNING, stream=sys.stderr)
        app()
    except KitaeError as error:
        _fail(error, str(error))
    except Stopped as stop:
        what = " after a complete checkpoint; run the same command to continue" if stop.saved else "; the same command starts it over"
        print(f"kitae: stopped at step {stop.step}{what}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = "free some space and run again" if full else "mend that and run again; --debug shows where it happened"
        places = [str(name) for name in (error.filename, error.filename2) if name is not None] or getattr(error, "__notes__", [])[:1]
        place = "".join(f"\n       in {name}" for name in places)
        _fail(error, f"{'the disk is full' if full else error.strerror or error or type(error).__name__}: {cure}{place}")


def _fail(error: Exception, message: str) -> NoReturn:
    """Say it, and end with code 2; under --debug with the traceback instead."""
    if "--debug" in sys.argv:
        raise error
    report_failure(message, aloud=launch().main)
    sys.exit(2)


def _stop(number: int, frame: FrameType | None) -> None:
    """Outside of training: end now, by an exception, so that what is half written is removed."""
    signal.signal(number, signal.SIG_IGN)  # one is enough; a second would cut the cleaning short
    if launch().main:
        print("kitae: stopped; run the same command to continue", file=sys.stderr)
    sys.exit(128 + number)
