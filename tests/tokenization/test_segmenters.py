"""MeCab with other dictionaries, Sudachi, and text that is segmented already: words, ids and folders."""

import ast
import importlib.util
import itertools
import json
import lzma
import subprocess
from pathlib import Path

import fake_jumanpp
import ipadic
import pytest
import unidic_lite
from real_text import AWKWARD, GOLDEN, sentences
from transformers import AutoTokenizer, BertJapaneseTokenizer
from transformers.models.bert_japanese.tokenization_bert_japanese import SudachiTokenizer

from kitae.core.errors import KitaeError
from kitae.text.clean import normalize
from kitae.text.sentences import split_japanese
from kitae.tokenization import dictionary, exported, library, resources, sudachi
from kitae.tokenization.counting import Unit, count_words
from kitae.tokenization.cuts import encodable
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec, build, words_of
from kitae.tokenization.sudachi import SplitMode, SudachiSegmenter
from kitae.tokenization.tokenizer import Tokenizer

VOCABULARY = GOLDEN / "vocab_japanese.txt"
COMPILER = Path("/usr/lib/mecab/mecab-dict-index")
TOKENS = VOCABULARY.read_text(encoding="utf-8").splitlines()


def need(name: str) -> str:
    """Skip where a MeCab dictionary is absent that no package of ours brings."""
    try:
        dictionary.find(name)
    except KitaeError as error:
        pytest.skip(f"the MeCab dictionary {name} is not on this machine: {error.cure}")
    return name


def ids_of(tokenizer: Tokenizer, sentence: str) -> list[int]:
    return [number for word in tokenizer.words(sentence) for number in word]


@pytest.mark.parametrize("mode", sudachi.SPLIT_MODES)
def test_sudachi_gives_the_words_of_transformers(mode: SplitMode, shared: Path) -> None:
    reference = SudachiTokenizer(sudachi_split_mode=mode, trim_whitespace=True)
    spec = SegmenterSpec(kind="sudachi", split_mode=mode)
    words, whole = words_of(spec), words_of(spec, build(spec, whole=True))
    chosen = [*sentences(shared, "ipadic")[::4], *AWKWARD]
    assert len(chosen) >= 2000
    for sentence in chosen:
        sentence = sentence.replace("\0", " ")
        assert whole(sentence) == reference.tokenize(sentence)
        assert words(sentence) == [part for word in whole(sentence) for part in word.split()]


@pytest.mark.parametrize("mode", sudachi.SPLIT_MODES)
def test_words_joined_are_the_text(mode: SplitMode, shared: Path) -> None:
    segment = build(SegmenterSpec(kind="sudachi", split_mode=mode)).segment
    for sentence in [*sentences(shared, "ipadic")[:2000], *AWKWARD]:
        assert "".join(segment(sentence)) == "".join(sentence.replace("\0", " ").split())


def test_the_three_lengths() -> None:
    words = {mode: words_of(SegmenterSpec(kind="sudachi", split_mode=mode))("国会議事堂前駅") for mode in sudachi.SPLIT_MODES}
    assert words == {"A": ["国会", "議事", "堂", "前", "駅"], "B": ["国会", "議事堂", "前", "駅"], "C": ["国会議事堂前駅"]}


def test_sudachi_takes_a_line_of_megabytes() -> None:
    segmenter = SudachiSegmenter(sudachi.find("core"))
    unit = "東京都に行く。"
    assert segmenter.segment(unit * 20_000) == segmenter.segment(unit) * 20_000
    grows = "\ufdfa" * 16_000  # within the limit, but Sudachi rewrites each as 18 characters
    assert "".join(segmenter.segment(grows)) == grows


def test_a_sudachi_folder_of_bert_japanese(shared: Path, tmp_path: Path) -> None:
    options = {"sudachi_split_mode": "C", "sudachi_dict_type": "core"}
    BertJapaneseTokenizer(str(VOCABULARY), word_tokenizer_type="sudachi", sudachi_kwargs=options).save_pretrained(tmp_path / "theirs")
    foreign = Tokenizer.load(tmp_path / "theirs")
    assert foreign.definition.spec == SegmenterSpec(kind="sudachi", dictionary="core", split_mode="C")
    foreign.save(tmp_path / "ours")
    ours = Tokenizer.load(tmp_path / "ours")
    assert ours.fingerprint == foreign.fingerprint
    references = [AutoTokenizer.from_pretrained(tmp_path / name) for name in ("theirs", "ours")]
    for sentence in [*sentences(shared, "ipadic")[::25], *AWKWARD]:
        sentence = sentence.replace("\0", " ")
        ids = ids_of(ours, sentence)
        assert [reference(sentence, add_special_tokens=False)["input_ids"] for reference in references] == [ids, ids]
        encoding = ours.encode(sentence)
        assert encoding.ids.tolist() == ids
        assert encoding.ends.max(initial=0) <= len(sentence)


