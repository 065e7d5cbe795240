"""Write a map file as what unmodified hloc reads: a COLMAP model and a feature file."""

from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from .io.atomic import atomic_directory
from .logger import logger
from .mapfile import read_map
from .maps.compressed import CompressedMap
from .maps.image_rows import check_matchable, image_rows
from .maps.reconstruction import to_reconstruction
from .maps.same_features import features_of

_MEMBERS = frozenset({"sfm", "features.h5", "global-features.h5"})


def main(
    map: Path,
    output: Path,
    progress: bool = True,
    codec_file: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``output/sfm`` and ``output/features.h5``.

    ``points2D[i]`` of an image is row ``i`` of its keypoints, descriptors and scores. Where the
    map stores global descriptors, ``output/global-features.h5`` holds them.

    Args:
        map: map file.
        output: folder; one that is not empty is an error without ``overwrite``.
        progress: show a progress bar.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.
        overwrite: replace an earlier export in ``output``; a folder of anything else stays.

    Returns:
        ``output``.

    Raises:
        InputError: the map is missing or damaged, ``output`` is not empty or cannot be written, or
            an image has more rows than hloc can match.
    """
    compressed = read_map(map, codec_file)
    with atomic_directory(output, _MEMBERS if overwrite else None) as folder:
        (folder / "sfm").mkdir()
        to_reconstruction(compressed).write(str(folder / "sfm"))
        left_out = write_features(compressed, folder / "features.h5", progress)
        if compressed.global_descriptors is not None:
            stored = compressed.global_descriptors
            with h5py.File(folder / "global-features.h5", "w", libver="latest") as file:
                rows = stored.codec.decode(stored.codes)
                for name, row in zip(compressed.image_names, rows, strict=True):
                    file.create_group(name).create_dataset("global_descriptor", data=row)
    if left_out:
        logger.info(
            f"Left out {left_out} of {compressed.visibility.num_observations} observations whose "
            "point does not project into its image"
        )
    return Path(output)


def write_features(compressed: CompressedMap, path: Path, progress: bool = False) -> int:
    """Write hloc's feature file of the database images.

    Returns:
        How many observations were left out, see ``image_rows``.

    Raises:
        InputError: an image has more rows than hloc can match.
    """
    written = 0
    with h5py.File(path, "w", libver="latest") as file:
        extractor = features_of(compressed).get("extractor")
        if extractor is not None:
            file.attrs["extractor"] = extractor
        names = tqdm(compressed.image_names, desc="Writing features", disable=not progress)
        for i, name in enumerate(names):
            rows = image_rows(compressed, i)
            check_matchable(name, len(rows.points))
            camera = compressed.cameras[compressed.camera_index[i]]
            group = file.create_group(name)
            keypoints = group.create_dataset("keypoints", data=rows.keypoints)
            keypoints.attrs["uncertainty"] = 1.0
            descriptors = compressed.codec.decode(compressed.codes[rows.codes])
            group.create_dataset("descriptors", data=descriptors.T.astype(np.float16))
            group.create_dataset("scores", data=compressed.scores[rows.codes])
            group.create_dataset("image_size", data=np.array([camera.width, camera.height]))
            written += len(rows.points)
    return compressed.visibility.num_observations - written
