"""hloc's text files: query lists, pairs and pose results."""

from pathlib import Path

import numpy as np
import pycolmap

from ..errors import InputError
from .atomic import write_text


def _lines(path: Path, what: str) -> list[tuple[int, str]]:
    """Numbered lines of a text file without blank lines and comments."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected {what}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as UTF-8 text ({error})") from error
    lines = ((n, line.strip()) for n, line in enumerate(text.splitlines(), 1))
    return [(n, line) for n, line in lines if line and not line.startswith("#")]


def read_queries(path: Path) -> list[tuple[str, pycolmap.Camera]]:
    """hloc's query list with intrinsics: ``name MODEL width height params...`` a line.

    ``path`` may be a pattern in its folder (``day_*.txt``), as in hloc. A name may hold spaces:
    what follows it is read from the right of the camera model.

    Raises:
        InputError: no query, an unknown camera model, or a wrong number of parameters.
    """
    path = Path(path)
    files = sorted(path.parent.glob(path.name))
    if not files:
        raise InputError(f"{path}: no such file, expected a query list with intrinsics")
    queries = [
        (_parse_query(line, f"{file}:{number}"))
        for file in files
        for number, line in _lines(file, "a query list with intrinsics")
    ]
    if not queries:
        raise InputError(f"{path}: holds no query, expected `name MODEL width height params...`")
    return queries


def _parse_query(line: str, where: str) -> tuple[str, pycolmap.Camera]:
    words = line.split()
    known = pycolmap.CameraModelId.__members__
    position = next((i for i, word in enumerate(words) if i > 0 and word in known), None)
    if position is None:
        raise InputError(f"{where}: no known camera model, expected `name MODEL width height ...`")
    name = line[: line.index(words[position], len(words[0]))].rstrip()
    try:
        width, height = (int(word) for word in words[position + 1 : position + 3])
        params = np.array(words[position + 3 :], float)
        camera = pycolmap.Camera(model=words[position], width=width, height=height, params=params)
        if width < 1 or height < 1 or not camera.verify_params() or not np.isfinite(params).all():
            raise ValueError
    except Exception as error:  # pycolmap raises its own types for wrong parameter counts
        raise InputError(
            f"{where}: bad intrinsics, expected `name {words[position]} width height` and its "
            "parameters"
        ) from error
    return name, camera


def read_pairs(path: Path) -> dict[str, list[str]]:
    """hloc's pairs file: ``query reference`` a line, best first, to a list for each query.

    Raises:
        InputError: a line has not two names.
    """
    pairs: dict[str, list[str]] = {}
    for number, line in _lines(path, "a pairs file"):
        words = line.split()
        if len(words) != 2:
            raise InputError(f"{path}:{number}: expected two image names, found {len(words)}")
        references = pairs.setdefault(words[0], [])
        if words[1] not in references:
            references.append(words[1])
    return pairs


def result_name(name: str, prepend_camera_name: bool = False, full_names: bool = False) -> str:
    """The name under which hloc writes a query's pose: the base name, or what was asked for."""
    if full_names:
        return name
    parts = name.split("/")
    return "/".join(parts[-2:]) if prepend_camera_name else parts[-1]


def write_poses(path: Path, poses: dict[str, np.ndarray]) -> None:
    """Write hloc's result file: ``name qw qx qy qz tx ty tz``, camera from world.

    Args:
        poses: result names to (3, 4) float64 [R | t].
    """
    lines = []
    for name, matrix in poses.items():
        pose = pycolmap.Rigid3d(matrix)
        values = [*pose.rotation.quat[[3, 0, 1, 2]], *pose.translation]
        lines.append(" ".join([name, *(str(float(v)) for v in values)]) + "\n")
    write_text(path, "".join(lines))


def read_poses(path: Path) -> dict[str, np.ndarray]:
    """Read hloc's result file: names to (3, 4) float64 [R | t], camera from world.

    Raises:
        InputError: a line is not ``name qw qx qy qz tx ty tz``, or a name comes twice.
    """
    poses: dict[str, np.ndarray] = {}
    for number, line in _lines(path, "a file of poses"):
        words = line.rsplit(maxsplit=7)
        try:
            if len(words) != 8:
                raise ValueError
            values = np.array(words[1:], float)
            norm = np.linalg.norm(values[:4])
            if not np.isfinite(values).all() or norm == 0:
                raise ValueError
        except ValueError as error:
            raise InputError(f"{path}:{number}: expected `name qw qx qy qz tx ty tz`") from error
        if words[0] in poses:
            raise InputError(f"{path}:{number}: {words[0]!r} comes twice")
        rotation = pycolmap.Rotation3d((values[:4] / norm)[[1, 2, 3, 0]])
        poses[words[0]] = pycolmap.Rigid3d(rotation, values[4:]).matrix()
    return poses
