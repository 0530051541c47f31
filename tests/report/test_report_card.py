"""The model card: everything from the manifests, and nothing in it can break out of its place."""

from pathlib import Path

from kitae.core.artifact import seal
from kitae.report import card


def made(folder: Path, **facts: object) -> Path:
    folder.mkdir()
    seal(folder, kind="pretrain", facts=facts)
    return folder


def test_everything_once(tmp_path):
    licence = {"name": "a|b", "licence": "CC BY", "source": "https://example.org"}
    lineage = {"corpus": {"config": {"note": "```\n# not a heading"}, "seed": 3}}
    counts = {"scores": {"accuracy": 0.5}, "labels": ["x", "y"], "list": [{"n": 1}], "none": None, "flag": True}
    first = made(tmp_path / "one", node="pretrain", counts=counts, licences=[licence], lineage=lineage, packages={"torch": "2.13"})
    second = made(tmp_path / "two", node="adapt", licences=[licence], lineage=lineage, packages={"torch": "2.12", "numpy": "2"})
    card.write(tmp_path, title="A <b>model</b>\nof mine", manifests=[first, second], usage="print('hello')")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "# A &lt;b>model&lt;/b> of mine\n" in text
    assert "```python\nprint('hello')\n```" in text
    for row in ("| scores.accuracy | 0.5000 |", "| labels | x, y |", "| list\\[0].n | 1 |", "| none | None |", "| flag | True |"):
        assert row in text, row
    assert text.count("a\\|b") == 1
    assert text.count("<summary>corpus</summary>") == 1
    assert "` ` `\\n# not a heading" in text
    assert text.count("```") == 4
    assert "torch 2.13, numpy 2" in text


def test_numbers_and_lists_are_shown_as_people_read_them(tmp_path):
    counts = {"memory": 768319488, "flops": 48108.25, "steps": 60, "accuracy": 1.0, "chosen": {"epoch": 3.0}, "warnings": ["a, b", "c"]}
    card.write(tmp_path, title="x", manifests=[made(tmp_path / "one", counts=counts)], usage="pass")
    rows = [line for line in (tmp_path / "README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert rows[2:] == [
        "| memory | 768,319,488 |",
        "| flops | 48,108 |",
        "| steps | 60 |",
        "| accuracy | 1.0000 |",
        "| chosen.epoch | 3 |",
        "| warnings | a, b; c |",
    ]


def test_a_model_without_records_says_so(tmp_path):
    card.write(tmp_path, title="bare", manifests=[made(tmp_path / "one")], usage="pass")
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "The records name none." in text
    assert "Settings" not in text
    assert "Results" not in text
