"""What is put into hloc's modules, so that they read map files, and how it is put back."""

import contextlib
import functools
import inspect
import multiprocessing
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap

from ..errors import InputError
from ..io.colmap_database import is_database
from ..localization.local_frame import LocalFrame
from ..mapfile import read_map
from ..maps.reconstruction import to_reconstruction
from ..matching.hloc_models import View, adalam_class, hloc_module
from ..matching.learned import quantized
from .checks import check_matching, check_query_sizes, read_hloc_pairs
from .database_copy import feature_file_of
from .feature_store import FeatureStore, is_map_file
from .model import model_of_map

STAGES = (
    "match_features",
    "localize_sfm",
    "pairs_from_retrieval",
    "pairs_from_covisibility",
    "pairs_from_poses",
    "visualization",
)


class MapPath(type(Path())):  # type: ignore[misc]
    """Path of a map file that installs the bridge in the worker processes it is sent to.

    A worker that was spawned imports hloc afresh, without the bridge; hloc's dataset carries the
    path there.
    """

    def __reduce__(self) -> Any:
        return _map_path, (os.fspath(self),)


def _map_path(path: str) -> MapPath:
    # A spawned process knows its parent only after it has received what it shall run, of which the
    # path is a part; its name it knows before.
    is_worker = (
        multiprocessing.parent_process() is not None
        or multiprocessing.current_process().name != "MainProcess"
    )
    if is_worker and not _replaced:
        install()
    return MapPath(path)


def _as_path(path: Any) -> Any:
    """Map files as ``MapPath``; everything else as it is."""
    return MapPath(path) if is_map_file(path) else path


def _opener(
    real: type, open_map: Callable[..., Any], other: Callable[[Any], Any] = lambda path: path
) -> type:
    """A class that stands for ``real``: called with a map file it calls ``open_map`` instead, and
    with another path opens what ``other`` makes of it."""

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if args and is_map_file(args[0]):
                return open_map(*args, **kwargs)
            if args:
                args = (other(args[0]), *args[1:])
            return real(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real)

    return Meta(real.__name__, (), {"__doc__": real.__doc__})


def _plain_path(path: Any) -> Any:
    """The copy of a COLMAP database in hloc's layout; everything else as it is."""
    named = isinstance(path, (str, os.PathLike))
    return feature_file_of(path) if named and is_database(Path(path)) else path


def _open_store(path: Any, mode: str | None = "r", *_: Any, **__: Any) -> FeatureStore:
    return FeatureStore(path, mode or "r")


def _open_model(path: Any, *_: Any, **__: Any) -> pycolmap.Reconstruction:
    return to_reconstruction(read_map(Path(path)))


