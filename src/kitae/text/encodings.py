"""Naming the encoding of bytes that are not what they were said to be. Used for error messages only, never to guess silently."""

import codecs
import re

# Characters that ordinary Japanese or Western text consists of: ASCII without controls, kana, common punctuation, kanji.
COMMON = re.compile("[\\t\\n\\r -~\u3000-\u3002\u300c-\u300f\u3041-\u3093\u30a1-\u30fe\u4e00-\u9fa0\uff01-\uff5e]")
KANA = re.compile("[\u3041-\u3093\u30a1-\u30fe]")
BYTE_ORDER_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
CANDIDATES = ("utf-8", "cp932", "euc_jp", "utf-16-le", "utf-16-be", "iso2022_jp")
WIDE_MARKS = {
    "utf-16": (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
    "utf-16-le": (codecs.BOM_UTF16_LE,),
    "utf-16-be": (codecs.BOM_UTF16_BE,),
    "utf-32": (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    "utf-32-le": (codecs.BOM_UTF32_LE,),
    "utf-32-be": (codecs.BOM_UTF32_BE,),
}
NOT_OF_FILES = frozenset(("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape", "charmap"))  # Python's own, of words
SPOKEN = {"cp932": "CP932 (Shift_JIS)", "euc_jp": "EUC-JP", "iso2022_jp": "ISO-2022-JP", "utf-8": "UTF-8"}


def known(encoding: str) -> str:
    """The name that Python's codecs give an encoding of text files. Raises LookupError for any other."""
    name = codecs.lookup(encoding).name if encoding.isprintable() else ""
    if not name or name.replace("-", "_") in NOT_OF_FILES:
        raise LookupError(encoding)
    b"text".decode(name, "replace")  # a LookupError for what is no encoding of text: base64, rot13
    return name


def decoder(encoding: str, head: bytes) -> str:
    """The codec that decodes a file with this beginning: as `encoding`, and takes a byte order mark off."""
    if encoding == "utf-8":
        return "utf-8-sig"
    return encoding[:6] if encoding in WIDE_MARKS and head.startswith(WIDE_MARKS[encoding]) else encoding


def by_mark(head: bytes) -> str | None:
    """The encoding that a byte order mark announces, or None."""
    return next((name for mark, name in BYTE_ORDER_MARKS if head.startswith(mark)), None)


def guess(sample: bytes) -> str | None:
    """The encoding that a sample of text most likely is in, or None. The sample may be cut off inside a character."""
    best, best_score = None, 0.85
    for name in CANDIDATES:
        score = _plausible(sample, name)
        if score > best_score:
            best, best_score = name, score
    return best


def spoken(encoding: str) -> str:
    """An encoding as people call it."""
    return SPOKEN.get(encoding, encoding.upper())


def _plausible(sample: bytes, encoding: str) -> float:
    """Share of ordinary characters when decoded, a little more when kana occur; 0 when it cannot be decoded."""
    if encoding.startswith("utf-16"):
        sample = sample[: len(sample) // 2 * 2]
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(sample, final=False)
    except UnicodeDecodeError:
        return 0.0
    if not text:
        return 0.0
    return len(COMMON.findall(text)) / len(text) + 0.1 * len(KANA.findall(text)) / len(text)
