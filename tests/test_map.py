"""Photos to a map and to poses without hloc: extractors, matches, COLMAP's steps, what is used
again, what is refused."""

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest
from conftest import WEIGHTS
from synthetic import model_of

from hloc_dpqed import compress, evaluate, localize, map as mapping
from hloc_dpqed.cli import main as cli
from hloc_dpqed.demo.render import Renderer
from hloc_dpqed.demo.scene import courtyard
from hloc_dpqed.demo.views import look, pinhole, random_light
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.colmap_database import DatabaseFile
from hloc_dpqed.io.features import FeatureFile, ImageFeatures, feature_kind
from hloc_dpqed.io.lists import write_poses
from hloc_dpqed.io.model import load_reconstruction, read_reference
from hloc_dpqed.mapping import extraction as extracting, matching
from hloc_dpqed.mapping.colmap import create_database
from hloc_dpqed.mapping.extraction import COLMAP_SIFT, Extraction, extract, write_image
from hloc_dpqed.mapping.photos import photo_queries, read_photo
from hloc_dpqed.mapping.superpoint import SuperPoint

SIZE = (480, 360)
NUM_DATABASE, NUM_QUERIES = 8, 2
QUICK = {"max_keypoints": 1000, "progress": False}


def rng():
    return np.random.default_rng(0)


def walk(count):
    """Poses along an arc around the monument, looking past it."""
    poses = []
    for i in range(count):
        angle = 2 * np.pi * i / 60
        centre = np.array([5.3 * np.cos(angle), 3.9 * np.sin(angle), 1.65 + 0.2 * (i % 2)])
        heading = np.arctan2(centre[1], centre[0]) + np.pi + 0.35
        poses.append(look(centre, heading, 0.1, 0.02 * (i % 3)))
    return poses


@pytest.fixture(scope="module")
def yard(tmp_path_factory):
    """Rendered photos in folders with spaces, a model of their poses without points, the truth."""
    folder = tmp_path_factory.mktemp("yard")
    renderer, camera = Renderer(courtyard(0, 50.0), 0), pinhole(*SIZE, 0.82)
    poses = walk(NUM_DATABASE + NUM_QUERIES)
    queries = {3, 6}
    camera.camera_id = 1
    images, truth = [], {}
    for i, pose in enumerate(poses):
        light = random_light(np.random.default_rng([0, i]))
        pixels = renderer.render(camera, pose, light, np.random.default_rng([1, i])).image
        name = f"{i}.png" if i in queries else f"walk {i // 4}/view {i:02}.png"
        path = folder / ("queries" if i in queries else "photos") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        assert pycolmap.Bitmap.from_array(pixels).write(str(path))
        if i in queries:
            truth[name] = pose
        else:
            images.append((i + 1, name, 1, np.zeros((0, 2)), pycolmap.Rigid3d(pose)))
    (folder / "poses").mkdir()
    model_of([camera], images, []).write(str(folder / "poses"))
    write_poses(folder / "truth.txt", truth)
    params = " ".join(str(float(p)) for p in camera.params)
    (folder / "camera.txt").write_text(f"PINHOLE {SIZE[0]} {SIZE[1]} {params}")
    return folder


@pytest.fixture(scope="module")
def made(yard):
    """A map of the photos with their poses."""
    mapping.main(yard / "photos", yard / "scene", yard / "poses", **QUICK)
    return yard / "scene"


def camera_of(yard):
    return (yard / "camera.txt").read_text()


# The whole way


