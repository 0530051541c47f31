"""Juman++ through its pipe, with an executable that speaks its protocol and has every fault that a process can have."""

import logging
import os
import re
import sys
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import fake_jumanpp
import fugashi
import pytest
from real_text import AWKWARD, GOLDEN, sentences
from transformers import AutoTokenizer

from kitae.core.errors import KitaeError
from kitae.tokenization import jumanpp
from kitae.tokenization.counting import count_words
from kitae.tokenization.jumanpp import JumanppSegmenter, find, read_spans
from kitae.tokenization.pipe import Pipe
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

TOKENS = (GOLDEN / "vocab_japanese.txt").read_text(encoding="utf-8").splitlines()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return fake_jumanpp.install(tmp_path)


@pytest.fixture
def segmenter(program: Path) -> JumanppSegmenter:
    return JumanppSegmenter(find(str(program)), patience=0.4)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def expected(text: str) -> list[str]:
    tagger = fugashi.GenericTagger(f'-d "{fake_jumanpp.dictionary_path()}" -r /dev/null')
    return [word for node in tagger(text) for word in node.surface.split()]


def test_real_sentences(segmenter: JumanppSegmenter, shared: Path) -> None:
    """More than fits into a pipe at once, in both directions; words are those of the dictionary behind it."""
    chosen = [" ".join(sentence.split()) for sentence in sentences(shared, "ipadic")[:8000:4]]
    assert sum(len(sentence.encode()) for sentence in chosen) > 3 * 65536
    tagger = fugashi.GenericTagger(f'-d "{fake_jumanpp.dictionary_path()}" -r /dev/null')
    words = [[word for node in tagger(sentence) for word in node.surface.split()] for sentence in chosen]
    assert segmenter.segment_all(chosen) == words
    assert segmenter.failures == 0


def test_words_joined_are_the_text(segmenter: JumanppSegmenter) -> None:
    odd = ["# 注釈ではない", "#タグ", "@ user", "a@b.c @ @@", "\\ \\t \\␣", '"<>" ”＜＞', "EOS", "EOS EOS", "@", "#", "# "]
    texts = [*odd, *AWKWARD]
    for text, words in zip(texts, segmenter.segment_all(texts), strict=True):
        assert "".join(words) == "".join(text.replace("\0", " ").split())
    assert segmenter.failures == 0
    assert segmenter.segment("# 東京") == ["#", "東京"]


def test_a_long_sentence_is_cut(segmenter: JumanppSegmenter) -> None:
    text = "東京都に行く。" * 1000
    assert segmenter.segment(text) == expected("東京都に行く。") * 1000
    assert "".join(segmenter.segment("漢" * 5000 + "😀" * 3000)) == "漢" * 5000 + "😀" * 3000
    assert segmenter.failures == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("HANG する", "gave no answer within 0.4 seconds"),
        ("DIE する", r"ended with exit code 3 \(lattice is broken\)"),
        ("GARBAGE する", "does not fit it"),
        ("OTHER する", "does not fit it"),
        ("FEWER する", "gave no answer|does not fit it"),
        ("ERROR する", "refuses it"),
    ],
)
def test_a_sentence_that_fails_costs_only_itself(
    line: str, says: str, segmenter: JumanppSegmenter, caplog: pytest.LogCaptureFixture
) -> None:
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING):
        words = segmenter.segment_all(["東京に行く", "日本に", line, "名前はまだ無い", "大阪から"])
    assert words == [expected("東京に行く"), expected("日本に"), line.split(), expected("名前はまだ無い"), expected("大阪から")]
    assert segmenter.failures == 1
    (record,) = caplog.records
    assert re.search(says, record.getMessage())
    assert line in record.getMessage()
    assert time.monotonic() - begun < 10


