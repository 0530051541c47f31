"""Masks: exactly the asked rate, without replacement, never special tokens, whole words whole, exact shares of replacements."""

from itertools import groupby

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import SPECIAL, VOCAB, batch
from scipy.stats import chisquare

from kitae.objectives.masking import Masker, Shares, Unit
from kitae.objectives.mlm import MaskingConfig
from kitae.tensor.random import numpy_generator

UNITS: tuple[Unit, ...] = ("token", "word", "span", "ngram")
ROWS = st.lists(st.lists(st.integers(1, 12), max_size=3), min_size=1, max_size=6)


def masker(rate: float = 0.15, unit: Unit = "token", replacement: Shares = (0.8, 0.1, 0.1)) -> Masker:
    return MaskingConfig(rate=rate, unit=unit, replacement=replacement).masker(special=SPECIAL, vocab_size=VOCAB)


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, rate=st.floats(0.01, 1.0), seed=st.integers(0, 1000))
def test_tokens_are_masked_at_exactly_the_rate(rows: list[list[int]], rate: float, seed: int) -> None:
    plain = batch(rows, length=48, seed=seed)
    masked = masker(rate)(plain, np.random.default_rng(seed))
    picks = masked.targets["picks"]
    candidates = sum(map(sum, rows))
    assert len(picks) == int(rate * candidates + 0.5)
    assert len(picks.unique()) == len(picks)
    assert (plain.words_BL.view(-1)[picks] >= 0).all(), "a special token or padding is masked"
    assert masked.targets["labels"].equal(plain.ids_BL.view(-1)[picks])
    untouched = torch.ones(plain.ids_BL.numel(), dtype=torch.bool)
    untouched[picks] = False
    assert masked.ids_BL.view(-1)[untouched].equal(plain.ids_BL.view(-1)[untouched])
    for row, sizes in enumerate(rows):
        assert abs(((picks // 48) == row).sum().item() - rate * sum(sizes)) <= 1, "every row has its share"


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, rate=st.floats(0.05, 0.9), seed=st.integers(0, 1000), longest=st.integers(1, 4))
def test_words_are_masked_whole_and_near_the_rate(rows: list[list[int]], rate: float, seed: int, longest: int) -> None:
    plain = batch(rows, length=48, seed=seed, word=longest)
    masked = masker(rate, "word")(plain, np.random.default_rng(seed))
    picks = set(masked.targets["picks"].tolist())
    words = plain.words_BL.view(-1).tolist()
    for (row, word), positions in groupby(range(len(words)), key=lambda at: (at // 48, words[at])):
        inside = [at in picks for at in positions]
        assert not any(inside) if word < 0 else len(set(inside)) == 1, (row, word)
    candidates = sum(map(sum, rows))
    assert abs(len(picks) - rate * candidates) < longest + 1e-9, "nearer than one word"


def test_rows_of_single_tokens_have_exactly_their_share() -> None:
    for unit in ("token", "word"):
        picks = masker(0.2, unit)(batch([[20], [15], [30]], length=32, word=1), np.random.default_rng(1)).targets["picks"]
        assert np.bincount(picks // 32).tolist() == [4, 3, 6]


def test_every_position_is_equally_likely() -> None:
    plain = batch([[20, 9], [31]], length=40)
    hits = np.zeros(80)
    for draw in range(4000):
        hits[masker(0.2)(plain, np.random.default_rng(draw)).targets["picks"].numpy()] += 1
    candidates = plain.words_BL.view(-1).numpy() >= 0
    assert hits[~candidates].sum() == 0
    assert chisquare(hits[candidates][:29]).pvalue > 1e-4
    assert chisquare(hits[candidates][29:]).pvalue > 1e-4


@pytest.mark.parametrize("shares", [(0.8, 0.1, 0.1), (0.85, 0.0, 0.15), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)])
def test_replacements_have_exact_shares(shares: Shares) -> None:
    plain = batch([[46] for _ in range(40)], length=48)
    masked = masker(0.5, replacement=shares)(plain, np.random.default_rng(1))
    seen, labels = masked.ids_BL.view(-1)[masked.targets["picks"]], masked.targets["labels"]
    count = len(labels)
    assert (seen == SPECIAL.mask).sum() == int(shares[0] * count + 0.5)
    other = (seen != SPECIAL.mask) & (seen != labels)
    expected = int((shares[0] + shares[1]) * count + 0.5) - int(shares[0] * count + 0.5)
    assert expected - 0.08 * max(expected, 1) <= other.sum() <= expected, "a random token may be the right one by chance"
    assert not np.isin(seen[other].numpy(), [0, 1, 2, 3, 4]).any()


def test_random_replacements_are_uniform() -> None:
    plain = batch([[46] for _ in range(40)], length=48)
    counts = np.zeros(VOCAB)
    for draw in range(30):
        masked = masker(0.5, replacement=(0.0, 1.0, 0.0))(plain, np.random.default_rng(draw))
        counts += np.bincount(masked.ids_BL.view(-1)[masked.targets["picks"]].numpy(), minlength=VOCAB)
    assert counts[:5].sum() == 0
    assert chisquare(counts[5:]).pvalue > 1e-4


def test_masks_are_a_function_of_the_generator() -> None:
    plain = batch([[20, 9], [31]], length=40)
    for unit in UNITS:
        first, again, other = (masker(unit=unit)(plain, numpy_generator(1, "mask", step, 0)) for step in (5, 5, 6))
        assert first.ids_BL.equal(again.ids_BL)
        assert first.targets["picks"].equal(again.targets["picks"])
        assert not first.targets["picks"].equal(other.targets["picks"])


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_to_mask_and_everything_masked(unit: Unit) -> None:
    empty = masker(unit=unit)(batch([[], []], length=16), np.random.default_rng(1))
    assert len(empty.targets["picks"]) == 0
    full = masker(1.0, unit)(batch([[5, 3], [7]], length=16), np.random.default_rng(1))
    assert len(full.targets["picks"]) == 15


@pytest.mark.parametrize("unit", UNITS)
def test_unknown_tokens_are_not_predicted(unit: Unit) -> None:
    plain = batch([[30]], length=32)
    plain.ids_BL[0, 3:20] = SPECIAL.unk
    full = masker(1.0, unit)(plain, np.random.default_rng(1))
    assert full.targets["picks"].tolist() == [1, 2, *range(20, 31)]
    assert (full.ids_BL[0, 3:20] == SPECIAL.unk).all()
