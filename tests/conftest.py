"""Fixtures that several test folders share."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: tiny models gain nothing from threads
settings.register_profile("steady", derandomize=True, deadline=None)  # the same examples every time; explore with --hypothesis-profile
settings.load_profile("steady")
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; absent data is a failure under CI and a skip elsewhere."""
    if not SHARED.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{SHARED} is absent, and CI=true")
        pytest.skip(f"{SHARED} is absent: the real data of this test are not on this machine")
    return SHARED
