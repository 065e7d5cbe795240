"""RobotCar's reference model: poses and points from VisualSFM's file, cameras from a database."""

import contextlib
import sqlite3
import tempfile
from pathlib import Path

import numpy as np

from hloc_dpqed.errors import InputError

from ..common import require_hloc


def write_reference_model(nvm: Path, database: Path, output: Path) -> None:
    """What hloc's ``RobotCar.colmap_from_nvm.main`` writes, with any numpy.

    hloc's own reader of the cameras uses a mode of ``np.fromstring`` that numpy 2.3 has removed; it
    is given a database without cameras, and the cameras are read here.

    Raises:
        InputError: the database is not one of COLMAP.
    """
    common, upstream, models = require_hloc(
        "colmap_from_nvm", "pipelines.RobotCar.colmap_from_nvm", "utils.read_write_model"
    )
    cameras = {}
    try:
        with contextlib.closing(sqlite3.connect(database)) as db:
            rows = db.execute("SELECT camera_id, model, width, height, params FROM cameras")
            for camera_id, model, width, height, params in rows:
                name = models.CAMERA_MODEL_IDS[model].model_name
                values = np.frombuffer(params, np.float64)
                cameras[camera_id] = models.Camera(camera_id, name, width, height, values)
        image_ids, camera_ids = common.recover_database_images_and_ids(database)
    except (sqlite3.Error, KeyError, ValueError) as error:
        raise InputError(f"{database}: not a readable database of COLMAP ({error})") from error
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "empty.db"
        with contextlib.closing(sqlite3.connect(empty)) as db:
            db.execute("CREATE TABLE cameras (camera_id, model, width, height, params)")
        _, images, points = upstream.read_nvm_model(nvm, empty, image_ids, camera_ids)
    output.mkdir(exist_ok=True, parents=True)
    models.write_model(cameras, images, points, str(output), ".bin")
