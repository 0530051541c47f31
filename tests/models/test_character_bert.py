"""CharacterBERT against the authors' own numbers, and against a plain composition of torch and transformers; its folders and sizes."""

import json
from pathlib import Path

import pytest
import torch
from character_oracle import RAW, make, write
from character_weights import SENTENCES, segments
from hypothesis import given
from hypothesis import strategies as st
from model_layouts import packed
from model_pairs import dropped
from safetensors.torch import load_file
from torch import Tensor

from kitae.core.errors import KitaeError
from kitae.models import character_cnn
from kitae.models.character_bert import FILTERS as PUBLISHED
from kitae.models.character_cnn import CharacterCnn
from kitae.models.convert import to_huggingface
from kitae.models.cost import count_parameters, flops_per_token
from kitae.models.families import FAMILIES, bare, build_masked_lm
from kitae.models.folder import Part, load, read_parts, write_huggingface
from kitae.models.presets import resolve_preset
from kitae.tensor.batch import Layout
from kitae.tokenization import characters

GOLDEN = Path(__file__).parents[1] / "golden" / "character_bert.json"
NEAR = {"rtol": 1e-5, "atol": 1e-5}
EXACT = {"rtol": 1e-9, "atol": 1e-9}
PACKED = packed(((7, 9), (16,), (3, 2, 8)), 16)
PADDED = Layout.padded(torch.arange(16)[None] < torch.tensor([16, 9, 2])[:, None])
FAMILY = FAMILIES["character_bert"]


