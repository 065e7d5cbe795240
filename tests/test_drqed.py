import numpy as np
import pytest
from codec_helpers import make_observations, top1

from hloc_dpqed.codecs import fit_codec, load_codec
from hloc_dpqed.codecs.packing import pack_bits, unpack_bits
from hloc_dpqed.codecs.plan import plan_codebooks, planned_bytes, split_bits
from hloc_dpqed.entropy.arrays import encode_arrays
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.model import read_observations, read_reference

FAST = {"steps": 20, "batch": 128, "refresh": 10}


@pytest.fixture(scope="module")
def fountain_observations(fountain):
    reference = read_reference(fountain / "sfm")
    return read_observations(reference, fountain / "feats-superpoint.h5")


@pytest.mark.parametrize("bits", [[8, 8], [11, 11, 10], [16], [4] * 6, [3, 5], [13, 11, 16]])
def test_bit_packing(bits):
    rng = np.random.default_rng(0)
    indices = np.stack([rng.integers(1 << b, size=99) for b in bits], 1)
    codes = pack_bits(indices, bits)
    assert codes.dtype == np.uint8 and codes.shape == (99, sum(bits) // 8)
    np.testing.assert_array_equal(unpack_bits(codes, bits), indices)
    # Independent of the implementation: the code as one little-endian number.
    number = sum(int(v) << sum(bits[:m]) for m, v in enumerate(indices[0]))
    assert codes[0].tobytes() == number.to_bytes(sum(bits) // 8, "little")


def test_split_bits():
    assert split_bits(32, 11) == (11, 11, 10)
    assert split_bits(16, 12) == (12, 4)
    assert split_bits(16, 8) == (8, 8)


@pytest.mark.parametrize("code_bytes", [1, 2, 4, 8])
def test_the_plan_keeps_its_budget(code_bytes):
    rows = make_observations(3000, 1, dim=64).descriptors.astype(np.float32)
    for budget in (None, 64_000, 16_000):
        plan = plan_codebooks(rows, code_bytes, budget)
        assert sum(plan.bits) == 8 * code_bytes
        assert plan.budget == (budget or code_bytes * 256 * 64 * 2)
        assert planned_bytes(plan.bits, plan.latent, 64, 1.2) <= plan.budget
        assert [len(book) for book in plan.books] == [1 << b for b in plan.bits]
        assert plan.basis.shape == (64, plan.latent)


def test_the_plan_leaves_out_what_the_codes_lose_anyway():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2000, 32)) * np.where(np.arange(32) < 16, 1.0, 0.1)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    assert plan_codebooks(rows, 1, 10**6).latent == 16  # 1 % in the other dimensions
    rows[:, 16:] *= 6
    assert plan_codebooks(rows, 1, 10**6).latent > 16


@pytest.mark.parametrize("budget", [8_000, 30_000])
def test_what_is_stored_is_within_the_budget_and_uses_it(budget):
    observations = make_observations(3000, 2)
    codec = fit_codec("drqed", observations, 4, codec_budget_bytes=budget, **FAST)
    tensors = codec.tensors()
    stored = len(encode_arrays([tensors[name] for name in sorted(tensors)]))
    assert 0.9 * budget <= stored <= budget


def test_budgets_that_hold_nothing_are_input_errors():
    with pytest.raises(InputError, match="fits 100 bytes"):
        fit_codec("drqed", make_observations(300, 2), 4, codec_budget_bytes=100)


def test_training_helps_on_a_real_scene(fountain_observations):
    options = {"bits": [8, 8], "batch": 512}
    start = fit_codec("drqed", fountain_observations, 2, steps=1, learning_rate=0.0, **options)
    trained = fit_codec("drqed", fountain_observations, 2, steps=60, **options)
    missed = [1 - top1(codec, fountain_observations) for codec in (start, trained)]
    assert missed[1] < 0.85 * missed[0]


