"""Tokenizer folders: ours (a Hugging Face folder with kitae_tokenizer.json beside) and what others wrote.

transformers 5 rebuilds most tokenizers from their class name and ignores the file; only `BertJapaneseTokenizer` and
`PreTrainedTokenizerFast` give the same ids under 4.57 and 5, so these two are written.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import get_args

from kitae.core.errors import KitaeError
from kitae.tokenization import foreign, japanese, resources
from kitae.tokenization import sentencepiece as pieces
from kitae.tokenization.definition import ROLES, Algorithm, Around, Definition
from kitae.tokenization.files import CAN, CONFIG, LIBRARY, SENTENCEPIECE, VOCABULARY, json_of, lines_of_file, names_of, understood
from kitae.tokenization.library import library_text
from kitae.tokenization.segmenter import SURFACES, SegmenterSpec

log = logging.getLogger(__name__)
OWN = "kitae_tokenizer.json"
FORMAT = 1
PIECES = {"wordpiece": "wordpiece", "character": "character", "unigram": "sentencepiece", "bpe": "sentencepiece"}
"""BertJapaneseTokenizer's names of our algorithms."""
JAPANESE = Around(quotes=True, commas=True)
"""What BertJapaneseTokenizer does around SentencePiece."""


def write(definition: Definition, folder: Path, *, max_length: int | None = None) -> None:
    """Write the folder that `AutoTokenizer` loads to the same ids, and kitae_tokenizer.json.

    A CharacterBERT's tokenizer has no class in transformers: its folder is kitae's alone. The path of a dictionary without a public
    name does not travel: transformers has to be told it, and a warning says how; kitae looks where the dictionary or program was,
    then at the environment variables KITAE_MECAB_DICTIONARY, KITAE_SUDACHI_DICTIONARY or KITAE_JUMANPP, and refuses another one
    either way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = definition.spec
    config: dict[str, object] = {f"{role}_token": name for role, name in zip(ROLES, definition.names, strict=True)}
    config |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    if max_length is not None:
        config["model_max_length"] = max_length
    found = resources.find(spec)
    if spec.kind in SURFACES:
        config |= {"tokenizer_class": "BertJapaneseTokenizer", "do_subword_tokenize": True, **japanese.settings(spec)}
        config["subword_tokenizer_type"] = PIECES.get(definition.algorithm, "wordpiece")
    own_alone = definition.algorithm == "characters-of-words"
    if not own_alone and (told := japanese.arguments(spec)):
        log.warning("%s has no public name: load the folder with AutoTokenizer.from_pretrained(FOLDER, %s)", found.title, told)
    if spec.kind not in SURFACES and not own_alone:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        text = library_text(definition)
        (folder / LIBRARY).write_text(text, encoding="utf-8")
        blank = (json.loads(text)["pre_tokenizer"] or {}).get("add_prefix_space")
        if blank is not None:  # transformers 4 takes its own default before the file's
            config["add_prefix_space"] = blank
    elif not definition.model:
        (folder / VOCABULARY).write_text("".join(f"{token}\n" for token in definition.tokens), encoding="utf-8")
    if definition.model:
        (folder / SENTENCEPIECE).write_bytes(definition.model)
    own = {
        "format": FORMAT,
        "algorithm": definition.algorithm,
        "segmenter": {"kind": spec.kind, "dictionary": found.spec.dictionary, **spec.identity},
        "dictionary_path": found.place,
        "dictionary_fingerprint": definition.dictionary_fingerprint,
        "special": dict(zip(ROLES, definition.names, strict=True)),
        "max_chars": definition.max_chars,
        "foreign": bool(definition.library),
        **_rest(definition),
        "fingerprint": definition.fingerprint,
    }
    for name, value in ((CONFIG, config), (OWN, own)):
        if name == OWN or not own_alone:
            (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def _rest(definition: Definition) -> dict[str, object]:
    """What only some algorithms have."""
    if definition.algorithm == "characters-of-words":
        return {"word_bytes": definition.word_bytes}
    if not definition.model:
        return {}
    known = len(pieces.tokens_of(pieces.read(definition.model, Path(SENTENCEPIECE)), definition.around))
    return {"around": asdict(definition.around), "appended": list(definition.tokens[known:])}


def read(folder: Path) -> Definition:
    """Read a tokenizer folder, a bare vocab.txt or SentencePiece model. Raises KitaeError for what kitae cannot reproduce exactly."""
    if folder.is_file() and folder.suffix == ".txt":
        return foreign.plain(folder, {})
    if folder.is_file() and folder.suffix in (".model", ".spm"):
        return foreign.sentencepiece_model(folder, {}, "")
    if not folder.is_dir():
        raise KitaeError(f"there is no tokenizer folder {folder}", cure="correct the path")
    if (folder / OWN).is_file():
        own = json_of(folder / OWN)
        if own.get("format") != FORMAT:
            raise KitaeError(
                f"{OWN} has format {own.get('format')}, this version of kitae reads {FORMAT}",
                cure="load it with the version that wrote it, or bring the file again",
                where=str(folder),
            )
        with understood(folder / OWN):
            return _own(folder, own)
    config = json_of(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if str(config.get("tokenizer_class") or "").startswith("BertJapanese"):
        return _japanese(folder, config)
    return foreign.read(folder, config)


def _own(folder: Path, own: Mapping[str, object]) -> Definition:
    spec = SegmenterSpec.model_validate(own["segmenter"])
    special, is_foreign = own["special"], bool(own["foreign"])
    assert isinstance(special, dict)
    algorithm, around = own["algorithm"], own.get("around") or {}
    assert isinstance(around, dict)
    model = b""
    if around:
        with understood(folder / SENTENCEPIECE):
            model = (folder / SENTENCEPIECE).read_bytes()
    text = ""
    if spec.kind in SURFACES:
        expected = str(own["dictionary_fingerprint"])
        spec = resources.find_again(spec, str(own["dictionary_path"]), expected=expected, where=str(folder))
    if model:
        appended = own["appended"]
        assert isinstance(appended, list)
        tokens = (*pieces.tokens_of(pieces.read(model, folder / SENTENCEPIECE), Around(**around)), *appended)
    elif (folder / LIBRARY).is_file() and spec.kind not in SURFACES:
        text = (folder / LIBRARY).read_text(encoding="utf-8")
        tokens = foreign.library_tokens(json_of(folder / LIBRARY), folder)
    else:
        tokens = lines_of_file(folder / VOCABULARY)
    definition = Definition(
        tokens=tokens,
        spec=spec,
        names=tuple(special[role] for role in ROLES),  # type: ignore[arg-type]
        max_chars=int(str(own["max_chars"])),
        dictionary_fingerprint=str(own["dictionary_fingerprint"]),
        library=text if is_foreign else "",
        algorithm=algorithm,  # type: ignore[arg-type]
        model=model,
        around=Around(**around),
        word_bytes=int(str(own.get("word_bytes", 0))),
    )
    if algorithm not in get_args(Algorithm) or definition.fingerprint != own["fingerprint"]:
        raise KitaeError("the tokenizer's files do not fit its fingerprint", cure="bring the whole folder again", where=str(folder))
    return definition


def _japanese(folder: Path, config: dict[str, object]) -> Definition:
    subword = config.get("subword_tokenizer_type", "wordpiece")
    if subword not in PIECES.values():
        raise KitaeError(f"BertJapaneseTokenizer with {subword} pieces cannot be read", cure=CAN, where=str(folder))
    spec = japanese.spec_of(config, folder / CONFIG)
    fingerprint = resources.find(spec).fingerprint
    if subword == "sentencepiece":
        return foreign.japanese_sentencepiece(folder, config, spec, JAPANESE, fingerprint)
    tokens = lines_of_file(folder / VOCABULARY)
    return Definition(
        tokens=tokens,
        spec=spec,
        names=names_of(config, tokens, folder),
        dictionary_fingerprint=fingerprint,
        algorithm="character" if subword == "character" else "wordpiece",
    )
