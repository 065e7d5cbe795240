"""The demo: its renderer against geometry, its files against what hloc expects, all of it once."""

import importlib
import itertools
import json

import h5py
import numpy as np
import pycolmap
import pytest

from hloc_dpqed import demo
from hloc_dpqed.cli import main as cli
from hloc_dpqed.demo import dataset as datasets, textures, views
from hloc_dpqed.demo.main import format_table
from hloc_dpqed.demo.render import Light, Renderer
from hloc_dpqed.demo.scene import Quad, courtyard
from hloc_dpqed.errors import InputError
from hloc_dpqed.io.features import FeatureFile
from hloc_dpqed.io.lists import read_pairs, read_poses, read_queries
from hloc_dpqed.io.model import load_reconstruction, read_reference

CAMERA = pycolmap.Camera(model="PINHOLE", width=160, height=120, params=[130, 140, 83.0, 55.5])


def flat(rgb) -> np.ndarray:
    return np.tile(np.array(rgb, np.uint8), (8, 8, 1))


def quad(origin, edge_u, edge_v, rgb=(128, 128, 128), mask=None) -> Quad:
    return Quad(np.array(origin, float), np.array(edge_u, float), np.array(edge_v, float),
                flat(rgb), mask)  # fmt: skip


def plain_light(sun: float = 0.0) -> Light:
    return Light(1, np.full(3, sun), np.full(3, 1.0), 1.0, 2.2, 0.0, 0.0)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def wall(y: float, rgb=(40, 40, 40), mask=None) -> Quad:
    """An upright wall 10 m wide across the y axis, which faces towards -y."""
    return quad([-5, y, -3], [10, 0, 0], [0, 0, 6], rgb, mask)


# The renderer


def test_a_marker_is_rendered_where_its_point_projects():
    pose = views.look(np.array([0.3, -0.2, 0.4]), np.pi / 2 + 0.15, -0.1, 0.2)
    for x, z in ((-0.8, 0.3), (0.9, 0.9), (0.1, -0.5)):
        marker = quad([x - 0.05, 3.98, z - 0.05], [0.1, 0, 0], [0, 0, 0.1], (255, 255, 255))
        renderer = Renderer([wall(4), marker])
        image = renderer.render(CAMERA, pose, plain_light(), rng(), supersampling=4).image
        excess = image[..., 0].astype(float) - np.median(image[..., 0])
        excess[excess < 60] = 0  # the wall, a little brighter towards the sky
        rows, columns = np.mgrid[:120, :160] + 0.5  # pixel centres, COLMAP's convention
        found = [(columns * excess).sum() / excess.sum(), (rows * excess).sum() / excess.sum()]
        centre = pose[:, :3] @ [x, 3.98, z] + pose[:, 3]
        np.testing.assert_allclose(found, CAMERA.img_from_cam(centre), atol=0.15)


def test_visible_surfaces_agree_with_intersecting_every_ray():
    random = np.random.default_rng(3)
    quads = [
        quad(random.uniform([-2, 2, -2], [2, 8, 2]), *random.normal(0, 1.5, (2, 3)))
        for _ in range(25)
    ]
    pose = views.look(np.zeros(3), np.pi / 2, 0.05, 0.1)
    rendering = Renderer(quads).render(CAMERA, pose, plain_light(), rng(), supersampling=1)

    rows, columns = np.mgrid[:120, :160] + 0.5
    rays = np.stack([columns, rows, np.ones_like(rows)], -1)
    rays = rays @ np.linalg.inv(CAMERA.calibration_matrix()).T
    depth = np.full(rows.shape, np.inf)
    index = np.full(rows.shape, -1)
    for i, q in enumerate(quads):
        o = pose[:, :3] @ q.origin + pose[:, 3]
        n, u, v = (pose[:, :3] @ e for e in (q.normal, q.edge_u, q.edge_v))
        if n @ o >= 0:
            continue  # its back
        z = (n @ o) / (rays @ n)
        inside = z[..., None] * rays - o
        a, b = np.linalg.lstsq(np.stack([u, v], 1), inside.reshape(-1, 3).T, rcond=None)[0]
        a, b = a.reshape(rows.shape), b.reshape(rows.shape)
        hit = (z > 0.05) & (a >= 0) & (b >= 0) & (a <= 1) & (b <= 1) & (z < depth)
        depth[hit], index[hit] = z[hit], i
    assert len(np.unique(index)) > 8
    same = rendering.quad == index
    assert same.mean() > 0.998  # the rest: rays that graze an edge
    seen = same & (index >= 0)
    np.testing.assert_allclose(rendering.depth[seen], depth[seen], rtol=1e-3)
    assert np.isinf(rendering.depth[rendering.quad < 0]).all()


