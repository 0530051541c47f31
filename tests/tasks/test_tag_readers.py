"""Files of words and of spans: what they hold, and what is wrong in them by file and line."""

import gzip
import json
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from kitae.core.errors import KitaeError
from kitae.tasks.config import TaskConfig
from kitae.tasks.entities import entities
from kitae.tasks.examples import Example, Span
from kitae.tasks.kinds import options_of
from kitae.tasks.presets import tagging
from kitae.tasks.presets.table import expand, task_like
from kitae.tasks.records import load, read_all


def words(example: Example) -> list[str]:
    return [example.text[start:end] for start, end in example.words]


def task(path: Path, **more: object) -> TaskConfig:
    return TaskConfig.model_validate({"name": "t", "kind": "tagging", "train": [str(path)], "test": [str(path)], **more})


def read(path: Path, content: str, **more: object) -> list[Example]:
    path.write_text(content, encoding="utf-8")
    found = read_all(task(path, **more))
    assert len(found) % 2 == 0
    return found[: len(found) // 2]


def test_conll_2003_with_documents_and_iob1(tmp_path: Path) -> None:
    content = "-DOCSTART- -X- -X- O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\n\n\n"
    content += "-DOCSTART- -X- O O\nPeter NNP I-NP I-PER\nSmith NNP I-NP B-PER\n"
    first, second = read(tmp_path / "eng.conll", content)
    assert (first.text, first.gold, first.where) == ("EU rejects German", ("B-ORG", "O", "B-MISC"), f"{tmp_path}/eng.conll, line 3")
    assert (words(second), second.gold, second.id) == (["Peter", "Smith"], ("B-PER", "B-PER"), "eng.conll:9")
    (chunks, _) = read(tmp_path / "eng.conll", content, format_config={"tag": 2})
    assert chunks.gold == ("B-NP", "B-VP", "B-NP")
    with pytest.raises(KitaeError, match="this line has 4 columns, not 3") as caught:
        read(tmp_path / "eng.conll", content, format_config={"columns": 3})
    assert caught.value.where == f"{tmp_path}/eng.conll, line 1"


def test_japanese_words_join_without_blanks_and_may_be_blanks(tmp_path: Path) -> None:
    (one,) = read(tmp_path / "x.bio", "東京\tB-GPE\n\u3000\tI-GPE\n都\tI-GPE\n", format_config={"join": "", "separator": "\t"})
    assert (one.text, one.gold, words(one)) == ("東京\u3000都", ("B-GPE", "I-GPE", "I-GPE"), ["東京", "\u3000", "都"])


def test_a_byte_order_mark_windows_lines_comments_and_compression(tmp_path: Path) -> None:
    content = "\ufeff# a comment\r\n# B-X\r\na B-X\r\n# O\r\n \t\r\nb O\r\n"
    with gzip.open(tmp_path / "x.conll.gz", "wb") as file:
        file.write(content.encode())
    found = read_all(task(tmp_path / "x.conll.gz", format_config={"comment": "#"}))[:2]
    assert [(words(one), one.gold) for one in found] == [(["a", "#"], ("B-X", "O")), (["b"], ("O",))]


def test_tokens_and_labels_of_a_plain_text_file(tmp_path: Path) -> None:
    """Files called train.txt with `token label` lines."""
    found = read(tmp_path / "train.txt", "Aspirin B-DRUG\nhelps O\n\nNothing O\n", format="conll")
    assert [one.gold for one in found] == [("B-DRUG", "O"), ("O",)]


@pytest.mark.parametrize(
    ("content", "more", "message", "line"),
    [
        ("a O\nb\n", {}, "this line has 1 columns, not 2", 2),
        ("a O\nb x O\n", {}, "this line has 3 columns, not 2", 2),
        ("a O\nb\tO\n", {"format_config": {"separator": " "}}, "this line has 1 columns, not 2", 2),
        ("a\tO\n\tO\n", {"format_config": {"separator": "\t"}}, "the word is empty", 2),
        ("a\tO\nb\t\n", {"format_config": {"separator": "\t"}}, "the tag is empty", 2),
        ("\n\na O\n\nb NN\n", {}, '"NN" is neither "O" nor like "B-CLASS"', 5),
        ("a O\nb ?\n", {"hidden": ["?"]}, "1 of the sentence's 2 tags are hidden", 1),
        ("a O\n", {"format_config": {"tag": 4}}, "tag = 4, but there are 2 columns", 1),
        (" ".join(["x"] * 200_000) + "\na O\n", {}, "this line has 2 columns, not 200000", 2),
    ],
)
def test_bad_lines_are_named(content: str, more: dict[str, object], message: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=message) as caught:
        read(tmp_path / "x.conll", content, **more)
    assert caught.value.where == f"{tmp_path / 'x.conll'}, line {line}"
    assert "\n" not in caught.value.what


@pytest.mark.parametrize("name", ["x.conll", "x.conllu"])
@pytest.mark.parametrize("content", ["", "\n\n", "-DOCSTART- O\n\n"])
def test_files_without_sentences_are_refused(name: str, content: str, tmp_path: Path) -> None:
    if name == "x.conllu" and content.startswith("-"):
        content = "# text = a\n"
    with pytest.raises(KitaeError, match="there is no sentence in the file|the file is empty"):
        read(tmp_path / name, content)


def test_hidden_tags_and_slices(tmp_path: Path) -> None:
    assert [one.gold for one in read(tmp_path / "x.conll", "a ?\nb ?\n\nc O\n", hidden=["?"])] == [None, ("O",)]
    with pytest.raises(KitaeError, match="no columns to slice by"):
        read(tmp_path / "x.conll", "a O\n", slices=["domain"])


def conllu(*rows: str, text: str | None = None) -> str:
    """Lines of CoNLL-U from "id form upos misc"."""
    lines = [f"# text = {text}"] if text is not None else []
    for row in rows:
        number, form, upos, misc = row.split(" ")
        lines.append("\t".join([number, form, "_", upos, "_", "_", "_", "_", "_", misc]))
    return "\n".join(lines) + "\n\n"


PLAIN = {"kind_config": {"scheme": "none"}}


def test_multi_word_tokens_empty_nodes_and_the_real_text(tmp_path: Path) -> None:
    rows = ("1-2 don't _ SpaceAfter=No", "1 do AUX _", "2 n't PART _", "3 ? PUNCT _", "3.1 go VERB _", "4 Zum X _")
    for text in (None, "don't? Zum", "don't?  Zum "):
        (one,) = read(tmp_path / "x.conllu", conllu(*rows, text=text), **PLAIN)
        assert (words(one), one.gold) == (["do", "n't", "?", "Zum"], ("AUX", "PART", "PUNCT", "X"))
        assert one.text == (text or "don't? Zum")
    (one,) = read(tmp_path / "x.conllu", conllu("1-2 zum _ _", "1 zu ADP _", "2 dem DET _", "3 Haus NOUN NE=B-LOC|x=y"), **PLAIN)
    assert (one.text, one.words, one.gold) == ("zum Haus", ((0, 3), (0, 3), (4, 8)), ("ADP", "DET", "NOUN"))
    content = conllu("1-2 zum _ _", "1 zu ADP _", "2 dem DET _", "3 Haus NOUN NE=U-LOC|x=y")
    (one,) = read(tmp_path / "x.conllu", content, format_config={"tag": "misc.NE"})
    assert one.gold == ("O", "O", "B-LOC")


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        ("1\ta\tNOUN\n", "this line has 3 columns, CoNLL-U has 10", 1),
        (conllu("x a NOUN _"), '"x" numbers no word', 1),
        (conllu("1 a NOUN _", "2 b NOUN _", text="a c"), 'the word "b" is not where "# text" has it', 2),
        (conllu("1 a NOUN _", text="a c"), '"# text" goes on behind the last word: "c"', 2),
        (conllu("1 a NOUN _").replace("\ta\t", "\t\t"), "the word is empty", 1),
        (conllu("1 a NOUN _").replace("\tNOUN\t", "\t\t"), r"the tag \(upos\) is empty", 1),
    ],
)
def test_bad_conllu_is_named(content: str, message: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=message) as caught:
        read(tmp_path / "x.conllu", content, **PLAIN)
    assert caught.value.where == f"{tmp_path / 'x.conllu'}, line {line}"


