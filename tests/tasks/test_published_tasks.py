"""Published tasks: each reads its original files, those that are here with their known counts, the others as the test writes them."""

import json
from collections import Counter
from pathlib import Path

import pytest

from kitae.chain import recipe as recipes
from kitae.core.errors import KitaeError
from kitae.tasks.formats import read_examples
from kitae.tasks.kinds import KINDS, kind_of, metric_of, options_of
from kitae.tasks.presets.table import PRESETS, expand, task_like
from kitae.tasks.records import load


@pytest.mark.parametrize("like", sorted(PRESETS))
def test_every_preset_is_a_task_with_licence_and_citation(like: str) -> None:
    task = task_like(like, "/data")
    assert all(file.startswith("/data/") for file in task.files)
    if like != "fasttext":  # whose data are the user's
        assert task.licence
        assert task.citation
    assert kind_of(task).name in KINDS
    metric_of(task)
    options_of(task)


@pytest.mark.parametrize(
    ("like", "folder", "counts", "labels"),
    [
        ("glue/cola", "glue", (7696, 855, 1043), {"0": 322, "1": 721}),
        ("glue/mrpc", "glue", (3301, 366, 408), {"0": 129, "1": 279}),
        ("glue/sts-b", "glue", (5174, 575, 1500), None),
        ("jglue/jsts-valid", "jglue", (11206, 1245, 1457), None),
        ("jglue/jcommonsenseqa-valid", "jglue", (8045, 894, 1119), None),
        ("jglue/jcola", "jcola", (6227, 692, 865), {"0": 139, "1": 726}),
        ("jglue/jcola-tsv", "jcola", (6227, 692, 865), {"0": 139, "1": 726}),
        ("jnli-neg", "jglue/jnli-neg-v1.1", (4942, 552, 1363), None),
        ("jsick/nli", "jsick", (4500, 500, 4927), {"neutral": 3042, "entailment": 1088, "contradiction": 797}),
        ("jsick/nli-files", "jsick", (4500, 500, 4927), {"neutral": 3042, "entailment": 1088, "contradiction": 797}),
        ("jsick/relatedness", "jsick", (4500, 500, 4927), None),
        ("kyoto", "kyoto_cls", (366, 90, 4100), None),
        ("fin-mcq", "finance_ja/fin_mcq", (48, 9, 38), None),
        ("chabsa/categories", "chabsa", (2994, 706, 1236), None),
    ],
)
def test_real_files_have_their_known_counts(
    like: str, folder: str, counts: tuple[int, int, int], labels: dict[str, int] | None, shared: Path
) -> None:
    data = load(task_like(like, shared / folder))
    assert (len(data.train), len(data.validation), len(data.test)) == counts
    assert labels is None or Counter(one.gold for one in data.test) == labels


@pytest.mark.parametrize(
    ("like", "file", "count", "labels"),
    [
        ("glue/sst-2", "glue/SST-2/dev.tsv", 872, {"0": 428, "1": 444}),
        ("glue/qnli", "glue/QNLI/dev.tsv.xz", 5463, {"entailment": 2702, "not_entailment": 2761}),
        ("glue/rte", "glue/RTE/train.tsv.xz", 2490, {"entailment": 1249, "not_entailment": 1241}),
        ("glue/wnli", "glue/WNLI/train.tsv", 635, {"0": 323, "1": 312}),
        ("glue/mrpc-msr", "glue/MRPC/msr_paraphrase_train.txt.xz", 4076, {"0": 1323, "1": 2753}),
        ("jglue/jnli", "jglue/jnli-v1.3/valid-v1.3.json.xz", 2434, None),
        ("jglue/jnli", "jglue/jnli_train_partial/train-partial-from-jnli-neg.json.xz", 1334, None),
        ("medquad/jsonl", "medical_en/medquad.jsonl.xz", 14351, None),
    ],
)
def test_single_real_files(like: str, file: str, count: int, labels: dict[str, int] | None, shared: Path) -> None:
    """Of tasks of which one split only is here."""
    found = list(read_examples(shared / file, task_like(like, shared)))
    assert len(found) == count
    assert all(one.text and one.second != "" and one.gold is not None for one in found)
    assert labels is None or Counter(one.gold for one in found) == labels


def test_pubmedqa_by_its_key_and_lists(shared: Path) -> None:
    file = shared / "medical_en" / "pubmedqa_pqal_train.json.xz"
    data = load(task_like("pubmedqa/pool", shared, path=str(file)))
    everyone = (*data.train, *data.validation, *data.test)
    assert Counter(one.gold for one in everyone) == {"yes": 276, "no": 169, "maybe": 55}
    first = next(one for one in everyone if one.id == "10808977")
    assert first.text == "Can tailored interventions increase mammography use among HMO women?"
    assert first.second is not None
    assert first.second.startswith("Telephone counseling and tailored print communications")


def rows(template: str, labels: tuple[str, ...], count: int = 30) -> str:
    return "\n".join(template.format(i=i, label=labels[i % len(labels)]) for i in range(count))


