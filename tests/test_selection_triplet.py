import numpy as np
import pytest
from selection_maps import random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.selection.p3p import solve_p3p
from hloc_dpqed.selection.triplet import draw_triplets, select_triplet, triplet_errors


def random_triplets(count, seed=0):
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    rotation *= np.linalg.det(rotation)[:, None, None]
    in_camera = rng.uniform(-3, 3, (count, 3, 3))
    in_camera[..., 2] = rng.uniform(3, 12, (count, 3))
    translation = rng.normal(0, 5, (count, 3))
    points = np.einsum("nji,nkj->nki", rotation, in_camera - translation[:, None])
    bearings = in_camera / np.linalg.norm(in_camera, axis=2, keepdims=True)
    return np.concatenate([rotation, translation[..., None]], 2), bearings, points


def test_p3p_finds_the_true_pose():
    poses, bearings, points = random_triplets(2000)
    found, exists = solve_p3p(bearings, points)
    error = np.where(exists, np.abs(found - poses[:, None]).max((2, 3)), np.inf).min(1)
    assert np.quantile(error, 0.99) < 1e-4
    rotations = found[exists][:, :, :3]
    np.testing.assert_allclose(
        rotations @ rotations.transpose(0, 2, 1),
        np.tile(np.eye(3), (len(rotations), 1, 1)),
        atol=1e-6,
    )
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-6)


def test_p3p_agrees_with_poselib():
    poselib = pytest.importorskip("poselib")
    _, bearings, points = random_triplets(300, seed=1)
    found, exists = solve_p3p(bearings, points)
    missed = 0
    for k in range(300):
        theirs = poselib.p3p(list(bearings[k]), list(points[k]))
        for pose in theirs:
            matrix = np.c_[pose.R, pose.t]
            gap = [np.abs(found[k, s] - matrix).max() for s in range(4) if exists[k, s]]
            missed += not gap or min(gap) > 1e-3
    assert missed <= 5  # double roots, which either of the two may take for complex ones


def test_degenerate_triplets_have_no_pose():
    bearings = np.tile(np.eye(3)[2], (2, 3, 1))
    points = np.zeros((2, 3, 3))
    points[1, :, 0] = [0, 1, 2]
    _, exists = solve_p3p(bearings, points)
    assert not exists[0].any()


def test_accurate_triplets_have_small_errors():
    rng = np.random.default_rng(0)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.linalg.det(rotation)
    pose = np.c_[rotation, rng.normal(size=3)]
    in_camera = np.c_[rng.uniform(-3, 3, (30, 2)), rng.uniform(4, 9, 30)]
    xyz = (in_camera - pose[:, 3]) @ rotation
    rays = in_camera[:, :2] / in_camera[:, 2:]
    triplets = np.stack([rng.permutation(30)[:3] for _ in range(200)])
    exact = triplet_errors(rays, xyz, pose, triplets)
    assert np.quantile(exact, 0.97) < 1e-5
    noisy = triplet_errors(rays + rng.normal(0, 2e-3, rays.shape), xyz, pose, triplets)
    assert np.median(noisy) > 1e-4
    # Points close together fix a pose worse than points that are far apart.
    heap = in_camera * [0.05, 0.05, 1]
    rays_of_heap = heap[:, :2] / heap[:, 2:] + rng.normal(0, 2e-3, rays.shape)
    worse = triplet_errors(rays_of_heap, (heap - pose[:, 3]) @ rotation, pose, triplets)
    assert np.median(worse) > 2 * np.median(noisy)
    assert len(triplet_errors(rays, xyz, pose, np.zeros((0, 3), int))) == 0


@pytest.mark.parametrize("order", ["random", "prosac"])
def test_drawn_triplets_are_distinct_points(order):
    lengths = np.random.default_rng(0).integers(2, 20, 50)
    drawn = draw_triplets(lengths, 500, order, np.random.default_rng(1))
    assert 400 < len(drawn) <= 500
    assert drawn.min() >= 0 and drawn.max() < 50
    assert all(len(set(row)) == 3 for row in drawn.tolist())
    assert len(draw_triplets(lengths[:2], 10, order, np.random.default_rng(1))) == 0
    assert (
        np.sort(draw_triplets(lengths[:3], 50, order, np.random.default_rng(1))) == [0, 1, 2]
    ).all()


def test_prosac_draws_long_tracks_first():
    lengths = np.random.default_rng(0).permutation(100)
    drawn = draw_triplets(lengths, 1000, "prosac", np.random.default_rng(1))
    longest = np.sort(lengths)[-50:].min()
    assert (lengths[drawn[:100]] >= longest).all()
    assert len(np.unique(drawn)) > 90


@pytest.mark.parametrize("sharing", [True, False])
def test_images_take_turns(sharing):
    problem, _ = random_problem(num_images=10, num_points=300)
    visibility = problem.visibility
    rows = select_triplet(problem, 60, preset="fast", sharing=sharing)
    image = visibility.image_of_observation()
    kept = np.bincount(image[np.isin(visibility.indices, rows)], minlength=10)
    assert len(rows) == 60 and kept.min() >= 3


@pytest.mark.parametrize("options", [{"preset": "slow"}, {"order": "best"}, {"num_triplets": 0}])
def test_wrong_options_are_input_errors(options):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        select_triplet(problem, 10, **options)
