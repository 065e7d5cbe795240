"""Sequences: a frame is matched with what the images see that see what the last frame saw (ours).

The last frame's inliers vote for images, as in ``direct``. A frame that is not surely localized
among them is localized as if there were no last frame, so that none is lost.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from ..scene.visibility import Visibility
from .direct import voted_images
from .queries import Localization, Query

TRACKED_IMAGES = 4  # that a frame is matched with
SURE = 2.0  # times the inliers that a pose needs
KEPT = 0.35  # of the last frame's inliers, at least: with fewer the place may have changed


@dataclass(frozen=True)
class LastFrame:
    """What is kept of a localized frame.

    Attributes:
        points: (n,) int64 rows of the map's points that it saw.
    """

    points: np.ndarray

    @staticmethod
    def of(outcome: Localization) -> "LastFrame | None":
        if outcome.cam_from_world is None:
            return None
        return LastFrame(outcome.correspondences.point_index[outcome.inliers])


def track(
    frames: Iterable[Query],
    localize: Callable[[Query], Localization],
    follow: Callable[[Query, list[int]], Localization | None] | None,
    least: Callable[[Localization], int],
    seen_by: Visibility,
    last: LastFrame | None = None,
) -> Iterator[Localization]:
    """Localize the frames of a sequence, in order.

    Args:
        frames: each with what was retrieved for it (None searches the whole map), which is looked
            at only where the last frame does not help.
        localize: a query.
        follow: a frame among the points of images, quickly, None where it is not sure; see
            ``following``. None where that cannot be: the images are then matched as ever.
        least: inliers that the pose of an outcome needs.
        seen_by: the map's points by images.
        last: the frame before the first, where the sequence goes on.

    Yields:
        The outcome of each frame; ``images`` tells what it was matched with.
    """
    for frame in frames:
        outcome: Localization | None = None
        images = [] if last is None else voted_images(last.points, seen_by, TRACKED_IMAGES)
        if last is not None and images:
            kept = KEPT * len(last.points)
            if follow is None:
                outcome = _among(frame, images, localize, least, kept)
            else:
                outcome = follow(frame, images)
                if outcome is not None and outcome.num_inliers < kept:
                    alone = localize(frame)
                    outcome = outcome if alone.cam_from_world is None else alone
        if outcome is None:
            outcome = localize(frame)
        yield outcome
        last = LastFrame.of(outcome)


def _among(
    frame: Query,
    images: list[int],
    localize: Callable[[Query], Localization],
    least: Callable[[Localization], int],
    kept: float,
) -> Localization:
    """A frame localized among ``images``, or as if alone where that is not sure."""
    tracked = replace(localize(replace(frame, retrieved=images)), tracked=True)
    enough = max(SURE * least(tracked), kept)
    if tracked.cam_from_world is not None and tracked.num_inliers >= enough:
        return tracked
    alone = localize(frame)
    return tracked if _better(tracked, alone) else alone


def _better(one: Localization, other: Localization) -> bool:
    """Whether ``one`` is localized and has more inliers."""
    if one.cam_from_world is None:
        return False
    return other.cam_from_world is None or one.num_inliers > other.num_inliers
