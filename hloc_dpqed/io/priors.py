"""What is known of queries' poses before they are localized: a text file, a line each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pycolmap

from ..errors import InputError
from ..logger import logger
from .lists import read_lines

EXPECTED = (
    "expected `name x y z [radius]`, `name qw qx qy qz tx ty tz` or `name gravity x y z`, "
    "separated by spaces"
)
UNIT = 1e-2  # how far from 1 the length of a quaternion may be
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)


@dataclass(frozen=True)
class KnownPose:
    """What a file tells of one query; what is None is not told.

    Attributes:
        position: (3,) float64 of the camera's centre, map units.
        radius: map units that it may be off.
        cam_from_world: (3, 4) float64 [R | t].
        gravity: (3,) float64, down in the camera's frame.
    """

    position: np.ndarray | None = None
    radius: float | None = None
    cam_from_world: np.ndarray | None = None
    gravity: np.ndarray | None = None


def read_priors(path: Path, names: Sequence[str]) -> dict[str, KnownPose]:
    """Read a file of priors: what is known of the queries ``names``, by name.

    A line is one of

    - ``name x y z`` or ``name x y z radius``: a position in the map, such as GPS gives;
    - ``name qw qx qy qz tx ty tz``: a whole pose, camera from world, as hloc's result files have;
    - ``name gravity x y z``: down in the camera's frame (x right, y down, z forward).

    A query may have a line of gravity beside one of the others. Names are whole, or the last part
    of the path where no two queries share it, as hloc writes results.

    Raises:
        InputError: the file is missing, a line is none of these or comes twice, a number cannot be,
            or no line names a query.
    """
    known = _known_names(names)
    found: dict[str, KnownPose] = {}
    others: list[str] = []
    for number, line in read_lines(path, "a file of priors"):
        where = f"{path}:{number}"
        name, kind, values = _parse(line, known, where)
        if name not in known:
            others.append(name)
            continue
        query = known[name]
        before = found.get(query, KnownPose())
        told = _known(kind, values, where)
        twice = before.gravity is not None if kind == "gravity" else _has_place(before)
        if twice:
            raise InputError(f"{where}: {query!r} has a {kind} for the second time")
        if kind == "gravity":
            found[query] = replace(before, gravity=told.gravity)
        else:
            found[query] = replace(told, gravity=before.gravity)
    if not found:
        such = f"it has {others[0]!r}, there are" if others else "it is empty, there are"
        raise InputError(f"{path}: no prior of a query: {such} queries such as {names[0]!r}")
    if others:
        logger.warning(
            f"{path}: {len(others)} priors of other images than the queries, such as {others[0]!r}"
        )
    return found


def _has_place(known: KnownPose) -> bool:
    return known.position is not None or known.cam_from_world is not None


def _known_names(names: Sequence[str]) -> dict[str, str]:
    """Queries by their names, and by the last parts of these that are unambiguous."""
    last: dict[str, list[str]] = {}
    for name in names:
        last.setdefault(name.rsplit("/", 1)[-1], []).append(name)
    short = {tail: of[0] for tail, of in last.items() if len(of) == 1}
    return short | {name: name for name in names}


def _parse(line: str, known: dict[str, str], where: str) -> tuple[str, str, np.ndarray]:
    """Name, kind (position, pose or gravity) and numbers of a line.

    A name may hold spaces and numbers: it is one of the queries where the line can be read so.
    """
    words = re.split(r"(\s+)", line)
    readings = []
    for k in range(0, len(words) - 1, 2):
        name, rest = "".join(words[: k + 1]), words[k + 2 :: 2]
        kind = {3: "position", 4: "position", 7: "pose"}.get(len(rest))
        if len(rest) == 4 and rest[0] == "gravity":
            kind, rest = "gravity", rest[1:]
        if kind is not None and all(_NUMBER.fullmatch(word) for word in rest):
            readings.append((name, kind, np.array(rest, float)))
    chosen = [r for r in readings if r[0] in known]
    if not chosen and not any("".join(words[:k]) in known for k in range(1, len(words), 2)):
        chosen = readings[:1]  # of another image
    if len(chosen) > 1:
        raise InputError(
            f"{where}: can be read as a prior of {chosen[0][0]!r} and of {chosen[1][0]!r}"
        )
    if not chosen:
        raise InputError(f"{where}: {EXPECTED}")
    return chosen[0]


def _known(kind: str, values: np.ndarray, where: str) -> KnownPose:
    if not np.isfinite(values).all():
        raise InputError(f"{where}: a number is not finite")
    if kind == "gravity":
        if not np.linalg.norm(values) > 0:
            raise InputError(f"{where}: gravity of no length")
        return KnownPose(gravity=values)
    if kind == "position":
        radius = float(values[3]) if len(values) == 4 else None
        if radius is not None and radius <= 0:
            raise InputError(f"{where}: radius {radius:g}, expected a positive number")
        return KnownPose(position=values[:3], radius=radius)
    norm = float(np.linalg.norm(values[:4]))
    if abs(norm - 1) > UNIT:
        raise InputError(
            f"{where}: a quaternion of length {norm:.4g}, expected 1: `name qw qx qy qz tx ty tz`"
        )
    rotation = pycolmap.Rotation3d((values[:4] / norm)[[1, 2, 3, 0]])
    return KnownPose(cam_from_world=pycolmap.Rigid3d(rotation, values[4:]).matrix())
