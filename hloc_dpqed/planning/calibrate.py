"""Calibrate the confidence of a map's poses on database images that are held out of it."""

from dataclasses import replace

import numpy as np

from ..compression.conf import CompressConf, Work
from ..compression.engine import Compressor
from ..compression.source import Source
from ..evaluation.pose_errors import pose_error
from ..io.features import open_features
from ..localization.confidence import Calibration, Evidence, fit_calibration
from ..localization.localizer import Localizer, Query
from ..logger import logger
from .holdout import HeldOutImage
from .pseudo_queries import hold_out_queries, num_folds
from .trials import TRIAL_STEPS

FOLDS = 3  # at most, of which the images are held out one after the other
NUM_RETRIEVED = 20
# Easy images alone would not tell what a doubtful pose looks like: each is also localized with one
# of so many of its keypoints.
ONE_OF = (1, 4, 16)
CALIBRATION_BYTES = 400  # that a map's calibration takes, and no more


def calibrate(source: Source, conf: CompressConf, num_points: int, work: Work) -> Calibration:
    """Localize held-out images in maps made like the one of ``conf``, and fit their errors.

    Codecs of these maps are fitted without the held-out images. Poses are those of ``localize``
    with its defaults.

    Args:
        source: the uncompressed map.
        conf: how the map is made.
        num_points: that it keeps.
        work: how the fitting is done.

    Raises:
        InputError: the map has fewer than four images, or no held-out image was localized.
    """
    if conf.codec == "drqed":
        conf = replace(conf, codec_options={"steps": TRIAL_STEPS, **conf.codec_options})
    poses: list[tuple[Evidence, float, float]] = []
    with open_features(source.features) as file:
        for fold in range(min(FOLDS, num_folds(source.reference.num_images))):
            held = hold_out_queries(
                source.reference,
                source.observations,
                conf.seed,
                file.read,
                source.global_descriptors,
                NUM_RETRIEVED,
                fold=fold,
            )
            share = held.reference.num_points / source.reference.num_points
            shared = source.shared if conf.shared else None
            compressor = Compressor(
                held.reference,
                held.observations,
                conf,
                work=replace(work, resume=None),
                codec=None if shared is None else shared.codec.head(conf.code_bytes),
                codec_hash=None if shared is None else shared.digest,
            )
            compressed = compressor.compress(max(1, round(share * num_points)))
            localizer = Localizer(compressed, seed=conf.seed)
            row_of = {name: row for row, name in enumerate(compressed.image_names)}
            queries = [
                _with_one_of(query, one_of, conf.seed, row_of)
                for query in held.queries
                for one_of in ONE_OF
            ]
            truth = [query.cam_from_world for query in held.queries for _ in ONE_OF]
            for outcome, pose in zip(localizer.localize_many(queries), truth, strict=True):
                if outcome.cam_from_world is not None and outcome.evidence is not None:
                    errors = pose_error(outcome.cam_from_world, pose)
                    poses.append((outcome.evidence, *errors))
    calibration = fit_calibration(poses)
    logger.info(f"Calibrated the confidence on {len(poses)} poses of held-out images")
    return calibration


def _with_one_of(held: HeldOutImage, one_of: int, seed: int, row_of: dict[str, int]) -> Query:
    """A held-out image as a query, with one of so many of its keypoints."""
    assert held.features is not None  # hold_out was given a reader
    f = held.features
    rows = np.arange(len(f.keypoints))
    if one_of > 1:
        rng = np.random.default_rng([seed, held.image, one_of])
        rows = np.sort(rng.permutation(len(rows))[: len(rows) // one_of])
    features = replace(
        f, keypoints=f.keypoints[rows], descriptors=f.descriptors[rows], scores=f.scores[rows]
    )
    retrieved = [row_of[name] for name in held.retrieved]
    return Query(f"{held.name} 1/{one_of}", held.camera, features, retrieved)
