"""Hard queries: codecs, selectors and whole files where recall is not saturated.

    python benchmarks/hard_scenes.py                    makes the scenes and the hard photos
    python benchmarks/hard.py codecs                    float, pq, dpqed, drqed; all points
    python benchmarks/hard.py codecs --extractor aliked --matchers NN-mutual aliked+lightglue
    python benchmarks/hard.py files                     whole files at 1/100 of hloc's inputs
    python benchmarks/hard.py selectors                 8 selectors at 30, 10, 3 and 1 %
    python benchmarks/hard.py selectors --queries pseudo    to choose hybrid's defaults

The queries are a scene's own (``clean``) and the hard photos made from them; of sacre-coeur each
of the ten photos against the map of the nine others. Pseudo-queries are database images that are
held out, and the hard photos made from them. RANSAC threshold 4 px; recall is the share of runs
within 0.05 map units and 1 degree. Intervals are the bootstrap's, paired: hard photos of one photo
are drawn together, since they share its view. Each cell is written to ``--output`` as it is
measured; a second run measures only what is missing there. Where another codec comes along since,
``--output`` must be a new folder. ``--markdown`` writes the tables to a
file.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path, PurePosixPath

import numpy as np
from common import DATA, SCENES, Measures, load_scene, measure, print_table
from hard_recipes import RECIPES
from hard_scenes import CHURCH, EXTRACTORS, HARD, HARDENED, hard_name, read_church
from selection import DRAWS, METHODS, Part

from hloc_dpqed.choices import SHIPPED
from hloc_dpqed.codecs import Codec
from hloc_dpqed.codecs.file import codec_hash, codec_to_bytes, read_codec
from hloc_dpqed.codecs.shipped import shipped_codec, shipped_codecs
from hloc_dpqed.compression.conf import CompressConf
from hloc_dpqed.compression.engine import Compressor
from hloc_dpqed.compression.source import SharedCodec, Source
from hloc_dpqed.evaluation.measures import PosedQuery
from hloc_dpqed.evaluation.posed_queries import read_posed_queries
from hloc_dpqed.io.atomic import write_bytes, write_text
from hloc_dpqed.io.features import FeatureFile, feature_kind, read_global_descriptors
from hloc_dpqed.io.model import read_observations, read_reference
from hloc_dpqed.localization import Localizer
from hloc_dpqed.mapfile import map_info, read_map, write_map
from hloc_dpqed.maps.same_features import extractor_name
from hloc_dpqed.planning.holdout import hold_out
from hloc_dpqed.planning.planner import plan_compression
from hloc_dpqed.scene.reference import Observations, ReferenceMap, mean_scores
from hloc_dpqed.scene.spatial import spread_folds
from hloc_dpqed.selection import select_points
from hloc_dpqed.selection.base import SelectionProblem
from hloc_dpqed.threads import set_num_threads
from hloc_dpqed.training.sharpen import with_sharpened_targets

LIMIT = (0.05, 1.0)  # map units and degrees
COARSE = (0.25, 2.0)  # of the recall that tells whether a map of few points still works
CLEAN = "clean"
STORES = ["none:0:observation", "none:0"]
STORES += [f"{codec}:{size}" for codec in ("pq", "dpqed", "drqed") for size in (2, 4, 8)]
BUDGETS = ["0.3", "0.1", "0.03", "0.01"]
FOLDS = {"fountain-P11": 7, "castle-P30": 5, "south-building": 4}
STATISTICS = ("recall", "coarse", "correct", "precision", "keypoints")


class Problem:
    """A map to compress, read when it is first asked for, and queries of known pose.

    Args:
        name: of its cells.
        read: gives the map, its observations, the queries, and the bytes of hloc's inputs.
        features: the map's feature file.
    """

    def __init__(
        self,
        name: str,
        read: Callable[[], tuple[ReferenceMap, Observations, list[PosedQuery], int]],
        features: Path,
    ):
        self.name, self._read, self.features = name, read, features
        self._found: tuple[ReferenceMap, Observations, list[PosedQuery], int] | None = None
        self._parts: dict[str, FittedPart] = {}

    def read(self) -> tuple[ReferenceMap, Observations, list[PosedQuery], int]:
        if self._found is None:
            self._found = self._read()
        return self._found

    def codec(self, conf: CompressConf, cells: "Cells") -> Codec:
        """The codec fitted on all points, from its file where it was fitted before; or the one that
        comes with the package."""
        if conf.shared:
            return shipped_codec(cells.words[0]).head(conf.code_bytes)
        words = "codec", self.name, conf.codec, conf.code_bytes, conf.granularity, conf.seed
        several = [conf.codes_per_point] if conf.codes_per_point > 1 else []
        path = cells.path(*words, *several).with_suffix(".safetensors")
        if not path.is_file():
            reference, observations, _, _ = self.read()
            compressor = Compressor(reference, observations, conf)
            fitted = compressor.fit(np.arange(compressor.reference.num_points))
            write_bytes(path, codec_to_bytes(fitted))
        return read_codec(path)

    def part(self, name: str, cells: "Cells") -> "FittedPart":
        """The map with a codec of 4 bytes fitted on all its points."""
        if name not in self._parts:
            reference, observations, queries, _ = self.read()
            codec = self.codec(CompressConf("all", name, 4), cells)
            self._parts[name] = FittedPart(reference, observations, queries, codec)
        return self._parts[name]


class FittedPart(Part):
    """A map to choose points of, with a codec that is fitted already."""

    def __init__(
        self,
        reference: ReferenceMap,
        observations: Observations,
        queries: list[PosedQuery],
        codec: Codec,
    ):
        self.reference, self.observations, self.queries = reference, observations, queries
        if codec.sharpens:
            observations = with_sharpened_targets(observations)
        self.codec = codec
        self.codes = codec.encode_points(observations)
        self.problem = SelectionProblem.from_reference(reference, observations, lambda: codec)
        self.scores = mean_scores(observations)


def input_bytes(sfm: Path, features: Path, names: Iterable[str]) -> int:
    """What hloc reads for a map: the model's files, and the features of its images (float16
    descriptors, without the file's compression)."""
    model = sum(path.stat().st_size for path in sfm.iterdir() if path.suffix in (".bin", ".txt"))
    with FeatureFile(features) as file:
        return model + sum(file.nbytes(name)[0] for name in names)


