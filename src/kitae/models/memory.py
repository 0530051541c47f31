"""What training a model takes of a device's memory, part by part: formulas of what this implementation keeps, without running it.

Shapes: T positions of a micro-batch, L of a row, S attended, D hidden, E embedding, I inside the feed-forward part, N heads, R rows of a
position table, V vocabulary, P predicted positions; w bytes of a working number. Kept for the backward pass of one post-norm layer, for
every position: queries, keys and values, what was attended, both LayerNorms with their inputs (8 D), the feed-forward part before its
activation (I), one byte for every number that dropout met (2 D), and on a CPU the probabilities (N * L, and their dropout's bytes).
What else there is at the worst moment of the backward pass was found by watching every tensor: tests/models/test_memory_formulas.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from kitae.models.attention import LONG_ROW
from kitae.models.character_bert import CharacterBertConfig
from kitae.models.cost import Objective
from kitae.models.deberta_config import DisentangledConfig
from kitae.models.encoder import EncoderConfig, PostNormConfig
from kitae.models.modernbert_config import ModernBertConfig
from kitae.models.presets import Architecture
from kitae.models.towers import TwoTowerConfig
from kitae.models.windows import SMALLEST, pays

BYTES = {"fp64": 8, "fp32": 4, "bf16": 2, "fp16": 2}
CHUNK = 64
"""Predictions whose softmax is worked out at a time on a CPU."""
LOGITS = 1 << 24
"""Logits that Electric's generator has at a time (kitae.objectives.vocabulary)."""
DISTINCT = 0.4
"""Share of different words among those of a micro-batch, measured on Japanese text; only CharacterBERT asks."""
PLACES = 0.35
"""Share of a word's places that are worked out on a CPU, where short words stop early."""


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One micro-batch, and where it is computed."""

    rows: int
    length: int
    """Positions of a row."""
    context: float
    """Positions that a position attends to in the mean."""
    mask_rate: float = 0.15
    """Share of the positions with logits."""
    precision: str = "fp32"
    device: Literal["cpu", "cuda"] = "cpu"
    frozen_embeddings: bool = False
    frozen_layers: int = 0
    """From the first one on."""
    recompute: bool = False
    """Whether of every layer its input alone is kept (activation checkpointing)."""

    @property
    def positions(self) -> int:
        """T."""
        return self.rows * self.length

    @property
    def width(self) -> int:
        """w."""
        return BYTES[self.precision]

    @property
    def flash(self) -> bool:
        """Whether attention is computed without a matrix of probabilities."""
        return self.device == "cuda" and self.width == 2


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Bytes that stay for the whole training."""

    weights: float
    """Masters, and working copies in half precision; frozen weights with the exact copies that are saved."""
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All three."""
        return self.weights + self.gradients + self.optimizer


def persistent(trained: float, frozen: float, *, matrices: float, precision: str, optimizer: str) -> Weights:
    """Of so many trained and frozen parameters; `matrices` are those of the trained that Muon moves with one number instead of two."""
    exact, work = 8 if precision == "fp64" else 4, BYTES[precision]
    copies = work if work < exact else 0
    kept = 2 * trained - (matrices if optimizer == "muon" else 0)
    return Weights(weights=(exact + copies) * trained + (exact + work) * frozen, gradients=exact * trained, optimizer=exact * kept)


class Peak(NamedTuple):
    """The worst moment of a step, beside what stays."""

    activations: float
    logits: float

    @property
    def total(self) -> float:
        """In bytes."""
        return self.activations + self.logits


class _Body(NamedTuple):
    kept: float
    """By the whole encoder, for its backward pass."""
    working: float
    """What the backward pass of one layer needs more than what it has freed by then."""


def peak(architecture: Architecture, objective: Objective, at: Pass, *, shared: bool = True) -> Peak:
    """Bytes at the worst moment of the forward and backward pass of one micro-batch. `shared`: the halves have one embedding module."""
    return max(_moments(architecture, objective, at, shared), key=lambda moment: moment.total)


def _moments(architecture: Architecture, objective: Objective, at: Pass, shared: bool) -> Iterator[Peak]:
    encoder, generator = architecture.encoder, architecture.generator
    if objective == "mlm":
        yield from _predicting(encoder, at, _body(encoder, at))
        return
    waiting = logits = 0.0  # what the generator keeps while the discriminator works
    held = _table(encoder, at) if shared else 0.0
    if generator is not None and objective == "electric":
        towers = TwoTowerConfig.of(generator)
        small, predicted = _body(towers, at), _cloze(towers, at)
        waiting = small.kept + predicted
        yield Peak(waiting + _table(towers, at), 2 * min(at.positions * towers.vocab_size, LOGITS) * at.width)
        yield Peak(small.kept + small.working + _table(towers, at) + held, 0.0)
    elif generator is not None:
        small = _body(generator, at)
        waiting, logits = small.kept + _head(generator, at), _logits(generator, at)
        yield from _predicting(generator, at, small, held=held)
    main, head = _body(encoder, at), at.positions * encoder.hidden_size * at.width
    yield Peak(waiting + main.kept + 4 * head, logits)
    yield Peak(waiting + main.kept + main.working, logits)
    yield Peak(waiting + _table_made(encoder, at), logits)


def _predicting(c: EncoderConfig, at: Pass, body: _Body, held: float = 0.0) -> Iterator[Peak]:
    """The moments of a masked language model; `held` bytes of gradients wait throughout its backward pass."""
    predicted, logits, table = _head(c, at), _logits(c, at), _table(c, at)
    yield Peak(body.kept + predicted, logits + _softmax(c, at))
    yield Peak(body.kept + predicted + table + held, logits)
    yield Peak(body.kept + body.working + table + held, 0.0)
    yield Peak(table + _table_made(c, at) + held, 0.0)


def _cloze(c: EncoderConfig, at: Pass) -> float:
    """Kept by Electric's predictions at every position: states of both towers, the head, and the slopes of its inputs in fp32."""
    wide, exact = c.embedding_width, max(4, at.width)
    return at.positions * ((2 * c.hidden_size + 3 * wide) * at.width + wide * exact) + c.vocab_size * wide * exact