def test_a_hole_shows_what_is_behind_and_a_back_shows_nothing():
    pose = views.look(np.zeros(3), np.pi / 2, 0, 0)
    mask = np.ones((6, 10), bool)
    mask[:, 5:] = False  # the right half, x > 0
    back_to_us = quad([5, 2, -3], [-10, 0, 0], [0, 0, 6])
    seen = Renderer([wall(6), wall(4, mask=mask), back_to_us]).render(
        CAMERA, pose, plain_light(), rng()
    )
    assert set(np.unique(seen.quad)) == {0, 1}
    assert (seen.quad[60, :80] == 1).all() and (seen.quad[60, 86:] == 0).all()
    np.testing.assert_allclose(seen.depth[60, [20, 140]], [4, 6], rtol=1e-5)


def test_the_texture_lies_as_its_rows_say():
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[:32, 32:] = 255  # top right
    surface = Quad(np.array([-1.0, 3, -1]), np.array([2.0, 0, 0]), np.array([0, 0, 2.0]), texture)
    pose = views.look(np.zeros(3), np.pi / 2, 0, 0)
    image = Renderer([surface]).render(CAMERA, pose, plain_light(), rng()).image[..., 0]
    for u, v, bright in ((0.25, 0.25, 0), (0.75, 0.25, 0), (0.25, 0.75, 0), (0.75, 0.75, 1)):
        x, y = CAMERA.img_from_cam(pose[:, :3] @ surface.at(u, v) + pose[:, 3])
        assert (image[int(y), int(x)] > 128) == bright


def test_what_stands_in_the_sun_throws_a_shadow():
    floor = quad([-5, 0, -1], [10, 0, 0], [0, 10, 0], (200, 200, 200))
    renderer = Renderer([floor, quad([-1, 4, 0.2], [2, 0, 0], [0, 2, 0], (200, 200, 200))])
    sun = renderer.suns[1]
    pose = views.look(np.array([0, -2.0, 1]), np.pi / 2, -0.3, 0)
    image = renderer.render(CAMERA, pose, plain_light(sun=2.0), rng()).image
    rendering = renderer.render(CAMERA, pose, plain_light(sun=0.0), rng())

    def brightness(point) -> float:
        x, y = CAMERA.img_from_cam(pose[:, :3] @ point + pose[:, 3])
        assert rendering.quad[int(y), int(x)] == 0
        return float(image[int(y), int(x), 0])

    roof = np.array([0, 5, 0.2])
    shaded = roof - sun * 1.2 / sun[2]
    assert brightness(shaded) < brightness(shaded + np.array([3, 0, 0])) - 20


@pytest.fixture(scope="module")
def yard() -> Renderer:
    return Renderer(courtyard(seed=4, texels=8), seed=4)


def test_rendering_repeats_by_its_seed_and_only_by_it(yard):
    quads = yard.quads
    assert all((a.texture == b.texture).all()
               for a, b in zip(quads, courtyard(seed=4, texels=8), strict=True))  # fmt: skip
    assert any((a.texture != b.texture).any()
               for a, b in zip(quads, courtyard(seed=5, texels=8), strict=True))  # fmt: skip
    pose = views.database_poses(8, seed=4)[0]
    images = []
    for renderer, seed in ((yard, 1), (Renderer(yard.quads, seed=4), 1), (yard, 2)):
        random = np.random.default_rng(seed)
        light = views.random_light(random)
        images.append(renderer.render(CAMERA, pose, light, random).image)
    assert (images[0] == images[1]).all() and (images[0] != images[2]).any()


@pytest.mark.parametrize(
    "paint",
    [textures.plaster, textures.bricks, textures.ashlar, textures.paving, textures.marble,
     textures.wood, textures.window, textures.painted, textures.leaves],
)  # fmt: skip
@pytest.mark.parametrize("size", [(4, 4), (5, 70), (90, 6), (64, 48)])
def test_a_texture_of_any_size_is_a_finite_colour(paint, size):
    colours = paint(*size, rng())
    assert colours.shape == (*size, 3)
    assert np.isfinite(colours).all() and colours.min() >= 0 and colours.max() <= 1


# The views


def test_queries_keep_away_from_the_walk_and_look_where_it_looked(yard):
    camera, query_camera = views.pinhole(640, 480, 0.82), views.pinhole(640, 480, 0.9)
    database = views.database_poses(14)
    queries = views.query_poses(2, database, camera, yard, query_camera)
    for query, other in itertools.product(queries, database):
        apart = np.linalg.norm(views.camera_centre(query) - views.camera_centre(other))
        assert apart >= views.QUERY_CLEARANCE
    for pose in [*queries, *database]:
        np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose[:, :3]) > 0
        assert pose[1, 2] < -0.9  # y is down
    again = views.query_poses(2, database, camera, yard, query_camera)
    np.testing.assert_array_equal(queries, again)


