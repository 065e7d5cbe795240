"""Fit one codec on the observations of several maps and store it in a file of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import __version__
from .codecs import fit_codec, sharpens
from .codecs.file import codec_hash, codec_to_bytes
from .errors import InputError
from .io.atomic import check_output, write_bytes
from .io.features import descriptor_dimension
from .io.model import read_observations, read_reference
from .logger import logger
from .options import check_code_bytes, check_codec_options
from .scene.reference import Observations
from .threads import check_device, check_seed, set_num_threads, steady_products
from .training.checkpoint import fit_folder
from .training.sharpen import with_sharpened_targets


@steady_products()
def main(
    reference_sfm: Sequence[Path],
    features: Sequence[Path],
    output: Path,
    codec: str = "drqed",
    code_bytes: int = 4,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
    device: str = "cpu",
    progress: bool = True,
    codec_options: dict[str, Any] | None = None,
    code_targets: str | None = None,
) -> Path:
    """Write a codec file fitted on one map or several.

    Args:
        reference_sfm: folders of COLMAP models.
        features: hloc's local feature file of each model or its COLMAP database, or one for all.
        output: the codec file.
        codec, code_bytes, seed, codec_options: see ``Codec.fit``.
        code_targets: see ``CompressConf``; each map's points are sharpened among themselves.
        overwrite: replace ``output``; otherwise an existing file is an error.
        threads, device, progress: of the work.

    Returns:
        ``output``.

    Raises:
        InputError: an input is missing or wrong, or ``output`` exists.
    """
    output = Path(output)
    if output.exists() and not overwrite:
        raise InputError(f"{output}: exists already, pass --overwrite to replace it")
    models = list(reference_sfm)
    files = list(features)
    if len(files) == 1:
        files *= len(models)
    if not models or len(files) != len(models):
        raise InputError(
            f"{len(models)} models and {len(features)} feature files: expected one feature file "
            "for all models or one for each"
        )
    sharpened = sharpens(codec, code_targets)
    check_code_bytes(codec, code_bytes)
    check_codec_options(codec, codec_options or {})
    check_output(output)
    check_device(device)
    check_seed(seed)
    set_num_threads(threads)
    for file in files:
        if Path(file).is_file():
            dim = descriptor_dimension(file)
            check_code_bytes(codec, code_bytes, dim, codec_options)
    parts = [
        read_observations(read_reference(model), file, progress)
        for model, file in zip(models, files, strict=True)
    ]
    if sharpened:
        parts = [with_sharpened_targets(part, seed, progress) for part in parts]
    with fit_folder(output) as resume:
        fitted = fit_codec(
            codec,
            join_observations(parts),
            code_bytes,
            seed=seed,
            device=device,
            progress=progress,
            resume=resume,
            **(codec_options or {}),
        )
        made = {
            "version": __version__,
            "seed": seed,
            "options": codec_options or {},
            "code_targets": "sharpened" if sharpened else "mean",
            "observations": [len(part) for part in parts],
        }
        write_bytes(output, codec_to_bytes(fitted, made))
    logger.info(f"Wrote {output}: {codec} of {fitted.code_size} bytes, {codec_hash(fitted)}")
    return output


def join_observations(parts: Sequence[Observations]) -> Observations:
    """Observations of several maps as those of one, whose points and images are all distinct.

    Raises:
        InputError: the descriptors differ in dimension.
    """
    dims = sorted({part.dim for part in parts})
    if len(dims) != 1:
        raise InputError(f"descriptors of {dims} dimensions: one codec needs one dimension")
    targets = [part.targets for part in parts if part.targets is not None]
    points = np.cumsum([0, *(part.num_points for part in parts)])
    images = np.cumsum([0, *(int(part.image_index.max(initial=-1)) + 1 for part in parts)])
    return Observations(
        np.concatenate([part.descriptors for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.keypoints for part in parts]),
        np.concatenate([p.point_index + np.int32(n) for p, n in zip(parts, points, strict=False)]),
        np.concatenate([p.image_index + np.int32(n) for p, n in zip(parts, images, strict=False)]),
        int(points[-1]),
        np.concatenate(targets) if len(targets) == len(parts) else None,
    )