def test_three_commands_from_photos_to_poses(yard, tmp_path, capfd):
    argv = ["map", "--images", yard / "photos", "--output", tmp_path / "scene", "--poses"]
    argv += [yard / "poses", "--max_keypoints", 1200]
    assert cli([*map(str, argv)]) == 0
    argv = ["compress", "--reference_sfm", tmp_path / "scene" / "sfm", "--features"]
    argv += [tmp_path / "scene" / "features.h5", "--output", tmp_path / "m.dpqed"]
    assert cli([*map(str, argv), "--codec", "sq8"]) == 0
    argv = ["localize", "--map", tmp_path / "m.dpqed", "--images", yard / "queries", "--camera"]
    argv += [camera_of(yard), "--results", tmp_path / "poses.txt", "--json"]
    capfd.readouterr()
    assert cli([*map(str, argv)]) == 0
    figures = json.loads(capfd.readouterr().out)
    assert figures["num_localized"] == figures["num_queries"] == NUM_QUERIES
    found = evaluate.main(tmp_path / "poses.txt", yard / "truth.txt")
    assert found["median_translation"] < 0.05 and found["median_rotation"] < 0.5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.dpqed", "poses.txt", "scene"]


def test_a_map_is_in_the_frame_of_its_poses_and_tells_its_extraction(yard, made):
    given, model = load_reconstruction(yard / "poses"), load_reconstruction(made / "sfm")
    poses = {image.name: image.cam_from_world().matrix() for image in given.images.values()}
    assert {image.name for image in model.images.values()} == set(poses)
    with FeatureFile(made / "features.h5") as file:
        for image in model.images.values():
            np.testing.assert_allclose(
                image.cam_from_world().matrix(), poses[image.name], atol=1e-12
            )
            xy = np.array([p.xy for p in image.points2D])
            np.testing.assert_allclose(file.read(image.name).keypoints + 0.5, xy, atol=1e-3)
    kind = feature_kind(made / "features.h5")
    assert kind["extractor"] == "COLMAP's SIFT"
    assert Extraction.from_json(kind["extraction"]) == Extraction("sift", 1000)
    assert model.num_points3D() > 100


def test_points_lie_on_the_walls(yard, made):
    """Triangulated points are where the renderer drew them."""
    renderer = Renderer(courtyard(0, 8))  # the shapes do not depend on the texels
    reference = read_reference(made / "sfm")
    errors = []
    for i in range(reference.num_images):
        pose, points = reference.cam_from_world[i], reference.visibility[i]
        depth = renderer.depth(reference.cameras[0], pose)
        rows = slice(reference.visibility.indptr[i], reference.visibility.indptr[i + 1])
        columns, lines = reference.keypoint_positions[rows].astype(int).T
        found = reference.xyz[points] @ pose[2, :3] + pose[2, 3]
        errors.append(np.abs(depth[lines, columns] - found))
    assert np.median(np.concatenate(errors)) < 0.05


def test_structure_from_motion(yard, tmp_path):
    output = tmp_path / "scene"
    mapping.main(yard / "photos", output, camera=camera_of(yard), **QUICK)
    model, given = load_reconstruction(output / "sfm"), load_reconstruction(yard / "poses")
    assert model.num_reg_images() >= NUM_DATABASE - 2
    centres = {im.name: im.projection_center() for im in given.images.values()}
    names = sorted(im.name for im in model.images.values())
    found = {im.name: im.projection_center() for im in model.images.values()}
    steps = np.linalg.norm(np.diff([found[n] for n in names], axis=0), axis=1)
    np.testing.assert_allclose(np.median(steps), 1)
    # The same shape as the true walk: distances between cameras in the same proportion.
    x, y = (np.array([c[n] for n in names]) for c in (centres, found))
    true, ours = (np.linalg.norm(z[:, None] - z[None], axis=2) for z in (x, y))
    upper = np.triu_indices(len(names), 1)
    ratio = ours[upper] / true[upper]
    assert np.std(ratio) / np.mean(ratio) < 0.1


# COLMAP's own database


def colmap_database(path, images, names, first_octave=-1):
    """By COLMAP's defaults; without the first octave it takes a quarter of the time."""
    create_database(path, images, [(names, None)])
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu, options.num_threads = False, 1
    options.sift.first_octave = first_octave
    pycolmap.extract_features(
        str(path), str(images), names, extraction_options=options, device=pycolmap.Device.cpu
    )
    return path


