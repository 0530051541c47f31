"""The dataset stage on a thousand real documents: shards decode to the text, every packing is full, repeats and weights arrive."""

import hashlib
import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from kitae.core.artifact import Inputs, Out, seal, verify
from kitae.core.errors import KitaeError
from kitae.data.order import BLOCK
from kitae.data.plan import Packing, Plan
from kitae.data.sampler import DatasetFacts, Sampler, heldout_sources
from kitae.data.shards import Shards
from kitae.stages import corpus as corpus_stage
from kitae.stages import dataset
from kitae.stages.corpus import CorpusConfig
from kitae.stages.dataset import DatasetConfig
from kitae.text.corpus import Corpus
from kitae.tokenization.counts import Counts
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.tokenizer import Tokenizer
from kitae.tokenization.training import define
from kitae.tokenization.vocabulary import VocabularyOptions

GOLDEN = Path(__file__).parents[1] / "golden" / "vocab_japanese.txt"


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory, shared: Path) -> dict[str, Path]:
    """A corpus of two real sources, 1,070 documents in all, and a tokenizer that does not know all of their characters."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "corpus").mkdir()
    source = [
        {"path": str(shared / "ja_plain/kyoto_wiki.txt.xz"), "name": "kyoto", "limit": 1050},
        {"path": str(shared / "finance_ja/edinet_ja.txt.xz"), "name": "edinet", "limit": 20},
    ]
    config = CorpusConfig.model_validate({"source": source, "holdout": 0.02, "engine": {"workers": 1}})
    corpus_stage.run(config, Inputs(parents={}, seed=1), Out(path=folder / "corpus"))
    tokens = GOLDEN.read_text(encoding="utf-8").splitlines()
    Tokenizer.new(tokens, SegmenterSpec(kind="mecab", dictionary="ipadic")).save(folder / "tokenizer")
    return {"corpus": folder / "corpus", "tokenizer": folder / "tokenizer"}


def make(folder: Path, parents: dict[str, Path], **settings: object) -> Out:
    folder.mkdir()
    out = Out(path=folder)
    config = DatasetConfig.model_validate({"workers": 1, **settings})
    dataset.run(config, Inputs(parents=parents, seed=1), out)
    return out


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, parents: dict[str, Path]) -> Out:
    return make(tmp_path_factory.mktemp("made") / "pairs", parents, packing="pairs", pairs={"next_label": 1}, max_length=512)


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_a_thousand_documents_decode_to_the_corpus(made: Out, parents: dict[str, Path]) -> None:
    tokenizer, shards, corpus = Tokenizer.load(parents["tokenizer"]), Shards(made.path / "train"), Corpus(parents["corpus"])
    ends = np.concatenate([[0], *(shards.documents(shard) for shard in range(len(shards)))])
    texts = [(document.metadata["source"], document.text) for document in corpus.documents("train")]
    assert len(texts) == shards.num_documents >= 1000
    numbers = np.concatenate([shards.sources(shard) for shard in range(len(shards))])
    assert [corpus.sources[number] for number in numbers] == [source for source, _ in texts]
    known = unknown = 0
    for (_, text), start, end in zip(texts, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
        ids = shards.tokens(start, end).tolist()
        sentence_ends = shards.sentence_ends(start, end).tolist()
        assert len(sentence_ends) == text.count("\n") + 1
        at = start
        for sentence, stop in zip(text.split("\n"), sentence_ends, strict=True):
            words = tokenizer.words(sentence)
            assert shards.tokens(at, stop).tolist() == [token for word in words for token in word]
            at = stop
        # decoding puts blanks between words, and an unknown word stands for any characters
        fragments = squeezed(tokenizer.decode(ids)).split("[UNK]")
        assert re.fullmatch(".+?".join(map(re.escape, fragments)), squeezed(text))
        known += len(fragments) == 1
        unknown += len(fragments) > 1
    assert known > 100
    assert unknown > 100, "the case of unknown tokens is there"


def test_a_thousand_documents_in_bytes_decode_to_exactly_the_corpus(tmp_path: Path, shared: Path) -> None:
    source = [
        {"path": str(shared / "ja_plain/kyoto_wiki.txt.xz"), "name": "ja", "limit": 1020},
        {"path": str(shared / "en_plain/english_novels.txt.xz"), "name": "en", "limit": 5},
    ]
    (tmp_path / "corpus").mkdir()
    config = CorpusConfig.model_validate({"source": source, "holdout": 0.0, "engine": {"workers": 1}})
    corpus_stage.run(config, Inputs(parents={}, seed=1), Out(path=tmp_path / "corpus"))
    options = VocabularyOptions(vocab_size=400)
    definition = define("byte-bpe", Counts.of({"\u0120the": 9}), SegmenterSpec(kind="none"), options, scratch=tmp_path / "scratch")
    Tokenizer(definition).save(tmp_path / "tokenizer")
    out = make(tmp_path / "made", {"corpus": tmp_path / "corpus", "tokenizer": tmp_path / "tokenizer"}, max_length=512)
    tokenizer, shards = Tokenizer.load(tmp_path / "tokenizer"), Shards(out.path / "train")
    documents = list(Corpus(tmp_path / "corpus").documents("train"))
    assert {document.metadata["source"] for document in documents} == {"ja", "en"}
    assert len(documents) == shards.num_documents >= 1000
    ends = np.concatenate([[0], *(shards.documents(shard) for shard in range(len(shards)))]).tolist()
    for document, start, end in zip(documents, ends[:-1], ends[1:], strict=True):
        stops = shards.sentence_ends(start, end).tolist()
        lines = [tokenizer.decode(shards.tokens(*place).tolist()) for place in pairwise([start, *stops])]
        assert lines == [f" {line}" for line in document.text.split("\n")], "byte-level BPE puts one blank before a text"


def test_the_manifest_counts_rows_fill_and_tokens_by_source(made: Out, parents: dict[str, Path]) -> None:
    counts = made.counts
    shards, plan = Shards(made.path / "train"), Plan(made.path / "train/plan")
    assert counts["tokens_lost"] == 0
    assert counts["fill"] == pytest.approx(plan.fill, abs=1e-5)
    assert plan.fill >= 0.97
    assert set(counts["sources"]) == {"kyoto", "edinet"}
    for row in counts["sources"].values():
        assert row["tokens_lost"] == 0
        assert row["tokens"] > 0
        assert row["fill"] >= 0.97
        assert 0 < row["pairs"] <= row["pieces"]
    for column in ("documents", "tokens", "pieces", "pairs", "rows"):
        assert sum(row[column] for row in counts["sources"].values()) == counts[column]
    assert counts["tokens"] == shards.num_tokens
    assert set(counts["heldout"]) == set(heldout_sources(made.path)) == {"kyoto", "edinet"}
    for name, row in counts["heldout"].items():
        assert (row["tokens_lost"], set(row["sources"])) == (0, {name})
    json.dumps(counts)


def test_the_manifest_has_the_checksum_of_every_shard(made: Out) -> None:
    manifest = seal(made.path, kind="dataset", facts={})
    tokens = made.path / "train/tokens-00000.bin"
    whole = tokens.read_bytes()
    tokens.write_bytes(whole[:-2] + bytes([whole[-2] ^ 1, whole[-1]]))
    with pytest.raises(KitaeError, match=r"train/tokens-00000\.bin is damaged"):
        verify(made.path)
    tokens.write_bytes(whole)
    (made.path / "manifest.json").unlink()
    shards = [name for name in manifest.files if name.startswith("train/") and name.endswith(".bin")]
    assert {name.rpartition("/")[2].partition("-")[0] for name in shards if "plan" not in name} == {
        "tokens", "documents", "sentences", "sources", "words",
    }  # fmt: skip
    for name in shards:
        content = (made.path / name).read_bytes()
        assert (manifest.files[name].size, manifest.files[name].sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_pairs_reach_the_batch_with_the_label_that_was_asked_for(made: Out) -> None:
    facts = DatasetFacts.read(made.path)
    assert facts.pairs is not None
    assert facts.pairs.next_label == 1
    shards = Shards(made.path / "train")
    text = shards.tokens(0, shards.num_tokens)
    sampler = Sampler(made.path, rows_per_step=64, rows_per_micro_batch=64, seed=1)
    batch = sampler.micro(0, 0)
    assert batch.num_tokens >= 0.96 * batch.ids_BL.numel()
    labels = Counter(batch.targets["pair_labels"].tolist())
    assert min(labels[0], labels[1]) > 0.3 * labels.total()
    (true,) = (batch.targets["pair_labels"] == 1).nonzero()[:1].flatten().tolist()
    start = int(batch.targets["pairs"][true])
    row, column = divmod(start, facts.max_length)
    (end,) = [end for r, first, end in batch.layout.spans() if (r, first) == (row, column)]
    ids = batch.ids_BL[row, column + 1 : end - 1].numpy()
    middle = ids.tolist().index(facts.special["sep"])
    joined = np.delete(ids, middle)
    assert (np.lib.stride_tricks.sliding_window_view(text, len(joined)) == joined).all(axis=1).any(), "B follows A in the corpus"


@pytest.mark.parametrize("packing", ["documents", "sentences"])
def test_every_packing_of_real_text_is_full(tmp_path: Path, parents: dict[str, Path], packing: Packing) -> None:
    out = make(tmp_path / packing, parents, packing=packing, max_length=256)
    assert (out.counts["tokens_lost"], out.counts["pairs"]) == (0, 0)
    assert out.counts["fill"] >= (0.99 if packing == "documents" else 0.97)
    assert Sampler(out.path, rows_per_step=4, rows_per_micro_batch=4, seed=1).micro(0, 0).segments_BL is None


def with_facts(folder: Path, parents: dict[str, Path], **facts: object) -> dict[str, Path]:
    """The same parents with more said in corpus.json."""
    folder.mkdir()
    for item in parents["corpus"].iterdir():
        if item.name != "corpus.json":
            (folder / item.name).symlink_to(item)
    said = json.loads((parents["corpus"] / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps({**said, **facts}))
    return {**parents, "corpus": folder}


def drawn(out: Out, rows: int) -> Counter[str]:
    """How many of the first rows are of each source."""
    sampler, plan = Sampler(out.path, rows_per_step=1, rows_per_micro_batch=1, seed=1), Plan(out.path / "train/plan")
    numbers = np.searchsorted(plan.source_rows, [sampler.row(0, k) for k in range(rows)], side="right") - 1
    return Counter(DatasetFacts.read(out.path).sources[number] for number in numbers)


def test_repeats_and_weights_of_the_corpus_reach_the_sampler(tmp_path: Path, parents: dict[str, Path]) -> None:
    weighted = make(tmp_path / "w", with_facts(tmp_path / "wc", parents, weight={"kyoto": 3, "edinet": 1}))
    assert drawn(weighted, BLOCK) == {"kyoto": 750, "edinet": 250}
    repeated = make(tmp_path / "r", with_facts(tmp_path / "rc", parents, repeat={"edinet": 3}))
    sampler, sources = Sampler(repeated.path, rows_per_step=1, rows_per_micro_batch=1, seed=1), repeated.counts["sources"]
    assert sampler.rows_per_epoch == sources["kyoto"]["rows"] + 3 * sources["edinet"]["rows"]
    assert DatasetFacts.read(repeated.path).repeat == {"edinet": 3}
    with pytest.raises(KitaeError, match='source "edinet" has no weight'):
        make(tmp_path / "x", with_facts(tmp_path / "xc", parents, weight={"kyoto": 3}))


def test_what_makes_no_pairs_is_refused(tmp_path: Path, parents: dict[str, Path]) -> None:
    with pytest.raises(ValidationError, match='pairs has no effect with packing = "documents"'):
        DatasetConfig.model_validate({"pairs": {"task": "sop"}})
    with pytest.raises(ValidationError, match="'documents', 'sentences' or 'pairs'"):
        DatasetConfig.model_validate({"packing": "lines"})
    with pytest.raises(ValidationError, match="'nsp' or 'sop'"):
        DatasetConfig.model_validate({"packing": "pairs", "pairs": {"task": "order"}})
    one = tmp_path / "one.txt"
    for text, what in (
        ("雪が降った。\n道が凍った。", "another document"),
        ("雪が降った。\n\n道が凍った。", "no document of two sentences"),
    ):
        one.write_text(text, encoding="utf-8")
        (tmp_path / what).mkdir()
        config = CorpusConfig.model_validate({"source": [{"path": str(one)}], "engine": {"workers": 1}})
        corpus_stage.run(config, Inputs(parents={}, seed=1), Out(path=tmp_path / what))
        with pytest.raises(KitaeError, match=what):
            make(tmp_path / f"dataset {what}", {**parents, "corpus": tmp_path / what}, packing="pairs")
