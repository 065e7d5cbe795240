"""hloc's text files: query lists, pairs and pose results."""

import contextlib
import re
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pycolmap

from ..errors import InputError
from ..logger import logger
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
    ended = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = ((n, line.strip()) for n, line in enumerate(ended.split("\n"), 1))
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


def read_names(path: Path) -> list[str]:
    """The names of a list of images, one a line; intrinsics behind a name are passed over.

    Raises:
        InputError: the file is missing or holds no name.
    """
    lines = [line for _, line in read_lines(path, "a list of images")]
    if not lines:
        raise InputError(f"{path}: holds no name, expected one a line")
    matches = [_QUERY.fullmatch(line) for line in lines]
    return [line if m is None else m[1] for line, m in zip(lines, matches, strict=True)]


_CAMERA_MODELS = [name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"]
# The last known model in the line: what follows it are numbers, what precedes it may be anything.
_QUERY = re.compile(rf"(.*\S)\s+({'|'.join(_CAMERA_MODELS)})((?:\s+\S+)*)")


def _parse_query(line: str, where: str) -> tuple[str, pycolmap.Camera]:
    match = _QUERY.fullmatch(line)
    if match is None or re.search(r"\d\s*[,;]", match[3]):
        other = _QUERY.fullmatch(re.sub(r"[,;]", " ", line))
        if other is not None:
            raise InputError(
                f"{where}: values are separated by commas, expected spaces: "
                f"`name {other[2]} width height params...`"
            )
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

    A number after the two names is a score. Scores are not used: the order is that of the file,
    and where the scores of a query neither fall nor rise, one warning says so.

    Args:
        path: the file.
        queries, references: known names. A line of more than two words holds names with spaces:
            it is split where both sides are known, else where the left side is a known query
            (a pair with an image that is not in the map) or the right side a known reference.

    Raises:
        InputError: a line has not two names, or names with spaces that can be split in two ways
            or in none; names are separated by commas; or all pairs are the wrong way round.
    """
    pairs: dict[str, list[str]] = {}
    scores: dict[str, list[float]] = {}
    known_queries, known_references = set(queries), set(references)
    in_order, turned = False, 0
    for number, line in read_lines(path, "a pairs file"):
        pair, score = _parse_pair(line, known_queries, known_references)
        if pair is None:
            pair, score = _parse_pair(line, known_references, known_queries)
            if pair is None or pair[1] not in known_queries or pair[0] not in known_references:
                raise InputError(f"{path}:{number}: expected two image names, {_found(line)}")
        query, reference = pair
        if query not in known_queries:
            _refuse_commas(line, known_queries | known_references, f"{path}:{number}")
            if not turned and query in known_references and reference in known_queries:
                turned = number
        in_order |= query in known_queries
        listed = pairs.setdefault(query, [])
        if reference not in listed:
            listed.append(reference)
            if score is not None:
                scores.setdefault(query, []).append(score)
    if turned and not in_order:
        raise InputError(
            f"{path}:{turned}: a database image and then a query, expected `query reference`: the "
            "two names of each line are the wrong way round"
        )
    for query, values in scores.items():
        steps = np.diff(values)
        if (steps > 0).any() and (steps < 0).any():
            logger.warning(
                f"{path}: the scores of {query!r} (and maybe of others) are in no order; images "
                "are taken in the order of the file, as hloc does, not by score"
            )
            break
    return pairs


def no_pair(
    path: Path | str,
    pairs: dict[str, list[str]],
    queries: Sequence[str],
    images: Sequence[str],
) -> str:
    """The line that tells that no pair can be used, with a name of each side to compare.

    Args:
        path, pairs: the pairs file and what was read of it.
        queries, images: the listed queries, and the images of the map.
    """
    told = f"{path}: no pair of a listed query with an image of the map"
    if not pairs:
        return f"{told}: it is empty"
    query = next((name for name in queries if name in pairs), next(iter(pairs)))
    listed = query if query in queries else queries[0]
    of_map = f", images such as {images[0]!r}" if images else ""
    return (
        f"{told}: it pairs {query!r} with {pairs[query][0]!r}, there are queries such as "
        f"{listed!r}{of_map}"
    )


_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf)", re.IGNORECASE)


def _parse_pair(
    line: str, queries: set[str], references: set[str]
) -> tuple[tuple[str, str] | None, float | None]:
    """The two names of a line, None where there are no two or they can be split in several ways;
    and the score."""
    splits = _splits(line)
    both = [s for s in splits if s[0] in queries and s[1] in references]
    if len(both) == 1:
        return both[0], None
    *rest, last = line.rsplit(maxsplit=1)
    if not both and len(splits) > 1:
        scored = _chosen(_splits(rest[0]), queries, references)
        if len(scored) == 1 and _NUMBER.fullmatch(last):
            return scored[0], float(last)
        if len(scored) == 1 and scored[0][0] in queries and scored[0][1] in references:
            return None, None  # a third column that is no score
    chosen = _chosen(splits, queries, references)
    return (chosen[0] if len(chosen) == 1 else None), None


def _splits(line: str) -> list[tuple[str, str]]:
    gaps = [gap.span() for gap in re.finditer(r"\s+", line)]
    return [(line[:start], line[end:]) for start, end in gaps]


def _chosen(
    splits: list[tuple[str, str]], queries: set[str], references: set[str]
) -> list[tuple[str, str]]:
    if len(splits) < 2:
        return splits
    return (
        [s for s in splits if s[0] in queries and s[1] in references]
        or [s for s in splits if s[0] in queries]
        or [s for s in splits if s[1] in references]
    )


def _found(line: str) -> str:
    words = line.split()
    if len(words) == 1:
        told = next((f" with {name}" for sign, name in _SIGNS.items() if sign in line), "")
        return f"found one word{told}: names are separated by a space"
    if len(words) == 3:
        return f"found three words, and the third, {words[2]!r}, is not a score"
    return f"found {len(words)} words, which can be read as two names in several ways or in none"


_SIGNS = {",": "commas", ";": "semicolons", "|": "bars"}


def _refuse_commas(line: str, known: set[str], where: str) -> None:
    """Refuse a line that a comma divides into a known name and another, with a space or without."""
    for sign, name in _SIGNS.items():
        first = line.split(sign, 1)[0].strip()
        if sign in line and first in known:
            raise InputError(
                f"{where}: {name} between the names, expected `query reference` with a space"
            )


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


def _numbers_behind(lines: Sequence[str]) -> int:
    """How many numbers stand behind the poses: what gives most quaternions of length 1.

    Of the whole file: a single line's numbers may have that length by chance.
    """
    units = [0, 0, 0]
    for behind in range(len(units)):
        for line in lines:
            words = line.rsplit(maxsplit=7 + behind)
            with contextlib.suppress(ValueError):
                quat = np.array(words[1:], float)[:4]
                if len(words) == 8 + behind and abs(np.linalg.norm(quat) - 1) < 1e-3:
                    units[behind] += 1
        if units[behind] == len(lines):  # as hloc writes them: none is better
            return behind
    return int(np.argmax(units))


def read_poses(path: Path) -> dict[str, np.ndarray]:
    """Read hloc's result file: names to (3, 4) float64 [R | t], camera from world.

    One or two numbers may follow each pose, such as a focal length: the file's quaternions then
    have length 1 where those stand before them.

    Raises:
        InputError: a line is not ``name qw qx qy qz tx ty tz``, or a name comes twice.
    """
    poses: dict[str, np.ndarray] = {}
    lines = read_lines(path, "a file of poses")
    behind = _numbers_behind([line for _, line in lines])
    for number, line in lines:
        words = line.rsplit(maxsplit=7 + behind)[:8]
        try:
            if len(words) != 8:
                raise ValueError
            values = np.array(words[1:], float)
            norm = np.linalg.norm(values[:4])
            if not np.isfinite(values).all() or norm == 0:
                raise ValueError
        except ValueError as error:
            commas = ", separated by spaces, not commas" if line.count(",") >= 6 else ""
            raise InputError(
                f"{path}:{number}: expected `name qw qx qy qz tx ty tz`{commas}"
            ) from error
        if words[0] in poses:
            raise InputError(f"{path}:{number}: {words[0]!r} comes twice")
        rotation = pycolmap.Rotation3d((values[:4] / norm)[[1, 2, 3, 0]])
        poses[words[0]] = pycolmap.Rigid3d(rotation, values[4:]).matrix()
    return poses
