"""A compressed map extended by what a larger model of the same frame adds; its codes stay."""

from dataclasses import replace

import numpy as np

from ..choices import SECOND_CODES
from ..codecs import sharpens
from ..errors import InputError
from ..maps.compressed import CompressedMap, GlobalDescriptors
from ..maps.join import Common, also_seen, common_parts, distinct_cameras
from ..maps.same_features import extractor_name, features_of, tuned_for
from ..scene.appearances import divided_points
from ..scene.reference import (
    Observations,
    ReferenceMap,
    mean_descriptors,
    mean_scores,
)
from ..scene.visibility import Visibility

# Observations that tell whether the features are the model's, and how many of them must look more
# like their own point's code than like some other's: half of them do by chance.
LEAST_SEEN, LEAST_LIKE_OWN = 50, 0.7


def extend_map(
    compressed: CompressedMap,
    reference: ReferenceMap,
    observations: Observations,
    *,
    features: dict[str, str] | None = None,
    described: np.ndarray | None = None,
    second_codes: float = SECOND_CODES,
    seed: int = 0,
    progress: bool = False,
    names: str = "the maps",
) -> CompressedMap:
    """The map with the images and points that ``reference`` adds to it.

    Which points are the same ``maps.join.common_parts`` tells. A point of the model that the map
    lacks is added where a new image sees it: the others were left out when the map was made. The
    codes, coordinates and scores of the map's points, and the poses of its images, stay; images
    see what they saw and what the model adds. The targets of the new points' codes are made among
    all points of the model, as ``compress`` makes them.

    The codes that stay were chosen without the new images. A point of the map that looks otherwise
    in these may get a second code, which they see instead (``scene.appearances``; ours): those
    points of which it takes most, by one less the cosine similarity of observation and decoded
    code, summed over the new images.

    Args:
        compressed: the map, of a code for each point.
        reference, observations: the extended model.
        features: of what kind its descriptors are, by ``io.features.feature_kind``.
        described: (I, Dg) float32 global descriptors of the model's images; needed where the map
            has some.
        second_codes: share of the map's points that may get a second code; 0 gives none.
        seed: of the sharpening.
        progress: show progress bars.
        names: of map and model, for messages.

    Raises:
        InputError: another extractor, dimension or frame; no image in common; the map has a code
            for each observation; or ``described`` is missing or superfluous.
    """
    _check(compressed, observations, features or {}, described, names)
    common = common_parts(compressed, reference, names)
    stored = compressed.num_points
    new_row = np.full(reference.num_points, -1, np.int64)
    new_row[common.points[:, 1]] = common.points[:, 0]
    fresh = _new_images(reference, common)
    in_new = np.isin(observations.image_index, fresh)
    _check_described(compressed, observations, new_row, ~in_new, names)
    seen = np.zeros(reference.num_points, bool)
    for j in fresh:
        seen[reference.visibility[j]] = True
    added = np.flatnonzero((new_row < 0) & seen)
    known = np.flatnonzero(new_row >= 0)
    again = _seen_otherwise(compressed, observations, new_row, in_new, second_codes)
    otherwise = in_new & np.isin(observations.point_index, again)
    looks = divided_points(reference, observations, 1 + otherwise.astype(np.int64))
    first, second = looks.starts[:-1], looks.starts[again] + 1
    codes = _codes_of(
        np.sort(np.r_[first[added], second]),
        first[known],
        compressed.codes[new_row[known]],
        compressed,
        # Few points have two looks: the targets are made as where none has.
        replace(looks.observations, places=None),
        seed,
        progress,
    )
    nearer = _nearer(compressed, looks.observations, codes, second, new_row[again])
    again, second = again[nearer], second[nearer]

    looked = np.r_[first[added], second]  # as they follow the map's points
    new_row[added] = stored + np.arange(len(added))
    row_of_look = np.repeat(new_row, np.diff(looks.starts))
    row_of_look[second] = stored + len(added) + np.arange(len(second))

    old = {name: i for i, name in enumerate(compressed.image_names)}
    other = {name: j for j, name in enumerate(reference.image_names)}
    all_names = sorted(old.keys() | other.keys())
    poses, cameras, lists = [], [], []
    for name in all_names:
        i, j = old.get(name), other.get(name)
        rows = np.zeros(0, np.int64) if i is None else compressed.visibility[i].astype(np.int64)
        if j is not None:
            found = row_of_look[looks.reference.visibility[j]]
            more = also_seen(rows, found[found >= 0], compressed.place_of_point)
            rows = np.concatenate([rows, more])
        source, k = (reference, j) if i is None else (compressed, i)
        poses.append(source.cam_from_world[k])
        cameras.append(source.cameras[source.camera_index[k]])
        lists.append(rows)
    distinct, camera_index = distinct_cameras(cameras)

    stored_globals = compressed.global_descriptors
    if stored_globals is not None:
        assert described is not None
        global_codes = [
            stored_globals.codes[old[name]]
            if name in old
            else stored_globals.codec.encode(described[other[name]][None])[0]
            for name in all_names
        ]
        stored_globals = GlobalDescriptors(stored_globals.codec, np.stack(global_codes))
    return replace(
        compressed,
        image_names=all_names,
        cameras=distinct,
        camera_index=camera_index,
        cam_from_world=np.stack(poses),
        xyz=np.concatenate([compressed.xyz, reference.xyz[added], compressed.xyz[new_row[again]]]),
        visibility=Visibility.from_lists(lists, stored + len(looked)),
        codes=np.concatenate([compressed.codes, codes[looked]]),
        scores=np.concatenate([compressed.scores, mean_scores(looks.observations)[looked]]),
        global_descriptors=stored_globals,
        confidence=None,  # it was calibrated on the map as it was
        metadata={**compressed.metadata, "appended": compressed.metadata.get("appended", 0) + 1},
    )