def test_a_query_is_extracted_as_colmap_did(yard, tmp_path):
    """A map of a database tells no options: COLMAP's own are used."""
    names = sorted(path.name for path in (yard / "queries").iterdir())[:1]
    database = colmap_database(tmp_path / "d.db", yard / "queries", names)
    extract(COLMAP_SIFT, yard / "queries", names, tmp_path / "f.h5", progress=False)
    with DatabaseFile(database) as theirs, FeatureFile(tmp_path / "f.h5") as ours:
        for name in names:
            one, two = ours.read(name), theirs.read(name)
            np.testing.assert_array_equal(one.keypoints, two.keypoints)
            np.testing.assert_allclose(one.descriptors, two.descriptors, atol=2e-3)
            assert one.image_size == two.image_size == SIZE
            assert ((one.scores > 0) & (one.scores <= 1)).all()


def accuracy_from_both(images, names, model, queries, truth, folder):
    """Errors with a map of COLMAP's database, and of the same features in hloc's layout.

    ``model`` holds the poses; the map is triangulated by COLMAP from the database itself.
    """
    database = colmap_database(folder / "database.db", images, names, 0)
    with DatabaseFile(database) as file, h5py.File(folder / "f.h5", "w", libver="latest") as h5:
        for name in names:
            group, local = h5.create_group(name), file.read(name)
            group["keypoints"], group["descriptors"] = local.keypoints, local.descriptors.T
            group["image_size"] = np.array(local.image_size)
    features = folder / "f.h5"
    all_features = mapping.read_all(features, names, False)
    placed = {im.name: im for im in model.images.values() if im.name in set(names)}
    camera = model.cameras[next(iter(placed.values())).camera_id]
    pairs = [(a, b) for a in placed for b in placed if a < b]
    mapping.triangulate(
        folder,
        images,
        [(sorted(placed), camera)],
        {name: im.cam_from_world().matrix() for name, im in placed.items()},
        all_features,
        matching.match_pairs(all_features, pairs, False),
        folder / "sfm",
    )
    found = []
    for kind, path in (("db", database), ("h5", features)):
        output, results = folder / f"{kind}.dpqed", folder / f"{kind}.txt"
        compress.main(folder / "sfm", path, output, codec="sq8", progress=False)
        localize.main(output, queries, path, results, "none", progress=False, ransac_thresh=4)
        found.append((results.read_bytes(), evaluate.main(results, truth)))
    return found


def test_accuracy_from_a_database_is_that_of_the_equivalent_file_on_rendered_photos(yard, tmp_path):
    images = tmp_path / "images"
    shutil.copytree(yard / "photos", images)
    shutil.copytree(yard / "queries", images, dirs_exist_ok=True)
    names = mapping.list_photos(images)
    lines = [f"{p.name} {camera_of(yard)}\n" for p in sorted((yard / "queries").iterdir())]
    (tmp_path / "queries.txt").write_text("".join(lines))
    model = load_reconstruction(yard / "poses")
    ours, theirs = accuracy_from_both(
        images, names, model, tmp_path / "queries.txt", yard / "truth.txt", tmp_path
    )
    assert ours == theirs
    assert ours[1]["num_localized"] == NUM_QUERIES and ours[1]["median_translation"] < 0.05


@pytest.mark.slow
def test_accuracy_from_a_database_is_that_of_the_equivalent_file_on_fountain(fountain, tmp_path):
    names = mapping.list_photos(fountain / "images")
    model = load_reconstruction(fountain / "sfm")
    ours, theirs = accuracy_from_both(
        fountain / "images",
        names,
        model,
        fountain / "queries.txt",
        fountain / "poses_gt.txt",
        tmp_path,
    )
    assert ours == theirs
    assert ours[1]["num_localized"] == 4 and ours[1]["median_translation"] < 0.01


