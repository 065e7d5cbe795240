"""Two views of a place in one frame: which images and points are the same, and both as one map.

Points have no names in a map file. Two are the same where they lie at the same pixel of the images
that both maps have.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np
import pycolmap

from ..codecs.file import codec_hash
from ..errors import InputError
from ..logger import logger
from ..scene.projection import project_points
from ..scene.visibility import Visibility
from .compressed import CompressedMap, GlobalDescriptors
from .edit import shorten_codes
from .same_features import extractor_name, features_of

SAME_PX = 2.0  # two points this near in an image may be one
FRAME_PX = 4.0  # by which a common image may see its points elsewhere
LEAST_SHARE = 0.5  # of the common images that see either point must see both at one place
_ROWS = 1024  # points of an image compared at a time


class Places(Protocol):
    """What ``CompressedMap`` and ``ReferenceMap`` have in common."""

    @property
    def image_names(self) -> list[str]: ...
    @property
    def cameras(self) -> list[pycolmap.Camera]: ...
    @property
    def camera_index(self) -> np.ndarray: ...
    @property
    def cam_from_world(self) -> np.ndarray: ...
    @property
    def xyz(self) -> np.ndarray: ...
    @property
    def visibility(self) -> Visibility: ...


class Common(NamedTuple):
    """What two maps share.

    Attributes:
        images: (n, 2) rows of the images of one name.
        points: (m, 2) rows of the points that are the same; no row comes twice.
    """

    images: np.ndarray
    points: np.ndarray


def common_parts(a: Places, b: Places, names: str = "the maps") -> Common:
    """Images of one name, and the points that are the same by where these see them.

    In each common image the points of both maps are projected, each with its own pose and camera;
    mutual nearest neighbours within ``SAME_PX`` are a vote. Two points are the same where each is
    the other's most voted (the lower row of equals) and at least ``LEAST_SHARE`` of the common
    images that see the one, or the other, voted so.

    Args:
        a, b: the maps.
        names: of the maps, for messages.

    Raises:
        InputError: there is no common image, or the frames do not agree: in half of the common
            images the poses and cameras put the half of A's points more than ``FRAME_PX`` apart.
    """
    row_of = {name: i for i, name in enumerate(b.image_names)}
    images = [(i, row_of[name]) for i, name in enumerate(a.image_names) if name in row_of]
    if not images:
        raise InputError(
            f"{names} have no image in common, which tells whether they are in one frame"
        )
    apart = [_apart(a, i, b, j) for i, j in images]
    told = [x for x in apart if x is not None]
    if told and np.median(told) > FRAME_PX:
        raise InputError(
            f"{names} are not in one frame: in the {len(told)} images in common their points are "
            f"{np.median(told):.3g} px apart, expected at most {FRAME_PX:g}"
        )
    keys = []
    seen_a, seen_b = np.zeros(len(a.xyz), np.int64), np.zeros(len(b.xyz), np.int64)
    for (i, j), pixels in zip(images, apart, strict=True):
        if pixels is not None and pixels > FRAME_PX:
            continue  # an image that was moved says nothing
        rows, others = a.visibility[i], b.visibility[j]
        seen_a[rows] += 1
        seen_b[others] += 1
        near = _mutual(_places(a, i, rows), _places(b, j, others))
        keys.append(rows[near[:, 0]].astype(np.int64) * len(b.xyz) + others[near[:, 1]])
    pairs, votes = np.unique(np.concatenate(keys or [np.zeros(0, np.int64)]), return_counts=True)
    first, second = np.divmod(pairs, max(len(b.xyz), 1))
    fewest = np.minimum(seen_a[first], seen_b[second])
    good = (
        (votes >= LEAST_SHARE * fewest)
        & _most_voted(first, votes, len(a.xyz))
        & _most_voted(second, votes, len(b.xyz))
    )
    return Common(np.array(images, np.int64), np.stack([first[good], second[good]], 1))


def _apart(a: Places, i: int, b: Places, j: int) -> float | None:
    """Median pixels between where two images put A's points; None where A's sees none."""
    points = a.xyz[a.visibility[i]]
    if len(points) == 0:
        return None
    xy, visible = project_points(points, a.cameras[a.camera_index[i]], a.cam_from_world[i])
    if not visible.any():
        return None
    other, _ = project_points(points, b.cameras[b.camera_index[j]], b.cam_from_world[j])
    distance = np.linalg.norm(xy - other, axis=1)[visible]
    return float(np.median(np.where(np.isfinite(distance), distance, np.inf)))


def _places(a: Places, image: int, rows: np.ndarray) -> np.ndarray:
    """(n, 2) pixels of points; far away where a point does not project."""
    xy, _ = project_points(a.xyz[rows], a.cameras[a.camera_index[image]], a.cam_from_world[image])
    return np.where(np.isfinite(xy), xy, 1e9)


def _mutual(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(k, 2) rows of mutual nearest neighbours within ``SAME_PX``."""
    if len(x) == 0 or len(y) == 0:
        return np.zeros((0, 2), np.int64)
    nearest = np.empty(len(x), np.int64)
    distance = np.empty(len(x))
    back, least = np.zeros(len(y), np.int64), np.full(len(y), np.inf)
    for first in range(0, len(x), _ROWS):
        squared = ((x[first : first + _ROWS, None] - y[None]) ** 2).sum(2)
        nearest[first : first + _ROWS] = squared.argmin(1)
        distance[first : first + _ROWS] = squared.min(1)
        own = squared.min(0)
        back = np.where(own < least, squared.argmin(0) + first, back)
        least = np.minimum(own, least)
    rows = np.flatnonzero((back[nearest] == np.arange(len(x))) & (distance <= SAME_PX**2))
    return np.stack([rows, nearest[rows]], 1)


