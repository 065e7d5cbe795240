import numpy as np
import pycolmap
import pytest

from hloc_dpqed.scene.triangulation import reprojection_errors, triangulate_tracks, undistort

CAMERAS = [
    pycolmap.Camera(
        model="OPENCV", width=800, height=600, params=[700, 710, 400, 300, 0.1, -0.02, 1e-3, 1e-3]
    ),
    pycolmap.Camera(model="PINHOLE", width=640, height=480, params=[500, 500, 320, 240]),
]


def scene(seed=0, num_points=30, offset=0.0):
    """Cameras on a line looking along z at random points, and exact distorted pixels."""
    rng = np.random.default_rng(seed)
    xyz = np.c_[rng.uniform(-2, 2, (num_points, 2)), rng.uniform(6, 12, num_points)]
    num_images = 6
    poses = np.zeros((num_images, 3, 4))
    for i in range(num_images):
        rotation = pycolmap.Rotation3d(rng.normal(0, 0.05, 3)).matrix()
        centre = np.array([i - 2.5, rng.normal(0, 0.2), 0])
        poses[i] = np.c_[rotation, -rotation @ (centre + offset)]
    xyz = xyz + offset
    camera_index = np.arange(num_images) % 2
    lengths = rng.integers(2, num_images + 1, num_points)
    images = np.concatenate([np.sort(rng.permutation(num_images)[:n]) for n in lengths])
    points = np.repeat(np.arange(num_points), lengths)
    pixels = np.zeros((len(images), 2))
    for k, (i, p) in enumerate(zip(images, points, strict=True)):
        in_camera = poses[i, :, :3] @ xyz[p] + poses[i, :, 3]
        pixels[k] = CAMERAS[camera_index[i]].img_from_cam(in_camera[None])[0]
    return xyz, poses, camera_index, images, points, np.r_[0, np.cumsum(lengths)], pixels


@pytest.mark.parametrize("offset", [0.0, 1e5])  # a map may have its origin far away
def test_exact_observations_give_exact_points(offset):
    xyz, poses, camera_index, images, points, indptr, pixels = scene(offset=offset)
    rays = undistort(pixels, CAMERAS, camera_index[images])
    found, angles = triangulate_tracks(rays, poses, images, indptr)
    np.testing.assert_allclose(found, xyz, atol=1e-6 if offset == 0 else 1e-3)
    errors = reprojection_errors(found[points], pixels, CAMERAS, camera_index, poses, images)
    assert errors.max() < (1e-5 if offset == 0 else 1e-2)
    for p in range(len(xyz)):
        centres = [-poses[i, :, :3].T @ poses[i, :, 3] for i in images[points == p]]
        rays_of_p = np.array([xyz[p] - c for c in centres])
        rays_of_p /= np.linalg.norm(rays_of_p, axis=1)[:, None]
        expected = np.degrees(np.arccos((rays_of_p @ rays_of_p.T).min()))
        assert angles[p] == pytest.approx(expected, abs=1e-3)


def test_noisy_points_are_a_local_minimum_of_the_reprojection_error():
    _, poses, camera_index, images, points, indptr, pixels = scene(seed=1)
    rng = np.random.default_rng(0)
    rays = undistort(pixels + rng.normal(0, 1, pixels.shape), CAMERAS, camera_index[images])
    found, _ = triangulate_tracks(rays, poses, images, indptr)

    def cost(x):
        p = poses[images]
        in_camera = np.einsum("nij,nj->ni", p[..., :3], x[points]) + p[..., 3]
        r = in_camera[:, :2] / in_camera[:, 2:] - rays
        return np.bincount(points, (r**2).sum(1))

    best = cost(found)
    for _ in range(20):
        assert (cost(found + rng.normal(0, 1e-3, found.shape)) > best).all()


def test_tracks_without_a_solution_are_nan():
    _, poses, camera_index, images, _, _, pixels = scene()
    rays = undistort(pixels, CAMERAS, camera_index[images])
    one = np.array([0, 1])
    found, angles = triangulate_tracks(rays[:1], poses, images[:1], one)
    assert np.isnan(found).all() and (angles == 0).all()
    # Rays from x = 0 to the left and from x = 2 to the right meet at z = -1.
    side = np.stack([np.c_[np.eye(3), [0, 0, 0]], np.c_[np.eye(3), [-2, 0, 0]]])
    away = np.array([[-1.0, 0], [1.0, 0]])
    found, angles = triangulate_tracks(away, side, np.array([0, 1]), np.array([0, 2]))
    assert np.isnan(found).all() and (angles == 0).all()
    found, angles = triangulate_tracks(rays[:0], poses, images[:0], np.array([0, 0]))
    assert np.isnan(found).all() and (angles == 0).all()


def test_points_behind_a_camera_have_infinite_error():
    pose = np.c_[np.eye(3), np.zeros(3)][None]
    errors = reprojection_errors(
        np.array([[0, 0, -1.0]]),
        np.zeros((1, 2)),
        CAMERAS,
        np.zeros(1, int),
        pose,
        np.zeros(1, int),
    )
    assert np.isinf(errors).all()
