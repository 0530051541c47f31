"""Room on the disk: of what is made as its manifest says, of what is not by rules of thumb."""

from collections.abc import Mapping
from pathlib import Path

from kitae.chain.amounts import BYTES_PER_TOKEN, corpus_bytes
from kitae.chain.status import State, Status
from kitae.chain.wording import bytes_text
from kitae.core.artifact import read_manifest
from kitae.data.shards import token_dtype
from kitae.procedures.estimate import Estimate
from kitae.stages.corpus import CorpusConfig
from kitae.stages.export import ExportConfig
from kitae.stages.finetune import FinetuneConfig
from kitae.stages.together import TogetherConfig
from kitae.stages.tokenizer import TokenizerConfig

PACKED = 0.34
"""Bytes of a corpus for a byte of its text, compressed (Japanese, measured)."""
INDEX = 0.5
"""Bytes of a dataset for a token beside the token: boundaries, and the plan of its rows."""
PER_WORD = 7.0
"""Bytes of a tokenizer for a word of its vocabulary (16,000 words: 104 kB)."""
SMALL = 160e3
"""Bytes of an artifact of a few tables."""


def disk(found: Mapping[str, Status], told: Mapping[str, Estimate], output: Path) -> tuple[dict[str, str], float]:
    """(the size of every node's artifact as text, "" where nobody knows; bytes of all together)."""
    sizes: dict[str, float | None] = {}
    for name, status in found.items():
        if status.state is State.DONE:
            sizes[name] = float(sum(record.size for record in read_manifest(output / name).files.values()))
        else:
            sizes[name] = _expected(status, found, told, sizes)
    texts = {
        name: "" if size is None else bytes_text(size) if found[name].state is State.DONE else f"~{bytes_text(size)}"
        for name, size in sizes.items()
    }
    return texts, sum(size for size in sizes.values() if size is not None)


def _expected(status: Status, found: Mapping[str, Status], told: Mapping[str, Estimate], sizes: Mapping[str, float | None]) -> float | None:
    node, config = status.node, status.node.config
    if isinstance(config, CorpusConfig):
        text = corpus_bytes(config)
        return None if text is None else PACKED * text
    if isinstance(config, TokenizerConfig):
        return PER_WORD * config.vocab_size
    if node.stage == "dataset":
        corpus, words = sizes[node.parents["corpus"]], found[node.parents["tokenizer"]].node.config
        vocabulary = words.vocab_size if isinstance(words, TokenizerConfig) else 0
        each = token_dtype(vocabulary).itemsize + INDEX
        return None if corpus is None else corpus / PACKED / BYTES_PER_TOKEN * each
    if node.stage == "pretrain":
        return told[node.name].disk if node.name in told else None
    if isinstance(config, FinetuneConfig):
        return 4.0 * told[node.name].work.counted.total if node.name in told else SMALL
    if isinstance(config, TogetherConfig):  # every task has a whole model
        return 4.0 * told[node.name].work.counted.total * len(config.shared) if node.name in told else SMALL
    if isinstance(config, ExportConfig):
        parts = [told[name].work.counted.total for name in node.parents.values() if name in told]
        return 4.0 * sum(parts) * len(config.formats) if parts else None
    return SMALL
