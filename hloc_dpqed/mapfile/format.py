"""Reader and writer of the map file (docs/format.md)."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..choices import GRANULARITIES
from ..codecs import CODECS, HEADED, Codec
from ..codecs.file import codec_file_name, codec_hash, read_codec, read_codec_parts
from ..codecs.shipped import shipped_file
from ..entropy.arrays import DTYPES, decode_arrays, dtype_name, encode_arrays
from ..entropy.rans import DamagedStream, Player, Recorder
from ..errors import InputError
from ..io.atomic import write_bytes
from ..maps.compressed import CompressedMap, GlobalDescriptors, places_of
from ..scene.visibility import Visibility
from .container import pack, unpack
from .frame import Frame
from .points import (
    XYZ_PIXELS,
    Grid,
    canonical_order,
    cells_of_morton,
    choose_grid,
    decode_points,
    encode_points,
    morton,
)
from .poses import PoseGrid, check_poses, decode_cameras_in_frame, encode_poses
from .text import decode_cameras, decode_names, encode_cameras, encode_names
from .tracks import MAX_NEIGHBOURS, decode_tracks, encode_tracks

FORMAT_VERSION = 2
REQUIRED = ("codes", "cameras", "names", "points", "poses", "visibility")
OPTIONAL = ("global.codec", "global.codes", "padding", "scores")
KNOWN = (*REQUIRED, *OPTIONAL, "codec", "order")
SCORE_LEVELS = 16
GROUPS = {
    "descriptors": ("codes",),
    "codec": ("codec",),
    "points": ("points", "order", "visibility", "scores"),
    "images": ("names", "cameras", "poses"),
    "global descriptors": ("global.codes", "global.codec"),
}
HEX = "0123456789abcdef"
MAX_EXPANSION = 256  # decoded bytes for each byte of the file


def write_map(
    path: Path,
    compressed: CompressedMap,
    *,
    xyz_error: float | None = None,
    xyz_pixels: float = XYZ_PIXELS,
    score_levels: int = SCORE_LEVELS,
) -> None:
    """Write ``compressed`` to ``path`` atomically; see ``to_bytes``."""
    data = to_bytes(
        compressed, xyz_error=xyz_error, xyz_pixels=xyz_pixels, score_levels=score_levels
    )
    write_bytes(path, data)


def to_bytes(
    compressed: CompressedMap,
    *,
    xyz_error: float | None = None,
    xyz_pixels: float = XYZ_PIXELS,
    score_levels: int = SCORE_LEVELS,
) -> bytes:
    """The bytes of the map file; the same map gives the same bytes.

    Args:
        compressed: the map. In the order of ``canonical_order`` its points need no permutation.
        xyz_error: greatest error of a point along each axis of the file's frame, in map units;
            None: ``xyz_pixels``.
        xyz_pixels: the same in pixels at the distance of the nearest observing camera
            (``choose_grid``).
        score_levels: levels of the detection scores, 2 to 64; 0 leaves them out, they then read
            as 1.

    Raises:
        InputError: the map cannot be stored, one line why.
    """
    _check(compressed, score_levels)
    num_points, num_images = compressed.num_points, compressed.num_images
    grid = choose_grid(compressed, xyz_error, xyz_pixels)
    cells = grid.cells(compressed.xyz)
    numbers = morton(cells)
    order = np.argsort(numbers, kind="stable")
    sections: dict[str, bytes] = {}
    visibility = compressed.visibility
    if (order != np.arange(num_points)).any():
        sections["order"] = encode_arrays([order.astype(_order_dtype(num_points))])
        visibility = renumber(visibility, np.argsort(order))
    sections["points"] = encode_points(numbers[order])
    sections["visibility"], neighbours = encode_tracks(visibility, cells[order])
    sections["poses"], pose_grid, pose_error = encode_poses(compressed, grid)
    sections["names"] = encode_names(compressed.image_names)
    sections["cameras"] = encode_cameras(compressed.cameras, compressed.camera_index.tolist())
    sections["codes"] = encode_arrays([compressed.codes])
    codec_spec: dict[str, Any]
    if compressed.codec_hash is None:
        sections["codec"], codec_spec = _encode_codec(compressed.codec)
    elif compressed.codec_hash != codec_hash(compressed.codec.whole()):
        raise InputError("the map's codec is not the one of its codec file")
    else:
        codec_spec = {"hash": compressed.codec_hash, "tensors": {}}
    metadata: dict[str, Any] = {
        "codec": codec_spec,
        "codes": list(compressed.codes.shape),
        "counts": [num_images, num_points, visibility.num_observations],
        "format_version": FORMAT_VERSION,
        "granularity": compressed.granularity,
        "made": compressed.metadata,
        "frame": {"origin": grid.frame.origin.tolist(), "rotation": grid.frame.quat.tolist()},
        "points": {"core": grid.core, "xyz_error": grid.xyz_error},
        "poses": {
            "centre_step": pose_grid.centre_step,
            "pixel_error": float(f"{pose_error:.3g}"),
            "rotation_step": pose_grid.rotation_step,
        },
        "visibility": {"neighbours": neighbours},
    }
    if score_levels:
        sections["scores"], metadata["scores"] = _encode_scores(compressed.scores, score_levels)
    if compressed.global_descriptors is not None:
        codes = np.asarray(compressed.global_descriptors.codes, np.uint8)
        sections["global.codes"] = encode_arrays([codes])
        sections["global.codec"], spec = _encode_codec(compressed.global_descriptors.codec)
        metadata["global"] = {"codec": spec, "codes": list(codes.shape)}
    if compressed.confidence is not None:
        metadata["confidence"] = compressed.confidence
    data = pack(sections, list(OPTIONAL), metadata)
    least = -(-_decoded_bytes(metadata) // MAX_EXPANSION)
    if len(data) < least:  # a map that compresses like this is no real one
        sections["padding"] = bytes(least - len(data))
        data = pack(sections, list(OPTIONAL), metadata)
    return data


def canonical_map(
    compressed: CompressedMap, xyz_error: float | None = None, xyz_pixels: float = XYZ_PIXELS
) -> CompressedMap:
    """The same map with its points in the order in which the file is smallest.

    Pass the same ``xyz_error`` and ``xyz_pixels`` to the writer.
    """
    order = canonical_order(compressed, xyz_error, xyz_pixels)
    new_row = np.argsort(order)
    old = compressed.visibility
    visibility = renumber(old, new_row)
    rows = order
    if compressed.granularity == "observation":
        image = old.image_of_observation().astype(np.int64)
        rows = np.argsort(image * max(old.num_points, 1) + new_row[old.indices], kind="stable")
    return replace(
        compressed,
        xyz=compressed.xyz[order],
        visibility=visibility,
        codes=compressed.codes[rows],
        scores=compressed.scores[rows],
    )


def with_stored_xyz(compressed: CompressedMap, xyz_pixels: float = XYZ_PIXELS) -> CompressedMap:
    """The map with its points where its file, written with ``xyz_pixels``, has them."""
    grid = choose_grid(compressed, None, xyz_pixels)
    return replace(compressed, xyz=grid.coordinates(grid.cells(compressed.xyz)))


def renumber(visibility: Visibility, new_row: np.ndarray) -> Visibility:
    """The matrix with column ``j`` moved to ``new_row[j]``, a permutation."""
    base = max(visibility.num_points, 1)
    image = visibility.image_of_observation().astype(np.int64)
    keys = np.sort(image * base + new_row[visibility.indices])
    return Visibility(visibility.indptr, (keys % base).astype(np.int32), visibility.num_points)


def _check(compressed: CompressedMap, score_levels: int) -> None:
    """Refuse what cannot be stored or would not read back the same."""
    visibility = compressed.visibility
    images, points = compressed.num_images, compressed.num_points
    if compressed.granularity not in GRANULARITIES:
        raise InputError(f"granularity {compressed.granularity!r}: expected one of {GRANULARITIES}")
    rows = points if compressed.granularity == "point" else visibility.num_observations
    expected = {
        "cam_from_world": (compressed.cam_from_world, (images, 3, 4)),
        "camera_index": (compressed.camera_index, (images,)),
        "xyz": (compressed.xyz, (points, 3)),
        "codes": (compressed.codes, (rows, compressed.codec.code_size)),
        "scores": (compressed.scores, (rows,)),
        "visibility.indptr": (visibility.indptr, (images + 1,)),
    }
    if compressed.global_descriptors is not None:
        size = compressed.global_descriptors.codec.code_size
        expected["global codes"] = (compressed.global_descriptors.codes, (images, size))
    for name, (array, shape) in expected.items():
        if np.shape(array) != shape:
            raise InputError(f"the map's {name} have shape {np.shape(array)}, expected {shape}")
    if compressed.codes.dtype != np.uint8:
        raise InputError(f"the map's codes are {compressed.codes.dtype}, expected uint8")
    if visibility.num_points != points:
        raise InputError(f"the map's visibility is of {visibility.num_points} points, not {points}")
    index = visibility.indices
    if len(index) and (index.min() < 0 or index.max() >= points):
        raise InputError("the map's visibility refers to a point that does not exist")
    steps = np.diff(index.astype(np.int64) + visibility.image_of_observation() * np.int64(points))
    if (steps <= 0).any():
        raise InputError("the map's visibility is not increasing within each image")
    if not np.isfinite(compressed.scores).all():
        raise InputError("the map's scores are not finite")
    if not all(np.isfinite(camera.params).all() for camera in compressed.cameras):
        raise InputError("a camera has parameters that are not finite")
    check_poses(compressed.cam_from_world)
    if score_levels and not 2 <= score_levels <= 64:
        raise InputError(f"score_levels {score_levels}: expected 0, or 2 to 64")
    cameras = compressed.camera_index
    if images and (cameras.min() < 0 or cameras.max() >= len(compressed.cameras)):
        raise InputError("the map's camera_index refers to a camera that does not exist")


def _order_dtype(num_points: int) -> np.dtype:
    return DTYPES["U16" if num_points <= 1 << 16 else "U32"]


def _encode_codec(codec: Codec) -> tuple[bytes, dict[str, Any]]:
    tensors = sorted(codec.tensors().items())
    for name, tensor in tensors:
        if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
            raise InputError(f"the codec's {name} are not finite")
    specs = {name: [dtype_name(tensor), list(tensor.shape)] for name, tensor in tensors}
    spec = {"config": codec.config(), "name": codec.name, "tensors": specs}
    return encode_arrays([tensor for _, tensor in tensors]), spec


def _decode_codec(data: bytes, spec: dict[str, Any]) -> Codec:
    tensors = _codec_tensors(data, spec)
    codec = CODECS[spec["name"]].from_tensors(tensors, spec["config"])
    if _sizes(spec) != (codec.dim, codec.code_size):
        raise DamagedStream("the sizes of the codec are not those of its settings")
    return codec


def _codec_tensors(data: bytes, spec: dict[str, Any]) -> dict[str, np.ndarray]:
    """What a codec of this version is made from."""
    name = spec["name"]
    if name not in CODECS:
        known = ", ".join(CODECS)
        raise InputError(f"codec {str(name)[:40]!r} is unknown to this version, it knows {known}")
    names = sorted(spec["tensors"])
    arrays = decode_arrays(data, [_spec(*spec["tensors"][n]) for n in names])
    for n, array in zip(names, arrays, strict=True):
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise InputError(f"the codec's {n[:40]} are not finite")
    return dict(zip(names, arrays, strict=True))


def _spec(kind: str, shape: list[int]) -> tuple[str, tuple[int, ...]]:
    if kind not in DTYPES or not all(type(n) is int and n >= 0 for n in shape):
        raise DamagedStream("an array has an impossible dtype or shape")
    return kind, tuple(shape)


def _encode_scores(scores: np.ndarray, levels: int) -> tuple[bytes, dict[str, Any]]:
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (1.0, 1.0)
    scale = "log" if low > 0 else "linear"
    spec = {"high": high, "levels": levels, "low": low, "scale": scale}
    x = np.asarray(scores, np.float64)
    if high == low:
        x = np.zeros(len(x))
    elif scale == "log":
        x = np.log(x / low) / math.log(high / low)
    else:
        x = (x - low) / (high - low)
    recorder = Recorder(symbol_contexts=1)
    values = np.clip(np.rint(x * (levels - 1)), 0, levels - 1).astype(np.int64)
    recorder.symbols(np.zeros(len(values), np.int64), values)
    return recorder.finish(), spec


def _decode_scores(data: bytes, count: int, spec: dict[str, Any]) -> np.ndarray:
    levels, low, high, scale = (spec[key] for key in ("levels", "low", "high", "scale"))
    if type(levels) is not int or not 2 <= levels <= 64 or scale not in ("log", "linear"):
        raise DamagedStream("its scale of scores is impossible")
    if not all(type(x) in (int, float) and abs(x) <= 3e38 for x in (low, high)) or low > high:
        raise DamagedStream("its scale of scores is impossible")
    if scale == "log" and low <= 0:
        raise DamagedStream("its scale of scores is impossible")
    player = Player(data, symbol_contexts=1)
    share = player.symbols(np.zeros(count, np.int64)) / (levels - 1)
    player.finish()
    if share.max(initial=0) > 1:
        raise DamagedStream("a score is beyond its scale")
    if scale == "log":
        return (low * (high / low) ** share).astype(np.float32)
    return (low + (high - low) * share).astype(np.float32)


def _decoded_bytes(metadata: dict[str, Any]) -> int:
    """Bytes of the arrays that the metadata announce."""
    images, points, observations = metadata["counts"]
    total = 64 * images + 32 * points + 8 * observations
    shapes = [("U8", metadata["codes"]), *metadata["codec"]["tensors"].values()]
    if "global" in metadata:
        shapes.append(("U8", metadata["global"]["codes"]))
        shapes.extend(metadata["global"]["codec"]["tensors"].values())
    for kind, shape in shapes:
        kind, dims = _spec(kind, shape)
        total += math.prod(dims) * DTYPES[kind].itemsize
    return total


def _load(path: Path) -> tuple[dict[str, Any], dict[str, bytes], int]:
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a map file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    metadata, sections = unpack(data, path)
    version, optional = metadata.get("format_version"), metadata.get("optional")
    if type(version) is not int or version < 1 or not isinstance(optional, list):
        raise InputError(f"{path}: its format version is not one of a map file")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path}: has format version {version}, this version of hloc_dpqed reads up to "
            f"{FORMAT_VERSION}; upgrade it"
        )
    for name in sections:
        if name not in KNOWN and name not in optional:
            raise InputError(
                f"{path}: needs section {name[:40]!r}, which this version of hloc_dpqed does not "
                "know; upgrade it"
            )
    for name in REQUIRED:
        if name not in sections:
            raise InputError(f"{path}: section {name!r} is missing")
    return metadata, sections, len(data)


def read_map(path: Path, codec_file: Path | None = None) -> CompressedMap:
    """Read a map file.

    Args:
        path: the map file.
        codec_file: of a map that refers to one; by default it is looked for in the map's folder
            under the name ``codecs.file.codec_file_name`` gives its hash.

    Raises:
        InputError: the file is missing, damaged, or of a newer format; or its codec file is.
    """
    metadata, sections, size = _load(path)
    with _told_of(path):
        _check_announced(metadata, size)
        shared = None
        if "codec" not in sections:
            shared = read_codec(*_shared_codec(metadata["codec"], Path(path), codec_file))
            shared = shared.head(_code_columns(metadata))
        codec = shared or _decode_codec(sections["codec"], metadata["codec"])
        parts = _decode(metadata, sections, size, codec.code_size)
        global_descriptors = None
        if "global.codes" in sections:
            spec = metadata["global"]["codec"]
            global_codec = _decode_codec(sections["global.codec"], spec)
            codes = _decode_global_codes(metadata, sections, global_codec.code_size)
            global_descriptors = GlobalDescriptors(global_codec, codes)
        return CompressedMap(
            codec=codec,
            global_descriptors=global_descriptors,
            metadata=metadata["made"],
            codec_hash=metadata["codec"]["hash"] if shared else None,
            confidence=metadata.get("confidence"),
            **parts,
        )


@contextlib.contextmanager
def _told_of(path: Path) -> Iterator[None]:
    """Whatever a damaged file makes of the reader is one line that names the file."""
    try:
        with np.errstate(all="ignore"):  # of numbers that are refused afterwards
            yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (
        ValueError, TypeError, KeyError, IndexError, AttributeError, ArithmeticError, MemoryError,
        RecursionError, RuntimeError, AssertionError,
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{path}: damaged ({reason})") from error


def _shared_codec(spec: dict[str, Any], path: Path, codec_file: Path | None) -> tuple[Path, str]:
    """File and hash of the codec that a map without one of its own refers to."""
    digest = spec.get("hash")
    if not (isinstance(digest, str) and len(digest) == 64 and set(digest) <= set(HEX)):
        raise DamagedStream("section 'codec' is missing")
    beside = path.parent / codec_file_name(digest)
    if codec_file is None and not beside.is_file():
        codec_file = shipped_file(digest)
        if codec_file is None:
            raise InputError(
                f"needs the codec file {beside.name} beside it, or --codec_file; no codec that "
                "comes with this version of hloc_dpqed is it"
            )
    return codec_file or beside, digest


def _code_columns(metadata: dict[str, Any]) -> int:
    """Bytes of a code, as the metadata announce it."""
    return _spec("U8", metadata["codes"])[1][1]


def _check_announced(metadata: dict[str, Any], size: int) -> None:
    """Refuse a file that announces more than it can hold, before anything is made of it."""
    counts = metadata["counts"]
    if len(counts) != 3 or not all(type(n) is int and 0 <= n < 1 << 31 for n in counts):
        raise DamagedStream("its counts are impossible")
    if _decoded_bytes(metadata) > MAX_EXPANSION * size:
        raise DamagedStream("it announces more data than a file of this size holds")


def _decode(
    metadata: dict[str, Any], sections: dict[str, bytes], size: int, code_size: int
) -> dict[str, Any]:
    """What of a ``CompressedMap`` needs no codec, checked, by field."""
    limit = MAX_EXPANSION * size
    images, points, observations = metadata["counts"]
    granularity = metadata["granularity"]
    if granularity not in GRANULARITIES:
        raise DamagedStream("its granularity is unknown")
    rows = points if granularity == "point" else observations

    frame = _decode_frame(metadata)
    error, core = metadata["points"]["xyz_error"], metadata["points"]["core"]
    if not _positive(error) or type(core) is not int or not 4 <= core <= 19:
        raise DamagedStream("its grid of points is impossible")
    numbers = decode_points(sections["points"], points)
    cells = cells_of_morton(numbers)
    xyz = Grid(frame, float(error), core).coordinates(cells)
    neighbours = metadata["visibility"]["neighbours"]
    if type(neighbours) is not int or not 1 <= neighbours <= MAX_NEIGHBOURS:
        raise DamagedStream("its number of neighbours is impossible")
    visibility = decode_tracks(sections["visibility"], cells, images, observations, neighbours)
    if "order" in sections:
        kind = "U16" if points <= 1 << 16 else "U32"
        order = decode_arrays(sections["order"], [(kind, (points,))])[0].astype(np.int64)
        if (np.sort(order) != np.arange(points)).any():
            raise DamagedStream("its order of points is no permutation")
        xyz = xyz[np.argsort(order)]
        visibility = renumber(visibility, order)

    spec = metadata["poses"]
    pixel_error = spec["pixel_error"]
    if type(pixel_error) not in (int, float) or not math.isfinite(pixel_error):
        raise DamagedStream("its error of poses is impossible")
    if not _positive(spec["rotation_step"]) or not _positive(spec["centre_step"]):
        raise DamagedStream("its grid of poses is impossible")
    pose_grid = PoseGrid(float(spec["rotation_step"]), float(spec["centre_step"]))
    if metadata["format_version"] == 1:  # poses stood in the map's frame
        frame = Frame(np.zeros(3), np.array([1.0, 0, 0, 0]))
    poses = frame.poses_in_map(*decode_cameras_in_frame(sections["poses"], images, pose_grid))
    if not (np.isfinite(xyz).all() and np.isfinite(poses).all()):
        raise DamagedStream("its coordinates are not finite")
    cameras, camera_index = decode_cameras(sections["cameras"], images, limit)
    if metadata["codes"] != [rows, code_size]:
        raise DamagedStream("its codes are not those of its codec")
    scores = np.ones(rows, np.float32)
    if "scores" in sections:
        scores = _decode_scores(sections["scores"], rows, metadata["scores"])
    return {
        "image_names": decode_names(sections["names"], images, limit),
        "cameras": cameras,
        "camera_index": np.array(camera_index, np.int32),
        "cam_from_world": poses,
        "xyz": xyz,
        "visibility": visibility,
        "granularity": granularity,
        "codes": decode_arrays(sections["codes"], [_spec("U8", metadata["codes"])])[0],
        "scores": scores,
    }


def _decode_frame(metadata: dict[str, Any]) -> Frame:
    """Of a file of version 1: an origin and the map's axes."""
    old = metadata["format_version"] == 1
    origin = metadata["points" if old else "frame"]["origin"]
    quat = [1, 0, 0, 0] if old else metadata["frame"]["rotation"]
    if not all(type(x) in (int, float) for x in (*origin, *quat)):
        raise DamagedStream("its frame is impossible")
    origin, quat = np.array(origin, np.float64), np.array(quat, np.float64)
    if origin.shape != (3,) or not np.isfinite(origin).all():
        raise DamagedStream("its frame is impossible")
    if quat.shape != (4,) or not abs(np.linalg.norm(quat) - 1) <= 1e-6:
        raise DamagedStream("its frame is impossible")
    return Frame(origin, quat)


