"""The names that arguments choose from, and their defaults, where nothing heavy is imported.

The command line reads them for ``--help`` and its checks; the registries themselves (codecs,
selectors, matchers) are compared with these lists by tests/test_startup.py.
"""

from typing import Any

CODECS = (
    "none", "dpqed", "drqed", "pq", "opq", "rq", "lsq", "prq", "pca", "sq8", "sign", "rabitq",
    "nested",
)  # fmt: skip
SHIPPED = "shipped"  # a codec file that comes with the package, see ``codecs.shipped``
CODE_TARGETS = ("mean", "sharpened")
CODEC_TRAIN = ("kept", "all")
BUDGET_SCOPES = ("total", "codes")
GRANULARITIES = ("point", "observation")
SELECTORS = (
    "all", "random", "track_length", "kcover", "probcover", "ilp", "qp", "triplet", "hybrid",
)  # fmt: skip
MATCHERS = (
    "NN-mutual", "NN-ratio", "NN-superpoint", "superglue", "superglue-fast",
    "superpoint+lightglue", "disk+lightglue", "aliked+lightglue", "superpoint+lightglue-fast",
    "disk+lightglue-fast", "aliked+lightglue-fast", "adalam", "xfeat+lighterglue",
)  # fmt: skip
TUNABLE = tuple(name for name in MATCHERS if "+lightglue" in name)  # codecs can be tuned for them
EXTRACTORS = ("sift", "aliked", "disk", "xfeat", "superpoint")  # that map and localize run
EXPORT_FORMATS = ("hloc", "colmap", "text")
POSE_ESTIMATORS = ("pycolmap", "poselib")
AUTO_CAMERA = "auto"
SECOND_CODES = 0.12  # share of a map's points that append may give one
FALLBACKS = ("none", "closest")
LEAST_INLIERS = 8  # of a pose that counts; see docs/reliability.md
DEFAULT_THRESHOLDS = "0.25/2,0.5/5,5/10"
OVERRIDE = "--allow_other_extractor"

# The paper's central experiment: at a fixed memory for codes, short codes for many points against
# long codes for few. Its optimum is published as 4 bytes a code.
PRESETS: dict[str, dict[str, tuple[Any, ...]]] = {
    "paper": {
        "codecs": ("pq", "dpqed", "drqed"),
        "code_bytes": (2, 4, 8, 16, 32),
        "selectors": ("random", "kcover", "qp", "hybrid"),
        "code_budgets": (2.0, 1.0, 0.5),
    }
}
DEMO_OUTPUT = "outputs/demo"