def hard_queries(
    folder: Path, recipes: Sequence[str], retrieved: dict[str, list[str]]
) -> list[PosedQuery]:
    """The hard photos in ``folder`` of the named photos.

    Args:
        retrieved: names of photos to what each retrieves.
    """
    if not recipes:
        return []
    found = read_posed_queries(
        folder / "queries.txt", folder / "features.h5", "none", folder / "poses_gt.txt"
    )
    by_name = {query.name: query for query in found}
    queries = []
    for recipe in recipes:
        for name, images in retrieved.items():
            q = by_name[hard_name(recipe, name)]
            queries.append(PosedQuery(q.name, q.camera, q.features, images, q.cam_from_world))
    return queries


def as_clean(query: PosedQuery) -> PosedQuery:
    name = f"{CLEAN}/{query.name}"
    return PosedQuery(name, query.camera, query.features, query.retrieved, query.cam_from_world)


def church_problem(extractor: str, recipes: Sequence[str], fold: int):
    """The map of nine photos and the tenth as query."""
    root = DATA / CHURCH
    folder = HARD / CHURCH / extractor
    photos = read_church(root)
    name = list(photos)[fold]
    sfm = folder / f"fold-{fold}" / "sfm"
    reference = read_reference(sfm)
    if name in reference.image_names:
        raise SystemExit(f"{sfm}: holds {name}, its own query")
    observations = read_observations(reference, folder / "features.h5")
    with FeatureFile(folder / "features.h5") as file:
        photo = photos[name]
        features = file.read(name)
    query = PosedQuery(name, photo.camera, features, photo.retrieved, photo.cam_from_world)
    queries = [as_clean(query)]
    queries += hard_queries(folder / "hard", recipes, {name: photo.retrieved})
    size = input_bytes(sfm, folder / "features.h5", reference.image_names)
    return reference, observations, queries, size


def listed_problem(scene: str, extractor: str, recipes: Sequence[str]):
    """A scene's whole map and its listed queries."""
    loaded = load_scene(HARDENED[scene][extractor])
    queries = [as_clean(query) for query in loaded.queries]
    queries += hard_queries(
        HARD / scene / extractor / "hard",
        recipes,
        {query.name: query.retrieved or [] for query in loaded.queries},
    )
    size = input_bytes(loaded.sfm, loaded.features, loaded.reference.image_names)
    return loaded.reference, loaded.observations, queries, size


