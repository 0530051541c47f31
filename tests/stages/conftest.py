"""Lets the tests of this folder and the processes they start share helpers, and one tiny data set."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What tiny_pretraining.write_dataset writes; nobody changes it."""
    from tiny_pretraining import write_dataset

    return write_dataset(tmp_path_factory.mktemp("data") / "dataset")
