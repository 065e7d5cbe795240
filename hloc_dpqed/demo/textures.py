"""Textures made by the program: noise, masonry, wood, windows, painted patterns.

Every function takes the size in texels and a random generator and returns (height, width, 3)
float32 colours in 0 .. 1, top row first. Each call paints another surface, so that no two look
the same. Noise with energy in every octave gives interest points at every distance.
"""

from collections.abc import Callable

import numpy as np

Paint = Callable[[int, int, np.random.Generator], np.ndarray]


def smooth_noise(
    height: int, width: int, cell: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Value noise: random values on a grid of ``cell`` (rows, columns) texels, interpolated.

    Returns:
        (height, width) float32 of about -1 .. 1.
    """
    indices, weights = [], []
    for size, step in zip((height, width), cell, strict=True):
        position = (np.arange(size, dtype=np.float32) + 0.5) / np.float32(step)
        low = position.astype(np.int64)
        t = position - low
        indices.append(low)
        weights.append(t * t * (3 - 2 * t))
    (rows, columns), (wr, wc) = indices, weights
    grid = rng.uniform(-1, 1, (rows[-1] + 2, columns[-1] + 2)).astype(np.float32)
    across = grid[:, columns] + (grid[:, columns + 1] - grid[:, columns]) * wc
    return across[rows] + (across[rows + 1] - across[rows]) * wr[:, None]


def fractal_noise(
    height: int,
    width: int,
    rng: np.random.Generator,
    largest: float = 128,
    smallest: float = 2,
    gain: float = 0.75,
    stretch: tuple[float, float] = (1, 1),
) -> np.ndarray:
    """Sum of value noises from cells of ``largest`` texels down to ``smallest``, halving.

    Each octave has ``gain`` times the amplitude of the one before; ``stretch`` scales the cells'
    rows and columns. Returns (height, width) float32 of about unit standard deviation.
    """
    total = np.zeros((height, width), np.float32)
    amplitude, power, cell = 1.0, 0.0, largest
    while cell >= smallest:
        octave = (max(1.0, cell * stretch[0]), max(1.0, cell * stretch[1]))
        total += np.float32(amplitude) * smooth_noise(height, width, octave, rng)
        power += amplitude**2
        amplitude *= gain
        cell /= 2
    # Interpolated uniform noise has a variance of about 0.18.
    return total / np.float32(np.sqrt(0.18 * max(power, 1e-9)))


def _tint(value: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    return value[..., None] * np.asarray(colour, np.float32)


def _weathered(
    colours: np.ndarray, rng: np.random.Generator, strength: float, stretch=(1, 1)
) -> np.ndarray:
    """Darken and lighten by noise, and drift in hue by a coarser one."""
    height, width, _ = colours.shape
    value = fractal_noise(height, width, rng, stretch=stretch)
    hue = smooth_noise(height, width, (37, 37), rng)
    shift = _tint(hue, (0.05, 0.0, -0.06))
    return np.clip(colours * (1 + strength * value[..., None] + shift), 0.02, 1)


def plaster(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Coloured plaster with stains, streaks of rain and patches where it has come off."""
    base = np.array([0.8, 0.7, 0.56]) * rng.uniform(0.85, 1.1) + rng.uniform(-0.04, 0.04, 3)
    colours = np.ones((height, width, 3), np.float32) * base.astype(np.float32)
    patches = fractal_noise(height, width, rng, largest=160, smallest=8) > 1.15
    colours[patches] = np.array([0.55, 0.42, 0.35], np.float32)
    streaks = fractal_noise(height, width, rng, largest=24, smallest=6, stretch=(10, 1))
    colours *= 1 - 0.12 * np.clip(streaks, 0, 2)[..., None]
    return _weathered(colours, rng, 0.13)


def masonry(
    height: int,
    width: int,
    rng: np.random.Generator,
    size: tuple[int, int] = (9, 26),
    colour: tuple[float, float, float] = (0.6, 0.34, 0.26),
    variation: float = 0.2,
) -> np.ndarray:
    """Courses of bricks or blocks of ``size`` (rows, columns) texels, each of its own tone."""
    course, length = max(3, size[0]), max(5, size[1])
    rows = np.arange(height) // course
    offsets = rng.uniform(0, length, rows[-1] + 1)
    position = (np.arange(width)[None] + offsets[rows][:, None]) / length
    brick = position.astype(np.int64)
    tones = rng.normal(1, variation, (rows[-1] + 1, brick.max() + 1)).astype(np.float32)
    value = tones[rows[:, None], brick]
    colours = _tint(value, colour)
    joint = (np.arange(height) % course < max(1, course // 7))[:, None] | (
        (position - brick) * length < max(1, course // 7)
    )
    colours[joint] = np.array([0.66, 0.63, 0.58], np.float32)
    return _weathered(colours, rng, 0.16)


def bricks(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Red brick."""
    return masonry(height, width, rng, (8, 24), (0.62, 0.36, 0.27))


def ashlar(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Large blocks of pale stone."""
    return masonry(height, width, rng, (38, 84), (0.66, 0.62, 0.54), 0.12)


def paving(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Worn paving with moss."""
    colours = masonry(height, width, rng, (44, 60), (0.5, 0.49, 0.47), 0.16)
    moss = fractal_noise(height, width, rng, largest=90, smallest=4) > 1.1
    colours[moss] = 0.5 * colours[moss] + np.array([0.1, 0.17, 0.06], np.float32)
    return colours


def marble(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Veined stone."""
    value = np.abs(fractal_noise(height, width, rng, largest=48, gain=0.8))
    veins = np.exp(-6 * value)
    colours = _tint(1 - 0.6 * veins, (0.8, 0.77, 0.72))
    return _weathered(colours, rng, 0.1)


def wood(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Upright planks with grain and knots."""
    plank = max(6, width // int(rng.integers(4, 8)))
    index = np.arange(width) // plank
    tones = rng.normal(1, 0.2, index[-1] + 1).astype(np.float32)[index]
    grain = fractal_noise(height, width, rng, largest=16, smallest=2, stretch=(8, 0.5))
    knots = fractal_noise(height, width, rng, largest=32, smallest=8) > 1.9
    colours = _tint(np.clip(tones[None] * (1 + 0.16 * grain), 0.2, 2), (0.5, 0.34, 0.2))
    colours[knots] *= 0.45
    colours[:, np.arange(width) % plank < max(1, plank // 12)] *= 0.4
    return _weathered(colours, rng, 0.1)


def window(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A window: frame, glazing bars, panes that reflect differently, a curtain behind some."""
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(2, 5))
    pane_row = np.minimum(np.arange(height) * rows // height, rows - 1)
    pane_column = np.minimum(np.arange(width) * columns // width, columns - 1)
    tone = rng.uniform(0.1, 0.4, (rows, columns)).astype(np.float32)
    value = tone[pane_row[:, None], pane_column]
    colours = _tint(value, (0.75, 0.95, 1.1))
    clouds = fractal_noise(height, width, rng, largest=40, smallest=3)
    colours *= 1 + 0.3 * clouds[..., None]
    if rng.random() < 0.6:
        side = int(width * rng.uniform(0.2, 0.45))
        folds = 0.6 + 0.15 * fractal_noise(height, side, rng, 16, 2, stretch=(6, 0.4))
        curtain = _tint(folds, tuple(rng.uniform(0.7, 1.0, 3)))
        colours[:, :side] = curtain
    bar = max(2, width // 24)
    frame = np.zeros((height, width), bool)
    for i in range(rows + 1):
        centre = i * height // rows
        frame[max(0, centre - bar) : centre + bar] = True
    for i in range(columns + 1):
        centre = i * width // columns
        frame[:, max(0, centre - bar) : centre + bar] = True
    paint = np.array([0.8, 0.78, 0.74]) * rng.uniform(0.5, 1.1) + rng.uniform(-0.06, 0.06, 3)
    colours[frame] = paint.astype(np.float32)
    return _weathered(np.clip(colours, 0.03, 1), rng, 0.1)


def _pigment(rng: np.random.Generator) -> np.ndarray:
    """A muted colour: (3,) float32."""
    grey = rng.uniform(0.15, 0.85)
    return (0.5 * grey + 0.5 * rng.uniform(0.05, 0.95, 3)).astype(np.float32)


def painted(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A painted pattern: overlapping discs, bars and triangles in random colours."""
    colours = np.ones((height, width, 3), np.float32) * _pigment(rng)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(45):
        cx, cy = rng.uniform(0, width), rng.uniform(0, height)
        radius = rng.uniform(0.03, 0.16) * min(height, width)
        angle = rng.uniform(0, np.pi)
        u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        v = (y - cy) * np.cos(angle) - (x - cx) * np.sin(angle)
        kind = rng.integers(3)
        if kind == 0:
            inside = u * u + v * v < radius * radius
        elif kind == 1:
            inside = (np.abs(u) < 3 * radius) & (np.abs(v) < 0.3 * radius)
        else:
            inside = (v > -radius) & (np.abs(u) < 0.6 * (radius - v)) & (v < radius)
        colours[inside] = _pigment(rng)
    return _weathered(colours, rng, 0.1)


def leaves(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Foliage; cut out with ``leaf_mask``."""
    value = fractal_noise(height, width, rng, largest=24, smallest=2, gain=0.95)
    hue = smooth_noise(height, width, (15, 15), rng)
    colours = np.stack([0.24 + 0.12 * hue, 0.36 + 0.06 * hue, 0.12 + 0 * hue], -1)
    return np.clip(colours * (1 + 0.42 * value[..., None]), 0.02, 1)


def leaf_mask(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width) bool: where a patch of ivy has leaves, ragged towards its border."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None]
    noise = fractal_noise(height, width, rng, largest=32, smallest=3, gain=0.85)
    return 1.1 - np.maximum(np.abs(x), np.abs(y)) ** 3 * 1.5 + 0.35 * noise > 0.35
