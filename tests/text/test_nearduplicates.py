"""Near-duplicates: what is planted is found, what only resembles stays, and neither order of parts nor workers show."""

import functools
import random
import resource
from pathlib import Path

import numpy as np
import pytest

from kitae.text import nearduplicates
from kitae.text.build import Built, Holdout, build
from kitae.text.clean import normalize
from kitae.text.executors import Engine
from kitae.text.nearduplicates import grams, near_duplicates, sketch, sketch_file
from kitae.text.readers import read
from kitae.text.steps import Clean, Source

KANA = "あいうえおかきくけこさしすせそたちつてとなにぬねの"


def jaccard(left: str, right: str) -> float:
    one, other = (set(grams(text).tolist()) for text in (left, right))
    return len(one & other) / len(one | other)


def changed(text: str, similarity: float, chance: random.Random) -> str:
    """The text with single characters replaced until no more than `similarity` is left, at 0.01 above it at most."""
    letters = list(text)
    while (left := jaccard(text, "".join(letters)) - similarity) > 0.01:
        for _ in range(max(1, int(left * len(text) / 20))):
            letters[chance.randrange(len(letters))] = chance.choice(KANA)
    return "".join(letters)


@functools.cache
def articles(shared: Path, count: int) -> list[str]:
    """Different articles of some length; texts that resemble an earlier one are left out by an exact comparison."""
    kept: list[str] = []
    seen: list[set[int]] = []
    for found in read(shared / "ja_plain" / "kyoto_wiki.txt.xz", "text"):
        text = "".join(normalize(found.text if isinstance(found.text, str) else found.text()).split())[:1000]
        if len(text) >= 600:
            mine = set(grams(text).tolist())
            if all(len(mine & other) < 0.3 * len(mine | other) for other in seen):
                kept.append(text)
                seen.append(mine)
        if len(kept) == count:
            break
    return kept


def write_source(folder: Path, name: str, documents: list[str]) -> Source:
    path = folder / f"{name}.txt"
    path.write_text("\n\n".join(documents), encoding="utf-8")
    return Source(name=name, path=path, format="text")


def make(sources: list[Source], folder: Path, *, workers: int = 1, similarity: float = 0.8) -> Built:
    steps = [Clean(normalization="nfkc", language="ja", min_characters=1)]
    return build(
        sources,
        steps,
        holdout=Holdout(),
        seed=1,
        engine=Engine(workers=workers),
        work=folder / "work",
        out=folder / "out",
        similarity=similarity,
    )


def test_planted_across_sources_are_found_and_the_rest_stays(tmp_path: Path, shared: Path) -> None:
    """Pairs at 0.80 to 0.81, the hardest that have to be found; pairs at 0.6, the likest that have to stay."""
    chance, originals = random.Random(7), articles(shared, 300)
    planted = [changed(text, 0.8, chance) for text in originals[:150]]
    alike = [changed(text, 0.6, chance) for text in originals[150:]]
    assert all(0.79 < jaccard(text, other) < 0.82 for text, other in zip(originals, planted))
    built = make([write_source(tmp_path, "a", originals), write_source(tmp_path, "b", planted + alike)], tmp_path)
    assert "near-duplicate" not in built.dropped["a"]
    found = built.dropped["b"]["near-duplicate"]
    assert 0.95 * 150 <= found.documents <= 150 + 0.01 * 300
    assert built.train["a"].documents == 300
    assert built.train["b"].documents == 300 - found.documents
    assert [name for name, _ in found.examples] == ["b/0", "b/1", "b/2"]


