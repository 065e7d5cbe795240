"""The map file: the only place that knows its bytes."""

from .format import canonical_map, map_info, read_map, section_bytes, to_bytes, write_map
from .points import canonical_order

__all__ = [
    "canonical_map",
    "canonical_order",
    "map_info",
    "read_map",
    "section_bytes",
    "to_bytes",
    "write_map",
]
