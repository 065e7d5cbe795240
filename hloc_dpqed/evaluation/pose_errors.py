"""Errors and recall of poses, and the reference poses they are measured against."""

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.lists import read_poses
from ..io.model import read_reference


def read_truth(path: Path) -> dict[str, np.ndarray]:
    """Reference poses by name, (3, 4) float64 [R | t], from a pose file or a COLMAP model."""
    if not path.is_dir():
        return read_poses(path)
    model = read_reference(path)
    return dict(zip(model.image_names, model.cam_from_world, strict=True))


def match_names(truth: dict[str, Any], estimated: dict[str, Any]) -> dict[str, str]:
    """Result name of each reference image: its full name, else its last two or last parts.

    Raises:
        InputError: two reference images would be the same result.
    """
    matched = {name: name for name in truth if name in estimated}
    owner: dict[str, str] = {}
    for name in truth:
        parts = name.split("/")
        if name in matched:
            continue
        for candidate in ("/".join(parts[-2:]), parts[-1]):
            if candidate not in estimated or candidate in matched:
                continue  # a result whose whole name is an image's is that image's
            if candidate in owner:
                raise InputError(
                    f"result {candidate!r} could be {owner[candidate]!r} or {name!r}; write the "
                    "results with --full_names"
                )
            matched[name], owner[candidate] = candidate, name
            break
    return matched


def pose_error(estimated: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Distance of the camera centres in map units, and the angle between the rotations in degrees.

    Args:
        estimated, truth: (3, 4) float64 [R | t], camera from world.
    """
    rotation, true_rotation = estimated[:, :3], truth[:, :3]
    # Not as products of matrices, whose last digits may depend on where these lie in memory: a pose
    # has no distance from itself.
    centre = -(rotation * estimated[:, 3:]).sum(0)
    true_centre = -(true_rotation * truth[:, 3:]).sum(0)
    # The sine keeps small angles that the cosine rounds away.
    difference = rotation @ true_rotation.T
    sine = np.linalg.norm(difference - difference.T) / (2 * np.sqrt(2))
    cosine = (np.trace(difference) - 1) / 2
    angle = np.degrees(np.arctan2(sine, cosine))
    return float(np.linalg.norm(centre - true_centre)), float(angle)


def format_length(length: float) -> str:
    """A length in map units to four decimals, or to three digits where those would be zeros."""
    return f"{length:.4f}" if length == 0 or length >= 1e-4 else f"{length:.3g}"


def parse_thresholds(text: str) -> list[tuple[float, float]]:
    """``0.25/2,0.5/5`` to pairs of map units and degrees.

    Raises:
        InputError: not such a list.
    """
    try:
        limits = [tuple(float(x) for x in part.split("/")) for part in text.split(",")]
        if not all(len(pair) == 2 and 0 < min(pair) <= max(pair) < np.inf for pair in limits):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"--thresholds {text}: expected translation/rotation pairs such as 0.25/2,0.5/5"
        ) from error
    return [(t, r) for t, r in limits]


def summarize(errors: np.ndarray, limits: list[tuple[float, float]]) -> dict[str, Any]:
    """The figures of ``evaluate --json`` from (n, 2) errors, infinite where there is no pose."""
    localized = np.isfinite(errors[:, 0])
    medians = [float(m) if np.isfinite(m) else None for m in np.median(errors, axis=0)]
    return {
        "num_queries": len(errors),
        "num_localized": int(localized.sum()),
        "median_translation": medians[0],
        "median_rotation": medians[1],
        "recall": [
            {
                "translation": t,
                "rotation": r,
                "fraction": float(np.mean((errors[:, 0] < t) & (errors[:, 1] < r))),
            }
            for t, r in limits
        ],
    }
