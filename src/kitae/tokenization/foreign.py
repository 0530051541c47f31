"""Tokenizers that others wrote: vocab.txt, tokenizer.json, vocab.json with merges.txt, and SentencePiece models by their class.

SentencePiece models run in SentencePiece itself, so that DeBERTa's keep their normalizer: transformers 5 drops it and gives other
ids for full-width and compatibility characters than the models were trained with.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers

from kitae.core.errors import KitaeError
from kitae.tokenization import sentencepiece as pieces
from kitae.tokenization.definition import Algorithm, Around, Definition
from kitae.tokenization.files import CAN, LIBRARY, SENTENCEPIECE, VOCABULARY, class_of, json_of, lines_of_file, named, names_of, understood
from kitae.tokenization.segmenter import SegmenterSpec
from kitae.tokenization.wordpiece import PREFIX

BERT_CLASSES = ("", "Bert", "Electra", "PreTrained")
MODELS = {"DebertaV2": "spm.model", "Albert": SENTENCEPIECE, "XLMRoberta": "sentencepiece.bpe.model"}
"""The classes whose SentencePiece models are read, and their files."""
TYPES = {"deberta-v2": "DebertaV2", "albert": "Albert", "xlm-roberta": "XLMRoberta"}
"""config.json's model_type, for folders that name no class."""
MERGES = "merges.txt"


def read(folder: Path, config: dict[str, object]) -> Definition:
    """Read a folder of any class but BertJapaneseTokenizer. Raises KitaeError for what cannot be reproduced."""
    kind = class_of(config)
    if not kind and (folder / "config.json").is_file():
        kind = TYPES.get(str(json_of(folder / "config.json").get("model_type")), "")
    file = MODELS.get(kind)
    if file is not None and (folder / file).is_file():
        return sentencepiece_model(folder / file, config, kind)
    if (folder / LIBRARY).is_file():
        with understood(folder / LIBRARY):
            return library(folder, config)
    if (folder / VOCABULARY).is_file() and kind in BERT_CLASSES:
        return plain(folder / VOCABULARY, config)
    if (folder / "vocab.json").is_file() and (folder / MERGES).is_file():
        with understood(folder / "vocab.json"):
            return byte_level(folder, config)
    found = f"tokenizer_class {config['tokenizer_class']}" if config.get("tokenizer_class") else "no tokenizer.json and no vocab.txt"
    raise KitaeError(f"this tokenizer cannot be read: {found}", cure=CAN, where=str(folder))


def sentencepiece_model(path: Path, config: Mapping[str, object], kind: str) -> Definition:
    """A SentencePiece model as the class `kind` uses it ("" for the model alone)."""
    model = path.read_bytes()
    contents = pieces.read(model, path)
    if config.get("split_by_punct"):
        raise KitaeError("split_by_punct = true cannot be reproduced", cure=CAN, where=str(path.parent))
    lower = bool(config.get("do_lower_case", kind == "Albert"))
    around = Around(lower_case=lower, fairseq=kind == "XLMRoberta")
    if kind == "Albert":
        around = replace(around, quotes=True, commas=True, strip_accents=not config.get("keep_accents", False))
    tokens = pieces.tokens_of(contents, around)
    missing = [name for name in named(config, path.parent) if name not in tokens]
    if len(missing) == 1 and kind:  # DeBERTa-v3's [MASK] stands behind the model's pieces
        tokens += tuple(missing)
    return Definition(
        tokens=tokens,
        spec=SegmenterSpec(kind="none", nfkc=False),
        names=names_of(config, tokens, path),
        algorithm="unigram" if contents.kind == pieces.UNIGRAM else "bpe",
        model=model,
        around=around,
    )


def japanese_sentencepiece(folder: Path, config: Mapping[str, object], spec: SegmenterSpec, around: Around, dictionary: str) -> Definition:
    """BertJapaneseTokenizer with SentencePiece of each word; `dictionary` is the fingerprint of the words' dictionary."""
    path = folder / SENTENCEPIECE
    if not path.is_file():
        raise KitaeError(f"{path.name} is missing", cure=CAN, where=str(folder))
    model = path.read_bytes()
    contents = pieces.read(model, path)
    tokens = pieces.tokens_of(contents, around)
    return Definition(
        tokens=tokens,
        spec=spec,
        names=names_of(config, tokens, folder),
        dictionary_fingerprint=dictionary,
        algorithm="unigram" if contents.kind == pieces.UNIGRAM else "bpe",
        model=model,
        around=around,
    )


def library_tokens(raw: Mapping[str, object], folder: Path) -> tuple[str, ...]:
    """Id -> token of a tokenizer.json, its added tokens included."""
    with understood(folder / LIBRARY):
        return _library_tokens(raw, folder)


