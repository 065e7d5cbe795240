"""Small copies of the datasets that hloc has pipelines for, made from one shared scene.

File names, folders, lists and model formats are those of each dataset; images, features and poses
are the scene's. Keypoints are moved so that all images have one camera with a single focal length,
which is what the datasets' camera models are.
"""

import sqlite3
from pathlib import Path

import h5py
import numpy as np
import pycolmap

from hloc_dpqed.io.lists import read_poses, read_queries

WIDTH, HEIGHT = 1024, 683
FOCAL, CX, CY = 920.0, 512.0, 341.5
CAMERA = f"SIMPLE_RADIAL {WIDTH} {HEIGHT} {FOCAL} {CX} {CY} 0.0"
MAX_KEYPOINTS = 1024


class Miniature:
    """The scene under the names of a dataset.

    Args:
        scene: folder of the shared scene.
        root: where the dataset is laid out.
        scale: of the images and keypoints against the camera above.

    Attributes:
        db, queries: the scene's own image names.
        pose: (3, 4) float64 [R | t], camera from world, by the scene's name.
        source: the scene's name of each image that was put somewhere, by its path.
    """

    def __init__(self, scene: Path, root: Path, scale: int = 1):
        self.scene, self.root, self.scale = scene, root, scale
        self.model = pycolmap.Reconstruction(str(scene / "sfm"))
        self.image_of = {im.name: im for im in self.model.images.values()}
        self.db = sorted(self.image_of)
        listed = read_queries(scene / "queries.txt")
        self.queries = [name for name, _ in listed]
        self.pose = read_poses(scene / "poses_gt.txt")
        self.calibration = dict(listed)
        for name, image in self.image_of.items():
            self.pose[name] = np.array(image.cam_from_world().matrix())
            self.calibration[name] = self.model.cameras[image.camera_id]
        self.source: dict[Path, str] = {}
        self.size = (scale * WIDTH, scale * HEIGHT)  # that the feature file tells

    def put_image(self, path: str | Path, name: str) -> None:
        """Lay the scene's image ``name`` at ``path`` of the dataset."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        original = self.scene / "images" / name
        if self.scale == 1:
            target.symlink_to(original)
        else:
            import cv2  # only hloc brings it

            size = (self.scale * WIDTH, self.scale * HEIGHT)
            assert cv2.imwrite(str(target), cv2.resize(cv2.imread(str(original)), size))
        self.source[target] = name

    def write(self, path: str, lines: list[str]) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(line + "\n" for line in lines))

    def centre(self, name: str) -> np.ndarray:
        rotation, translation = self.pose[name][:, :3], self.pose[name][:, 3]
        return -rotation.T @ translation

    def quaternion(self, name: str) -> np.ndarray:
        """(4,) float64: w, x, y, z."""
        return np.asarray(pycolmap.Rigid3d(self.pose[name]).rotation.quat)[[3, 0, 1, 2]]

    def points(self):
        """Each 3D point: coordinates, and the scene's images and keypoint rows that see it."""
        for point in self.model.points3D.values():
            track = [(e.image_id, e.point2D_idx) for e in point.track.elements]
            yield point.xyz, [(self.model.images[i].name, k) for i, k in track]

    def write_nvm(self, path: str, named: dict[str, str]) -> None:
        """VisualSFM's model: images with focal length, pose and camera centre; then the points."""
        lines = ["NVM_V3 ", "", str(len(named))]
        row = {}
        for number, (name, listed) in enumerate(named.items()):
            row[name] = number
            values = [FOCAL, *self.quaternion(name), *self.centre(name)]
            lines.append(" ".join([listed, *(repr(float(v)) for v in values), "0", "0"]))
        points = []
        for xyz, track in self.points():
            seen = [f"{row[name]} {k} 1.0 1.0" for name, k in track]
            coordinates = " ".join(repr(float(v)) for v in xyz)
            points.append(f"{coordinates} 128 128 128 {len(seen)} {' '.join(seen)}")
        self.write(path, [*lines, "", str(len(points)), *points])

    def write_database(self, path: str, named: dict[str, str], own_cameras: bool) -> dict[str, int]:
        """The tables of COLMAP's database that the pipelines read; ids of the cameras."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self.root / path)
        database.execute(
            "CREATE TABLE cameras (camera_id INTEGER PRIMARY KEY, model INTEGER, width INTEGER, "
            "height INTEGER, params BLOB, prior_focal_length INTEGER)"
        )
        database.execute(
            "CREATE TABLE images (image_id INTEGER PRIMARY KEY, name TEXT, camera_id INTEGER)"
        )
        params = np.array([FOCAL, CX, CY, 0.0]).tobytes()
        camera_ids = {}
        for number, name in enumerate(named, 1):
            camera_ids[name] = number if own_cameras else 1
            if own_cameras or number == 1:
                row = (number, 2, WIDTH, HEIGHT, params, 1)  # 2 is SIMPLE_RADIAL
                database.execute("INSERT INTO cameras VALUES (?, ?, ?, ?, ?, ?)", row)
            row = (number, named[name], camera_ids[name])
            database.execute("INSERT INTO images VALUES (?, ?, ?)", row)
        database.commit()
        database.close()
        return camera_ids

    def write_model(
        self, path: str, named: dict[str, str], points: bool = True, ext: str = ".bin"
    ) -> None:
        """A COLMAP model of the images ``named``, in its plain files, with hloc's writer."""
        from hloc.utils.read_write_model import Camera, Image, Point3D, write_model

        image_id = {name: number for number, name in enumerate(named, 1)}
        params = np.array([FOCAL, CX, CY, 0.0])
        cameras = {1: Camera(1, "SIMPLE_RADIAL", WIDTH, HEIGHT, params)}
        rows: dict[str, list[int]] = {name: [] for name in named}
        points3D = {}
        for number, (xyz, track) in enumerate(self.points() if points else (), 1):
            seen = [name for name, _ in track if name in named]
            if len(seen) < 2:
                continue
            index = []
            for name in seen:
                index.append(len(rows[name]))
                rows[name].append(number)
            ids = np.array([image_id[name] for name in seen])
            colour = np.array([128, 128, 128])
            points3D[number] = Point3D(number, xyz, colour, 1.0, ids, np.array(index))
        images = {
            image_id[name]: Image(
                image_id[name],
                self.quaternion(name),
                self.pose[name][:, 3],
                1,
                listed,
                np.ones((len(rows[name]), 2)),
                np.array(rows[name], int),
            )
            for name, listed in named.items()
        }
        (self.root / path).mkdir(parents=True, exist_ok=True)
        write_model(cameras, images, points3D, str(self.root / path), ext)

    def keypoints(self, name: str, keypoints: np.ndarray) -> np.ndarray:
        """(n, 2) keypoints of the scene's camera as this dataset's camera sees them."""
        fx, fy, cx, cy = self.calibration[name].params
        ray = (keypoints + 0.5 - [cx, cy]) / [fx, fy]
        return ((ray * FOCAL + [CX, CY]) * self.scale - 0.5).astype(np.float32)

    def extract(
        self,
        conf: dict,
        image_dir: Path,
        export_dir: Path | None = None,
        as_half: bool = True,
        image_list=None,
        feature_path: Path | None = None,
        overwrite: bool = False,
    ) -> Path:
        """In place of hloc's ``extract_features.main``: the scene's stored features.

        Which images are meant is found by hloc's own code. SuperPoint's features are as stored;
        VLAD takes the place of NetVLAD.
        """
        from hloc.extract_features import ImageDataset

        path = feature_path or Path(export_dir, conf["output"] + ".h5")
        path.parent.mkdir(parents=True, exist_ok=True)
        dataset = ImageDataset(image_dir, conf["preprocessing"], image_list)
        kind = conf["model"]["name"]
        stored = {"superpoint": "feats-superpoint.h5", "netvlad": "global-feats-vlad.h5"}[kind]
        with h5py.File(self.scene / stored) as source, h5py.File(path, "a") as target:
            for name in dataset.names:
                if name in target:
                    continue
                original = self.source[Path(image_dir) / name]
                group, written = source[original], target.create_group(name)
                if kind == "netvlad":
                    # The constant makes every similarity positive, as NetVLAD's are.
                    row = np.append(group["global_descriptor"][()].astype(np.float32), 1)
                    written["global_descriptor"] = row / np.linalg.norm(row)
                    continue
                best = np.sort(np.argsort(-group["scores"][()], kind="stable")[:MAX_KEYPOINTS])
                written["keypoints"] = self.keypoints(original, group["keypoints"][()][best])
                written["descriptors"] = group["descriptors"][()][:, best]
                written["scores"] = group["scores"][()][best]
                written["image_size"] = np.array(self.size)
        return path


