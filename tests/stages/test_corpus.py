"""The corpus stage: settings, de-contamination against tasks, counts and reports."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
from kitae.core.recipe import validate
from kitae.stages.corpus import CorpusConfig, SourceConfig, run, sources
from kitae.tasks.config import Split, TaskConfig
from kitae.text.corpus import Corpus

TOPICS = [f"{topic}についての{number}番目の短い文章で、内容はほかとは違います。" for topic in ("料理", "旅行") for number in range(20)]


@pytest.fixture
def task(tmp_path: Path) -> TaskConfig:
    path = tmp_path / "topics.csv"
    path.write_text("text,label\n" + "".join(f"{text},{i // 20}\n" for i, text in enumerate(TOPICS)), encoding="utf-8")
    return TaskConfig(name="topics", path=(str(path),), split=Split(train=0.5, validation=0.2, test=0.3))


def make(config: CorpusConfig, folder: Path) -> tuple[Out, Corpus]:
    folder.mkdir()
    out = Out(path=folder)
    run(config, Inputs(parents={}, seed=1), out)
    return out, Corpus(folder)


def put(path: Path, documents: list[str]) -> str:
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return str(path)


def test_every_document_is_accounted_for(tmp_path: Path, task: TaskConfig) -> None:
    plain = [f"これは{i}個目の文書。「そうだ。」と彼は言った。" for i in range(30)]
    documents = [*plain, plain[3], "短。", "\u200b", f"題\n前置き。{TOPICS[0]}後書き。", f"{TOPICS[39]}"]
    general = SourceConfig(path=put(tmp_path / "general.txt", documents), licence="CC0-1.0")
    config = CorpusConfig(source=(general,), decontaminate=("topics",), tasks=(task,), holdout=0.1, min_characters=5)
    out, corpus = make(config, tmp_path / "out")
    assert out.counts["documents_in"] == 35
    assert out.counts["dropped"] == {"duplicate": 1, "short": 1, "empty": 1, "contaminated": 2}
    assert (out.counts["documents_kept"], out.counts["heldout"]) == (27, 3)
    assert out.counts["decontaminated"]["topics"]["found"] == 2
    assert out.licences == [{"name": "general", "licence": "CC0-1.0", "source": general.path}]
    drops = json.loads((tmp_path / "out" / "drops.json").read_text(encoding="utf-8"))["general"]
    assert drops["contaminated"]["examples"][0] == {"id": "general/33", "text": f"題 前置き。{TOPICS[0]}後書き。"}
    assert drops["duplicate"]["examples"][0]["id"] == "general/30"
    assert "dropped: contaminated | 2 |" in (tmp_path / "out" / "drops.md").read_text(encoding="utf-8")
    kept = list(corpus.documents("train"))
    assert len(kept) == 27
    assert kept[0].text.split("\n")[1] == "「そうだ。」と彼は言った。"
    assert not (tmp_path / "out" / ".work").exists()
    assert sum(len(document.text) for document in kept) == corpus.characters("train")


def test_every_reason_keeps_three_and_drops_three(tmp_path: Path, task: TaskConfig) -> None:
    body = "".join(f"昔々、ある村の{i}番目の家に、{i * 7}匹の猫と暮らす人がいた。" for i in range(40))
    near = [f"{body}{name}の話。" for name in ("甲", "乙", "丙", "丁")]
    kept = [near[0], "これは短くない一つ目の文書。", "これは短くない二つ目の文書。"]
    texts = {
        "empty": ["\u200b", " \u3000 ", "\ufeff\u200e"],
        "short": ["短。", "あ い う", "\u200b四文字。"],
        "contaminated": [f"前置き。{TOPICS[0]}", f"見て https://t.co/a {TOPICS[1]}", f"{TOPICS[39]}#旅行"],
        "duplicate": [kept[1], kept[2].replace("。", " 。"), f"\u200b{kept[1]}"],
        "near-duplicate": near[1:],
    }
    path = tmp_path / "all.jsonl"
    rows = [*kept, *(text for several in texts.values() for text in several)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in rows), encoding="utf-8")
    source = SourceConfig(path=str(path), format="jsonl")
    config = CorpusConfig(
        source=(source,),
        decontaminate=("topics",),
        tasks=(task,),
        min_characters=6,
        near_duplicates=0.8,
        social=("urls", "marks", "kaomoji"),
    )
    out, corpus = make(config, tmp_path / "out")
    assert out.counts["dropped"] == dict.fromkeys(texts, 3)
    assert [document.text.replace("\n", "") for document in corpus.documents("train")] == kept
    drops = json.loads((tmp_path / "out" / "drops.json").read_text(encoding="utf-8"))["all"]
    places = {reason: [int(one["id"].rpartition("/")[2]) for one in drop["examples"]] for reason, drop in drops.items()}
    assert places == {reason: list(range(3 * n + 3, 3 * n + 6)) for n, reason in enumerate(texts)}


def test_no_private_data_in_the_report(tmp_path: Path, task: TaskConfig) -> None:
    number, mail = "090-1234-5678", "taro@example.com"
    documents = [
        f"{mail}へ",
        f"{TOPICS[0]}電話{number}",
        f"※※★★{number}★★※※★★★★★★★★★★★★",
        f"良い文書です。連絡は{mail}か{number}へ。",
        "ただの文書です。",
    ]
    source = SourceConfig(path=put(tmp_path / "a.txt", documents))
    filters = {"max_symbols": 0.5}
    config = CorpusConfig.model_validate(
        {
            "source": [source],
            "filters": filters,
            "private": ["email", "phone"],
            "decontaminate": ["topics"],
            "tasks": [task],
            "min_characters": 19,
        }
    )
    out, _ = make(config, tmp_path / "out")
    assert out.counts["dropped"] == {"short": 2, "contaminated": 1, "max_symbols": 1}
    written = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("drops.*"))
    assert number not in written
    assert mail not in written
    assert "<EMAIL>" in written
    assert "&lt;PHONE&gt;" in written


def test_contamination_is_looked_for_before_anything_is_taken_away(tmp_path: Path) -> None:
    posts = [f"{text}電話は090-1234-56{i:02}、https://example.com/page{i}へ" for i, text in enumerate(TOPICS)]
    (tmp_path / "posts.csv").write_text("text,label\n" + "".join(f"{text},{i // 20}\n" for i, text in enumerate(posts)), encoding="utf-8")
    task = TaskConfig(name="posts", path=(str(tmp_path / "posts.csv"),), split=Split(train=0.5, validation=0.2, test=0.3))
    source = SourceConfig(path=put(tmp_path / "a.txt", [*posts[:3], "ただの文書です。"]))
    config = CorpusConfig(source=(source,), decontaminate=("posts",), tasks=(task,), social=("urls",), private=("phone",))
    assert make(config, tmp_path / "out")[0].counts["dropped"] == {"contaminated": 3}


def test_a_tasks_training_texts_as_a_source(tmp_path: Path, task: TaskConfig) -> None:
    config = CorpusConfig(source=(SourceConfig(path="task:topics/train"),), tasks=(task,), decontaminate=("topics",))
    out, corpus = make(config, tmp_path / "out")
    found = [document.text for document in corpus.documents("train")]
    assert corpus.sources == ("topics-train",)
    assert out.counts["documents_kept"] == len(found) == 20
    assert set(found) < set(TOPICS)
    assert sources(config) == (str(tmp_path / "topics.csv"),)


def test_kyoto_slice(tmp_path: Path, shared: Path) -> None:
    files = tuple(str(shared / "kyoto_cls" / name) for name in ("train.jsonl.xz", "valid.jsonl.xz"))
    kyoto = TaskConfig(name="kyoto", path=files, split=Split(train=0.05, validation=0.05, test=0.9), id="id")
    valid = SourceConfig(path=files[1], format="jsonl", id_column="id", name="valid")
    wikinews = SourceConfig(path=str(shared / "ja_plain" / "aozora_original_sjis_sample"), format="files", encoding="cp932", name="aozora")
    config = CorpusConfig(source=(valid, wikinews), tasks=(kyoto,), decontaminate=("kyoto",))
    out, corpus = make(config, tmp_path / "out")
    assert out.counts["dropped"] == {"contaminated": 504}
    assert out.counts["decontaminated"]["kyoto"]["found"] >= 504
    assert len(list(corpus.documents("train"))) == 8


def test_limit_takes_the_first_documents(tmp_path: Path) -> None:
    source = SourceConfig(path=put(tmp_path / "a.txt", [f"文書{i}。" for i in range(200)]), limit=70)
    out, corpus = make(CorpusConfig(source=(source,)), tmp_path / "out")
    assert [document.text for document in corpus.documents("train")] == [f"文書{i}。" for i in range(70)]
    assert out.counts["documents_in"] == 70


def test_a_source_in_parts_that_are_wanted(tmp_path: Path) -> None:
    rows = [
        {"text": f"これは{i}番目の文書です。", "date": f"2019-{1 + i % 12:02d}-01", "lang": "ja" if i % 2 else "zh"} for i in range(240)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    wanted = {"keep": {"date": ("2019-03-01", "2019-06-30"), "language": ("ja",)}, "metadata": {"language": "lang"}}
    dates = SourceConfig(path=str(path), format="jsonl", name="dates", repeat=10, **wanted)
    first = SourceConfig(path=str(path), format="jsonl", name="first", max_characters=200, **wanted)
    out, corpus = make(CorpusConfig(source=(first, dates)), tmp_path / "out")
    found = [document.text for document in corpus.documents("train")]
    assert found == [row["text"] for row in rows if row["lang"] == "ja" and row["date"][5:7] in ("04", "06")]
    counts = out.counts["by_source"]
    read = counts["first"]["read"]
    assert sum(map(len, found[: counts["first"]["kept"]])) >= 200 > sum(map(len, found[: counts["first"]["kept"] - 1]))
    assert found[counts["first"]["kept"] - 1] == rows[read - 1]["text"], "reading ended with the document that reached the limit"
    assert counts["dates"] == {
        "read": 240, "kept": 40 - counts["first"]["kept"], "held out": 0, "dropped: date": 160,
        "dropped: duplicate": counts["first"]["kept"], "dropped: language": 40,
        "characters": sum(map(len, found[counts["first"]["kept"] :])),
    }  # fmt: skip
    assert out.counts["documents_in"] == read + 240
    facts = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert (facts["repeat"], facts["weight"]) == ({"dates": 10}, {})


def test_weights(tmp_path: Path) -> None:
    a, b = (put(tmp_path / f"{name}.txt", [f"文書{name}です。"]) for name in "ab")
    make(CorpusConfig(source=(SourceConfig(path=a, weight=0.7), SourceConfig(path=b, weight=2))), tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "corpus.json").read_text(encoding="utf-8"))
    assert (facts["repeat"], facts["weight"]) == ({}, {"a": 0.7, "b": 2.0})


@pytest.mark.parametrize(
    ("text", "documents", "message"),
    [
        ("同じ文書です。\n\n" * 50, 0, None),
        ("一つだけの文書です。", 0, None),
        ("同じ文書です。\n\n" * 50, 1, "only 1 of source a are left"),
    ],
)
def test_a_corpus_of_next_to_nothing(tmp_path: Path, text: str, documents: int, message: str | None) -> None:
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    config = CorpusConfig(source=(SourceConfig(path=str(tmp_path / "a.txt")),), holdout=f"{documents} documents" if documents else 0.5)
    if message:
        with pytest.raises(KitaeError, match=message):
            make(config, tmp_path / "out")
    else:
        out, corpus = make(config, tmp_path / "out")
        assert (out.counts["documents_kept"], out.counts["heldout"]) == (1, 0), "the only document is for training"
        assert len(list(corpus.documents("train"))) == 1


def test_every_reason_is_reported_and_all_documents_are_accounted_for(tmp_path: Path, task: TaskConfig) -> None:
    article = "".join(f"これは{i}行目の文で、内容は行ごとに少しずつ違う。" for i in range(12))
    documents = [
        article, article.replace("5行目", "五行目"), article, f"{TOPICS[0]}で終わる文書。", "短い。", "",
        "中华人民共和国中央人民政府。" * 2, "お得※★☆■◆□◇!!",
        "連絡先は03-1234-5678とa@example.jpで、電話は平日の朝だけ。",
        "RT @taro: 今日は楽しかったwww また行きたいと思う。",
    ]  # fmt: skip
    source = SourceConfig(path=put(tmp_path / "posts.jsonl", []), format="jsonl")
    Path(source.path).write_text("\n".join(json.dumps({"text": text}) for text in documents), encoding="utf-8")
    config = CorpusConfig(
        source=(source,), decontaminate=("topics",), tasks=(task,), min_characters=5, near_duplicates=0.8, private=("email", "phone"),
        social=("marks", "laughter"), filters={"min_hiragana": 0.2, "max_symbols": 0.5, "preset": "none"},
    )  # fmt: skip
    out, corpus = make(config, tmp_path / "out")
    wanted = {"near-duplicate": 1, "duplicate": 1, "contaminated": 1, "short": 1, "empty": 1, "min_hiragana": 1, "max_symbols": 1}
    assert out.counts["dropped"] == wanted
    assert out.counts["documents_in"] == 10 == out.counts["documents_kept"] + sum(wanted.values())
    assert out.counts["changes"] == {"posts": {"email": 1, "laughter": 1, "marks": 1, "phone": 1}}
    kept = [document.text for document in corpus.documents("train")]
    assert kept[1:] == ["連絡先は<PHONE>と<EMAIL>で、電話は平日の朝だけ。", "今日は楽しかった\nまた行きたいと思う。"]
    drops = json.loads((tmp_path / "out" / "drops.json").read_text(encoding="utf-8"))["posts"]
    assert {reason: drop["documents"] for reason, drop in drops.items()} == wanted
    assert drops["near-duplicate"]["examples"][0]["id"] == "posts/1"
    page = (tmp_path / "out" / "drops.md").read_text(encoding="utf-8")
    assert all(f"| posts | dropped: {reason} | 1 |" in page for reason in wanted)
    assert "| posts | phone | 1 |" in page


def test_the_preset_by_its_name(tmp_path: Path) -> None:
    source = ({"path": put(tmp_path / "a.txt", ["文書。"])},)
    config = CorpusConfig.model_validate({"source": source, "filters": "web"})
    assert config == CorpusConfig.model_validate({"source": source, "filters": {"preset": "web"}})
    assert CorpusConfig.model_validate(dict(config)) == config, "as the adapt table hands it on"
    with pytest.raises(KitaeError, match=r"every document was dropped \(min_characters\)"):
        make(config, tmp_path / "out")
    with pytest.raises(KitaeError, match='did you mean "web"'):
        validate(CorpusConfig, {"source": source, "filters": "webb"}, "recipe.toml")


def test_settings(tmp_path: Path) -> None:
    config = CorpusConfig(
        source=({"path": "sample:general"}, {"path": "a/b.txt.xz"}, {"path": "t.tar.gz", "format": "files"}), engine={"workers": 3}
    )
    assert [source.label for source in config.source] == ["general", "b", "t"]
    assert "engine" not in config.semantic()
    assert "path" not in config.semantic()["source"][0]
    assert sources(config) == ("sample:general", "a/b.txt.xz", "t.tar.gz")
    assert CorpusConfig(source=({"path": "x"},), holdout="5000 documents").held_out().documents == 5000
    for wrong, message in (
        ({"source": ({"path": "a.txt"}, {"path": "b/a.txt.gz"})}, 'two sources are called "a"'),
        ({"source": ({"path": "a", "format": "jsonll"},)}, 'did you mean "jsonl"'),
        ({"source": ({"path": "a"},), "holdout": "many"}, "neither a share"),
        ({"source": ({"path": "a"},), "holdout": 1.0}, "below 1"),
        ({"source": ()}, "at least 1"),
        ({"source": ({"path": "a", "repeat": 0},)}, "greater than or equal to 1"),
        ({"source": ({"path": "a", "repeat": 2, "weight": 0.5},)}, "remove one"),
        ({"source": ({"path": "a", "weight": float("inf")},)}, "finite number"),
        ({"source": ({"path": "a", "weight": 1e7},)}, "less than or equal to 1000000"),
        ({"source": ({"path": "a", "weight": 0.5}, {"path": "b"})}, '"b" has none'),
        ({"source": ({"path": "a", "metadata": {"dates": "x"}},)}, 'did you mean "date"'),
        ({"source": ({"path": "a", "keep": {"date": ("2020", "2019")}},)}, "is later than"),
        ({"source": ({"path": "a"},), "engine": {"executor": "dask"}}, "'local', 'slurm' or 'ray'"),
        ({"source": ({"path": "a"},), "near_duplicates": 0.3}, "at least 0.5"),
    ):
        with pytest.raises(ValidationError, match=re.escape(message)):
            CorpusConfig(**wrong)
    with pytest.raises(KitaeError, match="topicz"):
        make(CorpusConfig(source=({"path": put(tmp_path / "a.txt", ["文書。"])},), decontaminate=("topicz",)), tmp_path / "out")


def test_headings_go_with_wikipedia_dumps_only() -> None:
    assert SourceConfig(path="a.xml.bz2", format="wikipedia", headings=True).headings
    with pytest.raises(ValidationError, match="wikipedia"):
        SourceConfig(path="a.txt", headings=True)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ({"path": "a.txt", "column": "body"}, "column goes with csv"),
        ({"path": "a.txt", "id_column": "id"}, "id_column goes with csv"),
        ({"path": "a.xml", "format": "kyoto", "id_column": "id"}, "id_column goes with csv"),
        ({"path": "a.jsonl", "format": "jsonl", "headings": True}, "headings = true goes with"),
        ({"path": "task:sentiment/train", "format": "jsonl"}, "remove format"),
        ({"path": "task:sentiment/train", "encoding": "cp932"}, "remove encoding"),
        ({"path": "task:sentiment/train", "errors": "skip"}, "remove errors"),
        ({"path": "task:sentiment/train", "column": "text_a"}, "remove column"),
        ({"path": "folder/.txt"}, "say `name"),
        ({"path": "con.txt"}, "Windows keeps it"),
    ],
)
def test_settings_of_a_source_that_would_do_nothing_or_harm(source: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        SourceConfig.model_validate(source)


def test_a_path_of_dots_is_called_after_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ja" / "deep").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "ja")
    assert [SourceConfig(path=path).label for path in (".", "./", "deep/..", "..", "deep/../deep", "deep/.")] == [
        "ja", "ja", "ja", tmp_path.name, "deep", "deep",
    ]  # fmt: skip
    assert SourceConfig(path="a.xml", format="kyoto", column="en").column == "en"


SPLITTING = {"split_seed": 7, "split": Split(train=0.2, validation=0.2, test=0.6), "label": "other", "limit": 9}
DESCRIBING = {"labels": ("1", "0"), "licence": "CC0-1.0", "citation": "somebody"}


def test_what_a_task_is_scored_by_makes_no_corpus_stale(task: TaskConfig) -> None:
    evaluated = CorpusConfig(source=(SourceConfig(path="a.txt"),), tasks=(task,), decontaminate=("topics",))
    learnt = evaluated.model_copy(update={"source": (SourceConfig(path="task:topics/train"),)})
    for config, decisive in ((evaluated, {}), (learnt, SPLITTING)):
        for name, value in {**SPLITTING, **DESCRIBING, "text": ("body",), "id": "number", "format": "tsv"}.items():
            other = config.model_copy(update={"tasks": (task.model_copy(update={name: value}),)})
            assert (other.semantic() != config.semantic()) == (name in decisive or name in ("text", "id", "format")), name


def test_the_texts_looked_for_do_not_depend_on_the_split(tmp_path: Path, task: TaskConfig) -> None:
    put(tmp_path / "a.txt", [TOPICS[3], "この文章はほかのどこにもない文章です。"])
    reports = []
    for number, split_seed in enumerate((1, 2)):
        again = task.model_copy(update={"split_seed": split_seed})
        source = SourceConfig(path=str(tmp_path / "a.txt"))
        out, _ = make(CorpusConfig(source=(source,), tasks=(again,), decontaminate=("topics",)), tmp_path / str(number))
        reports.append(out.counts["decontaminated"])
    assert reports[0] == reports[1]
    assert reports[0]["topics"]["examples_not_found"][:4] == [f"topics.csv:{line}" for line in (2, 3, 4, 6)]  # type: ignore[index]