def test_an_unknown_column_or_preset(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match='did you mean "upos"'):
        read(tmp_path / "x.conllu", conllu("1 a NOUN _"), format_config={"tag": "upso"})
    with pytest.raises(KitaeError, match="there can only be blanks"):
        read(tmp_path / "x.conll", "a O\n", format_config={"join": "_"})
    with pytest.raises(KitaeError, match='did you mean "conll2003"'):
        task_like("conll203", tmp_path)
    with pytest.raises(ValidationError):
        TaskConfig.model_validate({"name": "t", "kind": "tagging", "train": ["x"]})


ENTITY = {"name": "東京", "span": [1, 3], "type": "地名"}


@pytest.mark.parametrize("lines", [True, False])
def test_spans_of_a_list_or_of_lines(lines: bool, tmp_path: Path) -> None:
    items = [{"text": " 東京は", "entities": [ENTITY]}, {"text": "[", "entities": []}]
    content = "\n".join(json.dumps(item) for item in items) + "\n" if lines else json.dumps(items, indent=1)
    first, second = read(tmp_path / "x.json", content, format="spans")
    assert (first.text, first.gold, first.words) == (" 東京は", (Span(start=1, end=3, label="地名"),), ())
    assert (second.text, second.gold, second.where.rpartition(" ")[2]) == ("[", (), "2" if lines else "15")


