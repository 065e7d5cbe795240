"""Encoding, decoding and scanning codes: ours against faiss and nanopq at the same code size.

    python benchmarks/throughput.py [--scene south-building] [--code_bytes 4] [--repetitions 5]

``pq``, ``opq`` and ``rq`` run with the same codebooks on all sides; ``drqed`` and ``dpqed`` have
the faiss codec of their kind beside them. Encoding: observations of the scene to codes. Decoding:
codes to descriptors, in one call (ours are normalised, the peers' are not). Scanning: keypoints of
a query against the codes of all observations. Ours is what ``--retrieval none`` does first, and
checks mutuality; the peers' are faiss's search for the nearest code and nanopq's tables of
distances, one way. Where there are more distinct codes than direct localization compares one by
one, it searches faiss's inverted file.
"""

import argparse
import time
from collections.abc import Callable
from types import SimpleNamespace

import faiss
import nanopq
import numpy as np
import torch
from common import SCENES, load_scene, print_table, spread

from hloc_dpqed.codecs import Codec, fit_codec
from hloc_dpqed.io.features import ImageFeatures
from hloc_dpqed.localization.localizer import Localizer
from hloc_dpqed.scene.reference import Observations
from hloc_dpqed.threads import set_num_threads

KIND = {"pq": "pq", "opq": "opq", "rq": "rq", "dpqed": "pq", "drqed": "rq"}  # of faiss


def quick_fit(name: str, observations: Observations, code_bytes: int) -> Codec:
    """A codec of the usual size, fitted in haste, which changes no time measured here."""
    if name in ("dpqed", "drqed"):
        return fit_codec(name, observations, code_bytes, steps=50)
    rows = np.arange(0, len(observations), 1 + len(observations) // 8192)
    points, index = np.unique(observations.point_index[rows], return_inverse=True)
    return fit_codec(name, observations.subset(rows, index, len(points)), code_bytes)


def faiss_index(codec: Codec) -> faiss.Index:
    """faiss's index of the codebooks of our ``pq``, ``opq`` or ``rq``."""
    if codec.name == "rq":
        index = faiss.IndexResidualQuantizer(
            codec.dim, codec.code_size, 8, faiss.METRIC_INNER_PRODUCT
        )
        # Searches by tables; as it is made it decodes every code for every query.
        index.rq.search_type = faiss.AdditiveQuantizer.ST_LUT_nonorm
        faiss.copy_array_to_vector(codec.codebooks.ravel(), index.rq.codebooks)
        index.rq.is_trained = True
        index.rq.compute_codebook_tables()
        index.is_trained = True
        return index
    index = faiss.IndexPQ(codec.dim, codec.code_size, 8)
    faiss.copy_array_to_vector(codec.centroids.ravel(), index.pq.centroids)
    index.is_trained = True
    if codec.name == "opq":
        rotation = faiss.OPQMatrix(codec.dim, codec.code_size)
        faiss.copy_array_to_vector(codec.rotation.ravel(), rotation.A)
        rotation.is_trained = rotation.is_orthonormal = True
        index = faiss.IndexPreTransform(rotation, index)
    return index


def scan_nanopq(quantizer, query: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Nearest code of each keypoint by asymmetric distances."""
    return np.array([quantizer.dtable(row).adist(codes).argmin() for row in query])


def localizer(codec: Codec, codes: np.ndarray) -> Localizer:
    """A localizer whose map is these codes and nothing else."""
    # Only what ``match_whole_map`` looks at.
    held = SimpleNamespace(
        codec=codec, codes=codes, num_points=len(codes), granularity="point", visibility=None
    )
    return Localizer(held)


def operations(
    codec: Codec, peer: Codec, rows: np.ndarray, query: ImageFeatures, many: int, encoded: int
) -> dict[str, tuple[float, str, dict[str, Callable[[], object]]]]:
    """What is timed: for each operation its size, its unit and the work of each side."""
    index = faiss_index(peer)
    codes, peer_codes = codec.encode(rows), peer.encode(rows)
    index.add(rows)
    some = np.ascontiguousarray(rows[:encoded])
    if codec is peer:
        same = (codes[:encoded] == index.sa_encode(some)).all(1).mean()
        assert same > 0.99, f"{codec.name}: {same:.3f} of faiss's codes are ours"
    tiled, peer_tiled = (np.resize(c, (many, c.shape[1])) for c in (codes, peer_codes))
    ours = localizer(codec, codes)
    encode = {"ours": lambda: codec.encode(some), "faiss": lambda: index.sa_encode(some)}
    decode = {
        "ours": lambda: codec.decode(tiled),
        "faiss": lambda: index.sa_decode(peer_tiled),
    }
    scan = {
        "ours": lambda: ours.match_whole_map(query),
        "faiss": lambda: index.search(query.descriptors, 1),
    }
    if codec.name in ("pq", "opq"):
        theirs = nanopq.faiss_to_nanopq(index)
        theirs = theirs[0] if isinstance(theirs, tuple) else theirs
        theirs.verbose = getattr(theirs, "pq", theirs).verbose = False
        encode["nanopq"] = lambda: theirs.encode(some)
        decode["nanopq"] = lambda: theirs.decode(tiled)
        scan["nanopq"] = lambda: scan_nanopq(theirs, query.descriptors, codes)
    pairs = len(query.descriptors) * len(codes)
    return {
        "encode": (len(some) / 1e3, "thousand/s", encode),
        "decode": (many / 1e6, "million/s", decode),
        "scan": (pairs / 1e6, "million pairs/s", scan),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scene", choices=SCENES, default="south-building")
    parser.add_argument("--codecs", nargs="+", choices=KIND, default=list(KIND))
    parser.add_argument("--code_bytes", type=int, default=4)
    parser.add_argument("--encoded", type=int, default=4096, help="descriptors to encode")
    parser.add_argument("--decoded", type=int, default=400_000, help="codes to decode in one call")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--cpu_time", action="store_true", help="for one thread on a machine with other work"
    )
    args = parser.parse_args()
    clock = time.process_time if args.cpu_time else time.perf_counter
    scene = load_scene(args.scene)
    threads = set_num_threads(args.threads)
    rows = scene.observations.descriptors.astype(np.float32)
    query = scene.queries[0].features
    kind = "CPU" if args.cpu_time else "wall"
    print(
        f"{threads} threads, {kind} time, torch {torch.__version__}, faiss {faiss.__version__}, "
        f"nanopq {nanopq.__version__}; {args.scene}, {args.code_bytes} bytes; {args.encoded} "
        f"descriptors encoded, {args.decoded} codes decoded, {len(query.descriptors)} keypoints "
        f"against {len(rows)} codes\n"
    )
    for name in args.codecs:
        table = []
        codec = quick_fit(name, scene.observations, args.code_bytes)
        kind = KIND[name]
        peer = codec if kind == name else quick_fit(kind, scene.observations, args.code_bytes)
        made = operations(codec, peer, rows, query, args.decoded, args.encoded)
        for operation, (size, unit, sides) in made.items():
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for repetition in range(args.repetitions + 1):  # the first warms up
                for side, work in sides.items():
                    start = clock()
                    work()
                    if repetition:
                        rates[side].append(size / (clock() - start))
            for side, peers in rates.items():
                ratio = [a / b for a, b in zip(rates["ours"], peers, strict=True)]
                label = side if kind == name or side == "ours" else f"{side} {kind}"
                told = "" if side == "ours" else spread(ratio, digits=2)
                table.append([name, operation, label, spread(peers, digits=2), unit, told])
        print_table(["codec", "", "", "median (range)", "unit", "ours / this"], table)


if __name__ == "__main__":
    main()
