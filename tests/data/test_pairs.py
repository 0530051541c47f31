"""Pairs in batches: labels, segments and positions agree with the texts; partners change with the visit, first segments stay."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from planted import SPECIAL, Document, describe, in_sentences, write

from kitae.data.pairs import PairConfig, Partners
from kitae.data.plan import Plan
from kitae.data.sampler import Heldout, Sampler
from kitae.data.shards import Shards
from kitae.models.bert import BertConfig, BertEncoder
from kitae.objectives.masking import Masker
from kitae.tensor.batch import Batch, Texts
from kitae.tensor.random import numpy_generator
from kitae.tokenization.special import SpecialIds

VOCAB = 60_000
LENGTH = 128


def natural(count: int, seed: int) -> list[Document]:
    """Documents of sentences whose tokens all have ids of their own."""
    random = np.random.default_rng(seed)
    return in_sentences([random.lognormal(3.0, 0.5, random.integers(1, 30)).astype(int).clip(1, 90).tolist() for _ in range(count)])


@pytest.fixture(scope="module")
def documents() -> list[Document]:
    made = natural(120, 1)
    assert made[-1][-1][-1][-1] < VOCAB
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, documents: list[Document]) -> Path:
    """A dataset of pairs of two sources (the first half of the documents, and the others), without dataset.json."""
    made = tmp_path_factory.mktemp("pairs")
    sources = [int(number >= len(documents) // 2) for number in range(len(documents))]
    write(made / "train", documents, max_length=LENGTH, vocab_size=VOCAB, packing="pairs", sources=sources)
    write(made / "heldout/0", natural(20, 2), max_length=LENGTH, vocab_size=VOCAB, packing="pairs")
    write(made / "heldout/1", documents[:1], max_length=LENGTH, vocab_size=VOCAB, packing="pairs", sources=[1])
    return made


def sampler(folder: Path, *, seed: int = 1, rows: int = 8, micro: int = 8, **pairs: object) -> Sampler:
    describe(folder, max_length=LENGTH, vocab_size=VOCAB, sources=("a", "b"), packing="pairs", pairs=pairs)
    return Sampler(folder, rows_per_step=rows, rows_per_micro_batch=micro, seed=seed)


@dataclass(frozen=True)
class Pair:
    """What a batch shows of one piece."""

    row: int
    a: list[int]
    b: list[int]
    label: int | None


def shown(batch: Batch) -> Iterator[Pair]:
    """The pieces of a batch, from ids, segments and targets, after checking that all of these agree."""
    assert batch.segments_BL is not None
    places = batch.targets["pairs"].tolist()
    labels = dict(zip(places, batch.targets["pair_labels"].tolist(), strict=True))
    assert places == sorted(places)
    assert (batch.segments_BL[~batch.layout.mask_BL] == 0).all()
    for row, start, end in batch.layout.spans():
        ids, segments, words = (each[row, start:end].tolist() for each in (batch.ids_BL, batch.segments_BL, batch.words_BL))
        assert batch.layout.positions_BL[row, start:end].tolist() == list(range(end - start))
        middle = ids.index(SPECIAL["sep"])
        assert (ids[0], ids[-1]) == (SPECIAL["cls"], SPECIAL["sep"])
        assert ids.count(SPECIAL["sep"]) == (2 if middle < len(ids) - 1 else 1)
        assert segments == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
        assert [place for place, word in enumerate(words) if word < 0] == sorted({0, middle, len(ids) - 1})
        label = labels.pop(row * batch.ids_BL.shape[1] + start, None)
        assert (label is None) == (middle == len(ids) - 1), "every pair has a label, a single segment has none"
        yield Pair(int(batch.rows[row]), ids[1:middle], ids[middle + 1 : -1], label)
    assert not labels, "a label stands where no pair begins"


def all_pairs(made: Sampler, epoch: int = 0) -> list[Pair]:
    """Every pair of one pass. The sampler takes one row a step."""
    steps = range(epoch * made.rows_per_epoch, (epoch + 1) * made.rows_per_epoch)
    return [pair for step in steps for pair in shown(made.micro(step, 0))]


def places(documents: list[Document]) -> dict[int, tuple[int, int]]:
    """token id -> (document, sentence)."""
    return {
        token: (number, place)
        for number, document in enumerate(documents)
        for place, sentence in enumerate(document)
        for word in sentence
        for token in word
    }


def test_labels_can_be_computed_from_the_texts(folder: Path, documents: list[Document]) -> None:
    where = places(documents)
    edges = {token for document in documents for sentence in document for token in (sentence[0][0], sentence[-1][-1])}
    for next_label in (0, 1):
        found = all_pairs(sampler(folder, rows=1, micro=1, next_label=next_label))
        pairs = [pair for pair in found if pair.label is not None]
        for pair in pairs:
            follows = pair.b[0] == pair.a[-1] + 1
            assert pair.label == (next_label if follows else 1 - next_label)
            assert pair.a == list(range(pair.a[0], pair.a[-1] + 1))
            assert pair.b == list(range(pair.b[0], pair.b[-1] + 1))
            if not follows:
                (one, _), (other, _) = where[pair.a[0]], where[pair.b[0]]
                assert one != other, "a random next comes from another document"
                assert (one < len(documents) // 2) == (other < len(documents) // 2), "of the same source"
            # ends of a segment do not give the label away: both kinds begin and end with a sentence
            assert {pair.a[0], pair.a[-1], pair.b[0]} <= edges
        cut = [pair for pair in pairs if pair.b[-1] not in edges]
        assert len(cut) <= 0.015 * len(pairs), "where B is a very short sentence, of which there is no other"
        share = sum(pair.label != next_label for pair in pairs) / len(pairs)
        assert 0.42 < share < 0.58
        negatives, positives = ([len(p.b) for p in pairs if (p.label == next_label) is true] for true in (False, True))
        assert np.mean(negatives) > 0.9 * np.mean(positives), "nor does their length"


def test_first_segments_are_fixed_and_partners_drawn_anew(folder: Path) -> None:
    made = sampler(folder, rows=1, micro=1)
    passes = [sorted(all_pairs(made, epoch), key=lambda pair: pair.a[0]) for epoch in range(3)]
    assert [pair.a for pair in passes[0]] == [pair.a for pair in passes[1]] == [pair.a for pair in passes[2]]
    paired = [trio for trio in zip(*passes, strict=True) if trio[0].label is not None]
    labels = np.array([[pair.label for pair in trio] for trio in paired])
    assert 0.4 < (labels[:, 0] != labels[:, 1]).mean() < 0.6, "labels of one pass say nothing of another's"
    negative = [trio for trio in paired if trio[0].label == trio[1].label == 1]
    assert sum(trio[0].b[0] != trio[1].b[0] for trio in negative) > 0.95 * len(negative)
    true = [trio for trio in paired if trio[0].label == trio[2].label == 0]
    assert all(trio[0].b == trio[2].b for trio in true)


def test_every_token_stands_in_a_true_pair_or_alone(folder: Path, documents: list[Document]) -> None:
    found = all_pairs(sampler(folder, rows=1, micro=1, negative=0))
    assert {pair.label for pair in found} == {0, None}
    tokens = sorted(token for pair in found for token in (*pair.a, *pair.b))
    assert tokens == list(range(10, documents[-1][-1][-1][-1] + 1))


def test_swapped_pairs_of_sentence_order_lose_nothing(folder: Path, documents: list[Document]) -> None:
    found = all_pairs(sampler(folder, rows=1, micro=1, task="sop"))
    pairs = [pair for pair in found if pair.label is not None]
    for pair in pairs:
        assert (pair.b[0] == pair.a[-1] + 1) is (pair.label == 0)
        assert (pair.a[0] == pair.b[-1] + 1) is (pair.label == 1)
    assert 0.42 < sum(pair.label == 1 for pair in pairs) / len(pairs) < 0.58
    assert sorted(token for pair in found for token in (*pair.a, *pair.b)) == list(range(10, documents[-1][-1][-1][-1] + 1))


def test_rows_stay_full_with_random_partners(folder: Path) -> None:
    made = sampler(folder, rows=1, micro=1)
    assert Plan(folder / "train/plan").fill >= 0.97
    real = sum(made.micro(step, 0).num_tokens for step in range(made.rows_per_epoch))
    assert real >= 0.96 * made.rows_per_epoch * LENGTH


def test_pairs_are_a_pure_function_of_seed_step_and_micro_batch(folder: Path) -> None:
    whole, parts = sampler(folder, rows=16, micro=16), sampler(folder, rows=16, micro=4)
    for step in (0, 9, 1_000_000):
        one, some = whole.micro(step, 0), [parts.micro(step, number) for number in range(4)]
        assert torch.cat([batch.ids_BL for batch in some]).equal(one.ids_BL)
        assert one.segments_BL is not None
        assert torch.cat([batch.segments_BL for batch in some if batch.segments_BL is not None]).equal(one.segments_BL)
        shifted = [batch.targets["pairs"] + number * 4 * LENGTH for number, batch in enumerate(some)]
        assert torch.cat(shifted).equal(one.targets["pairs"])
        assert torch.cat([batch.targets["pair_labels"] for batch in some]).equal(one.targets["pair_labels"])
    first = sampler(folder, rows=1, micro=1)
    labels = {pair.a[0]: pair.label for pair in all_pairs(first)}
    others = {pair.a[0]: pair.label for pair in all_pairs(sampler(folder, seed=2, rows=1, micro=1))}
    assert labels.keys() == others.keys()
    assert labels != others


def test_heldout_pairs_are_always_the_same_and_one_document_has_only_true_ones(folder: Path) -> None:
    sampler(folder)
    for one, two in zip(Heldout(folder, "a", 4), Heldout(folder, "a", 4), strict=True):
        assert one.ids_BL.equal(two.ids_BL)
        assert one.targets["pair_labels"].equal(two.targets["pair_labels"])
    labels = [pair.label for batch in Heldout(folder, "a", 4) for pair in shown(batch)]
    assert {0, 1} <= set(labels)
    assert {pair.label for batch in Heldout(folder, "b", 4) for pair in shown(batch)} <= {0, None}


def test_text_without_any_pair_gives_batches_without_labels(tmp_path: Path) -> None:
    singles = in_sentences([[20]] * 9)
    write(tmp_path / "train", natural(4, 3), max_length=LENGTH, vocab_size=VOCAB, packing="pairs")
    write(tmp_path / "heldout/0", singles, max_length=LENGTH, vocab_size=VOCAB, packing="pairs")
    describe(tmp_path, max_length=LENGTH, vocab_size=VOCAB, packing="pairs", pairs={})
    batches = list(Heldout(tmp_path, "a", 2))
    pairs = [pair for batch in batches for pair in shown(batch)]
    assert [pair.label for pair in pairs] == [None] * 9
    assert sorted(pair.a for pair in pairs) == [list(document[0][0]) for document in singles]


@pytest.mark.parametrize("others", [1, 4])
def test_a_document_that_is_most_of_its_source_gets_its_share_of_random_seconds(tmp_path: Path, others: int) -> None:
    documents = in_sentences([[12, 9] * 900, *([[11, 10, 12]] * others)])
    write(tmp_path / "train", documents, max_length=64, vocab_size=VOCAB, packing="pairs")
    describe(tmp_path, max_length=64, vocab_size=VOCAB, packing="pairs", pairs={})
    pairs = [pair for pair in all_pairs(Sampler(tmp_path, rows_per_step=1, rows_per_micro_batch=1, seed=1)) if pair.label is not None]
    negatives = [pair for pair in pairs if pair.label == 1]
    assert 0.45 < len(negatives) / len(pairs) < 0.55
    border = documents[1][0][0][0]
    assert all((pair.a[0] < border) != (pair.b[0] < border) for pair in negatives if pair.a[0] < border)
    if others > 1:
        assert len({pair.b[0] for pair in negatives}) >= others, "more than one of the others is drawn"
    shards, plan = Shards(tmp_path / "train"), Plan(tmp_path / "train/plan")
    (share,) = Partners(shards, plan, PairConfig(negative=0.3), seed=1).shares()
    assert share == pytest.approx(0.3, abs=0.05)


def test_shares_by_source_show_that_a_single_document_has_only_true_pairs(tmp_path: Path) -> None:
    write(tmp_path, natural(40, 4), max_length=LENGTH, vocab_size=VOCAB, packing="pairs", sources=[0] * 39 + [1])
    many, one = Partners(Shards(tmp_path), Plan(tmp_path / "plan"), PairConfig(), seed=1).shares()
    assert many == pytest.approx(0.5, abs=0.1)
    assert one == 0


def test_masks_leave_the_targets_of_pairs_and_no_pair_sees_its_neighbor(folder: Path) -> None:
    batch = sampler(folder).micro(0, 0)
    special = SpecialIds(**SPECIAL)
    masked = Masker(rate=0.15, replacement=(0.8, 0.1, 0.1), special=special, vocab_size=VOCAB)(batch, numpy_generator(1))
    assert masked.targets["pairs"].equal(batch.targets["pairs"])
    assert masked.targets["pair_labels"].equal(batch.targets["pair_labels"])
    torch.manual_seed(1)
    config = BertConfig(vocab_size=VOCAB, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    encoder = BertEncoder(config).eval()
    row, start, end = next(span for span in batch.layout.spans() if span[1] > 0)
    changed = batch.ids_BL.clone()
    changed[row, start + 1] = 11
    with torch.no_grad():
        before, after = (encoder(Texts(ids, batch.layout, batch.segments_BL)) for ids in (batch.ids_BL, changed))
        flat = encoder(Texts(batch.ids_BL, batch.layout, torch.zeros_like(batch.ids_BL)))
    same = (before == after).all(dim=2)
    assert not same[row, start:end].all()
    same[row, start:end] = True
    assert same[batch.layout.mask_BL].all()
    assert not before.equal(flat), "segments reach the encoder"
    moved = batch.to("meta")
    assert moved.segments_BL is not None
    assert moved.targets["pairs"].device.type == "meta"
