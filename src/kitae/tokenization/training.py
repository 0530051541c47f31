"""A vocabulary of any kind from counts: unigram and BPE by SentencePiece, the rest by our own trainers."""

import io
from collections import Counter
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from kitae.core.errors import KitaeError
from kitae.tokenization import resources
from kitae.tokenization import sentencepiece as pieces
from kitae.tokenization.counts import Counts
from kitae.tokenization.definition import Algorithm, Around, Definition
from kitae.tokenization.folder import JAPANESE
from kitae.tokenization.library import finish
from kitae.tokenization.segmenter import SURFACES, SegmenterSpec, library_parts
from kitae.tokenization.vocabulary import SPECIAL_TOKENS, VocabularyOptions, train, train_bytes, train_characters, train_labels

THREADS = 16
"""SentencePiece adds up in as many parts: a fixed number gives the same vocabulary on any machine."""
SEEDS = 1_000_000
"""Candidates of a unigram vocabulary, SentencePiece's own default."""
GIVEN: dict[Algorithm, int] = {"unigram": 15_000_000, "bpe": 3_500_000}
"""Characters that SentencePiece gets: it takes up to 85 bytes for each in unigram training, 370 in BPE."""
ROWS = 2_000_000
"""Words that it gets: it takes up to 450 bytes for each."""
LONGEST_PIECE = 16
"""Characters of a piece at most, SentencePiece's own default."""


def define(
    algorithm: Algorithm,
    counts: Counts,
    spec: SegmenterSpec,
    options: VocabularyOptions,
    *,
    scratch: Path,
    candidates: Container[str] = frozenset(),
    word_bytes: int = 0,
) -> Definition:
    """Train and put together. `counts` are words, byte-level words, or whole sentences, as the algorithm and segmenter want them.

    `candidates`: unigram only, words that count as candidates whole (see `seeds`). Raises KitaeError when vocab_size is too small.
    """
    fingerprint = resources.find(spec).fingerprint
    if algorithm in ("unigram", "bpe"):
        return _sentencepiece(algorithm, counts, spec, options, scratch=scratch, candidates=candidates, fingerprint=fingerprint)
    if algorithm == "byte-bpe":
        return _byte_level(counts, spec, options)
    trainer = {"wordpiece": train, "character": train_characters, "characters-of-words": train_labels}[algorithm]
    tokens = trainer(counts, options)
    return Definition(tokens=tokens, spec=spec, dictionary_fingerprint=fingerprint, algorithm=algorithm, word_bytes=word_bytes)


def _byte_level(counts: Counts, spec: SegmenterSpec, options: VocabularyOptions) -> Definition:
    tokens, merges = train_bytes(counts, options)
    library = Library(models.BPE({token: number for number, token in enumerate(tokens)}, merges, fuse_unk=False))
    normalizer = library_parts(spec).normalizer
    if normalizer is not None:
        library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    library.decoder = decoders.ByteLevel()
    library.add_tokens([token for token in options.user_tokens if token in tokens])
    definition = Definition(tokens=tokens, spec=spec, algorithm="byte-bpe")
    finish(library, definition)
    return Definition(tokens=tokens, spec=spec, algorithm="byte-bpe", library=str(library.to_str(pretty=False)))


def _sentencepiece(
    algorithm: Algorithm,
    counts: Counts,
    spec: SegmenterSpec,
    options: VocabularyOptions,
    *,
    scratch: Path,
    candidates: Container[str],
    fingerprint: str,
) -> Definition:
    """Words that a dictionary found are normalized already and get BertJapaneseTokenizer's way; other text gets SentencePiece's."""
    raw = spec.kind not in SURFACES
    sentences = spec.kind == "none"
    text, seed_file = scratch / "counts.tsv", scratch / "seeds.tsv"
    rule = ("nmt_nfkc_cf" if spec.lower_case else "nmt_nfkc") if raw else "identity"
    settings: dict[str, Any] = {
        "model_type": algorithm,
        "vocab_size": options.vocab_size,
        "hard_vocab_limit": algorithm == "bpe",
        "character_coverage": options.character_coverage,
        "required_chars": options.alphabet,
        "normalization_rule_name": rule,
        "split_by_whitespace": options.split_by_whitespace,
        "max_sentencepiece_length": LONGEST_PIECE,
        "control_symbols": list(options.reserved[4:]) if algorithm == "bpe" else [SPECIAL_TOKENS[4]],
        # in a tokenizer.json, unigram pieces are found wherever their text stands, unused ones too: the same then in SentencePiece
        "user_defined_symbols": [] if algorithm == "bpe" else [*options.reserved[5:], *options.user_tokens],
        "input_format": "text" if sentences else "tsv",
        "num_threads": THREADS,
        "seed_sentencepiece_size": SEEDS,
        "max_sentence_length": 1 << 20,
        "minloglevel": 3,
    }
    for number, (role, name) in enumerate(zip(("pad", "unk", "bos", "eos"), SPECIAL_TOKENS, strict=False)):
        settings |= {f"{role}_id": number, f"{role}_piece": name}
    try:
        given = counts.most_frequent(units=ROWS, characters=GIVEN[algorithm])
        with text.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(f"{unit}\n" if sentences else f"{unit}\t{count}\n" for unit, count in given.rows())
        if algorithm == "unigram" and not sentences:  # its own search takes memory for each time that a word occurs
            with seed_file.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{piece}\t{count}\n" for piece, count in seeds(given, candidates))
            settings["seed_sentencepieces_file"] = str(seed_file)
        model = pieces.tidied(_run(text, settings), str(scratch))
    finally:
        text.unlink(missing_ok=True)
        seed_file.unlink(missing_ok=True)
    contents = pieces.read(model, Path("spiece.model"))
    return Definition(
        tokens=pieces.tokens_of(contents, Around()),
        spec=spec,
        dictionary_fingerprint=fingerprint,
        algorithm=algorithm,
        model=model,
        around=Around() if raw else JAPANESE,
    )


def _run(text: Path, settings: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(input=str(text), model_writer=out, **settings)
    except (RuntimeError, OSError, ValueError) as error:
        said = str(error).rsplit("] ", 1)[-1].strip() or str(error)
        raise KitaeError(
            f"SentencePiece cannot train {settings['vocab_size']} pieces on this corpus: {said}",
            cure="change vocab_size or character_coverage, or give it more text",
        ) from error
    return out.getvalue()


def seeds(counts: Counts, candidates: Container[str] = frozenset()) -> list[tuple[str, int]]:
    """The candidates of a unigram vocabulary: each counted word that `candidates` has, whole, and all parts of the other words.

    So the vocabulary becomes words of the dictionary, and subwords of what the dictionary does not know. Pieces with their counts,
    the most characters covered first; single characters come from SentencePiece itself. Twice SEEDS are held at most: then
    parts of words that are rare so far go.
    """
    found: Counter[str] = Counter()
    for word, count in counts.rows():
        marked = pieces.SPACE + word
        if word in candidates:
            if len(marked) <= LONGEST_PIECE:
                found[marked] += count
        else:
            for start in range(len(marked)):
                for end in range(start + 2, min(len(marked), start + LONGEST_PIECE) + 1):
                    found[marked[start:end]] += count
        if len(found) > 2 * SEEDS:
            found = Counter(dict(_best(found)))
    return _best(found)


def _best(found: Mapping[str, int]) -> list[tuple[str, int]]:
    order = sorted(found)
    order.sort(key=lambda piece: -found[piece] * len(piece))
    return [(piece, found[piece]) for piece in order[:SEEDS]]