def _most_voted(point: np.ndarray, votes: np.ndarray, count: int) -> np.ndarray:
    """Whether each pair is its point's first of most votes."""
    order = np.lexsort((np.arange(len(point)), -votes, point))
    first = np.ones(len(point), bool)
    first[1:] = point[order][1:] != point[order][:-1]
    out = np.zeros(len(point), bool)
    out[order[first]] = True
    return out


def check_same_codec(a: CompressedMap, b: CompressedMap, names: str) -> None:
    """Check that codes of two maps mean the same.

    Raises:
        InputError: the codecs, the extractors or the granularities differ.
    """
    for compressed in (a, b):
        if compressed.granularity != "point":
            raise InputError(f"{names}: maps of a code for each observation cannot be joined")
    own, other = codec_hash(a.codec.whole()), codec_hash(b.codec.whole())
    if own != other:
        raise InputError(
            f"{names} have other codecs, {a.codec.name} {own[:16]} and {b.codec.name} "
            f"{other[:16]}; compress both with one --codec_file, or with --codec shipped"
        )
    kinds = [extractor_name(features_of(compressed)) for compressed in (a, b)]
    if None not in kinds and kinds[0] != kinds[1]:
        raise InputError(f"{names} are of other extractors, {kinds[0]} and {kinds[1]}")


