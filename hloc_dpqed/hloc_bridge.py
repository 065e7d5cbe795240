"""Let unmodified hloc read map files. The only module that imports hloc.

After ``install()``, and inside ``with installed():``, these accept a map file wherever they accept
a feature file or a COLMAP model, as ``Path`` or ``str``:

- ``hloc.match_features``: ``main`` and ``match_from_paths`` (``features_ref``);
- ``hloc.localize_sfm.main`` (``reference_sfm``);
- ``hloc.pairs_from_retrieval.main`` (``db_descriptors``, ``db_model``);
- ``hloc.pairs_from_covisibility.main`` and ``hloc.pairs_from_poses.main`` (``model``);
- ``hloc.visualization`` (``reconstruction``);
- ``hloc.utils.io``: ``get_keypoints`` and ``list_h5_names``.

Only attributes of hloc's modules are replaced; ``uninstall`` puts back what was there. Written
against hloc 1.5 (commit c13273b); tests/hloc_contract.py lists what is relied on.

``match_features.confs`` gains ``dpqed-NAME`` for each configuration NAME (the same matcher, with
a match file of another name) and ``dpqed-symmetric-NAME``, which quantizes the queries' descriptors
with the map's codec too. From a shell::

    python -m hloc_dpqed.hloc_bridge match_features --conf dpqed-NN-mutual --pairs PAIRS \
        --features QUERIES.h5 --features_ref MAP.dpqed --matches MATCHES.h5
"""

import argparse
import contextlib
import functools
import importlib
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

from .compressed_map import CompressedMap
from .errors import InputError
from .feature_store import FeatureStore, is_map_file
from .image_rows import check_matchable, image_rows
from .io.features import FeatureFile, feature_kind
from .io.lists import read_lines, read_queries
from .io.reconstruction import to_reconstruction
from .localization.pose import LocalFrame
from .mapfile import read_map
from .same_features import OVERRIDE, check_dimension, check_extractor
from .same_image import check_query_size

UNIT_WITHIN = 0.1  # of 1, the length of a descriptor that rounding may give
STAGES = (
    "match_features",
    "localize_sfm",
    "pairs_from_retrieval",
    "pairs_from_covisibility",
    "pairs_from_poses",
    "visualization",
)


def hloc_module(name: str = "") -> types.ModuleType:
    """Import ``hloc`` or one of its modules.

    Raises:
        InputError: it is not installed, or something that it needs is not.
    """
    try:
        importlib.import_module("hloc")
    except ImportError as error:
        raise InputError(
            "hloc is not installed: git clone --recursive "
            "https://github.com/cvg/Hierarchical-Localization, then pip install -e that folder "
            "(hloc is not on the package index)"
        ) from error
    full = f"hloc.{name}" if name else "hloc"
    try:
        return importlib.import_module(full)
    except ImportError as error:
        raise InputError(f"{full} cannot be imported: {error}") from error


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


class _View(types.ModuleType):
    """A module seen through hloc's eyes: its attributes, some of them replaced."""

    def __init__(self, module: types.ModuleType, **replaced: Any):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(replaced)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def _opener(real: type, open_map: Callable[..., Any]) -> type:
    """A class that stands for ``real``: called with a map file it calls ``open_map`` instead."""

    class Meta(type):
        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            if args and is_map_file(args[0]):
                return open_map(*args, **kwargs)
            return real(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, real)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, real)

    return Meta(real.__name__, (), {"__doc__": real.__doc__})


def _open_store(path: Any, mode: str | None = "r", *_: Any, **__: Any) -> FeatureStore:
    return FeatureStore(path, mode or "r")


def _open_model(path: Any, *_: Any, **__: Any) -> pycolmap.Reconstruction:
    return to_reconstruction(read_map(Path(path)))


