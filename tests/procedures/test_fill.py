"""Masks are filled as transformers' fill-mask pipeline fills them, whatever the folder, the file and the length of the text."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForMaskedLM,
    BertForMaskedLM,
    BertForPreTraining,
    BertJapaneseTokenizer,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)
from transformers import BertConfig as TheirConfig

from kitae.core.artifact import newest
from kitae.core.errors import KitaeError
from kitae.models.bert import BertConfig
from kitae.models.families import build_discriminator, build_masked_lm
from kitae.models.folder import Part, read_parts, write_huggingface
from kitae.procedures.fill import Filler, Filling, _windows
from kitae.procedures.predict import PredictConfig, Predictor, predict_file
from kitae.tensor.random import numpy_generator, torch_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from tiny_recipe import TEXT, kitae

TOKENS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "\u4eac\u90fd", "\u5927\u5b66", "\u3067", "\u81ea\u7136", "\u8a00\u8a9e", "\u51e6\u7406",
    "\u3092", "\u3059\u308b", "\u3002", "##\u8a9e", "\u7814\u7a76", "\u306f", "\u82f1", "=", "\u5b66\u7fd2", "\u3000x",
)  # fmt: skip
CARD = "\u4eac\u90fd \u5927\u5b66 \u3067 \u81ea\u7136 \u8a00\u8a9e \u51e6\u7406 \u3092 [MASK] \u3059\u308b \u3002"
TEXTS = (
    CARD,
    CARD.replace(" ", ""),
    "[MASK]\u5927\u5b66[MASK]\u7814\u7a76[MASK][MASK]\u3059\u308b",
    "[MASK]",
    "\u82f1\u8a9e\u306f[MASK]\u3002",
    "\u4eac\u90fd\u5927\u5b66" * 9 + "[MASK]\u3092",
)
POSITIONS = 32


def config(family: str, *, spread: float = 0.3) -> BertConfig:
    return BertConfig(
        model_type=family, vocab_size=len(TOKENS), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=POSITIONS, initializer_range=spread, embedding_size=24 if family == "electra" else None,
    )  # fmt: skip


def tokenizer() -> Tokenizer:
    return Tokenizer.new(TOKENS, SegmenterSpec(kind="mecab", dictionary="ipadic"))


def write(folder: Path, family: str = "bert") -> Path:
    """A Hugging Face folder of a masked language model whose candidates differ well; ELECTRA's with its discriminator beside."""
    made = config(family)
    state = build_masked_lm(made, torch_generator(5, family)).state_dict()
    state["head.bias"] = torch.randn(len(TOKENS), generator=torch_generator(6))
    halves = {"generator" if family == "electra" else "": Part(head="mlm", config=made, state=state)}
    if family == "electra":
        other = build_discriminator(made, torch_generator(7)).state_dict()
        halves["discriminator"] = Part(head="rtd", config=made, state=other)
    for name, part in halves.items():
        write_huggingface(part, folder / name)
        tokenizer().save(folder / name, max_length=POSITIONS)
    return folder


def theirs(folder: Path, text: str, *, count: int) -> list[list[dict[str, object]]]:
    model, words = AutoModelForMaskedLM.from_pretrained(folder), BertJapaneseTokenizer.from_pretrained(folder)
    found = pipeline("fill-mask", model=model, tokenizer=words, top_k=count, device="cpu")(text)
    return found if isinstance(found[0], list) else [found]


def equal(filling: Filling | None, expected: list[list[dict[str, object]]]) -> None:
    assert filling is not None
    assert len(filling.masks) == len(expected)
    for ours, reference in zip(filling.masks, expected, strict=True):
        assert [c.id for c in ours] == [row["token"] for row in reference]
        assert [c.token for c in ours] == [row["token_str"] for row in reference]
        assert [c.score for c in ours] == pytest.approx([row["score"] for row in reference], abs=1e-5)


