"""COLMAP's databases and its log."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pycolmap


@contextmanager
def quiet_colmap() -> Iterator[None]:
    """Only COLMAP's errors reach standard error."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def create_database(
    path: Path, images: Path, groups: Sequence[tuple[list[str], pycolmap.Camera | None]]
) -> None:
    """Start a COLMAP database with groups of photos; each group shares a camera.

    Args:
        path: of the database, replaced if it exists.
        images: folder of the photos.
        groups: names of the photos, and their camera; None guesses a SIMPLE_RADIAL camera.
    """
    path.unlink(missing_ok=True)
    with open_database(path):
        pass  # opening creates it
    for names, camera in groups:
        options = pycolmap.ImageReaderOptions()
        if camera is None:
            options.camera_model = "SIMPLE_RADIAL"
        else:
            options.camera_model = camera.model.name
            options.camera_params = ",".join(repr(float(p)) for p in camera.params)
        pycolmap.import_images(
            str(path), str(images), pycolmap.CameraMode.SINGLE, sorted(names), options
        )


@contextmanager
def open_database(path: Path) -> Iterator[pycolmap.Database]:
    database = pycolmap.Database.open(str(path))
    try:
        yield database
    finally:
        database.close()
