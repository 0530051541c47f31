"""Juman++ through its pipe, with an executable that speaks its protocol and has every fault that a process can have."""

import gc
import json
import logging
import os
import re
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fake_jumanpp
import fugashi
import pytest
from real_text import AWKWARD, GOLDEN, sentences
from transformers import AutoTokenizer

from kitae.core.artifact import read_manifest
from kitae.core.errors import KitaeError
from kitae.data import together
from kitae.data.tokenize import tokenize
from kitae.text.corpus import ShardWriter
from kitae.tokenization import jumanpp, resources
from kitae.tokenization.counting import count_words
from kitae.tokenization.jumanpp import JumanppSegmenter, find, read_spans
from kitae.tokenization.pipe import ERRORS_KEPT, Pipe
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import kitae

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


@pytest.mark.parametrize("size", range(4092, 4100))
def test_a_long_line_that_looks_like_a_comment(size: int, segmenter: JumanppSegmenter) -> None:
    """What keeps it from being one is a character of more bytes."""
    for text in ("# " + "a" * (size - 2), "# " + "漢" * 1000 + "a" * (size - 3002), "漢" * 700 + " # " + "a " * (size // 2)):
        assert "".join(segmenter.segment(text)) == "".join(text.split())
    assert segmenter.failures == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("HANG する", "gave no answer within 0.4 seconds"),
        ("DIE する", r"ended with exit code 3 \(lattice is broken\)"),
        ("GARBAGE する", "does not fit it"),
        ("OTHER する", "does not fit it"),
        ("FEWER する", "gave no answer|does not fit it"),
        ("EMPTY する", "does not fit it"),
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


def test_an_answer_too_many_costs_nobody_its_words(segmenter: JumanppSegmenter, caplog: pytest.LogCaptureFixture) -> None:
    for texts in (["SURPLUS", "東京に行く", "日本に"], ["日本に", "SURPLUS"]):
        assert segmenter.segment_all(texts) == [expected(text) for text in texts]
    assert segmenter._pipe is None  # the last had an end too many, so the next sentence gets a new program
    assert segmenter.segment("東京に行く") == expected("東京に行く")
    assert segmenter.failures == 0
    assert not caplog.records


def test_warnings_have_an_end(segmenter: JumanppSegmenter, caplog: pytest.LogCaptureFixture) -> None:
    segmenter.segment_all(["ERROR", "東京"] * 30)
    assert segmenter.failures == 30
    assert len(caplog.records) == jumanpp.MOST_WARNINGS
    assert "the last warning" in caplog.records[-1].getMessage()


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


def test_a_version_without_end(tmp_path: Path) -> None:
    program = fake_jumanpp.install(tmp_path, before="while '--version' in sys.argv: sys.stdout.write('x' * 65536)")
    with pytest.raises(KitaeError, match="--version fails: it gave 8,388,608 bytes"):
        find(str(program))


def test_a_relative_path_becomes_absolute(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("./jumanpp").path == program
    assert resources.find(SegmenterSpec(kind="jumanpp", program="./jumanpp")).place == str(program)


def test_babble_without_end_is_stopped(tmp_path: Path) -> None:
    before = "if '--version' not in sys.argv:\n    while True: sys.stdout.write('x' * 65536)"
    program = find(str(fake_jumanpp.install(tmp_path, before=before)))
    with pytest.raises(KitaeError, match="bytes without an end of sentence"):
        JumanppSegmenter(program).segment("東京")


def test_more_than_fits_into_the_pipes() -> None:
    """A megabyte each way, in a batch: whoever wrote it all before reading would wait for ever, and so would the program."""
    lines = [bytes([97 + number % 26]) * 4096 for number in range(jumanpp.BATCH)]
    pipe = Pipe(["sed", "-u", "a EOS"])
    assert pipe.exchange(lines, 5.0) == [[line] for line in lines]
    assert not pipe.trouble
    pipe.close()


def test_a_program_that_never_reads_is_a_hang() -> None:
    pipe = Pipe(["sleep", "600"])
    begun = time.monotonic()
    assert pipe.exchange([b"x" * 4096] * jumanpp.BATCH, 0.2) == []  # the pipe holds 64 kB of them
    assert pipe.trouble == "gave no answer within 0.2 seconds"
    pipe.close()
    assert time.monotonic() - begun < 5


def test_more_answers_than_lines_are_trouble() -> None:
    pipe = Pipe(["sed", "-u", "a EOS\\nrest\\nEOS"])
    assert pipe.exchange([b"a"], 5.0) == [[b"a"]]
    assert pipe.trouble == "gave more answers than it was asked for"
    pipe.close()


def test_what_is_said_on_the_standard_error_takes_no_room(segmenter: JumanppSegmenter) -> None:
    """Neither a full pipe stops the program, nor does much of it stay; the end of it is what a message says."""
    texts = ["LOUDな東京", "名前はまだ無い"] * 8
    assert segmenter.segment_all(texts) == [expected(text) for text in texts]
    pipe = segmenter._pipe
    assert pipe is not None
    assert 0 < len(pipe._said) <= ERRORS_KEPT
    assert pipe.exchange([b"LOUD DIE"], 5.0) == []
    assert pipe.trouble.endswith("xxxlattice is broken)")
    assert len(pipe.trouble) < 500


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


def gone(number: int) -> bool:
    """Whether a process has ended: at once where this process waits for it, else within a second."""
    place = Path(f"/proc/{number}/stat")
    for _ in range(100):
        try:
            if place.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.01)
    return False


def test_no_process_stays_behind(program: Path) -> None:
    segmenter = JumanppSegmenter(find(str(program)))
    segmenter.segment("東京")
    assert segmenter._pipe is not None
    number = segmenter._pipe._process.pid
    assert Path(f"/proc/{number}").exists()
    segmenter.close()
    assert not Path(f"/proc/{number}").exists()
    assert segmenter.segment("東京") == expected("東京")  # another one starts
    number = segmenter._pipe._process.pid
    assert Path(f"/proc/{number}").exists()
    del segmenter
    gc.collect()
    assert not Path(f"/proc/{number}").exists()


@pytest.mark.parametrize("noticed", [True, False])
def test_what_a_script_started_ends_though_the_script_ended_before(noticed: bool, tmp_path: Path) -> None:
    place = tmp_path / "number"
    pipe = Pipe(["sh", "-c", f"sleep 600 >/dev/null 2>&1 & echo $! > {place}; echo; {'read line' if noticed else ''}"])
    if noticed:
        assert pipe.exchange([b"a"], 5.0) == []
        assert pipe.trouble == "ended with exit code 0"
    else:
        os.waitid(os.P_PID, pipe._process.pid, os.WEXITED | os.WNOWAIT)
    number = int(place.read_text())
    pipe.close()
    assert gone(number)


def test_threads_take_turns(segmenter: JumanppSegmenter) -> None:
    texts = [f"東京に{number}人が行く" for number in range(40)]
    segmenter.segment("東京")
    pipe = segmenter._pipe
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(segmenter.segment, texts)) == [expected(text) for text in texts]
    assert segmenter._pipe is pipe  # nobody read another's answer, and began anew


def test_a_fork_has_a_program_of_its_own(segmenter: JumanppSegmenter) -> None:
    """Two processes that write into one pipe would read each other's answers; and the child's end must not end the parent's."""
    texts = ["東京に行く", "名前はまだ無い"] * 20
    words = [expected(text) for text in texts]
    assert segmenter.segment(texts[0]) == words[0]
    pipe = segmenter._pipe
    assert pipe is not None
    child = os.fork()
    if not child:
        right = segmenter.segment_all(texts) == words and segmenter._pipe is not pipe
        del pipe
        segmenter.close()
        os._exit(0 if right else 1)
    assert segmenter.segment_all(texts) == words
    assert os.waitpid(child, 0)[1] == 0
    assert segmenter.segment_all(texts) == words
    assert segmenter._pipe is pipe
    assert segmenter.failures == 0


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
    with monkeypatch.context() as searched:
        searched.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        assert Tokenizer.load(tmp_path / "t").words(text) == together
    with jumanpp.named(str(program.rename(tmp_path / "elsewhere"))):
        assert Tokenizer.load(tmp_path / "t").fingerprint == tokenizer.fingerprint
    assert jumanpp.VARIABLE not in os.environ
    (tmp_path / "other").mkdir()
    monkeypatch.setenv(jumanpp.VARIABLE, str(fake_jumanpp.install(tmp_path / "other", version="Juman++ Version: 3")))
    with pytest.raises(KitaeError, match=r"fingerprint [0-9a-f]{16}, expected [0-9a-f]{16}"):
        Tokenizer.load(tmp_path / "t")


@pytest.mark.parametrize("usual", [True, False])
def test_a_program_that_a_folder_names_is_never_run(usual: bool, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hands on a tokenizer could name any file of the machine, or one of the folder's own."""
    spec = SegmenterSpec(kind="jumanpp", program=str(program))
    Tokenizer.new(TOKENS, spec).save(tmp_path / "t")
    marker = tmp_path / "was-run"
    other = tmp_path / "t" / "program"
    other.write_text(f"#!/bin/sh\n: > {marker}\necho Juman++\n")
    other.chmod(0o755)
    own = tmp_path / "t" / "kitae_tokenizer.json"
    said = json.loads(own.read_text())
    assert said["dictionary_path"] == str(program)
    said["dictionary_path"] = said["segmenter"]["program"] = str(other)
    own.write_text(json.dumps(said))
    if usual:
        monkeypatch.setenv(jumanpp.VARIABLE, str(program))
        assert Tokenizer.load(tmp_path / "t").definition.spec == spec
    else:
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(KitaeError, match="is not on this machine") as error:
            Tokenizer.load(tmp_path / "t")
        assert f"{jumanpp.VARIABLE} (the tokenizer was made with '{other}'" in error.value.cure
    assert not marker.exists()
    with jumanpp.named(str(other)), pytest.raises(KitaeError, match="is not the one this tokenizer was made with"):
        Tokenizer.load(tmp_path / "t")  # the test's own check: it does run, and leave its mark, when its user names it
    assert marker.exists()


def test_words_are_counted_in_batches(program: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("東京に行く\n" * 600 + "ＡＢＣ\n", encoding="utf-8")
    spec = SegmenterSpec(kind="jumanpp", program=str(program))
    with count_words([tmp_path / "a.txt"], lambda path: path.read_text().splitlines(), spec) as found:
        counts = dict(found.rows())
    assert counts == {"東京": 600, "に": 600, "行く": 600, **dict.fromkeys(expected("ABC"), 1)}


def test_short_documents_go_through_it_together(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are filled across documents, and that changes no byte of the shards."""
    spec = SegmenterSpec(kind="jumanpp", program=str(program))
    Tokenizer.new(TOKENS, spec).save(tmp_path / "tokenizer")
    with ShardWriter(tmp_path / "corpus") as writer:
        for number in range(300):
            text = "ERRORだ" if number % 100 == 7 else "\n".join(["東京に行く", "", "日本"][: number % 3 + 1])
            writer.write(json.dumps({"id": str(number), "source": "ab"[number % 2], "text": text}).encode())
    sizes: list[int] = []
    exchange = Pipe.exchange

    def recorded(pipe: Pipe, lines: Sequence[bytes], patience: float) -> list[list[bytes]]:
        sizes.append(len(lines))
        return exchange(pipe, lines, patience)

    monkeypatch.setattr(Pipe, "exchange", recorded)
    monkeypatch.setenv(jumanpp.VARIABLE, str(program))
    made = []
    for name, characters in (("together", together.CHARACTERS), ("alone", 1)):
        monkeypatch.setattr(together, "CHARACTERS", characters)
        shards = sorted((tmp_path / "corpus").iterdir())
        *_, failures = tokenize(
            {"train": shards, "heldout": shards},
            tokenizer=tmp_path / "tokenizer",
            sources=("a", "b"),
            folder=tmp_path / name,
            work=tmp_path / name / "work",
            workers=1,
        )
        assert failures == 6
        files = [file for file in (tmp_path / name).rglob("*.*") if file.is_file() and "work" not in file.parts]
        made.append({str(file.relative_to(tmp_path / name)): file.read_bytes() for file in files})
        if name == "together":
            few = len(sizes)
            assert max(sizes) > jumanpp.BATCH // 2  # blank lines are not sent
    assert made[0] == made[1]
    assert len(made[0]) == 18  # five files and an index of "train", of "a" and of "b"
    assert few * 20 < len(sizes) - few


def test_a_recipe_names_its_program_for_every_stage(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for those that only have the tokenizer's folder, which runs no program by itself."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    texts = [*(f"東京都に{number}人が行く。\n{number}は日本の数だ。" for number in range(20)), "ERROR は困る。"]
    Path("general.txt").write_text("\n\n".join(texts), encoding="utf-8")
    Path("r.toml").write_text(
        f"""output = "run"
[corpus]
source = [{{ path = "general.txt", format = "text" }}]
[tokenizer]
segmenter = "jumanpp"
program = "{program}"
vocab_size = 100
workers = 1
[dataset]
max_length = 32
workers = 1
""",
        encoding="utf-8",
    )
    done = kitae("run", "r.toml")
    assert done.returncode == 0, done.stderr
    for stage in ("tokenizer", "dataset"):  # 41 sentences are measured, and all are tokenized
        assert read_manifest(Path("run", stage)).facts["counts"]["sentences_by_blanks"] == 1
    refused = kitae("inspect", "run/tokenizer", "general.txt")
    assert refused.returncode == 2
    assert f"name its program in KITAE_JUMANPP (the tokenizer was made with '{program}'" in refused.stderr


def test_ids_are_those_of_transformers(program: Path, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without kitae's own file, read as anybody's."""
    monkeypatch.setitem(sys.modules, "rhoknp", fake_jumanpp.rhoknp())
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    for lower in (False, True):
        folder = tmp_path / str(lower)
        Tokenizer.new(TOKENS, SegmenterSpec(kind="jumanpp", lower_case=lower)).save(folder)
        reference = AutoTokenizer.from_pretrained(folder)
        (folder / "kitae_tokenizer.json").unlink()
        tokenizer = Tokenizer.load(folder)
        assert tokenizer.definition.spec == SegmenterSpec(kind="jumanpp", lower_case=lower)
        chosen = sentences(shared, "ipadic")[::40]
        ids = [[number for word in words for number in word] for words in tokenizer.words_of_each(chosen)]
        assert ids == [reference(sentence, add_special_tokens=False)["input_ids"] for sentence in chosen]
