"""benchmarks/matchers.py with SuperGlue and a file of its weights, filled at random.

SuperGlue's own weights are not here. The file made here shows that the benchmark prints its table
with such a file, and says nothing of how well SuperGlue matches.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from random_matchers import superglue_state

ROOT = Path(__file__).resolve().parents[1]


def rows_of(text):
    lines = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[1:]]


@pytest.mark.slow
def test_the_table_with_superglue_and_random_weights(fountain, tmp_path):
    weights = tmp_path / "superglue_random.pth"
    torch.save(superglue_state(), weights)
    command = [sys.executable, ROOT / "benchmarks" / "matchers.py", "--scenes", "fountain-P11"]
    command += ["--matchers", "NN-mutual", "superglue-fast", "--matcher_weights", weights]
    command += ["--codes", "pq:8", "--num_retrieved", "1", "--ransac_seeds", "1"]
    command += ["--output", tmp_path / "cells"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
        "HLOC_DPQED_DATA": str(fountain.parent),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = rows_of(done.stdout)
    stores = ["float per observation", "float per point", "pq 8 B per point"]
    matchers = ["NN-mutual", "superglue-fast"]
    found = [(row["descriptors"], row["matcher"]) for row in rows]
    assert found == [(store, matcher) for store in stores for matcher in matchers]
    for row in rows:
        assert int(row["correct"]) > 30 and 0 < float(row["precision"]) <= 1
