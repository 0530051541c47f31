"""How a model folder is used, as its README.md says it: code for transformers where that has a class for the model, else for kitae."""

import json
from pathlib import Path

from kitae.models.folder import Part
from kitae.procedures.finetuned import Use

USES = {
    "mlm": "logits = model(**batch).logits  # at [MASK]: what the vocabulary's tokens are worth there",
    "pretraining": "found = model(**batch)  # prediction_logits of tokens; seq_relationship_logits of pairs: 0 is the text's own order",
    "rtd": "logits = model(**batch).logits  # positive: the token was replaced",
    "sequence": "logits = model(**batch).logits\nprint([model.config.id2label[i] for i in logits.argmax(-1).tolist()])",
    "token": "logits = model(**batch).logits  # a word's tag is that of its first token\n"
    "print([[model.config.id2label[i] for i in row] for row in logits.argmax(-1).tolist()])",
    "span": "found = model(**batch)  # of a context that fits; kitae predict reads long ones through windows\n"
    "starts, ends = found.start_logits.argmax(-1).tolist(), found.end_logits.argmax(-1).tolist()\n"
    'print([tokenizer.decode(ids[start : end + 1]) for ids, start, end in zip(batch["input_ids"], starts, ends)])',
    "choice": "batch = {name: tensor[None] for name, tensor in batch.items()}  # one question, of which every text is a choice\n"
    "logits = model(**batch).logits\nprint(logits.argmax(-1).tolist())",
    "none": "vectors = model(**batch).last_hidden_state",
}
"""By the head."""
KINDS = {
    "multilabel": "logits = model(**batch).logits\n"
    "print([[model.config.id2label[i] for i, share in enumerate(row) if share >= {threshold}] for row in logits.sigmoid().tolist()])",
    "regression": "print(model(**batch).logits.squeeze(-1).tolist())",
}
"""By the kind of task, where the head does not say all."""
BATCH = 'batch = tokenizer({texts}, padding=True, truncation={truncation}, return_tensors="pt")'
JAPANESE = "BertJapaneseTokenizer"
NO_CLASSES = ("modernbert",)
"""Families for which AutoTokenizer of transformers 5 passes over the class that a folder names."""
ENCODER_ALONE = "transformers has no class for the head and reads the encoder alone; kitae reads both"
KITAE = """# transformers has no class for this model
from pathlib import Path

from kitae.models.folder import load, read_parts

models = {name: load(part) for name, part in read_parts(Path("FOLDER")).items()}"""
CHARACTERS = """# transformers has no class for this model
from pathlib import Path

import torch

from kitae.models.folder import load, read_parts
from kitae.tasks.batches import collate
from kitae.tasks.encoded import encode
from kitae.tokenization.tokenizer import Tokenizer

folder = Path("FOLDER")
tokenizer, model = Tokenizer.load(folder), load(read_parts(folder)["encoder"])
text = encode(tokenizer, "TEXT", max_length=model.config.positions)
batch = collate([text], [[0]], pad=tokenizer.special.pad, numbers=[0])
with torch.no_grad():
    vectors = model.encoder(batch)"""
"""For models that read characters."""
PREDICTOR = """# transformers has no class for this model
from pathlib import Path

from kitae.procedures.predict import Predictor

predictor = Predictor.load(Path("FOLDER"))  # or: kitae predict
for answer in predictor.predict([{text}]):
    print(answer)"""
"""For fine-tuned models."""


def usage(part: Part, use: Use | None, folder: Path, *, told: str, alone: bool) -> str:
    """Code that loads the folder of a model and uses it. `told` is what the tokenizer has to be told of its dictionary; `alone` are models
    that only kitae reads.
    """
    known = part.known
    if alone or not known.auto:
        if use is not None:
            return PREDICTOR.format(text=_mapping(use))
        return CHARACTERS if part.config.word_characters else KITAE
    code = f"{USES['none']}  # {ENCODER_ALONE}" if known is not part.form else _of_kind(part, use)
    settings = folder / "tokenizer_config.json"
    japanese_words = settings.is_file() and json.loads(settings.read_text(encoding="utf-8")).get("tokenizer_class") == JAPANESE
    reader = JAPANESE if part.config.model_type in NO_CLASSES and japanese_words else "AutoTokenizer"
    return f"""from transformers import {reader}, {known.auto}

tokenizer = {reader}.from_pretrained("FOLDER"{f", {told}" if told else ""})
model = {known.auto}.from_pretrained("FOLDER").eval()
{_batch(part, use)}
{code}"""


def _of_kind(part: Part, use: Use | None) -> str:
    kind = KINDS.get("" if use is None else use.kind)
    if use is None or kind is None:
        return USES[part.head]
    threshold = use.tuned.get("threshold", use.kind_config.get("threshold", 0.5))
    return kind.format(threshold=threshold)


def _batch(part: Part, use: Use | None) -> str:
    if part.head == "choice":
        return BATCH.format(texts='["QUESTION", "QUESTION"], ["FIRST TEXT", "SECOND TEXT"]', truncation=True)
    if part.head == "span":
        return BATCH.format(texts='["QUESTION"], ["CONTEXT"]', truncation='"only_second"')
    pair = use is not None and bool(use.second)
    return BATCH.format(texts='["TEXT"], ["SECOND TEXT"]' if pair else '["TEXT"]', truncation=True)


def _mapping(use: Use) -> str:
    if use.choices:
        return '{"text": "TEXT", "choices": ["FIRST", "SECOND"]}'
    return '{"text": "TEXT", "second": "SECOND TEXT"}' if use.second else '"TEXT"'
