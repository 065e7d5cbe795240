"""A synthetic city: street canyons, cameras that walk through them, facades full of points.

It has the size and the sparsity of large visual-localization maps (by default that of Aachen:
685,000 points, 4,328 images, 2.7 million observations) without their data. Geometry, poses and
visibility are generated here, descriptors and files by ``city_files.py``.

    python benchmarks/synthetic_city.py --scale 1      prints the statistics of the map
"""

import argparse
from dataclasses import dataclass

import numpy as np
import pycolmap

from hloc_dpqed.scene.reference import Observations, ReferenceMap
from hloc_dpqed.scene.visibility import Visibility

NUM_POINTS, NUM_IMAGES, NUM_OBSERVATIONS = 685_000, 4_328, 2_700_000
BLOCK, STREET, HEIGHT = 60.0, 12.0, 14.0  # metres
REACH = 45.0  # metres at which a keypoint can still be found


@dataclass(frozen=True)
class _Street:
    """One side-to-side canyon: an axis-aligned segment with a facade on either side."""

    axis: int  # 0 runs along x, 1 along y
    offset: float  # of its middle line on the other axis
    start: float
    length: float


def city(
    num_points: int = NUM_POINTS,
    num_images: int = NUM_IMAGES,
    num_observations: int = NUM_OBSERVATIONS,
    *,
    seed: int = 0,
) -> tuple[ReferenceMap, Observations]:
    """Generate a city.

    Args:
        num_points, num_images, num_observations: exact sizes of the map. Every track has two
            observations at least; tracks lengths fall off geometrically.
        seed: the same seed gives the same city.

    Returns:
        The map and its observations: keypoints with half a pixel of noise, descriptors of no
        dimension.

    Raises:
        ValueError: the sizes do not fit together (too few or too many observations to a point or
            to an image).
    """
    rng = np.random.default_rng(seed)
    streets, spacing = _streets(num_images)
    cameras = _cameras()
    poses, street_of_image, camera_index = _walk(streets, spacing, num_images, rng)

    # More candidates than needed: those with fewer than two sightings go.
    per_street = int(np.ceil(3 * num_points / len(streets)))
    image_parts, point_parts, xyz_parts = [], [], []
    base = 0
    for s, street in enumerate(streets):
        xyz, normal = _facades(street, per_street, rng)
        # How easily a point is found: some are found nearly always, some hardly ever.
        ease = rng.beta(0.9, 0.8, len(xyz))
        for i in np.flatnonzero(street_of_image == s):
            chance = ease * _visible(xyz, normal, poses[i], cameras[camera_index[i]])
            found = np.flatnonzero(rng.random(len(xyz)) < chance)
            image_parts.append(np.full(len(found), i, np.int32))
            point_parts.append((found + base).astype(np.int32))
        xyz_parts.append(xyz)
        base += len(xyz)
    image, point = np.concatenate(image_parts), np.concatenate(point_parts)
    xyz = np.concatenate(xyz_parts)
    image, point, rows = _thin(image, point, len(xyz), num_points, num_observations, rng)
    xyz = xyz[rows]

    order = np.lexsort((point, image))
    image, point = image[order], point[order]
    indptr = np.zeros(num_images + 1, np.int64)
    np.cumsum(np.bincount(image, minlength=num_images), out=indptr[1:])
    visibility = Visibility(indptr, point.astype(np.int32), num_points)
    keypoints = _keypoints(xyz, poses, cameras, camera_index, visibility, rng)
    reference = ReferenceMap(
        image_names=[f"db/{i:05d}.jpg" for i in range(num_images)],
        image_ids=np.arange(1, num_images + 1),
        cameras=cameras,
        camera_index=camera_index,
        cam_from_world=poses,
        point_ids=np.arange(1, num_points + 1),
        xyz=xyz,
        reprojection_error=rng.gamma(4, 0.2, num_points).astype(np.float32),
        visibility=visibility,
        keypoint_index=(np.arange(len(point)) - indptr[image]).astype(np.int32),
    )
    observations = Observations(
        np.zeros((len(point), 0), np.float16),
        rng.beta(2, 5, len(point)).astype(np.float32),
        keypoints,
        visibility.indices,
        visibility.image_of_observation(),
        num_points,
    )
    return reference, observations


