"""Camera poses from three points, many at once.

Source: Grunert's solution as given by Haralick, Lee, Ottenberg, Nölle, "Review and Analysis of
Solutions of the Three Point Perspective Pose Estimation Problem", IJCV 1994 (section 2): a quartic
in the ratio of two distances, here solved by the eigenvalues of its companion matrix.
"""

import numpy as np


def solve_p3p(bearings: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All poses that see three points along three rays.

    Args:
        bearings: (n, 3, 3) float64, a unit ray a row, in the camera's frame.
        points: (n, 3, 3) float64, a world point a row.

    Returns:
        (n, 4, 3, 4) float64 poses [R | t], camera from world, and (n, 4) bool which of the four
        exist. Degenerate triplets have none.
    """
    with np.errstate(all="ignore"):
        f1, f2, f3 = bearings[:, 0], bearings[:, 1], bearings[:, 2]
        x1, x2, x3 = points[:, 0], points[:, 1], points[:, 2]
        cos_a, cos_b, cos_c = (f2 * f3).sum(1), (f1 * f3).sum(1), (f1 * f2).sum(1)
        a = ((x2 - x3) ** 2).sum(1)
        b = ((x1 - x3) ** 2).sum(1)
        c = ((x1 - x2) ** 2).sum(1)
        ab, cb = a / b, c / b
        q, p = ab - cb, ab + cb
        coefficients = np.stack(
            [
                (q - 1) ** 2 - 4 * cb * cos_a**2,
                4 * (q * (1 - q) * cos_b - (1 - p) * cos_a * cos_c + 2 * cb * cos_a**2 * cos_b),
                2
                * (
                    q**2
                    - 1
                    + 2 * q**2 * cos_b**2
                    + 2 * (1 - cb) * cos_a**2
                    - 4 * p * cos_a * cos_b * cos_c
                    + 2 * (1 - ab) * cos_c**2
                ),
                4 * (-q * (1 + q) * cos_b + 2 * ab * cos_c**2 * cos_b - (1 - p) * cos_a * cos_c),
                (1 + q) ** 2 - 4 * ab * cos_c**2,
            ],
            1,
        )
        v, exists = _real_roots(coefficients)
        q, cos_a, cos_b, cos_c, b = (z[:, None] for z in (q, cos_a, cos_b, cos_c, b))
        u = ((q - 1) * v**2 - 2 * q * cos_b * v + 1 + q) / (2 * (cos_c - v * cos_a))
        s1 = np.sqrt(b / (1 + v**2 - 2 * v * cos_b))
        distances = np.stack([s1, u * s1, v * s1], -1)
        exists &= np.isfinite(distances).all(-1) & (distances > 0).all(-1)
        in_camera = distances[..., None] * bearings[:, None]
        rotation = _frame(in_camera) @ _frame(points)[:, None].transpose(0, 1, 3, 2)
        translation = in_camera[:, :, 0] - np.einsum("nsij,nj->nsi", rotation, x1)
        poses = np.concatenate([rotation, translation[..., None]], -1)
        exists &= np.isfinite(poses).all((2, 3))
    return poses, exists


def _real_roots(coefficients: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Roots of quartics, highest power first: (n, 4) real parts, (n, 4) bool whether real."""
    monic = coefficients[:, 1:] / coefficients[:, :1]
    usable = np.isfinite(monic).all(1)
    companion = np.zeros((len(monic), 4, 4))
    companion[:, 0] = -np.where(usable[:, None], monic, 0)
    companion[:, [1, 2, 3], [0, 1, 2]] = 1
    roots = np.linalg.eigvals(companion)
    v = roots.real
    real = usable[:, None] & (np.abs(roots.imag) < 1e-6 * (1 + np.abs(v)))
    # One Newton step takes off the rounding of the eigenvalues.
    c = coefficients[:, :, None]
    value = (((c[:, 0] * v + c[:, 1]) * v + c[:, 2]) * v + c[:, 3]) * v + c[:, 4]
    slope = ((4 * c[:, 0] * v + 3 * c[:, 1]) * v + 2 * c[:, 2]) * v + c[:, 3]
    step = value / slope
    return np.where(np.isfinite(step) & (np.abs(step) < 1e-3), v - step, v), real


def _frame(triangle: np.ndarray) -> np.ndarray:
    """(..., 3, 3) orthonormal axes (columns) of triangles with a vertex a row."""
    e1 = triangle[..., 1, :] - triangle[..., 0, :]
    e1 = e1 / np.linalg.norm(e1, axis=-1, keepdims=True)
    e3 = np.cross(e1, triangle[..., 2, :] - triangle[..., 0, :])
    e3 = e3 / np.linalg.norm(e3, axis=-1, keepdims=True)
    return np.stack([e1, np.cross(e3, e1), e3], -1)
