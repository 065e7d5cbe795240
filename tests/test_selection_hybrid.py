import dataclasses

import numpy as np
import pycolmap
import pytest
from moved_maps import ECEF, TURN, moved_pose
from selection_maps import problem_of, random_problem

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.none import NoneCodec
from hloc_dpqed.errors import InputError
from hloc_dpqed.scene.reference import mean_descriptors
from hloc_dpqed.selection.hybrid import (
    PRIOR,
    _Information,
    image_cells,
    pose_jacobians,
    select_hybrid,
)
from hloc_dpqed.selection.statistics import could_see, reliability, survival, track_agreement


def objective(problem, chance, matches, rows, pixel_noise=2.0, crowd=0.0):
    """F by its definition: a log-determinant and a logarithm of matches for each image."""
    visibility = problem.visibility
    jacobian = pose_jacobians(problem, pixel_noise).astype(np.float64)
    total = 0.0
    for i in range(visibility.num_images):
        information = np.eye(6) / PRIOR
        expected = 1.0
        cells = {}
        camera = problem.cameras[problem.camera_index[i]]
        for k in range(visibility.indptr[i], visibility.indptr[i + 1]):
            if visibility.indices[k] in rows:
                information += chance[visibility.indices[k]] * jacobian[k].T @ jacobian[k]
                point = visibility.indices[k]
                if crowd:
                    at = pycolmap.Rigid3d(problem.cam_from_world[i]) * problem.xyz[point]
                    x, y = camera.img_from_cam(at)
                    cell = int(4 * x / camera.width), int(4 * y / camera.height)
                    cells[cell] = cells.get(cell, 0) + chance[point]
                else:
                    expected += chance[point]
        expected += sum(crowd * np.log(1 + inside / crowd) for inside in cells.values())
        total += np.linalg.slogdet(information)[1] - 6 * np.log(1 / PRIOR)
        total += matches * np.log(expected)
    return total


@pytest.mark.parametrize("matches, crowd", [(0.0, 0.0), (20.0, 0.0), (20.0, 1.0), (20.0, 3.0)])
@pytest.mark.parametrize("seed", range(5))
def test_equals_brute_force_greedy(seed, matches, crowd):
    problem, _ = random_problem(seed, num_images=5, num_points=30)
    chance = np.random.default_rng(seed).uniform(0.2, 2, 30)
    chosen = []
    for _ in range(8):
        value = objective(problem, chance, matches, set(chosen), crowd=crowd)
        gains = [
            -np.inf
            if p in chosen
            else objective(problem, chance, matches, {*chosen, p}, crowd=crowd) - value
            for p in range(30)
        ]
        chosen.append(int(np.argmax(gains)))
    order = _Information(problem, chance, 2.0, matches, crowd).maximize(8, 1e-9)
    assert order.tolist() == chosen


def test_tolerance_costs_no_more_than_it_says():
    problem, _ = random_problem(0, num_images=10, num_points=300)
    chance = np.ones(300)
    values = [
        objective(problem, chance, 20, set(_Information(problem, chance, 2.0, 20).maximize(40, t)))
        for t in (1e-9, 0.05, 0.5)
    ]
    assert values[1] > 0.99 * values[0]
    assert values[2] > 0.5 * values[0]


def test_crowd_is_the_same_in_an_earth_centred_frame():
    problem, _ = random_problem(3, num_images=6, num_points=200)
    moved = dataclasses.replace(
        problem,
        xyz=problem.xyz @ TURN.T + ECEF,
        cam_from_world=np.array([moved_pose(pose) for pose in problem.cam_from_world]),
    )
    for crowd in (0.0, 1.0):
        rows = [select_hybrid(p, 40, crowd=crowd) for p in (problem, moved)]
        np.testing.assert_array_equal(*rows)


def test_crowd_takes_from_more_cells():
    problem, _ = random_problem(4, num_images=4, num_points=400)
    cells = image_cells(problem)
    points = problem.visibility.indices
    counts = [
        len(np.unique(cells[np.isin(points, select_hybrid(problem, 60, crowd=crowd))]))
        for crowd in (0.0, 1.0)
    ]
    assert counts[1] > counts[0]


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
    assert 1 not in select_hybrid(problem, 2, matches=0)