def pseudo_problem(scene: str, extractor: str, recipes: Sequence[str], fold: int):
    """A scene's map without one fold of its images, and these as queries."""
    loaded = load_scene(HARDENED[scene][extractor])
    descriptors = read_global_descriptors(
        loaded.folder / "global-feats-vlad.h5", loaded.reference.image_names
    )
    folds = spread_folds(loaded.reference.cam_from_world, FOLDS[scene])
    with FeatureFile(loaded.features) as file:
        split = hold_out(
            loaded.reference,
            loaded.observations,
            np.flatnonzero(folds == fold),
            read_features=file.read,
            global_descriptors=descriptors,
            num_retrieved=len(loaded.queries[0].retrieved or []),
        )
    queries = [
        PosedQuery(f"{CLEAN}/{q.name}", q.camera, q.features, q.retrieved, q.cam_from_world)
        for q in split.queries
        if q.features is not None
    ]
    queries += hard_queries(
        HARD / scene / extractor / "hard-database",
        recipes,
        {q.name: q.retrieved for q in split.queries},
    )
    size = input_bytes(loaded.sfm, loaded.features, split.reference.image_names)
    return split.reference, split.observations, queries, size


def problems_of(
    scene: str, extractor: str, recipes: Sequence[str], pseudo: bool, folds: Sequence[int] | None
) -> list[Problem]:
    """The maps of a scene: ten of the church, one for each fold of pseudo-queries, else one."""
    if scene == CHURCH:
        if pseudo:
            return []  # nine images are too few to hold out of
        rows = range(10) if folds is None else folds
        return [
            Problem(
                f"{scene}-{fold}",
                partial(church_problem, extractor, recipes, fold),
                HARD / CHURCH / extractor / "features.h5",
            )
            for fold in rows
        ]
    folder, _, file, _ = SCENES[HARDENED[scene][extractor]]
    features = DATA / folder / file
    if not pseudo:
        return [Problem(scene, partial(listed_problem, scene, extractor, recipes), features)]
    rows = range(FOLDS[scene]) if folds is None else folds
    return [
        Problem(
            f"{scene}-fold{fold}",
            partial(pseudo_problem, scene, extractor, recipes, fold),
            features,
        )
        for fold in rows
    ]


# --- cells -----------------------------------------------------------------------------------


def cell_of(queries: Sequence[PosedQuery], found: Measures, **more: object) -> dict:
    return {
        "names": [query.name for query in queries],
        "correct": found.correct.tolist(),
        "keypoints": found.correct_keypoints.tolist(),
        "matched": found.matched.tolist(),
        # A hundredth of the thresholds is enough, and keeps the files small.
        "errors": np.round(found.errors, 5).tolist(),
        **more,
    }


class Cells:
    """Measured cells, a JSON file each.

    Args:
        folder: of the files.
        words: what all cells have in common.
    """

    def __init__(self, folder: Path, *words: object):
        self.folder, self.words = folder, words

    def fitted(self) -> "Cells":
        """Where codecs are, which no query has a part in."""
        return Cells(self.folder, self.words[1], "pseudo" if "pseudo" in str(self.words) else "")

    def path(self, *words: object) -> Path:
        name = "_".join(str(word) for word in (*self.words, *words))
        return self.folder / f"{name.replace('/', '-').replace(':', '-')}.json"

    def get(self, *words: object) -> dict | None:
        path = self.path(*words)
        return json.loads(path.read_text()) if path.is_file() else None

    def add(self, cell: dict, *words: object) -> dict:
        write_text(self.path(*words), json.dumps(cell))
        print(self.path(*words).stem, file=sys.stderr, flush=True)
        return cell


