"""hloc's LightGlue with weights from a file or an installed package: nothing is downloaded."""

import contextlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path

from hloc_dpqed import hloc_bridge
from hloc_dpqed.matching.learned import published_weights


@contextlib.contextmanager
def lightglue_of_hloc(matcher: str, weights: Path | None = None) -> Iterator[None]:
    """Within the block, hloc's LightGlue of ``matcher`` has the published weights.

    LightGlue's package imports torchvision for its extractors, which are not used here: without
    torchvision empty modules stand in for it.
    """
    network = matcher.removesuffix("-fast")
    if not network.endswith("+lightglue"):
        yield
        return
    # A stand-in of an earlier call is a module without a spec, which find_spec refuses.
    if "torchvision" not in sys.modules and importlib.util.find_spec("torchvision") is None:
        names = ("torchvision", "torchvision.models", "torchvision.models.resnet")
        sys.modules |= {name: types.ModuleType(name) for name in names}
        sys.modules["torchvision"].models = sys.modules["torchvision.models"]
        sys.modules["torchvision.models"].resnet = sys.modules["torchvision.models.resnet"]
    weights = weights or published_weights(network.split("+")[0])
    with hloc_bridge.weights_of_user("lightglue", weights):
        yield