def test_sudachi_fingerprints_and_refusals(tmp_path: Path) -> None:
    made = {mode: Tokenizer.new(TOKENS, SegmenterSpec(kind="sudachi", split_mode=mode)).fingerprint for mode in sudachi.SPLIT_MODES}
    assert len(set(made.values())) == 3
    place = sudachi.find("core").path
    linked = tmp_path / "my.dic"
    linked.symlink_to(place)
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind="sudachi", dictionary=str(linked)))
    assert tokenizer.fingerprint == made["A"]  # by content, wherever it lies
    tokenizer.save(tmp_path / "t")
    assert str(tmp_path) not in (tmp_path / "t" / "tokenizer_config.json").read_text()
    assert Tokenizer.load(tmp_path / "t").words("東京に行く") == tokenizer.words("東京に行く")
    linked.unlink()
    with pytest.raises(KitaeError, match="is not on this machine"):
        Tokenizer.load(tmp_path / "t")
    linked.write_bytes(place.read_bytes()[:4096])
    with pytest.raises(KitaeError, match="fingerprint"):
        Tokenizer.load(tmp_path / "t")
    with pytest.raises(KitaeError, match="Sudachi refuses the dictionary"):
        build(SegmenterSpec(kind="sudachi", dictionary=str(linked)))


