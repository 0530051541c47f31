"""Token shards give back every document, sentence and word, over shard and flush borders."""

from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import describe

from kitae.core.errors import KitaeError
from kitae.data import plan
from kitae.data import shards as module
from kitae.data.sampler import Sampler
from kitae.data.shards import Shards, ShardWriter, join, token_dtype

WORD = st.lists(st.integers(0, 99_999), max_size=3).map(tuple)
DOCUMENTS = st.lists(st.lists(st.lists(WORD, max_size=5), max_size=4), max_size=12)


def read(shards: Shards) -> list[list[list[int]]]:
    """documents -> sentences -> ids, as the boundaries say."""
    documents = []
    for shard in range(len(shards)):
        start = int(shards.starts[shard])
        sentences = [0, *shards.sentences(shard)]
        for end in shards.documents(shard):
            cuts = [start, *[int(cut) for cut in sentences if start < cut <= end]]
            documents.append([shards.tokens(a, b).tolist() for a, b in pairwise(cuts)])
            start = int(end)
        assert start == shards.starts[shard + 1]
    return documents


@settings(max_examples=60, deadline=None)
@given(documents=DOCUMENTS, shard_tokens=st.integers(1, 40), flush=st.integers(1, 20))
def test_what_was_written_comes_back(tmp_path_factory, documents, shard_tokens: int, flush: int) -> None:
    folder = tmp_path_factory.mktemp("shards")
    before = module._FLUSH_WORDS
    module._FLUSH_WORDS = flush
    try:
        with ShardWriter(folder, vocab_size=100_000, shard_tokens=shard_tokens) as writer:
            for number, document in enumerate(documents):
                writer.add(document, source=number)
    finally:
        module._FLUSH_WORDS = before
    shards = Shards(folder)
    kept = [document for document in documents if any(chain.from_iterable(document))]
    expected = [[ids for sentence in document if (ids := list(chain.from_iterable(sentence)))] for document in kept]
    assert read(shards) == expected
    assert shards.empty_documents == len(documents) - len(kept)
    assert shards.num_documents == len(kept)
    numbers = [number for number, document in enumerate(documents) if any(chain.from_iterable(document))]
    assert [int(n) for shard in range(len(shards)) for n in shards.sources(shard)] == numbers
    words = [word for document in kept for sentence in document for word in sentence if word]
    _, starts = shards.gather(np.arange(shards.num_tokens))
    assert np.nonzero(starts)[0].tolist() == np.cumsum([0, *map(len, words)])[:-1].tolist()[: len(words)]


def test_the_small_type_ends_at_65536() -> None:
    assert token_dtype(65536) == np.dtype("<u2")
    assert token_dtype(65537) == np.dtype("<u4")


def test_the_highest_id_survives(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, vocab_size=65536) as writer:
        writer.add([[(65535,)]])
    assert Shards(tmp_path).tokens(0, 1).tolist() == [65535]


@pytest.mark.parametrize("shard_tokens", [1, 9, 1000])
def test_joined_folders_read_as_one(tmp_path: Path, shard_tokens: int) -> None:
    parts = [[[[(1, 2), (3,)], [(4, 5, 6)]]], [], [[[(7,)]], [[(8, 9, 10, 11, 12)], [(13, 14)]]], [[[(15, 16), (17, 18)]]]]
    for number, documents in enumerate(parts):
        with ShardWriter(tmp_path / f"part-{number}", vocab_size=100, shard_tokens=2) as writer:
            for document in documents:
                writer.add(document, source=number)
            writer.add([[]])
    join([tmp_path / f"part-{number}" for number in range(4)], tmp_path / "whole", shard_tokens=shard_tokens)
    shards = Shards(tmp_path / "whole")
    assert read(shards) == [[[1, 2, 3], [4, 5, 6]], [[7]], [[8, 9, 10, 11, 12], [13, 14]], [[15, 16, 17, 18]]]
    starts = shards.gather(np.arange(shards.num_tokens))[1]
    assert (np.nonzero(starts)[0] + 1).tolist() == [1, 3, 4, 7, 8, 13, 15, 17]
    assert [int(n) for shard in range(len(shards)) for n in shards.sources(shard)] == [0, 2, 2, 3]
    assert len(shards) == {1: 3, 9: 2, 1000: 1}[shard_tokens]
    assert shards.empty_documents == 4


def test_joining_again_replaces_what_an_attempt_left(tmp_path: Path) -> None:
    for part, words in (("a", [(1, 2), (3,)]), ("b", [(4,)])):
        with ShardWriter(tmp_path / part, vocab_size=100) as writer:
            writer.add([words])
    join([tmp_path / "a", tmp_path / "b"], tmp_path / "whole", shard_tokens=1)
    (tmp_path / "whole/index.json").unlink()  # cut off before the last file
    join([tmp_path / "b", tmp_path / "a"], tmp_path / "whole")
    assert read(Shards(tmp_path / "whole")) == [[[4]], [[1, 2, 3]]]
    assert not list((tmp_path / "whole").glob("*-00001.bin"))


def test_ids_beyond_65535_survive_joining_packing_and_sampling(tmp_path: Path) -> None:
    texts = [[[(70_000, 99_999), (5,)]], [[(65_536,) * 9]], [[(65_535, 131_071)], [(90_000,)]]]
    for number, document in enumerate(texts):
        with ShardWriter(tmp_path / str(number), vocab_size=1 << 17) as writer:
            writer.add(document)
    join([tmp_path / str(number) for number in range(3)], tmp_path / "train", shard_tokens=5)
    shards = Shards(tmp_path / "train")
    assert len(shards) == 2
    ids = [token for document in texts for sentence in document for word in sentence for token in word]
    assert shards.tokens(0, shards.num_tokens).tolist() == ids
    plan.build(shards, max_length=16, folder=tmp_path / "train/plan")
    describe(tmp_path, max_length=16, vocab_size=1 << 17, dtype="<u4")
    sampler = Sampler(tmp_path, rows_per_step=1, rows_per_micro_batch=1, seed=1)
    batches = [sampler.micro(step, 0) for step in range(sampler.rows_per_epoch)]
    assert sorted(token for batch in batches for token in batch.ids_BL[batch.words_BL >= 0].tolist()) == sorted(ids)


def test_parts_that_were_cut_off_are_not_joined(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "part", vocab_size=100) as writer:
        writer.add([[(1, 2, 3)]])
    (tmp_path / "part/tokens-00000.bin").write_bytes(b"")
    with pytest.raises(KitaeError, match=r"tokens-00000\.bin is damaged: it has 0 bytes instead of 6"):
        join([tmp_path / "part"], tmp_path / "whole")


def test_a_folder_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KitaeError, match="no token shards"):
        Shards(tmp_path)
