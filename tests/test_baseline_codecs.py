import faiss
import numpy as np
import pytest
from codec_helpers import make_observations

from hloc_dpqed.codecs import CODECS, fit_codec, load_codec
from hloc_dpqed.codecs.scalar import _hadamard_rotation
from hloc_dpqed.errors import InputError
from hloc_dpqed.scene.reference import mean_descriptors, normalise_rows

# Codecs of faiss with the code size that is asked for: name, bytes, options.
SIZED = [
    ("pq", 4, {}),
    ("pq", 2, {"bits": 4}),
    ("pq", 4, {"entries": "int8"}),
    ("opq", 4, {}),
    ("rq", 2, {}),
    ("rq", 2, {"bits": 4, "entries": "int8"}),
    ("lsq", 2, {"bits": 4}),
    ("lsq", 2, {}),
    ("prq", 2, {"bits": 4}),
    ("pca", 4, {}),
    ("pca", 4, {"bits": 8}),
]
FIXED = [("none", 64), ("sq8", 32), ("sign", 4), ("rabitq", 12)]


@pytest.fixture(scope="module")
def observations():
    return make_observations(400, 3)


@pytest.mark.parametrize(("name", "code_bytes", "options"), SIZED)
def test_sizes_and_round_trip(observations, name, code_bytes, options):
    codec = fit_codec(name, observations, code_bytes, **options)
    codes = codec.encode(observations.descriptors)
    assert codes.dtype == np.uint8 and codes.shape == (1200, codec.code_size)
    assert codec.code_size == code_bytes
    decoded = codec.decode(codes)
    assert decoded.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
    again = load_codec(name, codec.tensors(), codec.config())
    np.testing.assert_array_equal(codes, again.encode(observations.descriptors))
    np.testing.assert_array_equal(decoded, again.decode(codes))
    # Better than a constant: the mean's similarity to the descriptors.
    x = observations.descriptors.astype(np.float32)
    similarity = (decoded * x).sum(1).mean()
    assert similarity > (x @ normalise_rows(x.mean(0, keepdims=True)).T).mean() + 0.05


@pytest.mark.parametrize(("name", "size"), FIXED)
def test_codecs_of_a_fixed_size(observations, name, size):
    codec = fit_codec(name, observations, 4)
    x = observations.descriptors.astype(np.float32)
    codes = codec.encode(x)
    assert codes.shape == (1200, size) == (1200, codec.code_size)
    decoded = codec.decode(codes)
    np.testing.assert_allclose(np.linalg.norm(decoded, axis=1), 1, atol=1e-5)
    assert (decoded * x).sum(1).mean() > (0.99 if name in ("none", "sq8") else 0.7)
    again = load_codec(name, codec.tensors(), codec.config())
    np.testing.assert_array_equal(decoded, again.decode(codes))


def test_pq_encodes_as_faiss(observations):
    x = observations.descriptors.astype(np.float32)
    codec = fit_codec("pq", observations, 4)
    index = faiss.IndexPQ(32, 4, 8)
    faiss.copy_array_to_vector(codec.centroids.ravel(), index.pq.centroids)
    index.is_trained = True
    np.testing.assert_array_equal(codec.encode(x), index.sa_encode(x))


def test_sign_by_hand():
    codec = CODECS["sign"](10)
    x = np.array([[1, -1, 1, -1, -1, -1, -1, 2, 0.5, -0.5]], np.float32)
    codes = codec.encode(x)
    assert codes.tolist() == [[0b10100001, 0b10000000]]
    np.testing.assert_allclose(codec.decode(codes), np.sign(x) / np.sqrt(10), rtol=1e-6)


@pytest.mark.parametrize("dim", [32, 48, 64, 100])
def test_rotation_is_orthogonal(dim):
    rotation = _hadamard_rotation(dim, 3)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(dim), atol=1e-5)
    assert np.abs(rotation).max() < 0.9


@pytest.mark.parametrize("name", sorted(CODECS))
@pytest.mark.parametrize("count", [0, 1, 10, 255])
@pytest.mark.filterwarnings("ignore:codec")
def test_small_maps(name, count):
    observations = make_observations(count, 1)
    options = {"steps": 5} if name in ("dpqed", "drqed") else {}
    if name == "drqed":
        options["codec_budget_bytes"] = 100_000
    if count == 0 and name not in ("none", "sign"):
        with pytest.raises(InputError, match="no observation"):
            fit_codec(name, observations, 4, **options)
        return
    codec = fit_codec(name, observations, 4, **options)
    decoded = codec.decode(codec.encode_points(observations))
    assert decoded.shape == (count, 32) and np.isfinite(decoded).all()
    if name in ("pq", "opq", "rq", "lsq", "prq") and count:
        # Every row is a centroid, so nothing is lost but the rounding.
        x = observations.descriptors.astype(np.float32)
        np.testing.assert_allclose((decoded * x).sum(1), 1, atol=2e-3)


@pytest.mark.parametrize(("name", "code_bytes"), [("none", 0), ("pq", 4), ("drqed", 2)])
@pytest.mark.parametrize("block", [7, 100, 1 << 16])
def test_points_are_encoded_a_block_at_a_time(observations, monkeypatch, name, code_bytes, block):
    # Observations in any order, and points that nobody saw at both ends and between.
    rows = np.random.default_rng(0).permutation(len(observations))
    rows = rows[~np.isin(observations.point_index[rows], [0, 5, 6, 7, 200, 399])]
    observations = observations.subset(rows, observations.point_index[rows], 400)
    options = {"steps": 2} if name == "drqed" else {}
    codec = fit_codec(name, observations, code_bytes, **options)
    monkeypatch.setattr("hloc_dpqed.codecs.base.ENCODE_POINTS", block)
    codes = codec.encode_points(observations)
    np.testing.assert_array_equal(codes, codec.encode(mean_descriptors(observations)))


@pytest.mark.parametrize(("name", "code_bytes", "options"), SIZED)
def test_damage_is_an_input_error(observations, name, code_bytes, options):
    codec = fit_codec(name, make_observations(20, 1), code_bytes, **options)
    for key in codec.tensors():
        tensors = codec.tensors()
        del tensors[key]
        with pytest.raises(InputError):
            load_codec(name, tensors, codec.config())
        tensors = codec.tensors()
        tensors[key] = tensors[key][None]
        with pytest.raises(InputError):
            load_codec(name, tensors, codec.config())


@pytest.mark.parametrize(
    ("name", "code_bytes", "options"),
    [
        ("pq", 5, {}),
        ("pq", 4, {"bits": 3}),
        ("rq", 0, {}),
        ("rq", 2, {"entries": "int3"}),
        ("prq", 3, {}),
        ("pca", 40, {"bits": 8}),
        ("pca", 4, {"bits": 2}),
    ],
)
def test_impossible_options(observations, name, code_bytes, options):
    with pytest.raises(InputError):
        fit_codec(name, observations, code_bytes, **options)
