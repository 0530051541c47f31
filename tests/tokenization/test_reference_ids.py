"""Every kind of folder gives its reference's ids: some hundreds of sentences here, all of the more than ten thousand in the slow form."""

from pathlib import Path

import pytest
from parity import CASES, FOREIGN, differing
from real_text import FURTHER, need


@pytest.mark.parametrize("name", [*FURTHER, *(name for name in FOREIGN if name.startswith("Bert"))])  # test_kinds.py has the others
def test_ids_are_the_reference(name: str, shared: Path, tmp_path: Path) -> None:
    need(name)
    compared, different = differing(shared, name, tmp_path, every=23)
    assert compared > 400
    assert different == []


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_ids_are_the_reference_for_ten_thousand_sentences(name: str, shared: Path, tmp_path: Path) -> None:
    need(name)
    compared, different = differing(shared, name, tmp_path)
    assert compared >= 10_000
    assert different == []
