"""Small visual-localization maps for hloc: select points, quantize descriptors, localize."""

import os
import zlib  # noqa: F401
from typing import TYPE_CHECKING, Any

# zlib comes first: pycolmap 4.2 has another library under the names of zlib's functions, and
# Python's zlib and Pillow, where they are loaded after it, take those and abort or hang when they
# compress. Where zlib is loaded before pycolmap, all of them find the right one.

# torch and faiss each bring an OpenMP pool whose idle threads spin; where both are loaded they
# take the cores from one another. Read when the libraries load, hence here; a user's own setting
# stays. Everything else about threads is in threads.py.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import CompressedMap, load
    from .errors import InputError
    from .hloc_bridge.feature_store import FeatureStore
    from .localization.localizer import Localizer, Query, RigQuery
    from .localization.priors import Prior

__all__ = [
    "CompressedMap",
    "FeatureStore",
    "InputError",
    "Localizer",
    "Prior",
    "Query",
    "RigQuery",
    "__version__",
    "load",
]

_HOMES = {
    "CompressedMap": "api",
    "FeatureStore": "hloc_bridge.feature_store",
    "InputError": "errors",
    "Localizer": "localization.localizer",
    "Prior": "localization.priors",
    "Query": "localization.localizer",
    "RigQuery": "localization.localizer",
    "load": "api",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that ``import hloc_dpqed`` does not wait for torch and faiss."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