def _library_tokens(raw: Mapping[str, object], folder: Path) -> tuple[str, ...]:
    model, added = raw["model"], raw.get("added_tokens") or []
    assert isinstance(model, dict)
    assert isinstance(added, list)
    kind, where = model.get("type", "WordPiece"), str(folder / LIBRARY)
    if kind not in ("WordPiece", "Unigram", "BPE", "WordLevel") or model.get("continuing_subword_prefix") not in (None, "", PREFIX):
        raise KitaeError(f"tokenizer.json holds a {kind} model", cure=CAN, where=where)
    vocabulary = model["vocab"]
    numbers = {token: i for i, (token, _) in enumerate(vocabulary)} if isinstance(vocabulary, list) else dict(vocabulary)
    if kind != "WordPiece":
        numbers |= {str(entry["content"]): int(entry["id"]) for entry in added}
    tokens = tuple(sorted(numbers, key=lambda token: int(numbers[token])))
    if [numbers[token] for token in tokens] != list(range(len(tokens))):
        raise KitaeError("the ids in tokenizer.json have gaps", cure=CAN, where=where)
    return tokens


def library(folder: Path, config: Mapping[str, object]) -> Definition:
    """A tokenizer.json."""
    raw = json_of(folder / LIBRARY)
    model, added = raw["model"], raw.get("added_tokens") or []
    assert isinstance(model, dict)
    assert isinstance(added, list)
    tokens = library_tokens(raw, folder)
    names = names_of(config, tokens, folder)
    kinds: dict[str, Algorithm] = {"Unigram": "unigram", "BPE": "byte-bpe" if '"ByteLevel"' in json.dumps(raw) else "bpe"}
    algorithm = kinds.get(str(model.get("type")), "wordpiece")
    if model.get("type") == "WordLevel":
        raise KitaeError("tokenizer.json holds a WordLevel model", cure=CAN, where=str(folder / LIBRARY))
    extra = [str(entry["content"]) for entry in added if entry["content"] not in tokens or not entry["special"]]
    if extra and algorithm == "wordpiece":
        raise KitaeError(f"tokenizer.json has added tokens outside its vocabulary: {', '.join(extra[:5])}", cure=CAN, where=str(folder))
    return Definition(
        tokens=tokens,
        spec=SegmenterSpec(kind="basic" if algorithm == "wordpiece" else "none"),
        names=names,
        max_chars=int(model.get("max_input_chars_per_word", 100)),
        library=(folder / LIBRARY).read_text(encoding="utf-8"),
        algorithm=algorithm,
    )


def byte_level(folder: Path, config: Mapping[str, object]) -> Definition:
    """vocab.json and merges.txt of RoBERTa's byte-level BPE."""
    numbers = {token: int(str(number)) for token, number in json_of(folder / "vocab.json").items()}
    lines = (folder / MERGES).read_text(encoding="utf-8").split("\n")
    kept = [line for line in lines if line and not line.startswith("#version")]
    if any(line.count(" ") != 1 for line in kept):
        raise KitaeError("a line of merges.txt is not two pieces", cure="bring the file again", where=str(folder / MERGES))
    merges = [(line.partition(" ")[0], line.partition(" ")[2]) for line in kept]
    tokens = tuple(sorted(numbers, key=numbers.__getitem__))
    if [numbers[token] for token in tokens] != list(range(len(tokens))):
        raise KitaeError("the ids in vocab.json have gaps", cure=CAN, where=str(folder / "vocab.json"))
    made = Library(models.BPE(numbers, merges, fuse_unk=False))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space", False)))
    made.decoder = decoders.ByteLevel()
    return Definition(
        tokens=tokens,
        spec=SegmenterSpec(kind="none", nfkc=False),
        names=names_of(config if config.get("tokenizer_class") else {**config, "tokenizer_class": "RobertaTokenizer"}, tokens, folder),
        library=str(made.to_str(pretty=False)),
        algorithm="byte-bpe",
    )


def plain(path: Path, config: Mapping[str, object]) -> Definition:
    """A vocab.txt with BERT's basic rules: cased and accents kept when nothing says otherwise, else as its class does it."""
    known = bool(config.get("tokenizer_class"))
    lower = bool(config.get("do_lower_case", known))
    strip = config.get("strip_accents")
    tokens = lines_of_file(path)
    spec = SegmenterSpec(kind="basic", nfkc=False, lower_case=lower, strip_accents=(lower and known) if strip is None else bool(strip))
    return Definition(tokens=tokens, spec=spec, names=names_of(config, tokens, path))
