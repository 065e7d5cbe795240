"""The notebook, run whole on a scene as small as can be."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = """
outputs = Path("outputs")
num_database, num_queries, image_size = 8, 2, (320, 240)
dpqed_options = {"steps": 10}
threads = 1
"""


@pytest.mark.slow
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=":")
    notebook = nbformat.read(ROOT / "pipeline_dpqed.ipynb", 4)
    (cell,) = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    cell.source += SMALL
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=600, resources=resources).execute()
    pictures = [
        output
        for c in notebook.cells
        for output in c.get("outputs", [])
        if "image/jpeg" in output.get("data", {})
    ]
    assert len(pictures) == 4
    assert (tmp_path / "outputs/sweep/sweep.csv").is_file()


def test_the_notebook_is_small():
    assert (ROOT / "pipeline_dpqed.ipynb").stat().st_size < 1_500_000
