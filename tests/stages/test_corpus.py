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
    assert drops["contaminated"]["examples"][0] == {"id": "general/33", "text": f"題 前置き。 {TOPICS[0]} 後書き。"}
    assert drops["duplicate"]["examples"][0]["id"] == "general/30"
    assert "dropped: contaminated | 2 |" in (tmp_path / "out" / "drops.md").read_text(encoding="utf-8")
    kept = list(corpus.documents("train"))
    assert len(kept) == 27
    assert kept[0].text.split("\n")[1] == "「そうだ。」と彼は言った。"
    assert not (tmp_path / "out" / ".work").exists()
    assert sum(len(document.text) for document in kept) == corpus.characters("train")


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
