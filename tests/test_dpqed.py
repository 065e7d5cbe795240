import numpy as np
import pytest
import torch
from codec_helpers import make_observations, top1

from hloc_dpqed.codecs import fit_codec, load_codec
from hloc_dpqed.codecs.packing import unpack_indices
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.model import read_observations, read_reference

FAST = {"steps": 20, "batch": 128, "hidden": 16}


def test_the_lower_half_of_a_byte_comes_first():
    codes = np.array([[0x21, 0x43]], np.uint8)
    np.testing.assert_array_equal(unpack_indices(codes, 4), [[1, 2, 3, 4]])
    np.testing.assert_array_equal(unpack_indices(codes, 8), codes)


def test_training_beats_its_start_on_a_real_scene(fountain):
    observations = read_observations(
        read_reference(fountain / "sfm"), fountain / "feats-superpoint.h5"
    )
    start = fit_codec("dpqed", observations, 2, steps=1, learning_rate=0.0, decoder="none")
    trained = fit_codec("dpqed", observations, 2, steps=60, batch=512, learning_rate=4e-3)
    assert top1(trained, observations) > 1.3 * top1(start, observations)


@pytest.mark.parametrize("decoder", ["none", "linear", "mlp"])
@pytest.mark.parametrize("bits", [4, 8])
def test_encoding_is_nearest_centroid_and_decoding_follows_the_definition(decoder, bits):
    observations = make_observations(400, 3)
    codec = fit_codec("dpqed", observations, 2, decoder=decoder, bits=bits, **FAST)
    x = observations.descriptors[:100].astype(np.float32)
    codes = codec.encode(x)
    assert codes.shape == (100, codec.code_size) == (100, 2)
    tensors = codec.tensors()
    books = tensors["codebooks"].astype(np.float32)
    m, k, sub = books.shape
    assert (m, k, m * sub) == (16 // bits, 1 << bits, 32)
    distances = ((x.reshape(-1, m, 1, sub) - books[None]) ** 2).sum(-1)
    indices = distances.argmin(2)
    np.testing.assert_array_equal(unpack_indices(codes, bits), indices)
    q = np.concatenate([books[i, indices[:, i]] for i in range(m)], 1)
    if decoder != "none":
        h = q @ tensors["decoder.0.weight"].astype(np.float32).T + tensors["decoder.0.bias"]
        if decoder == "mlp":
            h = np.maximum(h, 0) @ tensors["decoder.1.weight"].astype(np.float32).T
            h = h + tensors["decoder.1.bias"]
        q = q + h
    expected = q / np.linalg.norm(q, axis=1, keepdims=True)
    decoded = codec.decode(codes)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(decoded, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("assignment", ["straight_through", "soft", "rotation"])
@pytest.mark.parametrize(
    "losses", ["reconstruction", "triplet_original", "triplet_dequantized", "both"]
)
def test_every_ablation_fits(assignment, losses):
    observations = make_observations(300, 3)
    codec = fit_codec("dpqed", observations, 2, assignment=assignment, losses=losses, **FAST)
    assert np.isfinite(codec.decode(codec.encode_points(observations))).all()


def test_same_seed_same_bytes_and_other_seed_other_bytes():
    observations = make_observations(300, 3)
    first, again, other = (
        fit_codec("dpqed", observations, 2, seed=seed, **FAST).tensors() for seed in (0, 0, 1)
    )
    assert all(first[k].tobytes() == again[k].tobytes() for k in first)
    assert first["codebooks"].tobytes() != other["codebooks"].tobytes()


def test_storing_changes_nothing():
    observations = make_observations(300, 3)
    codec = fit_codec("dpqed", observations, 4, **FAST)
    again = load_codec("dpqed", codec.tensors(), codec.config())
    codes = codec.encode_points(observations)
    np.testing.assert_array_equal(codes, again.encode_points(observations))
    np.testing.assert_array_equal(codec.decode(codes), again.decode(codes))
    assert all(v.dtype == np.float16 for v in codec.tensors().values())


@pytest.mark.parametrize("count", [1, 10, 255])
def test_small_maps_get_fewer_centroids_and_a_warning(count):
    observations = make_observations(count, 1)
    with pytest.warns(UserWarning, match=f"{count} descriptors for 256"):
        codec = fit_codec("dpqed", observations, 4, **FAST)
    assert codec.tensors()["codebooks"].shape[1] == count
    decoded = codec.decode(codec.encode_points(observations))
    assert decoded.shape == (count, 32) and np.isfinite(decoded).all()


def test_a_map_without_observations_is_an_input_error():
    with pytest.raises(InputError, match="no observation"):
        fit_codec("dpqed", make_observations(0, 1), 4)


@pytest.mark.parametrize(
    ("code_bytes", "options"),
    [
        (3, {}),
        (0, {}),
        (4, {"bits": 5}),
        (4, {"losses": "none"}),
        (4, {"decoder": "deep"}),
        (4, {"assignment": "magic"}),
    ],
)
def test_wrong_options_are_input_errors(code_bytes, options):
    with pytest.raises(InputError):
        fit_codec("dpqed", make_observations(300, 2), code_bytes, **options)


def test_damaged_tensors_are_input_errors():
    codec = fit_codec("dpqed", make_observations(300, 2), 4, **FAST)
    for name in codec.tensors():
        tensors = codec.tensors()
        del tensors[name]
        with pytest.raises(InputError):
            load_codec("dpqed", tensors, codec.config())
        tensors = codec.tensors()
        tensors[name] = np.full_like(tensors[name], np.nan)
        with pytest.raises(InputError):
            load_codec("dpqed", tensors, codec.config())


def test_codes_beyond_the_last_centroid_do_not_crash():
    with pytest.warns(UserWarning):
        codec = fit_codec("dpqed", make_observations(10, 1), 4, **FAST)
    decoded = codec.decode(np.full((3, 4), 255, np.uint8))
    assert np.isfinite(decoded).all()


def test_training_on_a_device_of_torch_takes_its_name():
    codec = fit_codec("dpqed", make_observations(300, 2), 4, device="cpu", **FAST)
    assert codec.codebooks.device == torch.device("cpu")
