"""What a report shows: its sections, from outcomes to HTML."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..evaluation.measures import PosedQuery, bootstrap
from ..evaluation.pose_errors import format_length
from ..io.sizes import format_size
from ..scene.reference import ReferenceMap
from .figures import bytes_figure, error_figure, figure_html, scene_figure
from .html import Picture, escape, match_picture, picture_definitions, table
from .images import load_pictures
from .outcomes import UNCOMPRESSED, MapOutcome, chosen_queries, dropped_points, most_matched_image


def accuracy_section(
    outcomes: Sequence[MapOutcome],
    queries: Sequence[PosedQuery],
    limits: Sequence[tuple[float, float]],
    known_poses: bool,
) -> str:
    """A line for each map; where there is the uncompressed map, the difference from it."""
    measured = [outcome.measures(queries) for outcome in outcomes]
    baseline = measured[0] if outcomes[0].label == UNCOMPRESSED else None
    header = ["map", "points", "file", "codes", "localized", "correct matches", "precision"]
    header += ["median error (units / degrees)"]
    header += [f"recall {t:g} / {r:g}" for t, r in limits]
    if baseline is not None:
        header.insert(6, "minus float, 95 %")
    rows = []
    for outcome, own in zip(outcomes, measured, strict=True):
        translation, rotation = own.median_errors()
        row = [
            outcome.label,
            f"{outcome.compressed.num_points:,}",
            format_size(outcome.total_bytes),
            format_size(outcome.descriptor_bytes),
            f"{np.isfinite(own.errors[..., 0]).mean():.3f}",
            f"{own.correct.mean():.1f}",
            f"{own.precision.mean():.3f}",
            f"{format_length(translation)} / {rotation:.3f}",
            *(f"{own.recall(*limit):.3f}" for limit in limits),
        ]
        if baseline is not None:
            difference = own.correct - baseline.correct
            low, high = bootstrap(difference)
            row.insert(6, "" if own is baseline else f"{low:+.1f} .. {high:+.1f}")
        rows.append(row)
    seeds = measured[0].errors.shape[1]
    against = "the reference poses" if known_poses else "the poses that the uncompressed map gives"
    text = (
        f"<p>{len(queries)} queries, {seeds} RANSAC runs each, errors against {against}. Correct "
        "matches are the distinct pairs of a keypoint and a 3D point that reproject within 4 "
        "pixels, the mean over queries; precision is their share. The interval is over queries, "
        "paired. Recall is the share of runs with both errors strictly under the thresholds.</p>"
    )
    if baseline is not None:
        text += (
            "<p>The uncompressed map's file size is that of the COLMAP model and of the database "
            "images' local features as plain arrays.</p>"
        )
    return text + table(header, rows)


def bytes_section(outcomes: Sequence[MapOutcome]) -> str:
    """Bytes of each section of each map file."""
    sizes = {o.label: o.info["sections"] for o in outcomes if o.info is not None}
    points = {o.label: max(o.compressed.num_points, 1) for o in outcomes}
    names = list(dict.fromkeys(name for sections in sizes.values() for name in sections))
    header = ["section", *(f"{label}, bytes (a point)" for label in sizes)]
    rows = [
        [
            name,
            *(
                f"{sections[name]:,} ({sections[name] / points[label]:.2f})"
                if name in sections
                else ""
                for label, sections in sizes.items()
            ),
        ]
        for name in names
    ]
    totals = {label: sum(sections.values()) for label, sections in sizes.items()}
    rows.append(
        ["whole file", *(f"{n:,} ({n / points[label]:.2f})" for label, n in totals.items())]
    )
    return figure_html(bytes_figure(sizes), "bytes") + table(header, rows)


def scene_section(
    outcomes: Sequence[MapOutcome], queries: Sequence[PosedQuery], reference: ReferenceMap | None
) -> str:
    """Kept and dropped points, database and query cameras."""
    maps = [outcome for outcome in outcomes if outcome.info is not None]
    kept = {o.label: o.compressed.xyz for o in maps}
    dropped: dict[str, np.ndarray] = {}
    if reference is not None:
        for outcome in maps:
            assert outcome.info is not None
            far = dropped_points(reference.xyz, outcome.compressed.xyz, outcome.info["xyz_error"])
            dropped[outcome.label] = reference.xyz[far]
    first = maps[0].compressed
    cameras = [first.cameras[i] for i in first.camera_index]
    estimated = {o.label: np.array([q.poses[0] for q in o.queries]) for o in outcomes}
    figure, hidden = scene_figure(
        kept,
        dropped,
        (first.cam_from_world, cameras, first.image_names),
        (
            np.array([q.cam_from_world for q in queries]),
            [q.camera for q in queries],
            [q.name for q in queries],
        ),
        estimated,
    )
    text = "<p>Click an entry of the legend to show or hide it; drag to turn."
    if reference is not None:
        text += f" The uncompressed map has {reference.num_points:,} points."
    if hidden:
        text += f" {hidden:,} points far outside, or more than can be drawn, are not shown."
    return text + "</p>" + figure_html(figure, "scene")


def error_section(outcomes: Sequence[MapOutcome], queries: Sequence[PosedQuery]) -> str:
    """Histograms, and the median error of each query."""
    errors = {outcome.label: outcome.measures(queries).errors for outcome in outcomes}
    medians = [np.median(own, axis=1) for own in errors.values()]
    header = ["query", *(f"{label} (units / degrees)" for label in errors)]
    rows = [
        [
            query.name,
            *(f"{format_length(own[k, 0])} / {own[k, 1]:.3f}" for own in medians),
        ]
        for k, query in enumerate(queries)
    ]
    return (
        figure_html(error_figure({k: v.reshape(-1, 2) for k, v in errors.items()}), "errors")
        + "<details><summary>Median error of each query</summary>"
        + table(header, rows)
        + "</details>"
    )


def match_section(
    outcomes: Sequence[MapOutcome], queries: Sequence[PosedQuery], folder: Path | None
) -> str:
    """Pictures of the matches of three queries with one database image, by each map."""
    ranking = next(o for o in outcomes if o.info is not None)
    chosen = chosen_queries(ranking.measures(queries).errors[..., 0])
    shown = []
    for title, k in chosen:
        image = most_matched_image(outcomes[0], k)
        if image is not None:
            shown.append((title, k, image))
    names = dict.fromkeys(name for _, k, image in shown for name in (queries[k].name, image))
    pictures: dict[str, Picture] = {}
    if folder is not None:
        pictures = load_pictures(Path(folder), list(names))
    parts = [
        f"<p>The best, median and worst query by the translation error of {escape(ranking.label)}, "
        f"with the database image that has most correct matches in {escape(outcomes[0].label)}. "
        '<span class="correct">Green</span>: correct, <span class="wrong">red</span>: wrong.</p>',
        picture_definitions(pictures),
    ]
    for title, k, name in shown:
        parts.append(f"<h3>{escape(title)}: {escape(queries[k].name)} and {escape(name)}</h3>")
        for outcome in outcomes:
            parts.append(_match_picture(outcome, queries[k], k, name, pictures))
    if not shown:
        parts.append("<p>No database image has a match with these queries.</p>")
    return "\n".join(parts)


def _match_picture(
    outcome: MapOutcome, query: PosedQuery, k: int, name: str, pictures: dict[str, Picture]
) -> str:
    own, compressed = outcome.queries[k], outcome.compressed
    caption = f"{outcome.label} ({format_size(outcome.total_bytes)})"
    if name not in compressed.image_names:
        return f"<p>{escape(caption)}: the map has no such image.</p>"
    image = compressed.image_names.index(name)
    if image in own.images:
        pairs = own.matches[own.images.index(image)].pairs
    else:
        pairs = np.stack([own.found.keypoint_index, own.found.point_index], 1)
        pairs = pairs[np.isin(pairs[:, 1], compressed.places_seen(image))]
    base = max(compressed.num_points, 1)
    good_keys = own.found.keypoint_index * base + own.found.point_index
    correct = np.isin(pairs[:, 0] * base + pairs[:, 1], good_keys[own.correct])
    xy, visible = compressed.project(image)
    seen = compressed.places_seen(image)
    order = np.argsort(seen)
    row = order[np.searchsorted(seen, pairs[:, 1], sorter=order)]
    drawn = visible[row]
    # Keypoints have pixel centres at integers, projections and the picture at halves.
    left = query.features.keypoints[pairs[:, 0]] + 0.5
    camera = compressed.cameras[compressed.camera_index[image]]
    caption += f": {len(pairs)} matches, {int(correct.sum())} of them correct"
    return match_picture(
        (query.name, query.camera.width, query.camera.height),
        (name, camera.width, camera.height),
        left[drawn],
        xy[row][drawn],
        correct[drawn],
        caption,
        pictures,
    )
