"""A courtyard of textured rectangles: four facades, an arcade, a monument, crates and ivy.

Right-handed world in metres: x and y on the ground, z up.
"""

from dataclasses import dataclass, field

import numpy as np

from . import textures
from .textures import Paint

HALF_LENGTH, HALF_WIDTH = 10.0, 8.0  # of the yard, in metres


@dataclass(frozen=True)
class Quad:
    """A textured parallelogram, visible from the side that its normal points to.

    Attributes:
        origin: (3,) float64, the corner where the texture's bottom row and left column meet.
        edge_u, edge_v: (3,) float64, along the texture's bottom row and up its left column; the
            normal is their cross product.
        texture: (h, w, 3) uint8, top row first.
        mask: (mh, mw) bool over the same area, top row first: where there is surface. None:
            everywhere.
    """

    origin: np.ndarray
    edge_u: np.ndarray
    edge_v: np.ndarray
    texture: np.ndarray
    mask: np.ndarray | None = None

    @property
    def normal(self) -> np.ndarray:
        """(3,) float64 of unit length."""
        n = np.cross(self.edge_u, self.edge_v)
        return n / np.linalg.norm(n)

    def at(self, u: float, v: float) -> np.ndarray:
        """World point (3,) at ``u`` along the bottom row and ``v`` up the left column, 0 .. 1."""
        return self.origin + u * self.edge_u + v * self.edge_v


@dataclass(frozen=True)
class Frame:
    """A local frame: a along ``right``, b upwards, d out of the surface, towards the viewer."""

    origin: np.ndarray
    right: np.ndarray
    out: np.ndarray

    def point(self, a: float, b: float, d: float) -> np.ndarray:
        return self.origin + a * self.right + d * self.out + np.array([0.0, 0.0, b])


@dataclass
class SceneBuilder:
    """Collects quads; ``texels`` is the textures' resolution in texels per metre."""

    texels: float
    rng: np.random.Generator
    quads: list[Quad] = field(default_factory=list)

    def quad(
        self,
        origin: np.ndarray,
        edge_u: np.ndarray,
        edge_v: np.ndarray,
        paint: Paint,
        mask: np.ndarray | None = None,
    ) -> None:
        height, width = (
            max(4, round(float(np.linalg.norm(edge)) * self.texels)) for edge in (edge_v, edge_u)
        )
        colours = paint(height, width, self.rng)
        texture = np.round(np.clip(colours, 0, 1) * 255).astype(np.uint8)
        self.quads.append(Quad(origin, edge_u, edge_v, texture, mask))

    def box(
        self,
        frame: Frame,
        a: tuple[float, float],
        b: tuple[float, float],
        d: tuple[float, float],
        paint: Paint,
        back: bool = False,
        bottom: bool = True,
    ) -> None:
        """A box between the given coordinates; ``back`` and ``bottom`` say which faces it has."""
        p = frame.point
        (a0, a1), (b0, b1), (d0, d1) = a, b, d
        right, up, out = (a1 - a0) * frame.right, np.array([0.0, 0, b1 - b0]), (d1 - d0) * frame.out
        self.quad(p(a0, b0, d1), right, up, paint)
        self.quad(p(a0, b0, d0), out, up, paint)
        self.quad(p(a1, b0, d1), -out, up, paint)
        self.quad(p(a0, b1, d1), right, -out, paint)
        if back:
            self.quad(p(a1, b0, d0), -right, up, paint)
        if bottom and b0 > 0:
            self.quad(p(a0, b0, d0), right, out, paint)

    def recess(
        self,
        frame: Frame,
        a: tuple[float, float],
        b: tuple[float, float],
        depth: float,
        paint: Paint,
    ) -> None:
        """What is seen through a hole in a wall: the back and the four reveals."""
        p = frame.point
        (a0, a1), (b0, b1) = a, b
        right, up, inwards = (
            (a1 - a0) * frame.right,
            np.array([0.0, 0, b1 - b0]),
            -depth * frame.out,
        )
        self.quad(p(a0, b0, -depth), right, up, paint)
        self.quad(p(a0, b0, 0), inwards, up, textures.plaster)
        self.quad(p(a1, b0, -depth), -inwards, up, textures.plaster)
        self.quad(p(a0, b0, 0), right, inwards, textures.ashlar)
        self.quad(p(a0, b1, -depth), right, -inwards, textures.plaster)

    def facade(
        self,
        frame: Frame,
        length: float,
        height: float,
        paint: Paint,
        openings: list[tuple[float, float, float, float, float, Paint]],
    ) -> None:
        """A wall with openings ``(a0, a1, b0, b1, depth, paint)``, sills and cornices."""
        resolution = 40  # of the mask, cells per metre
        mask = np.ones((round(height * resolution), round(length * resolution)), bool)
        for a0, a1, b0, b1, depth, back in openings:
            top, low = (round((height - b) * resolution) for b in (b1, b0))
            mask[top:low, round(a0 * resolution) : round(a1 * resolution)] = False
            self.recess(frame, (a0, a1), (b0, b1), depth, back)
            if b0 > 0.5:
                self.box(frame, (a0 - 0.1, a1 + 0.1), (b0 - 0.14, b0), (0, 0.2), textures.ashlar)
                self.box(frame, (a0 - 0.15, a1 + 0.15), (b1, b1 + 0.2), (0, 0.12), textures.marble)
        self.quad(
            frame.point(0, 0, 0),
            length * frame.right,
            np.array([0.0, 0, height]),
            paint,
            mask,
        )
        self.box(frame, (0, length), (height - 0.45, height), (0, 0.45), textures.ashlar)
        self.box(frame, (0, length), (3.35, 3.55), (0, 0.14), textures.ashlar)


