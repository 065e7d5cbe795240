"""What is in a map file, and what each part costs."""

from pathlib import Path
from typing import Any

from .codecs.file import codec_file_name
from .io.sizes import format_size
from .mapfile import map_info


def main(map: Path, codec_file: Path | None = None) -> dict[str, Any]:
    """The figures of ``info --json``.

    Args:
        map: map file.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.

    Raises:
        InputError: the file is missing or damaged.
    """
    return map_info(map, codec_file)


def format_info(info: dict[str, Any]) -> str:
    """``info`` for people: contents, bytes by section, and both totals."""
    points = max(info["num_points"], 1)
    places = ""
    if info["num_places"] < info["num_points"]:
        places = f" at {info['num_places']} places"
    lines = [
        f"{info['num_points']} points{places}, {info['num_images']} images, "
        f"{info['num_observations']} observations",
        f"codec {info['codec']}, {info['code_bytes']} bytes a code, one code for each "
        f"{info['granularity']}, {info['distinct_codes']} distinct codes, "
        f"{info['descriptor_dim']} dimensions",
        "",
        f"{'section':<28}{'bytes':>12}{'bytes a point':>16}",
    ]
    lines += [
        f"{name:<28}{size:>12}{size / points:>16.2f}" for name, size in info["sections"].items()
    ]
    lines += ["", f"{'group':<28}{'bytes':>12}{'bytes a point':>16}"]
    lines += [
        f"{name:<28}{size:>12}{size / points:>16.2f}" for name, size in info["groups"].items()
    ]
    lines += [
        "",
        f"coordinates within {info['xyz_error']:g} map units, poses within "
        f"{info['pose_pixel_error']:g} pixels of the images",
    ]
    if info["codec_hash"] is not None:
        lines += ["", f"the codec is in a file of its own, {codec_file_name(info['codec_hash'])}"]
    lines += [
        "",
        f"descriptor memory (codes only): {format_size(info['descriptor_bytes'])}",
        f"whole file:                     {format_size(info['total_bytes'])}",
    ]
    return "\n".join(lines)
