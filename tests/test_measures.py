"""The measures against loops written from their definitions."""

import numpy as np
import pycolmap
import pytest
from scipy import stats
from synthetic import compressed_scene, make_scene

from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.measures import Measures, bootstrap, measure
from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.localization.localizer import Localizer


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("measures"), dim=32, noise=0.25)


def read(scene, **changes):
    files = {
        "queries": scene.queries,
        "features": scene.features,
        "retrieval": scene.pairs,
        "reference_poses": scene.poses,
    }
    return read_posed_queries(**(files | changes))


def test_correct_matches_are_the_distinct_pairs_that_reproject(scene):
    compressed = compressed_scene(scene, codec="pq", code_bytes=2, with_global=False)
    queries = read(scene)
    localizer = Localizer(compressed, ransac_thresh=4)
    got = measure(localizer, queries, ransac_seeds=2)
    for k, query in enumerate(queries):
        images = [compressed.image_names.index(name) for name in query.retrieved]
        pairs = {
            (int(kp), int(point))
            for m in localizer.match(query.features, images)
            for kp, point in m.pairs
        }
        good = set()
        pose = pycolmap.Rigid3d(query.cam_from_world)
        for kp, point in pairs:
            in_camera = pose * compressed.xyz[point]
            if in_camera[2] <= 0:
                continue
            pixel = query.camera.img_from_cam(in_camera.reshape(1, 3))[0]
            # hloc's pixel centres are at integers, COLMAP's at halves.
            if np.linalg.norm(pixel - 0.5 - query.features.keypoints[kp]) < 4:
                good.add((kp, point))
        assert 0 < len(good) < len(pairs)
        assert (got.correct[k], got.matched[k]) == (len(good), len(pairs))
        assert got.correct_keypoints[k] == len({kp for kp, _ in good})
        assert got.precision[k] == pytest.approx(len(good) / len(pairs))
    assert got.errors.shape == (3, 2, 2)


def test_whole_map_and_no_seed(scene):
    compressed = compressed_scene(scene, codec="none", code_bytes=0, with_global=False)
    queries = read(scene, retrieval="none")
    assert all(query.retrieved is None for query in queries)
    got = measure(Localizer(compressed), queries, ransac_seeds=0)
    assert got.errors.shape == (3, 0, 2) and (got.correct > 0).all()


def test_recall_and_medians_by_hand():
    errors = np.array([[[0.1, 1.0], [0.3, 1.0]], [[np.inf, np.inf], [0.25, 0.5]]])
    one = np.ones(2, int)
    measures = Measures(one, one, one, errors)
    assert measures.recall(0.25, 2) == 0.25  # strictly under
    assert measures.recall(1, 2) == 0.75
    assert measures.median_errors() == (np.inf, np.inf)


def test_bootstrap_agrees_with_scipy():
    differences = np.random.default_rng(1).normal(2, 3, 40)
    low, high = bootstrap(differences)
    peer = stats.bootstrap(
        (differences,), np.mean, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (low, high) == pytest.approx((peer.low, peer.high), abs=0.1)
    assert bootstrap(differences) == (low, high)


def test_queries_without_a_pose_are_left_out_and_mistakes_are_told(scene, tmp_path):
    poses = scene.poses.read_text().splitlines()
    (tmp_path / "some.txt").write_text("\n".join(poses[:2]))
    assert [q.name for q in read(scene, reference_poses=tmp_path / "some.txt")] == list(
        scene.query_names[:2]
    )
    (tmp_path / "others.txt").write_text("x.jpg 1 0 0 0 0 0 0")
    with pytest.raises(InputError, match="holds no pose of a query"):
        read(scene, reference_poses=tmp_path / "others.txt")
    (tmp_path / "pairs.txt").write_text("x.jpg y.jpg")
    with pytest.raises(InputError, match="no pair of a listed query"):
        read(scene, retrieval=tmp_path / "pairs.txt")
    (tmp_path / "twice.txt").write_text(2 * scene.queries.read_text())
    with pytest.raises(InputError, match="comes twice"):
        read(scene, queries=tmp_path / "twice.txt")