def test_a_chance_death_changes_nothing(segmenter: JumanppSegmenter, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["東京に行く", "ONCEだけ", "名前はまだ無い"]
    assert segmenter.segment_all(texts) == [expected(text) for text in texts]
    assert segmenter.failures == 0
    assert not caplog.records


def test_a_program_that_fails_at_everything_is_an_error(segmenter: JumanppSegmenter) -> None:
    with pytest.raises(KitaeError, match="failed at 21 sentences in a row") as error:
        segmenter.segment_all(["ERROR"] * 30)
    assert "by hand" in error.value.cure


@pytest.mark.parametrize(
    ("before", "says"),
    [
        ("sys.version_info < (3,) or '--version' in sys.argv or sys.exit('no model')", r"ended with exit code 1 \(no model\)"),
        ("if '--version' not in sys.argv: print('hello\\nEOS', flush=True); input(); input()", "gave another answer than words"),
    ],
)
def test_a_program_that_is_not_jumanpp(before: str, says: str, tmp_path: Path) -> None:
    program = find(str(fake_jumanpp.install(tmp_path, before=before)))
    with pytest.raises(KitaeError, match=says):
        JumanppSegmenter(program).segment("東京")


def test_an_absent_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(jumanpp.VARIABLE, raising=False)
    with pytest.raises(KitaeError, match='there is no program "jumanpp"') as error:
        find()
    assert "github.com/ku-nlp/jumanpp/releases" in error.value.cure
    fake_jumanpp.install(tmp_path, before="sys.exit(9)")
    with pytest.raises(KitaeError, match="--version fails"):
        find()


def test_babble_without_end_is_stopped(tmp_path: Path) -> None:
    before = "if '--version' not in sys.argv:\n    while True: sys.stdout.write('x' * 65536)"
    program = find(str(fake_jumanpp.install(tmp_path, before=before)))
    with pytest.raises(KitaeError, match="bytes without an end of sentence"):
        JumanppSegmenter(program).segment("東京")


def test_a_drip_without_end_is_a_hang(tmp_path: Path) -> None:
    """Bytes are no answer: only a whole one gives more time."""
    before = "import time\nif '--version' not in sys.argv:\n    while True: sys.stdout.write('x'); sys.stdout.flush(); time.sleep(0.01)"
    pipe = Pipe([str(fake_jumanpp.install(tmp_path, before=before))])
    assert pipe.exchange([b"a"], 0.4) == []
    assert pipe.trouble == "gave no answer within 0.4 seconds"
    pipe.close()


@pytest.mark.slow
def test_several_processes_make_the_same_tokenizer(program: Path, tmp_path: Path) -> None:
    """The specification travels, every worker has a Juman++ of its own; one sentence fails in each way of working alike."""
    paths = []
    for number, text in enumerate(("東京に行く\n", "名前は DIE まだ無い\n東京\n", "株式会社\n")):
        paths.append(tmp_path / f"{number}.txt")
        paths[-1].write_text(text * 3, encoding="utf-8")
    spec = SegmenterSpec(kind="jumanpp", program=str(program))
    with count_words(paths, lines_of, spec) as one, count_words(paths, lines_of, spec, workers=2) as two:
        alone, together = dict(one.rows()), dict(two.rows())
    assert list(alone.items()) == list(together.items())
    assert (alone["東京"], alone["DIE"]) == (6, 3)


def test_no_process_stays_behind(segmenter: JumanppSegmenter) -> None:
    segmenter.segment("東京")
    assert segmenter._pipe is not None
    number = segmenter._pipe._process.pid
    assert Path(f"/proc/{number}").exists()
    segmenter.close()
    assert not Path(f"/proc/{number}").exists()
    assert segmenter.segment("東京") == expected("東京")  # another one starts
    before = threading.active_count()
    del segmenter
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("sentence", "lines", "words"),
    [
        ("a b", ["a a a 名詞 6 普通名詞 1", "\\  \\  \\  特殊 1 空白 6", "b b b 名詞 6 普通名詞 1"], ["a", "b"]),  # Juman++ 1
        ("a b", ["a a a 名詞 6 普通名詞 1", "\u3000 \u3000 \u3000 特殊 1 空白 6", "b b b 名詞 6 普通名詞 1"], ["a", "b"]),  # 2.0.0-rc3
        ('"<', ["” ” ” 特殊 1 括弧終 4", "＜ ＜ ＜ 特殊 1 括弧始 3"], ['"', "<"]),  # 2.0.0-rc3
        ("\\ x", ["\\ \\ \\ 特殊 1 記号 5", "\\\u2423 \\\u2423 \\\u2423 特殊 1 空白 6", "x x x 名詞 6 普通名詞 1"], ["\\", "x"]),
        ("New York", ["New York New York New York 名詞 6 地名 4 "], ["New York"]),
        ("@@", ["@ @ @ 特殊 1 記号 5", "@ @ @ @ 特殊 1 記号 5", "@ @ @ 特殊 1 記号 5"], ["@", "@"]),
        ("#", ["# MA-SCORE rank1:0", "# # # 特殊 1 記号 5"], ["#"]),
        ("なり", ["なり なり なる 動詞 2 * 0", "@ なり なり なる 動詞 2 * 0"], ["なり"]),
        ("なり", ["なる なり なる 動詞 2 * 0"], None),
        ("なり", ["な な な 動詞 2 * 0"], None),
        ("なり", [], None),
        ("", [], []),
    ],
)
def test_what_the_lines_mean(sentence: str, lines: list[str], words: list[str] | None) -> None:
    spans = read_spans(sentence, [line.encode() for line in lines])
    assert (None if spans is None else [sentence[a:b] for a, b in spans]) == words


