"""hloc's feature files: what is read, and what is refused."""

import h5py
import numpy as np
import pytest

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile, feature_kind, open_hdf5, read_global_descriptors

COUNT, DIM = 5, 8


def good(**changes) -> dict:
    """Datasets of an image; a change of None leaves one out."""
    rng = np.random.default_rng(0)
    datasets = {
        "keypoints": rng.uniform(0, 100, (COUNT, 2)).astype(np.float32),
        "descriptors": rng.standard_normal((DIM, COUNT)).astype(np.float16),
        "scores": rng.uniform(0, 1, COUNT).astype(np.float16),
        "image_size": np.array([640, 480]),
    } | changes
    return {k: v for k, v in datasets.items() if v is not None}


def written(path, images):
    with h5py.File(path, "w", libver="latest") as file:
        for name, datasets in images.items():
            group = file.require_group(name)
            for key, value in datasets.items():
                group[key] = value
    return path


def read(path, name="a/1.jpg"):
    with FeatureFile(path) as file:
        return file.read(name)


def replaced(array, index, value):
    array = array.copy()
    array[index] = value
    return array


def test_reads_what_is_there(tmp_path):
    datasets = good()
    image = read(written(tmp_path / "f.h5", {"a/1.jpg": datasets}))
    np.testing.assert_array_equal(image.keypoints, datasets["keypoints"])
    wide = datasets["descriptors"].astype(np.float64).T
    expected = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    np.testing.assert_allclose(image.descriptors, expected, atol=1e-6)
    np.testing.assert_array_equal(image.scores, datasets["scores"].astype(np.float32))
    assert image.image_size == (640, 480)
    assert image.descriptors.dtype == image.keypoints.dtype == image.scores.dtype == np.float32


@pytest.mark.parametrize("name", ["1.jpg", "a/b/c.jpg", "with space/1 .jpg", "Straße/夜.jpg"])
def test_names(tmp_path, name):
    path = written(tmp_path / "f.h5", {name: good()})
    assert len(read(path, name).keypoints) == COUNT
    with FeatureFile(path) as file:
        assert name in file and "other.jpg" not in file
        file.check_names([name])
        with pytest.raises(InputError, match=r"2 of 3 images .* the first is 'x'"):
            file.check_names(["x", name, "y"])


@pytest.mark.parametrize(
    "changes",
    [
        {"scores": None},
        {"image_size": None},
        {"keypoints": np.ones((COUNT, 4), np.float64)},  # scale and orientation follow
        {"descriptors": np.eye(DIM, COUNT, dtype=np.uint8)},
        {"descriptors": np.eye(DIM, COUNT)},
        {"scores": np.arange(COUNT)},
    ],
)
def test_valid_variants(tmp_path, changes):
    image = read(written(tmp_path / "f.h5", {"a/1.jpg": good(**changes)}))
    assert image.keypoints.shape == (COUNT, 2)
    np.testing.assert_allclose(np.linalg.norm(image.descriptors, axis=1), 1, atol=1e-6)
    if "scores" in changes and changes["scores"] is None:
        assert (image.scores == 1).all()


def test_an_image_without_keypoints(tmp_path):
    empty = {"keypoints": np.zeros((0, 2)), "descriptors": np.zeros((DIM, 0))}
    image = read(written(tmp_path / "f.h5", {"a/1.jpg": empty}))
    assert image.keypoints.shape == (0, 2) and image.descriptors.shape == (0, DIM)


