"""``export --format text``: one line a point."""

import numpy as np
import pytest
from mapfile_maps import make_map

from hloc_dpqed import export
from hloc_dpqed.cli import main
from hloc_dpqed.errors import InputError
from hloc_dpqed.mapfile import read_map, write_map


def read_landmarks(path) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    rows = {}
    for line in path.read_text().splitlines():
        point, *numbers = line.split(" ")
        rows[int(point)] = np.array(numbers[:3], float), np.array(numbers[3:], np.float32)
    return rows


@pytest.mark.parametrize("outliers", [0, 2])
def test_every_point_reads_back_exactly(tmp_path, outliers):
    write_map(tmp_path / "map.dpqed", make_map(num_points=90, outliers=outliers))
    argv = ["export", tmp_path / "map.dpqed", "--output", tmp_path / "text", "--format", "text"]
    assert main([*map(str, argv)]) == 0
    assert [p.name for p in (tmp_path / "text").iterdir()] == ["landmarks.txt"]
    read = read_map(tmp_path / "map.dpqed")
    rows = read_landmarks(tmp_path / "text" / "landmarks.txt")
    assert [*rows] == [*range(1, 91)]  # as in an exported model
    assert np.array_equal([xyz for xyz, _ in rows.values()], read.xyz)
    assert np.array_equal([row for _, row in rows.values()], read.codec.decode(read.codes))


def test_a_code_for_each_observation_becomes_a_mean(tmp_path):
    made = make_map(num_points=70, granularity="observation", density=0.3)
    write_map(tmp_path / "map.dpqed", made)
    export.main(tmp_path / "map.dpqed", tmp_path / "text", progress=False, format="text")
    read = read_map(tmp_path / "map.dpqed")
    rows = read_landmarks(tmp_path / "text" / "landmarks.txt")
    decoded, left_out = read.codec.decode(read.codes), 0
    for point in range(70):
        own = decoded[read.visibility.indices == point].astype(float)
        if len(own) == 0:
            left_out += 1
            assert point + 1 not in rows
            continue
        mean = own.sum(0) / np.linalg.norm(own.sum(0))
        assert np.array_equal(rows[point + 1][0], read.xyz[point])
        assert np.allclose(rows[point + 1][1], mean, atol=1e-6)
    assert left_out > 0 and len(rows) == 70 - left_out


def test_output_is_kept_and_replaced(tmp_path):
    write_map(tmp_path / "map.dpqed", make_map(num_points=0))
    for overwrite in (False, True):
        export.main(
            tmp_path / "map.dpqed", tmp_path / "text", False, None, overwrite, format="text"
        )
    assert (tmp_path / "text" / "landmarks.txt").read_text() == ""
    with pytest.raises(InputError, match="exists already"):
        export.main(tmp_path / "map.dpqed", tmp_path / "text", format="text")
