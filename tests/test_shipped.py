"""The codecs that come with the package: never changed, found by name and by hash."""

import itertools
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors
from learned_weights import weights_folder
from PIL import Image
from synthetic import make_scene

from hloc_dpqed import cli, compress, info, prune
from hloc_dpqed.codecs.file import codec_hash, codec_made, read_codec
from hloc_dpqed.codecs.shipped import (
    PRETRAINED,
    SIMILARITY,
    check_described,
    shipped_codec,
    shipped_codecs,
    shipped_file,
    shipped_for,
)
from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile import read_map
from hloc_dpqed.scene.reference import Observations, normalise_rows

# Of each codec its hash, its bytes, and of decoded codes the first components in millionths: a map
# of today must read the same for ever.
GOLDEN = json.loads((PRETRAINED.parents[2] / "tests" / "data" / "shipped_codecs.json").read_text())
FILES = {p.name: p for p in PRETRAINED.glob("*.safetensors")}
OF_128 = ("aliked", "disk", "sift")


def golden_codes(size: int) -> np.ndarray:
    """(5, size) uint8: the same for ever."""
    return (np.arange(5 * size).reshape(5, size) * 37 + 11).astype(np.uint8)


def test_every_file_has_golden_decodes():
    assert {name.split(".")[0] for name in FILES} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_codecs_are_never_changed(name):
    expected = GOLDEN[name]
    path = shipped_codecs()[name]
    codec = read_codec(path, expected["hash"])
    assert path.name == f"{name}.{expected['hash'][:16]}.safetensors"
    assert shipped_file(expected["hash"]) == path
    assert path.stat().st_size <= 3_000_000
    assert codec_hash(codec) == expected["hash"] and codec.code_size == 8
    for size, rows in expected["decoded"].items():
        decoded = codec.head(int(size)).decode(golden_codes(8)[:, : int(size)])
        np.testing.assert_allclose(decoded[:, :4], np.array(rows) / 1e6, atol=2e-6)


@pytest.mark.parametrize("name", GOLDEN)
def test_files_tell_how_they_were_made(name):
    with safetensors.safe_open(shipped_codecs()[name], framework="numpy") as file:
        made = json.loads(file.metadata()["hloc_dpqed_codec"])["made"]
    assert made["observations"] > 100_000 and {"seed", "options"} <= made.keys()


def test_the_highest_number_is_the_extractors(tmp_path):
    for name in ("a-1.0011.safetensors", "a-2.0022.safetensors", "a-10.0033.safetensors"):
        (tmp_path / name).touch()
    found = shipped_codecs(tmp_path)
    assert found["a"].name == "a-10.0033.safetensors" and set(found) == {"a", "a-1", "a-2", "a-10"}


def test_superpoints_newest_weighs_its_codebooks():
    """The codes are those of the centroids as they were fitted, the descriptors are not."""
    newest = shipped_codecs()["superpoint"]
    assert newest == shipped_codecs()["superpoint-3"]
    codec = shipped_codec("superpoint")
    assert (
        codec.gains
        == codec_made(newest)["options"]["gains"]
        == [100, 130, 150, 160, 165, 170, 175, 180]
    )
    indices = np.arange(200, dtype=np.uint16)[:, None] * 80
    descriptors = shipped_codec("superpoint-1").head(2).decode(indices.view(np.uint8))
    check("superpoint", descriptors)
    found = codec._search.books[1] * 1.3
    np.testing.assert_allclose(found.numpy(), codec.books[1], atol=1e-6)


def test_unknown_names_are_told_what_there_is():
    with pytest.raises(
        InputError, match=r"nothing: no such file, and no codec .* there are aliked"
    ):
        shipped_codec("nothing")
    with pytest.raises(InputError, match="does not tell the extractor"):
        shipped_for(None, PRETRAINED)
    with pytest.raises(InputError, match="no codec for features of r2d2 comes with the package"):
        shipped_for("r2d2", PRETRAINED)


def test_a_real_map_without_training(fountain, tmp_path):
    """compress, localize, info and prune find the codec by themselves."""
    model, features = fountain / "sfm", fountain / "feats-superpoint.h5"
    output, results = tmp_path / "map.dpqed", tmp_path / "results.txt"
    argv = ["compress", "--reference_sfm", model, "--features", features, "--output", output]
    assert cli.main([*map(str, argv), "--codec", "shipped", "--code_bytes", "6"]) == 0
    told = info.main(output)
    assert (told["codec"], told["code_bytes"], told["codec_bytes"]) == ("nested", 6, 0)
    assert told["codec_hash"] == codec_hash(shipped_codec("superpoint"))
    argv = ["localize", "--map", output, "--queries", fountain / "queries.txt"]
    argv += ["--features", features, "--retrieval", fountain / "pairs-query-vlad7.txt"]
    assert cli.main([*map(str, argv), "--results", str(results)]) == 0
    assert len(results.read_text().splitlines()) == 4
    prune.main(output, tmp_path / "short.dpqed", code_bytes=2)
    short, whole = read_map(tmp_path / "short.dpqed"), read_map(output)
    assert sorted(map(tuple, short.codes)) == sorted(map(tuple, whole.codes[:, :2]))


