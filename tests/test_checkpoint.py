"""Records that survive a kill."""

import resource

import pytest

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.checkpoint import Checkpoint, run_key

RECORDS = [{"name": f"q{k}", "cam_from_world": [0.1 + k / 3, 1e-300]} for k in range(5)]


def add(path, records, key="key"):
    with Checkpoint(path, key) as done:
        for record in records:
            done.add(record)


def left(path, key="key"):
    with Checkpoint(path, key) as done:
        assert done.num_resumed == len(list(done.records()))
        return list(done.records())


def test_records_come_back_in_order_and_exactly(tmp_path):
    path = tmp_path / "deep" / "r.part"
    add(path, RECORDS[:2])
    with Checkpoint(path, "key") as done:
        assert done.num_resumed == 2
        for record in RECORDS[2:]:
            done.add(record)
            assert list(done.records())[-1] == record  # reading does not disturb adding
        assert list(done.records()) == RECORDS
        done.finish()
    assert not path.exists()


def test_other_keys_start_anew(tmp_path):
    path = tmp_path / "r.part"
    add(path, RECORDS)
    add(path, RECORDS[:1], "other")
    assert left(path, "other") == RECORDS[:1]


def test_every_cut_leaves_whole_records(tmp_path):
    path = tmp_path / "r.part"
    add(path, RECORDS)
    data = path.read_bytes()
    ends = [k + 1 for k, byte in enumerate(data) if byte == ord("\n")]
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        whole = max(sum(end <= size for end in ends) - 1, 0)
        assert left(path) == RECORDS[:whole]
        add(path, RECORDS[whole:])
        assert left(path) == RECORDS


def test_nothing_done_leaves_nothing(tmp_path):
    add(tmp_path / "r.part", [])
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_keep_their_own_records(tmp_path):
    path = tmp_path / "r.part"
    with Checkpoint(path, "key") as first, Checkpoint(path, "key") as second:
        first.add(RECORDS[0])
        second.add(RECORDS[1])
        assert list(first.records()) == RECORDS[:1]
        assert list(second.records()) == RECORDS[1:2]
        second.finish()  # does not take away what the first needs
        assert path.exists()
    assert left(path) == RECORDS[:1]
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_told(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with (
            pytest.raises(InputError, match="cannot be written") as error,
            Checkpoint(tmp_path / "r.part", "key") as done,
        ):
            for _ in range(100):
                done.add(RECORDS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert 0 < len(left(tmp_path / "r.part")) < 100


def test_keys(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"map")
    b.write_bytes(b"features")
    key = run_key([a], [b], {"seed": 0})
    assert key == run_key([a], [b], {"seed": 0})
    assert key != run_key([a], [b], {"seed": 1})
    b.write_bytes(b"other features")
    assert key != run_key([a], [b], {"seed": 0})
    same = run_key([a], [b], {"seed": 0})
    a.write_bytes(b"map")  # contents count, not the time
    assert same == run_key([a], [b], {"seed": 0})
