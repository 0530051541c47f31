"""Tokenizer folders: ours (a Hugging Face folder with kitae_tokenizer.json beside) and what others wrote.

transformers 5 rebuilds most tokenizers from their class name and ignores the file; only `BertJapaneseTokenizer` and
`PreTrainedTokenizerFast` give the same ids under 4.57 and 5, so these two are written.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from tokenizers import AddedToken, decoders, models, processors
from tokenizers import Tokenizer as Library

from kitae.core.errors import KitaeError
from kitae.tokenization import japanese, resources
from kitae.tokenization.definition import ROLES, Definition
from kitae.tokenization.segmenter import SURFACES, SegmenterSpec, library_parts
from kitae.tokenization.wordpiece import PREFIX

OWN, CONFIG, LIBRARY, VOCABULARY = "kitae_tokenizer.json", "tokenizer_config.json", "tokenizer.json", "vocab.txt"
CAN = "kitae reads WordPiece folders: BertJapaneseTokenizer with mecab, sudachi or jumanpp, a tokenizer.json, or a vocab.txt"
BERT_CLASSES = ("", "BertTokenizer", "BertTokenizerFast", "ElectraTokenizer", "ElectraTokenizerFast", "PreTrainedTokenizerFast")


def write(definition: Definition, folder: Path, *, max_length: int | None = None) -> None:
    """Write the folder that `AutoTokenizer` loads to the same ids, and kitae_tokenizer.json.

    The path of a dictionary does not travel: whoever loads such an export with transformers passes, for MeCab,
    `mecab_kwargs={"mecab_dic": None, "mecab_option": "-d FOLDER -r /dev/null"}`; kitae looks where the dictionary or program was,
    then at the environment variables KITAE_MECAB_DICTIONARY, KITAE_SUDACHI_DICTIONARY or KITAE_JUMANPP, and refuses another
    dictionary either way.
    """
    folder.mkdir(parents=True, exist_ok=True)
    spec = definition.spec
    config: dict[str, object] = {f"{role}_token": name for role, name in zip(ROLES, definition.names, strict=True)}
    config |= {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"], "clean_up_tokenization_spaces": False}
    if max_length is not None:
        config["model_max_length"] = max_length
    found = resources.find(spec)
    if spec.kind in SURFACES:
        config |= {"tokenizer_class": "BertJapaneseTokenizer", "do_subword_tokenize": True, "subword_tokenizer_type": "wordpiece"}
        config |= japanese.settings(spec)
        (folder / VOCABULARY).write_text("".join(f"{token}\n" for token in definition.tokens), encoding="utf-8")
    else:
        config["tokenizer_class"] = "PreTrainedTokenizerFast"
        (folder / LIBRARY).write_text(library_text(definition), encoding="utf-8")
    own = {
        "format": 1,
        "algorithm": "wordpiece",
        "segmenter": {"kind": spec.kind, "dictionary": found.spec.dictionary, **spec.identity},
        "dictionary_path": found.place,
        "dictionary_fingerprint": definition.dictionary_fingerprint,
        "special": dict(zip(ROLES, definition.names, strict=True)),
        "max_chars": definition.max_chars,
        "foreign": bool(definition.library),
        "fingerprint": definition.fingerprint,
    }
    for name, value in ((CONFIG, config), (OWN, own)):
        (folder / name).write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def library_text(definition: Definition) -> str:
    """The tokenizer.json of a tokenizer without MeCab."""
    if definition.library:
        return definition.library
    library = library_parts(definition.spec)
    numbers = {token: number for number, token in enumerate(definition.tokens)}
    cls, sep, _, _, unk = definition.names
    library.model = models.WordPiece(
        numbers, unk_token=unk, continuing_subword_prefix=PREFIX, max_input_chars_per_word=definition.max_chars
    )
    by_id = sorted(definition.names, key=numbers.__getitem__)
    library.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in by_id])
    library.decoder = decoders.WordPiece(prefix=PREFIX, cleanup=False)
    library.post_processor = processors.TemplateProcessing(
        single=f"{cls}:0 $A:0 {sep}:0",
        pair=f"{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1",
        special_tokens=[(cls, numbers[cls]), (sep, numbers[sep])],
    )
    return str(library.to_str(pretty=False))


def runtime_library(definition: Definition) -> Library:
    """The library tokenizer that never makes a special token from text: its names carry a blank there, which no word has."""
    raw = json.loads(library_text(definition))
    names = set(definition.names)
    model = raw["model"]
    model["vocab"] = {f"{token} " if token in names else token: number for token, number in model["vocab"].items()}
    model["unk_token"] += " "
    raw |= {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
    return Library.from_str(json.dumps(raw))


def read(folder: Path) -> Definition:
    """Read a tokenizer folder (or a bare vocab.txt). Raises KitaeError for what kitae cannot reproduce exactly."""
    if folder.is_file() and folder.suffix == ".txt":
        return _plain(folder, {})
    if not folder.is_dir():
        raise KitaeError(f"there is no tokenizer folder {folder}", cure="correct the path")
    if (folder / OWN).is_file():
        return _own(folder)
    config = _json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    kind = str(config.get("tokenizer_class") or "")
    if kind.startswith("BertJapanese"):
        return _japanese(folder, config)
    if (folder / LIBRARY).is_file():
        return _library(folder, config)
    if (folder / VOCABULARY).is_file() and kind in BERT_CLASSES:
        return _plain(folder / VOCABULARY, config)
    found = f"tokenizer_class {kind}" if kind else "no tokenizer.json and no vocab.txt"
    raise KitaeError(f"this tokenizer cannot be read: {found}", cure=CAN, where=str(folder))


def _json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise KitaeError(f"{path.name} is not JSON: {error}", cure="bring the file again", where=str(path)) from error
    if not isinstance(value, dict):
        raise KitaeError(f"{path.name} holds no JSON object", cure="bring the file again", where=str(path))
    return value


def _tokens(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError as error:
        raise KitaeError(f"{path.name} is missing", cure=CAN, where=str(path.parent)) from error
    except UnicodeDecodeError as error:
        raise KitaeError(f"{path.name} is not UTF-8", cure="save it as UTF-8, one token a line", where=str(path)) from error
    tokens = tuple(lines[:-1] if lines[-1] == "" else lines)
    twice = len(tokens) - len(set(tokens))
    if twice:
        raise KitaeError(f"{path.name} names {twice} tokens twice", cure="every line must be another token", where=str(path))
    return tokens


def _names(config: Mapping[str, object], tokens: tuple[str, ...], where: Path) -> tuple[str, str, str, str, str]:
    names = []
    for role in ROLES:
        value = config.get(f"{role}_token") or f"[{role.upper()}]"
        name = str(value["content"]) if isinstance(value, dict) else str(value)
        if name not in tokens:
            raise KitaeError(
                f"the vocabulary has no {role} token {name}",
                cure=f"an encoder needs all of {', '.join(ROLES)}; take a BERT or ELECTRA vocabulary",
                where=str(where),
            )
        names.append(name)
    added = config.get("added_tokens_decoder")
    for number, entry in (added if isinstance(added, dict) else {}).items():
        if int(number) >= len(tokens) or tokens[int(number)] != entry["content"]:
            raise KitaeError(f"the added token {entry['content']} ({number}) is not in the vocabulary", cure=CAN, where=str(where))
    cls, sep, mask, pad, unk = names
    return cls, sep, mask, pad, unk


def _own(folder: Path) -> Definition:
    own = _json(folder / OWN)
    spec = SegmenterSpec.model_validate(own["segmenter"])
    special, foreign = own["special"], bool(own["foreign"])
    assert isinstance(special, dict)
    surfaces = spec.kind in SURFACES
    text = "" if surfaces else (folder / LIBRARY).read_text(encoding="utf-8")
    if surfaces:
        tokens = _tokens(folder / VOCABULARY)
        expected = str(own["dictionary_fingerprint"])
        spec = resources.find_again(spec, str(own["dictionary_path"]), expected=expected, where=str(folder))
    else:
        tokens = _library_tokens(json.loads(text)["model"], folder)
    definition = Definition(
        tokens=tokens,
        spec=spec,
        names=tuple(special[role] for role in ROLES),  # type: ignore[arg-type]
        max_chars=int(str(own["max_chars"])),
        dictionary_fingerprint=str(own["dictionary_fingerprint"]),
        library=text if foreign else "",
    )
    if definition.fingerprint != own["fingerprint"]:
        raise KitaeError("the tokenizer's files do not fit its fingerprint", cure="bring the whole folder again", where=str(folder))
    return definition


def _japanese(folder: Path, config: dict[str, object]) -> Definition:
    subword = config.get("subword_tokenizer_type", "wordpiece")
    if subword != "wordpiece":
        raise KitaeError(f"BertJapaneseTokenizer with {subword} pieces cannot be read", cure=CAN, where=str(folder))
    spec = japanese.spec_of(config, folder / CONFIG)
    tokens = _tokens(folder / VOCABULARY)
    fingerprint = resources.find(spec).fingerprint
    return Definition(tokens=tokens, spec=spec, names=_names(config, tokens, folder), dictionary_fingerprint=fingerprint)


def _library_tokens(model: Mapping[str, object], folder: Path) -> tuple[str, ...]:
    if model.get("type", "WordPiece") != "WordPiece" or model.get("continuing_subword_prefix", PREFIX) != PREFIX:
        raise KitaeError(f"tokenizer.json holds a {model.get('type')} model", cure=CAN, where=str(folder / LIBRARY))
    vocabulary = model["vocab"]
    assert isinstance(vocabulary, dict)
    tokens = tuple(sorted(vocabulary, key=lambda token: int(vocabulary[token])))
    if [vocabulary[token] for token in tokens] != list(range(len(tokens))):
        raise KitaeError("the ids in tokenizer.json have gaps", cure=CAN, where=str(folder / LIBRARY))
    return tokens


def _library(folder: Path, config: dict[str, object]) -> Definition:
    raw = _json(folder / LIBRARY)
    model, added = raw["model"], raw.get("added_tokens") or []
    assert isinstance(model, dict)
    assert isinstance(added, list)
    tokens = _library_tokens(model, folder)
    names = _names(config, tokens, folder)
    extra = [str(entry["content"]) for entry in added if entry["content"] not in tokens or not entry["special"]]
    if extra:
        raise KitaeError(f"tokenizer.json has added tokens outside its vocabulary: {', '.join(extra[:5])}", cure=CAN, where=str(folder))
    return Definition(
        tokens=tokens,
        spec=SegmenterSpec(kind="basic"),
        names=names,
        max_chars=int(model.get("max_input_chars_per_word", 100)),
        library=(folder / LIBRARY).read_text(encoding="utf-8"),
    )


def _plain(path: Path, config: dict[str, object]) -> Definition:
    """A vocab.txt with BERT's basic rules: cased and accents kept when nothing says otherwise, else as its class does it."""
    named = bool(config.get("tokenizer_class"))
    lower = bool(config.get("do_lower_case", named))
    strip = config.get("strip_accents")
    tokens = _tokens(path)
    spec = SegmenterSpec(kind="basic", nfkc=False, lower_case=lower, strip_accents=(lower and named) if strip is None else bool(strip))
    return Definition(tokens=tokens, spec=spec, names=_names(config, tokens, path))