def test_spread_is_preferred():
    # Nine points in a heap and three in the other corners of the image, all equally reliable.
    problem = problem_of([{0}] * 12, 1)
    rng = np.random.default_rng(0)
    problem.xyz[:9] = rng.normal([-3, -2, 10], 0.01, (9, 3))
    problem.xyz[9:] = [[3, -2, 12], [3, 2, 9], [-3, 2, 15]]
    rows = select_hybrid(problem, 4, sharpness=0, matches=0)
    assert {9, 10, 11} <= set(rows.tolist())


def test_a_point_that_the_codec_loses_is_left_out():
    problem, _ = random_problem(num_points=100)
    free = select_hybrid(problem, 30)
    lost = free[:10]

    class Loses(NoneCodec):
        def encode_points(self, observations):
            described = mean_descriptors(observations)
            described[lost] = described[lost[0]]  # one code for all of them
            return self.encode(described)

    bound = select_hybrid(dataclasses.replace(problem, codec=lambda: Loses(8)), 30)
    assert np.isin(lost, bound).sum() <= 2


def survival_by_definition(observations, stored):
    found, count = np.zeros(observations.num_points), np.zeros(observations.num_points)
    for image in np.unique(observations.image_index):
        rows = np.flatnonzero(observations.image_index == image)
        points = observations.point_index[rows]
        similarity = observations.descriptors[rows].astype(np.float32) @ stored[points].T
        for k, point in enumerate(points):
            count[point] += 1
            found[point] += similarity[k].argmax() == k and similarity[:, k].argmax() == k
    return (found + 1) / (count + 2)


@pytest.mark.parametrize("chunk", [1024, 7])
def test_survival_by_definition(monkeypatch, chunk):
    monkeypatch.setattr("hloc_dpqed.selection.statistics._IMAGE_ROWS", chunk)
    problem, _ = random_problem(dim=4)
    codec = fit_codec("pq", problem.observations, 1)
    stored = codec.decode(codec.encode_points(problem.observations))
    expected = survival_by_definition(problem.observations, stored)
    assert 0.4 < expected.mean() < 0.6 and expected.std() > 0.02
    np.testing.assert_array_equal(survival(problem.observations, stored.__getitem__), expected)
    with_codec = dataclasses.replace(problem, codec=lambda: codec)
    np.testing.assert_array_equal(with_codec.survival, expected)
    # Descriptors as they are survive better; without any, nothing is known.
    assert problem.survival.mean() > expected.mean()
    assert (dataclasses.replace(problem, observations=None).survival == 1).all()


def test_survival_is_the_same_with_any_number_of_threads(threads):
    problem, _ = random_problem(num_points=500, dim=16)
    found = {}
    for count in (1, 2, 3):
        threads(count)
        found[count] = dataclasses.replace(problem).survival
    np.testing.assert_array_equal(found[1], found[2])
    np.testing.assert_array_equal(found[1], found[3])


def test_reliable_points_are_preferred():
    # Two clusters of equal spread, of which one is found again three times as often.
    problem = problem_of([{0, 1}] * 20, 2)
    problem.xyz[10:] = problem.xyz[:10]
    problem.__dict__["reliability"] = np.repeat([0.5, 1.5], 10)
    assert (select_hybrid(problem, 8) >= 10).all()


def test_every_image_gets_points_before_one_gets_many():
    # Image 0 sees a hundred points, image 1 eight others, no more reliable ones.
    problem = problem_of([{0}] * 100 + [{1}] * 8, 2)
    rows = select_hybrid(problem, 16, sharpness=0)
    assert (rows >= 100).sum() >= 6


@pytest.mark.parametrize(
    "options",
    [
        {"tolerance": 0},
        {"sharpness": -1},
        {"matches": -1},
        {"crowd": -1},
        {"pixel_noise": 0},
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


def geometry(problem):
    return (
        problem.visibility,
        problem.xyz,
        problem.cameras,
        problem.camera_index,
        problem.cam_from_world,
    )


def test_could_see_by_definition():
    problem, seen_by = random_problem(num_images=6, num_points=80)
    counts = could_see(*geometry(problem), max_angle=4, max_scale=1.1, num_neighbours=5)
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
    value = reliability(*geometry(problem), problem.observations)
    assert value[0] > value[1] > value[3] > 0 and value[2] == 0
    assert value[[0, 1, 3]].mean() == pytest.approx(1)