@pytest.mark.parametrize(
    ("absent", "says", "cure"),
    [
        ("sudachidict_small", '"small" is not installed', "pip install sudachidict-small"),
        ("sudachidict_full", '"full" is not installed', "pip install sudachidict-full"),
        ("sudachipy", "sudachipy is not installed", "pip install 'kitae[sudachi]'"),
    ],
)
def test_what_sudachi_lacks(absent: str, says: str, cure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a recipe, and in a tokenizer that was made where it is installed."""
    name = absent.removeprefix("sudachidict_") if absent != "sudachipy" else "core"
    Tokenizer.new(TOKENS, SegmenterSpec(kind="sudachi")).save(tmp_path)
    own = tmp_path / "kitae_tokenizer.json"
    own.write_text(own.read_text().replace('"dictionary": "core"', f'"dictionary": "{name}"'))
    installed = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda asked, *more: None if asked == absent else installed(asked, *more))
    for attempt in (lambda: sudachi.find(name), lambda: Tokenizer.load(tmp_path)):
        with pytest.raises(KitaeError, match=says) as error:
            attempt()
        assert error.value.cure == cure


@pytest.mark.parametrize("file", [b"", b"no dictionary", bytes(4096)])
def test_a_file_that_is_no_sudachi_dictionary(file: bytes, tmp_path: Path) -> None:
    (tmp_path / "my.dic").write_bytes(file)
    with pytest.raises(KitaeError, match="Sudachi refuses the dictionary"):
        build(SegmenterSpec(kind="sudachi", dictionary=str(tmp_path / "my.dic")))


UNITS: list[tuple[str, Unit]] = [
    *((kind, "words") for kind in ("mecab", "sudachi", "jumanpp", "basic", "whitespace")),
    ("none", "byte-words"),
    ("none", "sentences"),
]


def pairs_cut_in_half(path: Path) -> list[str]:
    return ["東京\ud83dに行く。", "a\udc00b", "\ud800", "東京"]


@pytest.mark.parametrize(("kind", "unit"), UNITS)
def test_half_a_surrogate_pair_is_the_same_character_to_all(kind: str, unit: Unit, tmp_path: Path) -> None:
    """Whoever counts words for a vocabulary has to see what the tokenizer will see: U+FFFD, and never a traceback."""
    program = str(fake_jumanpp.install(tmp_path)) if kind == "jumanpp" else ""
    spec = SegmenterSpec.model_validate({"kind": kind, "program": program})
    found = []
    for read in (pairs_cut_in_half, pairs_replaced):
        with count_words([tmp_path / "one"], read, spec, unit=unit, sample=1000) as counted:
            found.append(dict(counted.rows()))
    counts, wanted = found
    assert counts == wanted
    if unit == "words":
        tokenizer = Tokenizer.new(TOKENS, spec)
        broken, mended = pairs_cut_in_half(tmp_path), pairs_replaced(tmp_path)
        assert tokenizer.words_of_each(broken) == tokenizer.words_of_each(mended) == [tokenizer.words(text) for text in broken]
        assert kind == "basic" or any("\N{REPLACEMENT CHARACTER}" in word for word in counts)  # BERT's rules drop it


def pairs_replaced(path: Path) -> list[str]:
    return [encodable(text) for text in pairs_cut_in_half(path)]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"word_tokenizer_type": "sudachi", "sudachi_kwargs": {"sudachi_projection": "normalized"}}, "sudachi_projection"),
        ({"word_tokenizer_type": "sudachi", "sudachi_kwargs": {"sudachi_split_mode": "D"}}, "sudachi_split_mode = D"),
        ({"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dic": None}}, "MeCab dictionary None, which is no package"),
        ({"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dic": "naist"}}, "MeCab dictionary naist"),
        ({"word_tokenizer_type": "mecab", "subword_tokenizer_type": "sentencepiece"}, "spiece.model is missing"),
        ({"word_tokenizer_type": "mecab", "do_word_tokenize": False}, "do_word_tokenize = false"),
        ({"word_tokenizer_type": "mecab", "do_subword_tokenize": False}, "do_subword_tokenize = false"),
        ({"word_tokenizer_type": "mecab", "do_lower_case": True, "never_split": ["A"]}, "never_split with do_lower_case"),
        ({"word_tokenizer_type": "mecab", "mecab_kwargs": ["ipadic"]}, "mecab_kwargs that is no object"),
        ({"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dict": "ipadic"}}, "mecab_kwargs with mecab_dict"),
        ({"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_option": '-d "x'}}, "No closing quotation"),
        (
            {"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_dic": "ipadic", "mecab_option": "-d x"}},
            "ipadic and x",
        ),
        *(
            (
                {"word_tokenizer_type": "mecab", "mecab_kwargs": {"mecab_option": option}},
                f"mecab_option with {option[:2]}",
            )
            for option in ("-Ochasen", "-F%m", "-E x", "-U x", "-B x", "-a", "-N2", "-p", "-u my.dic", "--node-format=%m", "-M", "wakati")
        ),
        ({"word_tokenizer_type": "sudachi", "subword_tokenizer_type": "character"}, "sudachi_kwargs without trim_whitespace"),
        ({"word_tokenizer_type": "jumanpp", "subword_tokenizer_type": "character"}, "jumanpp_kwargs without trim_whitespace"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(config: dict[str, object], says: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertJapaneseTokenizer", **config}))
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS))
    with pytest.raises(KitaeError, match=says):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["jumandic", "unidic"])
def test_a_dictionary_by_name(name: str, shared: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind="mecab", dictionary=need(name)))
    tokenizer.save(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)  # Debian's place travels, because it is the same everywhere
    again = Tokenizer.load(tmp_path)
    (tmp_path / "kitae_tokenizer.json").unlink()
    foreign = Tokenizer.load(tmp_path)
    assert tokenizer.fingerprint == again.fingerprint == foreign.fingerprint
    assert foreign.definition.spec.dictionary == name
    segment = build(tokenizer.definition.spec).segment
    for sentence in [*sentences(shared, "ipadic")[::16], *AWKWARD]:
        ids = ids_of(again, sentence)
        assert ids == reference(sentence.replace("\0", " "), add_special_tokens=False)["input_ids"]
        assert "".join(segment(sentence[:50])) == "".join(sentence[:50].replace("\0", " ").split())


def test_lines_may_not_share_a_call(shared: Path) -> None:
    """A line feed is white space to MeCab and no sentence end: together, lines get other words where they meet."""
    segment = build(SegmenterSpec(kind="mecab")).segment
    chosen = sentences(shared, "ipadic")[:2000]
    pairs = [(a.strip(), b.strip()) for a, b in itertools.pairwise(chosen)]
    assert any(segment(a) + segment(b) != segment(f"{a}\n{b}") for a, b in pairs)


def test_an_absent_dictionary_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dictionary, "JUMANDIC", ("/nowhere",))
    with pytest.raises(KitaeError, match='"jumandic" is not on this machine') as error:
        dictionary.find("jumandic")
    assert "apt-get install mecab-jumandic-utf8" in error.value.cure


def compiled(folder: Path, words: str) -> Path:
    """A user dictionary of IPAdic with these words; a skip where MeCab's compiler is absent."""
    if not COMPILER.is_file():
        pytest.skip(f"{COMPILER} is not on this machine: apt-get install mecab")
    rows = "".join(f"{word},1288,1288,-8000,名詞,固有名詞,一般,*,*,*,{word},*,*\n" for word in words.split())
    (folder / "user.csv").write_text(rows, encoding="utf-8")
    line = [COMPILER, "-d", ipadic.DICDIR, "-u", folder / "user.dic", "-f", "utf-8", "-t", "utf-8", folder / "user.csv"]
    subprocess.run(line, check=True, capture_output=True)
    return folder / "user.dic"


def like_neologd(folder: Path, user: Path) -> Path:
    """A folder with IPAdic's files and more words, as mecab-ipadic-NEologd is one, by IPAdic's dicrc and a further line."""
    folder.mkdir()
    for file in Path(ipadic.DICDIR).iterdir():
        (folder / file.name).symlink_to(file)
    settings = (folder / "dicrc").read_text()
    (folder / "dicrc").unlink()
    (folder / "dicrc").write_text(f"{settings}\nuserdic = {user}\n")
    return folder


def test_a_folder_with_more_words_than_the_usual_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any compiled folder gives its words, has a fingerprint by content, and is found again: at its place, or where one says."""
    folder = like_neologd(tmp_path / "neologd", compiled(tmp_path, "推しの子 鬼滅の刃"))
    monkeypatch.chdir(tmp_path)
    spec = SegmenterSpec(kind="mecab", dictionary="neologd")
    assert words_of(spec)("推しの子と鬼滅の刃を見た") == ["推しの子", "と", "鬼滅の刃", "を", "見", "た"]
    tokenizer = Tokenizer.new(TOKENS, spec)
    assert tokenizer.fingerprint != Tokenizer.new(TOKENS, SegmenterSpec(kind="mecab")).fingerprint
    tokenizer.save(tmp_path / "t")
    assert json.loads((tmp_path / "t" / "kitae_tokenizer.json").read_text())["dictionary_path"] == str(folder)
    monkeypatch.chdir("/")
    assert Tokenizer.load(tmp_path / "t").definition.spec.dictionary == str(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(KitaeError, match="is not on this machine"):
        Tokenizer.load(tmp_path / "t")
    monkeypatch.setenv(dictionary.VARIABLE, str(moved))
    assert Tokenizer.load(tmp_path / "t").fingerprint == tokenizer.fingerprint
    compiled(tmp_path, "推しの子")
    with pytest.raises(KitaeError, match="is not the one this tokenizer was made with"):
        Tokenizer.load(tmp_path / "t")


@pytest.mark.parametrize("flag", ["-u {0}", "--userdic={0}", "--userdic {0}", "-u{0}"])
def test_a_user_dictionary_counts_by_its_content(flag: str, tmp_path: Path) -> None:
    found = dictionary.find("ipadic")
    flags = flag.format(compiled(tmp_path, "推しの子"))
    assert found.tagger(flags).parse("推しの子").split() == ["推しの子"]
    before = found.fingerprint(flags)
    assert before != found.fingerprint()
    compiled(tmp_path, "推しの子 鬼滅の刃")
    assert found.fingerprint(flags) != before
    compiled(tmp_path, "推しの子")
    assert found.fingerprint(flags) == before
    (tmp_path / "user.dic").unlink()
    with pytest.raises(KitaeError, match="MeCab refuses"):
        found.fingerprint(flags)


def test_flags_that_name_another_dictionary() -> None:
    """Its files would not be those of the fingerprint."""
    with pytest.raises(KitaeError, match="name another dictionary, .*unidic_lite") as error:
        dictionary.find("ipadic").fingerprint(f"-d {unidic_lite.DICDIR}")
    assert error.value.cure == "name it as `dictionary`"


def test_a_name_that_is_no_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never stands for another one, and what the environment names is taken in its place when a tokenizer is read again."""
    with pytest.raises(KitaeError, match='"naist" is not on this machine'):
        dictionary.find_again("naist", "")
    monkeypatch.setenv(dictionary.VARIABLE, str(ipadic.DICDIR))
    assert dictionary.find_again("naist", "").path == Path(ipadic.DICDIR)


@pytest.mark.parametrize("option", ['-d "{0}"', "--dicdir={0} -r /etc/mecabrc", "-r /dev/null -d {0}", "-d{0}"])
def test_mecab_options_that_name_a_folder(option: str, tmp_path: Path) -> None:
    config = {"mecab_dic": None, "mecab_option": option.format(ipadic.DICDIR)}
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertJapaneseTokenizer", "word_tokenizer_type": "mecab", "mecab_kwargs": config})
    )
    (tmp_path / "vocab.txt").write_text("\n".join(TOKENS))
    named = Tokenizer.new(TOKENS, SegmenterSpec(kind="mecab"))
    assert Tokenizer.load(tmp_path).fingerprint == named.fingerprint
    assert ids_of(Tokenizer.load(tmp_path), "東京に行く") == ids_of(named, "東京に行く")


