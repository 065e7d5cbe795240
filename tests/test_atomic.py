"""A reader sees the old file or the new one, whatever happens to the writer."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.atomic import (
    atomic_directory,
    atomic_path,
    check_output,
    write_bytes,
    write_text,
)


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "new folder" / "deep" / "out.txt"
    write_text(path, "été\n")
    assert path.read_bytes() == "été\n".encode()
    write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert list(path.parent.iterdir()) == [path]


def test_permissions_are_those_of_a_plain_file(tmp_path):
    write_bytes(tmp_path / "ours", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode
    with atomic_directory(tmp_path / "folder"):
        pass
    (tmp_path / "plain folder").mkdir()
    modes = [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("folder", "plain folder")]
    assert modes[0] == modes[1]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "out"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), atomic_path(path) as temporary:
        temporary.write_bytes(b"half")
        1 / 0  # noqa: B018
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ZeroDivisionError), atomic_directory(tmp_path / "folder") as temporary:
        (temporary / "file").write_bytes(b"half")
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == [path]


def test_folders_that_cannot_be_written(tmp_path):
    # A file in place of a folder: root may write to read-only folders.
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for path in (tmp_path / "file" / "out", tmp_path / "file" / "a" / "out", tmp_path / "folder"):
        for attempt in (lambda p: write_bytes(p, b"y"), check_output):
            with pytest.raises(InputError, match="cannot be written") as error:
                attempt(path)
            assert str(path) in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match="not an empty folder"), atomic_directory(tmp_path):
        pass
    with pytest.raises(InputError, match="not an empty"), atomic_directory(tmp_path / "file"):
        pass
    assert (tmp_path / "file").read_bytes() == b"x"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to read-only folders")
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        for attempt in (lambda p: write_bytes(p, b"y"), check_output):
            with pytest.raises(InputError, match="cannot be written"):
                attempt(tmp_path / "out")
    finally:
        tmp_path.chmod(0o700)


def test_checking_an_output_creates_nothing(tmp_path):
    check_output(tmp_path / "a" / "b" / "out")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file is not a folder"):
        check_output(tmp_path / "file" / "b" / "out")


def test_a_full_disk_is_told_in_one_line(tmp_path):
    """A limit on the size of files stands in for a full disk: writes fail half-way."""
    path = tmp_path / "out"
    write_bytes(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(InputError, match="cannot be written") as error:
            write_bytes(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


WRITER = """
import sys
from pathlib import Path
from hloc_dpqed.io.atomic import write_bytes
print("ready", flush=True)
while True:
    for letter in sys.argv[2].encode():
        write_bytes(Path(sys.argv[1]), bytes([letter]) * 2_000_000)
"""


def writer(path, letters):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), letters], stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    return process


def check_whole(path):
    data = path.read_bytes()
    assert len(data) == 2_000_000 and data == data[:1] * len(data)


@pytest.mark.parametrize(
    "times", [5, pytest.param(50, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_killed_at_any_moment(tmp_path, times):
    path = tmp_path / "out"
    write_bytes(path, b"o" * 2_000_000)
    rng = np.random.default_rng(0)
    for _ in range(times):
        process = writer(path, "ab")
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        check_whole(path)


def test_two_processes_write_the_same_file(tmp_path):
    path = tmp_path / "out"
    write_bytes(path, b"o" * 2_000_000)
    processes = [writer(path, letters) for letters in ("ab", "cd")]
    try:
        for _ in range(100):
            check_whole(path)
    finally:
        for process in processes:
            process.kill()
            process.wait()
            process.stdout.close()


def test_threads_write_the_same_file(tmp_path):
    path = tmp_path / "out"
    threads = [
        threading.Thread(target=write_bytes, args=(path, bytes([65 + k]) * 2_000_000))
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_whole(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_replaces_one_of_its_own_kind_only(tmp_path):
    folder = tmp_path / "out"
    for content in ("one", "two"):
        with atomic_directory(folder, {"own.txt"}) as temporary:
            (temporary / "own.txt").write_text(content)
        assert (folder / "own.txt").read_text() == content and os.listdir(tmp_path) == ["out"]
    with pytest.raises(ZeroDivisionError), atomic_directory(folder, {"own.txt"}):
        raise ZeroDivisionError
    assert (folder / "own.txt").read_text() == "two" and os.listdir(tmp_path) == ["out"]
    (folder / "other.txt").write_text("of somebody")
    with pytest.raises(InputError, match=r"holds other than own.txt"):
        atomic_directory(folder, {"own.txt"}).__enter__()
    assert sorted(os.listdir(folder)) == ["other.txt", "own.txt"]


def test_a_folder_that_cannot_be_replaced_comes_back(tmp_path, monkeypatch):
    """What stepped aside returns where the new folder cannot take its place."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "own.txt").write_text("old")
    real = os.replace
    with (
        pytest.raises(InputError, match="out: cannot be written"),
        atomic_directory(folder, {"own.txt"}) as temporary,
    ):
        (temporary / "own.txt").write_text("new")

        def failing(source, target):  # a mock: no disk fails at will
            if source == temporary:
                raise OSError(errno.EIO, "no")
            real(source, target)

        monkeypatch.setattr(os, "replace", failing)
    assert (folder / "own.txt").read_text() == "old" and os.listdir(tmp_path) == ["out"]
