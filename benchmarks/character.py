"""CharacterBERT's training step and its way from characters to words: kitae against a convolution for every position.

    python -m benchmarks.character RUN [character-bert-base] [--rows 32] [--rounds 5]

RUN is the output folder of a recipe with a `dataset` of characters of words. The other side is composed as the authors' code is: torch's
Conv1d, max and highway layers over all characters of every position, transformers' BERT blocks, AdamW over separate tensors. It gets the
very batches of kitae with one mask of padding, so that both see the same real tokens, and gathers the masked positions before the
output table, which the authors' code does not. bf16 is autocast there. Real tokens a second, by turns; "front" is the way from
characters to words alone, forward and backward.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from torch import Tensor, nn
from transformers.models.bert.modeling_bert import BertEncoder

from benchmarks.mlm import architecture_of, ours
from benchmarks.paired import by_turns, keep, matmul_gflops, profile, ratio, serve
from kitae.core.runtime import keep_memory
from kitae.data.sampler import DatasetFacts, Sampler
from kitae.models.character_bert import CharacterBertConfig
from kitae.models.cost import flops_per_token
from kitae.models.families import build_masked_lm
from kitae.objectives.mlm import MlmConfig
from kitae.tensor.batch import Batch
from kitae.tensor.random import numpy_generator
from kitae.tokenization.tokenizer import Tokenizer

Step = Callable[[], int]
"""Something that is timed; returns its real tokens."""


class Highway(nn.Module):
    """The authors' form of a highway layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.both = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """One layer."""
        new, gate = self.both(x).chunk(2, dim=-1)
        gate = torch.sigmoid(gate)
        return gate * x + (1 - gate) * torch.relu(new)


class PlainWords(nn.Module):
    """Characters of every position -> its vector."""

    def __init__(self, config: CharacterBertConfig) -> None:
        super().__init__()
        self.characters = nn.Embedding(263, config.character_embeddings_dim)
        self.convolutions = nn.ModuleList(nn.Conv1d(config.character_embeddings_dim, count, size) for size, count in config.cnn_filters)
        width = sum(count for _, count in config.cnn_filters)
        self.highways = nn.Sequential(*(Highway(width) for _ in range(config.num_highway_layers)))
        self.project = nn.Linear(width, config.hidden_size)

    def forward(self, chars_TC: Tensor) -> Tensor:
        """x_TD of T positions."""
        x = self.characters(chars_TC).transpose(1, 2)
        best = [torch.relu(torch.max(layer(x), dim=-1)[0]) for layer in self.convolutions]
        return self.project(self.highways(torch.cat(best, dim=-1)))


class PlainModel(nn.Module):
    """PlainWords, transformers' blocks, and an output table."""

    def __init__(self, config: CharacterBertConfig) -> None:
        super().__init__()
        width = config.hidden_size
        names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_position_embeddings")
        self.words = PlainWords(config)
        self.position = nn.Embedding(config.max_position_embeddings, width)
        self.segment = nn.Embedding(2, width)
        self.norm, self.dropout = nn.LayerNorm(width, eps=1e-12), nn.Dropout(config.hidden_dropout_prob)
        blocks = transformers.BertConfig(**{name: getattr(config, name) for name in names}, attn_implementation="sdpa")
        self.encoder = BertEncoder(blocks)
        self.head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Linear(width, config.vocab_size))

    def forward(self, chars_BLC: Tensor, mask_BL: Tensor, picks_N: Tensor) -> Tensor:
        """Logits of the picked positions."""
        rows, length = mask_BL.shape
        x_BLD = self.words(chars_BLC.flatten(0, 1)).view(rows, length, -1)
        x_BLD = x_BLD + self.position(torch.arange(length)) + self.segment(torch.zeros_like(mask_BL, dtype=torch.int64))
        attends = mask_BL[:, None, None, :].expand(rows, 1, length, length)
        x_BLD = self.encoder(self.dropout(self.norm(x_BLD)), attention_mask=attends).last_hidden_state
        return self.head(x_BLD.flatten(0, 1).index_select(0, picks_N))


def batches(run: Path, rows: int) -> Callable[[int], Batch]:
    """Masked micro-batches by number."""
    tokenizer = Tokenizer.load(run / "dataset" / "tokenizer")
    masker = MlmConfig().masker(special=tokenizer.special, vocab_size=tokenizer.vocab_size)
    sampler = Sampler(run / "dataset", split="train", rows_per_step=rows, rows_per_micro_batch=rows, seed=1)
    return lambda step: masker(sampler.micro(step, 0), numpy_generator(1, "mask", step)).spelled()


