"""What is compressed: an uncompressed map, and where the rest of its features are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..scene.reference import Observations, ReferenceMap


@dataclass(frozen=True)
class Source:
    """A map with what its files say of it.

    Attributes:
        reference: the map.
        observations: its descriptors.
        features: the local feature file, of which planning reads held-out images whole.
        global_descriptors: (I, Dg) float32 of the images, or None.
    """

    reference: ReferenceMap
    observations: Observations
    features: Path
    global_descriptors: np.ndarray | None = None