def _predictions(at: Pass) -> float:
    return at.mask_rate * at.positions


def _head(c: EncoderConfig, at: Pass) -> float:
    """Kept by the layers before the vocabulary: gathered states, dense layer, activation, LayerNorm."""
    return _predictions(at) * (c.hidden_size + 3 * c.embedding_width) * at.width


def _logits(c: EncoderConfig, at: Pass) -> float:
    """One matrix of logits, or of their slopes."""
    return _predictions(at) * c.vocab_size * at.width


def _softmax(c: EncoderConfig, at: Pass) -> float:
    """What working out the loss takes beside the logits: slopes, and probabilities in fp32 (all at once on CUDA)."""
    exact = max(4, at.width)
    if at.device == "cpu":
        return _logits(c, at) + min(CHUNK, _predictions(at)) * c.vocab_size * exact
    return _logits(c, at) + _predictions(at) * c.vocab_size * exact * (1 if c.vocab_size % 256 == 0 else 2)


def _table(c: EncoderConfig, at: Pass) -> float:
    """A gradient of the token table; CharacterBERT has one of its head's."""
    return 0.0 if at.frozen_embeddings else c.vocab_size * c.embedding_width * at.width


def _table_made(c: EncoderConfig, at: Pass) -> float:
    """The embeddings' gradient when it is made: with the gradient of all positions; on a CPU, half precision adds up in fp32."""
    if isinstance(c, CharacterBertConfig) or at.frozen_embeddings:
        return 0.0
    exact = 4 if at.device == "cpu" and at.width == 2 else 0
    return c.embedding_width * (c.vocab_size * (at.width + exact) + at.positions * (at.width + exact))


def _body(c: EncoderConfig, at: Pass) -> _Body:
    if isinstance(c, TwoTowerConfig):
        one = _layers(c, at)
        return _Body(2 * one.kept + _embeddings(c, at) + 2 * at.positions * c.hidden_size * at.width, one.working)
    layers = _layers(c, at)
    return _Body(layers.kept + _embeddings(c, at), layers.working)


