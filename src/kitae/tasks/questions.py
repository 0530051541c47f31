"""Questions whose answer is a stretch of a text, and those that have none.

The question is the example's `text`, the context its `second`, the gold a tuple of `Answer`, empty where there is no answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kitae.core.config import Config
from kitae.core.errors import KitaeError
from kitae.models.compose import JointSpanFinder, SpanFinder
from kitae.models.family import Head, Model
from kitae.tasks.answer_scores import METRICS, RULES, squad2_fields, usable_threshold
from kitae.tasks.answers import Search, best_answers, best_text, nothing, null_odds, official, shares
from kitae.tasks.encoded import Encoded, framed, separators, tokens_of
from kitae.tasks.examples import Answer, Example, Gold
from kitae.tasks.finding import CONTEXT, JointSpans, Spans
from kitae.tasks.kind import Feature, Kind, Learner, Predicted, Raw
from kitae.tasks.located import Located, located
from kitae.tasks.spans import Window, falls_on_tokens, tokens_of_answer, windows
from kitae.tokenization.tokenizer import Tokenizer

LEAST_ROOM = 8
"""Tokens of the context that a window has at least."""
THRESHOLD = "null_threshold"
Places = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class SpanFeature(Feature):
    """A window to learn from."""

    answered: bool
    """Whether the question has an answer."""
    exact: bool
    """Whether its answer begins and ends where tokens do."""


class SpanConfig(Config):
    """How questions are answered. The defaults are those of google-research/electra and BERT's run_squad.py, with the simple head."""

    answering: Literal["simple", "joint"] = "simple"
    """"simple": start and end apart from each other, as in transformers; "joint": the end given the start, and whether there is an
    answer at all, as in google-research/electra."""
    unanswerable: bool = False
    """Whether there are questions without an answer (SQuAD 2.0)."""
    max_query_length: int = Field(64, ge=1)
    """Tokens of a question; the rest of a longer one is cut off."""
    doc_stride: int = Field(128, ge=1)
    """Tokens from the start of a window of the context to the start of the next."""
    n_best: int = Field(20, ge=1)
    """Answers in the list of the best; and, with the simple head, starts and ends of each window that are looked at."""
    beam: int = Field(20, ge=1)
    """Starts of each window, and ends of each start, that the joint head looks at."""
    max_answer_length: int = Field(30, ge=1)
    """Tokens of an answer that is given."""
    answerable_weight: float = Field(0.5, ge=0)
    """Weight of the joint head's loss of answerability, where `unanswerable`."""
    threshold: float | None = None
    """Odds of no answer above which none is given (-2.75 in google-research/electra); by default chosen on validation."""
    threshold_metric: Literal["f1", "exact", "f1_v1", "exact_v1", "f1_characters", "exact_characters"] = "f1"
    """What the threshold is chosen by."""
    markers: tuple[str, ...] = ()
    """Strings of the context that become a separator each ("[SEP]" between title and paragraph in JSQuAD)."""