def test_decoding_follows_the_definition():
    observations = make_observations(400, 3)
    codec = fit_codec("drqed", observations, 2, **FAST)
    codes = codec.encode_points(observations)
    arrays = dict(codec.tensors())
    columns, scales = arrays["codebooks"].astype(np.float32), arrays["codebooks_scale"]
    basis = arrays["basis"] * arrays["basis_scale"]
    indices = unpack_bits(codes, codec.bits)
    latent = basis.shape[1]
    first = np.cumsum([0, *codec.config()["sizes"]])
    z = np.zeros((len(codes), latent), np.float32)
    for row, index in enumerate(indices):
        for m, i in enumerate(index):
            for k in range(latent):  # dimension k is in column k // (L / 8)
                group, place = divmod(k, latent // 8)
                z[row, k] += columns[(first[m] + i) * (latent // 8) + place, group] * scales[m]
    y = z @ basis.T
    expected = y / np.linalg.norm(y, axis=1, keepdims=True)
    np.testing.assert_allclose(codec.decode(codes), expected, atol=1e-5)


def test_same_seed_same_bytes_and_storing_changes_nothing():
    observations = make_observations(500, 3)
    first, again = (fit_codec("drqed", observations, 4, **FAST) for _ in range(2))
    tensors = first.tensors()
    assert all(tensors[k].tobytes() == again.tensors()[k].tobytes() for k in tensors)
    loaded = load_codec("drqed", tensors, first.config())
    codes = first.encode_points(observations)
    np.testing.assert_array_equal(codes, loaded.encode_points(observations))
    np.testing.assert_array_equal(first.decode(codes), loaded.decode(codes))


@pytest.mark.parametrize("count", [1, 10, 255])
@pytest.mark.parametrize("code_bytes", [1, 4])
@pytest.mark.filterwarnings("ignore:codec drqed")
def test_small_maps_do_not_crash(count, code_bytes):
    observations = make_observations(count, 1)
    codec = fit_codec("drqed", observations, code_bytes, codec_budget_bytes=100_000, **FAST)
    decoded = codec.decode(codec.encode_points(observations))
    assert decoded.shape == (count, 32) and np.isfinite(decoded).all()
    assert np.isfinite(codec.decode(np.full((3, code_bytes), 255, np.uint8))).all()


def test_a_map_without_observations_is_an_input_error():
    with pytest.raises(InputError, match="no observation"):
        fit_codec("drqed", make_observations(0, 1), 4)


def test_observations_may_choose_the_codes():
    observations = make_observations(500, 3)
    codec = fit_codec("drqed", observations, 2, reencode=True, **FAST)
    loaded = load_codec("drqed", codec.tensors(), codec.config())
    chosen = codec.encode_points(observations)
    np.testing.assert_array_equal(chosen, loaded.encode_points(observations))
    plain = load_codec("drqed", codec.tensors(), codec.config() | {"reencode": False})
    assert (chosen != plain.encode_points(observations)).any()


def test_points_without_observations_get_a_code():
    full = make_observations(400, 2)
    observations = full.subset(np.arange(300), full.point_index[:300], 400)
    codec = fit_codec("drqed", observations, 2, **FAST)
    assert codec.encode_points(observations).shape == (400, 2)


@pytest.mark.parametrize("options", [{"bits": [8, 7]}, {"bits": [17, 15]}, {"unknown": 1}])
def test_wrong_options(options):
    with pytest.raises((InputError, TypeError)):
        fit_codec("drqed", make_observations(300, 2), 4, **options)


def test_damaged_tensors_are_input_errors():
    codec = fit_codec("drqed", make_observations(300, 2), 4, **FAST)
    for name in codec.tensors():
        tensors = codec.tensors()
        del tensors[name]
        with pytest.raises(InputError):
            load_codec("drqed", tensors, codec.config())
    with pytest.raises(InputError, match="w1"):
        more = {**codec.tensors(), "w1": np.zeros((2, 8), np.int8)}
        load_codec("drqed", more, codec.config())
    for change in ({"bits": None}, {"bits": [8]}, {"dim": 31}):
        with pytest.raises(InputError):
            load_codec("drqed", codec.tensors(), codec.config() | change)


def test_results_are_on_the_cpu():
    codec = fit_codec("drqed", make_observations(300, 2), 4, device="cpu", **FAST)
    assert isinstance(codec.basis, np.ndarray)


@pytest.mark.parametrize("used, bits", [(12, None), (12, [7, 5]), (9, None)])
def test_bits_that_are_not_used_cost_nothing(used, bits):
    observations = make_observations(3000, 2, dim=32)
    codec = fit_codec("drqed", observations, 2, used_bits=used, bits=bits, **FAST)
    assert sum(codec.bits) == 16 and sum(codec.bits[:-1]) == used
    codes = codec.encode_points(observations)
    assert codes.shape == (3000, 2) and (codes[:, 1] < 1 << used - 8).all()
    # As many bits as are used, and a table of the entropy coder.
    assert len(encode_arrays([codes])) < 3000 * used / 8 + 400
    loaded = load_codec("drqed", codec.tensors(), codec.config())
    np.testing.assert_array_equal(loaded.decode(codes), codec.decode(codes))
    assert top1(codec, observations) > 0.1


@pytest.mark.parametrize("used", [7, 17])
def test_used_bits_must_reach_the_last_byte(used):
    with pytest.raises(InputError, match=f"used_bits {used}: expected 9 to 16"):
        fit_codec("drqed", make_observations(100, 2, dim=32), 2, used_bits=used, **FAST)