def test_a_tokenizer_of_it(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind="jumanpp", program=str(program)))
    text = "ＡＢＣ株式会社は\u3000東京に ある。"
    encoding = tokenizer.encode(text)
    (together,) = tokenizer.words_of_each([text])
    assert tokenizer.words(text) == together
    assert encoding.ids.tolist() == [number for word in together for number in word]
    assert {text[a:b] for a, b in zip(encoding.starts, encoding.ends, strict=True)} >= {"会社", "東京", "に", "。"}
    tokenizer.save(tmp_path / "t")
    assert str(tmp_path) not in (tmp_path / "t" / "tokenizer_config.json").read_text()
    assert Tokenizer.load(tmp_path / "t").words(text) == together

    moved = program.rename(tmp_path / "elsewhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(KitaeError, match="Juman\\+\\+ is not on this machine"):
        Tokenizer.load(tmp_path / "t")
    monkeypatch.setenv(jumanpp.VARIABLE, str(moved))
    assert Tokenizer.load(tmp_path / "t").fingerprint == tokenizer.fingerprint
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(jumanpp.VARIABLE, str(fake_jumanpp.install(tmp_path / "other", version="Juman++ Version: 3")))
    with pytest.raises(KitaeError, match=r"fingerprint [0-9a-f]{16}, expected [0-9a-f]{16}"):
        Tokenizer.load(tmp_path / "t")


def test_words_are_counted_in_batches(program: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("東京に行く\n" * 600 + "ＡＢＣ\n", encoding="utf-8")
    spec = SegmenterSpec(kind="jumanpp", program=str(program))
    with count_words([tmp_path / "a.txt"], lambda path: path.read_text().splitlines(), spec) as found:
        counts = dict(found.rows())
    assert counts == {"東京": 600, "に": 600, "行く": 600, **dict.fromkeys(expected("ABC"), 1)}


def test_ids_are_those_of_transformers(program: Path, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers reaches Juman++ through rhoknp, in whose place stands one function over the same dictionary."""
    tagger = fugashi.GenericTagger(f'-d "{fake_jumanpp.dictionary_path()}" -r /dev/null')

    class Jumanpp:
        def apply_to_sentence(self, text: str) -> SimpleNamespace:
            return SimpleNamespace(morphemes=[SimpleNamespace(text=surface) for surface in fake_jumanpp.surfaces(tagger, text)])

    module = ModuleType("rhoknp")
    module.Jumanpp = Jumanpp
    monkeypatch.setitem(sys.modules, "rhoknp", module)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    for lower in (False, True):
        folder = tmp_path / str(lower)
        Tokenizer.new(TOKENS, SegmenterSpec(kind="jumanpp", lower_case=lower)).save(folder)
        reference = AutoTokenizer.from_pretrained(folder)
        (folder / "kitae_tokenizer.json").unlink()  # read as anybody's folder
        tokenizer = Tokenizer.load(folder)
        assert tokenizer.definition.spec == SegmenterSpec(kind="jumanpp", lower_case=lower)
        chosen = sentences(shared, "ipadic")[::40]
        ids = [[number for word in words for number in word] for words in tokenizer.words_of_each(chosen)]
        assert ids == [reference(sentence, add_special_tokens=False)["input_ids"] for sentence in chosen]