def test_workers_and_parts_never_show(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kitae.text.build.PARALLEL_BYTES", 1000)
    chance, originals = random.Random(3), articles(shared, 300)[:150]
    documents = [*originals, originals[5], *(changed(text, 0.9, chance) for text in originals[:60])]
    chance.shuffle(documents)
    sources = [write_source(tmp_path, "a", documents[:140]), write_source(tmp_path, "b", documents[140:])]
    built = {workers: make(sources, tmp_path / str(workers), workers=workers) for workers in (1, 2)}
    assert built[1] == built[2]
    dropped = [tallies.get("near-duplicate") for tallies in built[1].dropped.values()]
    assert sum(tally.documents for tally in dropped if tally) == 60
    assert sum(tallies["duplicate"].documents for tallies in built[1].dropped.values() if "duplicate" in tallies) == 1


def test_small_buffers_give_the_same(tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain a ~ b ~ c is one cluster; it stays one when bands are sorted in slices and pairs compared in pieces."""
    chance, originals = random.Random(5), articles(shared, 300)[:80]
    second = [changed(text, 0.9, chance) for text in originals[:40]]
    third = [changed(text, 0.9, chance) for text in second]
    rows = np.stack([sketch(text) for text in [*originals, *second, *third]])
    part = (np.arange(len(rows)) % 3).astype(np.uint32)
    take = np.ones(len(rows), bool)
    take[85] = False
    found = []
    for number, (chunk, most) in enumerate(((1 << 16, 1 << 22), (7, 10))):
        monkeypatch.setattr(nearduplicates, "CHUNK", chunk)
        monkeypatch.setattr(nearduplicates, "MOST_KEYS", most)
        folder = tmp_path / str(number)
        folder.mkdir()
        for rank in range(3):
            sketch_file(folder, rank).write_bytes(rows[part == rank].tobytes())
        halves = [(part[:90], take[:90]), (part[90:], take[90:])]
        near = near_duplicates(folder, halves, 0.8)
        answer = np.zeros(len(rows), bool)
        answer[take] = np.concatenate([near(0, 17), near(17, int(take.sum()))])
        found.append(answer)
        assert not list(folder.glob("band-*")), "the bands' files are removed as they are used"
    assert (found[0] == found[1]).all()
    assert not found[0][:80].any()
    assert not found[0][85]
    assert found[0].sum() == 79


@pytest.mark.parametrize("similarity", [0.5, 0.8, 0.95])
def test_the_estimate_is_unbiased(shared: Path, similarity: float) -> None:
    chance, errors = random.Random(1), []
    for text in articles(shared, 300)[:60]:
        other = changed(text, similarity, chance)
        exact = jaccard(text, other)
        errors.append(float((sketch(text) == sketch(other)).mean()) - (exact + (1 - exact) / 256))
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 1.2 * np.sqrt(similarity * (1 - similarity) / 256)


def test_short_and_long_texts() -> None:
    assert (sketch("") == sketch(" \n")).all()
    assert (sketch("今日は。") == sketch("今日 は。")).all()
    assert (sketch("今日は。") == sketch("昨日は。")).mean() < 0.1
    long = "".join(chr(0x4E00 + number * 7 % 20000) for number in range(150_000))
    part = long[:100_000]
    assert (sketch(long) == sketch(part)).mean() == pytest.approx(jaccard(long, part), abs=0.1)


def test_no_documents(tmp_path: Path) -> None:
    assert near_duplicates(tmp_path, [], 0.8)(0, 0).tolist() == []


def test_more_parts_than_a_process_may_open_files(tmp_path: Path) -> None:
    row = np.arange(256, dtype=np.uint8)
    for rank in range(200):
        sketch_file(tmp_path, rank).write_bytes(np.roll(row, rank // 2).tobytes())
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        near = near_duplicates(tmp_path, [(np.arange(200, dtype=np.uint32), np.ones(200, bool))], 0.8)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert near(0, 200).tolist() == [False, True] * 100


def test_clusters_join_by_the_first_of_each() -> None:
    """Random pairs, in pieces, against a plain union-find."""
    chance = np.random.default_rng(4)
    pairs = chance.integers(0, 400, (300, 2)).astype(np.uint32)
    parents = np.arange(400, dtype=np.uint32)
    for start in range(0, 300, 60):
        nearduplicates._join(parents, pairs[start : start + 60, 0], pairs[start : start + 60, 1])
    label = list(range(400))
    for one, other in pairs.tolist():
        low, high = sorted((label[one], label[other]))
        label = [low if each == high else each for each in label]
    assert nearduplicates._roots(parents, np.arange(400, dtype=np.uint32)).tolist() == label
