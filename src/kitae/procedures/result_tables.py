"""A task's comparison for people: tables, figures and one page of Markdown."""

from collections.abc import Iterator, Mapping, Sequence

from kitae.procedures.comparison import EncoderResult, Quoted, TaskResult
from kitae.procedures.published import table as protocols
from kitae.report.figures import Panel, box_plots
from kitae.report.names import addresses
from kitae.report.tables import Cell, Probability, Table, escaped, markdown

QUOTED = "quoted, not measured here"


def tables(result: TaskResult) -> dict[str, Table]:
    """The result as tables, by file name; none where nothing was scored."""
    if not result.encoders:
        return {}
    shown, names = _shown(result), result.names
    comparisons = Table(
        title="Pairs of encoders",
        columns=("encoder", "against", "difference", "95 % low", "95 % high", "p", "verdict", *_tested(result)),
        rows=[tuple(_pair(row, names)) for row in result.comparisons],
    )
    seeds = Table(
        title="Every seed",
        columns=("encoder", "seed", *(_title(name) for name in shown), "train s", "predict s"),
        rows=[
            (names[one.encoder], int(seed), *(found.get(name) for name in shown), train, predict)
            for one in result.encoders
            for (seed, found), train, predict in zip(one.seeds.items(), one.times["train"], one.times["predict"], strict=True)
        ],
    )
    made = {"summary": _summary(result), "comparisons": comparisons, "seeds": seeds}
    if result.published:
        made["published"] = protocols(result.published, result.metric, names)
    for encoder in (encoder for encoder in result.encoders if encoder.confusion):
        made[f"confusion-{_file_name(names[encoder.encoder])}"] = Table(
            title=f"Confusion of {names[encoder.encoder]}, all seeds (rows: true, columns: predicted)",
            columns=("", *result.labels),
            rows=[(label, *row) for label, row in zip(result.labels, encoder.confusion, strict=True)],
        )
    return made


def page(result: TaskResult, others: Sequence[Table] = ()) -> str:
    """The whole comparison as Markdown: table, verdicts, warnings, pairs, seeds, confusion, and other tables behind them."""
    counts = result.examples
    if not result.encoders:
        hidden = f"The labels of all {counts['test']} test examples are hidden: the trials' folders hold what was predicted."
        return f"## {escaped(result.task)}\n\n{hidden}\n"
    made, names = tables(result), result.names
    of = f" ({len(result.labels)} labels)" if result.labels else ""
    head = (
        f"Trained on {counts['train']} texts{of}, the epoch chosen on {counts['validation']}, scored once on {counts['scored']}. "
        "Intervals cover the choice of test texts and of seeds; each is for one comparison alone."
    )
    parts = [markdown(made.pop("summary")), _folders(names), head, _lines(result.verdicts)]
    if result.published:
        parts += [markdown(made.pop("published")), _lines([found.sentence(names[found.encoder]) for found in result.published])]
    if result.quoted:
        parts.append(f"Rows with a source are {QUOTED}: other training, other seeds, perhaps other splits; no statistics hold them.")
    if counts.get("leaked"):
        parts.append(f"Warning: {counts['leaked']} test texts also stand in the training or validation texts.")
    parts += [escaped(f"Warning, {names[encoder.encoder]}: {warning}") for encoder in result.encoders for warning in encoder.warnings]
    parts += [markdown(table) for table in [*made.values(), *others]]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def times(result: TaskResult) -> str:
    """Seconds of every trial's training and prediction, as box plots."""
    names = result.names
    panels = [
        Panel(title=f"{what}, seconds", groups={names[one.encoder]: one.times[key] for one in result.encoders})
        for key, what in (("train", "training"), ("predict", "prediction"))
    ]
    return box_plots(f"{result.task}: time of each trial", panels)


def source(quoted: Quoted) -> str:
    """How a quoted score is marked in a table."""
    return f"{QUOTED}: {quoted.source}{f', {quoted.url}' if quoted.url else ''}"


def _summary(result: TaskResult) -> Table:
    others = [name for name in _shown(result) if name != result.metric]
    columns = ["encoder", "seeds", "mean", "95 % low", "95 % high", "median", "sd", "min", "max", *map(_title, others), "train s"]
    names = result.names
    rows: list[list[Cell]] = [[names[one.encoder], *_summary_row(one, result.metric, others)] for one in result.encoders]
    if result.quoted:
        columns.append("source")
        rows = [[*row, None] for row in rows]
        for one in result.quoted:
            rows.append([one.name, None, one.score, *[None] * (len(columns) - 4), source(one)])
    title = f"{result.task}: {_title(result.metric)} on {result.examples['scored']} test texts"
    return Table(title=title, columns=columns, rows=rows)


def _summary_row(encoder: EncoderResult, metric: str, others: Sequence[str]) -> Iterator[Cell]:
    found, score = encoder.spread[metric], encoder.score
    yield from (len(encoder.seeds), score.value, score.low, score.high)
    yield from (found["median"], found["sd"] if len(encoder.seeds) > 1 else None, found["min"], found["max"])
    yield from (encoder.spread[name]["mean"] for name in others)
    yield encoder.seconds.get("train")


def _tested(result: TaskResult) -> tuple[str, ...]:
    return ("only encoder right", "only other right", "McNemar p") if any("mcnemar_p" in row for row in result.comparisons) else ()


def _pair(row: Mapping[str, str | int | float], names: Mapping[str, str]) -> Iterator[Cell]:
    yield from (names[str(row["a"])], names[str(row["b"])])
    yield from (row["difference"], row["low"], row["high"], Probability(row["p"]), row["verdict"])
    if "mcnemar_p" in row:
        yield from (row["only_a"], row["only_b"], Probability(row["mcnemar_p"]))


def _folders(names: Mapping[str, str]) -> str:
    told = addresses(names)
    return f"Folders: {escaped(told)}." if told else ""


def _lines(sentences: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(sentence)}" for sentence in sentences)


def _shown(result: TaskResult) -> list[str]:
    """The metrics that tables show: of classification accuracy and macro F1 (the others follow from the task's metric), else all that every
    encoder has but those of single classes ("f1/CLASS"), which stand in a table of their own."""
    found = [name for name in result.encoders[0].spread if all(name in encoder.spread for encoder in result.encoders)]
    few = ("accuracy", "macro_f1", result.metric)
    return [name for name in found if (name in few if result.kind == "classification" else "/" not in name)]


def _title(name: str) -> str:
    return " ".join("F1" if word == "f1" else word for word in name.split("_"))


def _file_name(name: str) -> str:
    return "".join(character if character.isalnum() or character in "-_." else "_" for character in name)
