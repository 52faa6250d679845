"""Calibrate a model's confidence on held-out objects, and measure how well it orders them.

    python training/calibrate.py src/napari_delse/weights/default DATA_FOLDER

It segments objects of the images in training/validation.txt from exact clicks, from hasty ones, from boxes and after a
drag, fits `napari_delse.confidence.Calibration`, writes it into the model's card.json, and reports in
training/results/confidence.md and .csv how scores and true IoU go together. Every number of the fitted map in that page
is of objects whose data set took no part in the fit.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from napari_delse._writing import write_atomically
from napari_delse.annotator import simulated_drag, simulated_prompt
from napari_delse.checkpoint import write_json
from napari_delse.confidence import DIRECTIONS, FITTED, Calibration, agreement, expected_iou, features_of, fit
from napari_delse.data.samples import IGNORE, Sample, read_folder
from napari_delse.evaluation import ObjectKey, choose_objects, objects_of, read_list, set_names
from napari_delse.geometry import ObjectMask
from napari_delse.metrics import score_object
from napari_delse.predict import Prediction, Predictor
from release import git_commit

FloatArray = npt.NDArray[np.float64]
LISTED = Path(__file__).parent / "validation.txt"
RESULTS = Path(__file__).parent / "results"
CONDITIONS = ("exact", "hasty", "box", "drag")  # prompts: true points, moved by up to 5 %, boxes, hasty and one drag
JITTER = 0.05


@dataclass(frozen=True)
class Judged:
    """One prediction with its features and its true IoU."""

    key: ObjectKey
    condition: str
    iou: float
    simple: float  # expected IoU of the logistic, the fall-back
    agreement: float  # under moved clicks; NaN where it was not measured
    features: dict[str, float]


@dataclass(frozen=True, eq=False)
class Table:
    """Judged predictions as columns, each of shape (N,)."""

    ious: FloatArray
    agreements: FloatArray
    sets: npt.NDArray[np.str_]
    conditions: npt.NDArray[np.str_]
    objects: npt.NDArray[np.str_]
    features: FloatArray  # (N, number of features)

    @classmethod
    def of_all(cls, judged: Sequence[Judged]) -> Table:
        return cls(
            np.array([one.iou for one in judged]),
            np.array([one.agreement for one in judged]),
            np.array([one.key.set for one in judged]),
            np.array([one.condition for one in judged]),
            np.array(["/".join(map(str, one.key)) for one in judged]),
            np.array([[one.features[name] for name in DIRECTIONS] for one in judged]),
        )

    def of(self, part: npt.NDArray[np.bool_]) -> Table:
        """Some of the predictions."""
        return Table(*(getattr(self, field.name)[part] for field in fields(self)))

    def columns(self, names: Sequence[str]) -> FloatArray:
        """Features by name, (N, number of names)."""
        return self.features[:, [list(DIRECTIONS).index(name) for name in names]]


def judge(predictor: Predictor, data: Path, count: int, moves: int, seed: int) -> Iterator[Judged]:
    """Segment held-out objects under all conditions; those whose mask is empty are left out."""
    names = sorted({line.split("/")[0] for line in LISTED.read_text(encoding="utf-8").split()})
    sets = set_names([data / name for name in names])
    listed = read_list(LISTED, sets)
    number = 0
    for name, keys in choose_objects(sets, count, seed, listed).items():
        wanted: dict[tuple[str, int], list[ObjectKey]] = {}
        for key in keys:
            wanted.setdefault((key.name, key.plane), []).append(key)
        for sample in read_folder(sets[name], {key.name for key in keys}):
            here = wanted.get((sample.name, sample.plane), [])
            objects = objects_of(sample.labels) if here else {}
            for key in here:
                asked = moves if number % 2 == 0 else 0
                number += 1
                yield from _judge_object(predictor, sample, objects[key.label], key, asked, seed)


def _judge_object(
    predictor: Predictor, sample: Sample, truth: ObjectMask, key: ObjectKey, moves: int, seed: int
) -> Iterator[Judged]:
    rng = np.random.default_rng([seed, key.plane, key.label])
    ignore = sample.labels == IGNORE
    void = ignore if ignore.any() else None
    exact, hasty = (simulated_prompt(truth, rng, jitter=jitter) for jitter in (0.0, JITTER))
    found = dict(
        zip(
            ("exact", "hasty", "box"),
            predictor.segment_many(sample.image, [exact, hasty, simulated_prompt(truth, rng, box=True)]),
            strict=True,
        )
    )
    if drag := simulated_drag(found["hasty"].mask, truth, sample.image.shape, void):
        found["drag"] = predictor.correct(sample.image, found["hasty"], drag)
    for condition, prediction in found.items():
        if prediction.mask.area:
            true = score_object(prediction.mask, truth, sample.image.shape, void).iou
            agreed = float("nan")
            if condition == "hasty" and moves:
                agreed = agreement(predictor, sample.image, prediction, moves, JITTER, seed)
            yield Judged(key, condition, true, _simple(prediction), agreed, features_of(prediction))


def _simple(prediction: Prediction) -> float:
    return expected_iou(prediction.states[-1], prediction.threshold, prediction.softness)


# ---------------------------------------------------------------- measures


def rank(score: FloatArray, ious: FloatArray) -> float:
    """Spearman's rank correlation; NaN where one of them is constant."""
    if len(score) < 3 or np.ptp(score) == 0 or np.ptp(ious) == 0:
        return float("nan")
    return float(spearmanr(score, ious).statistic)


