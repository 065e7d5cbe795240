"""The loop over the queries: each outcome is kept in a file, where a later run continues."""

from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
from tqdm import tqdm

from .. import __version__
from ..io.checkpoint import Checkpoint, run_key
from ..io.features import LocalFeatures
from ..libraries import torch
from ..localization.confidence import Calibration
from ..localization.doubt import LeastConfidence, without_doubtful
from ..localization.localizer import Localizer
from ..localization.queries import Localization, RigLocalization
from ..localization.records import record_of
from ..localization.tracking import LastFrame
from .inputs import Work, read_stream, rig_stream
from .priors import prior_record


def key_of(
    work: Work,
    map_file: Path,
    stamps: Sequence[Path],
    options: dict[str, Any],
    with_matches: bool,
    min_confidence: str | None,
) -> str:
    """The key of all that the outcomes depend on, see ``io.checkpoint.run_key``.

    Args:
        work: the queries.
        map_file: the map.
        stamps: features and weights.
        options: of the ``Localizer``.
        with_matches: whether the records hold what was matched.
        min_confidence: as asked for.
    """
    conf: dict[str, Any] = {
        "queries": [
            [n, str(c.model.name), c.width, c.height, c.params.tolist()] for n, c in work.queries
        ],
        "retrieval": work.retrieved,
        "options": options,
        "matches": with_matches,
        "min_confidence": min_confidence,
        "rigs": None if work.frames is None else [f.described() for f in work.frames],
        "versions": [
            __version__,
            pycolmap.__version__,
            getattr(torch, "__version__", None),
            np.__version__,
        ],
    }
    if options["estimate_focal"]:
        conf["told_focal"] = [name for name, c in work.queries if c.has_prior_focal_length]
    if work.track:
        conf["track"] = True
    if work.priors is not None:
        conf["priors"] = {name: prior.described() for name, prior in work.priors.items()}
    return run_key([map_file], list(stamps), conf)


Outcome = Localization | RigLocalization


def outcomes_of(
    work: Work, localizer: Localizer, file: LocalFeatures, done: Checkpoint, quick: bool = True
) -> Iterator[tuple[Outcome, dict[str, Any]]]:
    """The outcomes of queries or frames that are not done yet, in order, and what else their
    records hold. Priors are followed where ``quick``."""
    num_done = done.num_resumed
    if work.frames is None:
        rest = work.queries[num_done:]
        queries = read_stream(file, rest, localizer.map, work.retrieved)
        if work.track:
            for outcome in localizer.track(queries, last_frame(done)):
                yield outcome, {"tracked": outcome.tracked}
            return
        if work.priors is None:
            for outcome in localizer.localize_many(queries):
                yield outcome, {}
            return
        known = work.priors
        pairs = ((query, known.get(query.name)) for query in queries)
        for found in localizer.localize_with_priors(pairs, quick):
            prior = known.get(found.outcome.name)
            yield found.outcome, {"prior": prior_record(found, prior)}
        return
    left, cameras = work.frames[num_done:], dict(work.queries)
    rest = [(name, cameras[name]) for frame in left for name in frame.images]
    stream = read_stream(file, rest, localizer.map, work.retrieved)
    for frame in localizer.localize_rigs(rig_stream(left, stream)):
        yield frame, {}


def last_frame(done: Checkpoint) -> LastFrame | None:
    """The last finished query of a sequence, whose records hold what was matched."""
    last = deque(done.records(), maxlen=1)
    if not last or last[0]["cam_from_world"] is None:
        return None
    (record,) = last
    return LastFrame(np.array(record["point_index"], np.int64)[record["inliers"]])


def localize_all(
    work: Work,
    localizer: Localizer,
    file: LocalFeatures,
    done: Checkpoint,
    with_matches: bool,
    calibration: Calibration | None,
    least_sure: LeastConfidence | None,
    progress: bool,
) -> None:
    """Localize what is not done yet, and keep a record of each outcome."""
    with tqdm(
        total=len(work), initial=done.num_resumed, desc="Localizing", disable=not progress
    ) as bar:
        # A calibration is of queries that are matched without a guess of their pose.
        quick = least_sure is None
        for outcome, beside in outcomes_of(work, localizer, file, done, quick):
            if least_sure is not None and calibration is not None:
                outcome = without_doubtful(outcome, calibration, least_sure)
            done.add(record_of(localizer.map, outcome, with_matches) | beside)
            bar.update()
