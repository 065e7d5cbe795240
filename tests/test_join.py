"""Which points of two maps are the same, and the merged map: point ids are the oracle."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
from grown_maps import halves, map_of, points_of
from synthetic import make_scene

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.codecs.none import NoneCodec
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.maps.compressed import GlobalDescriptors
from hloc_dpqed.maps.join import common_parts, merge_maps
from hloc_dpqed.scene.visibility import Visibility


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return make_scene(tmp_path_factory.mktemp("join"), num_points=150, dim=16)


@pytest.fixture(scope="module")
def codec(scene):
    observations = read_observations(read_reference(scene.sfm), scene.features)
    return fit_codec("nested", observations, 4, bits=[6] * 4 + [8])


@pytest.fixture(scope="module")
def models(scene):
    """Two models of some of the images, which share images and points."""
    return halves(scene)


@pytest.fixture(scope="module")
def maps(scene, models, codec):
    return [map_of(model, scene.features, codec) for model in models]


def test_points_of_one_id_are_the_same(models):
    a, b = models
    common = common_parts(a, b)
    assert {a.image_names[i] for i in common.images[:, 0]} == {
        b.image_names[j] for j in common.images[:, 1]
    }
    found = {(int(a.point_ids[i]), int(b.point_ids[j])) for i, j in common.points}
    assert all(i == j for i, j in found)
    shared = points_of(a, common.images[:, 0]) & points_of(b, common.images[:, 1])
    assert len(found) >= 0.98 * len(shared)


def test_merged_map_has_all_of_both(models, maps, codec):
    merged = merge_maps(*maps)
    a, b = models
    assert merged.image_names == sorted({*a.image_names, *b.image_names})
    union = {*a.point_ids.tolist(), *b.point_ids.tolist()}
    assert len(union) <= merged.num_points <= 1.02 * len(union)
    whole = {(name, xyz) for name, xyz in seen(merged)}
    for part in maps:
        names = {name for name, _ in seen(part)}
        assert names <= {name for name, _ in whole}
    assert merged.codec_hash == codec_hash(codec)
    assert len(merged.codes) == merged.num_points == len(merged.scores)


def test_order_of_maps_does_not_matter(maps):
    one, other = merge_maps(*maps), merge_maps(*maps[::-1])
    assert contents(one) == contents(other)
    assert one.image_names == other.image_names
    np.testing.assert_array_equal(one.cam_from_world, other.cam_from_world)


def test_merging_a_map_with_itself_changes_nothing(maps):
    again = merge_maps(maps[0], maps[0])
    assert contents(again) == contents(maps[0])


def test_codes_of_other_lengths_become_the_shorter(scene, models, codec):
    a = map_of(models[0], scene.features, codec.head(2))
    b = map_of(models[1], scene.features, codec)
    merged = merge_maps(a, b)
    assert merged.codec.code_size == 2 == merged.codes.shape[1]


def test_other_codecs_and_extractors_are_refused(scene, models, maps, codec):
    observations = read_observations(read_reference(scene.sfm), scene.features)
    other = fit_codec("nested", observations, 4, seed=5, bits=[6] * 4 + [8])
    with pytest.raises(InputError, match="have other codecs"):
        merge_maps(maps[0], map_of(models[1], scene.features, other))
    told = [
        replace(m, metadata={"features": {"name": f"feats-{name}"}})
        for m, name in zip(maps, ("superpoint", "xfeat"), strict=True)
    ]
    with pytest.raises(InputError, match="other extractors, superpoint and xfeat"):
        merge_maps(*told)


def test_other_frames_are_refused(maps):
    a, b = maps
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    poses = b.cam_from_world.copy()
    poses[:, :, :3] = poses[:, :, :3] @ turn.T
    moved = replace(b, xyz=b.xyz @ turn.T, cam_from_world=poses)
    with pytest.raises(InputError, match="are not in one frame"):
        merge_maps(a, moved)
    with pytest.raises(InputError, match="have no image in common"):
        merge_maps(a, replace(b, image_names=[f"other/{n}" for n in b.image_names]))


def test_a_frame_far_from_the_origin_is_one_frame(maps):
    """As georeferenced maps are: ECEF coordinates of millions of metres."""
    shift = np.array([4.1e6, 6.2e5, 4.8e6])

    def far(m):
        poses = m.cam_from_world.copy()
        poses[:, :, 3] -= poses[:, :, :3] @ shift
        return replace(m, xyz=m.xyz + shift, cam_from_world=poses)

    near, away = merge_maps(*maps), merge_maps(*map(far, maps))
    assert near.num_points == away.num_points
    np.testing.assert_allclose(np.sort(away.xyz - shift, 0), np.sort(near.xyz, 0), atol=1e-6)


def test_one_moved_image_does_not_decide(maps):
    a, b = maps
    common = [name for name in b.image_names if name in a.image_names]
    assert len(common) > 2
    poses = b.cam_from_world.copy()
    poses[b.image_names.index(common[0]), :, 3] += 1.0
    assert merge_maps(a, replace(b, cam_from_world=poses)).num_points > 0


def test_empty_images_are_common_too(maps):
    a, b = maps
    blind = replace(b, visibility=Visibility.from_lists([[]] * b.num_images, b.num_points))
    merged = merge_maps(a, blind)
    assert merged.num_points == a.num_points + b.num_points


def seen(m):
    return [
        (name, tuple(np.round(m.xyz[row], 6)))
        for i, name in enumerate(m.image_names)
        for row in m.visibility[i]
    ]


def contents(m):
    """All of a map but the order of its points."""
    points = {
        (tuple(xyz), code.tobytes(), float(score))
        for xyz, code, score in zip(m.xyz, m.codes, m.scores, strict=True)
    }
    return points, frozenset(
        (name, tuple(m.xyz[row])) for i, name in enumerate(m.image_names) for row in m.visibility[i]
    )


def test_cameras_are_kept_apart(maps):
    """Images of either map keep the intrinsics that they had."""
    a, b = maps
    wide = [
        pycolmap.Camera(
            model=c.model.name, width=c.width, height=c.height, params=np.array(c.params) * 1.0
        )
        for c in b.cameras
    ]
    merged = merge_maps(a, replace(b, cameras=wide))
    for name in b.image_names:
        if name not in a.image_names:
            own = b.cameras[b.camera_index[b.image_names.index(name)]]
            kept = merged.cameras[merged.camera_index[merged.image_names.index(name)]]
            assert kept.params.tolist() == own.params.tolist()


def with_globals(compressed, seed: int, dim: int = 6):
    codec = NoneCodec(dim)
    rows = np.random.default_rng(seed).normal(size=(compressed.num_images, dim))
    return replace(compressed, global_descriptors=GlobalDescriptors(codec, codec.encode(rows)))


def test_global_descriptors_of_both_are_kept(maps):
    a, b = with_globals(maps[0], 0), with_globals(maps[1], 1)
    one, other = merge_maps(a, b).global_descriptors, merge_maps(b, a).global_descriptors
    np.testing.assert_array_equal(one.codes, other.codes)
    merged = merge_maps(a, b)
    for part in (a, b):
        alone = set(part.image_names) - set(b.image_names if part is a else a.image_names)
        assert alone
        for name in alone:
            np.testing.assert_array_equal(
                one.codes[merged.image_names.index(name)],
                part.global_descriptors.codes[part.image_names.index(name)],
            )


def test_global_descriptors_that_differ_are_left_out_and_told(maps, caplog):
    for other in (maps[1], with_globals(maps[1], 1, dim=8)):
        caplog.clear()
        assert merge_maps(with_globals(maps[0], 0), other).global_descriptors is None
        assert "left out" in caplog.text


def test_a_code_for_each_observation_is_not_joined(maps):
    with pytest.raises(InputError, match="for each observation"):
        merge_maps(maps[0], replace(maps[1], granularity="observation"))


def test_an_image_that_sees_nothing_says_nothing(maps):
    """Of the common images one may have lost all of its points in a map."""
    a = maps[0]
    common = sorted(set(a.image_names) & set(maps[1].image_names))
    row = a.image_names.index(common[0])
    lists = [a.visibility[i] if i != row else a.visibility[i][:0] for i in range(a.num_images)]
    emptied = replace(a, visibility=Visibility.from_lists(lists, a.num_points))
    found = common_parts(emptied, maps[1])
    assert 0 < len(found.points) <= len(common_parts(a, maps[1]).points)