def model_of_map(compressed: CompressedMap) -> tuple[dict, dict, dict]:
    """The map as hloc's ``read_model`` gives a COLMAP model: cameras, images, points3D by id."""
    rw = hloc_module("utils.read_write_model")
    cameras = {
        i + 1: rw.Camera(i + 1, c.model.name, c.width, c.height, np.array(c.params))
        for i, c in enumerate(compressed.cameras)
    }
    images = {}
    image_ids: list[list[int]] = [[] for _ in range(compressed.num_points)]
    indices: list[list[int]] = [[] for _ in range(compressed.num_points)]
    for i, name in enumerate(compressed.image_names):
        rows = image_rows(compressed, i)
        pose = pycolmap.Rigid3d(compressed.cam_from_world[i])
        images[i + 1] = rw.Image(
            id=i + 1,
            qvec=pose.rotation.quat[[3, 0, 1, 2]],
            tvec=pose.translation,
            camera_id=int(compressed.camera_index[i]) + 1,
            name=name,
            xys=rows.keypoints.astype(np.float64) + 0.5,
            point3D_ids=rows.points.astype(np.int64) + 1,
        )
        for j, point in enumerate(rows.points.tolist()):
            image_ids[point].append(i + 1)
            indices[point].append(j)
    points = {
        p + 1: rw.Point3D(
            id=p + 1,
            xyz=compressed.xyz[p],
            rgb=np.zeros(3, np.uint8),
            error=np.array(-1.0),
            image_ids=np.array(image_ids[p], np.int64),
            point2D_idxs=np.array(indices[p], np.int64),
        )
        for p in range(compressed.num_points)
    }
    return cameras, images, points


# --- what is put into hloc's modules ---------------------------------------------------------


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


def check_matching(
    reference: Path, queries: Any, pairs: Path, allow_other_extractor: bool = False
) -> None:
    """Check that the pairs can be matched: a worker of hloc would fail with a long traceback.

    Raises:
        InputError: the pairs cannot be read or are the wrong way round, a name is not in its file,
            an image of the map has too many rows for hloc's match files, the queries' descriptors
            are not unit vectors, or are of another dimension or extractor.
    """
    io = hloc_module("utils.io")
    with FeatureStore(reference) as store, io.h5py.File(queries, "r") as features:
        named = read_hloc_pairs(pairs)
        if not any(name in store for references in named.values() for name in references) and all(
            name in store for name in named
        ):
            raise InputError(
                f"{pairs}: its first names are images of the map, expected `query reference`: the "
                "two names of each line are the wrong way round"
            )
        for name in dict.fromkeys(r for references in named.values() for r in references):
            check_matchable(name, len(store[name]["scores"]))
        for name in named:
            if name not in features:
                raise InputError(f"{queries}: image {name!r} of {pairs} is not in the feature file")
        for name in list(named)[:1]:
            dim = features[name]["descriptors"].shape[0]
            check_dimension(store.compressed, dim, f"{queries}: image {name!r}")
            lengths = np.linalg.norm(np.asarray(features[name]["descriptors"], np.float32), axis=0)
            if len(lengths) and (np.abs(lengths - 1) > UNIT_WITHIN).any():
                raise InputError(
                    f"{queries}: image {name!r} has descriptors of length {lengths.min():.3g} to "
                    f"{lengths.max():.3g}, but a map's have length 1 and hloc does not normalise "
                    "them: it would match the longest; `hloc-dpqed localize` does normalise"
                )
        if not is_map_file(queries):
            kind = feature_kind(Path(queries))
            check_extractor(store.compressed, kind, os.fspath(queries), allow_other_extractor)


def read_hloc_pairs(path: Any) -> dict[str, list[str]]:
    """A pairs file as hloc reads it.

    Raises:
        InputError: a line has not two words, where hloc would end with a traceback.
    """
    read_lines(Path(path), "a pairs file")  # there, and text
    try:
        return hloc_module("utils.parsers").parse_retrieval(path)
    except ValueError as error:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
        number, words = next(
            ((n, len(line.split())) for n, line in enumerate(lines, 1) if len(line.split()) != 2),
            (1, 0),
        )
        raise InputError(
            f"{path}:{number}: hloc reads two names separated by a space and nothing else (no "
            f"scores, no commas, no comments), found {words} words"
        ) from error


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


