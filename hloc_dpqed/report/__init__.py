"""A report of map files: what each byte buys, as one HTML file that opens offline."""

from .stage import main

__all__ = ["main"]
