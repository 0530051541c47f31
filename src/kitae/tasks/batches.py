"""Texts as token ids, and micro-batches of whole texts: packed rows to train on, rows of like length to predict on.

Shapes: B rows, L positions of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.tensor.batch import Batch, Layout
from kitae.tensor.random import numpy_generator
from kitae.tokenization.characters import Speller
from kitae.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One text, [CLS] ... [SEP]: token ids, and the word number of each token (-1 at special tokens)."""

    ids: NDArray[np.int64]
    words: NDArray[np.int32]
    rows: tuple[bytes, ...] = ()
    """Of every token its characters (uint16), for models that read these."""


def encode(tokenizer: Tokenizer, text: str, *, max_length: int) -> Encoded:
    """The head of a text, at most `max_length` tokens with the special ones; lines are separate sentences."""
    if tokenizer.speller is not None:
        return _spelled(tokenizer, tokenizer.speller, text, max_length)
    ids, words, room, count = [tokenizer.special.cls], [-1], max_length - 2, 0
    for line in text.split("\n"):
        for word in tokenizer.words(line):
            ids.extend(word)
            words.extend([count] * len(word))
            count += 1
        if len(ids) - 1 >= room:
            break
    ids, words = [*ids[: room + 1], tokenizer.special.sep], [*words[: room + 1], -1]
    return Encoded(ids=np.asarray(ids, np.int64), words=np.asarray(words, np.int32))


def _spelled(tokenizer: Tokenizer, speller: Speller, text: str, max_length: int) -> Encoded:
    words: list[str] = []
    for line in text.split("\n"):
        words.extend(tokenizer.surfaces(line))
        if len(words) >= max_length - 2:
            break
    del words[max_length - 2 :]
    special = tokenizer.special
    labels = [special.cls, *(tokenizer.label(word) for word in words), special.sep]
    rows = (speller.special("cls"), *(speller[word] for word in words), speller.special("sep"))
    return Encoded(ids=np.asarray(labels, np.int64), words=np.asarray([-1, *range(len(words)), -1], np.int32), rows=rows)


def pack(lengths: Sequence[int], row_length: int) -> list[list[int]]:
    """Which texts share a row, without cutting any: first fit, longest first. Rows and texts in them keep a fixed order."""
    rows: list[list[int]] = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        row = next((r for r, free in enumerate(room) if free >= lengths[i]), None)
        if row is None:
            row = len(rows)
            rows.append([])
            room.append(row_length)
        rows[row].append(i)
        room[row] -= lengths[i]
    return rows


def collate(
    texts: Sequence[Encoded], rows: Sequence[Sequence[int]], *, pad: int, numbers: Sequence[int], step: int = 0, micro: int = 0
) -> Batch:
    """A batch whose row r holds the texts rows[r]; targets["cls"][i] is the flat position of text i's [CLS].

    numbers: a sample id per row. Texts with characters give ids that number the distinct words of the batch.
    """
    length = max(sum(len(texts[i].ids) for i in row) for row in rows)
    shape = (len(rows), length)
    ids, words = np.full(shape, pad, np.int64), np.full(shape, -1, np.int32)
    pieces, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int64)
    cls = np.zeros(len(texts), np.int64)
    distinct = {bytes(len(texts[0].rows[0])): 0} if texts[0].rows else {}  # first the padding
    if distinct:
        ids[:] = 0
    for r, row in enumerate(rows):
        start, first_word = 0, 0
        for number, i in enumerate(row, start=1):
            text = texts[i]
            end = start + len(text.ids)
            ids[r, start:end] = [distinct.setdefault(spelled, len(distinct)) for spelled in text.rows] if distinct else text.ids
            words[r, start:end] = np.where(text.words >= 0, text.words + first_word, -1)
            pieces[r, start:end] = number
            positions[r, start:end] = np.arange(end - start)
            cls[i] = r * length + start
            start, first_word = end, first_word + int(text.words.max(initial=-1)) + 1
    return Batch(
        ids_BL=torch.from_numpy(ids),
        layout=Layout(torch.from_numpy(pieces), torch.from_numpy(positions)),
        chars_WC=_characters(list(distinct)) if distinct else None,
        words_BL=torch.from_numpy(words),
        rows=torch.as_tensor(list(numbers), dtype=torch.int64),
        step=step,
        micro=micro,
        targets={"cls": torch.from_numpy(cls)},
    )


def _characters(rows: Sequence[bytes]) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(rows), np.uint16).reshape(len(rows), -1).astype(np.int64))


class TrainBatches:
    """The training examples as the loop's batches: a row of its plan is one example.

    An epoch is ceil(examples / batch) steps and visits every example once, in an order keyed by (seed, epoch); its last step
    holds what is left. A micro-batch without examples holds a text without a label.
    """

    def __init__(self, texts: Sequence[Encoded], labels: Sequence[int], *, batch: int, micro_batch: int, pad: int, seed: int) -> None:
        self._texts, self._labels = texts, np.asarray(labels, np.int64)
        self._batch, self._micro_batch = batch, min(micro_batch, batch)
        self._pad, self._seed = pad, seed
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self.rows_per_step = batch
        self.rows_per_epoch = len(texts)
        self.micro_batches_per_step = -(-batch // self._micro_batch)
        self.steps_per_epoch = -(-len(texts) // batch)
        self.tokens_per_step = round(batch * sum(len(text.ids) for text in texts) / len(texts))

    def examples(self, step: int, micro: int) -> NDArray[np.int64]:
        """The numbers of the examples of a micro-batch; may be none in the last step of an epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = self._order  # replaced as a whole: several threads may ask, for two epochs at once
        if order[0] != epoch:
            order = self._order = (epoch, numpy_generator(self._seed, "examples", epoch).permutation(len(self._texts)))
        of_step = order[1][number * self._batch : (number + 1) * self._batch]
        return of_step[micro * self._micro_batch : (micro + 1) * self._micro_batch]

    def micro(self, step: int, micro: int) -> Batch:
        """Pure function of (seed, step, micro)."""
        chosen = self.examples(step, micro)
        texts = [self._texts[i] for i in chosen] or [self._texts[0]]
        lengths = [len(text.ids) for text in texts]
        rows = pack(lengths, max(lengths))
        made = collate(texts, rows, pad=self._pad, numbers=[chosen[row[0]] if len(chosen) else 0 for row in rows], step=step, micro=micro)
        return made.replace(targets={**made.targets, "labels": torch.from_numpy(self._labels[chosen])})


def by_length(texts: Sequence[Encoded], *, tokens: int, pad: int) -> Iterator[tuple[list[int], Batch]]:
    """Batches of at most `tokens` positions, one text a row, longest first, with the numbers of their texts.

    Rows of one batch differ little in length, so that there is almost no padding.
    """
    order = sorted(range(len(texts)), key=lambda i: (-len(texts[i].ids), i))
    start = 0
    while start < len(order):
        end = start + max(1, tokens // len(texts[order[start]].ids))
        chosen = order[start:end]
        yield chosen, collate([texts[i] for i in chosen], [[i] for i in range(len(chosen))], pad=pad, numbers=chosen)
        start = end


def predict(
    forward: Callable[[Batch], torch.Tensor], texts: Sequence[Encoded], *, tokens: int, pad: int, labels: int
) -> NDArray[np.float64]:
    """Class probabilities of every text in the given order, [texts, labels]; `forward` gives the logits of a batch."""
    probabilities = np.zeros((len(texts), labels))
    for chosen, batch in by_length(texts, tokens=tokens, pad=pad):
        probabilities[chosen] = forward(batch).float().softmax(-1).cpu().numpy()
    return probabilities
