"""Real sentences of the shared data, chosen without chance, and awkward ones made of them; also the tokenizers of the golden file."""

import gzip
import itertools
import json
import lzma
from pathlib import Path

import pytest

from kitae.tokenization import dictionary, resources
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.vocabulary import SPECIAL_TOKENS

GOLDEN = Path(__file__).parents[1] / "golden"
SPECS = {
    "ipadic": SegmenterSpec(kind="mecab", dictionary="ipadic"),
    "unidic-lite": SegmenterSpec(kind="mecab", dictionary="unidic-lite"),
    "basic": SegmenterSpec(kind="basic"),
    "basic-lower": SegmenterSpec(kind="basic", lower_case=True),
}
FURTHER = {
    "jumandic": SegmenterSpec(kind="mecab", dictionary="jumandic"),
    "sudachi-a": SegmenterSpec(kind="sudachi"),
    "sudachi-b": SegmenterSpec(kind="sudachi", split_mode="B"),
    "sudachi-c": SegmenterSpec(kind="sudachi", split_mode="C", lower_case=True),
    "jumanpp": SegmenterSpec(kind="jumanpp"),
    "whitespace": SegmenterSpec(kind="whitespace"),
    "ipadic-characters": SegmenterSpec(kind="mecab"),
    "ipadic-unnormalized-characters": SegmenterSpec(kind="mecab", nfkc=False),
    "sudachi-characters": SegmenterSpec(kind="sudachi", split_mode="C"),
    "jumanpp-characters": SegmenterSpec(kind="jumanpp"),
}
"""Beside SPECS, over the same vocabulary or over the single characters of it."""
AWKWARD = [
    "",
    " ",
    "\u3000",
    "\u3000\u3000全角の空白\u3000で始まり\u3000終わる\u3000",
    "改行\nのある\r\n文\tタブ\x0bも",
    "ＡＢＣ１２３㌔㍿①②Ⅳ㎡½ﾊﾞﾅﾅとｶﾞｷﾞｸﾞ",
    "か\u3099んは\u3099って、ハ\u309aンを食へ\u3099る",
    "ﾊﾟｰﾄﾅｰは株式会社㍻㋿の①～⑩〜―‐－ー",
    "髙島屋と﨑村さん、𠮷野家で𩸽を𠮟る、葛󠄀城と辻󠄁",
    "絵文字😀👨\u200d👩\u200d👧👍🏽🇯🇵が並ぶ☺\ufe0f❤",
    "ゼロ幅\u200bの\ufeff空白\u2060と\u00ad\u00a0\u2003\u2028\u2029\x85\u1680",
    "\x01制御\x02文字\x7f\x1c\x1d\x1f",
    "ﷺ㌀㍍ﬁｌｅ ſtraße İstanbul ΑΣ",
    "ー" * 120,
    "あ" * 99 + " " + "あ" * 101,
    "a" * 100 + " " + "a" * 101 + " " + "漢" * 300,
    "１" * 150,
    "https://example.com/?q=テスト&x=1#top 価格は￥1,234,567.89（税込）です。",
    "「彼は『はい。』と言った！？」……──・・･ﾟﾞ゛゜",
    "カ゛ギ゜ ゙ ゚ ´ ¨",
    "한국어 각 ᄒ\u1161\u11ab 中文简体 繁體 ไทย हिन्दी Ελληνικά Русский ё й",
    "naïve café résumé Ångström ǅ ﬀ Éa e\u0301 o\u0302\u0323",
    "don't stop... it's 3.14—or U.S.A.? [brackets] {x} <tag> a_b a-b $5 50% @you #1",
    "Pneumonoultramicroscopicsilicovolcanoconiosis " * 3,
    "##頭 ##a # #b ## <unused0> ［ＳＥＰ］［CLS］",
    "令和5年 2024年１月１日 平成３１年",
]


def _japanese(shared: Path) -> list[str]:
    found: list[str] = []
    with lzma.open(shared / "jglue/jsquad-v1.3/valid-v1.3.json.xz", "rt", encoding="utf-8") as file:
        for article in json.load(file)["data"]:
            for paragraph in article["paragraphs"]:
                found.extend(paragraph["context"].split(" [SEP] "))  # JSQuAD joins title and text with a literal [SEP]
                found.extend(question["question"] for question in paragraph["qas"])
    with lzma.open(shared / "jglue/jsts-v1.3/valid-v1.3.json.xz", "rt", encoding="utf-8") as file:
        found.extend(json.loads(line)["sentence1"] for line in file)
    with gzip.open(shared / "ja_plain/wikinews_full-articles_origin.tsv.gz", "rt", encoding="utf-8") as file:
        found.extend(line.split("\t")[1][:400] for line in itertools.islice(file, 1, 800))
    for name, every in (("finance_ja/edinet_ja", 9), ("ja_plain/kyoto_wiki", 11), ("ja_plain/aozora", 13)):
        with lzma.open(shared / f"{name}.txt.xz", "rt", encoding="utf-8") as file:
            found.extend(line.rstrip("\n")[:300] for line in itertools.islice(file, 0, 2500 * every, every))
    return [sentence for sentence in found if sentence.strip()]


def _english(shared: Path) -> list[str]:
    found: list[str] = []
    for name, every in (("en_plain/english_novels", 5), ("en_plain/enwiki_2018_articles", 7)):
        with lzma.open(shared / f"{name}.txt.xz", "rt", encoding="utf-8") as file:
            found.extend(line.rstrip("\n")[:300] for line in itertools.islice(file, 0, 5500 * every, every))
    return [sentence for sentence in found if sentence.strip()]


def _widened(sentence: str) -> str:
    """ASCII as full-width forms, and an ideographic space in the middle."""
    wide = "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in sentence)
    return wide[: len(wide) // 2] + "\u3000" + wide[len(wide) // 2 :]


def sentences(shared: Path, name: str) -> list[str]:
    """More than ten thousand sentences for one tokenizer of SPECS or FURTHER; to Juman++ a line is a sentence, and "#" a comment."""
    real = _english(shared) if name.startswith("basic") else _japanese(shared)
    found = [*real, *(_widened(sentence) for sentence in real[::10]), *AWKWARD]
    if name.startswith("jumanpp"):
        return [text for text in found if text.strip().isprintable() and text.strip() and "#" not in text and len(text) < 1000]
    return found


def golden_tokenizer(name: str, program: Path | None = None) -> Tokenizer:
    """A tokenizer of SPECS or FURTHER over a committed vocabulary (trained on public-domain books); `program` is Juman++."""
    vocabulary = GOLDEN / ("vocab_english.txt" if name.startswith("basic") else "vocab_japanese.txt")
    tokens = vocabulary.read_text(encoding="utf-8").splitlines()
    spec = (SPECS | FURTHER)[name]
    if spec.kind == "jumanpp" and program is not None:
        spec = spec.model_copy(update={"program": str(program)})
    if not name.endswith("-characters"):
        return Tokenizer.new(tokens, spec)
    single = (*SPECIAL_TOKENS, *(token for token in tokens if len(token) == 1))
    fingerprint = resources.find(spec).fingerprint
    return Tokenizer(Definition(tokens=single, spec=spec, algorithm="character", dictionary_fingerprint=fingerprint))


def need(name: str) -> None:
    """Skip where JumanDIC is absent, which no package of ours brings."""
    if name.startswith("juman") and not any(Path(path).is_dir() for path in dictionary.JUMANDIC):
        pytest.skip("JumanDIC is not on this machine: apt-get install mecab-jumandic-utf8")
