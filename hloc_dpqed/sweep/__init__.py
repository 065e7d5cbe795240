"""Accuracy against bytes over codecs, code sizes and selectors: a table and plots."""

from .stage import main

__all__ = ["main"]