def test_mecab_flags_that_decide_the_words_are_heeded(tmp_path: Path) -> None:
    config = {"mecab_dic": "ipadic", "mecab_option": "--cost-factor=100 -M2 -r x"}
    heeded = {"mecab_dic": "ipadic", "mecab_option": "-c 100 -M 2"}
    BertJapaneseTokenizer(str(VOCABULARY), word_tokenizer_type="mecab", mecab_kwargs=heeded).save_pretrained(tmp_path)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    settings = json.loads((tmp_path / "tokenizer_config.json").read_text()) | {"mecab_kwargs": config}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.definition.spec.flags == "--cost-factor 100 -M 2"
    for text in AWKWARD:
        assert ids_of(tokenizer, text) == reference(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["mecab", "sudachi"])
def test_a_dictionary_without_a_name_is_told(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """transformers takes no other dictionary in its place: it stops, and takes what the warning says."""
    place = tmp_path / ("my dic" if kind == "mecab" else "my.dic")
    place.symlink_to(ipadic.DICDIR if kind == "mecab" else sudachi.find("core").path)
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind=kind, dictionary=str(place), nfkc=False))
    tokenizer.save(tmp_path / "t")
    (warning,) = (record.getMessage() for record in caplog.records)
    assert f"{kind}_kwargs=" in warning
    with pytest.raises(Exception, match="dic"):
        AutoTokenizer.from_pretrained(tmp_path / "t")
    said = ast.literal_eval(warning.rpartition("_kwargs=")[2].rstrip(")"))
    options = {key: value.replace("/PATH", str(tmp_path)) if isinstance(value, str) else value for key, value in said.items()}
    reference = AutoTokenizer.from_pretrained(tmp_path / "t", **{f"{kind}_kwargs": options})
    texts = [*AWKWARD, *library.ODD]
    ids = [ids_of(tokenizer, text) for text in texts]
    assert [reference(text.replace("\0", " "), add_special_tokens=False, split_special_tokens=True)["input_ids"] for text in texts] == ids
    exported.check(tokenizer.definition, tmp_path / "t", ids, texts, allowed=0)