def aachen(scene: Path, root: Path) -> tuple[Miniature, dict[str, str]]:
    """Aachen Day-Night; the scene's query of each result name."""
    mini = Miniature(scene, root)
    db = {name: f"db/{number}.jpg" for number, name in enumerate(mini.db, 1)}
    _aachen_images(mini, db)
    mini.write_nvm("3D-models/aachen_cvpr2018_db.nvm", db)
    intrinsics = [f"{listed} {CAMERA}" for listed in db.values()]
    mini.write("3D-models/database_intrinsics.txt", intrinsics)
    mini.write_database("aachen.db", db, own_cameras=True)
    return mini, _aachen_queries(mini)


def aachen_v1_1(scene: Path, root: Path) -> tuple[Miniature, dict[str, str]]:
    """Aachen Day-Night v1.1, whose poses are those of a COLMAP model."""
    mini = Miniature(scene, root)
    sequence = {name: f"sequences/nexus4_sequences/sequence_1/{name}" for name in mini.db[5:]}
    db = {name: f"db/{number}.jpg" for number, name in enumerate(mini.db[:5], 1)} | sequence
    _aachen_images(mini, db)
    mini.write_model("3D-models/aachen_v_1_1", db)
    return mini, _aachen_queries(mini)


def _aachen_images(mini: Miniature, db: dict[str, str]) -> None:
    for name, listed in db.items():
        mini.put_image(f"images_upright/{listed}", name)