class SpanKind(Kind[SpanConfig]):
    """Extractive answering of questions over windows of long contexts."""

    name = "span"
    line = "the stretch of a text that answers a question, or none"
    options = SpanConfig
    metrics = METRICS
    lists = True

    def head(self, options: SpanConfig) -> Head:
        """See Kind."""
        return "joint" if options.answering == "joint" else "span"

    def outputs(self, labels: Sequence[str], options: SpanConfig) -> int:
        """See Kind."""
        return 2

    def labels(self, examples: Sequence[Example], options: SpanConfig) -> tuple[str, ...]:
        """See Kind."""
        return ()

    def check(self, example: Example, labels: Sequence[str], options: SpanConfig) -> None:
        """Answers stand in the context where they are said to; there are some unless `unanswerable`."""
        if not isinstance(example.gold, tuple) or not all(isinstance(one, Answer) for one in example.gold):
            raise KitaeError("this is no list of answers", cure="give answers with their places", where=example.where)
        context = _context_of(example)
        if not example.gold and not options.unanswerable:
            raise KitaeError("this question has no answer", cure="say kind_config.unanswerable = true, or remove it", where=example.where)
        for one in example.gold:
            assert isinstance(one, Answer)
            if not one.text.strip():
                raise KitaeError("an answer is empty", cure="fill it in or remove it", where=example.where)
            if one.start >= 0 and not context.startswith(one.text, one.start):
                what = f'the answer "{shown(one.text)}" does not stand in the context at character {one.start}'
                raise KitaeError(what, cure="correct `start` or the text", where=example.where)

    def gold(self, cell: str, where: str, options: SpanConfig) -> Gold:
        """A list of JSON, [{"start": 3, "text": "Kyoto"}]; [] or an empty cell where there is no answer."""
        try:
            listed = json.loads(cell) if cell else []
        except (ValueError, RecursionError):
            listed = None
        if not isinstance(listed, list) or not all(_is_answer(one) for one in listed):
            cure = 'write a list: [{"start": 3, "text": "Kyoto"}]'
            raise KitaeError(f'"{shown(cell)}" is no list of answers', cure=cure, where=where)
        return tuple(Answer(start=one["start"], text=one["text"]) for one in listed)

    def features(
        self, example: Example, tokenizer: Tokenizer, labels: Sequence[str], options: SpanConfig, *, max_length: int, learn: bool
    ) -> list[Feature]:
        """A window of the context each. None at all to learn from where no token covers the first answer."""
        question = tokens_of(tokenizer, example.text, most=options.max_query_length).part(0, options.max_query_length)
        room = max_length - 2 - separators(tokenizer) - len(question.ids)
        if room < LEAST_ROOM:
            what = f"max_length = {max_length} leaves {room} tokens for the context beside a question of {len(question.ids)}"
            raise KitaeError(what, cure="raise max_length or lower kind_config.max_query_length", where=example.where)
        context = _located(tokenizer, _context_of(example), options.markers)
        known = learn and example.gold is not None
        span = _span(example, context) if known else None
        if known and example.gold and span is None:
            return []
        exact = span is None or falls_on_tokens(_first(example), _context_of(example), context.places)
        first = 1 + len(question.ids) + separators(tokenizer)
        found: list[Feature] = []
        for window in windows(len(context.tokens.ids), room=room, stride=options.doc_stride):
            text = _small(framed(tokenizer, question, context.tokens.part(window.start, window.end)))
            places = {CONTEXT: cast(Places, np.arange(first, first + window.end - window.start, dtype=np.int32))}
            if known:
                values = _values(span, window, first)
                found.append(SpanFeature(texts=(text,), values=values, places=places, answered=span is not None, exact=exact))
            else:
                offsets = np.zeros((len(text.ids), 2), np.int32)
                offsets[first:-1] = context.places[window.start : window.end]
                found.append(Feature(texts=(text,), places=places, offsets=cast(Places, offsets)))
        return found

    def learner(self, model: Model, labels: Sequence[str], options: SpanConfig, train: Sequence[Example]) -> Learner:
        """See Kind."""
        if options.answering == "joint":
            assert isinstance(model, JointSpanFinder), "the head says what the model is"
            return JointSpans(model, beam=options.beam, weight=options.answerable_weight if options.unanswerable else 0.0)
        assert isinstance(model, SpanFinder), "the head says what the model is"
        return Spans(model, n_best=options.n_best)

    def decode(
        self,
        example: Example,
        features: Sequence[Feature],
        raws: Sequence[Raw],
        labels: Sequence[str],
        options: SpanConfig,
        tuned: Mapping[str, float],
    ) -> Predicted:
        """The best answer, or () where the odds of there being none are above the threshold; "nbest", and "null_odds" if `unanswerable`.

        Every answer is `context[start:end]`. "unaligned" says that no answer that counts as right falls on tokens.
        """
        context, search = _context_of(example), Search(n_best=options.n_best, longest=options.max_answer_length)
        places = [_offsets(feature) for feature in features]
        found = best_answers(context, raws, places, _windows_of(features, options.doc_stride), search)
        listed = [
            {"text": one.answer.text, "start": one.answer.start, "end": one.answer.start + len(one.answer.text), "probability": probability}
            for one, probability in zip(found, shares(found), strict=True)
        ]
        more: dict[str, object] = {"nbest": listed}
        value = (found[0].answer,) if found else ()
        if options.unanswerable:
            odds = nothing(raws) - (found[0].score if found and options.answering == "simple" else 0.0)
            more["null_odds"] = odds
            threshold = tuned.get(THRESHOLD, options.threshold)
            if threshold is not None and odds > threshold:
                value = ()
        if _unaligned(example, context, places):
            more["unaligned"] = True
        return Predicted(value=value, more=more)

    def tune(self, examples: Sequence[Example], predicted: Sequence[Predicted], options: SpanConfig) -> dict[str, float]:
        """The odds above which no answer is given: `threshold`, or the best on these questions. Nothing where all have an answer."""
        if not options.unanswerable:
            return {}
        if options.threshold is not None:
            return {THRESHOLD: options.threshold}
        rule = RULES[options.threshold_metric]
        rows = [
            (null_odds(one), rule.score(example.gold, best_text(one)), bool(example.gold), bool(best_text(one)))
            for example, one in zip(examples, predicted, strict=True)
        ]
        return {THRESHOLD: usable_threshold(rows)}

    def remarks(self, features: Sequence[Sequence[Feature]]) -> list[str]:
        """See Kind: answers that tokens cannot give exactly, or no window holds; questions of which nothing can be learnt."""
        every = [[feature for feature in some if isinstance(feature, SpanFeature)] for some in features]
        asked = [some for some in every if some and some[0].answered]
        lost, moved = sum(not some for some in every), sum(not some[0].exact for some in asked)
        cut = sum(all(feature.values["impossible"].all() for feature in some) for some in asked)
        found = []
        if lost:
            found.append(f"{lost} of {len(every)} questions teach nothing: no place is known of their answers, or no token covers them")
        if moved:
            found.append(
                f"{moved} of {len(asked)} answers to learn do not begin and end where tokens do: the tokens that they touch are learnt"
            )
        if cut:
            found.append(f"{cut} of {len(asked)} answers to learn stand in no window as a whole: raise max_length, or lower doc_stride")
        return found

    def files(self, examples: Sequence[Example], predicted: Sequence[Predicted]) -> dict[str, object]:
        """See Kind: what the official scripts read (see `kitae.tasks.answers.official`)."""
        return official([example.id for example in examples], predicted)

    def scores(self, examples: Sequence[Example], predicted: Sequence[Predicted], labels: Sequence[str]) -> dict[str, float]:
        """Every metric; the other fields of SQuAD 2.0 where some question has no answer; how many answers do not fall on tokens."""
        found = super().scores(examples, predicted, labels)
        golds, values = [example.gold for example in examples], [one.value for one in predicted]
        if not all(golds) or any("null_odds" in one.more for one in predicted):
            found |= squad2_fields(golds, values, [best_text(one) for one in predicted], [null_odds(one) for one in predicted])
        return {**found, "unaligned": float(sum("unaligned" in one.more for one in predicted))}


