import numpy as np
import pycolmap
import pytest
from selection_maps import problem_of, random_problem

from hloc_dpqed.errors import InputError
from hloc_dpqed.selection.hybrid import PRIOR, _Information, pose_jacobians, select_hybrid
from hloc_dpqed.selection.kcover import cover_order
from hloc_dpqed.selection.statistics import could_see, reliability, track_agreement


def objective(problem, chance, bonus, rows, pixel_noise=2.0):
    """F by its definition: one log-determinant for each image."""
    visibility = problem.visibility
    jacobian = pose_jacobians(problem, pixel_noise).astype(np.float64)
    total = bonus[list(rows)].sum()
    for i in range(visibility.num_images):
        information = np.eye(6) / PRIOR
        for k in range(visibility.indptr[i], visibility.indptr[i + 1]):
            if visibility.indices[k] in rows:
                information += chance[visibility.indices[k]] * jacobian[k].T @ jacobian[k]
        total += np.linalg.slogdet(information)[1] - 6 * np.log(1 / PRIOR)
    return total


@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force_greedy(seed):
    problem, _ = random_problem(seed, num_images=5, num_points=30)
    rng = np.random.default_rng(seed)
    chance = rng.uniform(0.2, 2, 30)
    seen = problem.visibility.track_lengths() > 0
    bonus = rng.uniform(0, 0.3, 30) * seen
    chosen = []
    for _ in range(8):
        value = objective(problem, chance, bonus, set(chosen))
        gains = [
            -np.inf if p in chosen else objective(problem, chance, bonus, {*chosen, p}) - value
            for p in range(30)
        ]
        chosen.append(int(np.argmax(gains)))
    for tolerance in (1e-9,):
        rows = _Information(problem, chance, 2.0).maximize(8, bonus, tolerance)
        assert sorted(rows.tolist()) == sorted(chosen)


def test_tolerance_costs_no_more_than_it_says():
    problem, _ = random_problem(0, num_images=10, num_points=300)
    chance, bonus = np.ones(300), np.zeros(300)
    values = [
        objective(
            problem, chance, bonus, set(_Information(problem, chance, 2.0).maximize(40, bonus, t))
        )
        for t in (1e-9, 0.05, 0.5)
    ]
    assert values[1] > 0.99 * values[0]
    assert values[2] > 0.5 * values[0]


def test_jacobians_are_derivatives():
    problem = problem_of([{0, 1}, {0}, {1}, {0, 1}], 2)
    visibility = problem.visibility
    jacobian = pose_jacobians(problem, 1.0)
    step = 1e-6
    for i in range(2):
        pose = pycolmap.Rigid3d(problem.cam_from_world[i])
        points = problem.xyz[visibility[i]]
        in_camera = points @ problem.cam_from_world[i][:, :3].T + problem.cam_from_world[i][:, 3]
        depth = np.median(in_camera[:, 2])
        for k in range(6):
            delta = np.zeros(6)
            delta[k] = step
            change = pycolmap.Rigid3d(pycolmap.Rotation3d(delta[:3]), delta[3:] * depth)
            moved = (change * pose).matrix()
            after = np.array(problem.cameras[0].img_from_cam(points @ moved[:, :3].T + moved[:, 3]))
            before = np.array(problem.cameras[0].img_from_cam(in_camera))
            mine = jacobian[visibility.indptr[i] : visibility.indptr[i + 1], :, k]
            np.testing.assert_allclose(mine, (after - before) / step, rtol=1e-3, atol=0.05)


def test_points_behind_an_image_give_nothing():
    problem = problem_of([{0}, {0}, {0}], 1)
    problem.xyz[1, 2] = -5
    assert (pose_jacobians(problem, 1.0)[1] == 0).all()
    assert 1 not in select_hybrid(problem, 2, matches=0, floor=0)