# What was made is used again


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_map_is_made_once(yard, made, monkeypatch):
    before = contents(made)

    def refuse(*_, **__):
        raise AssertionError("made again")

    monkeypatch.setattr(mapping, "extract", refuse)
    mapping.main(yard / "photos", made, yard / "poses", **QUICK)
    assert contents(made) == before
    with pytest.raises(InputError, match="holds a map of other photos or options"):
        mapping.main(yard / "photos", made, yard / "poses", max_keypoints=900)
    assert contents(made) == before


def test_other_options_replace_a_map_only_when_told(yard, made, tmp_path):
    output = tmp_path / "scene"
    shutil.copytree(made, output)
    mapping.main(
        yard / "photos", output, yard / "poses", max_keypoints=300, progress=False, overwrite=True
    )
    with FeatureFile(output / "features.h5") as file:
        assert json.loads(file.extraction())["max_keypoints"] == 300
    few, many = (load_reconstruction(path / "sfm").num_points3D() for path in (output, made))
    assert 0 < few < many
    assert sorted(p.name for p in output.iterdir()) == ["features.h5", "map.json", "sfm"]


def test_only_a_changed_photo_is_extracted_anew(yard, made, tmp_path, monkeypatch):
    photos, output = tmp_path / "photos", tmp_path / "scene"
    shutil.copytree(yard / "photos", photos)
    shutil.copytree(made, output)
    changed = mapping.list_photos(photos)[3]
    pixels = read_photo(photos / changed)
    assert pycolmap.Bitmap.from_array(np.flip(pixels, 2).copy()).write(str(photos / changed))
    asked = []
    original = extracting._sift

    def watched(extraction, images, names):
        asked.extend(names)
        return original(extraction, images, names)

    monkeypatch.setattr(extracting, "_sift", watched)
    mapping.main(photos, output, yard / "poses", overwrite=True, **QUICK)
    assert asked == [changed]
    with FeatureFile(output / "features.h5") as new, FeatureFile(made / "features.h5") as old:
        for name in mapping.list_photos(photos):
            same = np.array_equal(new.read(name).keypoints, old.read(name).keypoints)
            assert same == (name != changed)


def test_interrupted_runs_continue_to_the_same_bytes(yard, made, tmp_path, monkeypatch):
    output = tmp_path / "scene"
    original_sift, original_match = extracting._sift, matching.match_features

    def stops(extraction, images, names):
        for i, item in enumerate(original_sift(extraction, images, names)):
            if i == 5:
                raise KeyboardInterrupt
            yield item

    calls = []

    def stops_too(*args):
        calls.append(args)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return original_match(*args)

    monkeypatch.setattr(extracting, "_BATCH", 2)
    monkeypatch.setattr(extracting, "_sift", stops)
    arguments = (yard / "photos", output, yard / "poses")
    with pytest.raises(KeyboardInterrupt):
        mapping.main(*arguments, **QUICK)
    assert not (output / "sfm").exists() and not (output / "features.h5").exists()
    with h5py.File(output / "features.h5.part", "r") as file:
        found = [name for folder in file.values() for name in folder]
    assert len(found) == 4
    monkeypatch.setattr(extracting, "_sift", original_sift)
    monkeypatch.setattr(matching, "match_features", stops_too)
    with pytest.raises(KeyboardInterrupt):
        mapping.main(*arguments, **QUICK)
    assert not (output / "sfm").exists()
    monkeypatch.setattr(
        matching, "match_features", lambda *a: calls.append(a) or original_match(*a)
    )
    mapping.main(*arguments, **QUICK)
    assert len(calls) == 1 + NUM_DATABASE * (NUM_DATABASE - 1) // 2
    ours, theirs = contents(output / "sfm"), contents(made / "sfm")
    assert ours.keys() == theirs.keys()
    for name, data in ours.items():
        assert data == theirs[name], name
    assert sorted(p.name for p in output.iterdir()) == ["features.h5", "map.json", "sfm"]


