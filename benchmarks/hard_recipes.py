"""Harder photos from real ones: turned, shrunk and cropped ones, night, motion blur, noise, JPEG.

A recipe is a fixed list of steps and draws at random from a seed that its own name and the photo's
give. Steps of geometry change the camera and the pose along with the pixels: a turned camera is
the true camera turned about its centre, in a pose that is turned alike; a shrunk or cropped photo
has another camera in the same pose. Steps of light leave both as they are.
"""

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pycolmap
import torch
from kornia.filters import get_motion_kernel2d
from PIL import Image
from scipy.signal import fftconvolve

from hloc_dpqed.mapping.photos import shrink_photo

GAMMA = 2.2  # of the photos: light is added and lost in linear values


@dataclass(frozen=True)
class View:
    """A photo, its camera and its pose.

    Attributes:
        pixels: (H, W, 3) uint8.
        camera: of the photo.
        cam_from_world: (3, 4) float64 [R | t].
    """

    pixels: np.ndarray
    camera: pycolmap.Camera
    cam_from_world: np.ndarray


Step = Callable[[View, np.random.Generator], View]


# --- geometry --------------------------------------------------------------------------------


def pinhole(
    width: int, height: int, focal: tuple[float, float], centre: tuple[float, float]
) -> pycolmap.Camera:
    return pycolmap.Camera(model="PINHOLE", width=width, height=height, params=[*focal, *centre])


