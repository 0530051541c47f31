"""The recorded ids of transformers 4.57: hashes, one for a thousand sentences (made by scripts/golden_transformers4.sh)."""

import hashlib
import json

from real_text import GOLDEN

from kitae.tokenization.tokenizer import Tokenizer


def equal(name: str, tokenizer: Tokenizer, texts: list[str], *, thousands: int = 0) -> None:
    """Fail unless the tokenizer's ids are the recorded ones, in so many thousands of sentences (0: in all)."""
    golden = json.loads((GOLDEN / "tokenizer_transformers4.json").read_text(encoding="utf-8"))
    assert golden["transformers"].startswith("4.57.")
    assert golden[name]["sentences"] >= 10_000
    text = hashlib.sha256(json.dumps(texts).encode()).hexdigest()
    assert text == golden[name]["text"], "other sentences than the golden file's: run scripts/golden_transformers4.sh"
    wanted = golden[name]["ids"][: thousands or None]
    rows = tokenizer.words_of_each(texts[: 1000 * len(wanted)])
    ids = [[number for word in words for number in word] for words in rows]
    parts = [json.dumps(ids[i : i + 1000], separators=(",", ":")) for i in range(0, len(ids), 1000)]
    assert [hashlib.sha256(part.encode()).hexdigest() for part in parts] == wanted
