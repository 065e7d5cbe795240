"""What is compressed: an uncompressed map, and where the rest of its features are."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..codecs import Codec
from ..codecs.file import codec_hash
from ..scene.reference import Observations, ReferenceMap


@dataclass(frozen=True)
class SharedCodec:
    """A codec of a file of its own, which maps hold the hash of.

    Attributes:
        codec: in its longest codes.
        digest: ``codec_hash`` of it.
    """

    codec: Codec
    digest: str

    @staticmethod
    def of(codec: Codec) -> "SharedCodec":
        whole = codec.whole()
        return SharedCodec(whole, codec_hash(whole))


@dataclass(frozen=True)
class Source:
    """A map with what its files say of it.

    Attributes:
        reference: the map.
        observations: its descriptors.
        features: the local feature file, of which planning reads held-out images whole.
        global_descriptors: (I, Dg) float32 of the images, or None.
        shared: the codec that maps with ``CompressConf.shared`` refer to; None if there is none.
    """

    reference: ReferenceMap
    observations: Observations
    features: Path
    global_descriptors: np.ndarray | None = None
    shared: SharedCodec | None = None
