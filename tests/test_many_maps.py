"""Many maps in parallel on Ray: resumable outputs, failures apart, one clear line."""

import json
import sys
from pathlib import Path

import pytest
from synthetic import make_scene

from hloc_dpqed.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pipelines.many_maps import pipeline

CHEAP = {"codec": "none", "code_bytes": 1, "selector": "kcover"}


@pytest.fixture
def maps(tmp_path):
    """Two maps, the second without queries, and one whose model is missing."""
    scene = make_scene(tmp_path / "scene", num_points=120)
    one = {"reference_sfm": "scene/sfm", "features": f"scene/{scene.features.name}"}
    queries = {"queries": f"scene/{scene.queries.name}", "retrieval": "none"}
    entries = {"a": one | queries, "b": one, "lost": one | {"reference_sfm": "nowhere"}}
    path = tmp_path / "maps.json"
    path.write_text(json.dumps(entries))
    return path


def test_a_map_is_done_once(maps, tmp_path):
    entry = pipeline.read_maps(maps)["a"]
    first = pipeline.process_map(entry, str(tmp_path / "a"), CHEAP)
    assert first["compressed"] and first["localized"]
    assert first["figures"]["num_localized"] == first["figures"]["num_queries"] > 0
    written = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}
    assert set(written) == {"map.dpqed", "results.txt"}
    (tmp_path / "a" / "results.txt").unlink()
    again = pipeline.process_map(entry, str(tmp_path / "a"), CHEAP)
    assert not again["compressed"] and again["localized"]
    assert written == {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"a": {"features": "f"}}', '{"../a": {"reference_sfm": "x"}}', "{"]
)
def test_wrong_lists_of_maps(tmp_path, text):
    path = tmp_path / "maps.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"maps\.json"):
        pipeline.read_maps(path)


@pytest.mark.slow
def test_on_ray(maps, tmp_path):
    pytest.importorskip("ray")
    found = pipeline.main(maps, tmp_path / "out", CHEAP)
    assert found["a"]["localized"] and found["b"]["compressed"]
    assert "nowhere" in found["lost"]["error"]
    assert not (tmp_path / "out" / "lost" / "map.dpqed").exists()
    found = pipeline.main(maps, tmp_path / "out", CHEAP)
    assert not (found["a"]["compressed"] or found["a"]["localized"] or found["b"]["compressed"])
