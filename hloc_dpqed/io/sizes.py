"""Sizes as users write them."""

import re

from ..errors import InputError

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}


def parse_size(text: str | int) -> int:
    """Bytes from ``300KB``, ``1.5MB`` (powers of ten) or a plain number.

    Raises:
        InputError: not a size, or not positive.
    """
    # At most 18 digits: more is a mistake, and overflows.
    match = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*([KMG]?B)?\s*", str(text).upper())
    size = int(float(match[1]) * _UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise InputError(f"{text}: not a size, expected such as 300KB, 1MB or a number of bytes")
    return size


def format_size(size: int) -> str:
    """``size`` bytes for people, in powers of ten."""
    for unit, factor in (("MB", 10**6), ("KB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