@pytest.mark.parametrize("family", ["bert", "electra"])
def test_candidates_equal_the_pipeline(family: str, tmp_path: Path) -> None:
    folder = write(tmp_path, family)
    filler = Predictor.load(folder, device="cpu", candidates=7)
    hub = folder / "generator" if family == "electra" else folder
    filled = list(filler.predict(TEXTS))
    for text, filling in zip(TEXTS, filled, strict=True):
        equal(filling, theirs(hub, text, count=7))
    assert next(filler.predict(["no mask", CARD])) is None
    if family == "electra":
        again = Predictor.load(hub, device="cpu", candidates=7)
        assert list(again.predict(TEXTS)) == filled, "the generator alone fills as in its pair"


def test_a_bert_with_its_head_for_pairs_fills_too(tmp_path: Path) -> None:
    write(tmp_path)
    wide = BertForPreTraining(TheirConfig.from_pretrained(tmp_path)).eval()
    wide.load_state_dict(BertForMaskedLM.from_pretrained(tmp_path).state_dict(), strict=False)
    wide.save_pretrained(tmp_path)
    (part,) = read_parts(tmp_path).values()
    assert part.head == "pretraining"
    filler = Predictor.load(tmp_path, device="cpu")
    for text, filling in zip(TEXTS, filler.predict(TEXTS), strict=True):
        equal(filling, theirs(tmp_path, text, count=5))