def test_the_same_bytes_again(fountain, tmp_path):
    model, features = fountain / "sfm", fountain / "feats-superpoint.h5"
    for name, threads in (("a", 1), ("b", 2)):
        compress.main(
            model,
            features,
            tmp_path / name,
            codec_file="superpoint-1",
            num_points=300,
            selector="kcover",
            code_targets="mean",
            threads=threads,
            progress=False,
        )
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_other_features_are_refused(fountain, tmp_path):
    """Of the right dimension and under the right name, but not what the codec was fitted on."""
    scene = make_scene(tmp_path, num_points=60, dim=256)
    features = tmp_path / "feats-superpoint.h5"
    shutil.copy(scene.features, features)
    with pytest.raises(InputError, match="are they of another extractor"):
        compress.main(scene.sfm, features, tmp_path / "m", codec="shipped", progress=False)
    with pytest.raises(InputError, match="does not tell the extractor"):
        compress.main(scene.sfm, scene.features, tmp_path / "m", codec="shipped", progress=False)
    with pytest.raises(InputError, match="--codec_file: excludes --codec pq"):
        compress.main(scene.sfm, features, tmp_path / "m", codec="pq", codec_file="superpoint")
    with pytest.raises(InputError, match="--code_bytes 9: the codec has codes of 1 to 8 bytes"):
        compress.main(scene.sfm, features, tmp_path / "m", codec="shipped", code_bytes=9)
    with pytest.raises(InputError, match="codec options are of a codec that is fitted"):
        compress.main(
            scene.sfm, features, tmp_path / "m", codec="shipped", codec_options={"bits": [8]}
        )
    assert not (tmp_path / "m").exists()


def check(name: str, descriptors: np.ndarray) -> None:
    """``check_described`` of descriptors by the codec of an extractor."""
    count = len(descriptors)
    observations = Observations(
        descriptors.astype(np.float16),
        np.ones(count, np.float32),
        np.zeros((count, 2), np.float32),
        np.arange(count, dtype=np.int32),
        np.zeros(count, np.int32),
        count,
    )
    trained = codec_made(shipped_codecs()[name])[SIMILARITY]
    check_described(shipped_codec(name), observations, trained, name)


@pytest.mark.parametrize("name, other", [*itertools.product(OF_128, OF_128)])
def test_extractors_of_one_dimension_are_told_apart(name, other):
    """The centroids of one codec stand for its extractor's descriptors."""
    indices = np.arange(400, dtype=np.uint16)[:, None]
    descriptors = shipped_codec(other).head(2).decode(indices.view(np.uint8))
    if name == other:
        check(name, descriptors)
        return
    with pytest.raises(InputError, match="are they of another extractor"):
        check(name, descriptors)


@pytest.mark.parametrize("name", OF_128)
def test_other_unit_vectors_are_refused(name):
    rng = np.random.default_rng(0)
    gaussian = rng.standard_normal((300, 128))
    for others in (gaussian, np.abs(gaussian), np.sqrt(rng.exponential(size=(300, 128)))):
        with pytest.raises(InputError, match="are they of another extractor"):
            check(name, normalise_rows(others))


@pytest.mark.parametrize("name", OF_128)
def test_descriptors_of_a_photo(name, fountain):
    """What an extractor makes of a photo that no codec has seen is its own codec's alone."""
    if name != "sift":
        weights_folder()
        kornia = pytest.importorskip("kornia.feature", reason="kornia is not installed")
        if not hasattr(kornia, name.upper()):
            pytest.skip(f"this kornia has no {name.upper()}")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
    from extractors import EXTRACTORS

    with Image.open(sorted((fountain / "images").iterdir())[0]) as photo:
        photo.thumbnail((400, 400))
        found = EXTRACTORS[name](None)(photo.convert("RGB"))
    assert found.descriptors.shape == (len(found.keypoints), 128) and len(found.keypoints) > 100
    check(name, found.descriptors)
    for other in set(OF_128) - {name}:
        with pytest.raises(InputError, match="are they of another extractor"):
            check(other, found.descriptors)