def test_spread_is_preferred():
    # Nine points in a heap and three in the other corners of the image, all equally reliable.
    problem = problem_of([{0}] * 12, 1)
    rng = np.random.default_rng(0)
    problem.xyz[:9] = rng.normal([-3, -2, 10], 0.01, (9, 3))
    problem.xyz[9:] = [[3, -2, 12], [3, 2, 9], [-3, 2, 15]]
    rows = select_hybrid(problem, 4, sharpness=0, matches=0, floor=0)
    assert {9, 10, 11} <= set(rows.tolist())


def test_a_point_that_the_codec_loses_is_left_out():
    problem, _ = random_problem(num_points=100)
    free = select_hybrid(problem, 30, floor=0)
    survival = np.ones(100)
    survival[free[:10]] = 0
    bound = select_hybrid(problem, 30, floor=0, survival=survival)
    assert not np.isin(free[:10], bound).any()


def test_floor_of_images():
    problem, _ = random_problem(num_images=20, num_points=500)
    visibility = problem.visibility
    image = visibility.image_of_observation()

    def least(rows):
        return np.bincount(image[np.isin(visibility.indices, rows)], minlength=20).min()

    level = least(cover_order(problem, 40))
    assert least(select_hybrid(problem, 40, matches=50, floor=0.8)) >= int(0.8 * level)


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 0},
        {"sharpness": -1},
        {"matches": -1},
        {"floor": 1.5},
        {"pixel_noise": 0},
        {"survival": np.ones(3)},
        {"survival": -np.ones(200)},
    ],
)
def test_wrong_options_are_input_errors(options):
    problem, _ = random_problem()
    with pytest.raises(InputError):
        select_hybrid(problem, 10, **options)


def test_track_agreement_by_definition(monkeypatch):
    problem, _ = random_problem(num_points=60)
    observations = problem.observations
    expected = np.zeros(60)
    for p in range(60):
        x = observations.descriptors[observations.point_index == p].astype(float)
        if len(x) >= 2:
            rest = x.sum(0) - x
            rest /= np.linalg.norm(rest, axis=1, keepdims=True)
            expected[p] = np.mean((x * rest).sum(1))
    for chunk in (1 << 16, 7):  # tracks longer than a chunk, too
        monkeypatch.setattr("hloc_dpqed.selection.statistics._CHUNK", chunk)
        np.testing.assert_allclose(track_agreement(observations), expected, atol=2e-3)


def test_could_see_by_definition():
    problem, seen_by = random_problem(num_images=6, num_points=80)
    counts = could_see(problem, max_angle=4, max_scale=1.1, num_neighbours=5)
    centres = [-pose[:, :3].T @ pose[:, 3] for pose in problem.cam_from_world]
    more = 0
    for p, images in enumerate(seen_by):
        expected = len(images)
        if images:
            rays = [centres[i] - problem.xyz[p] for i in images]
            mean = np.sum([r / np.linalg.norm(r) for r in rays], 0)
            mean /= np.linalg.norm(mean)
            distance = np.exp(np.mean([np.log(np.linalg.norm(r)) for r in rays]))
            for i in set(range(6)) - images:
                ray = centres[i] - problem.xyz[p]
                x, y, z = problem.cam_from_world[i] @ [*problem.xyz[p], 1]
                u, v = 500 * x / z + 320, 500 * y / z + 240
                expected += bool(
                    0 <= u <= 640
                    and 0 <= v <= 480
                    and ray @ mean >= np.cos(np.radians(4)) * np.linalg.norm(ray)
                    and abs(np.log(np.linalg.norm(ray) / distance)) <= np.log(1.1)
                )
        assert counts[p] == expected
        more += expected > len(images)
    assert more > 10


def test_reliability_grows_with_what_it_should():
    problem = problem_of([{0, 1, 2, 3}, {0, 1}, set(), {0}], 4)
    value = reliability(problem)
    assert value[0] > value[1] > value[3] > 0 and value[2] == 0
    assert value[[0, 1, 3]].mean() == pytest.approx(1)
