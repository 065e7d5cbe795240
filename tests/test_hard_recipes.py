"""benchmarks/hard_recipes.py: what a recipe does to the pixels it does to camera and pose."""

import sys
from pathlib import Path

import numpy as np
import pycolmap
import pytest

pytest.importorskip("kornia", reason="kornia is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
import hard_recipes
from hard_recipes import RECIPES, View, blur, far, hardened, jpeg, near, night, noise, roll

SPOT = 5.0  # pixels, standard deviation


def spots(model="PINHOLE", params=(420.0, 424.0, 203.0, 148.0), count=12, seed=0):
    """A view of points that are bright spots on grey, and the points."""
    rng = np.random.default_rng(seed)
    width, height = 400, 300
    camera = pycolmap.Camera(model=model, width=width, height=height, params=list(params))
    rotation = pycolmap.Rotation3d(rng.normal(0, 0.4, 3)).matrix()
    pose = np.column_stack([rotation, [0.3, -0.2, 5.0]])
    # A grid, so that no spot lies on another.
    x, y = np.meshgrid(np.linspace(40, 360, 4), np.linspace(40, 260, 3))
    pixels = np.stack([x.ravel(), y.ravel()], 1)[:count]
    rays = np.column_stack([camera.cam_from_img(pixels), np.ones(len(pixels))])
    local = rays * rng.uniform(3, 8, (len(rays), 1))
    points = (local - pose[:, 3]) @ rotation
    columns, rows = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    image = np.full((height, width), 40.0)
    for u, v in pixels:
        image += 200 * np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * SPOT**2))
    grey = np.clip(np.round(image), 0, 255).astype(np.uint8)
    return View(np.repeat(grey[:, :, None], 3, 2), camera, pose), points


def projected(view, points):
    """By hand, not by pycolmap: pinhole and SIMPLE_RADIAL, pixels with corners at integers."""
    local = points @ view.cam_from_world[:, :3].T + view.cam_from_world[:, 3]
    x, y = (local[:, :2] / local[:, 2:]).T
    params = view.camera.params
    if view.camera.model.name == "PINHOLE":
        return np.stack([params[0] * x + params[2], params[1] * y + params[3]], 1)
    bent = 1 + params[3] * (x * x + y * y)
    return np.stack([params[0] * x * bent + params[1], params[0] * y * bent + params[2]], 1)


def off(view, points):
    """Pixels between each spot that is whole in the view and where its point projects."""
    grey = view.pixels.astype(float).mean(2)
    found = []
    for u, v in projected(view, points):
        radius = 9
        c, r = int(np.floor(u)), int(np.floor(v))
        if not (radius <= c < grey.shape[1] - radius and radius <= r < grey.shape[0] - radius):
            continue
        patch = grey[r - radius : r + radius + 1, c - radius : c + radius + 1]
        weight = np.maximum(patch - np.median(grey) - 20, 0)
        assert weight.sum() > 0, "no spot where the point projects"
        i, j = np.mgrid[r - radius : r + radius + 1, c - radius : c + radius + 1] + 0.5
        at = np.array([(weight * j).sum(), (weight * i).sum()]) / weight.sum()
        found.append(np.linalg.norm(at - (u, v)))
    return np.array(found)


CAMERAS = [
    ("PINHOLE", (420.0, 424.0, 203.0, 148.0)),
    ("SIMPLE_RADIAL", (420.0, 200.0, 150.0, -0.08)),
]


@pytest.mark.parametrize("model, params", CAMERAS)
@pytest.mark.parametrize("step", [roll(35), roll(12), far(0.7), far(0.45), near(0.6)])
def test_points_project_where_the_photo_shows_them(model, params, step):
    view, points = spots(model, params)
    assert len(off(view, points)) == 12 and off(view, points).max() < 0.3
    for seed in range(3):  # both sides, other places
        hard = step(view, np.random.default_rng(seed))
        distances = off(hard, points)
        assert len(distances) >= 2 and distances.max() < 0.5
        assert hard.pixels.shape == (hard.camera.height, hard.camera.width, 3)
        assert hard.pixels.dtype == np.uint8
        for pose in (view.cam_from_world, hard.cam_from_world):
            np.testing.assert_allclose(pose[:, :3] @ pose[:, :3].T, np.eye(3), atol=1e-9)
        centres = [-v.cam_from_world[:, :3].T @ v.cam_from_world[:, 3] for v in (view, hard)]
        np.testing.assert_allclose(*centres, atol=1e-9)


def test_the_test_sees_a_wrong_sign():
    view, points = spots()
    hard = roll(35)(view, np.random.default_rng(0))
    wrong = View(hard.pixels, hard.camera, view.cam_from_world)
    with pytest.raises(AssertionError):
        assert off(wrong, points).max() < 0.5


def test_a_roll_turns_by_its_angle_and_shows_nothing_beside_the_photo():
    view, _ = spots()
    white = View(np.full_like(view.pixels, 200), view.camera, view.cam_from_world)
    hard = roll(35)(white, np.random.default_rng(0))
    assert (hard.pixels == 200).all()
    turn = hard.cam_from_world[:, :3] @ view.cam_from_world[:, :3].T
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(35)
    assert turn[2, 2] == pytest.approx(1)  # about the optical axis


@pytest.mark.parametrize("step", [night(0.02, 4, 60, 2.0), blur(0.02), noise(40, 2), jpeg(12)])
def test_light_leaves_the_geometry(step):
    view, _ = spots()
    hard = step(view, np.random.default_rng(1))
    assert hard.camera is view.camera and hard.cam_from_world is view.cam_from_world
    assert hard.pixels.shape == view.pixels.shape and (hard.pixels != view.pixels).any()


def test_blur_moves_no_spot_and_loses_no_light():
    view, points = spots()
    for seed in range(3):
        hard = blur(0.02)(view, np.random.default_rng(seed))
        assert off(hard, points).max() < 0.5
    flat = View(np.full_like(view.pixels, 130), view.camera, view.cam_from_world)
    assert np.abs(blur(0.05)(flat, np.random.default_rng(0)).pixels.astype(int) - 130).max() <= 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_fixed_by_its_name_and_the_photo(recipe):
    view, _ = spots()
    first, again = (hardened(view, recipe, "a.jpg") for _ in range(2))
    assert (first.pixels == again.pixels).all()
    assert first.camera.params.tolist() == again.camera.params.tolist()
    np.testing.assert_array_equal(first.cam_from_world, again.cam_from_world)
    draws = {"jpeg", "far"}
    others = [hardened(view, recipe, f"{k}.jpg") for k in range(3)]
    same = all(
        o.pixels.shape == first.pixels.shape and (o.pixels == first.pixels).all() for o in others
    )
    assert same == (recipe in draws)


def test_every_recipe_names_its_steps():
    assert all(RECIPES.values()) and hard_recipes.GAMMA > 1