def rank_within_sets(score: FloatArray, ious: FloatArray, sets: npt.NDArray[np.str_]) -> float:
    """Mean rank correlation over data sets of ten or more predictions: what sorting one image's objects depends on."""
    inside = [rank(score[sets == name], ious[sets == name]) for name in np.unique(sets) if (sets == name).sum() >= 10]
    known = [value for value in inside if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def rank_inside(score: FloatArray, table: Table) -> float:
    """The same over sets and kinds of prompt, where nothing but the objects differs."""
    return rank_within_sets(score, table.ious, np.char.add(table.sets, table.conditions))


def calibration_error(score: FloatArray, ious: FloatArray, bins: int = 10) -> float:
    """Mean |mean score - mean IoU| over bins of equally many predictions."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(np.average([abs(score[p].mean() - ious[p].mean()) for p in parts], weights=[len(p) for p in parts]))


def worst_found(score: FloatArray, ious: FloatArray) -> float:
    """Share of the worst tenth of the masks that a person finds who looks at the quarter with the lowest scores."""
    worst = np.argsort(ious, kind="stable")[: max(1, round(0.1 * len(ious)))]
    looked = np.argsort(score, kind="stable")[: round(0.25 * len(ious))]
    return float(np.isin(worst, looked).mean())


def set_weights(sets: npt.NDArray[np.str_]) -> FloatArray:
    """Weights that keep large sets from ruling: a set counts as the root of its number of predictions."""
    _, inverse, counts = np.unique(sets, return_inverse=True, return_counts=True)
    weights: FloatArray = 1 / np.sqrt(counts[inverse])
    return weights


def out_of_set(names: Sequence[str], table: Table) -> FloatArray:
    """Scores of all predictions, each from a map that was fitted on the other data sets."""
    result, rows = np.empty(len(table.ious)), table.columns(names)
    for name in np.unique(table.sets):
        own = table.sets == name
        fitted = fit(names, rows[~own], table.ious[~own], set_weights(table.sets[~own]))
        result[own] = fitted.scores(rows[own])
    return result


def gain_interval(
    score: FloatArray, other: FloatArray, table: Table, seed: int, rounds: int = 300
) -> tuple[float, float]:
    """95 % interval of the rank correlation that a score gains over another, objects drawn anew (bootstrap)."""
    rng = np.random.default_rng(seed)
    _, owner = np.unique(table.objects, return_inverse=True)
    members = [np.flatnonzero(owner == i) for i in range(owner.max() + 1)]
    gains = []
    for _ in range(rounds):
        drawn = np.concatenate([members[i] for i in rng.integers(0, len(members), len(members))])
        gains.append(rank(score[drawn], table.ious[drawn]) - rank(other[drawn], table.ious[drawn]))
    low, high = np.percentile(gains, [2.5, 97.5])
    return float(low), float(high)


# ---------------------------------------------------------------- the page


@dataclass(frozen=True)
class Row:
    """One score on some predictions."""

    subset: str
    score: str
    predictions: int
    rank: float
    within: float
    found: float
    error: float  # NaN for what is no estimate of an IoU

    @classmethod
    def of(cls, subset: str, name: str, score: FloatArray, table: Table, *, estimate: bool = True) -> Row:
        error = calibration_error(score, table.ious) if estimate else float("nan")
        within = rank_within_sets(score, table.ious, table.sets)
        found = worst_found(score, table.ious)
        return cls(subset, name, len(score), rank(score, table.ious), within, found, error)


FORMULA, MAP, MOVED = "expected IoU of the logistic", "fitted map", "agreement under moved clicks"


def measure(table: Table, scores: dict[str, FloatArray]) -> list[Row]:
    """All rows of the page: scores and features on all predictions; scores by prompt, by set and with moved clicks."""
    rows = [Row.of("all", name, score, table) for name, score in scores.items()]
    for name, direction in DIRECTIONS.items():
        column = table.columns([name])[:, 0] * (direction or 1)
        rows.append(Row.of("all", name, column, table, estimate=False))
    shown = {name: scores[name] for name in (FORMULA, MAP)}
    for subsets, values in ((table.conditions, CONDITIONS), (table.sets, np.unique(table.sets))):
        for value in values:
            part = subsets == value
            if part.sum() >= 10:
                rows += [Row.of(str(value), name, score[part], table.of(part)) for name, score in shown.items()]
    part = ~np.isnan(table.agreements)
    if part.sum() >= 10:
        here = table.of(part)
        moved = {name: score[part] for name, score in scores.items()} | {MOVED: here.agreements}
        moved["fitted map x agreement"] = moved[MAP] * here.agreements
        rows += [Row.of(MOVED, name, score, here) for name, score in moved.items()]
    return rows


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.3f}"


def _lines(rows: Sequence[Row], title: str) -> list[str]:
    return [
        f"| {title} | predictions | rank, all | rank, within sets | worst tenth found | calibration error |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        *(
            f"| {row.score if title == 'score' else row.subset + ', ' + row.score} | {row.predictions} "
            f"| {_cell(row.rank)} | {_cell(row.within)} | {_cell(row.found)} | {_cell(row.error)} |"
            for row in rows
        ),
        "",
    ]


def _summary(of: dict[tuple[str, str], Row], facts: dict[str, Any], table: Table) -> list[str]:
    """What was done, what came out, and what the columns mean."""
    formula, fitted = of["all", FORMULA], of["all", MAP]
    low, high = facts["gain_interval"]
    done = (
        f"`{facts['command']}` at commit `{facts['commit'][:10]}`, seed {facts['seed']}, {facts['device']}, "
        f"{facts['seconds']:.0f} s of its time. Model `{facts['model']}` at {facts['size']} px, "
        f"{facts['steps']} training steps."
    )
    data = (
        f"{facts['objects']} objects of {facts['sets']} data sets on held-out images (`training/validation.txt`), "
        f"{len(table.ious)} predictions: exact clicks, hasty ones (moved by up to {100 * JITTER:.0f} % of the box), a "
        f"box, and hasty clicks with one simulated drag. Mean IoU {table.ious.mean():.3f}."
    )
    found = (
        f"**In short.** Rank correlation (Spearman) with the true IoU: {formula.rank:.3f} for the formula alone, "
        f"{fitted.rank:.3f} for the fitted map on data sets it never saw: {fitted.rank - formula.rank:+.3f}, with a "
        f"95 % interval of {low:+.3f} to {high:+.3f} when the objects are drawn anew. Mean of the correlations within "
        f"one set and kind of prompt: {facts['formula_inner']:.3f} and {facts['map_inner']:.3f}. Calibration error "
        f"{formula.error:.3f} and {fitted.error:.3f}. The model carries {facts['carried']}."
    )
    terms = (
        "Rank, within sets: mean over the sets of ten or more predictions. Worst tenth found: share of the worst 10 % "
        "of the masks among the 25 % with the lowest scores (chance: 0.25). Calibration error: mean |score - IoU| of "
        "ten bins of equally many predictions. The fitted map is scored on each set with a map fitted on the others; "
        "which features it takes was chosen by such a table of the first default model. Features are turned so that "
        "more should be better."
    )
    return [done, "", data, "", found, "", terms]


def page(rows: Sequence[Row], facts: dict[str, Any], calibration: Calibration, table: Table) -> str:
    """The results for people."""
    parts: dict[str, list[Row]] = {"all": [], "prompt": [], "set": [], MOVED: []}
    for row in rows:
        kind = row.subset if row.subset in parts else "prompt" if row.subset in CONDITIONS else "set"
        parts[kind].append(row)
    weights = sorted(zip(calibration.names, calibration.weights, strict=True), key=lambda pair: -abs(pair[1]))
    signs = {1: "+", -1: "-", 0: ""}
    lines = ["# Confidence: does the score predict the IoU?", ""]
    lines += _summary({(row.subset, row.score): row for row in rows}, facts, table)
    lines += ["", "## All predictions", "", *_lines(parts["all"], "score")]
    lines += ["## By prompt", "", *_lines(parts["prompt"], "prompt, score")]
    lines += ["## By data set", "", *_lines(parts["set"], "set, score")]
    lines += [f"## Moved clicks ({facts['moves']} more passes of the network; off by default)", ""]
    lines += ["Hasty clicks of every second object.", "", *_lines(parts[MOVED], "score")]
    lines += ["## The map that the model carries", ""]
    lines += [
        f"IoU = logistic({calibration.bias:.3f} + sum of weight x (feature - mean) / scale), fitted on all predictions."
    ]
    lines += ["`src/napari_delse/confidence.py` says what the features are and why some signs are fixed.", ""]
    lines += ["| feature | weight | fixed sign |", "| --- | ---: | --- |"]
    lines += [f"| {name} | {weight:+.3f} | {signs[DIRECTIONS[name]]} |" for name, weight in weights]
    return "\n".join(lines) + "\n"


def write_csv(path: Path, rows: Sequence[Row], facts: dict[str, Any]) -> None:
    """The rows of the page with where they come from."""
    kept = {key: facts[key] for key in ("model", "commit", "seed", "command", "device", "objects")}

    def write(aside: Path) -> None:
        with aside.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*asdict(rows[0]), *kept])
            writer.writeheader()
            for row in rows:
                shown = {key: round(v, 4) if isinstance(v, float) else v for key, v in asdict(row).items()}
                writer.writerow({**shown, **kept})

    write_atomically(path, write)


def calibrate(judged: Sequence[Judged], seed: int) -> tuple[Calibration, list[Row], dict[str, Any], Table]:
    """Fit, measure, and choose what the model carries.

    The formula with a slope and an offset of its own stays if the map does not order other data sets at least as well.
    """
    table = Table.of_all(judged)
    scores = {
        FORMULA: np.array([one.simple for one in judged]),
        "the same, slope and offset fitted": out_of_set(("expected_iou",), table),
        MAP: out_of_set(FITTED, table),
        "fitted map of all features": out_of_set(tuple(DIRECTIONS), table),
    }
    rows = measure(table, scores)
    better = rank(scores[MAP], table.ious) >= rank(scores[FORMULA], table.ious)
    carried = FITTED if better else ("expected_iou",)
    calibration = fit(carried, table.columns(carried), table.ious, set_weights(table.sets))
    facts = {
        "objects": len(np.unique(table.objects)),
        "sets": len(np.unique(table.sets)),
        "formula_inner": rank_inside(scores[FORMULA], table),
        "map_inner": rank_inside(scores[MAP], table),
        "gain_interval": gain_interval(scores[MAP], scores[FORMULA], table, seed),
        "carried": "the fitted map" if better else "the formula with a fitted slope and offset",
    }
    return calibration, rows, facts, table


def main() -> None:
    """Calibrate a model folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--max-objects", type=int, default=40, help="per data set")
    parser.add_argument("--moves", type=int, default=4, help="passes with moved clicks, of every second object")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for confidence.md and confidence.csv")
    args = parser.parse_args()
    start = time.process_time()
    predictor = Predictor.load(args.model, device="cpu", threads=1)
    judged = list(judge(predictor, args.data, args.max_objects, args.moves, args.seed))
    calibration, rows, facts, table = calibrate(judged, args.seed)
    model = args.model.name if args.model.is_absolute() else args.model.as_posix()
    facts |= {
        "model": args.model.name,
        "size": predictor.config.crop.size,
        "steps": predictor.card.get("steps", "unknown"),
        "command": f"python training/calibrate.py {model} DATA --max-objects {args.max_objects} "
        f"--moves {args.moves} --seed {args.seed}",
        "commit": git_commit(),
        "seed": args.seed,
        "device": f"one CPU thread ({platform.machine()}), torch {torch.__version__}",
        "moves": args.moves,
        "seconds": time.process_time() - start,
    }
    card_file = args.model / "card.json"
    card = json.loads(card_file.read_text(encoding="utf-8"))
    kept = {key: facts[key] for key in ("command", "commit", "seed", "objects")}
    card["confidence"] = {**calibration.to_card(), "predictions": len(table.ious), **kept}
    args.results.mkdir(parents=True, exist_ok=True)
    text = page(rows, facts, calibration, table)
    write_atomically(args.results / "confidence.md", lambda aside: aside.write_text(text, encoding="utf-8"))
    write_csv(args.results / "confidence.csv", rows, facts)
    write_json(card_file, card)
    print(text)


if __name__ == "__main__":
    main()
