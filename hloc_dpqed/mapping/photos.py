"""Photos in a folder, and what they tell of their cameras."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pycolmap
import torch

from ..choices import AUTO_CAMERA
from ..errors import InputError
from ..io.lists import read_names, read_queries

PHOTOS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".ppm", ".pgm")


def list_photos(folder: Path) -> list[str]:
    """Names of the photos in a folder and its subfolders, relative to it, sorted.

    Raises:
        InputError: no such folder, or no photo in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected photos")
    names = sorted(
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.suffix.lower() in PHOTOS and file.is_file()
    )
    if not names:
        raise InputError(f"{folder}: holds no photo, expected files of {', '.join(PHOTOS)}")
    return names


def read_photo(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, as the file has it: an orientation in EXIF turns nothing, as in COLMAP.

    Raises:
        InputError: it is no readable image.
    """
    bitmap = pycolmap.Bitmap.read(str(path), True) if Path(path).is_file() else None
    if bitmap is None:
        raise InputError(f"{path}: not a readable image")
    return np.ascontiguousarray(bitmap.to_array())


def shrink_photo(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize (h, w, 3) uint8 with antialiasing."""
    x = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)[None].float()
    x = torch.nn.functional.interpolate(x, (height, width), mode="bilinear", antialias=True)
    return np.ascontiguousarray(x[0].round().clamp(0, 255).byte().permute(1, 2, 0).numpy())


def file_hash(path: Path) -> str:
    """16 hexadecimal digits of the file's SHA-256.

    Raises:
        InputError: it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error


def exif_camera(path: Path) -> tuple[pycolmap.Camera, bool]:
    """COLMAP's guess of a photo's camera, and whether its EXIF tells the focal length.

    Raises:
        InputError: it is no readable image.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such image")
    try:
        camera = pycolmap.infer_camera_from_image(str(path))
    except Exception as error:  # pycolmap raises several types
        raise InputError(f"{path}: not a readable image") from error
    return camera, bool(camera.has_prior_focal_length)


def parse_camera(text: str, option: str = "--camera") -> pycolmap.Camera:
    """A camera such as ``"PINHOLE 1024 768 900 900 512 384"``, as hloc's query lists have it.

    Raises:
        InputError: it is none.
    """
    words = text.replace(",", " ").split()
    expected = "expected MODEL WIDTH HEIGHT PARAMS..., as in a query list"
    if len(words) < 4 or words[0] not in pycolmap.CameraModelId.__members__:
        raise InputError(f"{option} {text!r}: {expected}")
    try:
        width, height = int(words[1]), int(words[2])
        params = [float(word) for word in words[3:]]
    except ValueError:
        raise InputError(f"{option} {text!r}: {expected}") from None
    camera = pycolmap.Camera(model=words[0], width=width, height=height, params=params)
    if min(width, height) < 1 or not camera.verify_params() or not np.isfinite(params).all():
        raise InputError(f"{option} {text!r}: {expected}")
    return camera


def photo_groups(
    folder: Path, names: Iterable[str], camera: pycolmap.Camera | None = None
) -> list[tuple[list[str], pycolmap.Camera | None]]:
    """Photos that share a camera: those of one size and focal length in EXIF.

    Args:
        folder: of the photos.
        names: of the photos.
        camera: of all of them, where it is known.

    Returns:
        Names and camera of each group; None where nothing tells the focal length.

    Raises:
        InputError: a photo cannot be read, or has another size than ``camera``.
    """
    groups: dict[tuple[int, int, float | None], tuple[list[str], pycolmap.Camera | None]] = {}
    for name in names:
        guess, told = exif_camera(Path(folder) / name)
        if camera is not None:
            check_size(Path(folder) / name, guess, camera, "--camera")
            guess, told = camera, True
        focal = round(float(guess.mean_focal_length()), 1) if told else None
        key = (guess.width, guess.height, focal)
        groups.setdefault(key, ([], guess if told else None))[0].append(name)
    return list(groups.values())


def check_size(path: Path, photo: pycolmap.Camera, camera: pycolmap.Camera, whose: str) -> None:
    """Check that a photo has the size of its camera.

    Raises:
        InputError: it has another; the line names both.
    """
    if (photo.width, photo.height) != (camera.width, camera.height):
        raise InputError(
            f"{path}: a photo of {photo.width} x {photo.height} pixels, but {whose} has "
            f"{camera.width} x {camera.height}"
        )


def photo_queries(
    folder: Path,
    queries: Path | None = None,
    camera: str | None = None,
    guess: bool = False,
) -> list[tuple[str, pycolmap.Camera]]:
    """Names and cameras of photos to localize.

    Args:
        folder: of the photos.
        queries: hloc's query list, of the photos that are queries; all are by default.
        camera: see ``parse_camera``; of all photos. 'auto' takes COLMAP's guess of each, whose
            ``has_prior_focal_length`` says whether EXIF told the focal length.
        guess: take a guess of COLMAP's where nothing tells a focal length.

    Raises:
        InputError: no photo, one that the list names is missing or has another size than its
            camera, or nothing tells a focal length.
    """
    if camera == AUTO_CAMERA:
        names = list_photos(folder) if queries is None else read_names(queries)
        return [(name, exif_camera(folder / name)[0]) for name in names]
    if queries is not None and camera is not None:
        raise InputError("--camera: excludes --queries, which has intrinsics")
    if queries is not None:
        listed = read_queries(queries)
        for name, own in listed:
            check_size(folder / name, exif_camera(folder / name)[0], own, f"{queries}: its camera")
        return listed
    known = None if camera is None else parse_camera(camera)
    found = []
    for name in list_photos(folder):
        own, told = exif_camera(folder / name)
        if known is not None:
            check_size(folder / name, own, known, "--camera")
        elif guess:
            own.has_prior_focal_length = False  # whatever it tells is not believed
        elif not told:
            raise InputError(
                f"{folder / name}: its EXIF tells no focal length; pass --camera MODEL WIDTH "
                "HEIGHT PARAMS... of all photos, --queries LIST with the intrinsics of each, or "
                "--camera auto"
            )
        found.append((name, own if known is None else known))
    return found
