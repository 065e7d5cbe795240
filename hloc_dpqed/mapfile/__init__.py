"""The map file: the only place that knows its bytes."""

from .format import (
    SCORE_LEVELS,
    canonical_map,
    map_info,
    read_map,
    section_bytes,
    to_bytes,
    with_stored_xyz,
    write_map,
)
from .points import XYZ_PIXELS, canonical_order

__all__ = [
    "SCORE_LEVELS",
    "XYZ_PIXELS",
    "canonical_map",
    "canonical_order",
    "map_info",
    "read_map",
    "section_bytes",
    "to_bytes",
    "with_stored_xyz",
    "write_map",
]
