"""What is to be localized: the queries, their rigs, and what each is matched with."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pycolmap
from tqdm import tqdm

from ..choices import AUTO_CAMERA
from ..errors import InputError
from ..io.features import ImageFeatures, LocalFeatures, feature_kind, open_features
from ..io.lists import read_names, read_queries
from ..io.rigs import RigFrame, frames_of_all, read_rigs
from ..io.same_image import features_for_camera, scaling
from ..localization.intrinsics import guess_camera
from ..localization.priors import Prior
from ..localization.queries import Query, RigQuery
from ..localization.retrieval import retrieve
from ..localization.rigs import check_rig_estimator
from ..logger import logger
from ..maps.compressed import CompressedMap
from ..maps.same_features import check_dimension, check_extractor

QueryList = list[tuple[str, pycolmap.Camera]]


@dataclass(frozen=True)
class Photos:
    """Photos that features are extracted from.

    Attributes:
        folder: of the photos.
        camera: MODEL WIDTH HEIGHT PARAMS... of all, or None.
        extractor, weights: instead of what the map says, or None.
    """

    folder: Path
    camera: str | None
    extractor: str | None
    weights: Path | None

    def extract(
        self,
        compressed: CompressedMap,
        map_file: Path,
        names: Sequence[str],
        features: Path,
        device: str,
        progress: bool,
    ) -> None:
        """Extract the photos' features as the map's own were, to the file ``features``."""
        from ..mapping.extraction import extract, query_extraction  # needs torch

        how = query_extraction(compressed, self.extractor, map_file)
        extract(how, self.folder, list(names), features, self.weights, device, progress)


@dataclass(frozen=True)
class Inputs:
    """What the arguments ask to localize.

    Attributes:
        listed: names and cameras of all queries, in the order of the list.
        frames: which were taken at once by rigs; None without rigs.
        features: file of their local features.
        keep_features: whether the file stays.
        photos: what it is made from; None where it exists.
        retrieval: as ``main`` has it.
        priors: what is known of queries' poses, by name; None without priors.
        track: the list is a sequence.
    """

    listed: QueryList
    frames: list[RigFrame] | None
    features: Path
    keep_features: bool
    photos: Photos | None
    retrieval: Path | str | None
    priors: dict[str, Prior] | None = None
    track: bool = False

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.listed]

    @property
    def by_vlad(self) -> bool:
        return self.retrieval is not None and str(self.retrieval) == "vlad"


def check_sources(
    images: Path | None,
    queries: Path | None,
    features: Path | None,
    camera: str | None,
    extractor: str | None,
) -> None:
    """Check that the arguments tell where the queries come from.

    Raises:
        InputError: they do not, or some belong to photos and there are none.
    """
    if images is not None:
        return
    if queries is None or features is None:
        raise InputError("--queries and --features are needed, or --images")
    if extractor is not None or camera not in (None, AUTO_CAMERA):
        raise InputError("--camera and --extractor need --images")


def read_inputs(
    queries: Path | None,
    features: Path | None,
    results: Path,
    photos: Photos | None,
    retrieval: Path | str | None,
    has_global_features: bool,
    guess_cameras: bool,
    camera: str | None = None,
) -> Inputs:
    """Read the query list, or list the photos; after ``check_sources``.

    Raises:
        InputError: a file is missing or wrong.
    """
    if photos is not None:
        from ..mapping.photos import photo_queries

        listed = photo_queries(photos.folder, queries, photos.camera, guess=guess_cameras)
        if retrieval is None and not has_global_features:
            retrieval = "none"
    elif camera == AUTO_CAMERA:
        assert queries is not None and features is not None
        listed = _guessed(read_names(queries), features)
    else:
        assert queries is not None
        listed = read_queries(queries)
    kept = features is not None
    file = Path(f"{results}.features.h5") if features is None else Path(features)
    return Inputs(listed, None, file, kept, photos, retrieval)


def _guessed(names: list[str], features: Path) -> QueryList:
    """Cameras of which only the size of the image is known.

    Raises:
        InputError: the feature file does not tell one.
    """
    listed = []
    with open_features(features) as file:
        file.check_names(names)
        for name in names:
            size = file.image_size(name)
            if size is None:
                raise InputError(
                    f"--camera auto: {features} tells no image_size of {name!r}; pass --images DIR"
                )
            listed.append((name, guess_camera(*size)))
    return listed


def with_rigs(inputs: Inputs, rigs: Path, scale: float, pose_estimator: str) -> Inputs:
    """The inputs, with the frames that ``rigs`` tells.

    Raises:
        InputError: as ``read_rigs``, or the estimator cannot estimate a rig.
    """
    check_rig_estimator(pose_estimator)
    return replace(inputs, frames=read_rigs(rigs, inputs.names, scale))


@dataclass(frozen=True)
class Work:
    """The queries that are localized, in the order in which they are.

    Attributes:
        queries: names and cameras.
        frames: in which they were taken, each query in one; None without rigs.
        retrieved: rows of the map's images that each is matched with; None for the whole map.
        priors: what is known of their poses, by name; None without priors.
        track: they are a sequence.
    """

    queries: QueryList
    frames: list[RigFrame] | None
    retrieved: dict[str, list[int]] | None
    priors: dict[str, Prior] | None = None
    track: bool = False

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.queries]

    def __len__(self) -> int:
        """Outcomes that there will be."""
        return len(self.queries if self.frames is None else self.frames)


def find_work(
    inputs: Inputs, compressed: CompressedMap, global_features: Path | None, num_retrieved: int
) -> Work:
    """The queries with what is retrieved for each; that by VLAD comes later, from the features.

    Raises:
        InputError: as ``localization.retrieval.retrieve``.
    """
    retrieved = None
    if not inputs.by_vlad:
        retrieved = retrieve(
            compressed, inputs.names, inputs.retrieval, global_features, num_retrieved
        )
    # A query for which nothing was retrieved has nothing to be matched with: others of its rig may,
    # and a prior or the last frame may tell images.
    known = set(inputs.names) if inputs.track else inputs.priors or {}
    todo = [(n, c) for n, c in inputs.listed if retrieved is None or retrieved.get(n) or n in known]
    frames = inputs.frames
    if frames is not None:
        cameras = dict(inputs.listed)
        frames = frames_of_all(frames, [n for n, _ in todo])
        todo = [(name, cameras[name]) for frame in frames for name in frame.images]
    return Work(todo, frames, retrieved, inputs.priors, inputs.track)


def with_vlad(
    work: Work,
    inputs: Inputs,
    compressed: CompressedMap,
    num_retrieved: int,
    allow_other_extractor: bool,
    progress: bool,
) -> Work:
    """The work, with what VLAD retrieves.

    Raises:
        InputError: features of another extractor than the map's, or as ``retrieve_by_vlad``.
    """
    file = inputs.features
    check_extractor(compressed, feature_kind(file), str(file), allow_other_extractor)
    found = retrieve_by_vlad(compressed, file, work.queries, num_retrieved, progress)
    return replace(work, retrieved=found)


def retrieve_by_vlad(
    compressed: CompressedMap,
    features: Path,
    queries: Sequence[tuple[str, pycolmap.Camera]],
    num_retrieved: int,
    progress: bool,
) -> dict[str, list[int]]:
    """Rows of the map's images most similar to each query, best first.

    Raises:
        InputError: a query has no features, or features of another dimension than the map's.
    """
    from ..localization.vlad import MapVlad  # needs faiss

    vlad = MapVlad(compressed)
    found = {}
    with open_features(features) as file:
        file.check_names([name for name, _ in queries])
        for name, _ in tqdm(queries, "Retrieving", disable=not progress):
            local = file.read(name).descriptors
            if len(local):
                check_dimension(compressed, local.shape[1], f"{features}: image {name!r}")
            found[name] = vlad.retrieve(local, num_retrieved) if len(local) else []
    return found


def read_stream(
    file: LocalFeatures,
    queries: Sequence[tuple[str, pycolmap.Camera]],
    compressed: CompressedMap,
    retrieved: dict[str, list[int]] | None,
) -> Iterator[Query]:
    """The queries with their features, read one after the other and checked against the map.

    Features of a resized image are scaled to the camera; the first that are is told.

    Raises:
        InputError: features of another dimension than the map's, or of an image of another shape
            than the camera's.
    """
    told = False
    for name, camera in queries:
        where = f"{file.path}: image {name!r}"
        local = file.read(name)
        if len(local.descriptors):
            check_dimension(compressed, local.descriptors.shape[1], where)
        fitted = features_for_camera(local, camera, where)
        if fitted is not local and not told:
            told = True
            logger.warning(scaling(f"{file.path}: query {name!r}", local, camera))
        yield Query(name, camera, fitted, None if retrieved is None else retrieved.get(name, []))


def rig_stream(frames: Sequence[RigFrame], queries: Iterator[Query]) -> Iterator[RigQuery]:
    """The frames, of a stream of their images one after the other."""
    for frame in frames:
        yield RigQuery(frame.name, [next(queries) for _ in frame.images], frame.cams_from_rig)


def fitted_features(file: LocalFeatures, camera: pycolmap.Camera, name: str) -> ImageFeatures:
    """A query's features, in pixels of its camera."""
    return features_for_camera(file.read(name), camera, f"{file.path}: image {name!r}")
