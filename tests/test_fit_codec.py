import json

import numpy as np
import pytest
import safetensors.numpy
from codec_helpers import make_observations
from synthetic import make_scene
from test_compress import TRIALS, killed

from hloc_dpqed import cli, compress, fit_codec as stage
from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.file import codec_file_name, codec_hash, codec_to_bytes, read_codec
from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile import read_map


def test_round_trip(tmp_path):
    observations = make_observations(300, 2)
    codec = fit_codec("pq", observations, 4)
    path = tmp_path / "codec.safetensors"
    path.write_bytes(codec_to_bytes(codec, {"note": "x"}))
    again = read_codec(path)
    assert codec_hash(again) == codec_hash(codec)
    np.testing.assert_array_equal(
        codec.encode_points(observations), again.encode_points(observations)
    )


def test_the_hash_is_of_the_content():
    observations = make_observations(300, 2)
    codec = fit_codec("pq", observations, 4)
    assert codec_hash(codec) == codec_hash(codec.stored())
    assert codec_hash(codec) != codec_hash(fit_codec("pq", observations, 4, seed=1))
    assert codec_hash(codec) != codec_hash(fit_codec("pq", observations, 8))


def test_damaged_files_are_input_errors(tmp_path):
    codec = fit_codec("pq", make_observations(300, 2), 4)
    data = bytearray(codec_to_bytes(codec))
    path = tmp_path / "codec.safetensors"
    with pytest.raises(InputError, match="no such file"):
        read_codec(path)
    for broken in (b"", b"no codec", bytes(data[:100]), safetensors.numpy.save({})):
        path.write_bytes(broken)
        with pytest.raises(InputError, match="not a codec file"):
            read_codec(path)
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="hash"):
        read_codec(path)


def test_join_keeps_points_and_images_apart():
    parts = [make_observations(5, 2), make_observations(7, 3, seed=1)]
    joined = stage.join_observations(parts)
    assert joined.num_points == 12 and len(joined) == 31
    np.testing.assert_array_equal(joined.point_index[:10], parts[0].point_index)
    np.testing.assert_array_equal(joined.point_index[10:], parts[1].point_index + 5)
    np.testing.assert_array_equal(joined.image_index[10:], parts[1].image_index + 2)
    with pytest.raises(InputError, match="dimension"):
        stage.join_observations([parts[0], make_observations(5, 2, dim=16)])


def test_main_on_two_real_maps(fountain, castle, tmp_path):
    output = tmp_path / "codec.safetensors"
    models = [fountain / "sfm", castle / "sfm"]
    files = [fountain / "feats-superpoint.h5", castle / "feats-superpoint.h5"]
    options = {"steps": 3, "bits": [8, 8]}
    stage.main(
        models, files, output, code_bytes=2, codec_options=options, threads=1, progress=False
    )
    codec = read_codec(output)
    assert (codec.name, codec.code_size, codec.dim) == ("drqed", 2, 256)
    header = json.loads(safetensors_metadata(output)["hloc_dpqed_codec"])
    assert header["made"]["observations"] == [6761, 22929]
    with pytest.raises(InputError, match="exists already"):
        stage.main(models, files, output)
    with pytest.raises(InputError, match="feature file"):
        stage.main([*models, models[0]], files, tmp_path / "other")
    with pytest.raises(InputError, match="--code_targets median: expected one of mean, sharpened"):
        stage.main(models, files, tmp_path / "other", code_targets="median")


def test_maps_share_a_codec_file(fountain, tmp_path):
    codec_file = tmp_path / "shared.safetensors"
    model, features = fountain / "sfm", fountain / "feats-superpoint.h5"
    common = ["--reference_sfm", str(model), "--features", str(features)]
    fit = ["fit-codec", *common, "--output", str(codec_file), "--codec", "pq", "--code_bytes", "8"]
    assert cli.main(fit) == 0
    own, sharing = tmp_path / "own.dpqed", tmp_path / "sharing.dpqed"
    compress.main(model, features, own, codec="pq", code_bytes=8, selector="all", progress=False)
    arguments = ["compress", *common, "--selector", "all"]
    given = ["--output", str(sharing), "--codec_file", str(codec_file)]
    assert cli.main([*arguments, *given]) == 0
    digest = codec_hash(read_codec(codec_file))
    assert sharing.stat().st_size < own.stat().st_size - 100_000
    with pytest.raises(InputError, match=f"codec-{digest[:16]}.safetensors beside it"):
        read_map(sharing)
    given, alone = read_map(sharing, codec_file), read_map(own)
    assert given.codec_hash == digest and alone.codec_hash is None
    np.testing.assert_array_equal(given.codes, alone.codes)
    codec_file.rename(tmp_path / codec_file_name(digest))
    found = read_map(sharing)
    np.testing.assert_array_equal(found.codec.decode(found.codes), alone.codec.decode(alone.codes))
    other = tmp_path / "other.safetensors"
    other.write_bytes(codec_to_bytes(fit_codec("pq", make_observations(300, 2, dim=256), 8)))
    with pytest.raises(InputError, match="the map was made with codec"):
        read_map(sharing, other)
    assert cli.main(["info", str(sharing), "--json"]) == 0


def test_a_codec_file_excludes_a_codec(fountain, tmp_path):
    codec_file = tmp_path / "codec.safetensors"
    codec_file.write_bytes(codec_to_bytes(fit_codec("pq", make_observations(300, 2), 4)))
    model, features = fountain / "sfm", fountain / "feats-superpoint.h5"
    output = tmp_path / "map.dpqed"
    with pytest.raises(InputError, match="excludes"):
        compress.main(model, features, output, codec="pq", codec_file=codec_file)
    with pytest.raises(InputError, match="32 dimensions"):
        compress.main(model, features, output, codec_file=codec_file, progress=False)


def safetensors_metadata(path):
    with safetensors.safe_open(str(path), framework="numpy") as file:
        return file.metadata()


@pytest.mark.parametrize("trials", TRIALS)
def test_killed_at_any_moment(tmp_path, trials):
    """The file is the old one or the new one, and a fit continues from its last saved step."""
    scene = make_scene(tmp_path / "scene", num_points=60, dim=32)
    output = tmp_path / "out" / "codec.safetensors"
    output.parent.mkdir()
    argv = ["fit-codec", "--reference_sfm", str(scene.sfm), "--features", str(scene.features),
            "--output", str(output), "--code_bytes", "2", "--overwrite",
            "--threads", "1"]  # fmt: skip
    seen = killed(argv=argv, output=str(output), old="old", trials=trials)
    assert set(seen["seen"]) <= {"old", "new"}
    assert seen["last_status"] == 0 and seen["last_is_new"] and not seen["part_is_left"]
    if trials >= 50:
        assert seen["continued"] > 0
