"""The files of tokenizer folders, read with care: their names, JSON, vocabularies, and the special tokens that a folder names."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from kitae.core.errors import KitaeError
from kitae.tokenization.definition import ROLES

CONFIG, LIBRARY, VOCABULARY, SENTENCEPIECE = "tokenizer_config.json", "tokenizer.json", "vocab.txt", "spiece.model"
CAN = (
    "kitae reads BertJapaneseTokenizer with mecab, sudachi or jumanpp, a tokenizer.json, vocab.txt, vocab.json with merges.txt, "
    "or a SentencePiece model of ALBERT, DeBERTa or XLM-R"
)
CURE = "bring the folder's files again, all of one version"
ANGLED = ("<s>", "</s>", "<mask>", "<pad>", "<unk>")
DEFAULTS = {
    "Roberta": ANGLED,
    "XLMRoberta": ANGLED,
    "Albert": ("[CLS]", "[SEP]", "[MASK]", "<pad>", "<unk>"),
}
"""Special tokens of classes that do not say [CLS], [SEP], [MASK], [PAD], [UNK]."""
Names = tuple[str, str, str, str, str]


@contextmanager
def understood(path: Path) -> Iterator[None]:
    """Around what takes a file of others apart: a part that is missing or of another kind than it has to be is a KitaeError."""
    try:
        yield
    except (OSError, KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
        why = f"{path.name} is missing" if isinstance(error, FileNotFoundError) else f"{path.name} is damaged"
        what = f"it lacks {error}" if isinstance(error, KeyError) else str(error).partition("\n")[0] or "a part of it is of the wrong kind"
        raise KitaeError(why if isinstance(error, FileNotFoundError) else f"{why}: {what}", cure=CURE, where=str(path)) from error


def json_of(path: Path) -> dict[str, object]:
    """A JSON object. Raises KitaeError for anything else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise KitaeError(f"{path.name} is not JSON: {error}", cure="bring the file again", where=str(path)) from error
    if not isinstance(value, dict):
        raise KitaeError(f"{path.name} holds no JSON object", cure="bring the file again", where=str(path))
    return value


def lines_of_file(path: Path) -> tuple[str, ...]:
    """The tokens of a vocab.txt. Raises KitaeError when it is absent, not UTF-8, or names a token twice."""
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


def class_of(config: Mapping[str, object]) -> str:
    """The tokenizer's class without "Tokenizer" and "Fast"; empty when none is named."""
    return str(config.get("tokenizer_class") or "").removesuffix("Fast").removesuffix("Tokenizer")


def named(config: Mapping[str, object], folder: Path) -> Names:
    """The special tokens that a folder names, or those of its class."""
    extra = folder / "special_tokens_map.json"
    given = (json_of(extra) if extra.is_file() else {}) | {key: value for key, value in config.items() if value}
    defaults = DEFAULTS.get(class_of(config), tuple(f"[{role.upper()}]" for role in ROLES))
    names = []
    for role, default in zip(ROLES, defaults, strict=True):
        value = given.get(f"{role}_token") or default
        names.append(str(value["content"]) if isinstance(value, dict) else str(value))
    cls, sep, mask, pad, unk = names
    return cls, sep, mask, pad, unk


def names_of(config: Mapping[str, object], tokens: tuple[str, ...], where: Path) -> Names:
    """The special tokens of a folder with these tokens. Raises KitaeError when the vocabulary lacks one, or any added token."""
    names = named(config, where if where.is_dir() else where.parent)
    for role, name in zip(ROLES, names, strict=True):
        if name not in tokens:
            raise KitaeError(
                f"the vocabulary has no {role} token {name}",
                cure=f"an encoder needs all of {', '.join(ROLES)}; take a BERT or ELECTRA vocabulary",
                where=str(where),
            )
    added = config.get("added_tokens_decoder")
    for number, entry in (added if isinstance(added, dict) else {}).items():
        if int(number) >= len(tokens) or tokens[int(number)] != entry["content"]:
            raise KitaeError(f"the added token {entry['content']} ({number}) is not in the vocabulary", cure=CAN, where=str(where))
    return names