def test_features_of_queries_are_kept_where_they_are_asked_for(yard, made, tmp_path, monkeypatch):
    compress.main(made / "sfm", made / "features.h5", tmp_path / "m", codec="none", progress=False)
    arguments = (tmp_path / "m", None, tmp_path / "q.h5", tmp_path / "r.txt")
    how = {"images": yard / "queries", "camera": camera_of(yard), "progress": False}
    localize.main(*arguments, **how)
    first = (tmp_path / "r.txt").read_bytes()

    def refuse(*_, **__):
        raise AssertionError("extracted again")

    monkeypatch.setattr(extracting, "_sift", refuse)
    localize.main(*arguments, overwrite=True, **how)
    assert (tmp_path / "r.txt").read_bytes() == first


# Intrinsics


def with_exif(source, target, millimetres):
    """A copy that tells a focal length of so many millimetres on film of 35 mm."""
    Image = pytest.importorskip("PIL.Image")
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA405] = millimetres
    with Image.open(source) as image:
        image.convert("RGB").save(target, exif=exif)


def test_exif_tells_the_focal_length(yard, tmp_path):
    (tmp_path / "photos").mkdir()
    for i, source in enumerate(sorted((yard / "queries").iterdir())):
        with_exif(source, tmp_path / "photos" / f"{i}.jpg", 30)
    found = photo_queries(tmp_path / "photos")
    assert [name for name, _ in found] == ["0.jpg", "1.jpg"]
    for _, camera in found:
        assert (camera.width, camera.height) == SIZE
        # Film of 35 mm is 36 mm wide, or 43.27 mm across; programs differ in which they take.
        assert 0.9 < camera.mean_focal_length() / (SIZE[0] * 30 / 36) < 1.1


def test_auto_takes_what_there_is(yard, made, tmp_path):
    """Of one photo EXIF tells the focal length, of the other nothing does."""
    folder = tmp_path / "photos"
    folder.mkdir()
    first, second = sorted((yard / "queries").iterdir())
    with_exif(first, folder / "told.jpg", 30)
    shutil.copyfile(second, folder / f"other{second.suffix}")
    cameras = dict(photo_queries(folder, camera="auto"))
    told = {name: camera.has_prior_focal_length for name, camera in cameras.items()}
    assert told == {"told.jpg": True, f"other{second.suffix}": False}
    (tmp_path / "q.txt").write_text("told.jpg\n")
    assert [name for name, _ in photo_queries(folder, tmp_path / "q.txt", "auto")] == ["told.jpg"]
    (tmp_path / "q.txt").write_text("missing.jpg\n")
    with pytest.raises(InputError, match=r"missing\.jpg: no such image"):
        photo_queries(folder, tmp_path / "q.txt", "auto")
    compress.main(made / "sfm", made / "features.h5", tmp_path / "m", codec="none", progress=False)
    how = {"images": folder, "camera": "auto", "progress": False}
    lines = tmp_path / "l.jsonl"
    figures = localize.main(
        tmp_path / "m", None, None, tmp_path / "r.txt", results_jsonl=lines, **how
    )
    assert figures["num_localized"] == 2
    true = float(camera_of(yard).split()[3])
    for line in map(json.loads, lines.read_text().splitlines()):
        assert line["camera"]["params"][0] == pytest.approx(true, rel=0.05)


def test_a_list_names_the_queries_and_their_cameras(yard, tmp_path):
    name = sorted(path.name for path in (yard / "queries").iterdir())[1]
    (tmp_path / "q.txt").write_text(f"{name} {camera_of(yard)}\n")
    ((found, camera),) = photo_queries(yard / "queries", tmp_path / "q.txt")
    assert found == name and camera.model.name == "PINHOLE"


# Extractors


