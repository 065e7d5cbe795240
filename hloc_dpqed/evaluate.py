"""Pose errors and recall of a result file."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from .choices import DEFAULT_THRESHOLDS
from .errors import InputError
from .evaluation.pose_errors import match_names, parse_thresholds, pose_error, read_truth, summarize
from .io.lists import read_lines, read_poses


def main(
    results: Path,
    reference: Path,
    thresholds: str = DEFAULT_THRESHOLDS,
    queries: Path | None = None,
) -> dict[str, Any]:
    """Compare estimated with reference poses.

    Args:
        results: hloc's result file.
        reference: a pose file of the same format, or a COLMAP model with the queries.
        thresholds: ``translation/rotation`` pairs in map units and degrees.
        queries: a text file whose lines begin with the names of the queries (a query list or a
            list of names); all reference images otherwise.

    Returns:
        The figures of ``evaluate --json``. A query without a pose counts as infinitely wrong; a
        median over such is None.

    Raises:
        InputError: a file is missing or wrong, or the two share no name.
    """
    limits = parse_thresholds(thresholds)
    truth = read_truth(Path(reference))
    if queries is not None:
        listed = _listed_names(queries, truth)
        truth = {name: pose for name, pose in truth.items() if name in listed}
    if not truth:
        raise InputError(f"{reference}: holds no pose of a query")
    estimated = read_poses(results)
    matched = match_names(truth, estimated)
    if estimated and not matched:
        raise InputError(f"{results}: shares no image name with {reference}")
    errors = np.array(
        [
            pose_error(estimated[matched[name]], truth[name])
            if name in matched
            else (np.inf, np.inf)
            for name in sorted(truth)
        ]
    )
    return summarize(errors, limits)


def _listed_names(path: Path, known: Collection[str]) -> set[str]:
    """The longest known name that each line begins with; names may hold spaces."""
    listed = set()
    for _, line in read_lines(path, "a list of queries"):
        ends = [*(gap.start() for gap in re.finditer(r"\s+", line)), len(line)]
        listed.add(next((line[:end] for end in reversed(ends) if line[:end] in known), ""))
    return listed
