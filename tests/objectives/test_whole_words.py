"""Whole words for every kind of tokenizer: from text through token shards and packing to masks, the words of the text come out whole."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sentencepiece

from kitae.data import plan
from kitae.data.sampler import DATASET, DatasetFacts, Sampler
from kitae.data.shards import Shards, ShardWriter
from kitae.data.together import tokens_of_documents
from kitae.objectives.mlm import MaskingConfig
from kitae.tensor.random import numpy_generator
from kitae.tokenization.segmenter import words_of
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.vocabulary import VocabularyOptions
from tokenizer_kinds import KINDS as ALL
from tokenizer_kinds import WORDPIECE, train

KINDS = {name: kind for name, kind in (WORDPIECE | ALL).items() if name != "bpe-words"}
JAPANESE = ("東京都に住んでいる学生たちは新しい図書館へ行きました", "自然言語処理の研究会が大阪大学で開催されました")


def sentences(japanese: bool) -> list[str]:
    if japanese:
        return [text for text in JAPANESE for _ in range(15)]
    random = np.random.default_rng(1)
    words = ["".join(random.choice(list("abcdefghij"), random.integers(2, 10))) for _ in range(300)]
    return [" ".join(random.choice(words, 6)) for _ in range(300)]


def lines_of(path: Path) -> Iterator[str]:
    yield from path.read_text(encoding="utf-8").splitlines()


def trained(name: str, folder: Path) -> Tokenizer:
    """So small a vocabulary that nearly every word has several tokens."""
    (folder / "text.txt").write_text("\n".join(sentences(name.endswith("-words"))), encoding="utf-8")
    size = {"byte-bpe": 300, "wordpiece-words": 63}.get(name, 50 if name.endswith("-words") else 60)
    return train(name, [folder / "text.txt"], lines_of, VocabularyOptions(vocab_size=size, num_unused=0), sample=100_000)


def said(tokenizer: Tokenizer, ids: list[int]) -> str:
    """The text of one word's tokens."""
    return tokenizer.decode(ids).replace(" ", "")


def dataset(tokenizer: Tokenizer, texts: list[str], folder: Path) -> Sampler:
    with ShardWriter(folder / "train", vocab_size=tokenizer.vocab_size) as writer:
        for some in tokens_of_documents(tokenizer, ((0, text) for text in texts)):
            writer.extend(some.tokens, sentences=some.sentences, sources=some.sources)
    plan.build(Shards(folder / "train"), max_length=96, folder=folder / "train/plan")
    facts = DatasetFacts(
        max_length=96,
        packing="documents",
        vocab_size=tokenizer.vocab_size,
        dtype="<u2",
        special={name: getattr(tokenizer.special, name) for name in ("cls", "sep", "mask", "pad", "unk")},
        tokenizer=tokenizer.fingerprint,
        sources=("a",),
    )
    (folder / DATASET).write_text(facts.model_dump_json())
    return Sampler(folder, rows_per_step=8, rows_per_micro_batch=8, seed=1)


@pytest.mark.parametrize("name", KINDS)
def test_the_words_of_the_text_are_masked_whole(name: str, tmp_path: Path) -> None:
    tokenizer, texts = trained(name, tmp_path), sentences(name.endswith("-words"))
    cut = words_of(tokenizer.definition.spec) if name.endswith("-words") else str.split
    known = {word for text in texts for word in cut(text)}
    batch = dataset(tokenizer, texts, tmp_path).micro(0, 0)
    masked = MaskingConfig(unit="word", rate=0.3, replacement=(1, 0, 0)).masker(special=tokenizer.special, vocab_size=tokenizer.vocab_size)(
        batch, numpy_generator(1)
    )
    hidden = masked.ids_BL.view(-1) == tokenizer.special.mask
    assert hidden.nonzero().view(-1).equal(masked.targets["picks"])
    words, found, several, whole = batch.words_BL, 0, 0, 0
    for row, start, end in batch.layout.spans():
        numbers = words[row, start + 1 : end - 1].tolist()
        assert numbers[0] >= 0
        for number in sorted(set(numbers)):
            places = (words[row] == number).nonzero().view(-1)
            assert places.tolist() == list(range(int(places[0]), int(places[-1]) + 1))
            shown = hidden.view_as(words)[row, places]
            assert shown.all() or not shown.any(), "a word is masked as a whole or not at all"
            at_edge = number in (numbers[0], numbers[-1])  # where packing may have cut a word
            found += 1
            several += len(places) > 1
            assert at_edge or said(tokenizer, batch.ids_BL[row, places].tolist()) in known
            whole += bool(shown.all())
    assert several > (0.3 if name.endswith("-words") else 0.7) * found
    assert 0.2 < whole / found < 0.4


def test_the_bytes_of_a_character_without_a_piece_are_one_word(tmp_path: Path) -> None:
    """What SentencePiece falls back to in public Japanese models; a vocabulary trained here has unknown tokens instead."""
    names = {"pad_piece": "[PAD]", "unk_piece": "[UNK]", "pad_id": 3, "user_defined_symbols": ["[CLS]", "[SEP]", "[MASK]"]}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*sentences(False), *sentences(True)]), model_prefix=str(tmp_path / "spiece"), vocab_size=500,
        byte_fallback=True, hard_vocab_limit=False, minloglevel=2, **names,
    )  # fmt: skip
    tokenizer = Tokenizer.load(tmp_path / "spiece.model")
    shown = [[tokenizer.tokens[number] for number in word] for word in tokenizer.words("\u9b31\u75c5")]
    assert shown[-2:] == [["<0xE9>", "<0xAC>", "<0xB1>"], ["<0xE7>", "<0x97>", "<0x85>"]]
