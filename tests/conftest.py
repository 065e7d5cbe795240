"""Shared fixtures: synthetic maps by pycolmap, and the real scenes where they are present."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from hloc_dpqed.threads import get_num_threads, set_num_threads

# The same examples on each run, and no test fails for being slow.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("fixed")

_DATA = Path(
    os.environ.get("HLOC_DPQED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
WEIGHTS = Path(
    os.environ.get("HLOC_DPQED_WEIGHTS", Path(__file__).resolve().parents[2] / "shared" / "weights")
)


def scene_path(name: str) -> Path:
    """Folder of a real scene; skips the test where it is absent."""
    path = _DATA / name
    if not path.is_dir():
        pytest.skip(f"real scene {name} not found; set HLOC_DPQED_DATA to the folder of scenes")
    return path


@pytest.fixture(scope="session")
def fountain() -> Path:
    return scene_path("fountain-P11")


@pytest.fixture(scope="session")
def castle() -> Path:
    return scene_path("castle-P30")


@pytest.fixture(scope="session")
def south_building() -> Path:
    return scene_path("south-building")


@pytest.fixture
def threads() -> Iterator[Callable[[int], int]]:
    """Sets the number of threads; as before afterwards."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)
