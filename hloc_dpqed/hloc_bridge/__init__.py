"""Let unmodified hloc read map files.

After ``install()``, and inside ``with installed():``, these accept a map file wherever they accept
a feature file or a COLMAP model, as ``Path`` or ``str``:

- ``hloc.match_features``: ``main`` and ``match_from_paths`` (``features_ref``);
- ``hloc.localize_sfm.main`` (``reference_sfm``);
- ``hloc.pairs_from_retrieval.main`` (``db_descriptors``, ``db_model``);
- ``hloc.pairs_from_covisibility.main`` and ``hloc.pairs_from_poses.main`` (``model``);
- ``hloc.visualization`` (``reconstruction``);
- ``hloc.utils.io``: ``get_keypoints`` and ``list_h5_names``.

Only attributes of hloc's modules are replaced; ``uninstall`` puts back what was there. Written
against hloc 1.5 (commit c13273b); tests/hloc_contract.py lists what is relied on.

``match_features.confs`` gains ``dpqed-NAME`` for each configuration NAME (the same matcher, with
a match file of another name) and ``dpqed-symmetric-NAME``, which quantizes the queries' descriptors
with the map's codec too. From a shell::

    python -m hloc_dpqed.hloc_bridge match_features --conf dpqed-NN-mutual --pairs PAIRS \
        --features QUERIES.h5 --features_ref MAP.dpqed --matches MATCHES.h5
"""

from ..matching.hloc_models import (
    hloc_matcher_confs,
    hloc_module,
    load_hloc_matcher,
    weights_of_user,
)
from .checks import check_matching
from .command_line import main
from .model import model_of_map
from .patches import MapPath, install, installed, uninstall

__all__ = [
    "MapPath",
    "check_matching",
    "hloc_matcher_confs",
    "hloc_module",
    "install",
    "installed",
    "load_hloc_matcher",
    "main",
    "model_of_map",
    "uninstall",
    "weights_of_user",
]
