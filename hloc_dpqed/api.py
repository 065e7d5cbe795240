"""What a script needs first: a map that loads and localizes itself."""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pycolmap

from .errors import InputError
from .io.features import ImageFeatures
from .localization.localizer import Localization, Localizer, Query
from .mapfile import read_map
from .maps import compressed


class CompressedMap(compressed.CompressedMap):
    """``maps.compressed.CompressedMap`` with what lies above a data class: reading, localizing."""

    @staticmethod
    def load(path: Path | str, codec_file: Path | str | None = None) -> "CompressedMap":
        """Read a map file; see ``mapfile.read_map``."""
        return CompressedMap.of(
            read_map(Path(path), None if codec_file is None else Path(codec_file))
        )

    @staticmethod
    def of(plain: compressed.CompressedMap) -> "CompressedMap":
        """A map that was made or read elsewhere, its arrays shared."""
        return CompressedMap(**{f.name: getattr(plain, f.name) for f in fields(plain)})

    def localize(
        self,
        features: ImageFeatures,
        camera: pycolmap.Camera,
        retrieved: Sequence[str | int] | None = None,
        name: str = "query",
        **options: Any,
    ) -> Localization:
        """Localize one query; a ``Localizer`` decodes the map once for many.

        Args:
            features: of the query, as ``io.features.open_features(path).read`` gives them.
            camera: intrinsics of the query.
            retrieved: names or rows of the database images to match with, best first; None
                matches with the whole map.
            name: of the query; with ``seed`` among the options it seeds RANSAC.
            options: of ``Localizer``.

        Raises:
            InputError: an image is not in the map, or features of another dimension.
        """
        rows = None
        if retrieved is not None:
            row_of = {image: row for row, image in enumerate(self.image_names)}
            unknown = [r for r in retrieved if isinstance(r, str) and r not in row_of]
            if unknown:
                raise InputError(f"image {unknown[0]!r} is not in the map")
            rows = [row_of[r] if isinstance(r, str) else int(r) for r in retrieved]
        return Localizer(self, **options).localize(Query(name, camera, features, rows))


def load(path: Path | str, codec_file: Path | str | None = None) -> CompressedMap:
    """Read a map file; see ``mapfile.read_map``."""
    return CompressedMap.load(path, codec_file)
