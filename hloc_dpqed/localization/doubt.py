"""Poses that are less probable than was asked for are left out."""

import math
from dataclasses import dataclass, replace

from ..errors import InputError
from .confidence import Calibration
from .queries import Localization, RigLocalization


@dataclass(frozen=True)
class LeastConfidence:
    """How probably a pose must be how right.

    Attributes:
        probability: 0 .. 1.
        translation: map units.
        rotation: degrees.
    """

    probability: float
    translation: float
    rotation: float

    @staticmethod
    def parse(text: str) -> "LeastConfidence":
        """``0.9@0.25/2``: the probability of errors under map units / degrees.

        Raises:
            InputError: not such a text.
        """
        try:
            probability, errors = text.split("@")
            translation, rotation = errors.split("/")
            least = LeastConfidence(float(probability), float(translation), float(rotation))
            if not (0 < least.probability < 1 and 0 < least.translation < math.inf):
                raise ValueError
            if not 0 < least.rotation < math.inf:
                raise ValueError
        except ValueError as error:
            raise InputError(
                f"--min_confidence {text}: expected probability@translation/rotation such as "
                "0.9@0.25/2, the probability between 0 and 1"
            ) from error
        return least


def without_doubtful(
    outcome: Localization | RigLocalization, calibration: Calibration, least: LeastConfidence
) -> Localization | RigLocalization:
    """The outcome, without poses whose errors are under the thresholds less probably than asked.

    A rig has no pose where none of its images has one.
    """
    if not isinstance(outcome, RigLocalization):
        return _without_doubtful(outcome, calibration, least)
    cameras = [_without_doubtful(camera, calibration, least) for camera in outcome.cameras]
    sure = any(camera.cam_from_world is not None for camera in cameras)
    pose = outcome.rig_from_world if sure else None
    return replace(outcome, rig_from_world=pose, cameras=cameras)


def _without_doubtful(
    one: Localization, calibration: Calibration, least: LeastConfidence
) -> Localization:
    if one.cam_from_world is None:
        return one
    found = calibration.probability(one.evidence, least.translation, least.rotation)
    if found >= least.probability:
        return one
    return replace(one, cam_from_world=None, doubtful=True)