def test_other_names_of_spans_and_hidden_ones(tmp_path: Path) -> None:
    item = {"text": "ab", "spans": [{"start": 0, "end": 1, "label": "X"}], "domain": "mail", "n": 7}
    names = {"entities": "spans", "start": "start", "end": "end", "type": "label"}
    more = {"format": "spans", "format_config": names, "slices": ["domain"], "id": "n"}
    (tmp_path / "y.jsonl").write_text(json.dumps({**item, "n": 8}), encoding="utf-8")
    (tmp_path / "z.jsonl").write_text(json.dumps(item), encoding="utf-8")
    one, _ = read_all(task(tmp_path / "y.jsonl", **more, test=[str(tmp_path / "z.jsonl")]))
    assert (one.gold, one.slices, one.id) == ((Span(start=0, end=1, label="X"),), {"domain": "mail"}, "8")
    (hidden,) = read(tmp_path / "x.jsonl", '{"text": "ab"}\n', format="spans", hidden=["?"])
    assert hidden.gold is None


@pytest.mark.parametrize(
    ("content", "message", "line"),
    [
        ('[\n{"text": "a", "entities": []},\n{"text": "a" "entities": []}]', "this is not JSON: Expecting ',' delimiter", 3),
        ('[\n{"text": "a", "entities": []}', "the list does not end with the file", 2),
        ('{"text": "a"}', 'there is no "entities": the keys are text', 1),
        ('\n{"text": 3, "entities": []}', '"text" is 3, not a text', 2),
        ('{"text": "a", "entities": [{"span": [0], "type": "X"}]}', 'there is no "span.1"', 1),
        ('{"text": "a", "entities": [{"span": [0, "1"], "type": "X"}]}', '"span.1" is "1", not a number', 1),
        ('{"text": "ab", "entities": [{"span": [0, 1], "type": "X", "name": "b"}]}', 'the entity "b" is not at 0 to 1, where', 1),
        ('{"text": "ab", "entities": [{"span": [0, 3], "type": "X"}]}', "0 to 3 .* is outside of the text, which has 2 characters", 1),
        ('{"text": "ab", "entities": [{"span": [0, 2], "type": "X"}, {"span": [1, 2], "type": "Y"}]}', "overlaps with 0 to 2", 1),
        ('{"text": "a", "entities": 3}', '"entities" is 3, not a list', 1),
        ("3", 'there is no "text"', 1),
        ("[" * 100_000, "too deeply nested", 1),
    ],
)  # fmt: skip
def test_bad_spans_are_named(content: str, message: str, line: int, tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match=message) as caught:
        read(tmp_path / "x.json", content, format="spans")
    assert caught.value.where == f"{tmp_path / 'x.json'}, line {line}"