def _embeddings(c: EncoderConfig, at: Pass) -> float:
    if at.frozen_embeddings:
        return 0.0
    wide, hidden = c.embedding_width, c.hidden_size
    dropped = wide if _dropout(c) else 0
    total: float = at.positions * ((2 * wide + (hidden if wide != hidden else 0)) * at.width + dropped + 8)
    if isinstance(c, DisentangledConfig):
        total += at.positions * (2 * hidden * at.width + 8)
    if isinstance(c, CharacterBertConfig):
        filters, widest = sum(count for _, count in c.cnn_filters), max(size for size, _ in c.cnn_filters)
        places = c.max_word_length * (PLACES if at.device == "cpu" else 1.0)
        words = DISTINCT * at.positions
        total += words * (places * (filters + widest * c.character_embeddings_dim) + (3 + 5 * c.num_highway_layers) * filters) * at.width
    return total


def _dropout(c: EncoderConfig) -> bool:
    return c.hidden_dropout_prob > 0 if isinstance(c, PostNormConfig) else False


def _attention_dropout(c: EncoderConfig) -> bool:
    return (c.attention_probs_dropout_prob if isinstance(c, PostNormConfig) else float(str(c.model_dump().get("attention_dropout", 0)))) > 0


def _pairs(c: EncoderConfig, at: Pass) -> list[float]:
    """Numbers of attention's matrix for every position, layer by layer; 0 where none is kept."""
    heads, layers = c.num_attention_heads, c.num_hidden_layers
    if at.device == "cuda":
        return [heads * at.length if isinstance(c, DisentangledConfig) else 0.0] * layers
    whole: float = heads * (at.length if at.length <= LONG_ROW else at.context)
    if not isinstance(c, ModernBertConfig) or not pays(at.length, c.window):
        return [whole] * layers
    size = max(c.window, SMALLEST)
    banded = heads * 3 * size * (1 + size / at.length)
    return [whole if c.is_global(number) else banded for number in range(layers)]


def _layers(c: EncoderConfig, at: Pass) -> _Body:
    """All layers, and what the backward pass takes beside them in the worst of them."""
    hidden, w, gated = c.hidden_size, at.width, isinstance(c, ModernBertConfig)
    inner = c.intermediate_size
    fed = 2 * inner if gated else inner
    common = (8 * hidden + fed) * w + (2 * hidden if _dropout(c) else 0) + 16
    if at.device == "cuda":
        common += 4 * c.num_attention_heads + (0 if at.flash else hidden * w)
    pair = w + (1 if _attention_dropout(c) and at.device == "cpu" else 0)
    fixed = _positions(c, at)
    together = at.positions if at.length <= LONG_ROW or at.device == "cuda" else at.context  # long rows go piece by piece
    feeding = ((5 if gated else 3) * inner + hidden) * w * at.positions
    kept = worst = 0.0
    frozen = at.frozen_layers if at.frozen_embeddings else 0  # below them nothing asks for a gradient
    for pairs in _pairs(c, at)[frozen:]:
        inside = (common + pairs * pair) * at.positions + fixed
        attending = 3 * pairs * w * together + (3 * hidden - fed) * w * at.positions
        kept += hidden * w * at.positions if at.recompute else inside
        worst = max(worst, kept + (inside if at.recompute else 0.0) + max(feeding, attending) + fixed)
    return _Body(kept, worst - kept)


def _positions(c: EncoderConfig, at: Pass) -> float:
    """What a layer of disentangled attention keeps of the table of relative positions, whatever the number of rows."""
    if not isinstance(c, DisentangledConfig):
        return 0.0
    rows, terms, hidden, w = 2 * c.span, len(c.pos_att_type), c.hidden_size, at.width
    spread = (2 * at.length if at.length <= LONG_ROW else 2 * at.context) * (2 if w == 2 else 1)
    return ((1 + terms) * rows * hidden + terms * spread * hidden) * w + (rows * hidden if _dropout(c) else 0)
