"""What a segmenter needs from the machine, a dictionary or a program: its fingerprint, and how a saved tokenizer finds it again."""

from dataclasses import dataclass

from kitae.core.errors import KitaeError
from kitae.tokenization import dictionary as dictionaries
from kitae.tokenization import jumanpp, sudachi
from kitae.tokenization.segmenter import SegmenterSpec


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A dictionary or program that was found on this machine."""

    title: str
    """For messages: what it is and where."""
    fingerprint: str
    """sha256 of what decides the words; "" for a segmenter that needs nothing."""
    spec: SegmenterSpec
    """The specification as it is saved: names that travel, no paths."""
    place: str
    """Where it lies, if its name alone does not lead there again; absolute."""


def find(spec: SegmenterSpec) -> Resource:
    """What this specification's segmenter needs. Raises KitaeError when it is absent or broken."""
    if spec.kind == "mecab":
        mecab = dictionaries.find(spec.dictionary)
        return Resource(
            title=f"the MeCab dictionary {mecab.name} at {mecab.path}",
            fingerprint=mecab.fingerprint(spec.flags),
            spec=spec.model_copy(update={"dictionary": mecab.name}),
            place="" if mecab.named else str(mecab.path),
        )
    if spec.kind == "sudachi":
        system = sudachi.find(spec.dictionary)
        return Resource(
            title=f"the Sudachi dictionary {system.name} at {system.path}",
            fingerprint=system.fingerprint,
            spec=spec.model_copy(update={"dictionary": system.name}),
            place="" if system.named else str(system.path),
        )
    if spec.kind == "jumanpp":
        program = jumanpp.find(spec.program)
        return Resource(
            title=f"the Juman++ at {program.path} ({program.version})",
            fingerprint=program.fingerprint,
            spec=spec.model_copy(update={"program": ""}),
            place=str(program.path),
        )
    return Resource(title="", fingerprint="", spec=spec, place="")


def find_again(spec: SegmenterSpec, place: str, *, expected: str, where: str) -> SegmenterSpec:
    """The specification for this machine of a saved tokenizer.

    A dictionary, which is only read, is looked for at its place, a program never: see `jumanpp.find_again`. Raises KitaeError when
    either is absent, or is another than the tokenizer was made with.
    """
    cure = "install the same version (the manifest names the packages), or train the tokenizer again"
    if spec.kind == "mecab":
        mecab = dictionaries.find_again(spec.dictionary, place)
        spec = spec.model_copy(update={"dictionary": mecab.name if mecab.named else str(mecab.path)})
    elif spec.kind == "sudachi":
        system = sudachi.find_again(spec.dictionary, place)
        spec = spec.model_copy(update={"dictionary": system.name if system.named else str(system.path)})
    elif spec.kind == "jumanpp":
        spec = spec.model_copy(update={"program": str(jumanpp.find_again(place).path)})
        cure = f"{jumanpp.name_it(place)}, or train the tokenizer again"
    found = find(spec)
    if found.fingerprint != expected:
        raise KitaeError(
            f"{found.title} is not the one this tokenizer was made with (fingerprint {found.fingerprint[:16]}, expected {expected[:16]})",
            cure=cure,
            where=where,
        )
    return spec
