"""hloc's text files: query lists, pairs and pose results."""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pycolmap

from ..errors import InputError
from .atomic import write_text


def read_lines(path: Path, what: str) -> list[tuple[int, str]]:
    """Numbered lines of a text file, stripped, without blank lines and comments (``#``).

    Raises:
        InputError: the file is missing or is not UTF-8 text; the line says that ``what`` was
            expected.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected {what}")
    try:
        # Windows editors put a byte order mark first; it would become a part of the first name.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}), expected {what}") from error
    # Not splitlines: it also splits at separators that a name may hold, such as U+2028.
    lines = ((n, line.strip()) for n, line in enumerate(text.split("\n"), 1))
    return [(n, line) for n, line in lines if line and not line.startswith("#")]


def read_queries(path: Path) -> list[tuple[str, pycolmap.Camera]]:
    """hloc's query list with intrinsics: ``name MODEL width height params...`` a line.

    ``path`` may be a pattern in its folder (``day_*.txt``), as in hloc. A name may hold spaces:
    what follows it is read from the right of the camera model.

    Raises:
        InputError: no query, an unknown camera model, or a wrong number of parameters.
    """
    path = Path(path)
    # A file may have a name that reads as a pattern, such as `queries[1].txt`.
    files = [path] if path.exists() or not path.name else sorted(path.parent.glob(path.name))
    if not files:
        raise InputError(f"{path}: no such file, expected a query list with intrinsics")
    queries = [
        _parse_query(line, f"{file}:{number}")
        for file in files
        for number, line in read_lines(file, "a query list with intrinsics")
    ]
    if not queries:
        raise InputError(f"{path}: holds no query, expected `name MODEL width height params...`")
    return queries


_CAMERA_MODELS = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
# The last known model in the line: what follows it are numbers, what precedes it may be anything.
_QUERY = re.compile(rf"(.*\S)\s+({'|'.join(_CAMERA_MODELS)})((?:\s+\S+)*)")


def _parse_query(line: str, where: str) -> tuple[str, pycolmap.Camera]:
    match = _QUERY.fullmatch(line)
    if match is None:
        raise InputError(
            f"{where}: no known camera model, expected `name MODEL width height params...`"
        )
    name, model, words = match[1], match[2], match[3].split()
    try:
        width, height = (int(word) for word in words[:2])
        params = np.array(words[2:], float)
        camera = pycolmap.Camera(model=model, width=width, height=height, params=params)
        if width < 1 or height < 1 or not camera.verify_params() or not np.isfinite(params).all():
            raise ValueError
    except Exception as error:  # pycolmap raises its own types for wrong parameter counts
        raise InputError(
            f"{where}: bad intrinsics, expected `name {model} width height` and its parameters"
        ) from error
    return name, camera


def read_pairs(
    path: Path, queries: Collection[str] = (), references: Collection[str] = ()
) -> dict[str, list[str]]:
    """hloc's pairs file: ``query reference`` a line, best first, to a list for each query.

    Args:
        path: the file.
        queries, references: known names. A line of more than two words holds names with spaces:
            it is split where both sides are known, else where the left side is a known query
            (a pair with an image that is not in the map) or the right side a known reference.

    Raises:
        InputError: a line has not two names, or names with spaces that can be split in two ways
            or in none.
    """
    pairs: dict[str, list[str]] = {}
    known_queries, known_references = set(queries), set(references)
    for number, line in read_lines(path, "a pairs file"):
        gaps = [gap.span() for gap in re.finditer(r"\s+", line)]
        splits = [(line[:start], line[end:]) for start, end in gaps]
        if len(splits) > 1:
            splits = (
                [s for s in splits if s[0] in known_queries and s[1] in known_references]
                or [s for s in splits if s[0] in known_queries]
                or [s for s in splits if s[1] in known_references]
            )
        if len(splits) != 1:
            found = f"{len(gaps) + 1} words that can be read in {len(splits)} ways"
            raise InputError(f"{path}:{number}: expected two image names, found {found}")
        query, reference = splits[0]
        listed = pairs.setdefault(query, [])
        if reference not in listed:
            listed.append(reference)
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
    for number, line in read_lines(path, "a file of poses"):
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
