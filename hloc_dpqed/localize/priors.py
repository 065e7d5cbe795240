"""Priors of the queries' poses: their file and arguments, and what became of them."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io.priors import read_priors
from ..localization.priors import Prior, WithPrior
from ..logger import logger
from ..scene.projection import camera_centre

OTHER_UNIT = 1.05  # times as far apart: not an error of positions, over many queries
MOST_SHOWN = 3  # names in a warning


def check_prior_arguments(
    priors: Path | None,
    prior_radius: float | None,
    prior_angle: float | None,
    map_gravity: Sequence[float] | None,
    rigs: bool,
) -> None:
    """Check the arguments that belong to ``--priors``.

    Raises:
        InputError: there are no priors, a number cannot be, or there are rigs.
    """
    for name, value in (
        ("prior_radius", prior_radius),
        ("prior_angle", prior_angle),
        ("map_gravity", map_gravity),
    ):
        if value is not None and priors is None:
            raise InputError(f"--{name}: needs --priors")
    if priors is not None and rigs:
        raise InputError("--priors: excludes --rigs")
    if prior_radius is not None and not 0 < prior_radius < np.inf:
        raise InputError(f"--prior_radius {prior_radius}: expected a positive number of map units")
    if prior_angle is not None and not 0 < prior_angle <= 180:
        raise InputError(f"--prior_angle {prior_angle}: expected degrees above 0, at most 180")
    if map_gravity is not None:
        down = np.asarray(map_gravity, float)
        if down.shape != (3,) or not np.isfinite(down).all() or not np.linalg.norm(down) > 0:
            raise InputError("--map_gravity: expected three numbers, down in the map")


def priors_of(
    path: Path,
    names: Sequence[str],
    prior_radius: float | None,
    prior_angle: float | None,
    map_gravity: Sequence[float] | None,
) -> dict[str, Prior]:
    """The prior of each query that has one in the file.

    Args:
        path: see ``io.priors.read_priors``.
        names: of the queries.
        prior_radius: map units, of positions without a radius of their own and of whole poses.
        prior_angle: degrees that a rotation or gravity may be off; None for the defaults of
            ``Prior``.
        map_gravity: (3,) down in the map.

    Raises:
        InputError: the file is wrong, or a radius or ``map_gravity`` is missing.
    """
    priors = {}
    angles = {}
    if prior_angle is not None:
        angles = {"gravity_degrees": prior_angle, "rotation_degrees": prior_angle}
    down = None if map_gravity is None else np.asarray(map_gravity, float)
    for name, known in read_priors(path, names).items():
        has_place = known.position is not None or known.cam_from_world is not None
        radius = prior_radius if known.radius is None else known.radius
        if has_place and radius is None:
            raise InputError(
                f"{path}: the prior of {name!r} has no radius, pass --prior_radius MAP_UNITS"
            )
        if known.gravity is not None and down is None:
            raise InputError(
                f"{path}: {name!r} has a gravity, pass --map_gravity X Y Z: down in the map"
            )
        priors[name] = Prior(
            position=known.position,
            radius=radius if has_place else None,
            gravity=known.gravity,
            map_gravity=None if known.gravity is None else down,
            cam_from_world=known.cam_from_world,
            **angles,
        )
        priors[name].check()
    return priors


def prior_record(found: WithPrior, prior: Prior | None) -> dict[str, Any] | None:
    """JSON-able: how an outcome stands to its prior; None without one."""
    if prior is None:
        return None
    pose = found.outcome.cam_from_world
    angles = [] if pose is None else [prior.turn(pose), prior.tilt(pose)]
    told = [angle for angle in angles if angle is not None]
    return {
        "agrees": found.agrees,
        "used": found.used,
        "distance": None if pose is None else prior.distance(pose),
        "angle": max(told) if told else None,
    }


def prior_totals(
    records: Iterable[dict[str, Any]], priors: Mapping[str, Prior], source: Path
) -> dict[str, Any]:
    """Figures over the queries with priors, and a warning where some are false."""
    used, false, places = 0, [], []
    for record in records:
        told = record.get("prior")
        if told is None:
            continue
        used += told["used"]
        if told["agrees"] is False:
            false.append((record["name"], told))
        centre = priors[record["name"]].centre
        if centre is not None and record["cam_from_world"] is not None:
            places.append((centre, camera_centre(np.array(record["cam_from_world"]))))
    ratio = _distance_ratio(places)
    if false:
        shown = ", ".join(_described(name, told) for name, told in false[:MOST_SHOWN])
        logger.warning(
            f"{source}: {len(false)} of {len(priors)} priors are false, and were not used: {shown}"
            + _cause(ratio, 2 * len(false) >= len(priors))
        )
    return {
        "num_priors": len(priors),
        "num_priors_used": used,
        "num_priors_false": len(false),
        "prior_ratio": ratio,
    }


def _described(name: str, told: dict[str, Any]) -> str:
    off = [
        f"{told[key]:.4g} {unit}"
        for key, unit in (("distance", "map units"), ("angle", "degrees"))
        if told[key] is not None
    ]
    return f"{name!r} by {' and '.join(off)}" if off else repr(name)


def _distance_ratio(places: Sequence[tuple[np.ndarray, np.ndarray]]) -> float | None:
    """How far apart the poses are that were found, over how far apart the priors have them: the
    median, over pairs of queries far from each other in the list.

    None of fewer than three, or where the priors are in one place.
    """
    if len(places) < 3:
        return None
    known, found = (np.array(side) for side in zip(*places, strict=True))
    apart, of_priors = (
        np.linalg.norm(side - np.roll(side, len(side) // 2, axis=0), axis=1)
        for side in (found, known)
    )
    told = of_priors > 0
    return float(np.median(apart[told] / of_priors[told])) if told.any() else None


def _cause(ratio: float | None, most: bool) -> str:
    """What may be wrong with the file, where most of its priors are false."""
    if not most:
        return ""
    if ratio is not None and abs(np.log(max(ratio, 1e-300))) > np.log(OTHER_UNIT):
        return (
            f". The poses stand {ratio:.4g} times as far apart as the priors: are these in another "
            "unit than the map?"
        )
    return ". Are they in another frame than the map?"