def merge_maps(a: CompressedMap, b: CompressedMap, names: str = "the maps") -> CompressedMap:
    """Both maps as one, in the frame that they share.

    Of a point that both have, the code, coordinates and score of the longer track are kept, of an
    image that both have, the pose and camera with which more points are seen; ties are decided by
    the values, so that the order of the maps changes nothing but the order of the points. Where
    codes are of other lengths, the shorter length is kept.

    Args:
        a, b: the maps.
        names: of the maps, for messages.

    Raises:
        InputError: see ``check_same_codec`` and ``common_parts``.
    """
    check_same_codec(a, b, names)
    common = common_parts(a, b, names)
    size = min(a.codec.code_size, b.codec.code_size)
    a, b = shorten_codes(a, size), shorten_codes(b, size)
    lengths = a.visibility.track_lengths(), b.visibility.track_lengths()

    def point_key(m: CompressedMap, length: np.ndarray, row: int) -> tuple:
        return (
            int(length[row]), m.codes[row].tobytes(), tuple(m.xyz[row]), float(m.scores[row]),
        )  # fmt: skip

    xyz, codes, scores = a.xyz.copy(), a.codes.copy(), a.scores.copy()
    new_row = np.full(b.num_points, -1, np.int64)
    for i, j in common.points:
        new_row[j] = i
        if point_key(b, lengths[1], j) > point_key(a, lengths[0], i):
            xyz[i], codes[i], scores[i] = b.xyz[j], b.codes[j], b.scores[j]
    xyz = xyz[a.place_of_point]  # of all codes of a point
    added = np.flatnonzero(new_row < 0)
    new_row[added] = a.num_points + np.arange(len(added))
    total = a.num_points + len(added)

    image_a = {name: i for i, name in enumerate(a.image_names)}
    image_b = {name: i for i, name in enumerate(b.image_names)}
    all_names = sorted(image_a.keys() | image_b.keys())
    poses, cameras, lists = [], [], []
    for name in all_names:
        i, j = image_a.get(name), image_b.get(name)
        seen = np.zeros(0, np.int64) if i is None else a.visibility[i].astype(np.int64)
        if j is not None:
            more = new_row[b.visibility[j]]
            seen = np.concatenate([seen, also_seen(seen, more, a.place_of_point)])
        sides = [(m, k) for m, k in ((a, i), (b, j)) if k is not None]
        m, k = max(sides, key=lambda side: _image_key(*side))
        poses.append(m.cam_from_world[k])
        cameras.append(m.cameras[m.camera_index[k]])
        lists.append(seen)
    distinct, camera_index = distinct_cameras(cameras)
    return replace(
        a,
        image_names=all_names,
        cameras=distinct,
        camera_index=camera_index,
        cam_from_world=np.stack(poses),
        xyz=np.concatenate([xyz, b.xyz[added]]),
        visibility=Visibility.from_lists(lists, total),
        codes=np.concatenate([codes, b.codes[added]]),
        scores=np.concatenate([scores, b.scores[added]]),
        global_descriptors=_merged_globals(a, b, all_names),
        codec_hash=a.codec_hash or b.codec_hash,
        confidence=None,
        metadata={
            "features": features_of(a) or features_of(b),
            "merged": sorted([a.metadata, b.metadata], key=repr),
        },
    )


def also_seen(own: np.ndarray, more: np.ndarray, place: np.ndarray) -> np.ndarray:
    """The rows ``more`` that an image which sees the rows ``own`` sees too.

    An image sees one row of a point with several codes: without those of which it sees another.

    Args:
        place: (P,) ``CompressedMap.place_of_point``; rows from P on are points of their own.
    """
    known = more < len(place)
    other_look = np.zeros(len(more), bool)
    other_look[known] = np.isin(place[more[known]], place[own])
    return more[~other_look]


def _image_key(m: CompressedMap, k: int) -> tuple:
    camera = m.cameras[m.camera_index[k]]
    return (
        len(m.visibility[k]), m.cam_from_world[k].tobytes(), tuple(camera.params),
        camera.model.name, camera.width, camera.height,
    )  # fmt: skip


def distinct_cameras(
    cameras: Sequence[pycolmap.Camera],
) -> tuple[list[pycolmap.Camera], np.ndarray]:
    """The distinct cameras of images, in the order of their first image, and (I,) int32 rows."""
    rows: dict[tuple, int] = {}
    kept: list[pycolmap.Camera] = []
    index = []
    for camera in cameras:
        key = (camera.model.name, camera.width, camera.height, *camera.params)
        if key not in rows:
            rows[key] = len(kept)
            kept.append(camera)
        index.append(rows[key])
    return kept, np.array(index, np.int32)


def _merged_globals(
    a: CompressedMap, b: CompressedMap, names: list[str]
) -> GlobalDescriptors | None:
    own, other = a.global_descriptors, b.global_descriptors
    if own is None and other is None:
        return None
    if own is None or other is None or codec_hash(own.codec) != codec_hash(other.codec):
        logger.warning(
            "The global descriptors are left out: the maps have other codecs of them, or one has "
            "none"
        )
        return None
    rows = {name: code for name, code in zip(b.image_names, other.codes, strict=True)}
    # Of an image that both have the lesser code, so that the maps' order changes nothing.
    for name, code in zip(a.image_names, own.codes, strict=True):
        rows[name] = min(rows.get(name, code), code, key=lambda c: c.tobytes())
    return GlobalDescriptors(own.codec, np.stack([rows[name] for name in names]))
