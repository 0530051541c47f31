"""Training on a table of counts, so that corpus size does not matter: WordPiece, byte-level BPE, characters, words as labels."""

import heapq
import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kitae.core.errors import KitaeError
from kitae.tokenization.counts import Counts, Row
from kitae.tokenization.library import BYTES
from kitae.tokenization.wordpiece import PREFIX

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHIFT = 32
PAIRS = 2_500_000
"""Different pairs held at a time, about 0.8 gigabytes. Beyond it the rarest are forgotten, and counted from zero when met again."""


@dataclass(frozen=True, kw_only=True)
class VocabularyOptions:
    """How to train a vocabulary."""

    vocab_size: int = 32768
    """Tokens asked for, special and unused ones included; a small corpus gives fewer."""
    min_frequency: int = 2
    """A pair of pieces that occurs more rarely is not merged."""
    limit_alphabet: int = 6129
    """Most characters kept, the most frequent first; words with any other are unknown."""
    alphabet: str = ""
    """Characters that are in the vocabulary in any case."""
    num_unused: int = 10
    """Tokens <unused0>, <unused1>, ... kept free for later use."""
    unused: str = "<unused{}>"
    """How they are written."""
    user_tokens: tuple[str, ...] = ()
    """Tokens that are in the vocabulary in any case."""
    character_coverage: float = 0.9995
    """SentencePiece: share of the text's characters that get a piece."""
    split_by_whitespace: bool = True
    """SentencePiece: whether no piece has a blank inside."""
    max_chars: int = 100
    """Longer words are not looked at: they are always unknown."""

    @property
    def reserved(self) -> tuple[str, ...]:
        """The first tokens of the vocabulary."""
        return (*SPECIAL_TOKENS, *(self.unused.format(i) for i in range(self.num_unused)))


def train(counts: Counts, options: VocabularyOptions) -> tuple[str, ...]:
    """The tokens of a WordPiece vocabulary, id order: reserved, user's, characters, inner characters, then pieces as merged.

    The criterion is that of the `tokenizers` library's WordPieceTrainer: the most frequent pair first; ties go by the pieces' text,
    so that the same counts give the same vocabulary anywhere. Raises KitaeError when the characters alone exceed `vocab_size`.
    """
    kept = set(options.alphabet)
    kept.update(char for char, _ in itertools.islice(_by_count(_characters(counts)), max(options.limit_alphabet - len(kept), 0)))

    def usable() -> Iterator[Row]:
        return (row for row in counts.rows() if 0 < len(row[0]) <= options.max_chars and kept.issuperset(row[0]))

    inner = {char for word, _ in usable() for char in word[1:]}
    tokens = [*sorted(kept), *(PREFIX + char for char in sorted(inner))]
    tokens = list(dict.fromkeys([*options.reserved, *options.user_tokens, *tokens]))
    if len(tokens) > options.vocab_size:
        raise KitaeError(
            f"vocab_size = {options.vocab_size} is too small: {len(kept)} characters, {len(inner)} of them also inside words, "
            f"and {len(options.reserved)} reserved tokens need {len(tokens)}",
            cure="raise vocab_size, or lower limit_alphabet",
        )
    state = _State(tokens=tokens, numbers={token: number for number, token in enumerate(tokens)}, prefix=PREFIX)
    for word, count in usable():
        state.add(word, count)
    return tuple(state.merge(options.vocab_size, options.min_frequency, frozenset(options.reserved)))


def train_bytes(counts: Counts, options: VocabularyOptions) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Tokens and merges of byte-level BPE (Radford et al. 2019) from words in its writing: reserved, user's, 256 bytes, then merges."""
    tokens = list(dict.fromkeys([*options.reserved, *options.user_tokens, *BYTES]))
    if len(tokens) > options.vocab_size:
        raise KitaeError(
            f"vocab_size = {options.vocab_size} is too small: 256 bytes and the reserved tokens need {len(tokens)}", cure="raise vocab_size"
        )
    state = _State(tokens=tokens, numbers={token: number for number, token in enumerate(tokens)}, prefix="")
    for word, count in counts.rows():
        state.add(word, count)
    grown = tuple(state.merge(options.vocab_size, options.min_frequency, frozenset((*options.reserved, *options.user_tokens))))
    return grown, state.merges


def train_characters(counts: Counts, options: VocabularyOptions) -> tuple[str, ...]:
    """Reserved tokens, the given alphabet, then the most frequent characters. Raises KitaeError when `vocab_size` has no room."""
    found = (char for char, count in _by_count(_characters(counts)) if count >= options.min_frequency)
    return _filled([*options.reserved, *options.alphabet], found, options)


def train_labels(counts: Counts, options: VocabularyOptions) -> tuple[str, ...]:
    """Reserved tokens, then the most frequent words: what a CharacterBERT predicts. Raises KitaeError as `train_characters`."""
    rows = (row for row in counts.rows() if len(row[0]) <= options.max_chars and row[1] >= options.min_frequency)
    best = heapq.nsmallest(options.vocab_size, rows, key=_order)
    return _filled(options.reserved, (word for word, _ in best), options)


