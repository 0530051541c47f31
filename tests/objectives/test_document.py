"""The loss of [CLS] that predicts the words of its document."""

import pytest
import torch
from rows import SPECIAL, VOCAB, batch, electra, paired

from kitae.objectives import table
from kitae.objectives.document import document_losses, original_ids
from kitae.objectives.rtd import RtdConfig

ROWS = [[4, 7], [14], [1, 2, 3]]


def objective(weight: float):
    return table.build(electra(), RtdConfig(document_weight=weight), SPECIAL, VOCAB, 1).double().eval()


def test_it_equals_a_loop_over_pieces_and_tokens():
    made, plain = objective(2.0), batch(ROWS, length=18)
    prepared = made.prepare(plain, 1)
    assert torch.equal(original_ids(prepared).view_as(plain.ids_BL), plain.ids_BL)
    ids, _ = made.corrupted(prepared)
    encoder, bias = made.discriminator.encoder, torch.randn(VOCAB, dtype=torch.float64)
    states = encoder(ids, plain.layout)
    expected = []
    for row, start, end in plain.layout.spans():
        vector = states[row, start] if encoder.project is None else states[row, start] @ encoder.project.weight
        scores = torch.log_softmax(encoder.embed.token.weight @ vector + bias, dim=0)
        expected += [-scores[plain.ids_BL[row, place]] for place in range(start + 1, end - 1)]
    found = document_losses(states, encoder, bias, prepared)
    assert len(found) == made.counts(prepared)["document"] == 4 + 7 + 14 + 1 + 2 + 3
    torch.testing.assert_close(found, torch.stack(expected))


def test_the_term_is_there_only_when_wanted_and_others_stay_as_they_are():
    without, with_it = objective(0.0), objective(2.0)
    prepared = with_it.prepare(batch(ROWS, length=18), 1)
    assert [term.name for term in without(prepared).terms] == ["mlm", "rtd"]
    terms = with_it(prepared).terms
    assert [(term.name, term.weight) for term in terms] == [("mlm", 1.0), ("rtd", 50.0), ("document", 2.0)]
    for mine, other in zip(terms, without(prepared).terms, strict=False):
        assert torch.equal(mine.sum, other.sum)
    assert with_it.counts(prepared).keys() == {"mlm", "rtd", "document"}
    scores = with_it.summarize(with_it.measure(prepared))
    assert scores["document_loss"] == pytest.approx(float(terms[2].sum) / terms[2].count)
    assert "document_loss" not in without.summarize(without.measure(prepared))


def test_its_gradient_comes_through_the_first_vectors_only():
    made = objective(1.0)
    prepared = made.prepare(batch(ROWS, length=18), 1)
    states = torch.randn(*prepared.ids_BL.shape, made.discriminator.config.hidden_size, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(VOCAB, dtype=torch.float64, requires_grad=True)
    document_losses(states, made.discriminator.encoder, bias, prepared).sum().backward()
    touched = {tuple(place) for place in states.grad.abs().sum(-1).nonzero().tolist()}
    assert touched == {(row, start) for row, start, _ in prepared.layout.spans()}
    assert bias.grad is None


def test_a_document_without_words_counts_nothing():
    made = objective(1.0)
    prepared = made.prepare(batch([[0], [0, 0]], length=6), 1)
    assert made.counts(prepared)["document"] == 0
    total = made(prepared).total(made.counts(prepared))
    total.backward()
    assert torch.isfinite(total)
    assert "document_loss" not in made.summarize(made.measure(prepared))


def test_what_stands_between_two_segments_is_no_word():
    made, plain = objective(1.0), paired([[(3, 4, 0), (2, 0, 0)], [(1, 1, 1)]], length=18)
    targets = made.prepare(plain, 1).targets
    assert targets["documents"].tolist() == [0, 10, 18]
    assert targets["document_words"].tolist() == [1, 2, 3, 5, 6, 7, 8, 11, 12, 19, 21]
    assert targets["word_document"].tolist() == [0] * 7 + [1] * 2 + [2] * 2


def test_bert_has_no_such_setting():
    with pytest.raises(ValueError, match="document_weight"):
        table.row("mlm").config.model_validate({"document_weight": 1.0})
