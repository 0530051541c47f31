"""CharacterBERT (El Boukkouri et al. 2020, arXiv:2010.10392): BERT whose words are read by their characters.

No word is unknown to it. A micro-batch brings the characters of its distinct words once (`Texts.chars_WC`), and `ids_BL` number them. The
vocabulary of words serves masked prediction alone: it has a table of its own, which nothing of the encoder depends on.

Shapes: B rows, L positions, D hidden size, W distinct words of a micro-batch, C characters of a word, N gathered positions, V words.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator
from torch import Tensor, nn

from kitae.models.attention import make_plan
from kitae.models.bert import BertFields, Block, heads_of, rows_of
from kitae.models.bert import body_flops as blocks_flops
from kitae.models.character_cnn import CharacterCnn
from kitae.models.convert import Rows
from kitae.models.encoder import Encoder, EncoderConfig, working_dtype
from kitae.models.family import Family
from kitae.models.layers import dropout, lookup, segment_rows
from kitae.models.recompute import through
from kitae.tensor.batch import Texts
from kitae.tokenization.characters import BEGIN, BEGIN_WORD, END, END_WORD, FEWEST, MASK, PAD

MOST_KERNELS = 16
FILTERS = ((1, 32), (2, 32), (3, 64), (4, 128), (5, 256), (6, 512), (7, 1024))


class CharacterBertConfig(BertFields):
    """Numbers of a CharacterBERT, under the names of helboukkouri's CharacterBertConfig; its mlm_vocab_size is our vocab_size."""

    model_type: Literal["character_bert"] = "character_bert"
    character_embeddings_dim: int = Field(16, ge=1, le=65_536)
    """Width of a character's vector."""
    cnn_filters: tuple[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1, le=65_536)]], ...] = Field(
        FILTERS, min_length=1, max_length=MOST_KERNELS
    )
    """Kinds of kernels: characters that one spans, and how many there are."""
    cnn_activation: Literal["relu", "tanh"] = "relu"
    """Activation behind the convolutions."""
    num_highway_layers: int = Field(2, ge=0, le=MOST_KERNELS)
    """Number of highway layers behind the convolutions."""
    max_word_length: int = Field(50, ge=FEWEST)
    """Characters (bytes of UTF-8) of a word's row, with its two ends: the tokenizer's word_bytes."""
    type_vocab_size: int = Field(2, ge=1)
    """Number of segment kinds."""
    tie_word_embeddings: Literal[False] = False
    """Words have no table among the inputs that could be the output table."""

    @model_validator(mode="after")
    def _fitting_characters(self) -> Self:
        widest = max(size for size, _ in self.cnn_filters)
        if widest > self.max_word_length:
            raise ValueError(f"a kernel of cnn_filters spans {widest} characters, a word has {self.max_word_length}")
        return self

    @property
    def word_characters(self) -> int:
        """Characters of a word's row."""
        return self.max_word_length

    @classmethod
    def room(cls, length: int, pad_token_id: int, word_bytes: int = 0) -> dict[str, object]:
        """The fields that make room for pieces of `length` words, of `word_bytes` characters each, in a new model."""
        numbers = super().room(length, pad_token_id)
        return numbers | {"max_word_length": word_bytes} if word_bytes else numbers

    @classmethod
    def adapted(cls, raw: Mapping[str, object]) -> dict[str, object]:
        """vocab_size, which the authors' releases fill with null or the number of characters, is mlm_vocab_size here."""
        rest = {key: value for key, value in raw.items() if key not in ("vocab_size", "mlm_vocab_size")}
        words = raw.get("mlm_vocab_size")
        return rest if words is None else rest | {"vocab_size": words}

    def huggingface(self) -> dict[str, object]:
        """The fields as helboukkouri's transformers reads them."""
        raw = super().huggingface()
        del raw["vocab_size"]
        return raw | {"mlm_vocab_size": self.vocab_size}

    def padded(self, pad_token_id: int) -> Self:
        """The same: an id of padding is the character 0 of its row, whatever number a tokenizer gives [PAD]."""
        del pad_token_id
        return self