def scaled_city(scale: float, **options) -> tuple[ReferenceMap, Observations]:
    """A city of ``scale`` times the default size in points, images and observations."""
    return city(
        round(scale * NUM_POINTS),
        max(2, round(scale * NUM_IMAGES)),
        round(scale * NUM_OBSERVATIONS),
        **options,
    )


def _streets(num_images: int) -> tuple[list[_Street], float]:
    """Streets of a grid with about 60 images each, and the distance of images in them."""
    per_street = 60
    count = max(1, round(num_images / per_street))
    side = max(1, int(np.ceil(np.sqrt(count / 2))))
    streets = []
    for k in range(count):
        axis, cell = k % 2, k // 2
        row, column = divmod(cell, side)
        pitch = BLOCK + STREET
        along, across = (column, row) if axis == 0 else (row, column)
        streets.append(_Street(axis, across * pitch, along * pitch + STREET / 2, BLOCK))
    return streets, BLOCK / per_street


def _cameras() -> list[pycolmap.Camera]:
    sizes = [(1600, 1200, 1350.0), (1024, 768, 860.0), (768, 1024, 900.0)]
    return [
        pycolmap.Camera(model="SIMPLE_RADIAL", width=w, height=h, params=[f, w / 2, h / 2, -0.01])
        for w, h, f in sizes
    ]


