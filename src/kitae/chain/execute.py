"""Making what is missing: parents first, small artifacts whole or not at all, trained weights never replaced silently."""

import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from safetensors import SafetensorError

from kitae.chain.ahead import look_ahead
from kitae.chain.dropping import drop
from kitae.chain.recipe import Recipe
from kitae.chain.status import STARTED, State, Status, recorded, require_sources, statuses
from kitae.core.artifact import MANIFEST, Inputs, Out, replace_text, seal, sweep, write_folder
from kitae.core.errors import KitaeError
from kitae.core.graph import Node
from kitae.core.paths import is_url
from kitae.core.runtime import lock, package_versions
from kitae.stages.table import Stage, stage
from kitae.tensor.world import ranks
from kitae.text.remote import download
from kitae.tokenization import jumanpp

log = logging.getLogger(__name__)
OWNER = "kitae.json"


def execute(recipe: Recipe, path: Path, nodes: Sequence[Node], whole: Sequence[Node] | None = None) -> list[str]:
    """Make every node that is not up to date; the names of those made. `whole` is the recipe's graph where `nodes` are a part of it.

    Raises KitaeError when a source is absent, the output belongs to another recipe or process, or a changed
    setting would replace trained weights.
    """
    rank, size = ranks()
    output = Path(recipe.output)
    program = "" if recipe.tokenizer is None else recipe.tokenizer.program
    with jumanpp.named(program), lock(output) if rank == 0 else nullcontext():
        if rank == 0:
            _own(output, path)
        found = statuses(nodes, output, recipe.seed)
        if _bring(found, main=rank == 0):
            found = statuses(nodes, output, recipe.seed)
        for status in found.values():
            require_sources(status)
        _protect(found, recipe.replace, output)
        if rank == 0:
            look_ahead(found, nodes)
        made: list[str] = []
        elsewhere: dict[str, Status] = {}
        trials = [node.name for node in nodes if node.stage in ("sweep", "finetune", "together")]
        for node in nodes:
            if found[node.name].state is State.DONE:
                if rank == 0 and not stage(node.stage).resumable:
                    _clear(output / node.name)
                continue
            everybody = stage(node.stage).resumable
            owner = trials.index(node.name) % size if node.name in trials else 0
            if everybody or rank == owner:
                for parent in elsewhere.keys() & set(node.parents.values()):
                    _wait(output / parent, elsewhere.pop(parent))
                try:
                    _make(node, found[node.name], output, recipe, main=rank == owner)
                except OSError as error:
                    error.add_note(f"{output / node.name} (making {node.name})")  # the error itself may name no file
                    raise
            else:
                elsewhere[node.name] = found[node.name]  # waited for where it is needed: meanwhile this rank makes its own trials
            made.append(node.name)
        for name, status in elsewhere.items():
            _wait(output / name, status)
        if recipe.keep == "needed" and rank == 0:
            everything = nodes if whole is None else whole
            drop(everything, statuses(everything, output, recipe.seed), output)
    return made


def _own(output: Path, path: Path) -> None:
    marker = output / OWNER
    name = path.stem
    if marker.is_file():
        owner = _owner(marker)
        if owner != name:
            raise KitaeError(f'output = "{output}" belongs to the recipe "{owner}"', cure="choose another output folder", where=str(path))
        return
    strangers = [item.name for item in output.iterdir() if not item.name.startswith(".")]
    if strangers:
        raise KitaeError(
            f'output = "{output}" holds files that kitae did not make ({strangers[0]}, ...)',
            cure="choose an empty or new folder",
            where=str(path),
        )
    replace_text(marker, json.dumps({"recipe": name}))


def _owner(marker: Path) -> str:
    try:
        return str(json.loads(marker.read_text(encoding="utf-8"))["recipe"])
    except (ValueError, KeyError, TypeError) as error:
        cure = "remove this file, if the folder is that of this recipe"
        raise KitaeError(f"{OWNER} is damaged: it does not say whose output this is", cure=cure, where=str(marker)) from error


