"""Fit the nested codec that ships for an extractor, on tracks of `photo_tracks.py`.

    python tools/train_codec.py --tracks TRACKS --output superpoint.safetensors

The same tracks, arguments and seed give the same bytes on one machine. The options are those of
``NestedCodec.fit``, as for ``hloc-dpqed fit-codec``; with ``--start NAME`` those of
``NestedCodec.refitted``, which grows a codec that ships already on more tracks.
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.file import codec_hash, codec_to_bytes
from hloc_dpqed.codecs.shipped import SIMILARITY, mean_similarity, shipped_codec
from hloc_dpqed.io.atomic import write_bytes
from hloc_dpqed.options import parse_options
from hloc_dpqed.scene.reference import Observations
from hloc_dpqed.threads import set_num_threads


def read_tracks(folders: list[Path], longest: int, progress: bool = True) -> Observations:
    """All tracks of some folders as the observations of one map.

    Args:
        folders: that `photo_tracks.py` wrote.
        longest: observations of a track at most, the first.
    """
    descriptors, points, images = [], [], []
    num_points = num_images = 0
    paths = [path for folder in folders for path in sorted(folder.glob("*.npz"))]
    for path in tqdm(paths, desc="read", disable=not progress):
        with np.load(path) as file:
            part = {key: file[key] for key in ("descriptors", "points", "images")}
        if len(part["points"]) == 0:
            continue
        order = np.argsort(part["points"], kind="stable")
        sorted_points = part["points"][order]
        rank = np.arange(len(order)) - np.searchsorted(sorted_points, sorted_points)
        keep = np.sort(order[rank < longest])
        descriptors.append(part["descriptors"][keep])
        points.append(part["points"][keep].astype(np.int32) + num_points)
        images.append(part["images"][keep].astype(np.int32) + num_images)
        num_points = int(points[-1].max()) + 1
        num_images = int(images[-1].max()) + 1
    joined = np.concatenate(descriptors)
    return Observations(
        joined,
        np.ones(len(joined), np.float32),
        np.zeros((len(joined), 2), np.float32),
        np.concatenate(points),
        np.concatenate(images),
        num_points,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=Path, nargs="+", required=True, help="folders")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", help="grow from the shipped codec of this name")
    parser.add_argument("--bits", type=int, nargs="+", default=[13, 12, 12, 12, 12, 3])
    parser.add_argument("--longest", type=int, default=8, help="observations of a track at most")
    parser.add_argument("--codec_options", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    set_num_threads(1)
    observations = read_tracks(args.tracks, args.longest)
    print(f"{observations.num_points} tracks, {len(observations)} observations")
    options = {"bits": args.bits, **parse_options(args.codec_options, "--codec_options")}
    size = sum(args.bits) // 8
    fitting = {"seed": args.seed, "progress": True}
    if args.start is None:
        codec = fit_codec("nested", observations, size, **fitting, **options)
    else:
        codec = shipped_codec(args.start).refitted(observations, **fitting, **options)
    some = np.random.default_rng(args.seed).integers(len(observations), size=4096)
    made = {
        SIMILARITY: round(mean_similarity(codec, observations.descriptors[some]), 4),
        "options": options | ({} if args.start is None else {"start": args.start}),
        "seed": args.seed,
        "tracks": observations.num_points,
        "observations": len(observations),
    }
    data = codec_to_bytes(codec, made)
    write_bytes(args.output, data)
    print(f"{args.output}: {len(data)} bytes, {codec_hash(codec)}")


if __name__ == "__main__":
    main()
