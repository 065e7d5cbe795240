"""The map file: the only place that knows its bytes."""

from .format import map_info, read_map, section_bytes, to_bytes, write_map

__all__ = ["map_info", "read_map", "section_bytes", "to_bytes", "write_map"]