# All of it, at its smallest


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    output = tmp_path_factory.mktemp("demo") / "out"
    figures = demo.main(
        output, num_database=12, num_queries=3, image_size=(480, 360), texels=50, progress=False,
        codec_options={"dpqed": {"steps": 30}},
    )  # fmt: skip
    return output, figures


def test_the_demo_localizes_and_tells_the_truth_about_bytes(small):
    output, figures = small
    assert json.loads((output / "demo.json").read_text()) == figures
    files = [output / "features.h5", *(output / "sfm").iterdir()]
    assert figures["uncompressed_bytes"] == sum(f.stat().st_size for f in files)
    for row in figures["rows"]:
        assert row["total_bytes"] == (output / "maps" / row["map"]).stat().st_size
        assert row["num_queries"] == 3
    rows = {row["label"]: row for row in figures["rows"]}
    best = rows["none, each observation"]
    # One of them sees too little of so small a scene: its pose is metres off, and rejected.
    assert best["num_localized"] == 2 and best["median_translation"] < 0.25
    for name in ("pq", "dpqed"):  # a few bytes of the section are its own
        assert 0 <= rows[name]["descriptor_bytes"] - 4 * figures["num_points"] < 64
    assert rows["pq"]["total_bytes"] < best["total_bytes"] < figures["uncompressed_bytes"]
    assert 0 < rows["pq"]["mean_correct"] <= rows["pq"]["mean_matches"]
    table = format_table(figures)
    assert (output / "table.txt").read_text() == table + "\n"
    assert all(row["label"] in table for row in figures["rows"])


def test_the_demo_saves_pictures(small):
    output, _ = small
    for name in ("map.jpg", "matches.jpg", "overview.jpg"):
        assert pycolmap.Bitmap.read(str(output / name), True).to_array().std() > 10


def test_the_demos_map_holds_no_query_and_agrees_with_the_scene(small):
    output, _ = small
    dataset = datasets.Dataset.in_folder(output, "m")
    reference = read_reference(dataset.sfm)
    queries = dict(read_queries(dataset.queries))
    assert len(reference.image_names) == 12 and not set(queries) & set(reference.image_names)
    with h5py.File(dataset.features) as file:
        assert sorted(file) == reference.image_names
    assert set(read_pairs(dataset.pairs)) == set(queries) == set(read_poses(dataset.poses))
    model = load_reconstruction(dataset.sfm)
    renderer = Renderer(courtyard(0, 8))  # the shapes do not depend on the texels
    with FeatureFile(dataset.features) as file:
        for image in list(model.images.values())[:4]:
            xy = np.array([p.xy for p in image.points2D])
            np.testing.assert_allclose(file.read(image.name).keypoints + 0.5, xy, atol=1e-3)
            # The triangulated points lie on the surfaces that the renderer drew.
            pose = image.cam_from_world().matrix()
            depth = renderer.depth(model.cameras[image.camera_id], pose)
            points = [p for p in image.points2D if p.has_point3D()]
            xyz = np.array([model.points3D[p.point3D_id].xyz for p in points])
            columns, rows = np.array([p.xy for p in points]).astype(int).T
            error = np.abs(depth[rows, columns] - (xyz @ pose[2, :3] + pose[2, 3]))
            assert np.median(error) < 0.05


def test_the_demo_replaces_its_own_folder_and_no_other(tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match="was not made by this demo"):
        demo.main(tmp_path)
    assert (tmp_path / "mine.txt").exists()
    ours = tmp_path / "ours"
    module = importlib.import_module("hloc_dpqed.demo.main")
    module._prepare(ours, None)
    (ours / "stale").write_text("old")
    module._prepare(ours, None)
    assert not (ours / "stale").exists()
    with pytest.raises(InputError, match="must not be or hold"):
        module._prepare(ours, ours / "images")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--num_database", "3"], "--num_database 3"),
        (["--num_queries", "0"], "--num_queries 0"),
        (["--code_bytes", "7"], "divisor of 128"),
        (["--seed", "-1"], "--seed -1"),
        (["--images", "nowhere"], "no such folder"),
    ],
)
def test_the_command_line_refuses_in_one_line(arguments, message, tmp_path, capsys):
    assert cli(["demo", "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_photos_that_are_none_are_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("not a photo")
    with pytest.raises(InputError, match="expected 6 or more"):
        datasets.photos_dataset(tmp_path / "out", tmp_path, progress=False)
    for name in "bcdef":
        (tmp_path / f"{name}.jpg").write_text("not a photo")
    with pytest.raises(InputError, match="not a readable image"):
        datasets.photos_dataset(tmp_path / "out", tmp_path, progress=False)
