"""torch and faiss, or None where they are not installed: reading and localizing do without."""

from importlib import import_module
from typing import Any


def _installed(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:  # it is there, and lacks something itself
            raise
        return None


torch = _installed("torch")
faiss = _installed("faiss")
