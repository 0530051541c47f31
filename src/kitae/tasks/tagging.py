"""A tag for each word, or entities as stretches of characters.

Shapes: U units (what gets a tag each), C tags, S windows, T units of the longest window.
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from kitae.core.errors import KitaeError
from kitae.models.compose import TokenClassifier
from kitae.models.family import Head, Model
from kitae.tasks import tags
from kitae.tasks.chains import NEVER, Crf, Floats, Steps, shares, viterbi
from kitae.tasks.encoded import framed
from kitae.tasks.entities import CLASS_F1, F1, PRECISION, RECALL, TAG_ACCURACY, class_scores
from kitae.tasks.examples import Example, Gold, Span
from kitae.tasks.kind import Feature, Kind, Learner, Predicted, Raw
from kitae.tasks.tagging_gold import TaggingConfig, canonical, check_classes, classes_in, from_cell, spans_of
from kitae.tasks.units import Units, placed, units_of, windows_of
from kitae.tensor.batch import Batch
from kitae.tensor.loss import Loss, Term
from kitae.tokenization.tokenizer import Tokenizer

TERM = "tagging"
Chunks = list[tags.Chunk]


@dataclass(frozen=True, kw_only=True)
class TagFeature(Feature):
    """A window. The units that it is asked of stand at places["units"]."""

    units_U3: NDArray[np.int64]
    """Of every unit its word, its first character and the one behind its last."""
    entities: int = 0
    """Entities of the whole example, told by its first window where they are learnt."""
    moved: int = 0
    """Those of them that do not begin and end where units do."""


class Tagging(Learner):
    """Cross-entropy of each unit's tag (Devlin et al., 2019, section 5.3), or the likelihood of the whole sequence under a CRF."""

    encoder: TokenClassifier

    def __init__(self, model: TokenClassifier, crf: Crf | None) -> None:
        super().__init__()
        self.encoder, self.crf = model, crf

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many units are predicted."""
        return {TERM: int(batch.targets["tags"].numel())}

    def forward(self, batch: Batch) -> Loss:
        """One term, in nats. Without tags it is a zero that has a gradient."""
        tags_U = batch.targets["tags"]
        logits_UC = self._logits(batch).float()[: len(tags_U)]
        if self.crf is None:
            total = F.cross_entropy(logits_UC, tags_U, reduction="sum")
        else:
            total = self._likelihood(self.crf, logits_UC, batch)
        return Loss(terms=(Term(name=TERM, sum=total, count=len(tags_U)),))

    def raw(self, batch: Batch) -> Sequence[Tensor]:
        """Of every window the logits [U, C]; behind them, with a CRF, its numbers: [C, C] between tags, [C] first, [C] last."""
        found = list(self._logits(batch).split(batch.targets["units/count"].tolist()))
        if self.crf is None:
            return found
        steps = torch.cat([self.crf.between_CC, self.crf.first_C[None], self.crf.last_C[None]])
        return [torch.cat([logits_UC.float(), steps]) for logits_UC in found]

    def _logits(self, batch: Batch) -> Tensor:
        return self.encoder(batch, batch.targets["units"])

    def _likelihood(self, crf: Crf, logits_UC: Tensor, batch: Batch) -> Tensor:
        edges_S2 = batch.targets["edges"]
        lengths_S = batch.targets["units/count"][: len(edges_S2)]
        if not len(logits_UC):  # nothing to learn
            return logits_UC.sum() + sum(parameter.sum() * 0 for parameter in crf.parameters())
        kept = lengths_S > 0
        sizes = lengths_S.tolist()
        logits_STC = pad_sequence(list(logits_UC.split(sizes)), batch_first=True)[kept]
        tags_ST = pad_sequence(list(batch.targets["tags"].split(sizes)), batch_first=True)[kept]
        return crf.loss(logits_STC, tags_ST, lengths_S[kept], edges_S2[kept])


class TaggingKind(Kind[TaggingConfig]):
    """A tag for each word (parts of speech, chunks, entities), or entities in text without words.

    Needs the words of the file and a tag for each, or spans over characters. Words need not be the tokenizer's: the sentence is
    tokenized as it stands and words are found in it by their places.
    """

    name = "tagging"
    line = "a tag per word, or entities as spans of characters"
    options = TaggingConfig
    lists = words = True
    metrics = {metric.name: metric for metric in (F1, PRECISION, RECALL, CLASS_F1, TAG_ACCURACY)}

    def head(self, options: TaggingConfig) -> Head:
        """See Kind."""
        return "token"

    def outputs(self, labels: Sequence[str], options: TaggingConfig) -> int:
        """See Kind. Raises KitaeError when labels lack a tag that the scheme needs."""
        if options.scheme != "none":
            needed = tags.outputs(tags.classes_of(labels), options.scheme)
            if set(needed) != set(labels):
                odd = sorted(set(needed) ^ set(labels))[0]
                raise KitaeError(f'`labels` and scheme = "{options.scheme}" differ in "{odd}"', cure=f"labels = {list(needed)}")
        return len(labels)

    def labels(self, examples: Sequence[Example], options: TaggingConfig) -> tuple[str, ...]:
        """The tags of every class that occurs, sorted, also those that no word has: B-X and I-X for a class X."""
        return tags.outputs(classes_in(examples, options), options.scheme)

    def canonical(self, example: Example, options: TaggingConfig) -> Example:
        """See Kind: BIO tags or spans, under their present names."""
        return canonical(example, options)

    def check(self, example: Example, labels: Sequence[str], options: TaggingConfig) -> None:
        """See Kind."""
        known = labels if options.scheme == "none" else tags.classes_of(labels)
        check_classes(example, known, options.scheme)

    def gold(self, cell: str, where: str, options: TaggingConfig) -> Gold:
        """See Kind: tags between blanks, or a JSON list of them, or of their numbers."""
        return from_cell(cell, where, options.names)

    def features(
        self, example: Example, tokenizer: Tokenizer, labels: Sequence[str], options: TaggingConfig, *, max_length: int, learn: bool
    ) -> list[Feature]:
        """See Kind: one for each window."""
        text = placed(tokenizer, example.text)
        units = units_of(text, example.words, options.pieces)
        windows = windows_of(len(text.tokens.ids), size=max_length - 2, overlap=options.overlap)
        owners = np.searchsorted([window.first for window in windows], units.tokens_U, side="right") - 1
        owners = np.maximum.accumulate(owners)  # words that share tokens keep their order
        numbers, moved = _numbers(example, units, labels, options) if learn and example.gold is not None else (None, 0)
        table = np.stack([units.words_U, units.starts_U, units.ends_U], axis=1)
        found: list[Feature] = []
        for w, window in enumerate(windows):
            own = np.flatnonzero(owners == w)
            if not len(own) and (len(units) or w):
                continue
            values: dict[str, NDArray[np.int64] | NDArray[np.bool_]] = {}
            if numbers is not None:
                values = {"tags": numbers[own], "edges": np.asarray([[0 in own, len(units) - 1 in own]])}
            found.append(
                TagFeature(
                    texts=(framed(tokenizer, text.tokens.part(window.start, window.end)),),
                    values=values,
                    places={"units": np.clip(units.tokens_U[own], window.start, window.end - 1) - window.start + 1},
                    units_U3=table[own],
                    entities=0 if numbers is None or found else _entities(example),
                    moved=0 if found else moved,
                )
            )
        return found

    def learner(self, model: Model, labels: Sequence[str], options: TaggingConfig, train: Sequence[Example]) -> Tagging:
        """See Kind."""
        assert isinstance(model, TokenClassifier), "the head says what the model is"
        return Tagging(model, Crf(len(labels)) if options.crf else None)

    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: TaggingConfig,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """Tags of the words, or spans where none are given, with "entities" (or "words", of plain tags), each with its characters and a
        score: the mean probability of its tags. "unread" are words that became no token; they get "O", or the first plain tag.
        """
        units_U3 = np.concatenate([feature.units_U3 for feature in features if isinstance(feature, TagFeature)])
        path, shares_U = _decoded(raws, labels, options)
        if options.scheme == "none":
            return _plain(example, units_U3, path, shares_U, labels)
        chunks = tags.chunks_of(path)
        more: dict[str, object] = {}
        if example.words:
            pairs = [(found, chunk) for chunk in chunks if (found := _words(chunk, units_U3[:, 0]))]
            value: Gold = tuple(tags.tags_of([found for found, _ in pairs], len(example.words), "bio"))
            spans = spans_of([found for found, _ in pairs], example.words)
            chunks = [chunk for _, chunk in pairs]
            more |= _unread(example, units_U3)
        else:
            value = spans = tuple(
                Span(start=int(units_U3[start, 1]), end=int(units_U3[end - 1, 2]), label=label) for start, end, label in chunks
            )
        summed = np.append(0.0, shares_U.cumsum())
        scores = [float(summed[end] - summed[start]) / (end - start) for start, end, _ in chunks]
        more["entities"] = [_shown(example, span, score) for span, score in zip(spans, scores, strict=True)]
        return Predicted(value=value, more=more)

    def scores(self, examples: Sequence[Example], predicted: Sequence[Predicted], labels: Sequence[str]) -> dict[str, float]:
        """See Kind; with "f1/CLASS" of every class that occurs."""
        golds, values = [example.gold for example in examples], [one.value for one in predicted]
        return super().scores(examples, predicted, labels) | class_scores(golds, values, labels)

    def constant(self, predicted: Sequence[Predicted]) -> bool:
        """Whether no entity is predicted anywhere, or one plain tag everywhere."""
        return len({item for one in predicted if isinstance(one.value, tuple) for item in one.value} - {tags.OUTSIDE}) <= (
            0 if any("entities" in one.more for one in predicted) else 1
        )

    def remarks(self, features: Sequence[Sequence[Feature]]) -> list[str]:
        """See Kind: how many entities were moved to the borders of tokens."""
        flat = [feature for some in features for feature in some if isinstance(feature, TagFeature)]
        moved, count = sum(feature.moved for feature in flat), sum(feature.entities for feature in flat)
        if not moved:
            return []
        return [f"{moved} of {count} entities to learn do not begin and end where tokens do: they were moved to the tokens that they touch"]


def _entities(example: Example) -> int:
    assert isinstance(example.gold, tuple)
    return len(example.gold) if not example.words else len(tags.chunks_of([str(tag) for tag in example.gold]))


def _numbers(example: Example, units: Units, labels: Sequence[str], options: TaggingConfig) -> tuple[NDArray[np.int64], int]:
    """The tag of every unit as its number, and how many entities do not begin and end where units do."""
    assert isinstance(example.gold, tuple), "canonical"
    number = {label: i for i, label in enumerate(labels)}
    if options.scheme == "none":
        return np.asarray([number[str(example.gold[word])] for word in units.words_U], np.int64), 0
    found: Chunks = []
    moved, free = 0, 0
    for start, end, label in _wanted(example):
        if example.words:
            first, last = np.searchsorted(units.words_U, [start, end]).tolist()
            exact = first < last
        else:
            first = int(np.searchsorted(units.ends_U, start, side="right"))
            last = int(np.searchsorted(units.starts_U, end, side="left"))
            exact = first < last and units.starts_U[first] == start and units.ends_U[last - 1] == end
        moved += not exact
        first = max(first, free)
        if first < last:
            found.append(tags.Chunk(first, last, label))
            free = last
    return np.asarray([number[tag] for tag in tags.tags_of(found, len(units), options.scheme)], np.int64), moved


def _wanted(example: Example) -> Chunks:
    assert isinstance(example.gold, tuple)
    if example.words:
        return tags.chunks_of([str(tag) for tag in example.gold])
    return [tags.Chunk(item.start, item.end, item.label) for item in example.gold if isinstance(item, Span)]


def _decoded(raws: Sequence[Raw], labels: Sequence[str], options: TaggingConfig) -> tuple[list[str], Floats]:
    """The tag of every unit, and its probability."""
    size = len(labels)
    rules = _rules(tuple(labels)) if options.viterbi else None
    if not options.crf:
        logits_UC = np.concatenate(raws).astype(np.float64)
        path = logits_UC.argmax(1).tolist()
        if (
            rules is not None and len(path) and _penalty(path, rules) < 0
        ):  # a sequence of likeliest tags is the likeliest one if it is legal
            path = viterbi(logits_UC, rules)
        raised = np.exp(logits_UC - logits_UC.max(1, keepdims=True))
        shares_UC = raised / raised.sum(1, keepdims=True)
    else:
        tail = raws[0][-(size + 2) :].astype(np.float64)
        learnt = Steps(between_CC=tail[:size], first_C=tail[size], last_C=tail[size + 1])
        logits_UC = np.concatenate([raw[: -(size + 2)] for raw in raws]).astype(np.float64)
        path = viterbi(logits_UC, learnt if rules is None else learnt.plus(rules))
        shares_UC = shares(logits_UC, learnt)
    return [labels[i] for i in path], shares_UC[np.arange(len(path)), path]


@functools.lru_cache(maxsize=8)
def _rules(labels: tuple[str, ...]) -> Steps:
    """What the scheme adds to a sequence: nothing where it is legal."""
    between, first, last = (np.where(allowed, 0.0, NEVER) for allowed in tags.legal(labels))
    return Steps(between_CC=between, first_C=first, last_C=last)


def _penalty(path: Sequence[int], rules: Steps) -> float:
    return float(rules.first_C[path[0]] + rules.between_CC[path[:-1], path[1:]].sum() + rules.last_C[path[-1]])


def _words(chunk: tags.Chunk, words_U: NDArray[np.int64]) -> tags.Chunk | None:
    """A chunk of units as one of words: those whose first unit lies in it, and what lies between them."""
    firsts = [int(words_U[u]) for u in range(chunk.start, chunk.end) if u == 0 or words_U[u] != words_U[u - 1]]
    return tags.Chunk(firsts[0], firsts[-1] + 1, chunk.label) if firsts else None


def _plain(example: Example, units_U3: NDArray[np.int64], path: list[str], shares_U: Floats, labels: Sequence[str]) -> Predicted:
    words = units_U3[:, 0]
    firsts = np.flatnonzero(np.append(True, words[1:] != words[:-1])) if len(words) else words
    shown = [_shown(example, Span(start=int(units_U3[u, 1]), end=int(units_U3[u, 2]), label=path[u]), float(shares_U[u])) for u in firsts]
    if not example.words:
        return Predicted(value=tuple(path[u] for u in firsts), more={"words": shown})
    value = [tags.OUTSIDE if tags.OUTSIDE in labels else labels[0]] * len(example.words)
    for u in firsts:
        value[int(words[u])] = path[u]
    return Predicted(value=tuple(value), more={"words": shown} | _unread(example, units_U3))


def _unread(example: Example, units_U3: NDArray[np.int64]) -> dict[str, object]:
    """Numbers of the words that became no token, where there are any."""
    found = sorted(set(range(len(example.words))) - set(units_U3[:, 0].tolist()))
    return {"unread": found} if found else {}


def _shown(example: Example, span: Span, score: float) -> dict[str, object]:
    return {**vars(span), "text": example.text[span.start : span.end], "score": score}
