"""Add the images and points of an extended COLMAP model to a map file."""

from pathlib import Path

from .choices import SECOND_CODES
from .compression.extend import extend_map
from .errors import InputError
from .io.atomic import check_output, write_bytes
from .io.features import feature_kind, read_global_descriptors
from .io.model import read_observations, read_reference
from .io.sizes import format_size
from .logger import logger
from .mapfile import canonical_map, read_map, to_bytes
from .options import check_number, refuse_existing
from .threads import check_seed, set_num_threads, steady_products


@steady_products()
def main(
    map: Path,
    reference_sfm: Path,
    features: Path,
    output: Path,
    global_features: Path | None = None,
    codec_file: Path | None = None,
    second_codes: float = SECOND_CODES,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> Path:
    """Write ``map`` with what the model adds; see ``compression.extend.extend_map``.

    Args:
        map: map file.
        reference_sfm: folder of a COLMAP model in the map's frame, with images of the map and new
            ones.
        features: hloc's local feature file of the model.
        output: the map file to write; it may be ``map`` with ``overwrite``.
        global_features: hloc's global feature file, where the map stores global descriptors.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.
        second_codes: share of the map's points, at most, that get a second code where the new
            images see them otherwise.
        seed: of the sharpening of targets.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads, progress: of the work.

    Returns:
        ``output``.

    Raises:
        InputError: an input is missing or wrong, the frames, extractors or dimensions differ, or
            ``output`` exists.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    check_output(output)
    check_seed(seed)
    check_number("--second_codes", second_codes, 0, 1)
    set_num_threads(threads)
    compressed = read_map(map, codec_file)
    reference = read_reference(reference_sfm)
    if reference.num_points == 0:
        raise InputError(f"{reference_sfm}: the model has no 3D point")
    described = None
    if global_features is not None:
        described = read_global_descriptors(global_features, reference.image_names)
    before = compressed.num_images, compressed.num_places
    extended = extend_map(
        compressed,
        reference,
        read_observations(reference, features, progress),
        features=feature_kind(features),
        described=described,
        second_codes=second_codes,
        seed=seed,
        progress=progress,
        names=f"{map} and {reference_sfm}",
    )
    data = to_bytes(canonical_map(extended))
    write_bytes(output, data)
    logger.info(
        f"Wrote {output}: {format_size(len(data))}, {extended.num_images - before[0]} images and "
        f"{extended.num_places - before[1]} points more"
    )
    return output
