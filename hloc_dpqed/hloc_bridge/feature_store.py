"""A map file that reads like the feature file that hloc would have opened.

``FeatureStore(path)`` answers like ``h5py.File(path, "r")`` of a local feature file (and of a
global one, where the map holds global descriptors), with one group for each database image:

- ``keypoints``: (N, 2) float32 projections of the image's points, pixel centres at integers;
- ``descriptors``: (D, N) float32, decoded on read, columns L2-normalised;
- ``scores``: (N,) float32;
- ``image_size``: (2,) int64, width and height;
- ``global_descriptor``: (Dg,) float32, decoded, L2-normalised.

Row i is row i of ``image_rows``. Maps are loaded once in each process, at the first read, and
decoded descriptors are kept in a cache of bounded size.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import h5py
import numpy as np

from ..errors import InputError
from ..mapfile import read_map
from ..maps.compressed import CompressedMap
from ..maps.image_rows import ImageRows, image_rows
from ..maps.same_features import features_of
from ..threads import single_threaded

CACHE_BYTES = 64_000_000
MAX_LOADED_MAPS = 2
LOCAL_DATASETS = ("descriptors", "image_size", "keypoints", "scores")


class NotInMapError(InputError, KeyError):
    """A name that the map has not; a ``KeyError`` too, as h5py would raise."""

    def __str__(self) -> str:
        return str(self.args[0])


def is_map_file(path: Any) -> bool:
    """Whether ``path`` is a file that begins as a map file (and not, say, as HDF5) does."""
    try:
        with open(os.fspath(path), "rb") as file:  # fspath refuses file descriptors
            head = file.read(9)
    except (OSError, TypeError, ValueError):
        return False
    # A safetensors container: the length of its JSON header, at most 100 MB, and the header.
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000


class _LoadedMap:
    """A map in the memory of this process, with what was computed from it last."""

    def __init__(self, path: Path):
        self.path = path
        self.map: CompressedMap = read_map(path)
        self.tree = _tree(self.map.image_names)
        self._cache: OrderedDict[tuple[str, int], tuple[Any, int]] = OrderedDict()
        self._cached_bytes = 0

    def cached(self, key: tuple[str, int], limit: int, make: Callable[[], Any]) -> Any:
        """The value of ``key``, made where it is not cached; the least recently used go first."""
        with _lock:
            if key in self._cache:
                self._cache.move_to_end(key)
                return self._cache[key][0]
        value = make()
        arrays = value if isinstance(value, tuple) else (value,)
        size = sum(array.nbytes for array in arrays)
        with _lock:
            if key not in self._cache:
                self._cache[key] = (value, size)
                self._cached_bytes += size
            while self._cached_bytes > limit and self._cache:
                self._cached_bytes -= self._cache.popitem(last=False)[1][1]
        return value

    def rows(self, image: int, limit: int) -> ImageRows:
        return self.cached(("rows", image), limit, lambda: image_rows(self.map, image))

    def descriptors(self, image: int, limit: int) -> np.ndarray:
        """(D, N) float32."""

        def decode() -> np.ndarray:
            codes = self.map.codes[self.rows(image, limit).codes]
            with single_threaded():
                return np.ascontiguousarray(self.map.codec.decode(codes).T, np.float32)

        return self.cached(("descriptors", image), limit, decode)

    def global_descriptor(self, image: int) -> np.ndarray:
        """(Dg,) float32."""
        stored = self.map.global_descriptors
        assert stored is not None
        with single_threaded():
            return np.asarray(stored.codec.decode(stored.codes[image : image + 1])[0], np.float32)


def _tree(names: list[str]) -> dict[str, Any]:
    """Image names as nested groups: a dict for each part of a path, the image row under ''."""
    root: dict[str, Any] = {}
    for row, name in enumerate(names):
        node = root
        for part in _parts(name):
            node = node.setdefault(part, {})
        node[""] = row
    return root


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


_loaded: OrderedDict[tuple[str, int, int, int], _LoadedMap] = OrderedDict()


_lock = threading.Lock()


def _new_lock() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    # Another thread of the parent may hold the lock at the moment of the fork.
    os.register_at_fork(after_in_child=_new_lock)


def _load(path: Path) -> _LoadedMap:
    """The map at ``path``, loaded at most once in a process as long as the file is the same.

    hloc opens the feature file again for each pair of images.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise InputError(f"{path}: no such file, expected a map file") from error
    key = (str(path.resolve()), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    with _lock:
        if key in _loaded:
            _loaded.move_to_end(key)
            return _loaded[key]
    loaded = _LoadedMap(path)
    with _lock:
        _loaded[key] = loaded
        while len(_loaded) > MAX_LOADED_MAPS:
            _loaded.popitem(last=False)
    return loaded


class StoredDataset:
    """One dataset of an image, computed when read. Reads give copies, as h5py's do.

    ``isinstance(dataset, h5py.Dataset)`` holds, since hloc asks for it.
    """

    __class__ = property(lambda self: h5py.Dataset)  # type: ignore[assignment]

    def __init__(self, group: "StoredGroup", key: str, image: int):
        self._key, self._image = key, image
        self.parent, self.file = group, group.file
        self.name = f"{group.name.rstrip('/')}/{key}"

    def _value(self) -> np.ndarray:
        loaded, limit = self.file._open(), self.file.cache_bytes
        if self._key == "descriptors":
            return loaded.descriptors(self._image, limit)
        if self._key == "keypoints":
            return loaded.rows(self._image, limit).keypoints
        if self._key == "scores":
            return loaded.map.scores[loaded.rows(self._image, limit).codes]
        if self._key == "global_descriptor":
            return loaded.global_descriptor(self._image)
        camera = loaded.map.cameras[loaded.map.camera_index[self._image]]
        return np.array([camera.width, camera.height], np.int64)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.int64 if self._key == "image_size" else np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        loaded = self.file._open()
        if self._key in ("image_size", "global_descriptor"):
            return self._value().shape
        count = len(loaded.rows(self._image, self.file.cache_bytes).points)
        return {"keypoints": (count, 2), "descriptors": (loaded.map.codec.dim, count)}.get(
            self._key, (count,)
        )

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    @property
    def attrs(self) -> Mapping[str, Any]:
        """``uncertainty`` of the keypoints in pixels, where the feature file told it."""
        uncertainty = features_of(self.file.compressed).get("keypoint_uncertainty")
        if self._key != "keypoints" or uncertainty is None:
            return MappingProxyType({})
        return MappingProxyType({"uncertainty": float(uncertainty)})

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self._value(), dtype=dtype, copy=True)

    def __getitem__(self, key: Any) -> Any:
        return np.array(self._value()[key]) if key != () else self.__array__()

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__array__())

    def __repr__(self) -> str:
        return f'<stored dataset "{self._key}": shape {self.shape}, type "{self.dtype}">'


