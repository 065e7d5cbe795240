import pytest
from synthetic import compressed_scene, make_scene, write_compressed_scene

from hloc_dpqed import CompressedMap
from hloc_dpqed.errors import InputError
from hloc_dpqed.evaluation.pose_errors import pose_error
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_poses, read_queries
from hloc_dpqed.mapfile import map_info


def test_load_info_and_localize(tmp_path):
    scene = make_scene(tmp_path)
    path = write_compressed_scene(scene, tmp_path / "map.dpqed")
    loaded = CompressedMap.load(str(path))
    told, of_file = loaded.info(), map_info(path)
    assert told["distinct_codes"] == of_file["distinct_codes"]
    assert {k: of_file[k] for k in ("num_points", "codec", "granularity")} == {
        k: told[k] for k in ("num_points", "codec", "granularity")
    }
    truth = read_poses(scene.poses)
    with FeatureFile(scene.features) as file:
        for name, camera in read_queries(scene.queries):
            features = file.read(name)
            for retrieved in (list(scene.db_names[:4]), [0, 1, 2], None):
                found = loaded.localize(features, camera, retrieved, name=name, seed=3)
                assert found.cam_from_world is not None and found.num_inliers > 50
                translation, rotation = pose_error(found.cam_from_world, truth[name])
                assert translation < 0.02 and rotation < 0.2
        with pytest.raises(InputError, match=r"'x.jpg' is not in the map"):
            loaded.localize(features, camera, ["x.jpg"])


def test_info_of_a_map_in_memory(tmp_path):
    told = compressed_scene(make_scene(tmp_path), granularity="observation").info()
    assert told["granularity"] == "observation"
    assert told["descriptor_bytes"] == told["num_observations"] * told["code_bytes"]
