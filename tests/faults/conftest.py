"""Lets the tests of this folder share its scenarios and the toy of tests/train."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[1] / "train"):
    sys.path.insert(0, str(folder))
