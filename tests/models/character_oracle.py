"""A CharacterBERT composed from plain torch modules and transformers' BERT blocks, with the authors' names of weights."""

import json
from pathlib import Path

import torch
import transformers
from character_weights import FILTERS, HIGHWAYS, NUMBERS, WIDTH, draw
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEncoder, BertLMPredictionHead, BertPooler

WORDS = 23
RAW = {
    **NUMBERS,
    "model_type": "character_bert",
    "mlm_vocab_size": WORDS,
    "vocab_size": None,
    "tie_word_embeddings": False,
    "cnn_filters": FILTERS,
    "character_embeddings_dim": WIDTH,
    "num_highway_layers": HIGHWAYS,
    "max_word_length": 12,
    "type_vocab_size": 2,
}


class Highways(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self._layers = nn.ModuleList(nn.Linear(width, 2 * width) for _ in range(HIGHWAYS))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self._layers:
            new, gate = layer(x).chunk(2, dim=-1)
            x = gate.sigmoid() * x + (1 - gate.sigmoid()) * new.relu()
        return x


class Words(nn.Module):
    """A convolution for every position, over all characters of its row."""

    def __init__(self, filters: list[list[int]], width: int, out: int) -> None:
        super().__init__()
        self._char_embedding_weights = nn.Parameter(torch.empty(263, width))
        for number, (size, count) in enumerate(filters):
            self.add_module(f"char_conv_{number}", nn.Conv1d(width, count, size))
        self.count = len(filters)
        total = sum(count for _, count in filters)
        self._highways = Highways(total)
        self._projection = nn.Linear(total, out)

    def forward(self, chars: Tensor) -> Tensor:
        x = nn.functional.embedding(chars.flatten(0, -2), self._char_embedding_weights).transpose(1, 2)
        best = [self.get_submodule(f"char_conv_{number}")(x).amax(dim=-1).relu() for number in range(self.count)]
        return self._projection(self._highways(torch.cat(best, dim=-1))).view(*chars.shape[:-1], -1)


class Embeddings(nn.Module):
    def __init__(self, config: transformers.BertConfig) -> None:
        super().__init__()
        self.word_embeddings = Words(FILTERS, WIDTH, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(2, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


class Body(nn.Module):
    def __init__(self, config: transformers.BertConfig, pooler: bool) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config) if pooler else None


class Composed(nn.Module):
    """The whole, with the vocabulary head ("mlm") or the pooler and a classifier ("sequence")."""

    def __init__(self, head: str) -> None:
        super().__init__()
        config = transformers.BertConfig(**NUMBERS, vocab_size=WORDS, tie_word_embeddings=False, attn_implementation="eager")
        self.character_bert = Body(config, pooler=head == "sequence")
        if head == "mlm":
            self.cls = nn.Module()
            self.cls.predictions = BertLMPredictionHead(config)
        else:
            self.classifier = nn.Linear(config.hidden_size, 3)

    def hidden(self, chars: Tensor, attends: Tensor, positions: Tensor, segments: Tensor) -> Tensor:
        """The last states [B, L, D]; `attends` [B, L, L] is true where a position may look."""
        part = self.character_bert.embeddings
        x = part.word_embeddings(chars) + part.position_embeddings(positions) + part.token_type_embeddings(segments)
        bias = torch.zeros(attends.shape, dtype=x.dtype).masked_fill(~attends, torch.finfo(x.dtype).min)[:, None]
        return self.character_bert.encoder(part.LayerNorm(x), attention_mask=bias).last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        if self.character_bert.pooler is None:
            return self.cls.predictions(hidden)
        return self.classifier(self.character_bert.pooler(hidden))


def make(head: str, folder: Path, **fields: object) -> Composed:
    """A random model, and its folder as the authors' transformers would write it."""
    model = Composed(head).eval()
    state = model.state_dict()
    drawn = draw({name: tuple(tensor.shape) for name, tensor in state.items()})
    if head == "mlm":
        drawn["cls.predictions.decoder.bias"] = drawn["cls.predictions.bias"]
    model.load_state_dict(drawn)
    if head == "mlm":
        model.cls.predictions.decoder.bias = model.cls.predictions.bias
    architecture = {"mlm": "CharacterBertForMaskedLM", "sequence": "CharacterBertForSequenceClassification"}[head]
    write(folder, model.state_dict(), architecture, **fields)
    return model


def write(folder: Path, state: dict[str, Tensor], architecture: str, **fields: object) -> None:
    """config.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = {"id2label": {str(i): f"label {i}" for i in range(3)}} if "Sequence" in architecture else {}
    raw = {**RAW, **fields, "architectures": [architecture], **labels}
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    kept = {name: tensor.clone() for name, tensor in state.items() if not name.endswith("decoder.bias")}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
