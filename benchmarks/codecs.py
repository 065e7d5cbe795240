"""All codecs side by side in one run: bytes, correct matches, precision, poses, times.

    python benchmarks/codecs.py                            the default table
    python benchmarks/codecs.py --specs drqed:4 rq:4 pq:2:bits=4
    python benchmarks/codecs.py --queries pseudo           held-out database images
    python benchmarks/codecs.py --specs shipped:4          the codec that comes with the package

A codec is written ``name:code bytes[:option=value ...]``, where ``code_targets=mean`` or
``sharpened`` is an option of each. One code a point, all points kept, mutual nearest neighbours,
RANSAC threshold 4 px. Pseudo-queries are one spatially spread fold of the database images
(``--fold``), whose observations the map then lacks. Each cell is written to ``--output`` as it is
measured; a second run measures only what is missing there.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import (
    DATA,
    SCENES,
    PosedQuery,
    Scene,
    bootstrap,
    load_scene,
    measure,
    parse_spec,
    print_table,
    shipped_with,
)

from hloc_dpqed.choices import SHIPPED
from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.file import codec_hash
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.io.atomic import write_text
from hloc_dpqed.io.features import FeatureFile, read_global_descriptors
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.scene.reference import Observations, ReferenceMap
from hloc_dpqed.scene.spatial import spread_folds
from hloc_dpqed.threads import get_num_threads, set_num_threads
from hloc_dpqed.training.sharpen import with_sharpened_targets

SPECS = [
    "none:0",
    "sq8:0",
    "sign:0",
    "rabitq:0",
    "pca:8",
    *(f"{name}:1" for name in ("rq", "drqed")),
    *(f"{name}:2" for name in ("pq", "opq", "rq", "lsq", "prq", "dpqed", "drqed")),
    *(f"{name}:4" for name in ("pq", "opq", "rq", "lsq", "prq", "dpqed", "drqed")),
    "pq:4:bits=4",
    "pq:4:entries=int8",
    "rq:4:entries=int8",
    "drqed:4:codec_budget_bytes=64000",
    "drqed:4:codec_budget_bytes=16000",
    *(f"{name}:8" for name in ("pq", "rq", "dpqed", "drqed")),
]
FOLDS = {"fountain-P11": 7, "castle-P30": 5, "south-building": 6, "south-building/xfeat": 6}
RECALL = {"fountain-P11": (0.02, 0.1), "castle-P30": (0.02, 0.1)}  # else 0.01 units, 0.1 degrees


def problem(
    scene: Scene, queries: str, fold: int
) -> tuple[ReferenceMap, Observations, list[PosedQuery]]:
    """The map to compress and its queries: the listed ones, or one fold of held-out images."""
    if queries == "listed":
        return scene.reference, scene.observations, scene.queries
    described = read_global_descriptors(
        scene.folder / "global-feats-vlad.h5", scene.reference.image_names
    )
    folds = spread_folds(scene.reference.cam_from_world, FOLDS[scene.name])
    with FeatureFile(scene.features) as file:
        split = hold_out(
            scene.reference,
            scene.observations,
            np.flatnonzero(folds == fold),
            read_features=file.read,
            global_descriptors=described,
            num_retrieved=len(scene.queries[0].retrieved or []),
        )
    posed = [
        PosedQuery(q.name, q.camera, q.features, q.retrieved, q.cam_from_world)
        for q in split.queries
        if q.features is not None
    ]
    return split.reference, split.observations, posed


def run_cell(
    reference: ReferenceMap,
    observations: Observations,
    queries: list[PosedQuery],
    spec: str,
    seed: int,
    ransac_seeds: int,
    features: Path,
) -> dict[str, Any]:
    """Fit, encode, write, read and localize with one codec."""
    name, size, options = parse_spec(spec)
    given = None
    if name == SHIPPED:
        given = shipped_with(features).codec.head(size)
        name = given.name
    conf = CompressConf(
        "all", name, size or 4, "point", seed, code_targets=options.pop("code_targets", None)
    )
    start, cpu = time.perf_counter(), time.process_time()
    if conf.sharpens and given is None:  # the codec that comes along has its own way
        observations = with_sharpened_targets(observations, seed)
    codec = given or fit_codec(name, observations, size, seed=seed, **options)
    fit, fit_cpu = time.perf_counter() - start, time.process_time() - cpu
    start = time.perf_counter()
    codes = codec.encode_points(observations)
    encode = time.perf_counter() - start
    many = np.resize(codes, (max(len(codes), 50_000), codes.shape[1]))
    start = time.perf_counter()
    codec.decode(many)
    decode = time.perf_counter() - start
    shared = None if given is None else codec_hash(given.whole())
    compressor = Compressor(reference, observations, conf, codec=codec, codec_hash=shared)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        write_map(path, compressor.compress(reference.num_points))
        info = map_info(path)
        found = measure(read_map(path), queries, ransac_seeds)
    return {
        "total_bytes": info["total_bytes"],
        "codec_bytes": info["codec_bytes"],
        "code_bytes": codec.code_size,
        "points": len(codes),
        "distinct_codes": info["distinct_codes"],
        "fit_seconds": fit,
        "fit_cpu_seconds": fit_cpu,
        "encode_seconds": encode,
        "decode_per_second": len(many) / decode,
        "correct": found.correct.tolist(),
        "precision": found.precision.tolist(),
        "errors": found.errors.tolist(),
    }


def table_row(spec: str, cells: list[dict], scene: str, float_cell: dict) -> list[str]:
    """One line; intervals are the bootstrap's, over queries paired with float."""
    correct = np.mean([cell["correct"] for cell in cells], axis=0)
    precision = np.mean([cell["precision"] for cell in cells], axis=0)
    float_correct = np.array(float_cell["correct"])
    float_precision = np.array(float_cell["precision"])
    errors = np.concatenate([np.array(cell["errors"]) for cell in cells], axis=1)
    translation, rotation = RECALL.get(scene, (0.01, 0.1))
    recall = np.mean((errors[..., 0] < translation) & (errors[..., 1] < rotation))
    medians = np.median(np.median(errors, axis=1), axis=0)
    low, high = bootstrap(correct - float_correct)
    worst, best = bootstrap((precision - float_precision) / np.mean(float_precision))

    def mean(key: str) -> float:
        return float(np.mean([cell[key] for cell in cells]))

    share = 100 * correct.mean() / float_correct.mean()
    return [
        spec,
        f"{mean('total_bytes') / 1000:.0f}",
        f"{mean('codec_bytes') / 1000:.1f}",
        f"{mean('code_bytes'):.0f}",
        f"{correct.mean():.0f}",
        f"{share:.0f}",
        f"{low:+.0f} .. {high:+.0f}",
        f"{precision.mean():.3f}",
        f"{100 * worst:+.1f} .. {100 * best:+.1f}",
        f"{mean('distinct_codes'):.0f}",
        f"{medians[0]:.4f} / {medians[1]:.3f}",
        f"{recall:.2f}",
        f"{mean('fit_seconds'):.0f} / {mean('fit_cpu_seconds'):.0f}",
        f"{mean('encode_seconds'):.1f}",
        f"{mean('decode_per_second') / 1e6:.2f}",
    ]