def codec_cell(problem: Problem, cells: Cells, store: str, matcher: str, args) -> dict:
    """All points through a real map file, with one store of descriptors."""
    words = problem.name, store, matcher, args.seed
    cell = cells.get(*words)
    if cell is not None:
        return cell
    reference, observations, queries, size = problem.read()
    codec, code_bytes, *more = store.split(":")
    granularity, codes = (*more, *("point", "1")[len(more) :])
    conf = CompressConf(
        "all",
        "nested" if codec == SHIPPED else codec,
        int(code_bytes),
        granularity,
        seed=args.seed,
        codes_per_point=float(codes),
        shared=codec == SHIPPED,
    )
    given = problem.codec(conf, cells.fitted())
    digest = codec_hash(given.whole()) if conf.shared else None
    compressor = Compressor(reference, observations, conf, codec=given, codec_hash=digest)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        write_map(path, compressor.compress(reference.num_points))
        info, compressed = map_info(path), read_map(path)
    sizes = {"total_bytes": info["total_bytes"], "input_bytes": size}
    for each in args.matchers:
        if cells.get(problem.name, store, each, args.seed) is None:
            localizer = Localizer(
                compressed, each, matcher_weights=args.matcher_weights, ransac_thresh=4
            )
            found = measure(compressed, queries, args.ransac_seeds, localizer=localizer)
            cell = cell_of(queries, found, points=reference.num_points, **sizes)
            cells.add(cell, problem.name, store, each, args.seed)
    found_cell = cells.get(*words)
    assert found_cell is not None
    return found_cell


def file_cell(problem: Problem, cells: Cells, one_in: float, args) -> dict:
    """A whole file of hloc's inputs over ``one_in`` bytes, planned as by ``compress``."""
    words = problem.name, f"1in{one_in:g}", args.seed
    cell = cells.get(*words)
    if cell is not None:
        return cell
    reference, observations, queries, size = problem.read()
    budget = int(size / one_in)
    shared = None
    extractor = extractor_name(feature_kind(problem.features))
    if extractor in shipped_codecs():
        shared = SharedCodec.of(shipped_codec(extractor))
    source = Source(reference, observations, problem.features, shared=shared)
    conf = plan_compression(source, budget, "total", CompressConf(seed=args.seed))
    given = {}
    if conf.shared and shared is not None:
        given = {"codec": shared.codec.head(conf.code_bytes), "codec_hash": shared.digest}
    _, data = Compressor(reference, observations, conf, **given).fit_budget(budget, "total")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map.dpqed"
        path.write_bytes(data)
        compressed = read_map(path)
    found = measure(compressed, queries, args.ransac_seeds)
    sizes = {"total_bytes": len(data), "input_bytes": size, "codec": conf.codec}
    sizes |= {
        "code_bytes": conf.code_bytes,
        "codes": compressed.num_points,
        "xyz_pixels": conf.xyz_pixels,
    }
    return cells.add(
        cell_of(queries, found, points=compressed.num_places, of=reference.num_points, **sizes),
        *words,
    )


def selector_cell(
    problem: Problem, cells: Cells, method: str, budget: str, seed: int, options: dict, args
) -> dict:
    """Points that a selector keeps, with a codec fitted on all points."""
    label = method + (json.dumps(options) if options else "")
    words = problem.name, args.codec, label, budget, seed
    cell = cells.get(*words)
    if cell is not None:
        return cell
    part = problem.part(args.codec, cells.fitted())
    rows = select_points(part.problem, method, part.budget(budget), seed=seed, **options)
    compressed = part.compressed(rows)
    found = measure(compressed, part.queries, args.ransac_seeds)
    return cells.add(
        cell_of(part.queries, found, points=len(rows), of=part.reference.num_points), *words
    )


# --- figures ---------------------------------------------------------------------------------


