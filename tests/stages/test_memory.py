"""Making a corpus and its token shards within a hard limit on memory: 20 MB of text, 100,000 documents, tiny buffers.

The limit holds for what a process takes beyond its modules. Holding the records of all documents, or one of the texts' files,
goes over it: `test_the_limit_bites` shows that it does limit.
"""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from kitae.text.corpus import ShardWriter

SPARE_MB = 16
HEAD = """
import itertools, resource, sys, threading
from pathlib import Path
from kitae.core.artifact import Inputs, Out
from kitae.data import shards, tokenize
from kitae.stages.corpus import CorpusConfig, SourceConfig, run
from kitae.text import corpus, feed, nearduplicates, parts, records
from kitae.tokenization.tokenizer import Tokenizer

records.CHUNK, records.BUCKET, parts.FRAME_BYTES, corpus.SHARD_BYTES = 4096, 4096, 1 << 16, 1 << 18
nearduplicates.CHUNK, nearduplicates.MOST_KEYS, feed.PIECE, feed.AHEAD = 1024, 4096, 1 << 14, 1 << 18
shards._FLUSH_WORDS = 1 << 14
threading.stack_size(1 << 18)  # a thread's stack counts as memory in use, used or not
folder = Path(sys.argv[1])
tokenizer = Tokenizer.load(folder / "tokenizer") if (folder / "tokenizer").is_dir() else None
tokenizer and tokenizer.words("これは")
used = next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmData"))
most = used + (int(sys.argv[2]) << 20)
resource.setrlimit(resource.RLIMIT_DATA, (most, most))
"""
CORPUS = """
out = Out(path=folder / "corpus")
out.path.mkdir()
config = CorpusConfig(source=(SourceConfig(path=str(folder / "a.txt")),), holdout=0.05, engine={"workers": 1, "tasks": 2})
run(config, Inputs(parents={}, seed=1), out)
print(out.counts["documents_in"], out.counts["documents_kept"], out.counts["heldout"], out.counts["dropped"])
"""
TOGETHER = """
out = Out(path=folder / "together")
out.path.mkdir()
source = SourceConfig(path=str(folder / "a.txt"), limit=10_000)
config = CorpusConfig(
    source=(source,), near_duplicates=0.95, decontaminate=("sample-topics",), holdout=0.05, engine={"workers": 2, "tasks": 2}
)
run(config, Inputs(parents={}, seed=1), out)
print(out.counts["documents_in"], sum(out.counts["dropped"].values()) + out.counts["documents_kept"] + out.counts["heldout"])
"""
SHARDS = """
found = {split: sorted((folder / "corpus" / split).iterdir()) for split in ("train", "heldout")}
made = folder / "made"
tokenize.tokenize(found, tokenizer=folder / "tokenizer", sources=("a",), folder=made, work=folder / "work", workers=1)
print(shards.Shards(made / "train").num_documents, shards.Shards(made / "heldout" / "0").num_documents)
"""
DOCUMENTS = 100_000
DIGITS = str.maketrans("0123456789", "〇一二三四五六七八九")


def limited(code: str, folder: Path, spare: int = SPARE_MB, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + code, str(folder), str(spare), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100,000 short documents, a tenth of them double, and a small tokenizer."""
    folder = tmp_path_factory.mktemp("memory")
    with (folder / "a.txt").open("w", encoding="utf-8") as file:
        numbers = (str(i % 90_000).translate(DIGITS) for i in range(DOCUMENTS))  # no long words, which a bounded cache would keep
        file.writelines(f"これは{number}番目の文書で、" + "文が一つあります。" * 6 + "\n\n" for number in numbers)
    code = """
import sys
from kitae.tokenization.definition import Definition
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from pathlib import Path
tokens = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"これは番目の文書で、が一つあります。〇二三四五六七八九")
Tokenizer(Definition(tokens=tuple(dict.fromkeys(tokens)), spec=SegmenterSpec(kind="basic"))).save(Path(sys.argv[1]) / "tokenizer")
"""
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all private memory on Linux only")
def test_a_corpus_and_its_shards_in_bounded_memory(place: Path) -> None:
    done = limited(CORPUS, place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{DOCUMENTS} 85500 4500 {{'duplicate': 10000}}\n"
    done = limited(TOGETHER, place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "10000 10000\n"
    done = limited(SHARDS, place)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "85500 4500\n"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all private memory on Linux only")
def test_the_limit_bites(place: Path) -> None:
    done = limited("rows = [bytes(34) for _ in range(250_000)]", place)
    assert "MemoryError" in done.stderr


VOCABULARY = """
from kitae.stages import tokenizer as stage
from kitae.tokenization import counting, counts, training, vocabulary
counting.RUN, counting.RUN_TEXT, counting.DISTINCT, counting.TEXT, counts.FILES = 5000, 50_000, 20_000, 200_000, 8
vocabulary.PAIRS, training.SEEDS, training.THREADS = 5000, 5000, 1
training.GIVEN.update(unigram=50_000, bpe=50_000)
stage.LOOKED_AT = 20_000
out = Out(path=folder / sys.argv[3])
out.path.mkdir()
settings = {"algorithm": sys.argv[3], "segmenter": "whitespace", "vocab_size": 300, "workers": 1, "num_unused": 0}
stage.run(stage.TokenizerConfig(**settings), Inputs(parents={"corpus": folder / "words"}, seed=1), out)
print(out.counts["distinct_words"], out.counts["vocab_size"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA counts all private memory on Linux only")
@pytest.mark.parametrize("algorithm", ["wordpiece", "unigram"])
def test_a_vocabulary_in_bounded_memory(algorithm: str, tmp_path: Path) -> None:
    """4 MB of words of which nearly every one is new, and words of thousands of letters among them."""
    draw = random.Random(1)
    with ShardWriter(tmp_path / "words" / "train") as writer:
        for number in range(400):
            words = "".join(chr(97 + byte % 26) for byte in draw.randbytes(10_000))
            text = " ".join(words[i : i + 6] for i in range(0, len(words), 6)) if number % 50 else words
            writer.write(json.dumps({"id": str(number), "source": "s", "text": text}).encode())
    (tmp_path / "words" / "corpus.json").write_text(json.dumps({"sources": ["s"], "language": "en", "characters": {"train": 4_000_000}}))
    done = limited(VOCABULARY, tmp_path, 64, algorithm)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[1] == "300"
