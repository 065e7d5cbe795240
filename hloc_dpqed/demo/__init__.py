"""The embedded demo: a rendered scene (or the user's photos), end to end, without hloc or data."""

from .main import add_arguments, main

__all__ = ["add_arguments", "main"]