def _aachen_queries(mini: Miniature) -> dict[str, str]:
    listed = {}
    half = len(mini.queries) // 2
    for number, name in enumerate(mini.queries):
        day = number < half
        folder = "query/day/nexus4" if day else "query/night/nexus5x"
        listed[name] = f"{folder}/IMG_20161227_{160000 + number}.jpg"
        mini.put_image(f"images_upright/{listed[name]}", name)
    for time, names in (("day", mini.queries[:half]), ("night", mini.queries[half:])):
        lines = [f"{listed[name]} {CAMERA}" for name in names]
        mini.write(f"queries/{time}_time_queries_with_intrinsics.txt", lines)
    return {Path(path).name: name for name, path in listed.items()}


def cambridge(scene: Path, root: Path, name: str = "ShopFacade") -> Miniature:
    """A scene of Cambridge Landmarks: models of images at half their size."""
    mini = Miniature(scene, root, scale=2)
    db = {image: f"seq1/frame{number:05d}.png" for number, image in enumerate(mini.db, 1)}
    queries = {image: f"seq3/frame{number:05d}.png" for number, image in enumerate(mini.queries, 1)}
    for image, listed in (db | queries).items():
        mini.put_image(f"{name}/{listed}", image)
    models = f"CambridgeLandmarks_Colmap_Retriangulated_1024px/{name}"
    mini.write_model(f"{models}/model_train", db)
    mini.write_model(f"{models}/empty_all", db | queries, points=False, ext=".txt")
    mini.write(f"{models}/list_query.txt", list(queries.values()))
    return mini


def robotcar(scene: Path, root: Path) -> tuple[Miniature, dict[str, str]]:
    """RobotCar Seasons: three cameras, square images, PNG names in the model and JPEG on disk."""
    mini = Miniature(scene, root)
    mini.size = (1024, 1024)  # hloc's list of queries says so
    sides = ["left", "right", "rear"]
    db = {}
    for number, name in enumerate(mini.db):
        db[name] = f"overcast-reference/{sides[number % 3]}/{1417178384000000 + number}.png"
        mini.put_image("images/" + db[name].replace("png", "jpg"), name)
    mini.write_nvm("3D-models/all-merged/all.nvm", {name: f"./{path}" for name, path in db.items()})
    mini.write_database("3D-models/overcast-reference.db", db, own_cameras=False)
    for side in sides:
        lines = [f"fx {FOCAL}", f"fy {FOCAL}", f"cx {CX}", f"cy {CY}"]
        mini.write(f"intrinsics/{side}_intrinsics.txt", lines)
    query_of = {}
    for number, name in enumerate(mini.queries):
        condition = ["dawn", "night-rain"][number % 2]
        listed = f"{sides[number % 3]}/{1418133190000000 + number}.jpg"
        mini.put_image(f"images/{condition}/{listed}", name)
        query_of[listed] = name
    return mini, query_of