def test_qqp_without_its_broken_rows_and_mnli_by_named_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder in ("QQP", "MNLI"):
        (tmp_path / folder).mkdir()
    header = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"
    for part in ("train", "dev"):
        text = header + rows('{i}\t1\t2\t"What is {i}?\tWho {i}?\t{label}', ("0", "1")) + "\n97\t1\t2\tcut off\n98\t1\t2\tq\t\t0\n"
        (tmp_path / "QQP" / f"{part}.tsv").write_text(text, encoding="utf-8")
    data = load(task_like("glue/qqp", tmp_path))
    assert (len(data.train) + len(data.validation), len(data.test)) == (30, 30)
    assert data.test[0].text == '"What is 0?'
    assert caplog.text.count("left out") == 4
    nli = ("neutral", "contradiction", "entailment")
    columns = {"train": "label1", "dev_matched": "label1\tlabel2", "dev_mismatched": "label1\tlabel2"}
    for part, own in columns.items():
        template = "{i}\tgenre{i}\tP{i}\tH{i}\t" + "x\t" * len(own.split("\t")) + "{label}"
        text = f"index\tgenre\tsentence1\tsentence2\t{own}\tgold_label\n" + rows(template, nli) + "\n"
        (tmp_path / "MNLI" / f"{part}.tsv").write_text(text, encoding="utf-8")
    for like in ("glue/mnli", "glue/mnli-mm"):
        data = load(task_like(like, tmp_path))
        one = data.test[1]
        assert (one.text, one.second, one.gold, one.slices) == ("P1", "H1", "contradiction", {"genre": "genre1"})
        assert ("mismatched" in one.where) == (like == "glue/mnli-mm")


@pytest.mark.parametrize("like", ["jglue/jnli", "jglue/jnli-valid", "jglue-v1.1/jnli", "jglue-v1.2/jnli"])
def test_versions_of_jglue(like: str, tmp_path: Path) -> None:
    version = "v1.3" if like.startswith("jglue/") else like[6:10]
    folder = tmp_path / f"jnli-{version}"
    folder.mkdir()
    labels = ("entailment", "neutral", "contradiction")
    for part in ("train", "valid", "test"):
        table = [{"sentence_pair_id": str(i), "sentence1": f"{part} {i}", "sentence2": "乙", "label": labels[i % 3]} for i in range(30)]
        (folder / f"{part}-{version}.json").write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    data = load(task_like(like, tmp_path))
    if like == "jglue/jnli":
        assert [{one.text.split()[0] for one in part} for part in (data.train, data.validation, data.test)] == [
            {"train"},
            {"valid"},
            {"test"},
        ]
    else:
        assert [{one.text.split()[0] for one in part} for part in (data.train, data.validation, data.test)] == [
            {"train"},
            {"train"},
            {"valid"},
        ]
        assert (len(data.train), len(data.validation)) == (27, 3)


def test_marc_ja_as_its_script_writes_it(tmp_path: Path) -> None:
    (tmp_path / "marc_ja-v1.2").mkdir()
    table = [{"sentence": f"よい本 {i}", "label": ("positive", "negative")[i % 2], "review_id": f"R{i}"} for i in range(20)]
    for part in ("train", "valid"):
        (tmp_path / "marc_ja-v1.2" / f"{part}-v1.2.json").write_text("\n".join(map(json.dumps, table)), encoding="utf-8")
    data = load(task_like("jglue-v1.2/marc-ja", tmp_path))
    assert (len(data.train), len(data.validation), len(data.test), data.labels) == (18, 2, 20, ("negative", "positive"))


def test_what_a_task_like_a_published_one_may_say(tmp_path: Path) -> None:
    own = {"name": "t", "like": "kyoto", "folder": str(tmp_path)}
    assert "split" in expand(own, "r.toml")
    apart = expand({**own, "train": "a.jsonl", "test": "b.jsonl"}, "r.toml")
    assert (apart["train"], "path" in apart, "split" in apart) == ("a.jsonl", False, False)
    parts = expand({**own, "parts": {"column": "c", "train": "1", "test": "2"}}, "r.toml")
    assert ("path" in parts, "split" in parts) == (True, False)
    pool = expand({"name": "t", "like": "glue/cola", "path": "x", "split": {"train": 0.5, "validation": 0.2, "test": 0.3}}, "r.toml")
    assert "train" not in pool
    assert "submissions" in expand({"name": "t", "like": "glue/cola", "folder": "d", "submit": True}, "r.toml")
    for wrong, message in (
        ({"like": "kyotto", "folder": "d"}, 'did you mean "kyoto"'),
        ({"like": "kyoto"}, "`folder` is missing"),
        ({"like": "kyoto", "folder": "d", "submit": True}, "nothing is submitted"),
        ({"like": "glue/cola", "folder": "d", "submit": "yes"}, "neither true nor false"),
        ({"submit": True}, "`submit` is for tasks like a published one"),
        ({"folder": "d"}, "`folder` is for tasks like a published one"),
    ):
        with pytest.raises(KitaeError, match=message) as caught:
            expand({"name": "t", **wrong}, "r.toml")
        assert caught.value.where == "r.toml, table [task.t]"


def test_a_recipe_takes_a_published_task(tmp_path: Path, shared: Path) -> None:
    text = f"""output = "run"
[data]
shared = "{shared}"
[corpus]
source = [{{ path = "x.txt", format = "text" }}]
[task.articles]
like = "kyoto/standard"
folder = "shared:kyoto_cls"
limit = 300
"""
    (tmp_path / "r.toml").write_text(text, encoding="utf-8")
    recipe, _ = recipes.load(str(tmp_path / "r.toml"))
    task = recipe.task["articles"]
    assert task.files == tuple(f"{shared}/kyoto_cls/{part}.jsonl.xz" for part in ("train", "valid"))
    assert (task.name, task.licence, task.limit) == ("articles", "CC BY-SA 3.0", 300)
    (tmp_path / "r.toml").write_text(text.replace("kyoto/standard", "kyoto/standrad"), encoding="utf-8")
    with pytest.raises(KitaeError, match='did you mean "kyoto/standard"') as caught:
        recipes.load(str(tmp_path / "r.toml"))
    assert caught.value.where.endswith("r.toml, table [task.articles]")
