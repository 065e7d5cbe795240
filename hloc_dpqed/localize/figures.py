"""The figures of a run: what ``localize --json`` prints."""

from typing import Any

from ..logger import logger


def figures_of(
    num_queries: int,
    found: dict[str, list[list[float]] | None],
    counts: dict[str, int],
    num_resumed: int,
    seconds_load: float,
    seconds: float,
) -> dict[str, Any]:
    """Figures over the queries.

    Args:
        num_queries: in the list.
        found, counts: as ``localization.records.query_totals`` gives them.
        num_resumed: queries that an earlier run had finished.
        seconds_load: of reading the map.
        seconds: of the rest of the run.
    """
    return {
        "num_queries": num_queries,
        "num_localized": sum(pose is not None for pose in found.values()),
        "num_rejected": counts["rejected"],
        "mean_matches": counts["matches"] / num_queries,
        "mean_inliers": counts["inliers"] / num_queries,
        "seconds_load": seconds_load,
        "seconds_per_query": seconds / max(num_queries - num_resumed, 1),
        "num_resumed": num_resumed,
    }


def tell(figures: dict[str, Any], counts: dict[str, int]) -> None:
    """One line into the log."""
    told = "".join(
        f", {counts[name]} {what}"
        for name, what in (
            ("rejected", "poses rejected for too few inliers"),
            ("doubtful", "left out as doubtful"),
        )
        if counts[name]
    )
    logger.info(
        f"Localized {figures['num_localized']} / {figures['num_queries']} queries{told}, poses in "
        f"{figures['results']}"
    )