def check_query_sizes(queries: Any, features: Any) -> None:
    """Check that the queries' intrinsics are of their features' images: hloc does not compare.

    Raises:
        InputError: a query's camera is of another size than its features' ``image_size``.
    """
    if is_map_file(features):
        return
    with FeatureFile(Path(features)) as file:
        for name, camera in read_queries(Path(queries)):
            check_query_size(file.image_size(name), camera, f"{features}: image {name!r}")


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


def _adalam_class() -> type:
    base: Any = hloc_module("utils.base_model").BaseModel

    class AdaLAM(base):
        """AdaLAM that does without scales and orientations where an image has none."""

        default_conf: dict[str, Any] = {  # noqa: RUF012  (hloc's own form)
            "area_ratio": 100,
            "search_expansion": 4,
            "ransac_iters": 128,
            "min_inliers": 6,
            "min_confidence": 200,
            "orientation_difference_threshold": 30,
            "scale_rate_threshold": 1.5,
            "detected_scale_rate_threshold": 5,
            "refit": True,
            "force_seed_mnn": True,
        }
        required_inputs = [  # noqa: RUF012
            f"{key}{side}" for side in "01" for key in ("image", "descriptors", "keypoints")
        ]

        def _init(self, conf: dict[str, Any]) -> None:
            pass

        def _forward(self, data: dict[str, Any]) -> dict[str, Any]:
            import torch

            from .matching.adalam import adalam_matches

            count = data["keypoints0"].shape[1]
            matches0 = torch.full((1, count), -1, dtype=torch.int64)
            sides = [
                {
                    key: data[key + side][0]
                    for key in ("keypoints", "scales", "oris")
                    if key + side in data
                }
                | {
                    "descriptors": data["descriptors" + side][0].T,
                    "size": tuple(data["image" + side].shape[2:]),
                }
                for side in "01"
            ]
            found = adalam_matches(sides[0], sides[1], self.conf).cpu()
            matches0[0, found[:, 0]] = found[:, 1]
            return {"matches0": matches0, "matching_scores0": torch.zeros(1, count)}

    return AdaLAM


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

            from .matching.learned import quantized

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

    h5py_view = _View(h5py, File=_opener(h5py.File, _open_store))
    pycolmap_view = _View(pycolmap, Reconstruction=_opener(pycolmap.Reconstruction, _open_model))
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
        solving = _View(pycolmap, Reconstruction=pycolmap_view.Reconstruction, **local)
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
        for name, cls in (("adalam", _adalam_class()), ("dpqed", _symmetric_class())):
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


# --- hloc's matchers, for the package's own localizer ----------------------------------------


def hloc_matcher_confs() -> dict[str, Any]:
    """``hloc.match_features.confs``, without what ``install`` adds."""
    confs = hloc_module("match_features").confs
    return {name: conf for name, conf in confs.items() if not name.startswith("dpqed-")}


def load_hloc_matcher(name: str, weights: Path | None = None, device: str = "cpu") -> Any:
    """The model of hloc's match configuration ``name``, a torch module in evaluation mode.

    Args:
        weights: a state dict to load instead of the file that the model would look for.

    Raises:
        InputError: no such configuration, the model's code or its weights are missing.
    """
    confs = hloc_matcher_confs()
    if name not in confs:
        raise InputError(f"--matcher hloc:{name}: unknown, expected one of {', '.join(confs)}")
    conf = dict(confs[name]["model"])
    with installed(), weights_of_user(conf["name"], weights):
        base_model = hloc_module("utils.base_model")
        try:
            model = base_model.dynamic_load(hloc_module("matchers"), conf["name"])
            return model(conf).eval().to(device)
        except ImportError as error:
            raise InputError(f"--matcher hloc:{name}: its code is missing ({error})") from error
        except OSError as error:  # a file or a download that cannot be had
            raise InputError(
                f"--matcher hloc:{name}: its weights cannot be loaded ({error}); pass "
                "--matcher_weights"
            ) from error
        except RuntimeError as error:  # load_state_dict, of names or shapes that do not fit
            brief = " ".join(str(error).split())[:160]
            raise InputError(
                f"--matcher_weights {weights}: not the weights of hloc's {name} ({brief}...)"
            ) from error


