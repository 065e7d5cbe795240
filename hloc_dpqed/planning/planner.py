"""Choose codec, code size, precision and number of points for a budget.

Whole database images are held out as pseudo-queries (``holdout``). Each candidate plan (``plans``)
is fitted on what is left, filled with as many points as the budget allows, and localizes the
pseudo-queries (``trials``); the plan with the lowest mean log translation error is used, as its
correct matches let expect it. The candidates are searched by hill-climbing: from a few plans that
are far apart to the neighbours of the best. The method is ours.
"""

from ..compression.conf import DEFAULT_WORK, CompressConf, NothingFits, Work
from ..compression.global_descriptors import global_code_bytes
from ..compression.source import Source
from ..errors import InputError
from ..io.features import open_features
from ..io.sizes import format_size
from .plans import START_SIZES, candidate_plans, neighbour_plans
from .pseudo_queries import (
    DEFAULT_MATCHER,
    MIN_IMAGES,
    TrialMatcher,
)
from .trials import Trials


def plan_compression(
    source: Source,
    budget: int,
    scope: str,
    conf: CompressConf,
    work: Work = DEFAULT_WORK,
    matcher: TrialMatcher = DEFAULT_MATCHER,
) -> CompressConf:
    """``conf`` with the codec, code size, precision and options of the best plan for ``budget``.

    A map too small to hold images out gets the first candidate plan.

    Where no plan fits, it is that of the smallest map, for ``Compressor.fit_budget`` to refuse.

    Raises:
        InputError: no plan is possible.
    """
    reference, observations = source.reference, source.observations
    described = source.global_descriptors
    if described is not None and scope == "total":  # trials do without them
        budget = max(budget - global_code_bytes(*described.shape)[1], 1)
    plans = candidate_plans(observations.dim, reference.num_points, budget, scope)
    if not plans:
        raise InputError(
            f"--budget {format_size(budget)}: nothing fits, the smallest possible map has "
            f"{START_SIZES[0]} bytes of codes (one point)"
        )
    best = plans[0]
    if reference.num_images >= MIN_IMAGES and len(plans) > 1:
        with open_features(source.features) as file:
            trials = Trials(
                reference,
                observations,
                conf,
                file.read,
                global_descriptors=described,
                work=work,
                matcher=matcher,
            )
            try:
                best = trials.search(plans, neighbour_plans, budget, scope)[0].plan
            except NothingFits as error:  # in a part of the map: let the whole one say what would
                return error.conf
    return best.conf(conf, budget)
