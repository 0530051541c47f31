"""Runs of whole words: worked by hand, lengths that follow their shares, every position equally often, never past a special token."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from rows import SPECIAL, VOCAB, batch

from kitae.objectives.masking import Masker, Unit
from kitae.objectives.mlm import LONGEST, MaskingConfig
from kitae.objectives.spans import Words, choose_runs, cut_into_runs, geometric_shares, harmonic_shares
from kitae.tensor.batch import Batch

ROWS = st.lists(st.lists(st.integers(1, 12), max_size=3), min_size=1, max_size=6)


def masker(**settings: object) -> Masker:
    return MaskingConfig.model_validate(settings).masker(special=SPECIAL, vocab_size=VOCAB)


def words_of(batch: Batch) -> Words:
    words = batch.words_BL.numpy().reshape(-1)
    return Words.of(np.nonzero(words >= 0)[0], words, batch.ids_BL.shape[1])


def test_shares_worked_by_hand() -> None:
    assert harmonic_shares(3) == pytest.approx([6 / 11, 3 / 11, 2 / 11])
    assert geometric_shares(0.5, 3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    assert geometric_shares(0.2, 10) @ np.arange(1, 11) == pytest.approx(3.797, abs=1e-3), "3.8 words, as the paper says"


class Scripted:
    """Gives these numbers instead of random ones."""

    def __init__(self, *numbers: list[float]) -> None:
        self.numbers = list(numbers)

    def random(self, count: int) -> np.ndarray:
        found = self.numbers.pop(0)
        assert len(found) == count
        return np.array(found)


def test_runs_and_choices_worked_by_hand() -> None:
    """Two rows: [CLS] a aa b [SEP] [CLS] c d [SEP] and [CLS] e f ff g [SEP]; a run has 1 word below 0.5 and 2 from there on."""
    words = torch.tensor([[-1, 0, 0, 1, -1, -1, 2, 3, -1], [-1, 0, 1, 1, 2, -1, -1, -1, -1]], dtype=torch.int32).view(-1).numpy()
    found = Words.of(np.nonzero(words >= 0)[0], words, 9)
    assert found.sizes_W.tolist() == [2, 1, 1, 1, 1, 2, 1]
    assert found.rows_W.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert found.opens_W.tolist() == [True, False, True, False, True, False, False]
    # a draws 1; b draws 2, and the piece ends; c draws 2; d stands in that run; e draws 2; g draws 1
    lengths = Scripted([0.1, 0.9, 0.9, 0.1, 0.9, 0.1, 0.1])
    run_W = cut_into_runs(found, np.array([0.5, 0.5]), lengths)  # type: ignore[arg-type]
    assert run_W.tolist() == [0, 1, 2, 2, 3, 3, 4]
    # The first row has 5 tokens, of which 10/3 are wanted; in the order cd, a, b, turned by half of them, cd begins at 2.5, a at 4.5 and
    # b at 6.5 - 5. So cd and b are chosen, 3 tokens. In all 6 of 9 are wanted: 3 in the second row, where ef begins at 3 and g at 6 - 4.
    chosen = choose_runs(found, run_W, 2 / 3, 2, Scripted([0.5, 0.9, 0.1, 0.2, 0.7], [0.5, 0.75]))  # type: ignore[arg-type]
    assert chosen.tolist() == [False, True, True, True, False, False, True]


@settings(max_examples=150, deadline=None)
@given(rows=ROWS, rate=st.floats(0.01, 1.0), seed=st.integers(0, 1000), unit=st.sampled_from(["span", "ngram"]))
def test_masks_are_whole_words_near_the_rate_and_special_tokens_stay(rows: list[list[int]], rate: float, seed: int, unit: Unit) -> None:
    plain = batch(rows, length=48, seed=seed, word=3)
    masked = masker(rate=rate, unit=unit)(plain, np.random.default_rng(seed))
    picks = masked.targets["picks"]
    words = plain.words_BL.view(-1)
    assert (words[picks] >= 0).all()
    names = {(at // 48, word) for at, word in enumerate(words.tolist()) if word >= 0 and (picks == at).any()}
    whole = [at for at, word in enumerate(words.tolist()) if (at // 48, word) in names]
    assert picks.tolist() == whole
    assert abs(len(picks) - rate * sum(map(sum, rows))) < 3 * LONGEST[unit] + 1e-9, "nearer than one run, of words of 3 tokens"
    assert masked.targets["labels"].equal(plain.ids_BL.view(-1)[picks])


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, seed=st.integers(0, 1000), longest=st.integers(2, 6))
def test_no_run_is_too_long_or_passes_a_special_token(rows: list[list[int]], seed: int, longest: int) -> None:
    plain = batch(rows, length=48, seed=seed, word=2)
    words = words_of(plain)
    if not len(words.sizes_W):
        return
    run_W = cut_into_runs(words, harmonic_shares(longest), np.random.default_rng(seed))
    assert max(Counter(run_W.tolist()).values()) <= longest
    pieces = plain.layout.pieces_BL.view(-1).numpy()
    first = np.nonzero(np.diff(words.number_N, prepend=-1))[0]
    places = np.nonzero(plain.words_BL.numpy().reshape(-1) >= 0)[0][first]
    homes = {(int(run), int(place // 48), int(pieces[place])) for run, place in zip(run_W, places, strict=True)}
    assert len(homes) == run_W[-1] + 1, "a run has one home"


@pytest.mark.parametrize(("unit", "shares"), [("ngram", harmonic_shares(3)), ("span", geometric_shares(0.2, 10))])
def test_lengths_of_chosen_runs_follow_their_shares_and_positions_are_equally_likely(unit: Unit, shares: np.ndarray) -> None:
    rows, length, draws = 16, 128, 400
    plain = batch([[126]] * rows, length=length, word=1)  # a word is a token, so that lengths can be read from the masks
    words = words_of(plain)
    counts, hits = np.zeros(len(shares)), np.zeros(rows * length)
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        run_W = cut_into_runs(words, shares, generator)
        chosen = choose_runs(words, run_W, 0.15, rows, generator)
        sizes = np.bincount(run_W[chosen])
        counts += np.bincount(sizes[sizes > 0], minlength=len(shares) + 1)[1:]
        hits[masker(unit=unit)(plain, np.random.default_rng(seed)).targets["picks"].numpy()] += 1
    mean, asked = counts @ np.arange(1, len(shares) + 1) / counts.sum(), shares @ np.arange(1, len(shares) + 1)
    assert mean == pytest.approx(asked, rel=0.03), "but for runs at the ends of rows, which are cut there"
    often = hits.reshape(rows, length)[:, 1:-1].mean(axis=0) / draws
    assert hits.sum() / draws / (rows * 126) == pytest.approx(0.15, abs=1e-3)
    assert often.mean() == pytest.approx(0.15, abs=1e-3)
    ends = (often[:5].mean(), often[-5:].mean())
    assert ends == pytest.approx((0.15, 0.15), abs=0.012), "ends of rows are masked as often as their middle"
    assert often.std() < 0.012


@pytest.mark.parametrize("unit", ["word", "span", "ngram"])
@pytest.mark.parametrize("rows", [1, 4])
def test_long_and_short_words_are_chosen_equally_often(rows: int, unit: Unit) -> None:
    """Also in a micro-batch of a single row, where a rule that stops at the number would prefer short ones or long ones."""
    plain, draws = batch([[120]] * rows, length=122, word=4), 1600 // rows
    words = plain.words_BL.view(-1).numpy()
    candidates = np.nonzero(words >= 0)[0]
    sizes = words_of(plain).sizes_W[words_of(plain).number_N]
    hits, masked = np.zeros(len(words)), masker(unit=unit)
    for seed in range(draws):
        hits[masked(plain, np.random.default_rng(seed)).targets["picks"].numpy()] += 1
    shares = hits[candidates] / draws
    assert shares.mean() == pytest.approx(0.15, abs=0.004)
    short, long = shares[sizes == 1].mean(), shares[sizes == 4].mean()
    assert short == pytest.approx(long, abs=0.012)
    by_row = shares.reshape(rows, -1).mean(axis=1)
    assert by_row == pytest.approx(np.full(rows, 0.15), abs=0.015), "the first rows of a micro-batch have no more than the last"


def test_few_spans_show_themselves_as_often_as_many() -> None:
    plain, shown = batch([[60]], length=64, word=1), np.zeros(3)
    for seed in range(1500):
        seen = masker(unit="span")(plain, np.random.default_rng(seed))
        labels, ids = seen.targets["labels"], seen.ids_BL.view(-1)[seen.targets["picks"]]
        shown += np.bincount(torch.where(ids == SPECIAL.mask, 0, torch.where(ids == labels, 2, 1)).numpy(), minlength=3)
    # one random token in 55 is the right one by chance
    assert (shown / shown.sum()).tolist() == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_a_span_shows_one_kind_of_replacement() -> None:
    plain = batch([[46] for _ in range(40)], length=48, word=1)
    seen = masker(unit="span", rate=0.3, replacement=(0.5, 0.3, 0.2))(plain, np.random.default_rng(3))
    picks, labels = seen.targets["picks"], seen.targets["labels"]
    shown = seen.ids_BL.view(-1)[picks]
    kinds = torch.where(shown == SPECIAL.mask, 0, torch.where(shown == labels, 2, 1))
    shares = torch.bincount(kinds, minlength=3) / len(kinds)
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)
    neighbors = picks.diff() == 1
    equal = (kinds.diff() == 0)[neighbors].float().mean()
    assert equal > 0.85, "only where two spans touch, or a random token is the right one, the kind changes"
    each = masker(unit="ngram", rate=0.3, replacement=(0.5, 0.3, 0.2))(plain, np.random.default_rng(3))
    shown, labels = each.ids_BL.view(-1)[each.targets["picks"]], each.targets["labels"]
    assert (shown == SPECIAL.mask).sum() == int(0.5 * len(labels) + 0.5), "n-grams are replaced token by token, at exact shares"


def test_settings_without_effect_are_refused() -> None:
    assert MaskingConfig(unit="ngram", longest=5).longest == 5
    for wrong, message in [
        ({"longest": 4}, "longest has no effect"),
        ({"unit": "word", "span_end": 0.3}, "span_end has no effect"),
        ({"unit": "ngram", "span_end": 0.3}, "span_end has no effect"),
        ({"unit": "span", "longest": 0}, "greater than or equal to 1"),
        ({"replacement": [math.nan, 0.5, 0.5]}, "finite number"),
        ({"replacement": [0.8, 0.1, 0.2]}, "add up to 1"),
    ]:
        with pytest.raises(ValidationError, match=message):
            MaskingConfig.model_validate(wrong)
