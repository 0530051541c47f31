"""The words of BertJapaneseTokenizer folders: its settings from our specification, and our specification from its settings."""

import shlex
from collections.abc import Mapping
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tokenization import dictionary as dictionaries
from kitae.tokenization import sudachi
from kitae.tokenization.segmenter import SegmenterSpec

CAN = "kitae reads BertJapaneseTokenizer with the words of mecab, sudachi or jumanpp"
UNHEEDED = ("sudachi_config_path", "sudachi_resource_dir", "sudachi_projection")


def settings(spec: SegmenterSpec) -> dict[str, object]:
    """What tokenizer_config.json says of the words.

    Of a dictionary that transformers finds by no name nothing travels but its usual place on Debian. Whoever loads such a folder
    with transformers passes `mecab_kwargs` or `sudachi_kwargs` with the place.
    """
    options: dict[str, object] = {} if spec.nfkc else {"normalize_text": False}
    if spec.kind == "mecab":
        found = dictionaries.find(spec.dictionary)
        flags = spec.flags
        if found.named and not found.packaged:
            flags = f"{found.options} {flags}".strip()
        options = {
            "mecab_dic": found.name.replace("-", "_") if found.packaged else None,
            **({"mecab_option": flags} if flags else {}),
            **options,
        }
    elif spec.kind == "sudachi":
        system = sudachi.find(spec.dictionary)
        options |= {"sudachi_split_mode": spec.split_mode}
        options |= {"sudachi_dict_type": system.name} if system.named else {}
    return {
        "do_lower_case": spec.lower_case,
        "do_word_tokenize": True,
        "word_tokenizer_type": spec.kind,
        **({f"{spec.kind}_kwargs": options} if options else {}),
    }


def spec_of(config: Mapping[str, object], where: Path) -> SegmenterSpec:
    """The specification of a tokenizer_config.json. Raises KitaeError for what kitae cannot reproduce exactly."""
    kind = str(config.get("word_tokenizer_type") or "basic")
    given = config.get(f"{kind}_kwargs") or {}
    options = dict(given) if isinstance(given, dict) else {}
    found: dict[str, object] = {"kind": kind, "lower_case": bool(config.get("do_lower_case", False))}
    found["nfkc"] = bool(options.get("normalize_text", True))
    if kind == "mecab":
        found["dictionary"], found["flags"] = _mecab(options, where)
        return SegmenterSpec.model_validate(found)
    if kind == "sudachi":
        mode = options.get("sudachi_split_mode") or "A"
        unheeded = [name for name in UNHEEDED if options.get(name) not in (None, "surface")]
        if unheeded or mode not in sudachi.SPLIT_MODES:
            wrong = ", ".join(unheeded) or f"sudachi_split_mode = {mode}"
            raise KitaeError(f"sudachi_kwargs with {wrong} cannot be reproduced", cure=CAN, where=str(where))
        found |= {"dictionary": str(options.get("sudachi_dict_type") or sudachi.USUAL), "split_mode": mode}
        return SegmenterSpec.model_validate(found)
    if kind == "jumanpp":
        return SegmenterSpec.model_validate(found)
    raise KitaeError(f"BertJapaneseTokenizer with {kind} words cannot be read", cure=CAN, where=str(where))


def _mecab(options: Mapping[str, object], where: Path) -> tuple[str, str]:
    """The dictionary and the further flags of mecab_kwargs; a mecabrc is never read, whatever they say."""
    name, option = options.get("mecab_dic", "unidic_lite"), str(options.get("mecab_option") or "")
    if name in ("ipadic", "unidic_lite", "unidic"):
        return str(name).replace("_", "-"), option
    words = shlex.split(option)
    folder, rest = "", []
    while words:
        word = words.pop(0)
        if word in ("-d", "--dicdir", "-r", "--rcfile") and words:
            value = words.pop(0)
            folder = value if word in ("-d", "--dicdir") else folder
        elif word.startswith("--dicdir="):
            folder = word.removeprefix("--dicdir=")
        elif word.startswith("-d") and len(word) > 2:
            folder = word[2:]
        elif not word.startswith(("--rcfile=", "-r")):
            rest.append(word)
    if name is not None or not folder:
        raise KitaeError(
            f"the tokenizer names the MeCab dictionary {name}, which is no package here",
            cure='set mecab_kwargs.mecab_dic to "ipadic", "unidic_lite" or "unidic" if it is one of them, or to null with '
            'mecab_option = "-d FOLDER"',
            where=str(where),
        )
    debian = folder.rstrip("/") in dictionaries.JUMANDIC
    return "jumandic" if debian else folder, shlex.join(rest)
