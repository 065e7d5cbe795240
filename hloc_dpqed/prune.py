"""Make a smaller map file from a map file alone: fewer points, shorter codes."""

from pathlib import Path

from .choices import SELECTORS
from .compression.smaller import smaller_map
from .errors import InputError
from .io.atomic import check_output, write_bytes
from .io.sizes import format_size, parse_size
from .logger import logger
from .mapfile import read_map
from .maps.edit import shorten_codes
from .options import refuse_existing
from .threads import check_seed, set_num_threads, steady_products


@steady_products()
def main(
    map: Path,
    output: Path,
    budget: str | int | None = None,
    num_points: int | None = None,
    selector: str = "hybrid",
    code_bytes: int | None = None,
    codec_file: Path | None = None,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
) -> Path:
    """Write a smaller map; no model and no feature file is needed.

    Codes are shortened first, then points are selected.

    Args:
        map: map file.
        output: the map file to write; it may be ``map`` with ``overwrite``.
        budget: bytes of the whole file, such as ``300KB``; as many points are kept as fit.
        num_points: how many points to keep instead.
        selector: see ``compression.smaller.smaller_map``.
        code_bytes: keep the first bytes of each code, where the codec's codes have heads.
        codec_file: of a map without a codec of its own; see ``mapfile.read_map``.
        seed: of selectors that draw at random.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads: of the work.

    Returns:
        ``output``.

    Raises:
        InputError: the map is missing or damaged, an argument is impossible, nothing fits the
            budget, or ``output`` exists.
    """
    output = Path(output)
    refuse_existing(output, overwrite)
    if budget is None and num_points is None and code_bytes is None:
        raise InputError("expected --budget, --num_points or --code_bytes")
    if budget is not None and num_points is not None:
        raise InputError("--budget and --num_points exclude one another")
    if num_points is not None and num_points < 1:
        raise InputError(f"--num_points {num_points}: expected at least 1")
    if selector not in SELECTORS:
        raise InputError(f"--selector {selector}: unknown, expected one of {', '.join(SELECTORS)}")
    size = None if budget is None else parse_size(budget)
    check_seed(seed)
    check_output(output)
    set_num_threads(threads)
    compressed = read_map(map, codec_file)
    if code_bytes is not None:
        compressed = shorten_codes(compressed, code_bytes)
    smaller, data = smaller_map(compressed, selector, num_points=num_points, budget=size, seed=seed)
    write_bytes(output, data)
    logger.info(
        f"Wrote {output}: {format_size(len(data))}, {smaller.num_images} images and "
        f"{smaller.num_places} points"
    )
    return output
