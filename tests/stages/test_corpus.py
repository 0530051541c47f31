"""The corpus stage: settings, de-contamination against tasks, counts and reports."""

import json
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from kitae.core.artifact import Inputs, Out
from kitae.core.errors import KitaeError
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


def test_settings(tmp_path: Path) -> None:
    config = CorpusConfig(source=({"path": "sample:general"}, {"path": "a/b.txt.xz"}, {"path": "t.tar.gz", "format": "files"}), workers=3)
    assert [source.label for source in config.source] == ["general", "b", "t"]
    assert "workers" not in config.semantic()
    assert "path" not in config.semantic()["source"][0]
    assert sources(config) == ("sample:general", "a/b.txt.xz", "t.tar.gz")
    assert CorpusConfig(source=({"path": "x"},), holdout="5000 documents").held_out().documents == 5000
    for wrong, message in (
        ({"source": ({"path": "a.txt"}, {"path": "b/a.txt.gz"})}, 'two sources are called "a"'),
        ({"source": ({"path": "a", "format": "jsonll"},)}, 'did you mean "jsonl"'),
        ({"source": ({"path": "a"},), "holdout": "many"}, "neither a share"),
        ({"source": ({"path": "a"},), "holdout": 1.0}, "below 1"),
        ({"source": ()}, "at least 1"),
    ):
        with pytest.raises(ValidationError, match=re.escape(message)):
            CorpusConfig(**wrong)
    with pytest.raises(KitaeError, match="topicz"):
        make(CorpusConfig(source=({"path": put(tmp_path / "a.txt", ["文書。"])},), decontaminate=("topicz",)), tmp_path / "out")


def test_headings_go_with_wikipedia_dumps_only() -> None:
    assert SourceConfig(path="a.xml.bz2", format="wikipedia", headings=True).headings
    with pytest.raises(ValidationError, match="wikipedia"):
        SourceConfig(path="a.txt", headings=True)