def _decode_global_codes(
    metadata: dict[str, Any], sections: dict[str, bytes], code_size: int
) -> np.ndarray:
    shape = metadata["global"]["codes"]
    if shape != [metadata["counts"][0], code_size]:
        raise DamagedStream("its global codes are not those of their codec")
    return decode_arrays(sections["global.codes"], [_spec("U8", shape)])[0]


def _positive(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value > 0


def section_bytes(path: Path) -> dict[str, int]:
    """Bytes of each section of the file; they add up to the file's size.

    ``header`` is all that is no section: the container, the metadata and the hashes.
    """
    _, sections, size = _load(path)
    return _section_bytes(sections, size)


def _section_bytes(sections: dict[str, bytes], size: int) -> dict[str, int]:
    sizes = {name: len(data) for name, data in sorted(sections.items())}
    sizes["header"] = size - sum(sizes.values())
    return sizes


def group_bytes(sections: dict[str, int]) -> dict[str, int]:
    """Bytes of each group of sections that there is; ``other`` is what is in none."""
    groups = {
        group: sum(sections.get(name, 0) for name in names)
        for group, names in GROUPS.items()
        if any(name in sections for name in names)
    }
    groups["other"] = sum(sections.values()) - sum(groups.values())
    return groups


def map_info(path: Path, codec_file: Path | None = None) -> dict[str, Any]:
    """What ``hloc-dpqed info --json`` prints; arguments as of ``read_map``."""
    metadata, loaded, size = _load(path)
    with _told_of(path):
        _check_announced(metadata, size)
        # All but the codecs is read as ``read_map`` does: those would load torch or faiss.
        spec, digest = metadata["codec"], None
        if "codec" in loaded:
            _codec_tensors(loaded["codec"], spec)
        else:
            file, digest = _shared_codec(spec, Path(path), codec_file)
            spec = dict(zip(("name", "config"), read_codec_parts(file, digest), strict=False))
        dim, code_size = _sizes(spec)
        if digest is not None and spec["name"] in HEADED:
            code_size = min(code_size, _code_columns(metadata))
        parts = _decode(metadata, loaded, size, code_size)
        if "global.codes" in loaded:
            other = metadata["global"]["codec"]
            _codec_tensors(loaded["global.codec"], other)
            _decode_global_codes(metadata, loaded, _sizes(other)[1])
        sections = _section_bytes(loaded, size)
        total = sum(sections.values())
        return {
            "format_version": metadata["format_version"],
            "num_points": len(parts["xyz"]),
            "num_places": len(np.unique(places_of(parts["xyz"], parts["visibility"]))),
            "num_images": len(parts["image_names"]),
            "num_observations": parts["visibility"].num_observations,
            "codec": spec["name"],
            "code_bytes": code_size,
            "descriptor_dim": dim,
            "granularity": parts["granularity"],
            "sections": sections,
            "descriptor_bytes": sections["codes"],
            "codec_bytes": sections.get("codec", 0),
            "total_bytes": total,
            "distinct_codes": len(np.unique(parts["codes"], axis=0)),
            "groups": group_bytes(sections),
            "xyz_error": metadata["points"]["xyz_error"],
            "pose_pixel_error": metadata["poses"]["pixel_error"],
            "codec_hash": digest,
            "made": metadata["made"],
        }


def _sizes(spec: dict[str, Any]) -> tuple[int, int]:
    """Dimension and bytes of a code, as a codec's settings state them."""
    dim, code_size = spec["config"]["dim"], spec["config"]["code_size"]
    if not all(type(n) is int and n >= 1 for n in (dim, code_size)):
        raise DamagedStream("its codec's sizes are impossible")
    return dim, code_size