def _filled(first: Sequence[str], found: Iterable[str], options: VocabularyOptions) -> tuple[str, ...]:
    """The first tokens, then as many of the others as there is room for; there must be some."""
    needed = len(set(first))
    if needed >= options.vocab_size:
        raise KitaeError(
            f"vocab_size = {options.vocab_size} is too small: {needed} tokens are reserved or given, which leaves none for the text",
            cure="raise vocab_size, or lower num_unused",
        )
    return tuple(itertools.islice(dict.fromkeys(itertools.chain(first, found)), options.vocab_size))


def _characters(counts: Counts) -> Counter[str]:
    characters: Counter[str] = Counter()
    for word, count in counts.rows():
        for char in word:
            characters[char] += count
    return characters


def _order(row: Row) -> tuple[int, str]:
    return -row[1], row[0]


def _by_count(counts: Mapping[str, int]) -> list[Row]:
    return sorted(counts.items(), key=_order)


@dataclass(kw_only=True)
class _State:
    """Words as runs of token numbers in one array, with the count of every neighboring pair and the words where it stands.

    About 70 bytes a word, and 300 for each different pair.
    """

    tokens: list[str]
    numbers: dict[str, int]
    prefix: str
    """What marks a piece inside a word."""
    merges: list[tuple[str, str]] = field(default_factory=list)
    symbols: "array[int]" = field(default_factory=lambda: array("i"))
    starts: "array[int]" = field(default_factory=lambda: array("q"))
    lengths: "array[int]" = field(default_factory=lambda: array("i"))
    counts: "array[int]" = field(default_factory=lambda: array("q"))
    pairs: defaultdict[int, int] = field(default_factory=lambda: defaultdict(int))
    where: defaultdict[int, "array[int]"] = field(default_factory=lambda: defaultdict(lambda: array("i")))

    def add(self, word: str, count: int) -> None:
        symbols = [self.numbers[char if i == 0 else self.prefix + char] for i, char in enumerate(word)]
        if len(symbols) < 2:
            return
        index = len(self.starts)
        self.starts.append(len(self.symbols))
        self.symbols.extend(symbols)
        self.lengths.append(len(symbols))
        self.counts.append(count)
        for left, right in itertools.pairwise(symbols):
            self.pairs[left << SHIFT | right] += count
            self.where[left << SHIFT | right].append(index)
        if len(self.pairs) > PAIRS:
            self._drop_rare()

    def _drop_rare(self) -> None:
        """Forget the rarest pairs, a quarter at least."""
        floor = sorted(self.pairs.values())[PAIRS // 4]
        for pair in [pair for pair, count in self.pairs.items() if count <= floor]:
            del self.pairs[pair], self.where[pair]

    def _lower(self, pair: int, count: int) -> None:
        left = self.pairs.get(pair)
        if left is None:  # forgotten
            return
        if left > count:
            self.pairs[pair] = left - count
        else:
            del self.pairs[pair]
            self.where.pop(pair, None)

    def entry(self, pair: int) -> tuple[int, str, str, int]:
        left, right = self.tokens[pair >> SHIFT], self.tokens[pair & ((1 << SHIFT) - 1)]
        return -self.pairs[pair], left, right, pair

    def merge(self, size: int, least: int, reserved: frozenset[str]) -> list[str]:
        heap = self._heap(least)
        while heap and len(self.tokens) < size:
            negative, left, right, pair = heapq.heappop(heap)
            count = self.pairs.get(pair, 0)
            if count < max(least, 1):
                continue
            if count != -negative:
                heapq.heappush(heap, self.entry(pair))
                continue
            merged = left + right.removeprefix(self.prefix)
            if merged in reserved:  # "[SEP]" in a text must never become the separator
                continue
            self.merges.append((left, right))
            new = self.numbers.setdefault(merged, len(self.tokens))
            if new == len(self.tokens):
                self.tokens.append(merged)
            for changed in self._apply(pair, new):
                if self.pairs.get(changed, 0) >= least:
                    heapq.heappush(heap, self.entry(changed))
            if len(self.pairs) > PAIRS:
                self._drop_rare()
            if len(heap) > 2 * len(self.pairs) + PAIRS // 4:  # mostly counts of earlier times
                heap = self._heap(least)
        return self.tokens

    def _heap(self, least: int) -> list[tuple[int, str, str, int]]:
        heap = [self.entry(pair) for pair, count in self.pairs.items() if count >= least]
        heapq.heapify(heap)
        return heap

    def _apply(self, pair: int, new: int) -> set[int]:
        first, second = pair >> SHIFT, pair & ((1 << SHIFT) - 1)
        changed: set[int] = set()
        pairs, where = self.pairs, self.where
        for index in set(where.pop(pair, ())):
            start, length, count, i = self.starts[index], self.lengths[index], self.counts[index], 0
            symbols = self.symbols[start : start + length]
            while i < len(symbols) - 1:
                if symbols[i] == first and symbols[i + 1] == second:
                    neighbors = []
                    if i > 0:
                        before = symbols[i - 1] << SHIFT
                        self._lower(before | first, count)
                        neighbors.append(before | new)
                    if i + 2 < len(symbols):
                        after = symbols[i + 2]
                        self._lower(second << SHIFT | after, count)
                        neighbors.append(new << SHIFT | after)
                    for neighbor in neighbors:
                        pairs[neighbor] += count
                        where[neighbor].append(index)
                        changed.add(neighbor)
                    symbols[i : i + 2] = array("i", (new,))
                i += 1
            self.lengths[index] = len(symbols)
            self.symbols[start : start + len(symbols)] = symbols
        pairs.pop(pair, None)
        return changed
