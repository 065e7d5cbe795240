"""The report's pictures: small JPEG copies. Needs Pillow (the extra ``report``)."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError
from ..logger import logger
from .html import Picture

MAX_SIDE = 1024  # pixels
QUALITY = 80


def check_pillow() -> None:
    """Check that images can be read.

    Raises:
        InputError: Pillow is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise InputError(
            "--images needs Pillow: pip install 'hloc_dpqed[report]', or leave --images out"
        ) from error


def load_pictures(folder: Path, names: Sequence[str]) -> dict[str, Picture]:
    """The images ``names`` of ``folder``, made smaller; those that cannot be read are left out."""
    import PIL.Image

    pictures = {}
    for k, name in enumerate(names):
        path = folder / name
        data = io.BytesIO()
        try:
            with PIL.Image.open(path) as image:
                image.thumbnail((MAX_SIDE, MAX_SIDE))
                image.convert("RGB").save(data, "JPEG", quality=QUALITY)
        except (OSError, ValueError) as error:
            logger.warning(f"{path}: cannot be shown ({' '.join(str(error).split())[:200]})")
            continue
        uri = "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
        pictures[name] = Picture(f"picture-{k}", uri)
    return pictures