DESCRIPTORS = good()["descriptors"]
KEYPOINTS = good()["keypoints"]
BAD = {
    "no keypoints": ({"keypoints": None}, "dataset 'keypoints' is missing"),
    "no descriptors": ({"descriptors": None}, "dataset 'descriptors' is missing"),
    "flat keypoints": ({"keypoints": np.zeros(COUNT)}, r"keypoints have shape \(5,\)"),
    "keypoints of one column": ({"keypoints": np.zeros((COUNT, 1))}, "keypoints have shape"),
    "a scalar": ({"keypoints": 3.0}, "keypoints have shape"),
    "transposed": ({"descriptors": DESCRIPTORS.T}, r"have shape \(5, 8\), expected \(D, 5\)"),
    "transposed, told": ({"descriptors": DESCRIPTORS.T}, r"\(D, 5\): they are transposed"),
    "transposed keypoints": (
        {
            "keypoints": np.ones((2, 9)),
            "descriptors": np.ones((DIM, 9)),
            "scores": np.ones(9),
        },
        r"keypoints have shape \(2, 9\), expected \(N, 2\): they are transposed",
    ),
    "binary": ({"descriptors": np.ones((32, COUNT), np.uint8)}, "are binary, as of ORB or BRIEF"),
    "too few": ({"descriptors": DESCRIPTORS[:, 1:]}, r"have shape \(8, 4\), expected \(D, 5\)"),
    "flat descriptors": ({"descriptors": DESCRIPTORS[0]}, "descriptors have shape"),
    "NaN": ({"descriptors": replaced(DESCRIPTORS, (2, 1), np.nan)}, "descriptors are not finite"),
    "infinity": (
        {"descriptors": replaced(DESCRIPTORS, (2, 1), np.inf)},
        "descriptors are not finite",
    ),
    "zero length": (
        {"descriptors": replaced(DESCRIPTORS, (slice(None), 3), 0)},
        "descriptor 3 has zero length",
    ),
    "NaN keypoint": ({"keypoints": replaced(KEYPOINTS, 0, np.nan)}, "keypoints are not finite"),
    "NaN score": ({"scores": np.full(COUNT, np.nan)}, "scores are not finite"),
    "scores of another length": ({"scores": np.ones(COUNT + 1)}, r"scores have shape \(6,\)"),
    "text": ({"descriptors": np.full((DIM, COUNT), b"x")}, "descriptors does not hold numbers"),
    "odd image_size": ({"image_size": np.array([640])}, r"image_size has shape \(1,\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_datasets(tmp_path, case):
    changes, told = BAD[case]
    path = written(tmp_path / "f.h5", {"a/1.jpg": good(**changes)})
    with pytest.raises(InputError, match=told) as error:
        read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: image 'a/1.jpg'") and "\n" not in message


def test_missing_images_and_groups_in_place_of_datasets(tmp_path):
    path = written(tmp_path / "f.h5", {"a/1.jpg": good(), "b.jpg/keypoints/x": good()})
    with pytest.raises(InputError, match=r"image 'a/2.jpg': not in the feature file"):
        read(path, "a/2.jpg")
    with pytest.raises(InputError, match=r"image 'b.jpg': dataset 'keypoints' is missing"):
        read(path, "b.jpg")
    with pytest.raises(InputError, match="not in the feature file"):
        read(path, "a/1.jpg/keypoints")


def test_files_that_are_not_hdf5(tmp_path):
    (tmp_path / "text.h5").write_text("keypoints\n" * 100)
    (tmp_path / "empty.h5").write_bytes(b"")
    for path, told in [
        (tmp_path / "absent.h5", "no such file"),
        (tmp_path, "no such file"),
        (tmp_path / "text.h5", "not a readable HDF5 file"),
        (tmp_path / "empty.h5", "not a readable HDF5 file"),
    ]:
        with pytest.raises(InputError, match=told) as error:
            open_hdf5(path)
        assert "\n" not in str(error.value)


def test_damage_is_told_or_harmless(tmp_path):
    """Truncations and changed bytes: features, or one line; never another exception."""
    rng = np.random.default_rng(0)
    path = written(tmp_path / "f.h5", {f"{i}.jpg": good() for i in range(3)})
    data = path.read_bytes()
    cut = tmp_path / "damaged.h5"
    told = 0
    for trial in range(150):
        damaged = bytearray(data)
        if trial % 3 == 0:
            damaged = damaged[: int(rng.integers(len(data)))]
        else:
            for _ in range(1 + trial % 8):
                damaged[int(rng.integers(len(data)))] = int(rng.integers(256))
        cut.write_bytes(damaged)
        try:
            for i in range(3):
                read(cut, f"{i}.jpg")
        except InputError as error:
            told += 1
            assert "\n" not in str(error)
    assert told > 50  # every truncation at least


def test_global_descriptors(tmp_path):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((3, 6)).astype(np.float32)
    names = ["b.jpg", "a.jpg", "c/d.jpg"]
    images = {n: {"global_descriptor": r} for n, r in zip(names, rows, strict=True)}
    described = read_global_descriptors(written(tmp_path / "g.h5", images), names)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(described, expected, atol=1e-6)
    assert described.dtype == np.float32
    assert read_global_descriptors(tmp_path / "g.h5", []).shape == (0, 0)


@pytest.mark.parametrize(
    ("second", "told"),
    [
        (None, "'b.jpg' has no global_descriptor"),
        ({}, "'b.jpg' has no global_descriptor"),
        ({"global_descriptor": np.ones(7)}, "has 7 dimensions, expected 6"),
        ({"global_descriptor": np.zeros(6)}, "zero or not finite"),
        ({"global_descriptor": np.full(6, np.nan)}, "zero or not finite"),
        ({"global_descriptor": np.full(6, b"x")}, "does not hold numbers"),
    ],
)
def test_bad_global_descriptors(tmp_path, second, told):
    images = {"a.jpg": {"global_descriptor": np.ones(6)}}
    if second is not None:
        images["b.jpg"] = second
    path = written(tmp_path / "g.h5", images)
    with pytest.raises(InputError, match=told) as error:
        read_global_descriptors(path, ["a.jpg", "b.jpg"])
    assert "\n" not in str(error.value)


def test_the_kind_of_features(tmp_path):
    path = written(tmp_path / "feats-superpoint-n4096-r1024.h5", {"a/1.jpg": good()})
    assert feature_kind(path) == {"name": "feats-superpoint-n4096-r1024"}
    with h5py.File(path, "a") as file:
        file.attrs["extractor"] = "superpoint"
    assert feature_kind(path)["extractor"] == "superpoint"


def test_image_sizes_alone(tmp_path):
    path = written(
        tmp_path / "f.h5",
        {
            "a.jpg": {"image_size": np.array([640, 480])},
            "none.jpg": {"scores": np.zeros(0)},
            "words.jpg": {"image_size": np.array([b"wide", b"high"])},
            "three.jpg": {"image_size": np.array([1, 2, 3])},
        },
    )
    with FeatureFile(path) as file:
        assert file.image_size("a.jpg") == (640, 480)
        assert file.image_size("none.jpg") is None and file.image_size("absent.jpg") is None
        with pytest.raises(InputError, match=r"'words.jpg': image_size does not hold numbers"):
            file.image_size("words.jpg")
        with pytest.raises(InputError, match=r"'three.jpg': image_size has shape \(3,\)"):
            file.image_size("three.jpg")