def test_a_feature_file_is_in_hlocs_layout(tmp_path):
    x = np.abs(rng().normal(size=(7, 128))).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    keypoints = rng().uniform(0, 50, (7, 2)).astype(np.float32)
    scores = np.linspace(0.1, 0.9, 7, dtype=np.float32)
    with h5py.File(tmp_path / "f.h5", "w") as file:
        write_image(file.create_group("a.jpg"), ImageFeatures(keypoints, x, scores, (64, 48)))
        assert file["a.jpg/descriptors"].shape == (128, 7)
    with FeatureFile(tmp_path / "f.h5") as file:
        read = file.read("a.jpg")
    np.testing.assert_array_equal(read.keypoints, keypoints)
    np.testing.assert_allclose(read.descriptors, x, atol=1e-3)
    np.testing.assert_allclose(read.scores, scores, atol=1e-3)
    assert read.image_size == (64, 48)


def weights(name):
    path = WEIGHTS / name
    if not path.is_file():
        pytest.skip(f"no weights {path}")
    return path


def test_superpoint_is_that_of_the_feature_file(fountain, tmp_path):
    """As hloc extracted it, from whole weights; ours are rounded to float16."""
    names = ["0000.jpg"]
    found = tmp_path / "f.h5"
    extract(
        Extraction("superpoint"),
        fountain / "images",
        names,
        found,
        weights("superpoint_v1_fp16.pth"),
        progress=False,
    )
    with FeatureFile(found) as ours, FeatureFile(fountain / "feats-superpoint.h5") as theirs:
        one, two = ours.read(names[0]), theirs.read(names[0])
    assert abs(len(one.keypoints) - len(two.keypoints)) < 0.02 * len(two.keypoints)
    distance = np.abs(one.keypoints[:, None] - two.keypoints[None]).sum(2)
    same, row = distance.min(1) == 0, distance.argmin(1)
    similarity = (one.descriptors * two.descriptors[row]).sum(1)[same]
    if not hasattr(pycolmap, "FeatureDescriptors"):  # 3.13: a JPEG's greys are up to 4 apart
        assert same.mean() > 0.8 and np.median(similarity) > 0.99
        return
    assert same.mean() > 0.9 and similarity.min() > 0.99
    np.testing.assert_allclose(one.scores[same], two.scores[row][same], atol=0.06)


@pytest.mark.parametrize("name", ["superpoint", "aliked"])
def test_networks_find_the_same_points_in_a_moved_photo(yard, tmp_path, name):
    """Shifted by whole cells: the same descriptors at shifted places, in pixels of the photo
    whatever size the network sees."""
    file = weights({"superpoint": "superpoint_v1_fp16.pth", "aliked": "aliked-n16.pth"}[name])
    if name == "aliked" and not hasattr(pytest.importorskip("kornia").feature, "ALIKED"):
        output = tmp_path / "f.h5"
        with pytest.raises(InputError, match="has no ALIKED; upgrade it"):
            extract(Extraction(name), yard / "queries", ["3.png"], output, file, progress=False)
        assert not output.exists()
        return
    source = next((yard / "queries").iterdir())
    pixels = read_photo(source)
    (tmp_path / "p").mkdir()
    for label, part in (("a", pixels[:320, :448]), ("b", pixels[32:352, 32:480])):
        path = tmp_path / "p" / f"{label}.png"
        assert pycolmap.Bitmap.from_array(np.ascontiguousarray(part)).write(str(path))
    for size, share in ((1600, 0.5), (360, 0.3)):
        output = tmp_path / f"{size}.h5"
        how = Extraction(name, 500, size)
        extract(how, tmp_path / "p", ["a.png", "b.png"], output, file, progress=False)
        with FeatureFile(output) as found:
            a, b = found.read("a.png"), found.read("b.png")
        assert a.image_size == b.image_size == (448, 320)
        rows = matching.match_features(a, b, 0.95)
        moved = a.keypoints[rows[:, 0]] - b.keypoints[rows[:, 1]]
        assert len(rows) > 50
        assert (np.abs(moved - 32).max(1) < 2).mean() > share
        assert np.abs(np.median(moved, axis=0) - 32).max() < 0.6