def test_a_table_with_tags_in_its_cells(tmp_path: Path) -> None:
    (one,) = read(tmp_path / "x.tsv", "text\tlabel\nAnna sings\tB-PER O\n")
    assert (one.gold, words(one)) == (("B-PER", "O"), ["Anna", "sings"])
    (one,) = read(tmp_path / "x.jsonl", '{"text": "Anna sings", "label": ["B-PER", "O"]}\n')
    assert one.gold == ("B-PER", "O")


def test_classes_that_only_the_test_has_are_named(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("a B-X\n\nb O\n\nc O\n", encoding="utf-8")
    (tmp_path / "test.conll").write_text("a O\n\nb O\nc B-Y\n", encoding="utf-8")
    (tmp_path / "validation.conll").write_text("a O\n", encoding="utf-8")
    files = {name: [str(tmp_path / f"{name}.conll")] for name in ("train", "validation", "test")}
    with pytest.raises(KitaeError, match='the class "Y" of word 2, "c", is not one of the training') as caught:
        load(task(tmp_path / "x", **files))
    assert caught.value.where == f"{tmp_path / 'test.conll'}, line 3"
    given = ("B-X", "B-Y", "I-X", "I-Y", "O")
    assert load(task(tmp_path / "x", **files, labels=given)).labels == given


# preset, folder, sentences of each part that is there (the data's README), words and beginnings of entities of all (counted with awk)
REAL = [
    ("conll2000", "conll2000", (8936, 2012), 259104, 130830),
    ("wnut16", "wnut16", (2394, 1000), 62730, 2157),
    ("wnut17", "wnut17", (3394, 1009), 78463, 2811),
    ("bc5cdr", "bio_ner/BC5CDR-IOB", (4560, 4581), 235623, 18978),
    ("ncbi-disease", "bio_ner/NCBI-disease-IOB", (5424, 923), 159670, 5921),
    ("ud-ja-gsd/entities", "ud_japanese_gsd", (7050, 507), 180620, 11719),
]


@pytest.mark.parametrize(("preset", "folder", "sentences", "count", "begun"), REAL, ids=[row[0] for row in REAL])
def test_original_files(preset: str, folder: str, sentences: tuple[int, int], count: int, begun: int, shared: Path) -> None:
    config = task_like(preset, shared / folder, name="t")
    files = [file for file in config.files if Path(file).exists()]
    found = read_all(TaskConfig.model_validate(config.model_dump() | {"train": files[:1], "validation": [], "test": files[1:]}))
    assert len(files) == 2, "other parts are not given out"
    parts = Counter(example.where.rpartition(", line")[0] for example in found)
    assert [parts[file] for file in files] == list(sentences)
    assert sum(len(example.words) for example in found) == count
    assert sum(len(entities(example.gold)) for example in found) == begun


def test_one_class_of_an_original_file(shared: Path) -> None:
    place = shared / "bio_ner" / "BC5CDR-IOB"
    files = [str(place / "train.tsv.xz")]
    found = read_all(task_like("bc5cdr/disease", place, train=files, validation=[], test=files))
    found = found[: len(found) // 2]
    assert {label for example in found for _, _, label in entities(example.gold)} == {"Disease"}
    assert found[0].text.startswith("Selegiline - induced postural hypotension in Parkinson ' s disease :")
    assert [words(found[0])[start:end] for start, end, _ in sorted(entities(found[0].gold))] == [
        ["postural", "hypotension"], ["Parkinson", "'", "s", "disease"],
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["ja_gsd-ud-dev", "en_ewt-ud-dev"])
def test_universal_dependencies(name: str, shared: Path) -> None:
    """Every word stands where the text has it; counts by grep."""
    folder = shared / ("ud_japanese_gsd" if name.startswith("ja") else "ud_english_ewt")
    file = [str(folder / f"{name}.conllu.xz")]
    preset = "ud-ja-gsd/upos" if name.startswith("ja") else "ud-en-ewt/upos"
    found = read_all(task_like(preset, folder, train=file, validation=[], test=file))
    found = found[: len(found) // 2]
    sentences, count, nouns = {"ja_gsd-ud-dev": (507, 12287, 3765), "en_ewt-ud-dev": (2001, 25147, 4210)}[name]
    tags = Counter(tag for example in found for tag in example.gold or ())  # type: ignore[union-attr]
    assert (len(found), sum(tags.values()), tags["NOUN"]) == (sentences, count, nouns)
    assert sum(len(example.words) for example in found) == count
    if name.startswith("ja"):
        assert all("".join(words(example)) == example.text for example in found if " " not in example.text)


def test_entities_in_misc_are_those_of_the_file_of_tags(shared: Path) -> None:
    folder = shared / "ud_japanese_gsd"
    config = {"train": [str(folder / "ja_gsd-ud-dev.ne.conllu.xz")], "test": [str(folder / "ja_gsd-ud-dev.ne.conllu.xz")]}
    of_misc = read_all(TaskConfig.model_validate({"name": "t", "kind": "tagging", "format_config": {"tag": "misc.NE"}, **config}))[:507]
    bio = {"train": [str(folder / "ne_bio" / "dev.bio")], "test": [str(folder / "ne_bio" / "dev.bio")]}
    expected = read_all(task_like("ud-ja-gsd/entities", folder, **bio, validation=[]))[:507]
    assert sum(len(entities(example.gold)) for example in expected) == 795
    assert [example.gold for example in of_misc] == [example.gold for example in expected]
    assert [words(example) for example in of_misc] == [words(example) for example in expected]


def test_wikipedia_entities_and_their_common_classes(shared: Path) -> None:
    place = shared / "ner_wikipedia_ja"
    given = {"path": [str(place / "ner_dev.json.xz")]}
    data = load(task_like("ner-wikipedia-ja", place, **given))
    everything = (*data.train, *data.validation, *data.test)
    assert len(everything) == 4267
    counts = Counter(span.label for example in everything for span in example.gold or () if isinstance(span, Span))  # type: ignore[union-attr]
    assert counts == {
        "人名": 2351, "法人名": 2010, "地名": 1722, "製品名": 993, "政治的組織名": 912, "施設名": 872, "その他の組織名": 831,
        "イベント名": 790,
    }  # fmt: skip
    common = load(task_like("ner-wikipedia-ja/common", place, **given))
    gsd = shared / "ud_japanese_gsd"
    target = load(task_like("ud-ja-gsd/entities-common", gsd, validation=[], test=[str(gsd / "ne_bio" / "dev.bio")]))
    assert common.labels == target.labels
    assert len(common.labels) == 13
    spans = [span for example in target.test for span in example.gold or ()]  # type: ignore[union-attr]
    assert Counter(span.label for span in spans if isinstance(span, Span))["人名"] == 139
    assert all(not example.words for example in target.test)


def test_the_tables_of_the_page_are_tasks() -> None:
    page = (Path(__file__).parents[2] / "docs" / "tagging.md").read_text(encoding="utf-8")
    tables = [tomllib.loads(block.split("```")[0])["task"] for block in page.split("```toml\n")[1:]]
    tasks = [
        TaskConfig.model_validate(expand({"name": name, **table}, "docs/tagging.md")) for some in tables for name, table in some.items()
    ]
    assert len(tasks) == 7
    for one in tasks:
        assert one.kind == "tagging"
        options_of(one)
    listed = page.split("Published tasks (`like`):")[1].split("\n\n")[0]
    assert all(f"`{name}`" in listed for name in tagging.PRESETS)