class WordEmbeddings(nn.Module):
    """Word (by its characters) + position + segment -> LayerNorm -> dropout."""

    def __init__(self, config: CharacterBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.rate = config.hidden_dropout_prob
        self.words = CharacterCnn(
            filters=config.cnn_filters,
            width=config.character_embeddings_dim,
            activation=config.cnn_activation,
            highways=config.num_highway_layers,
            out=width,
            deviation=config.initializer_range,
        )
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.segment = nn.Embedding(config.type_vocab_size, width)
        self.norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, ids_BL: Tensor, chars_WC: Tensor, positions_BL: Tensor, segments_BL: Tensor | None = None) -> Tensor:
        """x_BLD of the words that ids number in `chars_WC`: every one goes through the convolutions once."""
        x_BLD = lookup(ids_BL, self.words(chars_WC))
        x_BLD = x_BLD + segment_rows(segments_BL, self.segment.weight)
        x_BLD = x_BLD + lookup(positions_BL, self.position.weight)
        return dropout(self.norm(x_BLD), self.rate, self.training)


class CharacterBertEncoder(Encoder):
    """Numbers of words and their characters -> hidden states."""

    config: CharacterBertConfig

    def __init__(self, config: CharacterBertConfig) -> None:
        super().__init__(config)
        self.embed = WordEmbeddings(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

    def states(self, texts: Texts) -> Iterator[Tensor]:
        """x_BLD before the first block and after each."""
        assert texts.chars_WC is not None, "a CharacterBERT reads the characters of words"
        x_BLD = self.embed(texts.ids_BL, texts.chars_WC, texts.layout.positions_BL, texts.segments_BL)
        dtype = working_dtype(x_BLD)
        plan = make_plan(texts.layout, kind=self.chosen(texts.layout, dtype), dtype=dtype)
        yield x_BLD
        for block in self.blocks:
            x_BLD = through(block, x_BLD, plan, again=self.recomputes)
            yield x_BLD


def body_flops(config: EncoderConfig, length: float) -> float:
    """Training FLOPs per real word: BERT's, and those of a word's way through all places of its characters.

    Per position, as such counts are made, although kitae computes every distinct word once, and padding once.
    """
    assert isinstance(config, CharacterBertConfig)
    chars, longest = config.character_embeddings_dim, config.max_word_length
    convolutions = sum(size * chars * count * (longest - size + 1) for size, count in config.cnn_filters)
    filters = sum(count for _, count in config.cnn_filters)
    front = convolutions + config.num_highway_layers * 2 * filters**2 + filters * config.hidden_size
    return blocks_flops(config, length) + 6 * front


_CNN = "character_bert.embeddings.word_embeddings"
_WORDS: Rows = (
    ("encoder.embed.words.characters.weight", f"{_CNN}._char_embedding_weights"),
    *((f"encoder.embed.words.convolutions.{i}", f"{_CNN}.char_conv_{i}") for i in range(MOST_KERNELS)),
    *((f"encoder.embed.words.highways.{i}.both", f"{_CNN}._highways._layers.{i}") for i in range(MOST_KERNELS)),
    ("encoder.embed.words.project", f"{_CNN}._projection"),
)

CHARACTER_BERT = Family(
    title="CharacterBERT",
    config=CharacterBertConfig,
    encoder=CharacterBertEncoder,
    root="character_bert",
    rows=rows_of("character_bert", words=_WORDS),
    flops=body_flops,
    defaults={"vocab_size": 100_000},
    fixed={
        "pad_character_id": (PAD, None),
        "mask_character_id": (MASK, None),
        "beginning_of_word_character_id": (BEGIN_WORD, None),
        "end_of_word_character_id": (END_WORD, None),
        "bos_character_id": (BEGIN, None),
        "eos_character_id": (END, None),
    },
    heads={head: replace(form, auto="") for head, form in heads_of("character_bert", "CharacterBert").items()},
)