def _walk(
    streets: list[_Street], spacing: float, num_images: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Poses (I, 3, 4), street and camera of each image: walks with random headings."""
    street_of_image = np.sort(np.arange(num_images) % len(streets))
    position = np.zeros(num_images)
    for s in range(len(streets)):
        mine = np.flatnonzero(street_of_image == s)
        position[mine] = np.linspace(0, streets[s].length, len(mine))
    poses = np.zeros((num_images, 3, 4))
    for i in range(num_images):
        street = streets[street_of_image[i]]
        centre = np.zeros(3)
        centre[street.axis] = street.start + position[i] + rng.normal(0, spacing)
        centre[1 - street.axis] = street.offset + rng.uniform(-0.25, 0.25) * STREET
        centre[2] = rng.normal(1.6, 0.15)
        # Along the street, forth or back, turned towards one of the facades.
        heading = (0 if street.axis == 0 else np.pi / 2) + np.pi * rng.integers(2)
        heading += rng.choice([-1, 1]) * rng.uniform(0.2, 1.2)
        pitch = rng.normal(0.15, 0.08)
        forward = np.array(
            [np.cos(heading) * np.cos(pitch), np.sin(heading) * np.cos(pitch), np.sin(pitch)]
        )
        right = np.cross(forward, [0, 0, 1.0])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        poses[i] = np.c_[rotation, -rotation @ centre]
    camera_index = (rng.random(num_images)[:, None] > [0.6, 0.85]).sum(1).astype(np.int32)
    return poses, street_of_image, camera_index


def _facades(
    street: _Street, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Points on the two facades of a street, bunched as windows and ornaments are: xyz, normal."""
    bunches = max(1, count // 25)
    bunch = rng.integers(bunches, size=count)
    along = (rng.uniform(-4, street.length + 4, bunches))[bunch] + rng.normal(0, 0.5, count)
    up = np.clip((rng.beta(1.3, 1.6, bunches) * HEIGHT)[bunch] + rng.normal(0, 0.5, count), 0, None)
    side = rng.choice([-1.0, 1.0], bunches)[bunch]
    # Most on the wall, some on things in front of it.
    inset = np.abs(rng.normal(0, 0.15, count)) + (rng.random(count) < 0.1) * rng.uniform(
        0, 3, count
    )
    xyz, normal = np.zeros((count, 3)), np.zeros((count, 3))
    xyz[:, street.axis] = street.start + along
    xyz[:, 1 - street.axis] = street.offset + side * (STREET / 2 - inset)
    xyz[:, 2] = up
    normal[:, 1 - street.axis] = -side
    return xyz, normal


def _visible(
    xyz: np.ndarray, normal: np.ndarray, pose: np.ndarray, camera: pycolmap.Camera
) -> np.ndarray:
    """(n,) chance in 0 .. 1 that a point in the canyon is seen: frustum, distance, slant."""
    in_camera = xyz @ pose[:, :3].T + pose[:, 3]
    depth = in_camera[:, 2]
    focal, cx, cy = camera.params[:3]
    near = np.maximum(depth, 1e-3)
    inside = (depth > 0.5) & (depth < REACH)
    inside &= np.abs(in_camera[:, 0] / near) < 0.98 * cx / focal
    inside &= np.abs(in_camera[:, 1] / near) < 0.98 * cy / focal
    centre = -pose[:, :3].T @ pose[:, 3]
    ray = centre - xyz
    distance = np.linalg.norm(ray, axis=1)
    slant = np.einsum("nd,nd->n", ray, normal) / np.maximum(distance, 1e-6)
    fade = np.clip(2 - 1.5 * distance / REACH, 0, 1) * np.clip(slant * 4, 0, 1)
    return np.where(inside, fade, 0)


def _thin(
    image: np.ndarray,
    point: np.ndarray,
    candidates: int,
    num_points: int,
    num_observations: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keep exactly the points and observations asked for, two observations a point at least."""
    length = np.bincount(point, minlength=candidates)
    rows = np.flatnonzero(length >= 2)
    if len(rows) < num_points or num_observations < 2 * num_points:
        raise ValueError(f"{len(rows)} points can be seen twice, {num_points} were asked for")
    rows = np.sort(rng.choice(rows, num_points, replace=False))
    new = np.full(candidates, -1, np.int64)
    new[rows] = np.arange(num_points)
    kept = np.flatnonzero(new[point] >= 0)
    image, point = image[kept], new[point[kept]]
    if len(point) < num_observations:
        raise ValueError(f"only {len(point)} of {num_observations} observations could be made")
    # Two observations of each point stay for sure, the rest is drawn.
    shuffled = rng.permutation(len(point))
    by_point = shuffled[np.argsort(point[shuffled], kind="stable")]
    first = np.r_[0, np.cumsum(np.bincount(point, minlength=num_points))[:-1]]
    safe = np.concatenate([by_point[first], by_point[first + 1]])
    others = np.setdiff1d(np.arange(len(point)), safe)
    drawn = rng.choice(others, num_observations - len(safe), replace=False)
    final = np.sort(np.r_[safe, drawn])
    return image[final], point[final], rows


def _keypoints(
    xyz: np.ndarray,
    poses: np.ndarray,
    cameras: list[pycolmap.Camera],
    camera_index: np.ndarray,
    visibility: Visibility,
    rng: np.random.Generator,
) -> np.ndarray:
    """(N, 2) float32 keypoints in hloc's convention."""
    out = np.zeros((visibility.num_observations, 2), np.float32)
    for i in range(visibility.num_images):
        mine = visibility[i]
        if len(mine) == 0:
            continue
        in_camera = xyz[mine] @ poses[i, :, :3].T + poses[i, :, 3]
        projected = np.asarray(cameras[camera_index[i]].img_from_cam(in_camera))
        noise = rng.normal(0, 0.5, projected.shape)
        out[visibility.indptr[i] : visibility.indptr[i + 1]] = projected + noise - 0.5
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the size of Aachen")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    reference, _ = scaled_city(args.scale, seed=args.seed)
    lengths = reference.visibility.track_lengths()
    sizes = np.diff(reference.visibility.indptr)
    print(f"points {reference.num_points}, images {reference.num_images}")
    print(f"observations {reference.visibility.num_observations}")
    print(f"track length: mean {lengths.mean():.2f}, median {np.median(lengths):.0f}", end="")
    print(f", longest {lengths.max()}")
    print(f"points of an image: least {sizes.min()}, mean {sizes.mean():.0f}, most {sizes.max()}")


if __name__ == "__main__":
    main()