HEADER = [
    "codec",
    "file KB",
    "codec KB",
    "code B",
    "correct",
    "% of float",
    "minus float, 95 %",
    "precision",
    "% of float's, 95 %",
    "distinct",
    "median units / deg",
    "recall",
    "fit s wall / CPU",
    "encode s",
    "decode M/s",
]


def cells_of(args: argparse.Namespace, name: str, specs: list[str]) -> dict[str, list[dict]]:
    """Measured cells by codec, from ``--output`` where they are there."""
    loaded = None
    cells: dict[str, list[dict]] = {}
    which = args.queries if args.queries == "listed" else f"fold{args.fold}"
    folder, _, features, _ = SCENES[name]
    for spec in specs:
        # The newest codec that comes along is another one tomorrow.
        known = shipped_with(DATA / folder / features).digest[:8] if SHIPPED in spec else ""
        for seed in range(1 if parse_spec(spec)[0] in ("none", "sq8", "sign") else args.seeds):
            file = f"{name}_{which}_{spec}{known}_{seed}_{args.ransac_seeds}.json".replace("/", "-")
            path = args.output / file.replace(":", "_")
            if not path.is_file():
                loaded = loaded or problem(load_scene(name), args.queries, args.fold)
                cell = run_cell(*loaded, spec, seed, args.ransac_seeds, DATA / folder / features)
                write_text(path, json.dumps(cell))
            cells.setdefault(spec, []).append(json.loads(path.read_text()))
    return cells


def arguments(description: str, queries: str) -> argparse.ArgumentParser:
    """The arguments that this benchmark and the ablation share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--queries", choices=("listed", "pseudo"), default=queries)
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--ransac_seeds", type=int, default=10)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, default=Path("outputs/codecs"))
    return parser


def main() -> None:
    parser = arguments(__doc__.splitlines()[0], "listed")
    parser.add_argument("--specs", nargs="+", default=SPECS)
    args = parser.parse_args()
    set_num_threads(args.threads)
    print(f"{get_num_threads()} threads, {args.seeds} seeds of each codec, {args.queries} queries")
    shares: dict[str, list[float]] = {}
    for name in args.scenes:
        cells = cells_of(args, name, ["none:0", *(s for s in args.specs if s != "none:0")])
        plain = cells["none:0"][0]
        print(f"\n### {name}\n")
        print_table(HEADER, [table_row(s, c, name, plain) for s, c in cells.items()])
        for spec, own in cells.items():
            share = np.mean([cell["correct"] for cell in own]) / np.mean(plain["correct"])
            shares.setdefault(spec, []).append(100 * float(share))
    print("\n### All scenes: % of float's correct matches\n")
    rows = [[s, f"{np.mean(v):.0f}", f"{min(v):.0f}"] for s, v in shares.items()]
    print_table(["codec", "mean", "lowest"], rows)


if __name__ == "__main__":
    main()