def spread(batch: Batch) -> Tensor:
    """Characters of every position [B, L, C]."""
    assert batch.chars_WC is not None
    return batch.chars_WC[batch.ids_BL]


def plain_step(run: Path, preset: str, precision: str, rows: int) -> Step:
    """The usual step."""
    config = architecture_of(run, preset).encoder
    assert isinstance(config, CharacterBertConfig)
    model, made, state = PlainModel(config).train(), batches(run, rows), {"step": 0}
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)

    def step() -> int:
        batch = made(state["step"])
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            logits = model(spread(batch), batch.layout.mask_BL, batch.targets["picks"])
            loss = nn.functional.cross_entropy(logits.float(), batch.targets["labels"])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        state["step"] += 1
        return batch.num_tokens

    return step


def front(run: Path, preset: str, precision: str, rows: int, *, plain: bool) -> Step:
    """From characters to the vectors of all positions and back."""
    config = architecture_of(run, preset).encoder
    assert isinstance(config, CharacterBertConfig)
    made, state, dtype = batches(run, rows), {"step": 0}, torch.bfloat16 if precision == "bf16" else torch.float32
    words = PlainWords(config) if plain else build_masked_lm(config).encoder.embed.words.to(dtype)

    def step() -> int:
        batch = made(state["step"])
        with torch.autocast("cpu", torch.bfloat16, enabled=plain and precision == "bf16"):
            x = words(spread(batch).flatten(0, 1)) if plain else nn.functional.embedding(batch.ids_BL, words(batch.chars_WC))
        for parameter in words.parameters():
            parameter.grad = None
        x.sum().backward()
        state["step"] += 1
        return batch.num_tokens

    return step


def side(arguments: argparse.Namespace) -> Step:
    """The worker's side: what:who:precision."""
    what, who, precision = arguments.worker.split(":")
    common = (arguments.run, arguments.preset, precision, arguments.rows)
    if what == "front":
        return front(*common, plain=who == "plain")
    return plain_step(*common) if who == "plain" else ours(*common)


def timed(step: Step) -> Callable[[], float]:
    """Real tokens a second."""

    def measure() -> float:
        begun = time.perf_counter()
        tokens = step()
        return tokens / (time.perf_counter() - begun)

    return measure


def main() -> None:
    """Measure all sides by turns, or serve as one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("preset", nargs="?", default="character-bert-base")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    if arguments.worker:
        keep_memory()
        serve(lambda: timed(side(arguments)))
        return
    common = [sys.executable, "-m", "benchmarks.character", str(arguments.run), arguments.preset, "--rows", str(arguments.rows), "--worker"]
    found: dict[str, list[float]] = {}
    for what, precision in itertools.product(("front", "step"), ("fp32", "bf16")):  # two at a time: a base model with Adam takes 3 GB
        sides = [f"{what}:{who}:{precision}" for who in ("kitae", "plain")]
        found |= by_turns({name: [*common, name] for name in sides}, arguments.rounds + 1)
    found = {name: values[1:] for name, values in found.items()}  # the first round warms up
    some = [batches(arguments.run, arguments.rows)(number) for number in range(4)]
    length = DatasetFacts.read(arguments.run / "dataset").max_length
    flops = flops_per_token(architecture_of(arguments.run, arguments.preset), length=length, objective="mlm", mask_rate=0.15)
    possible = {"fp32": matmul_gflops(torch.float32), "bf16": matmul_gflops(torch.bfloat16)}
    speeds = {name.removeprefix("step:"): statistics.median(values) for name, values in found.items() if name.startswith("step:")}
    pairs = [(what, precision) for what in ("front", "step") for precision in ("fp32", "bf16")]
    keep(
        f"character-{arguments.preset}-{length}",
        {
            "rows": arguments.rows,
            "distinct words, share of real positions": sum(len(batch.chars_WC) for batch in some) / sum(batch.num_tokens for batch in some),
            "real tokens per second": found,
            "flops per token": flops,
            "GFLOPS of a large matrix product": possible,
            "MFU of the step, counted as if every position were convolved": {
                name: speed * flops / 1e9 / possible[name.partition(":")[2]] for name, speed in speeds.items()
            },
            **{f"{what}, {p}: kitae / plain": ratio(found[f"{what}:kitae:{p}"], found[f"{what}:plain:{p}"]) for what, p in pairs},
            "profile, kitae:bf16": profile(ours(arguments.run, arguments.preset, "bf16", arguments.rows)),
        },
    )


if __name__ == "__main__":
    main()
