"""The words of BertJapaneseTokenizer folders: its settings from our specification, and our specification from its settings."""

import os
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from kitae.core.errors import KitaeError
from kitae.tokenization import dictionary as dictionaries
from kitae.tokenization import sudachi
from kitae.tokenization.segmenter import SegmenterSpec

CAN = "kitae reads BertJapaneseTokenizer with the words of mecab, sudachi or jumanpp"
PACKAGES = ("ipadic", "unidic_lite", "unidic")
KEYS = {
    "mecab": {"normalize_text", "mecab_dic", "mecab_option"},
    "sudachi": {"normalize_text", "trim_whitespace", "sudachi_split_mode", "sudachi_dict_type"},
    "jumanpp": {"normalize_text", "trim_whitespace"},
}
"""What kitae heeds of the class's keyword arguments."""
UNHEEDED = {"sudachi_config_path": None, "sudachi_resource_dir": None, "sudachi_projection": "surface"}
"""Further arguments that say nothing with None or this."""
FOLDER, HEEDED = ("-d", "--dicdir"), ("-c", "--cost-factor", "-M", "--max-grouping-size")
"""MeCab's options that decide the words. Others change the output, or give several answers; a user dictionary has no fingerprint."""


def settings(spec: SegmenterSpec) -> dict[str, object]:
    """What tokenizer_config.json says of the words.

    The place of a dictionary that transformers finds by no name does not travel, but for its usual one on Debian: its bare name
    stands there, so that transformers stops, and never takes another one (see `arguments`).
    """
    options = _options(spec)
    return {
        "do_lower_case": spec.lower_case,
        "do_word_tokenize": True,
        "word_tokenizer_type": spec.kind,
        **({f"{spec.kind}_kwargs": options} if options else {}),
    }


def arguments(spec: SegmenterSpec) -> str:
    """What `AutoTokenizer.from_pretrained` has to be told, as Python text with /PATH for the dictionary's place; mostly nothing."""
    if (spec.kind == "mecab" and not dictionaries.find(spec.dictionary).named) or (
        spec.kind == "sudachi" and not sudachi.find(spec.dictionary).named
    ):
        return f"{spec.kind}_kwargs={_options(spec, '/PATH/')}"
    return ""


def _options(spec: SegmenterSpec, above: str = "") -> dict[str, object]:
    """The keyword arguments of the class's word tokenizer; `above` stands before the name of a dictionary that has no public one."""
    options: dict[str, object] = {} if spec.nfkc else {"normalize_text": False}
    if spec.kind == "mecab":
        found = dictionaries.find(spec.dictionary)
        place = found.options if found.named else f'-d "{above}{found.name}" -r {os.devnull}'
        flags = spec.flags if found.packaged else f"{place} {spec.flags}".strip()
        name = found.name.replace("-", "_") if found.packaged else None
        return {"mecab_dic": name, **({"mecab_option": flags} if flags else {}), **options}
    if spec.kind == "sudachi":
        system = sudachi.find(spec.dictionary)
        options |= {"sudachi_split_mode": spec.split_mode, "sudachi_dict_type": system.name if system.named else above + system.name}
    return options | {"trim_whitespace": True}  # else every blank is a word, and so an unknown character


def spec_of(config: Mapping[str, object], where: Path) -> SegmenterSpec:
    """The specification of a tokenizer_config.json. Raises KitaeError for what kitae cannot reproduce exactly."""
    kind = str(config.get("word_tokenizer_type") or "basic")
    if kind not in KEYS:
        raise KitaeError(f"BertJapaneseTokenizer with {kind} words cannot be read", cure=CAN, where=str(where))
    for name in ("do_word_tokenize", "do_subword_tokenize"):
        if not config.get(name, True):
            _refuse(f"BertJapaneseTokenizer with {name} = false", where)
    lower = bool(config.get("do_lower_case", False))
    if lower and config.get("never_split"):
        _refuse("never_split with do_lower_case", where)
    options = config.get(f"{kind}_kwargs") or {}
    if not isinstance(options, dict):
        _refuse(f"{kind}_kwargs that is no object", where)
    unheeded = [key for key in options if key not in KEYS[kind] and options[key] not in (None, UNHEEDED.get(key))]
    if unheeded:
        _refuse(f"{kind}_kwargs with {', '.join(unheeded)}", where)
    if kind != "mecab" and config.get("subword_tokenizer_type") == "character" and not options.get("trim_whitespace"):
        _refuse(f"{kind}_kwargs without trim_whitespace, by which every blank becomes an unknown character,", where)
    found: dict[str, object] = {"kind": kind, "lower_case": lower, "nfkc": bool(options.get("normalize_text", True))}
    if kind == "mecab":
        found["dictionary"], found["flags"] = _mecab(options, where)
    elif kind == "sudachi":
        mode = options.get("sudachi_split_mode") or "A"
        if mode not in sudachi.SPLIT_MODES:
            _refuse(f"sudachi_kwargs with sudachi_split_mode = {mode}", where)
        found |= {"dictionary": str(options.get("sudachi_dict_type") or sudachi.USUAL), "split_mode": mode}
    return SegmenterSpec.model_validate(found)


def _refuse(what: str, where: Path) -> NoReturn:
    raise KitaeError(f"{what} cannot be reproduced", cure=CAN, where=str(where))


def _mecab(options: Mapping[str, object], where: Path) -> tuple[str, str]:
    """The dictionary and the further flags of mecab_kwargs; a mecabrc is never read, whatever they say."""
    name = options.get("mecab_dic", "unidic_lite")
    folder, flags = _flags(str(options.get("mecab_option") or ""), where)
    if name in PACKAGES and not folder:
        return str(name).replace("_", "-"), flags
    if name is not None or not folder:
        raise KitaeError(
            f"the tokenizer names the MeCab dictionary {name}{f' and {folder}' if folder else ''}, which is no package here",
            cure='set mecab_kwargs.mecab_dic to "ipadic", "unidic_lite" or "unidic" if it is one of them, or to null with '
            'mecab_option = "-d FOLDER"',
            where=str(where),
        )
    debian = folder.rstrip("/") in dictionaries.JUMANDIC
    return "jumandic" if debian else folder, flags


def _flags(option: str, where: Path) -> tuple[str, str]:
    """The dictionary's folder that a mecab_option names ("" for none), and what else of it decides the words."""
    try:
        words = iter(shlex.split(option))
    except ValueError as error:
        raise KitaeError(f"mecab_option {option!r} cannot be read: {error}", cure="close its quotes", where=str(where)) from error
    folder, kept = "", []
    for word in words:
        flag, _, value = word.partition("=") if word.startswith("--") else (word[:2], "", word[2:])
        if flag not in (*FOLDER, "-r", "--rcfile", *HEEDED):
            _refuse(f"mecab_option with {word}", where)
        value = value or next(words, "")
        if not value:
            _refuse(f"mecab_option with {word} and nothing behind it", where)
        if flag in FOLDER:
            folder = value
        elif flag in HEEDED:
            kept += [flag, value]
    return folder, shlex.join(kept)
