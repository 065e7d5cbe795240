"""A compressed map extended by what a larger model of the same frame adds; its codes stay."""

from dataclasses import replace

import numpy as np

from ..codecs import sharpens
from ..errors import InputError
from ..maps.compressed import CompressedMap, GlobalDescriptors
from ..maps.join import Common, also_seen, common_parts, distinct_cameras
from ..maps.same_features import extractor_name, features_of
from ..scene.reference import (
    Observations,
    ReferenceMap,
    mean_descriptors,
    mean_scores,
)
from ..scene.visibility import Visibility


def extend_map(
    compressed: CompressedMap,
    reference: ReferenceMap,
    observations: Observations,
    *,
    features: dict[str, str] | None = None,
    described: np.ndarray | None = None,
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

    Args:
        compressed: the map, of a code for each point.
        reference, observations: the extended model.
        features: of what kind its descriptors are, by ``io.features.feature_kind``.
        described: (I, Dg) float32 global descriptors of the model's images; needed where the map
            has some.
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
    seen = np.zeros(reference.num_points, bool)
    for j in fresh:
        seen[reference.visibility[j]] = True
    added = np.flatnonzero((new_row < 0) & seen)
    new_row[added] = stored + np.arange(len(added))

    old = {name: i for i, name in enumerate(compressed.image_names)}
    other = {name: j for j, name in enumerate(reference.image_names)}
    all_names = sorted(old.keys() | other.keys())
    poses, cameras, lists = [], [], []
    for name in all_names:
        i, j = old.get(name), other.get(name)
        rows = np.zeros(0, np.int64) if i is None else compressed.visibility[i].astype(np.int64)
        if j is not None:
            found = new_row[reference.visibility[j]]
            more = also_seen(rows, found[found >= 0], compressed.place_of_point)
            rows = np.concatenate([rows, more])
        source, k = (reference, j) if i is None else (compressed, i)
        poses.append(source.cam_from_world[k])
        cameras.append(source.cameras[source.camera_index[k]])
        lists.append(rows)
    distinct, camera_index = distinct_cameras(cameras)

    codes = _codes_of(added, new_row, compressed, observations, seed, progress)
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
        xyz=np.concatenate([compressed.xyz, reference.xyz[added]]),
        visibility=Visibility.from_lists(lists, stored + len(added)),
        codes=np.concatenate([compressed.codes, codes]),
        scores=np.concatenate([compressed.scores, mean_scores(observations)[added]]),
        global_descriptors=stored_globals,
        confidence=None,  # it was calibrated on the map as it was
        metadata={**compressed.metadata, "appended": compressed.metadata.get("appended", 0) + 1},
    )


def _codes_of(
    added: np.ndarray,
    new_row: np.ndarray,
    compressed: CompressedMap,
    observations: Observations,
    seed: int,
    progress: bool,
) -> np.ndarray:
    """The codes of the model's points ``added``, beside those that the map has."""
    conf = compressed.metadata.get("conf", {})
    encoder = None
    if sharpens(compressed.codec.name, conf.get("code_targets")):
        aims = compressed.codec.sharpened(observations, seed, progress)
        observations = replace(observations, targets=aims)
        encoder = compressed.codec.point_encoder(observations)
    if encoder is None:
        targets = observations.targets
        if targets is None:
            targets = mean_descriptors(observations)
        return compressed.codec.encode(targets[added].astype(np.float32))
    known = np.flatnonzero((new_row >= 0) & (new_row < compressed.num_points))
    return encoder(added, (known, compressed.codes[new_row[known]]))


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
