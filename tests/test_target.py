"""The smallest map that keeps a recall on held-out images."""

import re

import pytest
from synthetic import make_scene

from hloc_dpqed import compress
from hloc_dpqed.cli import main as cli
from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile import map_info
from hloc_dpqed.planning.target import Target, parse_target


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    # Some matches are wrong, and keypoints are noisy: more points give better poses.
    return make_scene(tmp_path_factory.mktemp("scene"), dim=32, noise=0.15, keypoint_noise=1.0)


def test_targets_are_parsed():
    assert parse_target("0.95@0.25/2") == Target(0.95, 0.25, 2.0)
    assert str(parse_target("1@0.5/5")) == "1@0.5/5"


@pytest.mark.parametrize(
    "text",
    ["", "0.95", "0.95@0.25", "1.5@0.25/2", "0@1/1", "1@0/1", "x@1/1", "1@1/1,2/2", "1@1/1/1"],
)
def test_what_is_no_target_is_told(text):
    with pytest.raises(InputError, match=r"--target_recall .*expected recall@translation/rotation"):
        parse_target(text)


def test_a_harder_target_takes_more_bytes(scene, tmp_path):
    sizes = []
    for target in ("0.5@5/20", "1@0.02/0.5"):
        output = tmp_path / f"{len(sizes)}.dpqed"
        compress.main(
            scene.sfm,
            scene.features,
            output,
            target_recall=target,
            codec="none",
            progress=False,
        )
        info = map_info(output)
        assert info["codec"] == "none"
        assert info["made"]["conf"]["asked"] == {"target_recall": target}
        sizes.append((info["num_points"], info["total_bytes"]))
    assert sizes[0] < sizes[1]


def test_a_small_map_is_judged_by_several_folds(scene, tmp_path, caplog):
    """Of its 7 images 3 or 4 can be held out at once: both folds are asked."""
    caplog.set_level("INFO", "hloc_dpqed")
    compress.main(
        scene.sfm,
        scene.features,
        tmp_path / "map.dpqed",
        target_recall="0.5@5/20",
        codec="none",
        progress=False,
    )
    assert re.search(r"reach [01]\.\d+ at 5/20 on 7 held-out images", caplog.text)


def test_a_target_out_of_reach_is_one_line_and_writes_nothing(scene, tmp_path, capsys):
    output = tmp_path / "map.dpqed"
    argv = ["compress", "--reference_sfm", str(scene.sfm), "--features", str(scene.features),
            "--output", str(output), "--codec", "pq", "--target_recall", "1@1e-9/1e-9"]  # fmt: skip
    assert cli(argv) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--target_recall 1@1e-09/1e-09: no map reaches it, the best keeps 0.000 of" in error
    assert list(tmp_path.iterdir()) == []


def test_a_target_goes_with_no_other_size(scene, tmp_path):
    with pytest.raises(InputError, match="exclude one another"):
        compress.main(scene.sfm, scene.features, tmp_path / "m", budget=9000, target_recall="1@1/1")
