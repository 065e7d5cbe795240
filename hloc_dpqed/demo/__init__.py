"""The embedded demo: a rendered scene (or the user's photos), end to end, without hloc or data."""

from .main import main

__all__ = ["main"]