def turned(view: View, rotation: np.ndarray, camera: pycolmap.Camera) -> View:
    """What ``camera`` sees from the same place, turned.

    Args:
        view: of any camera model.
        rotation: (3, 3) turned camera from camera.
        camera: a PINHOLE camera whose image the view holds.
    """
    columns, rows = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    pixels = np.stack([columns.ravel(), rows.ravel()], 1)
    rays = np.asarray(camera.cam_from_img(pixels))
    rays = np.column_stack([rays, np.ones(len(rays))]) @ rotation  # the inverse turn
    source = np.asarray(view.camera.img_from_cam(rays), np.float64)
    size = np.array([view.camera.width, view.camera.height])
    # Between pixel centres at .5, corners at 0 and the size.
    grid = torch.from_numpy((2 * source / size - 1).reshape(1, camera.height, camera.width, 2))
    x = torch.from_numpy(view.pixels.astype(np.float64)).permute(2, 0, 1)[None]
    out = torch.nn.functional.grid_sample(x, grid, "bilinear", "border", align_corners=False)
    return View(
        out[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy(),
        camera,
        rotation @ view.cam_from_world,
    )


def roll(degrees: float) -> Step:
    """Turned about the optical axis, and cropped to what the photo fills; the side is drawn."""

    def step(view: View, rng: np.random.Generator) -> View:
        angle = np.radians(degrees) * rng.choice([-1, 1])
        c, s = np.cos(angle), np.sin(angle)
        rotation = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        width, height = view.camera.width, view.camera.height
        c, s = abs(c), abs(s)
        # The largest frame of the same shape within the photo; its principal point need not be
        # the photo's middle, and lenses distort.
        share = 0.96 * min(width / (width * c + height * s), height / (width * s + height * c))
        w, h = int(width * share), int(height * share)
        focal = view.camera.focal_length_x, view.camera.focal_length_y
        return turned(view, rotation, pinhole(w, h, focal, (w / 2, h / 2)))

    return step


def far(ratio: float) -> Step:
    """Shrunk: the photo of a smaller sensor."""

    def step(view: View, rng: np.random.Generator) -> View:
        width = max(1, round(view.camera.width * ratio))
        height = max(1, round(view.camera.height * ratio))
        camera = pycolmap.Camera(view.camera.todict())
        camera.rescale(width, height)
        return replace(view, pixels=shrink_photo(view.pixels, height, width), camera=camera)

    return step


def near(share: float) -> Step:
    """Cropped to a part of each side; the place is drawn."""

    def step(view: View, rng: np.random.Generator) -> View:
        height, width = view.pixels.shape[:2]
        w, h = max(1, round(width * share)), max(1, round(height * share))
        x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
        camera = pycolmap.Camera(view.camera.todict())
        camera.width, camera.height = w, h
        camera.principal_point_x -= x
        camera.principal_point_y -= y
        pixels = np.ascontiguousarray(view.pixels[y : y + h, x : x + w])
        return replace(view, pixels=pixels, camera=camera)

    return step


# --- light -----------------------------------------------------------------------------------


def _light(change: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> Step:
    """A step that changes linear light, (H, W, 3) float64 of 0 to 1."""

    def step(view: View, rng: np.random.Generator) -> View:
        light = change((view.pixels / 255) ** GAMMA, rng)
        pixels = np.round(np.clip(light, 0, 1) ** (1 / GAMMA) * 255).astype(np.uint8)
        return replace(view, pixels=pixels)

    return step


def blur(length: float) -> Step:
    """The camera moved along a line while it exposed, to both sides of its pose.

    Args:
        length: as a share of the longer side.
    """

    def change(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        size = 2 * round(length * max(light.shape) / 2) + 1
        kernel = get_motion_kernel2d(size, float(rng.uniform(0, 180)), 0.0, "bilinear")[0].numpy()
        kernel = (kernel + kernel[::-1, ::-1]) / 2  # to both sides exactly alike
        half = size // 2
        padded = np.pad(light, ((half, half), (half, half), (0, 0)), "edge")
        return fftconvolve(padded, kernel[:, :, None] / kernel.sum(), "valid", axes=(0, 1))

    return _light(change)


def noise(electrons: float, read: float) -> Step:
    """Shot and read noise of a sensor that ``electrons`` saturate.

    Args:
        electrons: at white, in a pixel.
        read: standard deviation of what is read, in electrons.
    """

    def change(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        counted = rng.poisson(light * electrons) + rng.normal(0, read, light.shape)
        return counted / electrons

    return _light(change)


def night(ambient: float, lamps: int, electrons: float, read: float) -> Step:
    """Lamps at drawn places, warm and near, with little light elsewhere; the sensor's noise, and
    an exposure that leaves the brightest hundredth white.

    Args:
        ambient: light away from the lamps, as a share of that near one.
        lamps: how many.
        electrons, read: as in ``noise``.
    """

    def change(light: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        height, width = light.shape[:2]
        y, x = np.mgrid[:height, :width] / max(height, width)
        field = np.full((height, width), ambient)
        for _ in range(lamps):
            at = (
                rng.uniform(0, width / max(height, width)),
                rng.uniform(0, height / max(height, width)),
            )
            reach = rng.uniform(0.06, 0.2)
            field += np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * reach**2))
        lit = light * field[:, :, None] * np.array([1.0, 0.72, 0.4])
        lit = lit / max(np.quantile(lit.max(2), 0.99), 1e-6)
        counted = rng.poisson(np.minimum(lit, 1) * electrons) + rng.normal(0, read, light.shape)
        return counted / electrons

    return _light(change)


def jpeg(quality: int) -> Step:
    """Compressed by Pillow."""

    def step(view: View, rng: np.random.Generator) -> View:
        buffer = io.BytesIO()
        Image.fromarray(view.pixels).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as image:
            return replace(view, pixels=np.asarray(image.convert("RGB")))

    return step


# Levels were chosen by float's recall on castle-P30: see docs/hard.md.
RECIPES: dict[str, list[Step]] = {
    "night": [night(0.02, 4, 60, 2.0), jpeg(60)],
    "blur": [far(0.7), blur(0.012), noise(1000, 4)],
    "noise": [far(0.7), noise(40, 2.0)],
    "jpeg": [far(0.7), jpeg(12)],
    "far": [far(0.45)],
    "near": [near(0.5)],
    "roll": [roll(35)],
    "mixed": [roll(12), far(0.8), blur(0.005), noise(200, 3.0), jpeg(40)],
}


def hardened(view: View, recipe: str, name: str) -> View:
    """The view after the steps of a recipe; ``name`` of the photo seeds what they draw."""
    rng = np.random.default_rng([zlib.crc32(recipe.encode()), zlib.crc32(name.encode())])
    for step in RECIPES[recipe]:
        view = step(view, rng)
    return view