def test_superpoint_without_weights_says_what_to_pass(yard, tmp_path):
    with pytest.raises(InputError, match="--extractor_weights"):
        mapping.main(yard / "photos", tmp_path / "s", extractor="superpoint", progress=False)
    wrong = tmp_path / "wrong.pth"
    import torch

    torch.save({"other": torch.zeros(1)}, wrong)
    with pytest.raises(InputError, match="not its weights"):
        mapping.main(
            yard / "photos",
            tmp_path / "s",
            extractor="superpoint",
            extractor_weights=wrong,
            progress=False,
        )


def test_a_photo_in_which_nothing_is_found(tmp_path):
    flat = np.full((60, 80, 3), 128, np.uint8)
    assert pycolmap.Bitmap.from_array(flat).write(str(tmp_path / "flat.png"))
    extract(Extraction(), tmp_path, ["flat.png"], tmp_path / "f.h5", progress=False)
    with FeatureFile(tmp_path / "f.h5") as file:
        assert len(file.read("flat.png").keypoints) == 0
    found = SuperPoint(10).eval()(__import__("torch").zeros(1, 3, 64, 64))
    assert found[0].shape[1] == 2 and found[1].shape[1] == 256


# Matching


def test_matches_are_the_mutual_nearest_neighbours_of_brute_force():
    random = np.random.default_rng(0)
    a = random.normal(size=(60, 128)).astype(np.float32)
    b = np.concatenate(
        [a[10:40] + 0.3 * random.normal(size=(30, 128)), random.normal(size=(25, 128))]
    )
    features = []
    for x in (a, b.astype(np.float32)):
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        features.append(ImageFeatures(np.zeros((len(x), 2)), x, np.ones(len(x)), (9, 9)))
    found = matching.match_features(*features)
    distances = np.linalg.norm(
        features[0].descriptors[:, None] - features[1].descriptors[None], axis=2
    )
    expected = []
    for i, row in enumerate(distances):
        j, second = np.argsort(row)[:2]
        if distances[:, j].argmin() == i and row[j] < 0.85 * row[second]:
            expected.append((i, j))
    assert len(expected) >= 30
    np.testing.assert_array_equal(found, expected)


def test_epipolar_lines_accept_true_matches_and_refuse_moved_ones():
    model = pycolmap.synthesize_dataset(pycolmap.SyntheticDatasetOptions())
    first, second = (model.images[i] for i in sorted(model.images)[:2])
    shared = {p.point3D_id: p.xy for p in first.points2D if p.has_point3D()}
    pairs = [(shared[p.point3D_id], p.xy) for p in second.points2D if p.point3D_id in shared]
    x, y = np.array([a for a, _ in pairs]), np.array([b for _, b in pairs])
    arguments = (
        (model.cameras[first.camera_id], model.cameras[second.camera_id]),
        (first.cam_from_world().matrix(), second.cam_from_world().matrix()),
    )
    assert matching.epipolar_inliers(x, y, *arguments).all()
    assert matching.epipolar_inliers(x, np.roll(y, 1, axis=0), *arguments).mean() < 0.2


# What is refused


def refused(argv, message, capfd, output):
    capfd.readouterr()
    assert cli([*map(str, argv)]) == 2
    line = capfd.readouterr().err.strip()
    assert message in line.splitlines()[-1], line
    assert not output.exists()


MAP_CASES = {
    "no folder": (["--images", "absent"], "no such folder"),
    "extractor": (["--extractor", "magic"], "--extractor magic: unknown"),
    "weights": (["--extractor_weights", "w.pth"], "sift takes none"),
    "camera": (["--camera", "PINHOLE 10"], "expected MODEL WIDTH HEIGHT"),
    "camera's numbers": (["--camera", "PINHOLE 480 360 1 2"], "expected MODEL WIDTH HEIGHT"),
    "size": (["--camera", "PINHOLE 100 360 1 2 3 4"], "a photo of 480 x 360 pixels"),
    "keypoints": (["--max_keypoints", "0"], "--max_keypoints 0"),
    "no model": (["--poses", "absent"], "no such folder, expected a COLMAP model"),
    "camera of poses": (["--poses", "POSES", "--camera", "PINHOLE 480 360 1 2 3 4"], "of --poses"),
    "other images": (["--poses", "POSES", "--images", "QUERIES"], "holds 0 of the 8 images"),
}


