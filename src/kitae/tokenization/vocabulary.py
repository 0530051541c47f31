"""Training on a table of counts, so that corpus size does not matter: WordPiece, byte-level BPE, characters, words as labels."""

import heapq
import itertools
from array import array
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from kitae.core.errors import KitaeError
from kitae.tokenization.library import BYTES
from kitae.tokenization.wordpiece import PREFIX

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SHIFT = 32


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


def train(counts: Mapping[str, int], options: VocabularyOptions) -> tuple[str, ...]:
    """The tokens of a WordPiece vocabulary, id order: reserved, characters, inner characters, then pieces as merged.

    The criterion is that of the `tokenizers` library's WordPieceTrainer: the most frequent pair first; ties go by the pieces' text,
    so that the same counts give the same vocabulary anywhere. Raises KitaeError when the characters alone exceed `vocab_size`.
    """
    kept = set(options.alphabet)
    kept.update(char for char, _ in itertools.islice(_by_count(_characters(counts)), max(options.limit_alphabet - len(kept), 0)))
    usable = sorted(word for word in counts if 0 < len(word) <= options.max_chars and kept.issuperset(word))
    inner = {char for word in usable for char in word[1:]}
    tokens = [*options.reserved, *sorted(kept), *(PREFIX + char for char in sorted(inner))]
    tokens = list(dict.fromkeys([*options.reserved, *options.user_tokens, *tokens]))
    if len(tokens) > options.vocab_size:
        raise KitaeError(
            f"vocab_size = {options.vocab_size} is too small: {len(kept)} characters, {len(inner)} of them also inside words, "
            f"and {len(options.reserved)} reserved tokens need {len(tokens)}",
            cure="raise vocab_size, or lower limit_alphabet",
        )
    state = _State(tokens=tokens, numbers={token: number for number, token in enumerate(tokens)}, prefix=PREFIX)
    for word in usable:
        state.add(word, counts[word])
    return tuple(state.merge(options.vocab_size, options.min_frequency, frozenset(options.reserved)))


def train_bytes(counts: Mapping[str, int], options: VocabularyOptions) -> tuple[tuple[str, ...], list[tuple[str, str]]]:
    """Tokens and merges of byte-level BPE (Radford et al. 2019) from words in its writing: reserved, user's, 256 bytes, then merges."""
    tokens = list(dict.fromkeys([*options.reserved, *options.user_tokens, *BYTES]))
    if len(tokens) > options.vocab_size:
        raise KitaeError(
            f"vocab_size = {options.vocab_size} is too small: 256 bytes and the reserved tokens need {len(tokens)}", cure="raise vocab_size"
        )
    state = _State(tokens=tokens, numbers={token: number for number, token in enumerate(tokens)}, prefix="")
    for word in sorted(word for word in counts if len(word) <= options.max_chars):
        state.add(word, counts[word])
    grown = tuple(state.merge(options.vocab_size, options.min_frequency, frozenset((*options.reserved, *options.user_tokens))))
    return grown, state.merges


def train_characters(counts: Mapping[str, int], options: VocabularyOptions) -> tuple[str, ...]:
    """Reserved tokens, the given alphabet, then the most frequent characters."""
    found = (char for char, count in _by_count(_characters(counts)) if count >= options.min_frequency)
    return tuple(dict.fromkeys([*options.reserved, *options.alphabet, *found]))[: options.vocab_size]


def train_labels(counts: Mapping[str, int], options: VocabularyOptions) -> tuple[str, ...]:
    """Reserved tokens, then the most frequent words: what a CharacterBERT predicts."""
    found = (word for word, count in _by_count(counts) if count >= options.min_frequency)
    return tuple(dict.fromkeys(itertools.islice(itertools.chain(options.reserved, found), options.vocab_size)))


def _characters(counts: Mapping[str, int]) -> Counter[str]:
    characters: Counter[str] = Counter()
    for word, count in counts.items():
        for char in word:
            characters[char] += count
    return characters


def _by_count(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@dataclass(kw_only=True)
class _State:
    """Words as runs of token numbers in one array, with the count of every neighboring pair and the words where it stands.

    About 70 bytes a word: millions of words are trained on in less memory than their table of counts takes.
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
            merged = left + right.removeprefix(self.prefix)
            if merged in reserved:  # "[SEP]" in a text must never become the separator
                continue
            self.merges.append((left, right))
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
            start, length, count, i = self.starts[index], self.lengths[index], self.counts[index], 0
            symbols = self.symbols[start : start + length]
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
                    symbols[i : i + 2] = array("i", (new,))
                i += 1
            self.lengths[index] = len(symbols)
            self.symbols[start : start + len(symbols)] = symbols
        del pairs[pair]
        return changed
