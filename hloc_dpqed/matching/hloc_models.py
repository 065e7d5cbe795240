"""hloc's own modules and matchers, imported when they are asked for.

This module and ``hloc_bridge`` are the only ones that import hloc.
"""

import contextlib
import importlib
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .adalam import CONF, adalam_matches
from .weights import read_weights


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


class View(types.ModuleType):
    """A module seen through hloc's eyes: its attributes, some of them replaced."""

    def __init__(self, module: types.ModuleType, **replaced: Any):
        super().__init__(module.__name__, module.__doc__)
        self.__dict__.update(replaced)
        self.__dict__["_module"] = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_module"], name)


def adalam_class() -> type:
    """AdaLAM with the interface of hloc's matchers; hloc's own needs scales and orientations."""
    base: Any = hloc_module("utils.base_model").BaseModel

    class AdaLAM(base):
        """AdaLAM that does without scales and orientations where an image has none."""

        default_conf: dict[str, Any] = dict(CONF)  # noqa: RUF012  (hloc's own form)
        required_inputs = [  # noqa: RUF012
            f"{key}{side}" for side in "01" for key in ("image", "descriptors", "keypoints")
        ]

        def _init(self, conf: dict[str, Any]) -> None:
            pass

        def _forward(self, data: dict[str, Any]) -> dict[str, Any]:
            import torch

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


def hloc_matcher_confs() -> dict[str, Any]:
    """``hloc.match_features.confs``, without what ``hloc_bridge.install`` adds."""
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
    with weights_of_user(conf["name"], weights):
        base_model = hloc_module("utils.base_model")
        try:
            if conf["name"] == "adalam":
                model: Any = adalam_class()
            else:
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

    def load(*_: Any, **__: Any) -> dict[str, Any]:
        return read_weights(weights, option)

    if model in ("superglue", "superpoint"):
        # hloc's module puts the repository of the model's code on the path.
        hloc_module(f"{'matchers' if model == 'superglue' else 'extractors'}.{model}")
        code = importlib.import_module(f"SuperGluePretrainedNetwork.models.{model}")
        view = View(torch, load=load)
    elif model == "lightglue":
        hloc_module("matchers.lightglue")
        code = importlib.import_module("lightglue.lightglue")
        view = View(torch, hub=View(torch.hub, load_state_dict_from_url=load))
    else:
        raise InputError(f"{option}: hloc's {model} takes no weights")
    original = code.torch
    code.torch = view  # type: ignore[attr-defined]
    try:
        yield
    finally:
        code.torch = original  # type: ignore[attr-defined]
