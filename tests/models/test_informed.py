"""Initial weights that know frequencies and neighbours."""

import pytest
import torch

from kitae.models.bert import BertConfig
from kitae.models.families import build_discriminator, build_masked_lm
from kitae.models.informed import angles, inform
from kitae.models.presets import resolve_preset
from kitae.models.sharing import share_embeddings
from kitae.tensor.batch import Layout, Texts

VOCAB, LENGTH = 500, 200


def attention(encoder, block: int, head: int) -> torch.Tensor:
    """Probabilities [LENGTH, LENGTH] of one head on random tokens, without dropout."""
    ids = torch.randint(5, VOCAB, (1, LENGTH), generator=torch.Generator().manual_seed(3))
    encoder.eval()
    with torch.no_grad():
        states = encoder.hidden_states(Texts(ids, Layout.padded(torch.ones(1, LENGTH))))
        qkv = encoder.blocks[block].qkv(states[block]).view(LENGTH, 3, encoder.config.num_attention_heads, -1)
        return torch.softmax(qkv[:, 0, head] @ qkv[:, 1, head].T / qkv.shape[-1] ** 0.5, dim=-1)


@pytest.mark.parametrize(
    ("preset", "half", "back", "ahead", "least"),
    [
        ("electra-mini", "discriminator", (0, 0), (0, 1), 0.8),
        ("electra-mini", "generator", (0, 0), (1, 0), 0.3),
        ("electra-tiny", "discriminator", (0, 0), (1, 0), 0.2),
        ("bert-small", "encoder", (0, 0), (0, 1), 0.8),
        ("roberta-base", "encoder", (0, 0), (0, 1), 0.8),
    ],
)
def test_one_head_looks_back_and_one_ahead(preset, half, back, ahead, least):
    architecture = resolve_preset(preset, {"num_hidden_layers": 2} if preset == "roberta-base" else {}, VOCAB, 256)
    config = architecture.generator if half == "generator" else architecture.encoder
    model = build_masked_lm(config, torch.Generator().manual_seed(1))
    inform([model], torch.zeros(VOCAB))
    for (block, head), step in ((back, -1), (ahead, 1)):
        found = attention(model.encoder, block, head)
        assert float(found.diagonal(step).mean()) > least
        assert float(found.diagonal(-step).mean()) < least / 10
    if config.num_attention_heads > 2:
        assert float(attention(model.encoder, 0, 2).max()) < 0.02, "the other heads stay as they were"


def test_the_bias_knows_the_frequencies_from_the_first_step():
    config = resolve_preset("electra-mini", {}, VOCAB, 256).encoder
    shares = torch.rand(VOCAB, generator=torch.Generator().manual_seed(1)) ** 4 + 1e-3
    shares /= shares.sum()
    losses = []
    for informed in (False, True):
        model = build_masked_lm(config, torch.Generator().manual_seed(1)).eval()
        if informed:
            inform([model], shares.log())
        with torch.no_grad():
            logits = model(Texts(torch.randint(5, VOCAB, (4, 64)), Layout.padded(torch.ones(4, 64)))).flatten(0, 1)
        losses.append(float(-(torch.log_softmax(logits, -1) * shares).sum(-1).mean()))
    entropy = float(-(shares * shares.log()).sum())
    assert losses[1] - entropy < 0.05 < losses[0] - entropy


def test_shared_embeddings_suit_both_halves():
    architecture = resolve_preset("electra-mini", {}, VOCAB, 256)
    generator, discriminator = build_masked_lm(architecture.generator), build_discriminator(architecture.encoder)
    share_embeddings(generator, discriminator)
    inform([generator, discriminator], torch.zeros(VOCAB))
    assert generator.encoder.embed is discriminator.encoder.embed
    assert float(attention(generator.encoder, 0, 0).diagonal(-1).mean()) > 0.3
    assert float(attention(discriminator.encoder, 0, 0).diagonal(-1).mean()) > 0.8


@pytest.mark.parametrize("numbers", [(6, 1, 3, 4), (10, 2, 5, 0), (20, 20, 1, 1)])
def test_odd_sizes_are_taken(numbers):
    hidden, heads, vocab, layers = numbers
    config = BertConfig(vocab_size=vocab, hidden_size=hidden, num_attention_heads=heads, num_hidden_layers=layers, intermediate_size=8)
    model = build_masked_lm(config)
    inform([model], torch.zeros(vocab))
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())
    assert len(angles(hidden)) == hidden // 2


def test_a_chain_of_tokens_is_learnt_sooner():
    """Every token but the first follows from the one before it; from normal weights the model still knows the frequencies only."""
    config = BertConfig(
        vocab_size=40, hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=128, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    follows = torch.randperm(35, generator=torch.Generator().manual_seed(1)) + 5
    losses = []
    for informed in (False, True):
        model, draw = build_masked_lm(config, torch.Generator().manual_seed(1)), torch.Generator().manual_seed(2)
        if informed:
            inform([model], torch.zeros(40))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(60):
            rows = [torch.randint(5, 40, (16,), generator=draw)]
            while len(rows) < 48:
                rows.append(follows[rows[-1] - 5])
            ids = torch.stack(rows, dim=1)
            masked = torch.rand(ids.shape, generator=draw) < 0.15
            logits = model(Texts(ids.masked_fill(masked, 4), Layout.padded(torch.ones(16, 48))))
            loss = torch.nn.functional.cross_entropy(logits[masked], ids[masked])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        losses.append(float(loss))
    assert losses[1] < losses[0] - 0.5
