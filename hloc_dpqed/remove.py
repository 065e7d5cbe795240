"""Remove images from a map file, and the points that no other image sees."""

from collections.abc import Sequence
from pathlib import Path

from .io.atomic import check_output, write_bytes
from .io.sizes import format_size
from .logger import logger
from .mapfile import canonical_map, read_map, to_bytes
from .maps.edit import remove_images
from .options import refuse_existing
from .threads import steady_products


@steady_products()
def main(
    map: Path,
    images: Sequence[str],
    output: Path,
    codec_file: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the map without some of its images; see ``maps.edit.remove_images``.

    Args:
        map: map file.
        images: their names.
        output: the map file to write; it may be ``map`` with ``overwrite``.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.
        overwrite: replace ``output``; otherwise an existing file is an error.

    Returns:
        ``output``.

    Raises:
        InputError: the map is missing or damaged, a name is not of the map, no image is left, or
            ``output`` exists.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    check_output(output)
    compressed = read_map(map, codec_file)
    smaller = remove_images(compressed, images)
    data = to_bytes(canonical_map(smaller))
    write_bytes(output, data)
    logger.info(
        f"Wrote {output}: {format_size(len(data))}, {smaller.num_images} images and "
        f"{smaller.num_places} points"
    )
    return output
