"""Join two map files of one frame and one codec."""

from pathlib import Path

from .io.atomic import check_output, write_bytes
from .io.sizes import format_size
from .logger import logger
from .mapfile import canonical_map, read_map, to_bytes
from .maps.join import merge_maps
from .options import refuse_existing
from .threads import steady_products


@steady_products()
def main(
    map: Path,
    other: Path,
    output: Path,
    codec_file: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write both maps as one; see ``maps.join.merge_maps``.

    Args:
        map, other: map files; their order changes nothing but the order of the points.
        output: the map file to write.
        codec_file: of maps without a codec of their own; see ``mapfile.read_map``.
        overwrite: replace ``output``; otherwise an existing file is an error.

    Returns:
        ``output``.

    Raises:
        InputError: a map is missing or damaged, codecs, extractors or frames differ, there is no
            image in common, or ``output`` exists.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    check_output(output)
    merged = merge_maps(
        read_map(map, codec_file), read_map(other, codec_file), f"{map} and {other}"
    )
    data = to_bytes(canonical_map(merged))
    write_bytes(output, data)
    logger.info(
        f"Wrote {output}: {format_size(len(data))}, {merged.num_images} images and "
        f"{merged.num_places} points"
    )
    return output