@pytest.mark.parametrize("family", ["roberta", "modernbert"])
def test_models_of_other_families(family: str, tmp_path: Path) -> None:
    numbers = {
        "vocab_size": len(TOKENS), "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48,
        "initializer_range": 0.3, "pad_token_id": 0, "max_position_embeddings": POSITIONS + (family == "roberta"),
    }  # fmt: skip
    torch.manual_seed(4)
    if family == "roberta":
        RobertaForMaskedLM(RobertaConfig(**numbers)).save_pretrained(tmp_path)
    else:
        special = {"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
        ModernBertForMaskedLM(ModernBertConfig(**numbers, **special)).save_pretrained(tmp_path)
    tokenizer().save(tmp_path, max_length=POSITIONS)
    filler = Predictor.load(tmp_path, device="cpu")
    for text, filling in zip(TEXTS, filler.predict(TEXTS), strict=True):
        equal(filling, theirs(tmp_path, text, count=5))


def test_order_and_batches_change_nothing(tmp_path: Path) -> None:
    (part,) = read_parts(write(tmp_path)).values()
    filler = Predictor(Filler.of(part, tokenizer(), device=torch.device("cpu")))
    alone = [next(filler.predict([text])) for text in TEXTS]
    for filling, single in zip(reversed(list(filler.predict(reversed(TEXTS)))), alone, strict=True):
        assert filling is not None
        assert single is not None
        assert [[c.id for c in mask] for mask in filling.masks] == [[c.id for c in mask] for mask in single.masks]


def test_a_long_text_is_seen_through_a_window_around_each_mask(tmp_path: Path) -> None:
    filler = Predictor.load(write(tmp_path), device="cpu")
    words = [TOKENS[5 + i % 9] for i in range(100)]
    for place in (0, 3, 50, 97, 99):
        text = " ".join([*words[:place], "[MASK]", *words[place + 1 :]])
        start = min(max(place - 15, 0), 100 - 30)
        window = [*words[start:place], "[MASK]", *words[place + 1 : start + 30]]
        assert len(window) == 30
        (whole,) = filler.predict([text])
        equal(whole, theirs(tmp_path, " ".join(window), count=5))
    both = " ".join(["[MASK]", *words[1:99], "[MASK]"])
    (found,) = filler.predict([both])
    assert found is not None
    ends = [next(filler.predict([" ".join(part)])) for part in (["[MASK]", *words[1:30]], [*words[70:99], "[MASK]"])]
    assert [[c.id for c in mask] for mask in found.masks] == [[c.id for c in end.masks[0]] for end in ends if end is not None]


def test_windows_cover_their_masks_and_never_leave_the_text() -> None:
    assert _windows([], 50, 10) == []
    assert _windows([2, 9], 10, 10) == [(0, [2, 9])]
    for place in range(50):
        ((start, (only,)),) = _windows([place], 50, 10)
        assert only == place
        assert 0 <= start <= place < start + 10 <= 50
    assert _windows([0, 1, 49], 50, 10) == [(0, [0, 1]), (40, [49])]


def test_files_of_every_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "model")
    source = tmp_path / "in.csv"
    with source.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([["id", "text"], ["a", TEXTS[2]], ["b", "\u5927\u5b66"], ["", ""], ["=c", CARD]])
    expected = {line: theirs(folder, text, count=3) for line, text in (("2", TEXTS[2]), ("5", CARD))}
    assert predict_file(folder, source, tmp_path / "out.jsonl", PredictConfig(candidates=3)) == 2
    assert "in.csv: 1 texts without [MASK] were left out" in caplog.text
    found = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [(row["line"], row["id"]) for row in found] == [(2, "a"), (5, "=c")]
    assert [[[c["id"] for c in mask] for mask in row["masks"]] for row in found] == [
        [[c["token"] for c in mask] for mask in masks] for masks in expected.values()
    ]
    for kind, delimiter in (("csv", ","), ("tsv", "\t")):
        assert predict_file(folder, source, tmp_path / f"out.{kind}", PredictConfig(candidates=3)) == 2
        table = list(csv.DictReader((tmp_path / f"out.{kind}").open(encoding="utf-8", newline=""), delimiter=delimiter))
        assert list(table[0]) == ["line", "id", "mask", "rank", "token", "token_id", "score"]
        flat = [(line, m, r, c) for line, masks in expected.items() for m, mask in enumerate(masks, 1) for r, c in enumerate(mask, 1)]
        assert [(row["line"], int(row["mask"]), int(row["rank"]), int(row["token_id"])) for row in table] == [
            (line, m, r, c["token"]) for line, m, r, c in flat
        ]
        assert [float(row["score"]) for row in table] == pytest.approx([c["score"] for *_, c in flat], abs=1e-5)
        assert all(row["token"] in (c["token_str"], f"'{c['token_str']}") for row, (*_, c) in zip(table, flat, strict=True))
        assert table[-1]["id"] == "'=c", "a spreadsheet must not run an id"


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "model")
    Path("in.txt").write_text(f"{CARD}\n{TEXTS[1]}\n", encoding="utf-8")
    Path("none.txt").write_text("\u5927\u5b66<mask>\n", encoding="utf-8")
    done = kitae("predict", folder, "in.txt", "out.jsonl", "--set", "candidates=2")
    assert (done.returncode, done.stdout) == (0, "2 texts -> out.jsonl\n")
    assert [len(json.loads(line)["masks"][0]) for line in Path("out.jsonl").read_text(encoding="utf-8").splitlines()] == [2, 2]
    assert "candidates (= 5)" in kitae("show", "predict").stdout
    for arguments, expected in (
        ((folder, "none.txt", "no.csv"), "no text of none.txt holds [MASK]: write [MASK] where the model shall find a word"),
        ((folder, "in.txt", "no.csv", "--set", "candidates=0"), "candidates: Input should be greater than or equal to 1"),
        ((folder, "in.txt", "no.csv", "--set", "candidates=22"), "candidates = 22, but the model knows 21 tokens"),
        ((folder, "in.txt", "no.csv", "--set", "candidate=2"), 'did you mean "candidates"'),
    ):
        done = kitae("predict", *arguments)
        assert done.returncode == 2
        assert expected in done.stderr
        assert done.stderr.count("\n") <= 2
        assert not list(tmp_path.glob("*no.csv*"))


