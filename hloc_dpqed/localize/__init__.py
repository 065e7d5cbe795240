"""Localize queries with a map file: hloc's query list, features and pairs in, poses out."""

from .outputs import result_names
from .stage import main

__all__ = ["main", "result_names"]