class StoredGroup(Mapping[str, Any]):
    """A group: an image, or a folder of images (names hold '/' as HDF5 paths do)."""

    __class__ = property(lambda self: h5py.Group)  # type: ignore[assignment]

    def __init__(self, file: "FeatureStore", parts: tuple[str, ...]):
        self.file = file
        self._path = parts

    @property
    def name(self) -> str:
        return "/" + "/".join(self._path)

    @property
    def parent(self) -> "StoredGroup":
        return self.file._group(self._path[:-1])

    @property
    def attrs(self) -> Mapping[str, Any]:
        return MappingProxyType({})

    def _node(self) -> dict[str, Any]:
        node = self.file._open().tree
        for part in self._path:
            node = node[part]
        return node

    def _datasets(self, node: dict[str, Any]) -> tuple[str, ...]:
        if "" not in node:
            return ()
        with_global = self.file._open().map.global_descriptors is not None
        return (*LOCAL_DATASETS, "global_descriptor") if with_global else LOCAL_DATASETS

    def _find(self, name: str) -> "StoredGroup | StoredDataset | None":
        """What lies at ``name``, or None."""
        if not isinstance(name, str):
            raise TypeError(f"a group is read with str, not {type(name).__name__}")
        path = () if name.startswith("/") else self._path
        node = self.file._open().tree if name.startswith("/") else self._node()
        parts = _parts(name)
        for i, part in enumerate(parts):
            if part in node:
                node, path = node[part], (*path, part)
            elif i == len(parts) - 1 and part in self._datasets(node):
                return StoredDataset(self.file._group(path), part, node[""])
            else:
                return None
        return self.file._group(path)

    def __getitem__(self, name: str) -> Any:
        found = self._find(name)
        if found is None:
            raise NotInMapError(self._missing(name))
        return found

    def _missing(self, name: str) -> str:
        where = f"{self.file.filename}: "
        node = self._node()
        if "" not in node:
            names = self.file._open().map.image_names
            asked = "/".join((*self._path, *_parts(name)))
            return (
                f"{where}image {asked!r} is not in the map, which has {len(names):,} images such "
                f"as {names[0]!r}"
                if names
                else f"{where}the map has no image"
            )
        image = f"image {'/'.join(self._path)!r}"
        if name == "global_descriptor":
            return f"{where}{image}: the map has no global descriptors, see --global_features"
        return f"{where}{image} has no {name!r}, only {', '.join(self._datasets(node))}"

    def get(self, name: str, default: Any = None) -> Any:
        found = self._find(name)
        return default if found is None else found

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(name) is not None

    def __iter__(self) -> Iterator[str]:
        node = self._node()
        names = [*(part for part in node if part), *self._datasets(node)]
        return iter(sorted(names, key=str.encode))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def visititems(self, func: Callable[[str, Any], Any]) -> Any:
        """Call ``func(name, object)`` for all below, depth first, until it returns not None."""
        return self._visit(func, "")

    def visit(self, func: Callable[[str], Any]) -> Any:
        """Call ``func(name)`` for all below, depth first, until it returns not None."""
        return self._visit(lambda name, _: func(name), "")

    def _visit(self, func: Callable[[str, Any], Any], prefix: str) -> Any:
        for name, item in self.items():
            result = func(prefix + name, item)
            if result is None and isinstance(item, StoredGroup):
                result = item._visit(func, f"{prefix}{name}/")
            if result is not None:
                return result
        return None

    def _read_only(self, *_: Any, **__: Any) -> Any:
        raise InputError(f"{self.file.filename}: a map is read-only")

    create_group = create_dataset = require_group = require_dataset = _read_only
    __setitem__ = __delitem__ = _read_only

    def __eq__(self, other: object) -> bool:
        return (
            type(other) is type(self)
            and isinstance(other, StoredGroup)
            and (self.file.filename, self._path) == (other.file.filename, other._path)
        )

    def __hash__(self) -> int:
        return hash((self.file.filename, self._path))

    def __repr__(self) -> str:
        return f'<stored group "{self.name}" ({len(self)} members)>'