def test_what_cannot_fill_is_refused(tmp_path: Path) -> None:
    pair = write(tmp_path / "pair", "electra")
    with pytest.raises(KitaeError, match="holds no classifier and no masked language model, but: ELECTRA discriminator"):
        Predictor.load(pair / "discriminator", device="cpu")
    folder = write(tmp_path / "model")
    Tokenizer.new((*TOKENS, "new"), SegmenterSpec(kind="mecab", dictionary="ipadic")).save(folder)
    with pytest.raises(KitaeError, match="the tokenizer has 22 tokens, the encoder 21"):
        Predictor.load(folder, device="cpu")


def test_rows_of_the_table_without_a_token_have_no_text(tmp_path: Path) -> None:
    (part,) = read_parts(write(tmp_path)).values()
    fewer = Tokenizer(Definition(tokens=TOKENS[:-2], spec=SegmenterSpec(kind="whitespace")))
    filler = Predictor(Filler.of(replace(part), fewer, device=torch.device("cpu"), candidates=len(TOKENS)))
    (found,) = filler.predict(["[MASK]"])
    assert found is not None
    assert {c.id: c.token for c in found.masks[0]} == dict(enumerate((*TOKENS[:-2], "", "")))
    assert sum(c.score for c in found.masks[0]) == pytest.approx(1, abs=1e-5)


RECIPE = (
    TEXT.replace("vocab_size = 2000\nlimit_alphabet = 600", "vocab_size = 120")
    + """[pretrain]
model = "bert-tiny"
objective = "mlm"
initialization = "informed"
train = { length = "150 steps", batch = "8 rows", learning_rate = 3e-3, save_every = "150 steps", evaluate_every = "150 steps" }
[export]
formats = ["huggingface"]
"""
)


def test_a_model_trained_here_fills_the_mask_of_the_model_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raw text to a masked language model by the real chain, then the card's sentence through run folder, export and transformers."""
    monkeypatch.chdir(tmp_path)
    places, fields = ("\u4eac\u90fd", "\u5927\u962a", "\u6771\u4eac"), ("\u81ea\u7136\u8a00\u8a9e", "\u753b\u50cf", "\u4fe1\u53f7")
    lines = [f"{p}\u5927\u5b66\u3067{f}\u51e6\u7406\u3092\u7814\u7a76\u3059\u308b\u3002" for p in places for f in fields]
    lines += [f"{p}\u3067\u82f1\u8a9e\u306e\u672c\u3092\u8aad\u3080\u3002" for p in places]
    draw = numpy_generator(1, "documents")
    documents = ["\n".join(lines[i] for i in draw.permutation(len(lines))[:5]) for _ in range(80)]
    Path("general.txt").write_text("\n\n".join(documents), encoding="utf-8")
    Path("r.toml").write_text(RECIPE, encoding="utf-8")
    Path("card.txt").write_text(CARD + "\n", encoding="utf-8")
    done = kitae("run", "r.toml")
    assert done.returncode == 0, done.stderr
    found = {}
    for name, folder in (("run", "run/pretrain"), ("export", "run/export/pretrain")):
        assert kitae("predict", folder, "card.txt", f"{name}.jsonl").returncode == 0
        found[name] = json.loads(Path(f"{name}.jsonl").read_text(encoding="utf-8"))["masks"][0]
    assert found["run"][0]["token"] == "\u7814\u7a76"
    assert found["run"][0]["score"] > 0.5
    assert found["run"] == found["export"]
    reference = theirs(Path("run/export/pretrain"), CARD, count=5)[0]
    assert [c["id"] for c in found["run"]] == [row["token"] for row in reference]
    assert [c["score"] for c in found["run"]] == pytest.approx([row["score"] for row in reference], abs=1e-5)
    shutil.copytree(newest(Path("run/pretrain")), "checkpoint")
    assert kitae("predict", "checkpoint", "card.txt", "checkpoint.jsonl").returncode == 0
    assert Path("checkpoint.jsonl").read_bytes() == Path("run.jsonl").read_bytes()