@contextlib.contextmanager
def weights_of_user(
    model: str, weights: Path | None, option: str = "--matcher_weights"
) -> Iterator[None]:
    """Within the block, hloc's ``model`` loads ``weights`` in place of its own file.

    Args:
        model: ``superglue``, ``lightglue`` or the extractor ``superpoint``.
        weights: a state dict; None changes nothing.
        option: that gave the file, for messages.

    Raises:
        InputError: the model has no weights, the file is missing or is not one of tensors.
    """
    if weights is None:
        yield
        return
    import torch

    from .matching.learned import read_weights

    def load(*_: Any, **__: Any) -> dict[str, Any]:
        return read_weights(weights, option)

    if model in ("superglue", "superpoint"):
        # hloc's module puts the repository of the model's code on the path.
        hloc_module(f"{'matchers' if model == 'superglue' else 'extractors'}.{model}")
        code = importlib.import_module(f"SuperGluePretrainedNetwork.models.{model}")
        view = _View(torch, load=load)
    elif model == "lightglue":
        hloc_module("matchers.lightglue")
        code = importlib.import_module("lightglue.lightglue")
        view = _View(torch, hub=_View(torch.hub, load_state_dict_from_url=load))
    else:
        raise InputError(f"{option}: hloc's {model} takes no weights")
    original = code.torch
    code.torch = view  # type: ignore[attr-defined]
    try:
        yield
    finally:
        code.torch = original  # type: ignore[attr-defined]


# --- from a shell ----------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    """hloc's own arguments of each stage, and ``--features_ref``."""
    parser = argparse.ArgumentParser(
        prog="python -m hloc_dpqed.hloc_bridge", description="hloc's stages, reading map files"
    )
    commands = parser.add_subparsers(dest="stage", required=True)
    sub = commands.add_parser("match_features")
    sub.add_argument("--pairs", type=Path, required=True)
    sub.add_argument("--export_dir", type=Path)
    sub.add_argument("--features", default="feats-superpoint-n4096-r1024")
    sub.add_argument("--features_ref", type=Path)
    sub.add_argument("--matches", type=Path)
    sub.add_argument("--conf", default="superglue")
    sub.add_argument(OVERRIDE, action="store_true")
    sub = commands.add_parser("localize_sfm")
    for name in ("reference_sfm", "queries", "features", "matches", "retrieval", "results"):
        sub.add_argument(f"--{name}", type=Path, required=True)
    sub.add_argument("--ransac_thresh", type=float, default=12.0)
    sub.add_argument("--covisibility_clustering", action="store_true")
    sub.add_argument("--prepend_camera_name", action="store_true")
    sub = commands.add_parser("pairs_from_retrieval")
    sub.add_argument("--descriptors", type=Path, required=True)
    sub.add_argument("--output", type=Path, required=True)
    sub.add_argument("--num_matched", type=int, required=True)
    for side in ("query", "db"):
        sub.add_argument(f"--{side}_prefix", nargs="+")
        sub.add_argument(f"--{side}_list", type=Path)
    sub.add_argument("--db_model", type=Path)
    sub.add_argument("--db_descriptors", type=Path)
    sub = commands.add_parser("pairs_from_covisibility")
    sub.add_argument("--model", type=Path, required=True)
    sub.add_argument("--output", type=Path, required=True)
    sub.add_argument("--num_matched", type=int, required=True)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run a stage of hloc on map files: 0, or 2 and one line on a user's mistake."""
    args = vars(_parser().parse_args(argv))
    stage = args.pop("stage")
    try:
        with installed(args.pop("allow_other_extractor", False)):
            module = hloc_module(stage)
            if stage == "match_features":
                name = args.pop("conf")
                if name not in module.confs:
                    raise InputError(f"--conf {name}: expected one of {', '.join(module.confs)}")
                args["conf"] = module.confs[name]
                # hloc takes a name of features or a path, told apart by their type.
                if Path(args["features"]).is_file():
                    args["features"] = Path(args["features"])
            module.main(**args)
    except InputError as error:
        print(f"hloc_bridge {stage}: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    # The module under its own name, not as __main__: there is one record of what was replaced.
    sys.exit(importlib.import_module("hloc_dpqed.hloc_bridge").main())