def shown(text: str) -> str:
    """The beginning of a text, as an error shows it."""
    line = text.replace("\n", " ")
    return line if len(line) <= 60 else line[:59] + "…"


@lru_cache(maxsize=2)
def _located(tokenizer: Tokenizer, context: str, markers: tuple[str, ...]) -> Located:
    """Questions of one context stand together in files; the context is cut into tokens once for them all."""
    return located(tokenizer, context, markers=markers)


def _small(text: Encoded) -> Encoded:
    """In fewer bytes: a context of 20,000 characters has forty windows, and all of a task's are held."""
    assert text.segments is not None, "a pair"
    return replace(text, ids=cast(Places, text.ids.astype(np.int32)), segments=cast(Places, text.segments.astype(np.int8)))


def _context_of(example: Example) -> str:
    if example.second is None:
        raise KitaeError("a question needs a context", cure="name its column: `second`", where=example.where)
    return example.second


def _is_answer(one: object) -> bool:
    if not isinstance(one, dict) or set(one) != {"start", "text"} or not isinstance(one["text"], str):
        return False
    return isinstance(one["start"], int) and not isinstance(one["start"], bool) and one["start"] >= -1


def _span(example: Example, context: Located) -> tuple[int, int] | None:
    """First and last token of the first answer; None where there is none, its place is unknown, or no token covers it."""
    return tokens_of_answer(_first(example), context.places)


def _first(example: Example) -> Answer:
    """The first answer whose place is known, which is the one to learn; of no letters and no place where there is none."""
    assert isinstance(example.gold, tuple), "checked"
    answers = (one for one in example.gold if isinstance(one, Answer) and one.start >= 0)
    return next(answers, Answer(start=-1, text=""))


def _values(span: tuple[int, int] | None, window: Window, first: int) -> dict[str, NDArray[np.generic]]:
    """What a window teaches; an answer that does not stand in it as a whole is none."""
    inside = span is not None and window.start <= span[0] and span[1] < window.end
    start, end = (span[0] - window.start + first, span[1] - window.start + first) if span is not None and inside else (0, 0)
    return {"start": np.asarray([start]), "end": np.asarray([end]), "impossible": np.asarray([not inside], np.float32)}


def _offsets(feature: Feature) -> NDArray[np.int64]:
    assert feature.offsets is not None, "made to predict"
    return feature.offsets


def _windows_of(features: Sequence[Feature], stride: int) -> list[Window]:
    """The windows of features, by the rule that made them."""
    counts = [len(feature.places[CONTEXT]) for feature in features]
    step = min(counts[0], stride)
    return [Window(start=i * step, end=i * step + count) for i, count in enumerate(counts)]


def _unaligned(example: Example, context: str, places: Sequence[NDArray[np.int64]]) -> bool:
    """Whether answers have places and none of them falls on tokens."""
    if not isinstance(example.gold, tuple):
        return False
    placed = [one for one in example.gold if isinstance(one, Answer) and one.start >= 0]
    return bool(placed) and not any(falls_on_tokens(one, context, np.concatenate(places)) for one in placed)
