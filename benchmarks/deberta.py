"""DeBERTa's layers alone: kitae's encoder and transformers' with its eager attention, forward and backward, with dropout.

    python -m benchmarks.deberta [--rows 4] [--length 512] [--layers 6] [--hidden 384] [--rounds 7] [--compiled]

The same config and rows of one whole document each; no head and no optimizer, which would hide what attention costs. Tokens a second, by
turns; both sides keep freed memory. Half precision is bf16 weights here and autocast there, the usual way on each side.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import DebertaV2Config as PeerConfig
from transformers import DebertaV2Model

from benchmarks.paired import by_turns, keep, matmul_gflops, ratio, serve
from kitae.core.runtime import keep_memory
from kitae.models.deberta import DebertaEncoder, body_flops
from kitae.models.deberta_config import DebertaV2Config
from kitae.tensor.batch import Layout, Texts

VOCAB = 1000
"""Small: the token table is no part of the question."""


def config_of(arguments: argparse.Namespace) -> DebertaV2Config:
    """The Japanese configuration of DeBERTa-v2 (shared keys, 256 buckets) without its convolution, which both sides do alike."""
    return DebertaV2Config(
        vocab_size=VOCAB,
        hidden_size=arguments.hidden,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.hidden // 64,
        intermediate_size=4 * arguments.hidden,
        max_position_embeddings=512,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=("p2c", "c2p"),
        position_biased_input=False,
    )


def prepared(side: str, precision: str, arguments: argparse.Namespace) -> Callable[[], float]:
    """One side's measurement: tokens a second of a forward and a backward pass."""
    config, half = config_of(arguments), precision == "bf16"
    rows, length = arguments.rows, arguments.length
    ids = torch.randint(5, VOCAB, (rows, length), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(rows, length, dtype=torch.bool)
    weights = torch.randn(rows, length, arguments.hidden, generator=torch.Generator().manual_seed(2))
    torch.manual_seed(3)
    if side == "transformers":
        peer = DebertaV2Model(PeerConfig(**config.huggingface())).train()

        def forward() -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                return peer(input_ids=ids, attention_mask=mask).last_hidden_state
    else:
        encoder = DebertaEncoder(config).to(torch.bfloat16 if half else torch.float32).train()
        if side == "compiled":
            encoder.compile_blocks()

        def forward() -> torch.Tensor:
            return encoder(Texts(ids, Layout.padded(mask)))

    def measure() -> float:
        begun = time.perf_counter()
        (forward().float() * weights).sum().backward()
        return rows * length / (time.perf_counter() - begun)

    return measure


def main() -> None:
    """Measure all sides by turns, or serve as one of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--compiled", action="store_true")
    parser.add_argument("--worker")
    arguments = parser.parse_args()
    if arguments.worker:
        side, _, precision = arguments.worker.partition(":")
        keep_memory()
        serve(lambda: prepared(side, precision, arguments))
        return
    sides = ["kitae", "transformers", *(["compiled"] if arguments.compiled else [])]
    names = [f"{side}:{precision}" for side in sides for precision in ("fp32", "bf16")]
    sizes = [f"--{name}={getattr(arguments, name)}" for name in ("rows", "length", "layers", "hidden")]
    found = by_turns({name: [sys.executable, "-m", "benchmarks.deberta", *sizes, "--worker", name] for name in names}, arguments.rounds)
    found = {name: values[1:] for name, values in found.items()}  # the first round warms up
    flops = body_flops(config_of(arguments), arguments.length)
    possible = {"fp32": matmul_gflops(torch.float32), "bf16": matmul_gflops(torch.bfloat16)}
    speeds = {name: statistics.median(values) for name, values in found.items()}
    pairs = [(ours, f"transformers:{precision}") for ours in names if ours[0] != "t" for precision in ("fp32", "bf16")]
    keep(
        "deberta",
        {
            "rows": arguments.rows,
            "length": arguments.length,
            "layers": arguments.layers,
            "hidden": arguments.hidden,
            "tokens per second": found,
            "flops per token": flops,
            "GFLOPS of a large matrix product": possible,
            "MFU": {name: speed * flops / 1e9 / possible[name.partition(":")[2]] for name, speed in speeds.items()},
            **{f"{ours} / {theirs}": ratio(found[ours], found[theirs]) for ours, theirs in pairs},
        },
    )


if __name__ == "__main__":
    main()
