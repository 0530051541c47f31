"""WordPiece training: words are counted once, in parallel; pieces are merged on the table of counts, so corpus size does not matter."""

import heapq
import itertools
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.core.runtime import worker_pool
from kitae.tokenization.segmenter import SegmenterSpec, words_of_each
from kitae.tokenization.wordpiece import PREFIX

log = logging.getLogger(__name__)
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DISTINCT = 3_000_000
"""Words kept in one table; beyond it the rarest are dropped, which bounds memory to about a gigabyte."""
SHIFT = 32

Reader = Callable[[Path], Iterable[str]]


def count_words(shards: Sequence[Path], read: Reader, spec: SegmenterSpec, *, workers: int = 1) -> Counter[str]:
    """How often each word occurs in the shards. `read` gives a shard's sentences; it must be a module's function (it travels).

    The result does not depend on `workers`: shards are counted and trimmed one by one and merged in their order.
    """
    total: Counter[str] = Counter()
    if workers <= 1 or len(shards) <= 1:
        words = words_of_each(spec)
        for shard in shards:
            _merge(total, _count(words, read(shard)))
        return total
    with worker_pool(min(workers, len(shards))) as pool:
        for counts in pool.map(_count_shard, shards, [read] * len(shards), [spec] * len(shards)):
            _merge(total, counts)
    return total


def _count_shard(shard: Path, read: Reader, spec: SegmenterSpec) -> Counter[str]:
    return _count(words_of_each(spec), read(shard))


def _count(words: Callable[[Iterable[str]], Iterator[list[str]]], sentences: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for number, found in enumerate(words(sentences)):
        counts.update(found)
        if number % 10_000 == 0:
            _trim(counts)
    return counts


def _merge(total: Counter[str], counts: Counter[str]) -> None:
    total.update(counts)
    _trim(total)


def _trim(counts: Counter[str]) -> None:
    floor = 1
    while len(counts) > DISTINCT:
        rare = [word for word, count in counts.items() if count <= floor]
        for word in rare:
            del counts[word]
        log.warning("more than %d distinct words: dropped %d that occurred at most %d times so far", DISTINCT, len(rare), floor)
        floor += 1


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions:
    """How to train a vocabulary."""

    vocab_size: int = 32768
    """Tokens asked for, special and unused ones included; a small corpus gives fewer."""
    min_frequency: int = 2
    """A pair of pieces that occurs more rarely is not merged."""
    limit_alphabet: int = 6129
    """Most characters kept, the most frequent first; words with any other are unknown."""
    num_unused: int = 10
    """Tokens <unused0>, <unused1>, ... kept free for later use."""
    max_chars: int = 100
    """Longer words are not looked at: they are always unknown."""

    @property
    def reserved(self) -> tuple[str, ...]:
        """The first tokens of the vocabulary."""
        return (*SPECIAL_TOKENS, *(f"<unused{i}>" for i in range(self.num_unused)))


def train(counts: Mapping[str, int], options: VocabularyOptions) -> tuple[str, ...]:
    """The tokens of a WordPiece vocabulary, id order: reserved, characters, inner characters, then pieces as merged.

    The criterion is that of the `tokenizers` library's WordPieceTrainer: the most frequent pair first; ties go by the pieces' text,
    so that the same counts give the same vocabulary anywhere. Raises KitaeError when the characters alone exceed `vocab_size`.
    """
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for char in word:
            characters[char] += count
    kept = {char for char, _ in sorted(characters.items(), key=lambda item: (-item[1], item[0]))[: options.limit_alphabet]}
    usable = sorted(word for word in counts if 0 < len(word) <= options.max_chars and kept.issuperset(word))
    inner = {char for word in usable for char in word[1:]}
    tokens = [*options.reserved, *sorted(kept), *(PREFIX + char for char in sorted(inner))]
    if len(tokens) > options.vocab_size:
        raise KitaeError(
            f"vocab_size = {options.vocab_size} is too small: {len(kept)} characters, {len(inner)} of them also inside words, "
            f"and {len(options.reserved)} reserved tokens need {len(tokens)}",
            cure="raise vocab_size, or lower limit_alphabet",
        )
    state = _State(tokens=tokens, numbers={token: number for number, token in enumerate(tokens)})
    for word in usable:
        state.add(word, counts[word])
    return tuple(state.merge(options.vocab_size, options.min_frequency, frozenset(options.reserved)))


@dataclass(kw_only=True)
class _State:
    """Words as lists of token numbers, with the count of every neighboring pair and the words where it stands."""

    tokens: list[str]
    numbers: dict[str, int]
    words: list[list[int]] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    pairs: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    where: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))

    def add(self, word: str, count: int) -> None:
        symbols = [self.numbers[char if i == 0 else PREFIX + char] for i, char in enumerate(word)]
        if len(symbols) < 2:
            return
        index = len(self.words)
        self.words.append(symbols)
        self.counts.append(count)
        for left, right in itertools.pairwise(symbols):
            self.pairs[left << SHIFT | right] += count
            self.where[left << SHIFT | right].append(index)

    def entry(self, pair: int) -> tuple[int, str, str, int]:
        left, right = self.tokens[pair >> SHIFT], self.tokens[pair & ((1 << SHIFT) - 1)]
        return -self.pairs[pair], left, right, pair

    def merge(self, size: int, least: int, reserved: frozenset[str]) -> list[str]:
        heap = [self.entry(pair) for pair, count in self.pairs.items() if count >= least]
        heapq.heapify(heap)
        while heap and len(self.tokens) < size:
            negative, left, right, pair = heapq.heappop(heap)
            count = self.pairs.get(pair, 0)
            if count < max(least, 1):
                continue
            if count != -negative:
                heapq.heappush(heap, self.entry(pair))
                continue
            merged = left + right.removeprefix(PREFIX)
            if merged in reserved:  # "[SEP]" in a text must never become the separator
                continue
            new = self.numbers.setdefault(merged, len(self.tokens))
            if new == len(self.tokens):
                self.tokens.append(merged)
            for changed in self._apply(pair, new):
                if self.pairs[changed] >= least:
                    heapq.heappush(heap, self.entry(changed))
        return self.tokens

    def _apply(self, pair: int, new: int) -> set[int]:
        first, second = pair >> SHIFT, pair & ((1 << SHIFT) - 1)
        changed: set[int] = set()
        pairs, where = self.pairs, self.where
        for index in set(where.pop(pair, ())):
            symbols, count, i = self.words[index], self.counts[index], 0
            while i < len(symbols) - 1:
                if symbols[i] == first and symbols[i + 1] == second:
                    neighbors = []
                    if i > 0:
                        before = symbols[i - 1] << SHIFT
                        pairs[before | first] -= count
                        neighbors.append(before | new)
                    if i + 2 < len(symbols):
                        after = symbols[i + 2]
                        pairs[second << SHIFT | after] -= count
                        neighbors.append(new << SHIFT | after)
                    for neighbor in neighbors:
                        pairs[neighbor] += count
                        where[neighbor].append(index)
                        changed.add(neighbor)
                    symbols[i : i + 2] = [new]
                i += 1
        del pairs[pair]
        return changed
