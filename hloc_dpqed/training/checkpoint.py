"""Where an interrupted fit continues: parameters and Adam's moments after some of the steps."""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import safetensors
import safetensors.numpy
import torch

from .. import __version__
from ..errors import InputError
from ..io.atomic import write_bytes
from ..scene.reference import Observations

_STEP = "step"


class FitCheckpoint:
    """The state of one fit, in a file that is replaced whole each time.

    Args:
        path: of the file, named after ``fit_key``: a state is only read by the fit that wrote it.
    """

    def __init__(self, path: Path):
        self.path = Path(path)

    def load(self, optimizer: torch.optim.Adam) -> int:
        """Put the saved state into the optimizer and its parameters.

        Returns:
            How many steps are done; 0 where there is no state that fits.
        """
        if not self.path.is_file():
            return 0
        parameters = _parameters(optimizer)
        try:
            with safetensors.safe_open(str(self.path), framework="pt") as file:
                step = int(file.metadata()[_STEP])
                saved = [
                    [file.get_tensor(f"{key}.{i}") for key in ("value", "mean", "square")]
                    for i in range(len(parameters))
                ]
        except (OSError, TypeError, KeyError, ValueError, safetensors.SafetensorError):
            return 0  # cut short by a full disk, or not ours: the fit starts anew
        if any(v.shape != p.shape for p, part in zip(parameters, saved, strict=True) for v in part):
            return 0
        for parameter, (value, mean, square) in zip(parameters, saved, strict=True):
            parameter.data.copy_(value)
            optimizer.state[parameter] = {
                "step": torch.tensor(float(step)),
                "exp_avg": mean.to(parameter),
                "exp_avg_sq": square.to(parameter),
            }
        return step

    def save(self, optimizer: torch.optim.Adam, step: int) -> None:
        """Save the state after ``step`` steps.

        Raises:
            InputError: the file cannot be written.
        """
        arrays = {}
        for i, parameter in enumerate(_parameters(optimizer)):
            state = optimizer.state[parameter]
            for key, value in (
                ("value", parameter),
                ("mean", state["exp_avg"]),
                ("square", state["exp_avg_sq"]),
            ):
                arrays[f"{key}.{i}"] = value.detach().cpu().numpy()
        write_bytes(self.path, safetensors.numpy.save(arrays, metadata={_STEP: str(step)}))


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def fit_key(codec: str, observations: Observations, code_bytes: int, options: Any) -> str:
    """A key of all that a fit's result depends on: hexadecimal SHA-256.

    That are the observations, the codec and its options, and the libraries.
    """
    how = {
        "codec": codec,
        "code_bytes": code_bytes,
        "options": options,
        "versions": [__version__, torch.__version__, faiss.__version__, np.__version__],
        "points": observations.num_points,
    }
    digest = hashlib.sha256(json.dumps(how, sort_keys=True).encode())
    for values in (
        observations.descriptors,
        observations.point_index,
        observations.image_index,
        *(() if observations.targets is None else (observations.targets,)),
    ):
        digest.update(f"{values.dtype.str} {values.shape}\n".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


@contextlib.contextmanager
def fit_folder(output: Path) -> Iterator[Path]:
    """The folder ``OUTPUT.part`` of the fits that a command makes for ``output``.

    It is made by the first state that is saved. After an interruption the same command continues
    from it; it is removed when the block ends, or refuses its input.

    Raises:
        InputError: a file has its name.
    """
    folder = Path(f"{output}.part")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is in the way, expected a folder of interrupted fits")
    try:
        yield folder
    except InputError:
        _remove_fits(folder)
        raise
    _remove_fits(folder)


def _remove_fits(folder: Path) -> None:
    """Remove the states, those that a kill left half-written too, and the folder if it is empty."""
    for path in folder.glob("*.safetensors*"):
        path.unlink(missing_ok=True)
    for path in folder.glob(".*.safetensors.*.tmp"):
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()