def _check_described(
    compressed: CompressedMap,
    observations: Observations,
    new_row: np.ndarray,
    in_common: np.ndarray,
    names: str,
) -> None:
    """Refuse features that are not those of the model's keypoints: in the images in common, points
    look like their codes, or like codes of other points as often.

    Args:
        new_row: as of ``_seen_otherwise``.
        in_common: (N,) bool, observations in images that the map has.
    """
    mine = np.flatnonzero(in_common & (new_row[observations.point_index] >= 0))
    if len(mine) < LEAST_SEEN:
        return
    codes = compressed.codes[new_row[observations.point_index[mine]]]
    others = codes[np.random.default_rng(0).permutation(len(mine))]
    alike = _similarity(compressed, observations, mine, codes)
    share = float((alike > _similarity(compressed, observations, mine, others)).mean())
    if share < LEAST_LIKE_OWN:
        raise InputError(
            f"{names}: the features do not describe the map's points: {share:.0%} of {len(mine)} "
            f"observations look more like their point's code than like another's, expected "
            f"{LEAST_LIKE_OWN:.0%} and more; are they those of the model's keypoints?"
        )


def _seen_otherwise(
    compressed: CompressedMap,
    observations: Observations,
    new_row: np.ndarray,
    in_new: np.ndarray,
    share: float,
) -> np.ndarray:
    """The model's points ((k,) int64, increasing) that may get a second code.

    Args:
        new_row: (P,) the map's point of each of the model's, -1 where it has none.
        in_new: (N,) bool, observations in images that the map lacks.
        share: of the map's points, at most.
    """
    mine = np.flatnonzero(in_new & (new_row[observations.point_index] >= 0))
    points = observations.point_index[mine]
    apart = 1 - _similarity(compressed, observations, mine, compressed.codes[new_row[points]])
    total = np.bincount(points, apart, len(new_row))
    count = min(round(share * compressed.num_points), len(np.unique(points)))
    return np.sort(np.argsort(-total, kind="stable")[:count])


def _similarity(
    compressed: CompressedMap, observations: Observations, rows: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """Cosine similarity of observations and what codes decode to, row by row: (n,)."""
    seen = observations.descriptors[rows].astype(np.float32)
    return (seen * compressed.codec.decode(codes)).sum(1)


def _nearer(
    compressed: CompressedMap,
    observations: Observations,
    codes: np.ndarray,
    second: np.ndarray,
    stored: np.ndarray,
) -> np.ndarray:
    """Whether second codes are nearer to their observations than the codes that the map has: (k,).

    Args:
        observations: of the model's looks.
        codes: (R, code size) of all looks.
        second: (k,) looks.
        stored: (k,) points of the map.
    """
    of_look = np.full(observations.num_points, -1, np.int64)
    of_look[second] = np.arange(len(second))
    mine = np.flatnonzero(of_look[observations.point_index] >= 0)
    look = observations.point_index[mine]
    gain = _similarity(compressed, observations, mine, codes[look])
    gain -= _similarity(compressed, observations, mine, compressed.codes[stored[of_look[look]]])
    return np.bincount(of_look[look], gain, len(second)) > 0


def _codes_of(
    rows: np.ndarray,
    known: np.ndarray,
    stored: np.ndarray,
    compressed: CompressedMap,
    observations: Observations,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """Codes for ``rows`` of the model's looks, beside those that ``known`` ones have: zeros where
    nothing is asked, (R, code size) uint8.

    Args:
        stored: the codes of ``known``.
    """
    conf = compressed.metadata.get("conf", {})
    codes = np.zeros((observations.num_points, compressed.codec.code_size), np.uint8)
    encoder = None
    if sharpens(compressed.codec.name, conf.get("code_targets")):
        aims = compressed.codec.sharpened(observations, seed, progress)
        observations = replace(observations, targets=aims)
        encoder = compressed.codec.point_encoder(observations)
    if encoder is not None:
        codes[rows] = encoder(rows, (known, stored))
        return codes
    targets = observations.targets
    if targets is None:
        targets = mean_descriptors(observations)
    codes[rows] = compressed.codec.encode(targets[rows].astype(np.float32))
    return codes


def _new_images(reference: ReferenceMap, common: Common) -> np.ndarray:
    """Rows of the model's images that the map lacks."""
    new = np.ones(reference.num_images, bool)
    new[common.images[:, 1]] = False
    return np.flatnonzero(new)


def _check(
    compressed: CompressedMap,
    observations: Observations,
    features: dict[str, str],
    described: np.ndarray | None,
    names: str,
) -> None:
    if compressed.granularity != "point":
        raise InputError(f"{names}: a map of a code for each observation cannot be extended")
    tuned = tuned_for(compressed)
    if tuned is not None:
        raise InputError(
            f"{names}: the map's codec was tuned for {tuned}, which finds the codes of all points "
            "at once; compress the whole model instead"
        )
    if observations.dim != compressed.codec.dim:
        raise InputError(
            f"{names}: descriptors of {observations.dim} dimensions, but the map was made from "
            f"descriptors of {compressed.codec.dim}"
        )
    own, other = extractor_name(features_of(compressed)), extractor_name(features)
    if own and other and own != other:
        raise InputError(f"{names}: features of {other}, but the map was made from those of {own}")
    if (compressed.global_descriptors is None) != (described is None):
        lacks = "has none" if described is not None else "has some"
        raise InputError(f"--global_features: the map {lacks}")
    if described is not None and compressed.global_descriptors is not None:
        dim = compressed.global_descriptors.codec.dim
        if described.shape[1] != dim:
            raise InputError(
                f"--global_features: {described.shape[1]} dimensions, but the map's have {dim}"
            )
