"""Files of a synthetic city as hloc has them: model, features, queries, pairs, true poses.

Descriptors are resampled from the tracks of real maps: a point takes the scatter of one track
around a mean that is mixed with another track's, so that no two points are equal. ``statistics``
compares both with the real maps.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pycolmap

from hloc_dpqed.io.lists import write_poses
from hloc_dpqed.scene.projection import project_points
from hloc_dpqed.scene.reference import Observations, ReferenceMap, mean_descriptors, normalise_rows

MIX = 0.6  # weight of the second track in a point's mean; 35 points of a full city share a first
KEYPOINTS = 2_048  # of a query
INLIERS = (0.2, 0.4)  # share of a query's keypoints that show a point of the map
RETRIEVED, WRONG = 50, 15  # images retrieved for a query, and how many of them are of elsewhere


class TrackSampler:
    """Descriptors of ``num_points`` synthetic points.

    Args:
        real: observations of real maps.
        num_points: of the city.
        seed: of the tracks that the points take.
    """

    def __init__(self, real: Observations, num_points: int, seed: int = 0):
        self._real = real
        self._order = np.argsort(real.point_index, kind="stable")
        self._lengths = np.bincount(real.point_index, minlength=real.num_points)
        self._starts = np.cumsum(self._lengths) - self._lengths
        self._usable = np.flatnonzero(self._lengths >= 2)
        self._means = mean_descriptors(real)
        # A track of n observations around an unknown centre: its mean is too long and its scatter
        # too small. Both are corrected, so that two new observations are as similar as two real
        # ones are on average.
        along = np.concatenate(
            [
                np.einsum("nd,nd->n", part.astype(np.float32), self._means[rows])
                for part, rows in _chunks(real.descriptors, real.point_index)
            ]
        )
        n = np.maximum(self._lengths, 2)
        self._lengths_of_means = np.bincount(real.point_index, along, real.num_points) / n
        scatter = (1 - self._lengths_of_means**2) * n / (n - 1)
        self._centres = np.sqrt(np.maximum(self._lengths_of_means**2 - scatter / n, 0.01))
        self._widen = np.sqrt(n / (n - 1))
        self._tracks = self._draw(num_points, np.random.default_rng([seed, 0]))

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        return self._usable[rng.integers(len(self._usable), size=(count, 2))]

    def sample(self, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One observation of each of the (n,) points: (n, D) float16."""
        return self._observe(self._tracks[points], rng)

    def strangers(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Observations of ``count`` points that are not in the city: (count, D) float16."""
        return self._observe(self._draw(count, rng), rng)

    def _observe(self, tracks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        first, second = tracks.T
        mixed = normalise_rows(self._means[first] + MIX * self._means[second])
        out = self._centres[first, None] * mixed
        # Two real deviations at a random angle: no observation comes twice.
        angle = rng.uniform(0, 2 * np.pi, len(first))
        for share in (np.cos(angle), np.sin(angle)):
            k = rng.integers(1 << 30, size=len(first)) % self._lengths[first]
            own = self._real.descriptors[self._order[self._starts[first] + k]].astype(np.float32)
            own -= self._lengths_of_means[first, None] * self._means[first]
            out += (share * self._widen[first])[:, None] * own
        return normalise_rows(out).astype(np.float16)


def _chunks(
    descriptors: np.ndarray, rows: np.ndarray, size: int = 1 << 15
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for start in range(0, len(rows), size):
        yield descriptors[start : start + size], rows[start : start + size]


def real_tracks(scenes: list[Observations]) -> Observations:
    """The observations of several maps as of one."""
    offsets = np.cumsum([0, *(s.num_points for s in scenes)])
    points = [s.point_index + o for s, o in zip(scenes, offsets, strict=False)]
    return Observations(
        np.concatenate([s.descriptors for s in scenes]),
        np.concatenate([s.scores for s in scenes]),
        np.concatenate([s.keypoints for s in scenes]),
        np.concatenate(points).astype(np.int32),
        np.concatenate([s.image_index for s in scenes]),
        int(offsets[-1]),
    )


def statistics(real: Observations, points: int = 5_000, seed: int = 0) -> list[list[str]]:
    """Rows of a table: cosine similarities of the real tracks and of resampled ones.

    Two observations of a point; an observation and the closest other point of ``points``; an
    observation and a random other point (10th, 50th and 90th percentile each).
    """
    rng = np.random.default_rng([seed, 5])
    sampler = TrackSampler(real, points, seed)
    order = np.argsort(real.point_index, kind="stable")
    lengths = np.bincount(real.point_index, minlength=real.num_points)
    starts = np.cumsum(lengths) - lengths
    chosen = rng.permutation(np.flatnonzero(lengths >= 2))[:points]
    first = rng.integers(1 << 30, size=len(chosen)) % lengths[chosen]
    second = (first + 1 + rng.integers(1 << 30, size=len(chosen)) % (lengths[chosen] - 1)) % (
        lengths[chosen]
    )
    a, b = (real.descriptors[order[starts[chosen] + k]] for k in (first, second))
    rows = []
    for label, x, y in (
        ("real", a, b),
        ("synthetic", *(sampler.sample(np.arange(points), rng) for _ in range(2))),
    ):
        x, y = x.astype(np.float32), y.astype(np.float32)
        similarity = x @ y.T
        own = similarity.diagonal().copy()
        np.fill_diagonal(similarity, -1)
        other = np.roll(x, 1, axis=0)
        for what, values in (
            ("same point", own),
            ("closest other point", similarity.max(1)),
            ("random other point", np.einsum("nd,nd->n", other, y)),
        ):
            cells = [f"{v:.2f}" for v in np.percentile(values, [10, 50, 90])]
            rows.append([f"{label}: {what}", *cells])
    return rows


def write_city(
    folder: Path,
    reference: ReferenceMap,
    observations: Observations,
    sampler: TrackSampler,
    num_queries: int,
    seed: int = 0,
) -> None:
    """Write ``sfm``, ``features.h5``, ``queries.txt``, ``pairs.txt`` and ``poses_gt.txt``.

    Image by image: never all descriptors in memory.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_model(folder / "sfm", reference, observations)
    visibility = reference.visibility
    with h5py.File(folder / "features.h5", "w", libver="latest") as file:
        for i, name in enumerate(reference.image_names):
            rng = np.random.default_rng([seed, 1, i])
            mine = slice(visibility.indptr[i], visibility.indptr[i + 1])
            _write_features(
                file,
                name,
                observations.keypoints[mine],
                sampler.sample(visibility[i], rng),
                observations.scores[mine],
            )
        lines, pairs, poses = [], [], {}
        seen_by, _ = visibility.transpose()
        for q in range(num_queries):
            rng = np.random.default_rng([seed, 2, q])
            near = int(rng.integers(reference.num_images))
            camera = reference.cameras[reference.camera_index[near]]
            pose = _move(reference.cam_from_world[near], rng)
            name = f"query/{q:04d}.jpg"
            points, xy = _points_in_view(reference, near, pose, camera)
            count = min(len(points), round(KEYPOINTS * rng.uniform(*INLIERS)))
            shown = rng.choice(len(points), count, replace=False)
            size = np.array([camera.width, camera.height])
            keypoints = rng.uniform(0, 1, (KEYPOINTS, 2)) * (size - 1)
            keypoints[:count] = xy[shown] - 0.5 + rng.normal(0, 0.5, (count, 2))
            descriptors = np.concatenate(
                [sampler.sample(points[shown], rng), sampler.strangers(KEYPOINTS - count, rng)]
            )
            order = rng.permutation(KEYPOINTS)
            scores = rng.beta(2, 5, KEYPOINTS)
            _write_features(file, name, keypoints[order], descriptors[order], scores)
            params = " ".join(str(float(p)) for p in camera.params)
            lines.append(f"{name} {camera.model.name} {camera.width} {camera.height} {params}\n")
            votes = np.zeros(reference.num_images, np.int64)
            for point in points:
                votes[seen_by[point]] += 1
            right = np.argsort(-votes, kind="stable")[: RETRIEVED - WRONG]
            wrong = rng.choice(reference.num_images, WRONG, replace=False)
            retrieved = dict.fromkeys([*right.tolist(), *wrong.tolist()])
            pairs += [f"{name} {reference.image_names[i]}\n" for i in retrieved]
            poses[f"{q:04d}.jpg"] = pose
    (folder / "queries.txt").write_text("".join(lines))
    (folder / "pairs.txt").write_text("".join(pairs))
    write_poses(folder / "poses_gt.txt", poses)


def _write_features(
    file: h5py.File,
    name: str,
    keypoints: np.ndarray,
    descriptors: np.ndarray,
    scores: np.ndarray,
) -> None:
    group = file.create_group(name)
    group.create_dataset("keypoints", data=keypoints.astype(np.float32))
    group.create_dataset("descriptors", data=descriptors.T)
    group.create_dataset("scores", data=scores.astype(np.float16))


def _move(pose: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose some steps and some degrees away: (3, 4)."""
    turn = pycolmap.Rotation3d(rng.normal(0, 0.05, 3)).matrix()
    centre = -pose[:, :3].T @ pose[:, 3] + rng.normal(0, 0.4, 3) * [1, 1, 0.2]
    rotation = turn @ pose[:, :3]
    return np.c_[rotation, -rotation @ centre]


def _points_in_view(
    reference: ReferenceMap, near: int, pose: np.ndarray, camera: pycolmap.Camera
) -> tuple[np.ndarray, np.ndarray]:
    """Points that images around ``near`` see and the camera too: rows, and (n, 2) pixels."""
    first, last = max(0, near - 30), min(reference.num_images, near + 31)
    views = [reference.visibility[i] for i in range(first, last)]
    centre = -pose[:, :3].T @ pose[:, 3]
    points = np.unique(np.concatenate(views))
    points = points[np.linalg.norm(reference.xyz[points] - centre, axis=1) < 45]
    xy, visible = project_points(reference.xyz[points], camera, pose)
    return points[visible], xy[visible]


def _write_model(folder: Path, reference: ReferenceMap, observations: Observations) -> None:
    """The model in COLMAP's binary format, without one object for each of its points."""
    folder.mkdir(exist_ok=True)
    visibility = reference.visibility
    with open(folder / "cameras.bin", "wb") as file:
        file.write(struct.pack("<Q", len(reference.cameras)))
        for k, camera in enumerate(reference.cameras):
            file.write(struct.pack("<IiQQ", k + 1, int(camera.model), camera.width, camera.height))
            file.write(np.asarray(camera.params, "<f8").tobytes())
    record = np.dtype([("xy", "<f8", 2), ("point", "<i8")])
    with open(folder / "images.bin", "wb") as file:
        file.write(struct.pack("<Q", reference.num_images))
        for i, name in enumerate(reference.image_names):
            pose = pycolmap.Rigid3d(reference.cam_from_world[i])
            quaternion = pose.rotation.quat[[3, 0, 1, 2]]
            file.write(struct.pack("<I7d", i + 1, *quaternion, *pose.translation))
            file.write(struct.pack("<I", int(reference.camera_index[i]) + 1))
            file.write(name.encode() + b"\0" + struct.pack("<Q", len(visibility[i])))
            points2D = np.zeros(len(visibility[i]), record)
            mine = slice(visibility.indptr[i], visibility.indptr[i + 1])
            points2D["xy"] = observations.keypoints[mine].astype(np.float64) + 0.5
            points2D["point"] = visibility[i] + 1
            file.write(points2D.tobytes())
    seen_by, order = visibility.transpose()
    elements = np.zeros(len(order), np.dtype([("image", "<u4"), ("row", "<u4")]))
    elements["image"] = seen_by.indices + 1
    elements["row"] = order - visibility.indptr[seen_by.indices]
    with open(folder / "points3D.bin", "wb") as file:
        file.write(struct.pack("<Q", reference.num_points))
        for p in range(reference.num_points):
            error = float(reference.reprojection_error[p])
            file.write(struct.pack("<Q3d3Bd", p + 1, *reference.xyz[p], 0, 0, 0, error))
            track = elements[seen_by.indptr[p] : seen_by.indptr[p + 1]]
            file.write(struct.pack("<Q", len(track)) + track.tobytes())
