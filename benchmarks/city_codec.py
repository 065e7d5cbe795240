"""Sharpening, fitting and encoding all points of a city-sized map: time and peak memory.

    python benchmarks/city_codec.py --scale 1 [--code_bytes 4] [--threads 2]
    python benchmarks/city_codec.py --scale 1 --codec shipped

The synthetic city of ``city_files.py`` at ``--scale`` times Aachen's size (685,000 points, 2.7
million observations, 256 dimensions), in memory. Peak memory is that of the whole process, with
the observations' descriptors (1.4 GB at scale 1). Needs the shared scenes, for the descriptors.
"""

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
from city_files import TrackSampler, real_tracks
from common import SCENES, load_scene, print_table
from synthetic_city import scaled_city

from hloc_dpqed.choices import SHIPPED
from hloc_dpqed.codecs import fit_codec
from hloc_dpqed.codecs.shipped import shipped_codec
from hloc_dpqed.threads import set_num_threads
from hloc_dpqed.training.sharpen import with_sharpened_targets

CHUNK = 1 << 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=0.05)
    parser.add_argument("--codec", default="drqed")
    parser.add_argument("--code_bytes", type=int, default=4)
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    set_num_threads(args.threads)
    scenes = [name for name in SCENES if "/" not in name]  # SuperPoint's
    real = real_tracks([load_scene(name).observations for name in scenes])
    _, observations = scaled_city(args.scale)
    sampler = TrackSampler(real, observations.num_points)
    described = np.empty((len(observations), real.dim), np.float16)
    rng = np.random.default_rng(0)
    for start in range(0, len(observations), CHUNK):
        points = observations.point_index[start : start + CHUNK]
        described[start : start + CHUNK] = sampler.sample(points, rng)
    observations = replace(observations, descriptors=described)
    rows = []

    def stage(name: str, work):
        wall, cpu = time.perf_counter(), time.process_time()
        made = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        rows.append([name, f"{wall:.0f}", f"{cpu:.0f}", f"{peak:.2f}"])
        return made

    if args.codec == SHIPPED:
        codec = shipped_codec("superpoint").head(args.code_bytes)
        targets = stage("sharpen", lambda: codec.sharpened(observations, progress=True))
        encoder = codec.point_encoder(replace(observations, targets=targets))
        everything = np.arange(observations.num_points)
        stage("nearest codes", lambda: encoder.nearest(everything))
        stage("choose among them", lambda: encoder(everything))
    else:
        aimed = stage("sharpen", lambda: with_sharpened_targets(observations, progress=True))
        codec = stage("fit", lambda: fit_codec(args.codec, aimed, args.code_bytes, progress=True))
        stage("encode", lambda: codec.encode_points(aimed))
    print(f"{observations.num_points} points, {len(observations)} observations, {real.dim} dims")
    print_table(["stage", "wall s", "CPU s", "peak GB"], rows)


if __name__ == "__main__":
    main()
