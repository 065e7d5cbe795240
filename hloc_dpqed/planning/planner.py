"""Choose codec, code size, precision and number of points for a budget.

Whole database images are held out as pseudo-queries (``holdout``). Each candidate plan (``plans``)
is fitted on what is left, filled with as many points as the budget allows, and localizes the
pseudo-queries (``trials``); the plan with the lowest mean log translation error is used, as its
correct matches let expect it. The candidates are searched by hill-climbing: from a few plans that
are far apart to the neighbours of the best. The codec that comes with the package for the map's
extractor is searched first and by itself: what fitted ones are tried does not depend on it. The
method is ours.
"""

from ..compression.conf import DEFAULT_WORK, CompressConf, NothingFits, Work
from ..compression.global_descriptors import global_code_bytes
from ..compression.source import Source
from ..errors import InputError
from ..io.features import open_features
from ..io.sizes import format_size
from .plans import START_SIZES, Plan, candidate_plans, neighbour_plans, shared_plans
from .pseudo_queries import (
    DEFAULT_MATCHER,
    MIN_IMAGES,
    TrialMatcher,
)
from .trials import Outcome, Trials, best_first, least_refused


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

    With ``conf.shared`` the plan is one of ``source.shared``; otherwise that is one more codec to
    try, where there is one. Where no plan fits, it is that of the smallest map, for
    ``Compressor.fit_budget`` to refuse.

    Raises:
        InputError: no plan is possible.
    """
    reference, observations = source.reference, source.observations
    described = source.global_descriptors
    if described is not None and scope == "total":  # trials do without them
        budget = max(budget - global_code_bytes(*described.shape)[1], 1)
    fitted: list[Plan] = []
    shared: list[Plan] = []
    if not conf.shared:
        fitted = candidate_plans(observations.dim, reference.num_points, budget, scope)
    # Where codes alone count, a codec that is fitted costs nothing and describes the map better.
    if source.shared is not None and (conf.shared or scope == "total"):
        shared = shared_plans(source.shared.codec, reference.num_points, budget, scope)
    plans = [*fitted, *shared]
    if not plans:
        raise InputError(
            f"--budget {format_size(budget)}: nothing fits, the smallest possible map has "
            f"{START_SIZES[0]} bytes of codes (one point)"
        )
    best = plans[0]
    if reference.num_images >= MIN_IMAGES and (len(plans) > 1 or scope == "total"):
        with open_features(source.features) as file:
            trials = Trials(
                reference,
                observations,
                conf,
                file.read,
                global_descriptors=described,
                work=work,
                matcher=matcher,
                shared=source.shared,
            )
            try:
                best = _search(trials, [shared, fitted], budget, scope)
            except NothingFits as error:  # in a part of the map: let the whole one say what would
                return error.conf
    return best.conf(conf, budget)


def _search(trials: Trials, families: list[list[Plan]], budget: int, scope: str) -> Plan:
    """The best plan of families that are searched one after the other.

    Raises:
        NothingFits, InputError: as of ``Trials.search``, of all families.
    """
    outcomes: list[Outcome] = []
    refused: list[InputError] = []
    for start in filter(None, families):
        try:
            outcomes += trials.search(start, neighbour_plans, budget, scope)
        except InputError as error:
            refused.append(error)
    if not outcomes:
        raise least_refused(refused)
    return best_first(outcomes, budget)[0].plan
