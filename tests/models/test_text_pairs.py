"""Pairs of texts are read as transformers reads them: ids, segments, what is cut off; and models of pairs say the same numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from model_pairs import Pair, make
from tokenizers import ByteLevelBPETokenizer
from transformers import AutoTokenizer, BertJapaneseTokenizer

from kitae.models.folder import load
from kitae.tasks.batches import predict
from kitae.tasks.encoded import encode
from kitae.tasks.examples import Example
from kitae.tasks.kinds import KINDS
from kitae.tokenization.tokenizer import Tokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
ENGLISH = ("The", "cats", "don't", "sit", "on", "25.5", "mats,", "unbelievably", "(so)", "they", "say", "naïve", "!")
JAPANESE = ("吾輩は猫である", "名前はまだ無い", "東京都", "、", "どこで生れたか", "とんと見当がつかぬ", "。", "25%")


def bert(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_bytes((GOLDEN / "vocab_english.txt").read_bytes())
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')


def roberta(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    made = ByteLevelBPETokenizer()
    made.train_from_iterator([" ".join(ENGLISH)] * 5, vocab_size=330, special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    made.save_model(str(folder))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "RobertaTokenizer"}')


def japanese(folder: Path) -> None:
    made = BertJapaneseTokenizer(str(GOLDEN / "vocab_japanese.txt"), word_tokenizer_type="mecab", mecab_kwargs={"mecab_dic": "ipadic"})
    made.save_pretrained(folder)


def drawn(words: Sequence[str], generator: np.random.Generator) -> str:
    return " ".join(generator.choice(words, size=generator.integers(0, 16)))


@pytest.mark.parametrize(("write", "words"), [(bert, ENGLISH), (roberta, ENGLISH), (japanese, JAPANESE)])
def test_pairs_are_encoded_and_cut_as_by_transformers(write: Callable[[Path], None], words: Sequence[str], tmp_path: Path) -> None:
    write(tmp_path)
    ours, theirs = Tokenizer.load(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    generator = np.random.default_rng(5)
    cut = 0
    for _ in range(300):
        first, second = drawn(words, generator), drawn(words, generator)
        length = int(generator.integers(6, 60))
        found = encode(ours, first, max_length=length, second=second)
        wanted = theirs([first], [second], truncation="longest_first", max_length=length, return_token_type_ids=True)
        assert found.ids.tolist() == wanted["input_ids"][0], (first, second, length)
        assert found.segments is not None
        if write is not roberta:  # whose models have no segments
            assert found.segments.tolist() == wanted["token_type_ids"][0]
        cut += len(found.ids) == length
    assert 100 < cut < 290


FAMILIES = {"bert": bert, "electra": bert, "deberta-v2": bert, "modernbert": bert, "roberta": roberta}


def both(family: str, head: str, folder: Path, labels: int) -> tuple[Pair, Tokenizer, Any]:
    """A tiny random model for a tokenizer, ours and theirs of each."""
    FAMILIES[family](folder / "tokenizer")
    ours, theirs = Tokenizer.load(folder / "tokenizer"), AutoTokenizer.from_pretrained(folder / "tokenizer")
    return make(family, head, folder / "model", labels=labels, vocab_size=ours.vocab_size, pad_token_id=ours.special.pad), ours, theirs


def examples(count: int, choices: int) -> list[Example]:
    generator = np.random.default_rng(7)
    return [
        Example(
            id=str(i),
            text=drawn(ENGLISH, generator),
            second=None if choices else drawn(ENGLISH, generator),
            choices=tuple(drawn(ENGLISH, generator) for _ in range(choices)),
            gold=None,
            where="here",
        )
        for i in range(count)
    ]


def our_logits(name: str, pair: Pair, tokenizer: Tokenizer, asked: Sequence[Example]) -> torch.Tensor:
    kind = KINDS[name]
    options = kind.options()
    learner = kind.learner(load(pair.part), pair.part.labels, options, ()).eval()
    features = [kind.features(one, tokenizer, pair.part.labels, options, max_length=32, learn=False)[0] for one in asked]
    return torch.from_numpy(np.stack(predict(learner, features, tokens=200, pad=tokenizer.special.pad, device=torch.device("cpu"))))


def inputs(theirs: Any, firsts: list[str], seconds: list[str], pair: Pair) -> dict[str, torch.Tensor]:
    made = theirs(firsts, seconds, truncation="longest_first", max_length=32, padding=True, return_tensors="pt", return_token_type_ids=True)
    return {name: tensor for name, tensor in made.items() if name != "token_type_ids" or pair.part.config.segment_kinds > 1}


@pytest.mark.parametrize(("name", "labels"), [("classification", 3), ("regression", 1)])
@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_pairs_say_the_same_as_transformers(family: str, name: str, labels: int, tmp_path: Path) -> None:
    pair, ours, theirs = both(family, "sequence", tmp_path, labels)
    asked = examples(12, 0)
    with torch.no_grad():
        wanted = pair.theirs(**inputs(theirs, [one.text for one in asked], [one.second or "" for one in asked], pair)).logits
    torch.testing.assert_close(our_logits(name, pair, ours, asked), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_choices_say_the_same_as_transformers(family: str, tmp_path: Path) -> None:
    pair, ours, theirs = both(family, "choice", tmp_path, 3)
    asked = examples(5, 4)
    made = inputs(theirs, [one.text for one in asked for _ in range(4)], [choice for one in asked for choice in one.choices], pair)
    with torch.no_grad():
        wanted = pair.theirs(**{key: tensor.view(5, 4, -1) for key, tensor in made.items()}).logits
    torch.testing.assert_close(our_logits("choice", pair, ours, asked), wanted, rtol=1e-5, atol=1e-5)