def words(count: int, longest: int) -> Tensor:
    """Characters of words of all lengths, one of them padding, with equal ones among them."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.full((count, longest), characters.PAD + 1)
    for number in range(1, count):
        size = 3 + number * (longest - 2) // count
        rows[number, :size] = torch.randint(1, 9, (size,), generator=generator)  # few characters, so that windows repeat
    rows[0] = 0
    return rows


def numbered(rows: int, length: int, count: int) -> Tensor:
    return torch.randint(1, count, (rows, length), generator=torch.Generator().manual_seed(2))


def test_words_are_spelled_as_the_authors_spell_them():
    roles = {"[CLS]": "cls", "[SEP]": "sep", "[MASK]": "mask"}
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))["characters"]
    assert len(golden) == len(SENTENCES)
    for sentence, expected in zip(SENTENCES, golden, strict=True):
        spelled = [
            characters.special_row(roles[word], 50) if word in roles else characters.rows([word], 50)[0] for word in sentence.split()
        ]
        spelled += [characters.special_row("pad", 50)] * (len(expected) - len(spelled))
        assert [row.tolist() for row in spelled] == expected


def test_numbers_of_the_authors_code(tmp_path):
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    make("sequence", tmp_path, max_word_length=50)
    model = load(read_parts(tmp_path)["encoder"])
    chars = torch.tensor(golden["characters"])
    chars_WC, mask = chars.flatten(0, 1), chars.sum(-1) > 0
    ids = torch.arange(len(chars_WC)).view(mask.shape)
    with torch.no_grad():
        found = model.encoder.embed.words(chars_WC).view(*mask.shape, -1)
        hidden = model.encoder(ids, Layout.padded(mask), segments(chars), chars_WC)
        pooled = torch.tanh(model.head.dense(hidden[:, 0]))
    torch.testing.assert_close(found, torch.tensor(golden["words"]), **NEAR)
    torch.testing.assert_close(hidden[mask], torch.tensor(golden["hidden"])[mask], **NEAR)
    torch.testing.assert_close(pooled, torch.tensor(golden["pooled"]), **NEAR)


@pytest.mark.parametrize("head", ["mlm", "sequence"])
@pytest.mark.parametrize("kind", ["block", "spans", "dense"])
@pytest.mark.parametrize("layout", [PADDED, PACKED], ids=["padded", "packed"])
def test_hidden_states_and_logits_and_gradients(head, kind, layout, tmp_path):
    theirs = make(head, tmp_path).double()
    ours = load(read_parts(tmp_path)["encoder"]).double()
    ours.encoder.kind = kind
    chars_WC = words(19, RAW["max_word_length"])
    ids = numbered(*layout.pieces_BL.shape, len(chars_WC))
    mask, kinds = layout.mask_BL, ids % 2
    their_hidden = theirs.hidden(chars_WC[ids], layout.block_mask_BLL, layout.positions_BL, kinds)
    our_hidden = ours.encoder(ids, layout, kinds, chars_WC)
    torch.testing.assert_close(our_hidden[mask], their_hidden[mask], **EXACT)
    starts = torch.tensor([row * ids.shape[1] + start for row, start, _ in layout.spans()])
    if head == "sequence":
        their_logits = theirs.logits(their_hidden.flatten(0, 1)[starts][:, None])
        our_logits = ours(ids, layout, kinds, starts, chars_WC)
    else:
        picks = mask.flatten().nonzero().view(-1)[::2]
        their_logits, our_logits = theirs.logits(their_hidden.flatten(0, 1)[picks]), ours(ids, layout, kinds, picks, chars_WC)
    torch.testing.assert_close(our_logits, their_logits, **EXACT)
    weights = torch.randn(our_logits.shape, dtype=torch.float64)
    (our_logits * weights).sum().backward()
    (their_logits * weights).sum().backward()
    rows = (*FAMILY.rows, *FAMILY.heads[head].table(ours.config))
    mine = to_huggingface({name: p.grad for name, p in ours.named_parameters()}, rows, layers=2)
    other = {name: p.grad for name, p in theirs.named_parameters()}
    assert set(other) - set(mine) <= {"cls.predictions.bias", "cls.predictions.decoder.bias"}
    for name, gradient in mine.items():
        expected = other.get(name, other.get("cls.predictions.decoder.bias"))
        torch.testing.assert_close(gradient, expected, **EXACT, msg=lambda text, name=name: f"{name}: {text}")
        assert gradient.abs().max() > 0 or "key" in name, name


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=9),
    kernels=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 3)), min_size=1, max_size=3),
    chunk=st.integers(1, 5),
    activation=st.sampled_from(["relu", "tanh"]),
    seed=st.integers(0, 99),
)
def test_words_of_any_length_as_a_plain_convolution_reads_them(sizes, kernels, chunk, activation, seed):
    generator = torch.Generator().manual_seed(seed)
    cnn = CharacterCnn(filters=kernels, width=3, activation=activation, highways=1, out=4, deviation=0.5).double()
    with torch.no_grad():
        cnn.initialize(generator)
    chars = torch.full((len(sizes), 12), characters.PAD + 1)
    for number, size in enumerate(sizes):
        chars[number, :size] = torch.randint(1, 6, (size,), generator=generator)  # 0 and padding have one vector
    x = torch.nn.functional.embedding(chars, cnn.characters.weight).transpose(1, 2)
    plain = cnn.activation(torch.cat([layer(x).amax(dim=-1) for layer in cnn.convolutions], dim=-1))
    for layer in cnn.highways:
        plain = layer(plain)
    plain = cnn.project(plain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(character_cnn, "CHUNK", chunk)
        found = cnn(chars)
    torch.testing.assert_close(found, plain, **EXACT)
    weights = torch.randn(found.shape, dtype=torch.float64)
    named = dict(cnn.named_parameters())
    ours = torch.autograd.grad((found * weights).sum(), named.values())
    theirs = torch.autograd.grad((plain * weights).sum(), named.values())
    for name, a, b in zip(named, ours, theirs, strict=True):
        torch.testing.assert_close(a, b, **EXACT, msg=lambda text, name=name: f"{name}: {text}")


def test_equal_numbers_however_words_are_numbered_and_nothing_crosses_pieces(tmp_path):
    make("mlm", tmp_path)
    encoder = load(read_parts(tmp_path)["encoder"]).encoder
    chars_WC, layout = words(19, 12), PACKED
    ids = numbered(*layout.pieces_BL.shape, 19)
    order = torch.randperm(19, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        plain = encoder(ids, layout, None, chars_WC)
        torch.testing.assert_close(encoder(order.argsort()[ids], layout, None, chars_WC[order]), plain, **NEAR)
        torch.testing.assert_close(encoder(ids, layout, torch.zeros_like(ids), chars_WC), plain, **NEAR)
        other = ids.clone()
        other[0, 8] = (other[0, 8] + 1) % 19  # of the second piece of the first row
        changed = (encoder(other, layout, None, chars_WC) != plain).any(-1)
    assert torch.equal(changed[0], layout.pieces_BL[0] == 2)
    assert not changed[1:].any()


def test_gradients_are_equal_to_the_bit_every_time(tmp_path):
    make("mlm", tmp_path)
    model = load(read_parts(tmp_path)["encoder"])
    chars_WC, ids = words(300, 12), torch.randint(0, 300, (8, 16), generator=torch.Generator().manual_seed(6))
    layout = Layout.padded(torch.ones(8, 16, dtype=torch.bool))
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(2)
    for _ in range(4):
        model.zero_grad()
        model(ids, layout, None, None, chars_WC).square().sum().backward()
        found.append([parameter.grad.clone() for parameter in model.parameters()])
    torch.set_num_threads(threads)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_dropout_falls_where_berts_does(tmp_path, monkeypatch):
    """Behind the embeddings; in every block on probabilities, on what attention gives, and on what the feed-forward part gives."""
    make("mlm", tmp_path, hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.2)
    model = load(read_parts(tmp_path)["encoder"]).train()
    model.encoder.kind, seen = "dense", dropped(monkeypatch)
    model(numbered(3, 16, 19), PACKED, None, None, words(19, 12))
    hidden = (0.1, 3 * 16 * 12)
    assert seen == [hidden, *[(0.2, 3 * 3 * 16 * 16), hidden, hidden] * 2]


def test_half_precision_is_near(tmp_path):
    make("mlm", tmp_path)
    model = load(read_parts(tmp_path)["encoder"])
    chars_WC = words(19, 12)
    ids = numbered(3, 16, 19)
    with torch.no_grad():
        exact = model(ids, PACKED, None, None, chars_WC)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(ids, PACKED, None, None, chars_WC).float()
        whole = model.bfloat16()(ids, PACKED, None, None, chars_WC).float()
    for found in (half, whole):
        assert 0 < (found - exact).square().mean().sqrt() / exact.std() < 0.03


@pytest.mark.parametrize("head", ["mlm", "sequence", "none"])
def test_folders_there_and_back(head, tmp_path):
    theirs = make("mlm" if head == "mlm" else "sequence", tmp_path / "theirs")
    if head == "none":
        state = {name.removeprefix("character_bert."): tensor for name, tensor in theirs.state_dict().items() if "classifier" not in name}
        write(tmp_path / "theirs", state, "CharacterBertModel")
    part = read_parts(tmp_path / "theirs")["encoder"]
    assert part.head == head
    write_huggingface(part, tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert after.keys() - before.keys() <= {"cls.predictions.decoder.bias"}, (
        "the second name of the bias, which the authors' own weights have"
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = read_parts(tmp_path / "ours")["encoder"]
    assert (again.config, again.labels) == (part.config, part.labels)
    raw = json.loads((tmp_path / "ours" / "config.json").read_text(encoding="utf-8"))
    assert all(raw[key] == RAW[key] for key in RAW if key != "vocab_size")
    assert "vocab_size" not in raw


def test_heads_of_pre_training(tmp_path):
    further = {
        "cls.seq_relationship.weight": torch.randn(2, 12),
        "cls.seq_relationship.bias": torch.randn(2),
        "character_bert.pooler.dense.weight": torch.randn(12, 12),
        "character_bert.pooler.dense.bias": torch.randn(12),
    }
    state = make("mlm", tmp_path / "made").state_dict() | further
    write(tmp_path / "theirs", state, "CharacterBertForPreTraining")
    part = read_parts(tmp_path / "theirs")["encoder"]
    assert part.head == "pretraining"
    write_huggingface(part, tmp_path / "ours")
    before, after = (load_file(tmp_path / side / "model.safetensors") for side in ("theirs", "ours"))
    assert after.keys() - before.keys() <= {"cls.predictions.decoder.bias"}, (
        "the second name of the bias, which the authors' own weights have"
    )
    assert all(torch.equal(before[name], after[name]) for name in before)
    write(tmp_path / "plain", state, "CharacterBertForMaskedLM")
    assert read_parts(tmp_path / "plain")["encoder"].head == "mlm"
    raw = json.loads((tmp_path / "plain" / "config.json").read_text(encoding="utf-8"))
    del raw["architectures"]
    (tmp_path / "plain" / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    assert read_parts(tmp_path / "plain")["encoder"].head == "pretraining"


@pytest.mark.parametrize("head", ["token", "span", "choice"])
def test_heads_of_tasks(head, tmp_path):
    make("mlm", tmp_path / "made")
    config = read_parts(tmp_path / "made")["encoder"].config
    labels = ("a", "b", "c") if head == "token" else ()
    shapes = {name: tensor.shape for name, tensor in bare(config, head, num_labels=3).state_dict().items()}
    part = Part(family="character_bert", head=head, config=config, labels=labels, state={n: torch.randn(s) for n, s in shapes.items()})
    write_huggingface(part, tmp_path / "ours")
    again = read_parts(tmp_path / "ours")["encoder"]
    assert (again.head, again.config) == (head, config)
    assert all(torch.equal(again.state[name], tensor) for name, tensor in part.state.items())
    ids = numbered(*PADDED.pieces_BL.shape, 19)
    with torch.no_grad():
        assert load(again)(ids, PADDED, chars_WC=words(19, 12)).isfinite().all()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"tie_word_embeddings": True}, "tie_word_embeddings"),
        ({"pad_character_id": 5}, "pad_character_id"),
        ({"cnn_filters": [[13, 2]]}, "13 characters"),
        ({"max_word_length": 3}, "max_word_length"),
        ({"cnn_filters": [[1, 4], [2, 5]]}, "convolutions.2"),
        ({"mlm_vocab_size": 24}, "head.bias"),
        ({"num_highway_layers": 3}, "highways.2"),
        ({"embedding_size": 6}, "embedding_size"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_folders_that_do_not_fit(fields, told, tmp_path):
    write(tmp_path, make("mlm", tmp_path / "made").state_dict(), "CharacterBertForMaskedLM", **fields)
    with pytest.raises(KitaeError) as error:
        read_parts(tmp_path)
    assert told in error.value.what


def test_pickled_weights_are_refused(tmp_path):
    make("mlm", tmp_path)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(KitaeError) as error:
        read_parts(tmp_path)
    assert "save_pretrained" in error.value.cure


def test_sizes_of_the_paper():
    architecture = resolve_preset("character-bert-base", {}, 100_000, 512)
    config = architecture.encoder
    assert config.cnn_filters == PUBLISHED
    small = resolve_preset("character-bert-small", {}, 100_000, 512).encoder
    assert 4 * sum(count for _, count in small.cnn_filters) == sum(count for _, count in PUBLISHED) == 2048
    cnn = bare(config, "mlm").encoder.embed.words
    assert sum(p.numel() for p in cnn.parameters()) == 18_562_416
    rest = 12 * 7_087_872 + (512 + 2 + 2) * 768  # BERT-base's blocks, positions, segments and LayerNorm
    head = 768 * 768 + 768 + 2 * 768 + 769 * 100_000
    assert count_parameters(architecture).total == 18_562_416 + rest + head == 181_505_296
    assert sum(p.numel() for p in bare(config, "sequence").parameters()) == 18_562_416 + rest + 769 * 768 + 2 * 769
    front = FAMILY.flops(config, 128) - FAMILIES["bert"].flops(config, 128)
    assert round(front / 1e6) == 163
    assert flops_per_token(architecture, 128, "mlm") == FAMILY.flops(config, 128) + 6 * 0.15 * (768 * 768 + 768 * 100_000)


def test_new_weights():
    model = build_masked_lm(resolve_preset("character-bert-tiny", {}, 50, 32).encoder)
    cnn = model.encoder.embed.words
    assert not cnn.characters.weight[[0, characters.PAD + 1]].any()
    assert 0.9 < cnn.characters.weight[1 : characters.PAD].std() < 1.1
    assert all(torch.equal(layer.both.bias, torch.tensor([0.0, 1.0]).repeat_interleave(64)) for layer in cnn.highways)
    assert all(0.01 < layer.weight.std() < 0.03 and not layer.bias.any() for layer in cnn.convolutions)
    again = build_masked_lm(model.config)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
