"""Extended CMU Seasons: hloc's pipeline, localizing with compressed maps, one for each slice."""

import argparse
import ast
import sys
from pathlib import Path

from hloc_dpqed.errors import InputError
from hloc_dpqed.io.atomic import write_text

from ..common import (
    add_compression_arguments,
    add_pairs_arguments,
    compress_map,
    localize_queries,
    make_parser,
    map_database,
    require_files,
    require_hloc,
    results_label,
    retrieve_pairs,
    run_script,
)

LAYOUT = [
    "intrinsics.txt",
    "{slice}/database",
    "{slice}/query",
    "{slice}/sparse/images.bin",
    "{slice}/test-images-{slice}.txt",
]


def parse_slices(text: str, every: list[int]) -> list[int]:
    """``*``, a number, an interval such as ``2-6``, or a list such as ``[2, 3, 4]``.

    Raises:
        InputError: something else.
    """
    try:
        if text == "*":
            return every
        if "-" in text:
            first, last = (int(part) for part in text.split("-"))
            slices = list(range(first, last + 1))
        else:
            value = ast.literal_eval(text)
            slices = list(value) if isinstance(value, list | tuple) else [value]
        if not slices or not all(isinstance(number, int) for number in slices):
            raise ValueError
    except (ValueError, SyntaxError) as error:
        raise InputError(f"--slices {text}: expected *, 2, 2-6 or [2, 3, 4]") from error
    return slices


def run_slice(args: argparse.Namespace, slice_: str) -> Path:
    """Map one slice with hloc, compress, localize; the slice's results."""
    extract_features, upstream = require_hloc("extract_features", "pipelines.CMU.pipeline")
    dataset, outputs = args.dataset / slice_, args.outputs / slice_
    ref_images, query_images = dataset / "database", dataset / "query"

    outputs.mkdir(exist_ok=True, parents=True)
    query_list = outputs / "queries_with_intrinsics.txt"
    results = outputs / f"CMU_dpqed_netvlad{args.num_loc}_{results_label(args)}.txt"

    ref_sfm, features = map_database(args, ref_images, dataset / "sparse", outputs, as_half=True)
    upstream.generate_query_list(args.dataset, query_list, slice_)
    folders = [ref_images, query_images]
    loc_pairs = retrieve_pairs(args, folders, ref_sfm, outputs, query_list=query_list)
    compressed = compress_map(args, ref_sfm, features, outputs)

    feature_conf = extract_features.confs["superpoint_aachen"]
    features = extract_features.main(feature_conf, query_images, outputs, as_half=True)
    localize_queries(args, compressed, query_list, loc_pairs, features, results)
    return results


def run(args: argparse.Namespace) -> Path:
    """Every slice asked for; one file with the results of all, as the benchmark takes them."""
    require_files(args.dataset, ["intrinsics.txt"])
    (upstream,) = require_hloc("pipelines.CMU.pipeline")
    slices = [f"slice{number}" for number in parse_slices(args.slices, upstream.TEST_SLICES)]
    for slice_ in slices:
        require_files(args.dataset, [name.format(slice=slice_) for name in LAYOUT])
    results = [run_slice(args, slice_) for slice_ in slices]
    joined = args.outputs / results[0].name
    write_text(joined, "".join(path.read_text() for path in results))
    return joined


def build_parser() -> argparse.ArgumentParser:
    """hloc's arguments, and those of the compression."""
    parser = make_parser("Extended CMU Seasons", "datasets/cmu_extended", "outputs/cmu_extended")
    parser.add_argument(
        "--slices", default="*", help="a number, an interval (2-6) or a list, default: all of test"
    )
    add_pairs_arguments(parser, num_covis=20, num_loc=10)
    add_compression_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(run_script(run, build_parser().parse_args()))