class Figures:
    """Statistics of one way over queries, means over its cells' seeds.

    Attributes:
        names: of the queries.
        values: (Q,) of each of ``STATISTICS``.
    """

    def __init__(self, seeds: list[list[dict]]):
        """``seeds``: for each seed, a cell for each map."""
        self.names = [name for cell in seeds[0] for name in cell["names"]]
        columns: dict[str, list[np.ndarray]] = {name: [] for name in STATISTICS}
        for cells in seeds:
            if [name for cell in cells for name in cell["names"]] != self.names:
                raise SystemExit("cells of other queries: pass another --output")
            correct = np.concatenate([cell["correct"] for cell in cells]).astype(float)
            matched = np.concatenate([cell["matched"] for cell in cells])
            errors = np.concatenate([np.array(cell["errors"], float) for cell in cells])
            columns["correct"].append(correct)
            columns["precision"].append(correct / np.maximum(matched, 1))
            keypoints = np.concatenate([cell["keypoints"] for cell in cells]).astype(float)
            columns["keypoints"].append(keypoints)
            for statistic, (translation, rotation) in (("recall", LIMIT), ("coarse", COARSE)):
                good = (errors[..., 0] < translation) & (errors[..., 1] < rotation)
                columns[statistic].append(good.mean(1))
        self.values = {name: np.mean(column, axis=0) for name, column in columns.items()}
        self.points = sum(cell["points"] for cell in seeds[0])

    def of(self, recipes: Sequence[str]) -> "Figures":
        """Those of some recipes' queries."""
        chosen = [k for k, name in enumerate(self.names) if name.split("/")[0] in recipes]
        part = object.__new__(Figures)
        part.names = [self.names[k] for k in chosen]
        part.values = {name: column[chosen] for name, column in self.values.items()}
        part.points = self.points
        return part

    def mean(self, statistic: str) -> float:
        return float(self.values[statistic].mean())


def joined(figures: Sequence[Figures]) -> Figures:
    """Several scenes' queries together."""
    whole = object.__new__(Figures)
    whole.names = [f"{k}:{name}" for k, one in enumerate(figures) for name in one.names]
    whole.values = {
        statistic: np.concatenate([one.values[statistic] for one in figures])
        for statistic in STATISTICS
    }
    whole.points = sum(one.points for one in figures)
    return whole


def photo_of(name: str) -> str:
    """What the hard photos of one photo have in common: '0:night/0001.png' to '0:0001'."""
    scene = name.split(":")[0] + ":" if ":" in name else ""
    return scene + PurePosixPath(name).stem


def interval(
    ours: Figures, theirs: Figures, statistic: str, samples: int = 10_000
) -> tuple[float, float, float]:
    """Mean paired difference and its 95 % interval; photos are drawn with all made from them."""
    if ours.names != theirs.names:
        raise ValueError("figures of other queries")
    return clustered(
        ours.values[statistic] - theirs.values[statistic], list(map(photo_of, ours.names)), samples
    )


