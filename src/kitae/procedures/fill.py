"""Masks in new texts, filled by a masked language model as transformers' fill-mask pipeline does it.

What is predicted for a text depends on that text only. Shapes: N masks, V vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kitae.core.errors import KitaeError
from kitae.models.compose import MaskedLm
from kitae.models.folder import Part
from kitae.models.folder import load as load_model
from kitae.procedures.inputs import Reads
from kitae.report.tables import neutral
from kitae.tasks.batches import by_length
from kitae.tasks.encoded import Encoded
from kitae.tasks.examples import Example
from kitae.tokenization.characters import NumberedCache, vocabulary_rows
from kitae.tokenization.tokenizer import Tokenizer

TOKENS = 4096  # positions of one batch
Rows = NDArray[np.uint16]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One way to fill a mask."""

    id: int
    """Of the token."""
    token: str
    """As text; "" for a row of the table that the tokenizer has no token for."""
    score: float
    """Its probability, among all tokens, at this mask while the other masks stay masks."""


@dataclass(frozen=True, kw_only=True)
class Filling:
    """The candidates of every mask of a text, from left to right, the likeliest first."""

    masks: tuple[tuple[Candidate, ...], ...]

    def rows(self) -> Iterator[list[str]]:
        """A row of a table per candidate; masks and ranks count from 1."""
        for mask, candidates in enumerate(self.masks, start=1):
            for rank, found in enumerate(candidates, start=1):
                yield [str(mask), str(rank), neutral(found.token), str(found.id), f"{found.score:.6g}"]

    def json(self) -> dict[str, object]:
        """The same as JSON."""
        shown = [[{"token": c.token, "id": c.id, "score": float(f"{c.score:.6g}")} for c in mask] for mask in self.masks]
        return {"masks": shown}


class Filler:
    """A masked language model and its tokenizer, ready to fill; in fp32. `kitae.procedures.predict.Predictor` reads its texts.

    The mask is the tokenizer's own name of it, such as [MASK] or <mask>. Lines of a text are separate sentences.
    """

    header = ("mask", "rank", "token", "token_id", "score")

    def __init__(self, model: MaskedLm, tokenizer: Tokenizer, *, positions: int, candidates: int = 5, reads: Reads | None = None) -> None:
        """positions: the longest text in tokens, special ones included. Raises KitaeError for more candidates than tokens."""
        size = model.config.vocab_size
        if candidates > size:
            raise KitaeError(f"candidates = {candidates}, but the model knows {size} tokens", cure=f"set candidates = {size} or less")
        self.wanted = tokenizer.definition.names[2]
        self._model, self._tokenizer, self._room = model.eval(), tokenizer, positions - 2
        self._candidates, self.reads = candidates, reads or Reads()
        self._device = next(model.parameters()).device
        self._rows = vocabulary_rows(tokenizer.definition) if tokenizer.speller is not None else np.zeros((0, 0), np.uint16)

    @classmethod
    def of(cls, part: Part, tokenizer: Tokenizer, *, device: torch.device, candidates: int = 5, reads: Reads | None = None) -> "Filler":
        """From a part with a vocabulary head: a masked language model, or an ELECTRA's generator."""
        model = load_model(part)
        assert isinstance(model, MaskedLm), "the head says what the model is"
        return cls(model.to(device), tokenizer, positions=part.config.positions, candidates=candidates, reads=reads)

    def answers(self, examples: Sequence[Example]) -> list[Filling | None]:
        """One filling per text, in their order, None for a text without a mask.

        A text that is too long for the model is seen through windows: one around each mask, with as much text on either side as
        fits, so that a mask at the end of a long text is filled as well as one at its beginning.
        """
        numbers = None if self._tokenizer.speller is None else NumberedCache(self._tokenizer.definition)
        ids = self._ids([example.text for example in examples], numbers)
        rows = None if numbers is None else np.concatenate([self._rows, numbers.rows()])
        return self._fill(ids, rows)

    def _ids(self, texts: Sequence[str], numbers: NumberedCache | None) -> list[list[int]]:
        lines = [text.split("\n") for text in texts]
        found = iter(self._tokenizer.masked([line for text in lines for line in text], numbers))
        return [[number for _ in text for number in next(found)] for text in lines]

    @torch.no_grad()
    def _fill(self, texts: Sequence[list[int]], rows: Rows | None) -> list[Filling | None]:
        """`rows`: the characters of every id, for models that read them."""
        mask = self._tokenizer.special.mask
        windows: list[Encoded] = []
        asked: list[list[tuple[int, int]]] = []  # per window: which text, and where in the window the mask stands
        for number, ids in enumerate(texts):
            for start, places in _windows([place for place, token in enumerate(ids) if token == mask], len(ids), self._room):
                windows.append(self._window(ids[start : start + self._room], rows))
                asked.append([(number, place - start + 1) for place in places])
        found: list[list[tuple[Candidate, ...]]] = [[] for _ in windows]
        for chosen, batch in by_length(windows, tokens=TOKENS, pad=self._tokenizer.special.pad):
            length = batch.ids_BL.shape[1]
            picks = [row * length + place for row, window in enumerate(chosen) for _, place in asked[window]]
            here = batch.to(self._device)
            best = self._best(self._model(here, torch.tensor(picks, device=self._device)))
            for window in chosen:
                found[window] = list(itertools.islice(best, len(asked[window])))
        masks: list[list[tuple[Candidate, ...]]] = [[] for _ in texts]
        for asking, candidates in zip(asked, found, strict=True):
            for (number, _), row in zip(asking, candidates, strict=True):
                masks[number].append(row)
        return [Filling(masks=tuple(rows)) if rows else None for rows in masks]

    def _window(self, ids: Sequence[int], rows: Rows | None) -> Encoded:
        special = self._tokenizer.special
        whole = np.asarray([special.cls, *ids, special.sep], np.int64)
        spelled = () if rows is None else tuple(row.tobytes() for row in rows[whole])
        return Encoded(ids=whole, words=np.full(len(whole), -1, np.int32), rows=spelled)

    def _best(self, logits_NV: torch.Tensor) -> Iterator[tuple[Candidate, ...]]:
        scores, ids = logits_NV.float().softmax(-1).topk(self._candidates)
        for values, numbers in zip(scores.tolist(), ids.tolist(), strict=True):
            yield tuple(Candidate(id=i, token=self._shown(i), score=score) for i, score in zip(numbers, values, strict=True))

    def _shown(self, number: int) -> str:
        return self._tokenizer.decode([number]) if number < self._tokenizer.vocab_size else ""


def _windows(places: Sequence[int], length: int, room: int) -> list[tuple[int, list[int]]]:
    """(start of a window of `room` tokens, the masks that it is for): one window for a text that fits, else one around each mask."""
    if length <= room:
        return [(0, list(places))] if places else []
    found: dict[int, list[int]] = {}
    for place in places:
        found.setdefault(min(max(place - room // 2, 0), length - room), []).append(place)
    return list(found.items())
