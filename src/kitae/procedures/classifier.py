"""A fine-tuned classifier as a folder and as something that predicts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from safetensors.torch import save_file

from kitae.core.artifact import newest, seal
from kitae.core.config import Config, complaint
from kitae.core.errors import KitaeError
from kitae.core.launch import launch
from kitae.models.compose import Classifier
from kitae.models.folder import Part, read_parts
from kitae.models.folder import load as load_model
from kitae.procedures.words import check_reading
from kitae.tasks.batches import Encoded, predict
from kitae.tasks.classification import Classification, infer
from kitae.tokenization.tokenizer import Tokenizer

MOST_TOKENS = 512
PREDICT_TOKENS = 4096  # positions of one batch of predictions
USE = "classifier.json"


class Use(Config):
    """The content of classifier.json: how the model was trained to be used."""

    max_length: Annotated[int, Field(ge=3)] = MOST_TOKENS
    """Longest text in tokens; the rest is cut off."""
    columns: Annotated[tuple[str, ...], Field(min_length=1)] = ("text",)
    """Columns of a table that hold the text."""


@dataclass(frozen=True, kw_only=True)
class ClassifierPredict:
    """Class probabilities of encoded texts, [texts, labels], in their order; `half` computes in bf16."""

    pad: int
    half: bool = False

    def __call__(self, module: Classification, texts: Sequence[Encoded]) -> NDArray[np.float64]:
        """What one text gets depends on that text alone."""
        device = next(module.parameters()).device
        forward = partial(infer, module, device=device, half=self.half)
        return predict(forward, texts, tokens=PREDICT_TOKENS, pad=self.pad, labels=len(module.labels))


def save(module: Classification, tokenizer: Tokenizer, folder: Path, use: Use) -> None:
    """A model folder: weights.safetensors, model.json, classifier.json, tokenizer/, manifest.json."""
    folder.mkdir(parents=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}, folder / "weights.safetensors")
    (folder / "model.json").write_text(json.dumps(module.describe(), ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / USE).write_text(use.model_dump_json(indent=1), encoding="utf-8")
    tokenizer.save(folder / "tokenizer", max_length=use.max_length)
    seal(folder, kind="checkpoint", facts={"labels": list(module.labels)})


def load(folder: Path) -> tuple[Classification, Tokenizer, Use]:
    """From a trial, its model folder, or a Hugging Face folder with a sequence classification head; on the CPU.

    Raises KitaeError when the folder is damaged or holds no classifier.
    """
    place = newest(folder)
    part = read_parts(place).get("encoder")
    if part is None or part.head != "sequence":
        cure = "give the folder of a fine-tuning trial (finetune/TASK/ENCODER/SEED), or an exported classifier"
        raise KitaeError(f"{folder} holds no classifier", cure=cure)
    if len(part.labels) < 2:
        raise KitaeError(f"{folder} gives a number for every text, no label", cure="give a classifier of two labels or more")
    model = load_model(part)
    assert isinstance(model, Classifier), "the head says what the model is"
    tokenizer = read_tokenizer(place, part)
    use = Use(max_length=min(part.config.positions, MOST_TOKENS))
    if (place / USE).is_file():
        try:
            use = Use.model_validate_json((place / USE).read_bytes())
        except ValidationError as error:
            raise KitaeError(f"{USE} is damaged: {complaint(error)}", cure="run the trial again", where=str(place)) from error
    check_length(use.max_length, part, where=str(place / USE))
    return Classification(model, labels=part.labels).eval(), tokenizer, use


def read_tokenizer(place: Path, part: Part) -> Tokenizer:
    """The tokenizer of a model's folder. Raises KitaeError when it has tokens that the model lacks, or does not fit otherwise."""
    tokenizer = Tokenizer.load(place / "tokenizer" if (place / "tokenizer").is_dir() else place)
    check_reading(part.config, tokenizer.definition.algorithm, tokenizer.definition.word_bytes, where=str(place))
    if tokenizer.speller is None and tokenizer.vocab_size > part.config.vocab_size:
        raise KitaeError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the encoder {part.config.vocab_size}",
            cure="use the tokenizer that the encoder was trained with",
            where=str(place),
        )
    return tokenizer


def check_length(max_length: int, part: Part, *, where: str) -> None:
    """Raise KitaeError when texts of so many tokens do not fit the model."""
    positions = part.config.positions
    if max_length > positions:
        what = f"max_length = {max_length}, but the encoder has {positions} positions"
        raise KitaeError(what, cure=f"set max_length = {positions} or less", where=where)


def device_named(wanted: str) -> torch.device:
    """The device ("auto", "cpu", "cuda") of one process that works alone, also when torchrun started several of them."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise KitaeError('device = "cuda", but torch sees no CUDA device', cure='set device = "cpu" or "auto", or mend the driver')
    cuda = wanted != "cpu" and torch.cuda.is_available()
    return torch.device("cuda", launch().local_rank % torch.cuda.device_count()) if cuda else torch.device("cpu")
