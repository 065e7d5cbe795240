"""Queries whose focal length is not known: it is estimated with the pose.

pycolmap's minimal solver is P4Pf (Larsson, Kukelova and Zheng, "Making Minimal Solvers for Absolute
Pose Estimation Compact and Robust", ICCV 2017), which does not look at the camera's own focal
length; the refinement then holds it free. Where something tells it nearly, such as EXIF, a pose is
found with that too, and the refinement goes on from there. The principal point stays as given, and
the distortion does unless it is a guess too.
"""

from typing import Any

import pycolmap

from ..errors import InputError

GUESSED_FOCAL = 1.2  # times the longer side: COLMAP's guess where nothing tells it
# Times as many inliers as the focal length that was told must have one that is found without it.
BETTER = 1.1
LENS_INLIERS = 50  # from which a distortion that is not known is refined: fewer fit any


def check_estimate_focal(estimate_focal: bool, rigs: bool) -> None:
    """Check what the estimation of a focal length goes together with.

    Raises:
        InputError: rigs, whose cameras are calibrated.
    """
    if estimate_focal and rigs:
        raise InputError(
            "--estimate_focal (and --camera auto): excludes --rigs, whose cameras are calibrated"
        )


def with_free_focal(options: dict[str, Any]) -> dict[str, Any]:
    """``pose.estimation_options`` that estimate the focal length of the camera they are given.

    pycolmap writes it into that camera: pass a copy.
    """
    return {
        "estimation": {**options["estimation"], "estimate_focal_length": True},
        "refinement": {**options["refinement"], "refine_focal_length": True},
    }


def with_refined_focal(options: dict[str, Any]) -> dict[str, Any]:
    """``pose.estimation_options`` that start from the camera's focal length and refine it.

    pycolmap writes it into that camera: pass a copy.
    """
    return {**options, "refinement": {**options["refinement"], "refine_focal_length": True}}


def with_refined_lens(options: dict[str, Any]) -> dict[str, Any]:
    """As ``with_refined_focal``, and the distortion with it."""
    refinement = {"refine_focal_length": True, "refine_extra_params": True}
    return {**options, "refinement": {**options["refinement"], **refinement}}


def guess_camera(width: int, height: int) -> pycolmap.Camera:
    """COLMAP's guess of a camera of which only the image's size in pixels is known."""
    focal = GUESSED_FOCAL * max(width, height)
    params = [focal, width / 2, height / 2, 0]
    return pycolmap.Camera(model="SIMPLE_RADIAL", width=width, height=height, params=params)


def copy_camera(camera: pycolmap.Camera) -> pycolmap.Camera:
    """A camera of its own with the same intrinsics."""
    return pycolmap.Camera(
        model=camera.model.name,
        width=camera.width,
        height=camera.height,
        params=camera.params,
        has_prior_focal_length=camera.has_prior_focal_length,
    )


def has_focal(camera: pycolmap.Camera) -> bool:
    """Whether the camera's focal length is one that an image of its size may have.

    A quarter of the longer side is a view of 127 degrees, 20 times it one of 3.
    """
    return 0.25 <= camera.mean_focal_length() / max(camera.width, camera.height) <= 20
