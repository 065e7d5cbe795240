"""The fuzz target: its corpus in each run, atheris for a bounded count in the full tier."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from test_compress import environment

HERE = Path(__file__).parent
TARGET, CORPUS = HERE / "fuzz" / "fuzz_map.py", HERE / "fuzz" / "corpus"


def target():
    spec = importlib.util.spec_from_file_location("fuzz_map", TARGET)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_corpus_is_read():
    check = target().check
    read = {path.name: check(path.read_bytes()) for path in sorted(CORPUS.iterdir())}
    assert len(read) >= 3 and all(read.values()), read
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 20_000


@pytest.mark.slow
def test_fuzz_map(tmp_path):
    """No other exception, no hang over 20 s, no allocation over 256 MB at once."""
    pytest.importorskip("atheris", reason="atheris is not installed: it has no wheel here")
    argv = [sys.executable, str(TARGET), "-runs=20000", "-seed=1", "-timeout=20", "-max_len=8192"]
    argv += ["-malloc_limit_mb=256", "-rss_limit_mb=2048", f"-artifact_prefix={tmp_path}/"]
    (tmp_path / "new").mkdir()
    done = subprocess.run(
        [*argv, str(tmp_path / "new"), str(CORPUS)],
        env=environment(OMP_NUM_THREADS="1"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