@pytest.mark.parametrize("case", MAP_CASES)
def test_bad_arguments_of_map(yard, tmp_path, capfd, case):
    more, message = MAP_CASES[case]
    named = {"POSES": yard / "poses", "QUERIES": yard / "queries"}
    argv = ["map", "--images", yard / "photos", "--output", tmp_path / "s"]
    if case == "size":  # told when photos are grouped, after their features are kept
        with pytest.raises(InputError, match=message):
            mapping.photo_groups(
                yard / "photos",
                mapping.list_photos(yard / "photos"),
                mapping.parse_camera(more[1]),
            )
        return
    refused([*argv, *(named.get(word, word) for word in more)], message, capfd, tmp_path / "s")


LOCALIZE_CASES = {
    "neither": ([], "--queries and --features are needed, or --images"),
    "no focal length": (["--images", "QUERIES"], "its EXIF tells no focal length"),
    "camera alone": (["--camera", "PINHOLE 480 360 1 2 3 4"], "are needed, or --images"),
    "size": (
        ["--images", "QUERIES", "--camera", "PINHOLE 640 480 1 2 3 4"],
        "a photo of 480 x 360 pixels, but --camera has 640 x 480",
    ),
    "no photo": (["--images", "EMPTY"], "holds no photo"),
    "other extractor": (
        ["--images", "QUERIES", "--camera", "CAMERA", "--extractor", "magic"],
        "--extractor magic: unknown",
    ),
}


@pytest.mark.parametrize("case", LOCALIZE_CASES)
def test_bad_arguments_of_localize(yard, made, tmp_path, capfd, case):
    more, message = LOCALIZE_CASES[case]
    (tmp_path / "empty").mkdir()
    compress.main(made / "sfm", made / "features.h5", tmp_path / "m", codec="none", progress=False)
    named = {"QUERIES": yard / "queries", "EMPTY": tmp_path / "empty", "CAMERA": camera_of(yard)}
    argv = ["localize", "--map", tmp_path / "m", "--results", tmp_path / "r.txt"]
    refused([*argv, *(named.get(word, word) for word in more)], message, capfd, tmp_path / "r.txt")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "m"]


def test_a_map_that_does_not_tell_its_extractor(yard, made, tmp_path):
    features = tmp_path / "mine.h5"
    shutil.copyfile(made / "features.h5", features)
    with h5py.File(features, "a") as file:
        del file.attrs["extractor"], file.attrs["extraction"]
    compress.main(made / "sfm", features, tmp_path / "m", codec="none", progress=False)
    how = {"images": yard / "queries", "camera": camera_of(yard), "progress": False}
    with pytest.raises(InputError, match="does not tell how its features were extracted"):
        localize.main(tmp_path / "m", None, None, tmp_path / "r.txt", **how)
    figures = localize.main(tmp_path / "m", None, None, tmp_path / "r.txt", extractor="sift", **how)
    assert figures["num_localized"] == NUM_QUERIES


def test_features_of_another_extraction_are_not_extended(yard, tmp_path):
    names = sorted(path.name for path in (yard / "queries").iterdir())
    path = tmp_path / "f.h5"
    extract(Extraction("sift", 200), yard / "queries", names[:1], path, progress=False)
    before = Path(path).read_bytes()
    with pytest.raises(InputError, match="of another extraction"):
        extract(Extraction("sift", 300), yard / "queries", names, path, progress=False)
    assert Path(path).read_bytes() == before
    extract(Extraction("sift", 200), yard / "queries", names, path, progress=False)
    with FeatureFile(path) as file:
        assert all(name in file for name in names)
