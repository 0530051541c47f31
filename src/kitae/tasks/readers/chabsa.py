"""chABSA: sentences of securities reports with opinions on targets in them (TIS, 2018; CC BY 4.0), one JSON file a company."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from kitae.core.config import complaint
from kitae.core.errors import KitaeError
from kitae.tasks.readers.rows import Row, RowsConfig
from kitae.text.archives import members
from kitae.text.streams import TextStream
from kitae.text.tables import row_of


class ChabsaConfig(RowsConfig):
    """What an example is."""

    form: Literal["target", "sentence", "categories"] = "target"
    """"target": a sentence and one of its targets, with the target's "polarity". "sentence": a sentence all of whose targets have one
    polarity, which is its "polarity"; sentences of two minds, or without a target, are left out. "categories": every sentence with the list
    of its "categories" (what is spoken of, and which attribute: "business#sales")."""


class _Header(BaseModel):
    document_id: str
    document_name: str
    category33: str


class _Opinion(BaseModel):
    target: str
    category: str
    polarity: str
    start: int = Field(alias="from")
    end: int = Field(alias="to")


class _Sentence(BaseModel):
    sentence_id: int
    sentence: str
    opinions: list[_Opinion]


class _Document(BaseModel):
    header: _Header
    sentences: list[_Sentence]


def chabsa_rows(path: Path, config: ChabsaConfig) -> Iterator[Row]:
    """Columns document, company, category33, sentence; target, category, from, to and polarity, or what the form says.

    Raises KitaeError for a file of another layout, and for a target that does not stand in the sentence where it should.
    """
    for member in members(path, (".json",)):
        where = f"{path}, {member.name}"
        try:
            document = _Document.model_validate_json("" if member.empty else TextStream(member.stream).read())
        except ValidationError as error:
            what = f"the file is not laid out as chABSA's are: {complaint(error)}"
            raise KitaeError(what, cure="bring a complete copy of chABSA's eNNNNN_ann.json", where=where) from error
        header = document.header
        about = {"document": header.document_id, "company": header.document_name, "category33": header.category33}
        for sentence in document.sentences:
            yield from _rows(sentence, about, f"{where}, sentence {sentence.sentence_id}", config)


def _rows(sentence: _Sentence, about: dict[str, str], where: str, config: ChabsaConfig) -> Iterator[Row]:
    for opinion in sentence.opinions:
        if sentence.sentence[opinion.start : opinion.end] != opinion.target:
            what = f'the target "{opinion.target}" does not stand at {opinion.start} to {opinion.end} of the sentence'
            raise KitaeError(what, cure="correct the offsets", where=where)
    base = {**about, "sentence": sentence.sentence}
    name = f"{about['document']}-{sentence.sentence_id}"
    if config.form == "target":
        for i, opinion in enumerate(sentence.opinions):
            cells = {**base, **row_of(opinion.model_dump(by_alias=True))}
            yield Row(cells=cells, where=where, id=f"{name}-{i}")
    elif config.form == "sentence":
        polarities = {opinion.polarity for opinion in sentence.opinions}
        if len(polarities) == 1:
            yield Row(cells={**base, "polarity": polarities.pop()}, where=where, id=name)
    else:
        found = sorted({opinion.category for opinion in sentence.opinions})
        yield Row(cells={**base, **row_of({"categories": found})}, where=where, id=name)