def windows(
    starts: list[float], b: tuple[float, float], width: float = 1.4
) -> list[tuple[float, float, float, float, float, Paint]]:
    """A row of window openings for ``SceneBuilder.facade``."""
    return [(a, a + width, b[0], b[1], 0.35, textures.window) for a in starts]


def courtyard(seed: int = 0, texels: float = 90.0) -> list[Quad]:
    """The demo's scene: a closed yard of 20 by 16 metres.

    Args:
        seed: of every texture and of the crates' places.
        texels: resolution of the textures, texels per metre.

    Returns:
        The scene's quads; the same arguments give the same quads.
    """
    make = SceneBuilder(texels, np.random.default_rng([seed, 1]))
    places = np.random.default_rng([seed, 6])  # its own: shapes do not depend on the texels
    x, y = np.array([1.0, 0, 0]), np.array([0.0, 1, 0])
    length, width = 2 * HALF_LENGTH, 2 * HALF_WIDTH
    north = Frame(np.array([-HALF_LENGTH, HALF_WIDTH, 0]), x, -y)
    east = Frame(np.array([HALF_LENGTH, HALF_WIDTH, 0]), -y, -x)
    south = Frame(np.array([HALF_LENGTH, -HALF_WIDTH, 0]), -x, y)
    west = Frame(np.array([-HALF_LENGTH, -HALF_WIDTH, 0]), y, x)
    door = (0.0, 2.7, 0.5, textures.wood)

    make.quad(north.point(0, 0, width), length * x, width * y, textures.paving)

    # North: brick, behind an arcade that hides parts of it from every viewpoint.
    make.facade(
        north,
        length,
        8.0,
        textures.bricks,
        windows([1.6, 4.9, 8.3, 13.0, 16.6], (4.4, 6.4))
        + windows([2.5, 6.1, 15.2], (1.0, 2.6), 1.6)
        + [(10.6, 12.2, *door)],
    )
    for a in (1.0, 4.4, 7.8, 11.2, 14.6, 18.0):
        make.box(north, (a, a + 0.55), (0, 3.0), (1.5, 2.05), textures.marble, back=True)
        make.box(north, (a - 0.12, a + 0.67), (0, 0.35), (1.38, 2.17), textures.ashlar, back=True)
    make.box(north, (0.6, 19.0), (3.0, 3.3), (1.35, 2.2), textures.ashlar, back=True)

    # East: plaster with a mural and two balconies.
    make.facade(
        east,
        width,
        6.5,
        textures.plaster,
        windows([1.2, 12.8], (4.0, 5.6)) + windows([1.4, 12.4], (1.0, 2.8)) + [(4.0, 5.5, *door)],
    )
    make.box(east, (6.6, 11.4), (0.9, 3.1), (0, 0.06), textures.painted)
    for a in (0.9, 12.5):
        make.box(east, (a, a + 2.0), (3.6, 3.75), (0, 1.0), textures.ashlar)
        make.box(east, (a, a + 2.0), (3.75, 4.25), (0.9, 1.0), textures.wood, back=True)
    make.box(east, (6.2, 7.4), (3.9, 5.7), (0, 0.1), textures.painted)
    make.box(east, (8.4, 11.0), (4.1, 5.5), (0, 0.1), textures.painted)

    # South: ashlar, two floors of windows.
    make.facade(
        south,
        length,
        9.0,
        textures.ashlar,
        windows([1.2, 4.4, 7.6, 11.0, 14.2, 17.3], (4.2, 6.2))
        + windows([2.0, 5.4, 12.6, 16.0], (1.0, 2.8), 1.8)
        + windows([2.8, 9.0, 15.5], (7.0, 8.2))
        + [(8.8, 11.0, *door)],
    )
    for a in (8.1, 11.3):
        make.box(south, (a, a + 0.45), (0, 3.2), (0.5, 0.95), textures.marble, back=True)
    make.box(south, (7.9, 11.95), (3.2, 3.6), (0, 1.1), textures.marble)

    # West: plaster between buttresses.
    make.facade(
        west,
        width,
        7.0,
        textures.plaster,
        windows([2.6, 7.2, 11.9], (4.2, 6.0))
        + windows([2.4, 11.7], (1.0, 2.7), 1.7)
        + [(7.1, 8.7, *door)],
    )
    for a in (0.9, 5.5, 9.6, 14.4):
        make.box(west, (a, a + 0.7), (0, 4.0 + 0.3 * (a % 2)), (0, 0.75), textures.ashlar)
    make.box(west, (4.6, 5.3), (1.2, 2.6), (0, 0.05), textures.painted)

    # Ivy a hand's breadth before the walls.
    for frame, a, b, size in (
        (west, 10.4, 0.0, (1.1, 3.0)),
        (east, 11.5, 0.0, (0.9, 3.0)),
        (south, 0.2, 0.0, (1.6, 3.2)),
        (south, 18.2, 0.0, (1.6, 5.2)),
    ):
        cells = (round(size[1] * texels), round(size[0] * texels))
        make.quad(
            frame.point(a, b, 0.12),
            size[0] * frame.right,
            np.array([0.0, 0, size[1]]),
            textures.leaves,
            textures.leaf_mask(*cells, make.rng),
        )

    # A monument in the middle, and crates and benches near the walls.
    centre = Frame(np.array([0.4, 0.3, 0]), x, -y)
    make.box(centre, (-1.1, 1.1), (0, 0.4), (-1.1, 1.1), textures.ashlar, back=True)
    make.box(centre, (-0.7, 0.7), (0.4, 1.5), (-0.7, 0.7), textures.marble, back=True)
    make.box(centre, (-0.3, 0.3), (1.5, 3.6), (-0.3, 0.3), textures.bricks, back=True)
    make.box(centre, (-0.42, 0.42), (3.6, 3.9), (-0.42, 0.42), textures.marble, back=True)
    for px, py, side, angle in (
        (-8.3, 5.0, 0.9, 20),
        (-8.6, 6.3, 0.7, 65),
        (8.2, -6.3, 1.0, 35),
        (7.4, -7.0, 0.7, 10),
        (8.8, -4.9, 0.6, 75),
        (-8.2, -6.6, 0.9, 50),
        (8.4, 2.2, 0.8, 25),
        (-4.6, -6.9, 0.6, 15),
        (4.3, -7.1, 0.8, 60),
        (-8.7, 0.2, 0.7, 40),
    ):
        turn = np.deg2rad(angle + places.uniform(-8, 8))
        right = np.array([np.cos(turn), np.sin(turn), 0])
        frame = Frame(np.array([px, py, 0]), right, np.array([right[1], -right[0], 0]))
        half = side / 2
        paint = textures.painted if places.random() < 0.5 else textures.wood
        make.box(frame, (-half, half), (0, side), (-half, half), paint, back=True)
    for px, py, right in ((-2.5, -2.0, x), (2.8, 1.9, y)):
        frame = Frame(np.array([px, py, 0.0]), right, np.array([right[1], -right[0], 0]))
        make.box(frame, (-0.9, 0.9), (0.4, 0.5), (-0.25, 0.25), textures.wood, back=True)
        for a in (-0.75, 0.6):
            make.box(frame, (a, a + 0.15), (0, 0.4), (-0.2, 0.2), textures.ashlar, back=True)
    return make.quads
