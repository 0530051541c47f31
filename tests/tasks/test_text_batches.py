"""Batches of texts: nothing lost, nothing seen twice, nothing of one text in another."""

from collections import Counter

import numpy as np
import pytest
import torch

from kitae.models.bert import BertConfig
from kitae.models.families import build_classifier
from kitae.tasks.batches import TrainBatches, assemble, by_length, collate, pack, predict
from kitae.tasks.classification import TERM, Classification
from kitae.tasks.encoded import Encoded, encode
from kitae.tasks.kind import Feature
from kitae.tensor.batch import Batch
from kitae.tensor.random import torch_generator
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer

CPU = torch.device("cpu")
CONFIG = BertConfig(
    model_type="electra", vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
    max_position_embeddings=40, embedding_size=16,
)  # fmt: skip


def texts(count: int, *, longest: int = 40, seed: int = 0) -> list[Encoded]:
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        inner = generator.integers(5, 50, size=generator.integers(1, longest - 1))
        words = np.concatenate([[-1], np.arange(len(inner)) // 2, [-1]]).astype(np.int32)
        made.append(Encoded(ids=np.concatenate([[2], inner, [3]]).astype(np.int64), words=words))
    return made


def classification(labels: int = 3) -> Classification:
    return Classification(build_classifier(CONFIG, labels, None, torch_generator(1, "x")))


def features(encoded: list[Encoded], labels: list[int]) -> list[Feature]:
    return [Feature(texts=(text,), values={"labels": np.asarray([label])}) for text, label in zip(encoded, labels, strict=True)]


@torch.no_grad()
def infer(module: Classification, batch: Batch) -> torch.Tensor:
    return torch.stack(list(module.raw(batch)))


@pytest.mark.parametrize(("count", "batch", "micro"), [(64, 16, 8), (37, 16, 5), (33, 16, 16), (5, 16, 4), (1, 1, 1)])
def test_every_epoch_has_every_example_once(count: int, batch: int, micro: int) -> None:
    encoded = texts(count)
    batches = TrainBatches(features(encoded, list(range(count))), batch=batch, micro_batch=micro, pad=0, seed=7)
    assert batches.steps_per_epoch == -(-count // batch)
    orders = []
    for epoch in range(2):
        seen: list[int] = []
        for step in range(epoch * batches.steps_per_epoch, (epoch + 1) * batches.steps_per_epoch):
            for number in range(batches.micro_batches_per_step):
                made = batches.micro(step, number)
                labels = made.targets["labels"].tolist()
                seen += labels
                for label, cls in zip(labels, made.targets["cls"].tolist(), strict=bool(labels)):
                    row, start = divmod(cls, made.ids_BL.shape[1])
                    end = start + len(encoded[label].ids)
                    assert made.ids_BL[row, start:end].tolist() == encoded[label].ids.tolist()
                    assert made.layout.positions_BL[row, start:end].tolist() == list(range(end - start))
                    assert len(set(made.layout.pieces_BL[row, start:end].tolist())) == 1
        assert Counter(seen) == Counter(range(count))
        orders.append(seen)
    assert count == 1 or orders[0] != orders[1], "epochs differ in order"


def test_a_micro_batch_is_a_pure_function() -> None:
    encoded = texts(37)
    one, other = (TrainBatches(features(encoded, [0] * 37), batch=16, micro_batch=8, pad=0, seed=7) for _ in range(2))
    other.micro(11, 0)
    for step, micro in ((5, 1), (0, 0), (11, 1)):
        assert torch.equal(one.micro(step, micro).ids_BL, other.micro(step, micro).ids_BL)
    third = TrainBatches(features(encoded, [0] * 37), batch=16, micro_batch=8, pad=0, seed=8)
    assert not torch.equal(one.micro(0, 0).rows, third.micro(0, 0).rows)


def test_packing_cuts_nothing_and_shares_rows() -> None:
    lengths = [len(text.ids) for text in texts(200)]
    rows = pack(lengths, 40)
    assert sorted(i for row in rows for i in row) == list(range(200))
    assert all(sum(lengths[i] for i in row) <= 40 for row in rows)
    assert sum(lengths) / (40 * len(rows)) > 0.95


def test_word_numbers_count_over_the_row() -> None:
    batch = collate(texts(6, longest=12), [[0, 1], [2, 3, 4, 5]], pad=0, numbers=[0, 1])
    for row in range(2):
        numbers = [n for n in batch.words_BL[row].tolist() if n >= 0]
        assert sorted(set(numbers)) == list(range(max(numbers) + 1))
        assert numbers == sorted(numbers)


def test_a_text_in_a_packed_row_has_the_logits_it_has_alone() -> None:
    encoded, module = texts(24), classification().eval()
    rows = pack([len(text.ids) for text in encoded], 40)
    packed = infer(module, collate(encoded, rows, pad=0, numbers=list(range(len(rows)))))
    alone = torch.cat([infer(module, collate([text], [[0]], pad=0, numbers=[0])) for text in encoded])
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=0)
    found = predict(module, features(encoded, [0] * 24), tokens=100, pad=0, device=CPU)
    assert np.abs(np.stack(found) - alone.numpy()).max() < 1e-5
    together = assemble(features(encoded, [0] * 24), pad=0, numbers=range(24))
    torch.testing.assert_close(infer(module, together), alone, atol=1e-5, rtol=0)


def test_prediction_batches_are_full_and_hardly_padded() -> None:
    encoded = texts(1000, longest=40)
    seen, positions, tokens = [], 0, 0
    for chosen, batch in by_length(encoded, tokens=400, pad=0):
        seen += chosen
        positions += batch.ids_BL.numel()
        tokens += batch.num_tokens
        assert batch.ids_BL.numel() <= 400
    assert sorted(seen) == list(range(1000))
    assert tokens / positions > 0.97


def test_loss_is_the_mean_over_texts_however_they_are_cut() -> None:
    encoded, labels = texts(10), [i % 3 for i in range(10)]
    module = classification().eval()
    whole = TrainBatches(features(encoded, labels), batch=10, micro_batch=10, pad=0, seed=3)
    cut = TrainBatches(features(encoded, labels), batch=10, micro_batch=4, pad=0, seed=3)
    one = module(whole.micro(0, 0)).total({TERM: 10})
    parts = [module(cut.micro(0, micro)).total({TERM: 10}) for micro in range(3)]
    torch.testing.assert_close(one, torch.stack(parts).sum())
    logits = torch.cat([infer(module, collate([text], [[0]], pad=0, numbers=[0])) for text in encoded])
    torch.testing.assert_close(one, torch.nn.functional.cross_entropy(logits, torch.tensor(labels)), atol=1e-5, rtol=0)


def test_a_micro_batch_without_texts_counts_nothing_and_has_a_zero_gradient() -> None:
    batches = TrainBatches(features(texts(2), [0, 1]), batch=4, micro_batch=2, pad=0, seed=1)
    module = classification()
    batch = batches.micro(0, 1)
    assert module.counts(batch) == {TERM: 0}
    module(batch).total({TERM: 2}).backward()
    gradients = [parameter.grad for parameter in module.parameters()]
    assert all(one is not None and not one.any() for one in gradients)


def test_a_text_is_cut_at_its_tail_and_lines_follow_each_other() -> None:
    words = ("a", "b", "c", "##c", "d")
    tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words)
    tokenizer = Tokenizer(Definition(tokens=tokens, spec=SegmenterSpec(kind="whitespace")))
    found = encode(tokenizer, "a b\ncc\n\nd", max_length=16)
    assert [tokenizer.tokens[i] for i in found.ids] == ["[CLS]", "a", "b", "c", "##c", "d", "[SEP]"]
    assert found.words.tolist() == [-1, 0, 1, 2, 2, 3, -1]
    short = encode(tokenizer, "a b\ncc\nd", max_length=5)
    assert [tokenizer.tokens[i] for i in short.ids] == ["[CLS]", "a", "b", "c", "[SEP]"]
    assert encode(tokenizer, "", max_length=5).ids.tolist() == [2, 3]
    assert encode(tokenizer, "a b\ncc\nd", max_length=100).ids[1:-1].tolist() == tokenizer.encode("a b\ncc\nd").ids.tolist()
