"""What a map file costs on a real scene, and that nothing in it is left to be saved."""

import shutil
import subprocess

import pytest

from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.mapfile import section_bytes


@pytest.fixture(scope="module")
def arrays(south_building):
    reference = read_reference(south_building / "sfm")
    return reference, read_observations(reference, south_building / "feats-superpoint.h5")


def test_all_points_with_codes_of_four_bytes_cost_twelve_each(arrays, tmp_path):
    reference, observations = arrays
    compressor = Compressor(reference, observations, CompressConf("all", "pca", 4))
    path = tmp_path / "map.dpqed"
    path.write_bytes(compressor.to_bytes(compressor.compress(reference.num_points)))
    sections = section_bytes(path)
    assert sum(sections.values()) - sections["codec"] <= 12 * reference.num_points
    assert sections["header"] <= 2000


@pytest.mark.parametrize("budget, code_bytes, gain", [(250_000, 4, 0.05), (25_000, 2, 0.1)])
def test_zstd_gains_little(arrays, tmp_path, budget, code_bytes, gain):
    zstd = shutil.which("zstd")
    if zstd is None:
        pytest.skip("no zstd (Debian: zstd)")
    conf = CompressConf(
        "kcover",
        "drqed",
        code_bytes,
        codec_options={"codec_budget_bytes": int(0.3 * budget), "steps": 20},
    )
    data = Compressor(*arrays, conf).fit_budget(budget, "total")[1]
    assert len(data) <= budget
    packed = subprocess.run([zstd, "-19", "-c"], input=data, capture_output=True, check=True)
    assert len(packed.stdout) > (1 - gain) * len(data)