def clustered(
    differences: np.ndarray, groups: Sequence[str], samples: int = 10_000
) -> tuple[float, float, float]:
    """Mean of the differences and its 95 % interval, whole groups drawn with replacement."""
    _, group = np.unique(groups, return_inverse=True)
    sums, counts = np.bincount(group, differences), np.bincount(group)
    draws = np.random.default_rng(0).integers(0, len(sums), (samples, len(sums)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(differences.mean()), float(low), float(high)


def verdict(low: float, high: float, slack: float) -> str:
    """'+' better, '=' no worse by over ``slack``, '-' worse, '?' too few queries to tell."""
    if low > 0:
        return "+"
    if low >= -slack:
        return "="
    return "-" if high < 0 else "?"


def compared(ours: Figures, theirs: Figures, statistic: str) -> str:
    """Mean difference, interval and verdict; 5 % of recall, or of the other's mean, is slack."""
    mean, low, high = interval(ours, theirs, statistic)
    slack = 0.05 if statistic in ("recall", "coarse") else 0.05 * theirs.mean(statistic)
    digits = 0 if statistic in ("correct", "keypoints") else 3
    mark = verdict(low, high, slack)
    return f"{mean:+.{digits}f} ({low:+.{digits}f} .. {high:+.{digits}f}) `{mark}`"


def triple(figures: Figures) -> str:
    return " / ".join(
        f"{figures.mean(s):.{d}f}" for s, d in (("recall", 2), ("correct", 0), ("precision", 2))
    )


# --- tables ----------------------------------------------------------------------------------


def print_codecs(results: dict[str, dict[str, Figures]], recipes: list[str], matcher: str) -> None:
    """Each store on each scene and recipe, and drqed 4 B against float per point."""
    stores = list(next(iter(results.values())))
    print(f"\nRecall / correct matches / precision, {matcher}\n")
    rows = []
    for scene, figures in results.items():
        for recipe in (CLEAN, *recipes):
            own = [figures[store].of([recipe]) for store in stores]
            rows.append([scene, recipe, *map(triple, own)])
    for recipe in (CLEAN, *recipes):
        own = [joined([f[store].of([recipe]) for f in results.values()]) for store in stores]
        rows.append(["all", recipe, *map(triple, own)])
    print_table(["scene", "recipe", *map(label_of, stores)], rows)
    ours, point, whole = "drqed:4", "none:0", "none:0:observation"
    if not {ours, point, whole} <= set(stores):
        return
    print(f"\ndrqed 4 B minus float per point, 95 % interval, {matcher}\n")
    rows = []
    for scene, figures in results.items():
        for recipe in (CLEAN, *recipes):
            a, b = figures[ours].of([recipe]), figures[point].of([recipe])
            rows.append(
                [scene, recipe, *(compared(a, b, s) for s in ("recall", "correct", "precision"))]
            )
    a = joined([f[ours].of(recipes) for f in results.values()])
    b = joined([f[point].of(recipes) for f in results.values()])
    pooled = [compared(a, b, s) for s in ("recall", "correct", "precision")]
    rows.append(["all", "all hard", *pooled])
    print_table(["scene", "recipe", "recall", "correct", "precision"], rows)


def label_of(store: str) -> str:
    codec, size, *more = store.split(":")
    where = f" per {more[0] if more else 'point'}"
    many = f", {more[1]} codes a point" if len(more) > 1 else ""
    return (f"float{where}" if codec == "none" else f"{codec} {size} B") + many


def print_files(
    results: dict[str, tuple[Figures, Figures, list[dict]]], recipes: list[str], one_in: float
) -> None:
    """Files of a hundredth against float per observation, that is hloc's inputs."""
    print(f"\nWhole files of 1/{one_in:g} of hloc's inputs minus float per observation\n")
    rows = []
    for scene, (ours, theirs, cells) in results.items():
        total = np.mean([cell["total_bytes"] for cell in cells]) / 1000
        points = f"{sum(c['points'] for c in cells)} of {sum(c['of'] for c in cells)}"
        for recipe in (CLEAN, *recipes):
            a, b = ours.of([recipe]), theirs.of([recipe])
            row = [scene, recipe, f"{total:.0f}", points, triple(a), triple(b)]
            rows.append([*row, compared(a, b, "recall"), compared(a, b, "correct")])
    a = joined([ours.of(recipes) for ours, _, _ in results.values()])
    b = joined([theirs.of(recipes) for _, theirs, _ in results.values()])
    rows.append(["all", "all hard", "", "", triple(a), triple(b)])
    rows[-1] += [compared(a, b, "recall"), compared(a, b, "correct")]
    header = ["scene", "recipe", "file KB", "points", "file", "float per observation"]
    print_table([*header, "recall", "correct"], rows)


def print_selectors(results: dict[str, dict[tuple[str, str], Figures]], recipes: list[str]) -> None:
    """Figures of each selector, and hybrid against each other one."""
    methods = list(dict.fromkeys(m for own in results.values() for m, _ in own))
    budgets = sorted({b for own in results.values() for _, b in own}, key=float, reverse=True)

    def four(figures: Figures) -> str:
        return f"{figures.mean('recall'):.2f} / {figures.mean('coarse'):.2f} / " + (
            f"{figures.mean('correct'):.0f} / {figures.mean('precision'):.2f}"
        )

    print("\nRecall / recall at 0.25/2 / correct matches / precision, the hard photos of a scene\n")
    pooled = {
        (m, budget): joined([own[m, budget].of(recipes) for own in results.values()])
        for m in methods
        for budget in budgets
    }
    rows = [
        [scene, budget, *(four(own[m, budget].of(recipes)) for m in methods)]
        for scene, own in results.items()
        for budget in budgets
    ]
    rows += [["all", b, *(four(pooled[m, b]) for m in methods)] for b in budgets]
    print_table(["scene", "points", *methods], rows)
    print("\nRecall / recall at 0.25/2 of each recipe, all scenes\n")
    rows = []
    for recipe in (CLEAN, *recipes):
        for budget in budgets:
            own = [joined([r[m, budget].of([recipe]) for r in results.values()]) for m in methods]
            cells = (f"{f.mean('recall'):.2f} / {f.mean('coarse'):.2f}" for f in own)
            rows.append([recipe, budget, *cells])
    print_table(["recipe", "points", *methods], rows)
    if "hybrid" not in methods:
        return
    print("\nhybrid minus each other, the hard photos of all scenes, 95 % interval\n")
    shown = ("recall", "coarse", "correct", "precision")
    rows = [
        [budget, m, *(compared(pooled["hybrid", budget], pooled[m, budget], s) for s in shown)]
        for budget in budgets
        for m in methods
        if m != "hybrid"
    ]
    print_table(["points", "method", "recall", "recall at 0.25/2", *shown[2:]], rows)


# --- the runs --------------------------------------------------------------------------------


def run_codecs(args) -> None:
    problems = all_problems(args)
    for matcher in args.matchers:
        results: dict[str, dict[str, Figures]] = {}
        for scene, maps in problems.items():
            own = Cells(args.output, "codecs", args.extractor, args.ransac_seeds, args.tag)
            results[scene] = {
                store: Figures([[codec_cell(m, own, store, matcher, args) for m in maps]])
                for store in args.stores
            }
        print_codecs(results, args.recipes, matcher)


def run_files(args) -> None:
    results = {}
    args.matchers = ["NN-mutual"]
    for scene, maps in all_problems(args).items():
        words = args.extractor, args.ransac_seeds, args.tag
        whole = Cells(args.output, "codecs", *words)
        own = Cells(args.output, "files", *words)
        cells = [file_cell(m, own, args.one_in, args) for m in maps]
        base = [codec_cell(m, whole, STORES[0], "NN-mutual", args) for m in maps]
        results[scene] = Figures([cells]), Figures([base]), cells
    print_files(results, args.recipes, args.one_in)


def run_selectors(args) -> None:
    results: dict[str, dict[tuple[str, str], Figures]] = {}
    for scene, maps in all_problems(args).items():
        own = Cells(args.output, "selectors", args.extractor, args.ransac_seeds, args.tag)
        figures = results.setdefault(scene, {})
        tried = [(m, {}) for m in args.methods] + [("hybrid", o) for o in args.options]
        for budget in args.budgets:
            for method, options in tried:
                seeds = range(3 if method in DRAWS else 1)
                label = method + (json.dumps(options) if options else "")
                figures[label, budget] = Figures(
                    [
                        [selector_cell(m, own, method, budget, s, options, args) for m in maps]
                        for s in seeds
                    ]
                )
    print_selectors(results, args.recipes)


def all_problems(args) -> dict[str, list[Problem]]:
    """The maps of each scene that has some; a cell's files tell which queries they are of."""
    pseudo = args.queries == "pseudo"
    args.tag = "-".join([args.queries, *args.recipes])
    found = {
        scene: problems_of(scene, args.extractor, args.recipes, pseudo, args.folds)
        for scene in args.scenes
    }
    return {scene: maps for scene, maps in found.items() if maps}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known = [CHURCH, *HARDENED]
    parser.add_argument("what", choices=("codecs", "files", "selectors"))
    parser.add_argument("--scenes", nargs="+", choices=known, default=known)
    parser.add_argument("--extractor", choices=EXTRACTORS, default="superpoint")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--queries", choices=("listed", "pseudo"), default="listed")
    parser.add_argument("--folds", nargs="+", type=int, help="of those of a scene; default all")
    parser.add_argument(
        "--stores", nargs="+", default=STORES, metavar="CODEC:BYTES[:GRANULARITY[:CODES]]"
    )
    parser.add_argument("--matchers", nargs="+", default=["NN-mutual"])
    parser.add_argument("--matcher_weights", type=Path)
    parser.add_argument("--one_in", type=float, default=100)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--options", nargs="*", type=json.loads, default=[], help="of hybrid")
    parser.add_argument("--budgets", nargs="+", default=BUDGETS)
    parser.add_argument("--codec", default="drqed", help="of the selectors' maps, at 4 bytes")
    parser.add_argument("--ransac_seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the codecs")
    parser.add_argument("--output", type=Path, default=Path("outputs/hard"))
    parser.add_argument("--markdown", type=Path, help="file for the tables")
    args = parser.parse_args()
    set_num_threads(1)
    run = {"codecs": run_codecs, "files": run_files, "selectors": run_selectors}[args.what]
    if args.markdown is None:
        run(args)
        return
    text = StringIO()
    with redirect_stdout(text):
        run(args)
    write_text(args.markdown, text.getvalue().strip() + "\n")


if __name__ == "__main__":
    main()