class FeatureStore(StoredGroup):
    """A map file, answering like the ``h5py.File`` of the features that it was made from.

    Opening is cheap: the file is read at the first access, in each process once, so a store may be
    opened before a fork, in a worker, or sent to another process. Descriptors are decoded in the
    calling thread alone (see ``threads.single_threaded``).

    Args:
        path: the map file.
        mode: 'r', the only mode.
        cache_bytes: how much the decoded descriptors that are kept may take.
        libver: accepted and ignored, for hloc passes it.

    Raises:
        InputError: no such file, or a mode to write in; at the first access, a damaged file.
        NotInMapError: (an ``InputError`` and a ``KeyError``) a name that is not in the map.
    """

    __class__ = property(lambda self: h5py.File)  # type: ignore[assignment]
    mode = "r"

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: str = "r",
        *,
        cache_bytes: int = CACHE_BYTES,
        libver: Any = None,
    ):
        self.filename = os.fspath(path)
        if mode != "r":
            raise InputError(f"{path}: a map is read-only, but it was opened with mode {mode!r}")
        if not os.path.isfile(path):
            raise InputError(f"{path}: no such file, expected a map file")
        self.cache_bytes = cache_bytes
        self._map: _LoadedMap | None = None
        self._closed = False
        super().__init__(self, ())

    def _open(self) -> _LoadedMap:
        if self._closed:
            raise InputError(f"{self.filename}: the store is closed")
        if self._map is None:
            self._map = _load(Path(self.filename))
        return self._map

    def _group(self, parts: tuple[str, ...]) -> StoredGroup:
        return StoredGroup(self, parts) if parts else self

    @property
    def attrs(self) -> Mapping[str, Any]:
        """``extractor``, where the feature file told it."""
        extractor = features_of(self.compressed).get("extractor")
        return MappingProxyType({} if extractor is None else {"extractor": extractor})

    @property
    def compressed(self) -> CompressedMap:
        """The map itself."""
        return self._open().map

    def close(self) -> None:
        """Let go of the map; what was read stays valid."""
        self._closed, self._map = True, None

    def __enter__(self) -> "FeatureStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __bool__(self) -> bool:
        return not self._closed

    def __reduce__(self) -> Any:
        return _reopen, (self.filename, self.cache_bytes)

    def __repr__(self) -> str:
        return f'<feature store "{self.filename}"{" (closed)" if self._closed else ""}>'


def _reopen(path: str, cache_bytes: int) -> FeatureStore:
    return FeatureStore(path, cache_bytes=cache_bytes)
