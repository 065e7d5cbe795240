import dataclasses

import numpy as np
import pycolmap
import pytest
from hypothesis import given, settings, strategies as st

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile, read_global_descriptors
from hloc_dpqed.io.model import read_observations, read_reference, reference_from_reconstruction
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.scene.reference import Observations, mean_descriptors
from hloc_dpqed.scene.spatial import spread_folds
from hloc_dpqed.selection import select_points
from hloc_dpqed.selection.base import SelectionProblem


def synthetic(seed=0, dim=16):
    """A map by pycolmap with exact points, as arrays, and random descriptors."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs = 6
    options.num_cameras_per_rig = 1
    options.num_frames_per_rig = 2
    options.num_points3D = 80
    options.num_points2D_without_point3D = 3
    pycolmap.set_random_seed(seed)
    reconstruction = pycolmap.synthesize_dataset(options)
    reference = reference_from_reconstruction(reconstruction)
    keypoints = []
    for i, image_id in enumerate(reference.image_ids):
        image = reconstruction.images[int(image_id)]
        rows = slice(*reference.visibility.indptr[i : i + 2])
        keypoints += [image.points2D[int(k)].xy - 0.5 for k in reference.keypoint_index[rows]]
    count = reference.visibility.num_observations
    descriptors = np.random.default_rng(seed).normal(size=(count, dim))
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    observations = Observations(
        descriptors.astype(np.float16),
        np.ones(count, np.float32),
        np.array(keypoints, np.float32),
        reference.visibility.indices,
        reference.visibility.image_of_observation(),
        reference.num_points,
    )
    return reference, observations


def corrupt(reference, observations, held_out):
    """Replace all that a held-out image (and its points' old coordinates) says by garbage."""
    rng = np.random.default_rng(99)
    out = np.isin(observations.image_index, held_out)
    touched = np.unique(observations.point_index[out])
    descriptors, scores = observations.descriptors.copy(), observations.scores.copy()
    keypoints = observations.keypoints.copy()
    descriptors[out] = rng.normal(size=descriptors[out].shape)
    scores[out], keypoints[out] = 7.0, rng.uniform(0, 500, keypoints[out].shape)
    poses, xyz = reference.cam_from_world.copy(), reference.xyz.copy()
    poses[held_out] = rng.normal(size=poses[held_out].shape)
    xyz[touched] = rng.normal(size=xyz[touched].shape)
    error = reference.reprojection_error.copy()
    error[touched] = 1e3
    keypoint_index = reference.keypoint_index.copy()
    keypoint_index[out] = 0
    return (
        dataclasses.replace(
            reference,
            cam_from_world=poses,
            xyz=xyz,
            reprojection_error=error,
            keypoint_index=keypoint_index,
        ),
        dataclasses.replace(
            observations, descriptors=descriptors, scores=scores, keypoints=keypoints
        ),
    )


def arrays(split, codec=True):
    """Everything that a later stage fits on, and what it fits, as bytes."""
    reference, observations = split.reference, split.observations
    problem = SelectionProblem.from_reference(reference, observations)
    fitted = [
        mean_descriptors(observations),
        *(select_points(problem, name, 20) for name in ("kcover", "track_length", "random")),
    ]
    if codec:
        fitted.append(fit_codec("pq", observations, 4).tensors()["centroids"])
    fields = [
        reference.image_ids,
        reference.point_ids,
        reference.xyz,
        reference.reprojection_error,
        reference.cam_from_world,
        reference.camera_index,
        reference.keypoint_index,
        reference.visibility.indptr,
        reference.visibility.indices,
        observations.descriptors,
        observations.scores,
        observations.keypoints,
        observations.point_index,
        observations.image_index,
    ]
    return [a.tobytes() for a in fields + fitted]


def assert_consistent(split):
    reference, visibility = split.reference, split.reference.visibility
    assert visibility.num_points == reference.num_points == len(split.point_rows)
    assert visibility.num_images == reference.num_images == len(split.image_rows)
    assert (visibility.track_lengths() >= 2).all()
    assert np.isfinite(reference.xyz).all()
    assert (split.observations.point_index == visibility.indices).all()
    assert (split.observations.image_index == visibility.image_of_observation()).all()
    for i in range(reference.num_images):
        assert (np.diff(visibility[i]) > 0).all()


def test_corrupting_a_held_out_image_changes_nothing_fitted():
    reference, observations = synthetic()
    held_out = np.array([1, 4])
    clean = hold_out(reference, observations, held_out)
    dirty = hold_out(*corrupt(reference, observations, held_out), held_out)
    assert arrays(clean) == arrays(dirty)
    assert_consistent(clean)
    assert [q.image for q in clean.queries] == [1, 4]
    assert not {q.name for q in clean.queries} & set(clean.reference.image_names)


def test_corrupting_a_held_out_image_changes_nothing_fitted_on_a_real_scene(castle):
    reference = read_reference(castle / "sfm")
    observations = read_observations(reference, castle / "feats-superpoint.h5")
    held_out = np.flatnonzero(spread_folds(reference.cam_from_world, 5) == 0)
    clean = hold_out(reference, observations, held_out)
    dirty = hold_out(*corrupt(reference, observations, held_out), held_out)
    assert arrays(clean, codec=False) == arrays(dirty, codec=False)
    assert_consistent(clean)


def test_exact_points_are_found_again():
    reference, observations = synthetic()
    split = hold_out(reference, observations, np.array([0, 3, 7]))
    before = reference.xyz[split.point_rows]
    assert len(split.point_rows) > 60
    # Keypoints are float32 pixels, so points agree to about 1e-4 of the scene's size.
    np.testing.assert_allclose(split.reference.xyz, before, atol=5e-3)
    assert (split.reference.reprojection_error < 1e-2).all()


def test_points_agree_with_pycolmap(castle):
    reference = read_reference(castle / "sfm")
    observations = read_observations(reference, castle / "feats-superpoint.h5")
    split = hold_out(reference, observations, np.array([5]))
    again = np.flatnonzero((split.reference.xyz != reference.xyz[split.point_rows]).any(1))
    assert len(again) > 300
    by_point, order = split.reference.visibility.transpose()
    distances = []
    for p in again[:200]:
        images, rows = by_point[p], order[by_point.indptr[p] : by_point.indptr[p + 1]]
        cameras = [split.reference.cameras[split.reference.camera_index[i]] for i in images]
        poses = split.reference.cam_from_world[images]
        result = pycolmap.estimate_triangulation(
            split.observations.keypoints[rows].astype(np.float64) + 0.5,
            [pycolmap.Rigid3d(pose) for pose in poses],
            cameras,
        )
        if result is not None and np.all(result["inliers"]):
            distances.append(np.linalg.norm(result["xyz"] - split.reference.xyz[p]))
    assert len(distances) > 100
    assert np.median(distances) < 0.01  # metres; pycolmap's estimate is linear, ours is refined


def test_untouched_points_stay_and_lonely_ones_go():
    reference, observations = synthetic()
    held_out = np.arange(0, reference.num_images, 2)
    split = hold_out(reference, observations, held_out)
    seen_by_out = np.unique(observations.point_index[np.isin(observations.image_index, held_out)])
    untouched = ~np.isin(split.point_rows, seen_by_out)
    assert (split.reference.xyz[untouched] == reference.xyz[split.point_rows[untouched]]).all()
    left = np.bincount(
        observations.point_index[~np.isin(observations.image_index, held_out)],
        minlength=reference.num_points,
    )
    assert not np.isin(np.flatnonzero(left < 2), split.point_rows).any()


def test_queries_have_features_and_retrieval(castle):
    reference = read_reference(castle / "sfm")
    observations = read_observations(reference, castle / "feats-superpoint.h5")
    descriptors = read_global_descriptors(castle / "global-feats-vlad.h5", reference.image_names)
    with FeatureFile(castle / "feats-superpoint.h5") as file:
        split = hold_out(
            reference,
            observations,
            np.array([3, 9]),
            read_features=file.read,
            global_descriptors=descriptors,
            num_retrieved=5,
        )
    for query in split.queries:
        assert len(query.features.keypoints) > 500
        similar = descriptors[split.image_rows] @ descriptors[query.image]
        expected = [split.reference.image_names[i] for i in np.argsort(-similar)[:5]]
        assert query.retrieved == expected


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.integers(0, 1000), st.data())
def test_folds_are_balanced_and_deterministic(count, seed, data):
    num_folds = data.draw(st.integers(2, count))
    poses = np.random.default_rng(seed).normal(size=(count, 3, 4))
    folds = spread_folds(poses, num_folds, seed)
    sizes = np.bincount(folds, minlength=num_folds)
    assert len(sizes) == num_folds and np.ptp(sizes) <= 1
    assert (folds == spread_folds(poses, num_folds, seed)).all()


def test_folds_are_spread():
    poses = np.zeros((40, 3, 4))
    poses[:, :, :3] = np.eye(3)
    poses[:, 0, 3] = -np.random.default_rng(0).permutation(40)  # centres on a line, 0 .. 39
    folds = spread_folds(poses, 4)
    for fold in range(4):
        assert np.diff(np.sort(-poses[folds == fold, 0, 3])).max() <= 7


@pytest.mark.parametrize("rows", [[], [-1], [12], range(12)])
def test_wrong_images_are_an_input_error(rows):
    reference, observations = synthetic()
    with pytest.raises(InputError):
        hold_out(reference, observations, np.array(list(rows), int))


def test_wrong_number_of_folds_is_an_input_error():
    with pytest.raises(InputError):
        spread_folds(np.zeros((3, 3, 4)), 4)