def _bring(found: Mapping[str, Status], *, main: bool) -> bool:
    """Download what nodes that have to be made read from URLs; whether there was anything. Other ranks wait for it."""
    wanted = [status.node.sources.items() for status in found.values() if status.state is not State.DONE]
    absent = {url: path for sources in wanted for url, path in sources if is_url(url) and not path.exists()}
    for url, path in absent.items():
        if main:
            download(url, path)
        else:
            _until(path.exists)
    return bool(absent)


def _holds_weights(folder: Path) -> bool:
    """Whether anything was trained there; a run that was refused, or stopped before its first checkpoint, leaves nothing to protect."""
    return (folder / MANIFEST).is_file() or next(folder.rglob("*.safetensors"), None) is not None


def _protect(found: Mapping[str, Status], replace: Sequence[str], output: Path) -> None:
    for status in found.values():
        node = status.node
        if status.state is not State.STALE or not node.trained or node.stage in replace or node.name in replace:
            continue
        if any(node.name.startswith(f"{name}/") for name in replace) or not _holds_weights(output / node.name):
            continue
        raise KitaeError(
            f"{node.name} is trained already, and its settings changed: {'; '.join(status.reasons[:3])}",
            cure=f"choose a new output, or allow it with --set 'replace=[\"{node.name.split('/')[0]}\"]'",
        )


def _make(node: Node, status: Status, output: Path, recipe: Recipe, *, main: bool) -> None:
    made_by, folder = stage(node.stage), output / node.name
    inputs = Inputs(parents={role: output / name for role, name in node.parents.items()}, seed=recipe.seed)
    begun = time.monotonic()
    if main:
        reason = f" ({status.reasons[0]})" if status.reasons else ""
        log.info("%s: %s%s", node.name, "continuing" if status.state is State.STARTED else "making", reason)
    if not made_by.resumable:
        work = folder.parent / f".{folder.name}.work"  # whoever works there keeps only what fits the settings that it hangs on
        sweep(folder.parent, folder.name)
        with write_folder(folder) as beside:
            out = Out(path=beside, work=work)
            try:
                made_by.run(node.config, inputs, out)
            except SafetensorError as error:  # its input and output errors carry no errno
                cure = "free some space, or mend the disk, and run again"
                raise KitaeError(f"{node.name}: weights could not be read or written: {error}", cure=cure, where=str(folder)) from error
            seal(beside, kind=node.stage, facts=_facts(status, out, begun))
        shutil.rmtree(work, ignore_errors=True)
    else:
        _in_place(folder, status, made_by, inputs, main=main, begun=begun)
    if main:
        log.info("%s: done in %.0f s", node.name, time.monotonic() - begun)


def _clear(folder: Path) -> None:
    """Remove what the making of a finished artifact left beside it, when the process died before it could."""
    sweep(folder.parent, folder.name)
    shutil.rmtree(folder.parent / f".{folder.name}.work", ignore_errors=True)


def _in_place(folder: Path, status: Status, made_by: Stage, inputs: Inputs, *, main: bool, begun: float) -> None:
    if main:
        old = recorded(folder)
        if old is not None and old.get("fingerprint") != status.facts["fingerprint"]:
            shutil.rmtree(folder)  # allowed by `replace`, or _protect had refused
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / STARTED).is_file():
            replace_text(folder / STARTED, json.dumps(status.facts, ensure_ascii=False))
    else:
        _until(lambda: _begun(folder, status))
    out = Out(path=folder)
    made_by.run(status.node.config, inputs, out)
    if main:
        seal(folder, kind=status.node.stage, facts=_facts(status, out, begun))


def _begun(folder: Path, status: Status) -> bool:
    facts = recorded(folder)
    return facts is not None and facts.get("fingerprint") == status.facts["fingerprint"]


def _wait(folder: Path, status: Status) -> None:
    _until(lambda: (folder / "manifest.json").is_file() and _begun(folder, status))


def _until(condition: Callable[[], bool], every: float = 0.2) -> None:
    """Wait on the shared file system, without a collective's time-out; torchrun ends the waiting when a rank fails."""
    while not condition():
        time.sleep(every)


def _facts(status: Status, out: Out, begun: float) -> dict[str, object]:
    made = {"counts": out.counts, "licences": out.licences, "packages": package_versions()}
    return {
        **status.facts,
        "settings": status.node.config.model_dump(mode="json", by_alias=True),
        **made,
        "seconds": time.monotonic() - begun,
    }
