"""Micro-batches of whole texts: packed rows to train on, rows of like length to predict on.

Shapes: B rows, L positions of a row.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.tasks.encoded import Encoded
from kitae.tasks.kind import Feature, Learner, Raw
from kitae.tensor.batch import Batch, Layout
from kitae.tensor.random import numpy_generator


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
    segments = np.zeros(shape, np.int64) if any(text.segments is not None for text in texts) else None
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
            if segments is not None and text.segments is not None:
                segments[r, start:end] = text.segments
            cls[i] = r * length + start
            start, first_word = end, first_word + int(text.words.max(initial=-1)) + 1
    return Batch(
        ids_BL=torch.from_numpy(ids),
        layout=Layout(torch.from_numpy(pieces), torch.from_numpy(positions)),
        segments_BL=None if segments is None else torch.from_numpy(segments),
        chars_WC=_characters(list(distinct)) if distinct else None,
        words_BL=torch.from_numpy(words),
        rows=torch.as_tensor(list(numbers), dtype=torch.int64),
        step=step,
        micro=micro,
        targets={"cls": torch.from_numpy(cls)},
    )


def _characters(rows: Sequence[bytes]) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(b"".join(rows), np.uint16).reshape(len(rows), -1).astype(np.int64))


def assemble(features: Sequence[Feature], *, pad: int, numbers: Sequence[int], alone: bool = False, step: int = 0, micro: int = 0) -> Batch:
    """A batch of features with the targets that `Feature` names; `numbers` is a sample id for each of them.

    Texts share rows that are as long as the longest of them; `alone` gives each a row of its own.
    """
    texts = [text for feature in features for text in feature.texts]
    owners = [number for number, feature in zip(numbers, features, strict=True) for _ in feature.texts]
    lengths = [len(text.ids) for text in texts]
    rows = [[i] for i in range(len(texts))] if alone else pack(lengths, max(lengths))
    made = collate(texts, rows, pad=pad, numbers=[owners[row[0]] for row in rows], step=step, micro=micro)
    first = np.cumsum([0, *(len(feature.texts) for feature in features)])[:-1]
    cls = made.targets["cls"].numpy()[first]
    targets = dict(made.targets)
    targets["texts"] = torch.as_tensor([len(feature.texts) for feature in features])
    for name in features[0].places:
        targets[name] = torch.from_numpy(np.concatenate([f.places[name] + start for f, start in zip(features, cls, strict=True)]))
        targets[f"{name}/count"] = torch.as_tensor([len(feature.places[name]) for feature in features])
    for name in features[0].values:
        targets[name] = torch.from_numpy(np.concatenate([feature.values[name] for feature in features]))
    return made.replace(targets=targets)


class TrainBatches:
    """The training features as the loop's batches: a row of its plan is one feature.

    An epoch is ceil(features / batch) steps and visits every feature once, in an order keyed by (seed, epoch); its last step
    holds what is left. A micro-batch without features holds one of which nothing is to be learnt: its values have no rows.
    """

    def __init__(self, features: Sequence[Feature], *, batch: int, micro_batch: int, pad: int, seed: int) -> None:
        self._features = features
        self._batch, self._micro_batch = batch, min(micro_batch, batch)
        self._pad, self._seed = pad, seed
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self.rows_per_step = batch
        self.rows_per_epoch = len(features)
        self.micro_batches_per_step = -(-batch // self._micro_batch)
        self.steps_per_epoch = -(-len(features) // batch)
        self.tokens_per_step = round(batch * sum(feature.tokens for feature in features) / len(features))

    def examples(self, step: int, micro: int) -> NDArray[np.int64]:
        """The numbers of the features of a micro-batch; may be none in the last step of an epoch."""
        epoch, number = divmod(step, self.steps_per_epoch)
        order = self._order  # replaced as a whole: several threads may ask, for two epochs at once
        if order[0] != epoch:
            order = self._order = (epoch, numpy_generator(self._seed, "examples", epoch).permutation(len(self._features)))
        of_step = order[1][number * self._batch : (number + 1) * self._batch]
        return of_step[micro * self._micro_batch : (micro + 1) * self._micro_batch]

    def micro(self, step: int, micro: int) -> Batch:
        """Pure function of (seed, step, micro)."""
        chosen = self.examples(step, micro)
        if len(chosen):
            return assemble([self._features[i] for i in chosen], pad=self._pad, numbers=chosen.tolist(), step=step, micro=micro)
        made = assemble(self._features[:1], pad=self._pad, numbers=[0], step=step, micro=micro)
        return made.replace(targets={**made.targets, **{name: made.targets[name][:0] for name in self._features[0].values}})


def by_length(texts: Sequence[Encoded], *, tokens: int, pad: int) -> Iterator[tuple[list[int], Batch]]:
    """Batches of at most `tokens` positions, one text a row, longest first, with the numbers of their texts.

    Rows of one batch differ little in length, so that there is almost no padding.
    """
    for chosen in _like_lengths([(len(text.ids), 1) for text in texts], tokens):
        yield chosen, collate([texts[i] for i in chosen], [[i] for i in range(len(chosen))], pad=pad, numbers=chosen)


def predict(learner: Learner, features: Sequence[Feature], *, tokens: int, pad: int, device: torch.device, half: bool = False) -> list[Raw]:
    """What the learner says of every feature, in the given order, in batches of about `tokens` positions of like length.

    Without dropout or gradients; `half` computes in bf16. What is said of a feature depends on that feature alone.
    """
    found: list[Raw | None] = [None] * len(features)
    training = learner.training
    learner.eval()
    try:
        sizes = [(max(len(text.ids) for text in feature.texts), len(feature.texts)) for feature in features]
        for chosen in _like_lengths(sizes, tokens):
            batch = assemble([features[i] for i in chosen], pad=pad, numbers=chosen, alone=True).to(device)
            with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                raws = learner.raw(batch)
            for i, raw in zip(chosen, raws, strict=True):
                found[i] = raw.float().cpu().numpy()
    finally:
        learner.train(training)
    assert all(raw is not None for raw in found), "every feature is in one batch"
    return [raw for raw in found if raw is not None]


def _like_lengths(sizes: Sequence[tuple[int, int]], tokens: int) -> Iterator[list[int]]:
    """Numbers of items of (length, rows) that together have at most `tokens` positions (or of one item that has more), longest first."""
    order = sorted(range(len(sizes)), key=lambda i: (-sizes[i][0], i))
    chosen: list[int] = []
    rows = 0
    for i in order:
        if chosen and (rows + sizes[i][1]) * sizes[chosen[0]][0] > tokens:
            yield chosen
            chosen, rows = [], 0
        chosen.append(i)
        rows += sizes[i][1]
    if chosen:
        yield chosen
