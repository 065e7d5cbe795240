"""Sequences: a frame is matched with the images that see what the frame before it saw (ours).

The last frame's inliers vote for images, as in ``direct``. A frame that is not surely localized
among them is localized as if there were no last frame, so that none is lost.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from ..scene.visibility import Visibility
from .direct import voted_images
from .queries import Localization, Query

TRACKED_IMAGES = 4  # that a frame is matched with
SURE = 2.0  # times the inliers that a pose needs
KEPT = 0.3  # of the last frame's inliers, at least: with fewer the place may have changed


def track(
    frames: Iterable[Query],
    localize: Callable[[Query], Localization],
    least: Callable[[Localization], int],
    seen_by: Visibility,
) -> Iterator[Localization]:
    """Localize the frames of a sequence, in order.

    Args:
        frames: each with what was retrieved for it (None searches the whole map), which is looked
            at only where the last frame does not help.
        localize: a query.
        least: inliers that the pose of an outcome needs.
        seen_by: the map's points by images.

    Yields:
        The outcome of each frame; ``images`` tells what it was matched with.
    """
    last: Localization | None = None
    for frame in frames:
        outcome: Localization | None = None
        if last is not None:
            points = last.correspondences.point_index[last.inliers]
            images = voted_images(points, seen_by, TRACKED_IMAGES)
            if images:
                outcome = localize(replace(frame, retrieved=images))
                enough = max(SURE * least(outcome), KEPT * last.num_inliers)
                if outcome.cam_from_world is None or outcome.num_inliers < enough:
                    tracked, outcome = outcome, localize(frame)
                    if _better(tracked, outcome):
                        outcome = tracked
        if outcome is None:
            outcome = localize(frame)
        yield outcome
        last = outcome if outcome.cam_from_world is not None else None


def _better(one: Localization, other: Localization) -> bool:
    """Whether ``one`` is localized and has more inliers."""
    if one.cam_from_world is None:
        return False
    return other.cam_from_world is None or one.num_inliers > other.num_inliers
