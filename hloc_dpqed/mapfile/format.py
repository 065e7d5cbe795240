"""Reader and writer of the map file, a safetensors container (docs/format.md)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import safetensors
import safetensors.numpy

from ..codecs import load_codec
from ..compressed_map import CompressedMap, GlobalDescriptors
from ..errors import InputError
from ..io.atomic import write_bytes
from ..visibility import Visibility

FORMAT_VERSION = 0


def write_map(path: Path, compressed: CompressedMap) -> None:
    """Write ``compressed`` to ``path`` atomically."""
    write_bytes(path, to_bytes(compressed))


def to_bytes(compressed: CompressedMap) -> bytes:
    """The bytes of the map file; the same map gives the same bytes."""
    low, high = bounding_box(compressed.xyz)
    steps = np.round((compressed.xyz - low) / np.maximum(high - low, 1e-300) * 65535)
    tensors = {
        "codes": compressed.codes,
        "xyz": steps.astype(np.uint16),
        "scores": np.round(np.clip(compressed.scores, 0, 1) * 255).astype(np.uint8),
        "visibility.indptr": compressed.visibility.indptr.astype(np.uint32),
        "visibility.indices": compressed.visibility.indices.astype(np.uint32),
        "poses": compressed.cam_from_world,
        "camera_index": compressed.camera_index,
    }
    tensors |= {f"codec.{k}": v for k, v in compressed.codec.tensors().items()}
    header: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "granularity": compressed.granularity,
        "codec": {"name": compressed.codec.name, "config": compressed.codec.config()},
        "bounding_box": [low.tolist(), high.tolist()],
        "image_names": compressed.image_names,
        "cameras": [
            [c.model.name, c.width, c.height, [float(p) for p in c.params]]
            for c in compressed.cameras
        ],
        "made": compressed.metadata,
    }
    if compressed.global_descriptors is not None:
        codec = compressed.global_descriptors.codec
        tensors["global.codes"] = compressed.global_descriptors.codes
        tensors |= {f"global_codec.{k}": v for k, v in codec.tensors().items()}
        header["global_codec"] = {"name": codec.name, "config": codec.config()}
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    return safetensors.numpy.save(
        tensors, metadata={"hloc_dpqed": json.dumps(header, sort_keys=True)}
    )


def bounding_box(xyz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest coordinates of (P, 3) points; zeros where there is no point."""
    if len(xyz) == 0:
        return np.zeros(3), np.zeros(3)
    return xyz.min(0), xyz.max(0)


def _load(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a map file")
    try:
        with safetensors.safe_open(str(path), framework="numpy") as file:
            header = json.loads(file.metadata()["hloc_dpqed"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, TypeError, KeyError, ValueError, safetensors.SafetensorError) as error:
        raise InputError(f"{path}: not a map file of hloc_dpqed ({error})") from error
    return header, tensors


def _codec(spec: dict[str, Any], tensors: dict[str, np.ndarray], prefix: str):
    own = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
    return load_codec(spec["name"], own, spec["config"])


def read_map(path: Path) -> CompressedMap:
    """Read a map file.

    Raises:
        InputError: the file is missing, damaged, or of a newer format.
    """
    header, tensors = _load(path)
    low, high = np.array(header["bounding_box"])
    global_descriptors = None
    if "global_codec" in header:
        codec = _codec(header["global_codec"], tensors, "global_codec.")
        global_descriptors = GlobalDescriptors(codec, tensors["global.codes"])
    return CompressedMap(
        image_names=header["image_names"],
        cameras=[
            pycolmap.Camera(model=m, width=w, height=h, params=p)
            for m, w, h, p in header["cameras"]
        ],
        camera_index=tensors["camera_index"],
        cam_from_world=tensors["poses"],
        xyz=low + tensors["xyz"] / 65535 * (high - low),
        visibility=Visibility(
            tensors["visibility.indptr"].astype(np.int64),
            tensors["visibility.indices"].astype(np.int32),
            len(tensors["xyz"]),
        ),
        granularity=header["granularity"],
        codec=_codec(header["codec"], tensors, "codec."),
        codes=tensors["codes"],
        scores=tensors["scores"].astype(np.float32) / 255,
        global_descriptors=global_descriptors,
        metadata=header["made"],
    )


def section_bytes(path: Path) -> dict[str, int]:
    """Bytes of each section of the file; they add up to the file's size."""
    _, tensors = _load(path)
    sizes = {name: tensor.nbytes for name, tensor in sorted(tensors.items())}
    sizes["header"] = Path(path).stat().st_size - sum(sizes.values())
    return sizes


def map_info(path: Path) -> dict[str, Any]:
    """What ``hloc-dpqed info --json`` prints."""
    compressed = read_map(path)
    sections = section_bytes(path)
    return {
        "format_version": FORMAT_VERSION,
        "num_points": compressed.num_points,
        "num_images": compressed.num_images,
        "num_observations": compressed.visibility.num_observations,
        "codec": compressed.codec.name,
        "code_bytes": compressed.codec.code_size,
        "descriptor_dim": compressed.codec.dim,
        "granularity": compressed.granularity,
        "sections": sections,
        "descriptor_bytes": sections["codes"],
        "codec_bytes": sum(v for k, v in sections.items() if k.startswith("codec.")),
        "total_bytes": sum(sections.values()),
        "distinct_codes": len(np.unique(compressed.codes, axis=0)),
    }