def test_settings_of_other_segmenters_do_not_change_a_fingerprint() -> None:
    """Tokenizers that were saved before there were such settings load as before."""
    old = {"kind": "mecab", "flags": "", "nfkc": True, "lower_case": False, "strip_accents": False}
    assert SegmenterSpec(kind="mecab", split_mode="C", program="x").identity == old
    assert "split_mode" in SegmenterSpec(kind="sudachi").identity
    definition = Definition(tokens=tuple(TOKENS), spec=SegmenterSpec(kind="whitespace"))
    assert resources.find(definition.spec).fingerprint == ""


def test_text_that_is_segmented_already(shared: Path) -> None:
    """Cleaning and sentence splitting leave the words as they were; offsets lead to them."""
    with lzma.open(shared / "ja_plain/kyoto_wiki.txt.xz", "rt", encoding="utf-8") as file:
        paragraphs = [line.strip() for line in itertools.islice(file, 0, 1200, 3) if line.strip()]
    segment = words_of(SegmenterSpec(kind="mecab", dictionary="unidic-lite"))
    tokenizer = Tokenizer.new(TOKENS, SegmenterSpec(kind="whitespace"))
    plain = Tokenizer.new(TOKENS, SegmenterSpec(kind="mecab", dictionary="unidic-lite"))
    for paragraph in paragraphs:
        words = segment(paragraph)
        spaced = " ".join(words)
        lines = split_japanese(normalize(spaced))
        assert [word for line in lines for word in line.split()] == words
        encoding = tokenizer.encode(spaced)
        assert encoding.ids.tolist() == [number for line in lines for word in tokenizer.words(line) for number in word]
        assert encoding.ids.tolist() == [number for word in words for number in plain._cache[word]]
        assert encoding.word_ids.max() == len(words) - 1
        first = [int(encoding.starts[encoding.word_ids == number].min()) for number in range(len(words))]
        last = [int(encoding.ends[encoding.word_ids == number].max()) for number in range(len(words))]
        assert [spaced[a:b] for a, b in zip(first, last, strict=True)] == words
