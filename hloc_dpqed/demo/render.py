"""A small renderer: z-buffer, filtered textures, sun with shadows, a camera that is not perfect.

Pixel coordinates are COLMAP's: the centre of the top left pixel is (0.5, 0.5).
"""

from dataclasses import dataclass

import numpy as np
import pycolmap

from .scene import Quad
from .textures import smooth_noise

NEAR = 0.05  # metres; what is nearer to the camera is cut
_SHADOW_RESOLUTION = 40  # cells per metre


@dataclass(frozen=True)
class Light:
    """How a view is lit and exposed.

    Attributes:
        sun: index into the scene's sun directions.
        sunlight, skylight: (3,) float64, their colours times their strengths.
        exposure: factor on the light that reaches the sensor.
        gamma: of the tone curve.
        noise: standard deviation of the noise at full signal, in 0 .. 1.
        vignetting: share of the light that is lost in the corners.
    """

    sun: int
    sunlight: np.ndarray
    skylight: np.ndarray
    exposure: float
    gamma: float
    noise: float
    vignetting: float


@dataclass(frozen=True)
class Rendering:
    """One view.

    Attributes:
        image: (H, W, 3) uint8.
        depth: (H, W) float32, along the optical axis in metres, infinite where there is sky.
        quad: (H, W) int32, index of the visible quad, -1 for sky.
    """

    image: np.ndarray
    depth: np.ndarray
    quad: np.ndarray


