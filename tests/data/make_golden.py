"""Writes the golden file of the current format version; run it once for each version.

    python tests/data/make_golden.py

The tests compare what is read from it with what was read when it was made.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

import pycolmap  # noqa: E402
from mapfile_maps import make_map  # noqa: E402

from hloc_dpqed.mapfile import read_map, write_map  # noqa: E402
from hloc_dpqed.mapfile.format import FORMAT_VERSION  # noqa: E402


def main() -> None:
    path = HERE / f"golden_v{FORMAT_VERSION}.dpqed"
    made = make_map(
        num_points=40,
        num_images=4,
        code_bytes=2,
        with_global=True,
        outliers=1,
        names=["db/été 1.jpg", "db/été 2.jpg", "db/été 3.jpg", "夜/1.jpg"],
        models=[pycolmap.CameraModelId.PINHOLE, pycolmap.CameraModelId.OPENCV],
    )
    write_map(path, made)
    golden = read_map(path)
    expected = {
        "image_names": golden.image_names,
        "camera_models": [c.model.name for c in golden.cameras],
        "camera_params": [c.params.tolist() for c in golden.cameras],
        "camera_index": golden.camera_index.tolist(),
        "indptr": golden.visibility.indptr.tolist(),
        "indices": golden.visibility.indices.tolist(),
        "codes": golden.codes.tolist(),
        "xyz": golden.xyz.tolist(),
        "poses": golden.cam_from_world.tolist(),
        "scores": golden.scores.tolist(),
        "centroids": golden.codec.tensors()["centroids"].astype(float).tolist(),
        "global_codes": golden.global_descriptors.codes.tolist(),
        "made": golden.metadata,
    }
    path.with_suffix(".json").write_text(json.dumps(expected) + "\n")


if __name__ == "__main__":
    main()