def cmu(scene: Path, root: Path, number: int = 2) -> tuple[Miniature, dict[str, str]]:
    """A slice of Extended CMU Seasons: two cameras, told apart by the file names."""
    mini = Miniature(scene, root)
    slice_ = f"slice{number}"

    def listed(row: int, time: int) -> str:
        return f"img_{row:05d}_c{row % 2}_{time + row}us_rect.jpg"

    db = {name: listed(row, 1303398475046031) for row, name in enumerate(mini.db)}
    queries = {name: listed(row, 1288106790562541) for row, name in enumerate(mini.queries)}
    for folder, names in (("database", db), ("query", queries)):
        for name, path in names.items():
            mini.put_image(f"{slice_}/{folder}/{path}", name)
    mini.write_model(f"{slice_}/sparse", db)
    mini.write(f"{slice_}/test-images-{slice_}.txt", list(queries.values()))
    camera = f"OPENCV {WIDTH} {HEIGHT} {FOCAL} {FOCAL} {CX} {CY} 0 0 0 0"
    mini.write("intrinsics.txt", ["# cameras of the survey", f"c0 {camera}", f"c1 {camera}"])
    return mini, {path: name for name, path in queries.items()}


def seven_scenes(scene: Path, root: Path, name: str = "chess") -> Miniature:
    """A scene of 7Scenes: one model with all images, pairs from DenseVLAD."""
    mini = Miniature(scene, root)
    db = {image: f"seq-01/frame-{row:06d}.color.png" for row, image in enumerate(mini.db)}
    queries = {image: f"seq-03/frame-{row:06d}.color.png" for row, image in enumerate(mini.queries)}
    for image, listed in (db | queries).items():
        mini.put_image(f"{name}/{listed}", image)
    gt = f"7scenes_sfm_triangulated/{name}/triangulated"
    mini.write_model(gt, db | queries)
    mini.write(f"{gt}/list_test.txt", list(queries.values()))
    pairs = [line.split() for line in (scene / "pairs-query-vlad7.txt").read_text().splitlines()]
    lines = [f"{queries[query]} {db[image]}" for query, image in pairs]
    mini.write(f"7scenes_densevlad_retrieval_top_10/{name}_top10.txt", lines)
    return mini


def four_seasons(scene: Path, root: Path) -> tuple[Miniature, str]:
    """4Seasons: a reference sequence and one to relocalize; the relocalization file's name.

    Both cameras of the stereo pair are the scene's one. An image of the reference has no pose.
    """
    mini = Miniature(scene, root)
    db = {name: f"{1586247632000000000 + row}" for row, name in enumerate(mini.db)}
    queries = {name: f"{1585064182000000000 + row}" for row, name in enumerate(mini.queries)}
    for folder, names in (("reference", db), ("training", queries)):
        for name, timestamp in names.items():
            for camera in ("cam0", "cam1"):
                mini.put_image(f"{folder}/undistorted_images/{camera}/{timestamp}.png", name)
        for camera in (0, 1):
            lines = [f"Pinhole {FOCAL} {FOCAL} {CX} {CY} 0", f"{WIDTH} {HEIGHT}"]
            mini.write(f"{folder}/Calibration/undistorted_calib_{camera}.txt", lines)
        stereo = [" ".join(map(str, row)) for row in np.eye(4)]
        mini.write(f"{folder}/Calibration/undistorted_calib_stereo.txt", stereo)
    mini.put_image("reference/undistorted_images/cam0/1586247639999999999.png", mini.db[0])

    poses = ["# time tx ty tz qx qy qz qw"]
    for name, timestamp in db.items():
        poses.append(", ".join([timestamp, *_moved(pycolmap.Rigid3d(mini.pose[name]).inverse())]))
    mini.write("reference/poses.txt", poses)
    file = "RelocalizationFilesTrain/relocalizationFile_recording_2020-03-24_17-36-22.txt"
    lines = ["# reference, query, the query's camera from the reference's"]
    for row, (name, timestamp) in enumerate(queries.items()):
        reference = mini.db[row]
        query_from_world = pycolmap.Rigid3d(mini.pose[name])
        relative = query_from_world * pycolmap.Rigid3d(mini.pose[reference]).inverse()
        lines.append(" ".join([db[reference], timestamp, *_moved(relative)]))
    mini.write(f"reference/{file}", lines)
    return mini, file


def _moved(pose: pycolmap.Rigid3d) -> list[str]:
    """Translation, then quaternion x, y, z, w."""
    return [repr(float(v)) for v in (*pose.translation, *pose.rotation.quat)]
