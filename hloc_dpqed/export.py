"""Write a map file as what others read: a COLMAP model with hloc's feature file, or with a COLMAP
database; or a text of its points and their descriptors."""

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
from tqdm import tqdm

from .choices import EXPORT_FORMATS
from .errors import InputError
from .io.atomic import atomic_directory
from .io.colmap_export import check_exportable, write_database
from .logger import logger
from .mapfile import read_map
from .maps.compressed import CompressedMap
from .maps.image_rows import check_matchable, image_rows
from .maps.reconstruction import to_reconstruction
from .maps.same_features import features_of
from .scene.reference import normalise_rows

_MEMBERS = {
    "hloc": frozenset({"sfm", "features.h5", "global-features.h5"}),
    "colmap": frozenset({"sparse", "database.db"}),
    "text": frozenset({"landmarks.txt"}),
}


def main(
    map: Path,
    output: Path,
    progress: bool = True,
    codec_file: Path | None = None,
    overwrite: bool = False,
    format: str = "hloc",
) -> Path:
    """Write ``output/sfm`` and ``output/features.h5``, or ``output/sparse`` and
    ``output/database.db``, or ``output/landmarks.txt`` (``write_landmarks``).

    ``points2D[i]`` of an image is row ``i`` of its keypoints, descriptors and scores. Where the
    map stores global descriptors, ``output/global-features.h5`` holds them.

    Args:
        map: map file.
        output: folder; one that is not empty is an error without ``overwrite``.
        progress: show a progress bar.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.
        overwrite: replace an earlier export in ``output``; a folder of anything else stays.
        format: 'hloc'; 'colmap', whose database is for COLMAP's own matchers; or 'text', one line a
            point for small native localizers.

    Returns:
        ``output``.

    Raises:
        InputError: the map is missing or damaged, ``output`` is not empty or cannot be written, or
            an image has more rows than hloc can match; or the descriptors are of an extractor that
            COLMAP does not know.
    """
    if format not in EXPORT_FORMATS:
        raise InputError(f"--format {format}: expected one of {', '.join(EXPORT_FORMATS)}")
    compressed = read_map(map, codec_file)
    if format == "colmap":
        return _export_colmap(compressed, map, output, overwrite, progress)
    if format == "text":
        with atomic_directory(output, _MEMBERS["text"] if overwrite else None) as folder:
            write_landmarks(compressed, folder / "landmarks.txt", progress)
        return Path(output)
    with atomic_directory(output, _MEMBERS["hloc"] if overwrite else None) as folder:
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


def _export_colmap(
    compressed: CompressedMap, source: Path, output: Path, overwrite: bool, progress: bool
) -> Path:
    told = features_of(compressed)
    extractor = told.get("extractor") or told.get("name")
    kind = check_exportable(extractor, compressed.codec.dim, str(source))
    model = to_reconstruction(compressed)

    def rows() -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        names = tqdm(compressed.image_names, desc="Writing features", disable=not progress)
        for i, _ in enumerate(names):
            found = image_rows(compressed, i)
            descriptors = compressed.codec.decode(compressed.codes[found.codes])
            yield i + 1, found.keypoints + np.float32(0.5), descriptors

    with atomic_directory(output, _MEMBERS["colmap"] if overwrite else None) as folder:
        (folder / "sparse").mkdir()
        model.write(str(folder / "sparse"))
        write_database(folder / "database.db", model, rows(), kind)
    return Path(output)


def write_landmarks(compressed: CompressedMap, path: Path, progress: bool = False) -> None:
    """Write one line for each point: ``id x y z d_1 ... d_D``.

    The id is that of the point in an exported model, its row plus one. Coordinates are in map units
    and read back as they were; so does the descriptor, of length 1, as float32. In a map with a
    code for each observation it is the normalised mean of the point's, and a point without any is
    left out.
    """
    step = 4096
    dim, per_point = compressed.codec.dim, compressed.granularity == "point"
    points = np.arange(compressed.num_points) if per_point else compressed.visibility.indices
    order = np.argsort(points, kind="stable")  # rows of codes, point by point
    ends = np.searchsorted(points[order], np.arange(compressed.num_points + 1))
    with open(path, "w", encoding="ascii") as file:
        starts = range(0, compressed.num_points, step)
        for start in tqdm(starts, desc="Writing landmarks", disable=not progress):
            stop = min(start + step, compressed.num_points)
            rows = order[ends[start] : ends[stop]]
            decoded = compressed.codec.decode(compressed.codes[rows])
            if not per_point:
                total = np.zeros((stop - start, dim))
                np.add.at(total, points[rows] - start, decoded)
                decoded = normalise_rows(total)
            for point, row in zip(range(start, stop), decoded, strict=True):
                if ends[point] == ends[point + 1]:
                    continue
                numbers = [*map(repr, compressed.xyz[point].tolist())]
                numbers += [f"{value:.9g}" for value in row.tolist()]
                file.write(f"{point + 1} {' '.join(numbers)}\n")


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