def _wrap_match_from_paths(
    original: Callable[..., Any], allow_other_extractor: bool
) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def match_from_paths(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        for key in ("feature_path_q", "feature_path_ref"):
            call.arguments[key] = _as_path(call.arguments[key])
        reference = call.arguments["feature_path_ref"]
        if isinstance(reference, MapPath):
            check_matching(
                reference,
                call.arguments["feature_path_q"],
                call.arguments["pairs_path"],
                allow_other_extractor,
            )
            conf = call.arguments["conf"]
            if conf["model"]["name"] == "dpqed":
                model = {"map": os.fspath(reference), **conf["model"]}
                call.arguments["conf"] = {**conf, "model": model}
        return original(*call.args, **call.kwargs)

    return match_from_paths


def _wrap_read_images(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read_images_binary(path: Any) -> Any:
        # hloc looks for images.bin in the folder that it takes the map for.
        if Path(path).name == "images.bin" and is_map_file(Path(path).parent):
            return model_of_map(read_map(Path(path).parent))[1]
        return original(path)

    return read_images_binary


def _wrap_read_model(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def read_model(path: Any, *args: Any, **kwargs: Any) -> Any:
        if is_map_file(path):
            return model_of_map(read_map(Path(path)))
        return original(path, *args, **kwargs)

    return read_model


def _wrap_main(original: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """hloc's ``main`` that also takes the arguments ``names`` as str, where they are map files."""
    signature = inspect.signature(original)

    @functools.wraps(original)
    def main(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        for name in names:
            if name in call.arguments:
                call.arguments[name] = _as_path(call.arguments[name])
        return original(*call.args, **call.kwargs)

    return main


_row_counts: ContextVar[Mapping[str, int] | None] = ContextVar("_row_counts", default=None)


def _wrap_localize_main(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    @functools.wraps(original)
    def main(*args: Any, **kwargs: Any) -> Any:
        call = signature.bind(*args, **kwargs)
        if not is_map_file(call.arguments["reference_sfm"]):
            return original(*call.args, **call.kwargs)
        check_query_sizes(call.arguments["queries"], call.arguments["features"])
        read_hloc_pairs(call.arguments["retrieval"])
        model = _open_model(call.arguments["reference_sfm"])
        call.arguments["reference_sfm"] = model
        token = _row_counts.set({im.name: im.num_points2D() for im in model.images.values()})
        try:
            return original(*call.args, **call.kwargs)
        finally:
            _row_counts.reset(token)

    return main


def _wrap_get_matches(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def get_matches(path: Any, name0: str, name1: str) -> Any:
        matches, scores = original(path, name0, name1)
        counts = _row_counts.get()
        if counts is not None and len(matches) and matches[:, 1].max() >= counts[name1]:
            raise InputError(
                f"{path}: {name0!r} is matched to row {int(matches[:, 1].max())} of {name1!r}, but "
                f"the map has {counts[name1]} rows for it; match again with features_ref=MAP"
            )
        return matches, scores

    return get_matches


def _estimate_in_local_frame(
    points2D: Any,
    points3D: Any,
    camera: pycolmap.Camera,
    estimation_options: Any = None,
    refinement_options: Any = None,
    **others: Any,
) -> Any:
    """pycolmap's function, in a local frame where hloc localizes with a georeferenced map."""
    options = {"estimation_options": estimation_options, "refinement_options": refinement_options}
    options = {name: value for name, value in options.items() if value is not None} | others
    xyz = np.array(points3D, np.float64).reshape(-1, 3)
    frame = LocalFrame.around(xyz)
    if _row_counts.get() is None or not frame.is_needed():
        return pycolmap.estimate_and_refine_absolute_pose(points2D, points3D, camera, **options)
    if isinstance(refinement_options, dict):
        options["refinement_options"] = frame.refinement(refinement_options)
    answer = pycolmap.estimate_and_refine_absolute_pose(
        points2D, frame.points(xyz), camera, **options
    )
    if answer is not None:
        answer["cam_from_world"] = frame.pose_in_map(answer["cam_from_world"])
    return answer


def _matcher_module(name: str, cls: type) -> types.ModuleType:
    """A module with one matcher, as hloc's ``dynamic_load`` looks for it."""
    module = types.ModuleType(f"hloc.matchers.{name}", cls.__doc__)
    cls.__module__ = module.__name__
    setattr(module, cls.__name__, cls)
    return module


def _symmetric_class() -> type:
    base_model: Any = hloc_module("utils.base_model")
    matchers = hloc_module("matchers")

    class Symmetric(base_model.BaseModel):
        """Another matcher, given the queries' descriptors as the map's codec would store them."""

        default_conf: dict[str, Any] = {"matcher": None, "map": None}  # noqa: RUF012
        required_inputs = ["descriptors0", "descriptors1"]  # noqa: RUF012

        def _init(self, conf: dict[str, Any]) -> None:
            if conf["map"] is None:
                raise InputError("symmetric matching needs a map file as features_ref")
            self.codec = read_map(Path(conf["map"])).codec
            model = base_model.dynamic_load(matchers, conf["matcher"]["name"])
            self.net = model(conf["matcher"])

        def _forward(self, data: dict[str, Any]) -> Any:
            import torch

            x = data["descriptors0"]
            rows = quantized(self.codec, x[0].T.cpu().numpy()).T
            return self.net({**data, "descriptors0": torch.from_numpy(rows)[None].to(x.device)})

    return Symmetric


def _confs(confs: dict[str, Any]) -> dict[str, Any]:
    """hloc's match configurations and ours."""
    ours = {}
    for name, conf in confs.items():
        ours[f"dpqed-{name}"] = {**conf, "output": f"{conf['output']}-dpqed"}
        ours[f"dpqed-symmetric-{name}"] = {
            "output": f"{conf['output']}-dpqed-symmetric",
            "model": {"name": "dpqed", "matcher": conf["model"]},
        }
    return {**confs, **ours}


# --- install and uninstall -------------------------------------------------------------------

_MISSING = object()
_replaced: list[tuple[Any, str, Any]] = []


def _replace(owner: Any, name: str, value: Any) -> None:
    """Set an attribute (or, of a dict, an item) and remember what was there."""
    if isinstance(owner, dict):
        _replaced.append((owner, name, owner.get(name, _MISSING)))
        owner[name] = value
    else:
        _replaced.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)


def install(allow_other_extractor: bool = False) -> None:
    """Let hloc's functions accept map files, until ``uninstall``. Twice is as once.

    Args:
        allow_other_extractor: only warn where the queries' features are of another extractor than
            the map's, instead of refusing to match them.

    Raises:
        InputError: hloc is not installed, or is not the hloc that this was written for.
    """
    if _replaced:
        return
    import h5py

    h5py_view = View(h5py, File=_opener(h5py.File, _open_store, _plain_path))
    pycolmap_view = View(pycolmap, Reconstruction=_opener(pycolmap.Reconstruction, _open_model))
    stages = {name: hloc_module(name) for name in STAGES if name != "visualization"}
    # Drawing needs matplotlib, which a robot may lack.
    with contextlib.suppress(InputError):
        stages["visualization"] = hloc_module("visualization")
    stages["utils.io"] = hloc_module("utils.io")
    try:
        for name in ("match_features", "utils.io", "pairs_from_retrieval"):
            _replace(stages[name], "h5py", h5py_view)
        if "visualization" in stages:
            _replace(stages["visualization"], "pycolmap", pycolmap_view)
        local = {"estimate_and_refine_absolute_pose": _estimate_in_local_frame}
        solving = View(pycolmap, Reconstruction=pycolmap_view.Reconstruction, **local)
        _replace(stages["localize_sfm"], "pycolmap", solving)
        wrappers: list[tuple[str, str, Callable[..., Any]]] = [
            (
                "match_features",
                "match_from_paths",
                lambda f: _wrap_match_from_paths(f, allow_other_extractor),
            ),
            ("match_features", "confs", _confs),
            ("localize_sfm", "main", _wrap_localize_main),
            ("localize_sfm", "get_matches", _wrap_get_matches),
            ("pairs_from_retrieval", "read_images_binary", _wrap_read_images),
            ("pairs_from_retrieval", "main", lambda f: _wrap_main(f, "db_model")),
            ("pairs_from_poses", "read_images_binary", _wrap_read_images),
            ("pairs_from_poses", "main", lambda f: _wrap_main(f, "model")),
            ("pairs_from_covisibility", "read_model", _wrap_read_model),
        ]
        for stage, name, wrap in wrappers:
            _replace(stages[stage], name, wrap(getattr(stages[stage], name)))
        for name, cls in (("adalam", adalam_class()), ("dpqed", _symmetric_class())):
            _replace(sys.modules, f"hloc.matchers.{name}", _matcher_module(name, cls))
    except AttributeError as error:
        uninstall()
        raise InputError(f"this hloc is not one that the bridge knows: {error}") from error


def uninstall() -> None:
    """Put back what ``install`` replaced."""
    while _replaced:
        owner, name, value = _replaced.pop()
        if not isinstance(owner, dict):
            setattr(owner, name, value)
        elif value is _MISSING:
            owner.pop(name, None)
        else:
            owner[name] = value


@contextlib.contextmanager
def installed(allow_other_extractor: bool = False) -> Iterator[None]:
    """``install`` for the block; inside an outer ``install`` it changes nothing."""
    if _replaced:
        yield
        return
    install(allow_other_extractor)
    try:
        yield
    finally:
        uninstall()