class Renderer:
    """Renders a list of quads; what all views share is computed once."""

    def __init__(self, quads: list[Quad], seed: int = 0):
        self.quads = quads
        self._pyramids = _TexturePyramids([q.texture for q in quads])
        self.normals = np.stack([q.normal for q in quads])
        # (Q, 3, 3): columns edge u, edge v and origin.
        self._sides = np.stack([np.stack([q.edge_u, q.edge_v, q.origin], 1) for q in quads])
        # Morning, noon and afternoon.
        directions = np.array([[-0.75, -0.35, 0.8], [0.15, -0.6, 1.0], [0.8, -0.25, 0.75]])
        self.suns = directions / np.linalg.norm(directions, axis=1, keepdims=True)
        self._shadows = [_ShadowMap(quads, sun) for sun in self.suns]
        rng = np.random.default_rng([seed, 2])
        # Broad clouds only: what has no depth must not give interest points.
        self._clouds = smooth_noise(256, 256, (64, 64), rng)
        self._clouds += smooth_noise(256, 256, (32, 32), rng) / 2

    def render(
        self,
        camera: pycolmap.Camera,
        cam_from_world: np.ndarray,
        light: Light,
        rng: np.random.Generator,
        supersampling: int = 2,
    ) -> Rendering:
        """Render one view.

        Args:
            camera: a pinhole camera.
            cam_from_world: (3, 4) float64 [R | t].
            light: of the view.
            rng: of the sensor's noise.
            supersampling: rays along each side of a pixel.
        """
        inverse_depth, index, rows = self._visible(camera, cam_from_world, supersampling)
        linear = self._shade(camera, cam_from_world, light, inverse_depth, index, rows)
        s, centre = supersampling, supersampling // 2
        with np.errstate(divide="ignore"):
            depth = 1 / inverse_depth[centre::s, centre::s]
        return Rendering(
            _expose(linear, light, rng), depth, index[centre::s, centre::s].astype(np.int32)
        )

    def depth(self, camera: pycolmap.Camera, cam_from_world: np.ndarray) -> np.ndarray:
        """Only the depth of a view: (H, W) float32, infinite where there is sky."""
        with np.errstate(divide="ignore"):
            return 1 / self._visible(camera, cam_from_world, 1)[0]

    def _visible(
        self, camera: pycolmap.Camera, cam_from_world: np.ndarray, s: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Z-buffer: inverse depth (sH, sW), quad index (sH, sW), and ``rows`` (Q, 3, 3).

        For a quad, ``rows`` times the homogeneous pixel is (u, v, 1) / depth: all three are
        linear in the pixel's coordinates, which is all that visibility and texturing need.
        """
        height, width = camera.height * s, camera.width * s
        xs = ((np.arange(width) + 0.5) / s).astype(np.float32)
        ys = ((np.arange(height) + 0.5) / s).astype(np.float32)
        inverse_depth = np.zeros((height, width), np.float32)
        index = np.full((height, width), -1, np.int16)
        all_rows = np.zeros((len(self.quads), 3, 3), np.float32)
        rotation, translation = cam_from_world[:, :3], cam_from_world[:, 3]
        calibration = camera.calibration_matrix()
        all_sides = rotation @ self._sides
        all_sides[:, :, 2] += translation
        # The rest is seen from behind, or edge on.
        for i in np.flatnonzero(np.linalg.det(all_sides) < 0):
            quad, sides = self.quads[i], all_sides[i]
            box = _bounding_box(sides, calibration, camera.width, camera.height)
            if box is None:
                continue
            x0, y0, x1, y1 = (int(v * s) for v in box)
            x1, y1 = min(x1 + 1, width), min(y1 + 1, height)
            rows = np.linalg.inv(calibration @ sides).astype(np.float32)
            all_rows[i] = rows
            u, v, w = ((r[0] * xs[x0:x1] + r[2])[None] + (r[1] * ys[y0:y1])[:, None] for r in rows)
            near = inverse_depth[y0:y1, x0:x1]
            hit = (u >= 0) & (v >= 0) & (u <= w) & (v <= w) & (w > near) & (w < 1 / NEAR)
            if quad.mask is not None:
                where = np.nonzero(hit)
                hit[where] = _masked(quad.mask, u[where] / w[where], v[where] / w[where])
            near[hit] = w[hit]
            index[y0:y1, x0:x1][hit] = i
        return inverse_depth, index, all_rows

    def _shade(
        self,
        camera: pycolmap.Camera,
        cam_from_world: np.ndarray,
        light: Light,
        inverse_depth: np.ndarray,
        index: np.ndarray,
        rows: np.ndarray,
    ) -> np.ndarray:
        """Linear colour of every pixel: (H, W, 3) float32.

        One ray is shaded where all rays of a pixel hit the same quad (textures are filtered to
        the size of a pixel), all of them where an edge passes.
        """
        height, width = camera.height, camera.width
        s = index.shape[0] // height
        # (H, W, s * s): the rays of each pixel.
        index, inverse_depth = (
            a.reshape(height, s, width, s).swapaxes(1, 2).reshape(height, width, s * s)
            for a in (index, inverse_depth)
        )
        within = (np.arange(s) + 0.5) / s
        colour = np.empty((height, width, 3), np.float32)
        for start in range(0, height, 32):  # blocks that stay in the processor's cache
            block = slice(start, min(start + 32, height))
            ids, depths, out = index[block], inverse_depth[block], colour[block]
            whole = (ids == ids[..., :1]).all(2)
            y, x = np.nonzero(whole)
            out[y, x] = self._shade_rays(
                camera, cam_from_world, light, rows, x + 0.5, y + start + 0.5,
                ids[y, x, 0], depths[y, x].mean(1), 1,
            )  # fmt: skip
            y, x = np.nonzero(~whole)
            xs = (x[:, None, None] + within[None, None]).repeat(s, 1).ravel()
            ys = (y[:, None, None] + start + within[None, :, None]).repeat(s, 2).ravel()
            rays = self._shade_rays(
                camera, cam_from_world, light, rows, xs, ys,
                ids[y, x].ravel(), depths[y, x].ravel(), s,
            )  # fmt: skip
            out[y, x] = rays.reshape(-1, s * s, 3).mean(1)
        return colour

    def _shade_rays(
        self,
        camera: pycolmap.Camera,
        cam_from_world: np.ndarray,
        light: Light,
        rows: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        ids: np.ndarray,
        inverse_depth: np.ndarray,
        s: int,
    ) -> np.ndarray:
        """Linear colour (n, 3) of the rays through pixels (x, y) that hit the quads ``ids``."""
        x, y = x.astype(np.float32), y.astype(np.float32)
        rotation = cam_from_world[:, :3]
        centre = (-rotation.T @ cam_from_world[:, 3]).astype(np.float32)
        ray = (rotation.T @ np.linalg.inv(camera.calibration_matrix())).astype(np.float32)
        direction = np.stack([r[0] * x + r[1] * y + r[2] for r in ray], 1)
        out = np.empty((len(x), 3), np.float32)
        sky = np.flatnonzero(ids < 0)
        out[sky] = self._sky(direction[sky])
        seen = np.flatnonzero(ids >= 0)
        k, w = ids[seen], inverse_depth[seen]
        albedo = self._pyramids.sample(k, x[seen], y[seen], w, rows, s)
        world = centre + direction[seen] / w[:, None]
        facing = np.clip(self.normals @ self.suns[light.sun], 0, None).astype(np.float32)
        lit = facing[k] * self._shadows[light.sun].lit(world)
        # Less of the sky is seen from near the ground.
        open_sky = 0.55 + 0.45 * np.clip(world[:, 2] / 5, 0, 1)
        irradiance = lit[:, None] * light.sunlight.astype(np.float32)
        irradiance += open_sky[:, None] * light.skylight.astype(np.float32)
        out[seen] = albedo * irradiance
        return out

    def _sky(self, direction: np.ndarray) -> np.ndarray:
        """Colour of the sky in the directions (n, 3): (n, 3) float32."""
        unit = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        # Clouds on a plane overhead, compressed towards the horizon.
        plane = unit[:, :2] / (np.abs(unit[:, 2:]) + 0.25)
        at = np.clip((plane / 8 + 0.5) * 255, 0, 255).astype(np.int32)
        cloud = self._clouds[at[:, 1], at[:, 0]]
        up = np.clip(unit[:, 2], 0, 1)[:, None]
        blue = np.array([0.75, 0.86, 1.0]) * (1 - up) + np.array([0.25, 0.45, 0.85]) * up
        white = np.clip(0.5 * cloud[:, None] + 0.1, 0, 0.6)
        return (1.1 * (blue * (1 - white) + white)).astype(np.float32)


def _masked(mask: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    height, width = mask.shape
    row = np.clip(((1 - v) * height).astype(np.int32), 0, height - 1)
    return mask[row, np.clip((u * width).astype(np.int32), 0, width - 1)]


def _bounding_box(
    sides: np.ndarray, calibration: np.ndarray, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """Pixels (x0, y0, x1, y1) that may see a parallelogram given in camera coordinates."""
    u, v, o = sides.T
    corners = [o, o + u, o + u + v, o + v]
    front = []
    for a, b in zip(corners, corners[1:] + corners[:1], strict=True):
        if a[2] >= NEAR:
            front.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            front.append(a + (b - a) * (NEAR - a[2]) / (b[2] - a[2]))
    if not front:
        return None
    projected = np.stack(front) @ calibration.T
    xy = projected[:, :2] / projected[:, 2:]
    x0, y0 = np.maximum(xy.min(0), 0)
    x1, y1 = np.minimum(xy.max(0), [width, height])
    return None if x0 >= x1 or y0 >= y1 else (x0, y0, x1, y1)


class _TexturePyramids:
    """All textures with their halved copies in one array, sampled at any level in one go."""

    def __init__(self, textures: list[np.ndarray]):
        levels: list[np.ndarray] = []
        first: list[int] = []
        offsets: list[int] = []
        sizes: list[tuple[int, int]] = []
        offset = 0
        for texture in textures:
            first.append(len(offsets))
            level = texture.astype(np.float32)
            while True:
                height, width, _ = level.shape
                levels.append(np.round(level).astype(np.uint8).reshape(-1, 3))
                offsets.append(offset)
                sizes.append((height, width))
                offset += height * width
                if min(height, width) < 4:
                    break
                even = level[: height // 2 * 2, : width // 2 * 2]
                level = even.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
        self.texels = np.concatenate(levels)
        self.offsets = np.array(offsets, np.int32)
        self.sizes = np.array(sizes, np.int32)
        self.first = np.array(first, np.int32)
        self.count = np.diff(np.append(self.first, len(offsets))).astype(np.int32)

    def sample(
        self,
        quad: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        w: np.ndarray,
        rows: np.ndarray,
        s: int,
    ) -> np.ndarray:
        """Linear albedo (n, 3) of the quads seen at pixels (x, y) with inverse depth ``w``."""
        r = rows[quad]
        u = (r[:, 0, 0] * x + r[:, 0, 1] * y + r[:, 0, 2]) / w
        v = (r[:, 1, 0] * x + r[:, 1, 1] * y + r[:, 1, 2]) / w
        size = self.sizes[self.first[quad]].astype(np.float32)
        # Texels that a step of one ray in x and in y moves; their mean length picks the level.
        step = np.zeros(len(u), np.float32)
        for axis in (0, 1):
            du = (r[:, 0, axis] - u * r[:, 2, axis]) / w * size[:, 1]
            dv = (r[:, 1, axis] - v * r[:, 2, axis]) / w * size[:, 0]
            step += du * du + dv * dv
        level = 0.5 * np.log2(np.maximum(step / 2, 1e-12)) - np.log2(np.float32(s))
        level = np.clip(level, 0, (self.count[quad] - 1).astype(np.float32))
        low = level.astype(np.int32)
        part = (level - low)[:, None]
        high = np.minimum(low + 1, self.count[quad] - 1)
        colour = self._bilinear(self.first[quad] + low, u, v) * (1 - part)
        colour += self._bilinear(self.first[quad] + high, u, v) * part
        colour *= np.float32(1 / 255)
        return colour * colour

    def _bilinear(self, level: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        height, width = self.sizes[level].T
        column = np.clip(u * width - 0.5, 0, width - 1)
        row = np.clip((1 - v) * height - 0.5, 0, height - 1)
        c0, r0 = column.astype(np.int32), row.astype(np.int32)
        fc, fr = (column - c0)[:, None].astype(np.float32), (row - r0)[:, None].astype(np.float32)
        right = (c0 + 1 < width).astype(np.int32)
        below = np.where(r0 + 1 < height, width, 0)
        at = self.offsets[level] + r0 * width + c0
        top = self.texels[at] * (1 - fc) + self.texels[at + right] * fc
        low = self.texels[at + below] * (1 - fc) + self.texels[at + below + right] * fc
        return top + (low - top) * fr


class _ShadowMap:
    """Height of the surface nearest to the sun, on a grid across the sun's direction."""

    def __init__(self, quads: list[Quad], sun: np.ndarray):
        side = np.cross([0.0, 0, 1], sun)
        side /= np.linalg.norm(side)
        self.axes = np.stack([side, np.cross(sun, side), sun])
        corners = np.concatenate([[q.at(u, v) for u in (0, 1) for v in (0, 1)] for q in quads])
        plane = corners @ self.axes[:2].T
        self.low = plane.min(0)
        cells = np.ceil((plane.max(0) - self.low) * _SHADOW_RESOLUTION).astype(int) + 1
        self.height = np.full((cells[1], cells[0]), -np.inf, np.float32)
        for quad in quads:
            if quad.normal @ sun > 1e-3:
                self._draw(quad)

    def _draw(self, quad: Quad) -> None:
        o, u, v = (self.axes @ e for e in (quad.origin, quad.edge_u, quad.edge_v))
        corners = np.stack([o, o + u, o + v, o + u + v])[:, :2]
        x0, y0 = np.floor((corners.min(0) - self.low) * _SHADOW_RESOLUTION).astype(int)
        x1, y1 = np.ceil((corners.max(0) - self.low) * _SHADOW_RESOLUTION).astype(int) + 1
        xs = (np.arange(x0, x1) + 0.5) / _SHADOW_RESOLUTION + self.low[0] - o[0]
        ys = (np.arange(y0, y1) + 0.5) / _SHADOW_RESOLUTION + self.low[1] - o[1]
        to_uv = np.linalg.inv(np.stack([u[:2], v[:2]], 1)).astype(np.float32)
        xs, ys = xs.astype(np.float32)[None], ys.astype(np.float32)[:, None]
        a, b = (r[0] * xs + r[1] * ys for r in to_uv)
        height = (o[2] + a * u[2] + b * v[2]).astype(np.float32)
        target = self.height[y0:y1, x0:x1]
        rows, columns = target.shape
        a, b, height = a[:rows, :columns], b[:rows, :columns], height[:rows, :columns]
        hit = (a >= 0) & (b >= 0) & (a <= 1) & (b <= 1) & (height > target)
        if quad.mask is not None:
            where = np.nonzero(hit)
            hit[where] = _masked(quad.mask, a[where], b[where])
        target[hit] = height[hit]

    def lit(self, world: np.ndarray) -> np.ndarray:
        """How much of the sun reaches the world points (n, 3): (n,) float32, 0 .. 1."""
        x, y, height = (world @ axis for axis in self.axes.astype(np.float32))
        column = (x - np.float32(self.low[0])) * _SHADOW_RESOLUTION
        row = (y - np.float32(self.low[1])) * _SHADOW_RESOLUTION
        rows, columns = self.height.shape
        total = np.zeros(len(world), np.float32)
        for dx, dy in ((-0.7, -0.3), (0.3, -0.7), (0.7, 0.3), (-0.3, 0.7)):
            c = np.clip((column + dx).astype(np.int32), 0, columns - 1)
            r = np.clip((row + dy).astype(np.int32), 0, rows - 1)
            total += height > self.height[r, c] - np.float32(0.06)
        return total / 4


def _expose(linear: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """What the camera makes of linear light (H, W, 3): uint8 pixels."""
    height, width, _ = linear.shape
    linear = _blur(linear)
    y = (np.arange(height, dtype=np.float32) + 0.5) / height * 2 - 1
    x = (np.arange(width, dtype=np.float32) + 0.5) / width * 2 - 1
    falloff = 1 - light.vignetting * (y[:, None] ** 2 + x[None] ** 2) / 2
    signal = np.clip(linear * falloff[..., None] * np.float32(light.exposure), 0, None)
    # Photon noise grows with the root of the signal; read-out noise does not.
    noise = rng.standard_normal(signal.shape, dtype=np.float32)
    signal = signal + noise * np.sqrt(signal + 0.02) * np.float32(light.noise)
    # A shoulder keeps bright walls from clipping.
    signal = np.clip(signal, 0, None)
    signal = signal * (1 + signal / 4) / (1 + signal)
    tone = np.clip(signal * 1.3 - 0.015, 0, 1) ** np.float32(1 / light.gamma)
    return np.round(tone * 255).astype(np.uint8)


def _blur(image: np.ndarray) -> np.ndarray:
    """The lens: a light blur of about half a pixel, (H, W, 3) to the same."""
    padded = np.pad(image, ((1, 1), (0, 0), (0, 0)), mode="edge")
    image = 0.76 * padded[1:-1] + 0.12 * (padded[:-2] + padded[2:])
    padded = np.pad(image, ((0, 0), (1, 1), (0, 0)), mode="edge")
    return 0.76 * padded[:, 1:-1] + 0.12 * (padded[:, :-2] + padded[:, 2:])
