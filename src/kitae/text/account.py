"""The account of a corpus: every document read is kept, held out or dropped for a reason, with examples."""

from kitae.text.build import Built, Tally


def splits(built: Built) -> tuple[tuple[str, dict[str, Tally]], tuple[str, dict[str, Tally]]]:
    """The tallies of what stays, by split and source."""
    return ("train", built.train), ("heldout", built.heldout)


def row(built: Built, name: str) -> dict[str, int]:
    """One source's documents: read, kept, held out, and dropped by reason; and the characters kept."""
    dropped = {f"dropped: {reason}": tally.documents for reason, tally in sorted(built.dropped[name].items())}
    train, heldout = built.train[name], built.heldout[name]
    return {
        "read": built.documents_in[name],
        "kept": train.documents,
        "held out": heldout.documents,
        **dropped,
        "characters": train.characters,
    }


def drops(built: Built) -> dict[str, dict[str, object]]:
    """What was dropped, by source and reason, with examples: for JSON."""
    return {name: {reason: _drop(tally) for reason, tally in sorted(tallies.items())} for name, tallies in built.dropped.items()}


def _drop(tally: Tally) -> dict[str, object]:
    examples = [{"id": name, "text": text} for name, text in tally.examples]
    return {"documents": tally.documents, "characters": tally.characters, "examples": examples}


def table(built: Built) -> str:
    """What became of the documents, in Markdown."""
    lines = ["# What became of the documents", "", "| source | fate | documents | characters | examples |", "|---|---|---:|---:|---|"]
    for name, count in built.documents_in.items():
        rows = [("kept", built.train[name]), ("held out", built.heldout[name])]
        rows += [(f"dropped: {reason}", tally) for reason, tally in sorted(built.dropped[name].items())]
        lines.append(f"| {_cell(name)} | read | {count:,} | | |")
        for fate, tally in rows:
            examples = "<br>".join(f"{_cell(one)}: {_cell(text[:40])}" for one, text in tally.examples)
            lines.append(f"| {_cell(name)} | {_cell(fate)} | {tally.documents:,} | {tally.characters:,} | {examples} |")
    changes = [(name, kind, count) for name, found in built.changes.items() for kind, count in found.items()]
    if changes:
        lines += ["", "| source | changed, in documents that no filter dropped | times |", "|---|---|---:|"]
        lines += [f"| {_cell(name)} | {_cell(kind)} | {count:,} |" for name, kind, count in changes]
    if built.replaced or built.first_bad:
        lines += ["", "| source | kept documents with U+FFFD for bytes that are no text | the first such bytes |", "|---|---:|---|"]
        names = [name for name in built.documents_in if name in built.replaced or name in built.first_bad]
        lines += [f"| {_cell(name)} | {built.replaced.get(name, 0):,} | {_cell(built.first_bad.get(name, ''))} |" for name in names]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|").replace("`", "'")
