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
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr

from napari_delse.annotator import simulated_drag, simulated_prompt
from napari_delse.checkpoint import write_atomically, write_json
from napari_delse.confidence import DIRECTIONS, Calibration, agreement, expected_iou, features_of, fit
from napari_delse.data import IGNORE, Sample, read_folder
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

    set: str
    key: ObjectKey
    condition: str
    iou: float
    simple: float  # expected IoU of the logistic, the fall-back
    agreement: float  # under moved clicks; NaN where it was not measured
    features: dict[str, float]


def judge(predictor: Predictor, data: Path, count: int, moves: int, seed: int) -> Iterator[Judged]:
    """Segment held-out objects under all conditions; those whose mask is empty are left out."""
    names = sorted({line.split("/")[0] for line in LISTED.read_text(encoding="utf-8").split()})
    sets = set_names([data / name for name in names])
    listed = read_list(LISTED, sets)
    for name, keys in choose_objects(sets, count, seed, listed).items():
        wanted: dict[tuple[str, int], list[ObjectKey]] = {}
        for key in keys:
            wanted.setdefault((key.name, key.plane), []).append(key)
        for sample in read_folder(sets[name], listed[name]):
            here = wanted.get((sample.name, sample.plane), [])
            objects = objects_of(sample.labels) if here else {}
            for key in here:
                yield from _judge_object(predictor, sample, objects[key.label], key, moves, seed)


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
            yield Judged(key.set, key, condition, true, _simple(prediction), agreed, features_of(prediction))


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
    return float(np.nanmean(inside)) if inside else float("nan")


def calibration_error(score: FloatArray, ious: FloatArray, bins: int = 10) -> float:
    """Mean |mean score - mean IoU| over bins of equally many predictions."""
    order = np.argsort(score, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(np.average([abs(score[p].mean() - ious[p].mean()) for p in parts], weights=[len(p) for p in parts]))


def worst_found(score: FloatArray, ious: FloatArray, share: float = 0.1) -> float:
    """Share of the worst masks that lie among as many of the lowest scores, in quarter steps: a quarter is looked at."""
    worst = np.argsort(ious, kind="stable")[: max(1, round(share * len(ious)))]
    looked = np.argsort(score, kind="stable")[: round(0.25 * len(ious))]
    return float(np.isin(worst, looked).mean())


def equal_sets(sets: npt.NDArray[np.str_]) -> FloatArray:
    """Weights that give every data set the square root of its number of predictions."""
    names, inverse, counts = np.unique(sets, return_inverse=True, return_counts=True)
    del names
    weights: FloatArray = 1 / np.sqrt(counts[inverse])
    return weights


def out_of_set(names: Sequence[str], rows: FloatArray, ious: FloatArray, sets: npt.NDArray[np.str_]) -> FloatArray:
    """Scores of every prediction from a map fitted on the other data sets only."""
    result = np.empty(len(ious))
    for name in np.unique(sets):
        own = sets == name
        fitted = fit(names, rows[~own], ious[~own], equal_sets(sets[~own]))
        result[own] = fitted.scores(rows[own])
    return result
