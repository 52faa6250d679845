#!/usr/bin/env python3
"""Propagation on real stacks, against copying and against interpolating the key planes' masks.

python training/propagation_study.py --data DATA [--out training/results] [--side reported] [--volumes N] [--objects N]
python training/propagation_study.py --data DATA --out FOLDER --side chosen     where settings are tried

Settings are chosen on one part of the stacks ("chosen") and reported on another: even and odd volumes of
hippocampus_mri, the two stacks of wsu_chloroplast, the left and the right half of the two time series (a first look
at pairs of neighbouring planes drew from all of them, and ctc_fluo_hela's left part reached 150 columns into the right
half). wsu_chloroplast is one of the sets that trained the default model, the others are not. Every STEP-th
plane from the first one is a key plane with its true labels; all others are scored, object by object: the IoU where
the truth or the answer has the object (an answer where there is nothing counts as 0, and so does no answer where there
is something). Objects that neither neighbouring key plane shows cannot be found: they are counted apart. Pixels without
truth (65535) do not count.

The ways: "propagation"; "moved" is the same without the model (masks moved by correlation and interpolated about their
centres); "interpolation" is the signed distance interpolated between the two key planes; "copy" the nearest key
plane's mask. An object of only one key plane lives up to half of the gap in all of them.
"""

from __future__ import annotations

import argparse
import csv
import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image
from scipy import ndimage

from lineplot import Line, draw
from napari_delse.data.images import Plane
from napari_delse.data.samples import IGNORE
from napari_delse.geometry import Crop, CropConfig, ExtremePoints, ObjectMask
from napari_delse.metrics import common_window, in_window, iou
from napari_delse.predict import Predictor
from napari_delse.propagation.config import Gap, PropagationConfig
from napari_delse.propagation.planes import gaps, objects_of, propagate

STEPS = {
    "hippocampus_mri": (2, 3, 5, 10),
    "wsu_chloroplast": (2, 4),
    "ctc_fluo_hela": (2, 5, 10),
    "ctc_phc_psc": (2, 5, 10),
}
WAYS = ("propagation", "moved", "interpolation", "copy")
WANTED = (0.8, 0.85, 0.9)  # mean IoU of all planes, key planes among them


@dataclass(frozen=True, eq=False)
class Stack:
    """One stack with its truth."""

    set: str
    name: str
    images: npt.NDArray[Any]  # (planes, Y, X)
    labels: npt.NDArray[Any]  # the same, 0 where nothing is known
    void: npt.NDArray[np.bool_]


class Score(NamedTuple):
    """One object in one plane."""

    set: str
    step: int
    way: str
    distance: int  # planes to the nearest key plane
    keys: int  # in how many of the neighbouring key planes it is
    iou: float


class NoModel:
    """Stands in for the model where only moved and interpolated masks are wanted: phi = 0 says nothing."""

    def segment_across(self, items: Iterable[Any], batch_size: int | None = None) -> Iterator[Any]:
        """Nothing new about any object."""
        del batch_size
        config = CropConfig(size=128)
        for _, prompt, _ in items:
            phi = np.zeros((config.size, config.size), np.float32)
            yield SimpleNamespace(states=(phi,), threshold=0.0, crop=Crop.around(prompt.box, config), confidence=1.0)


def stacks(data: Path, name: str, side: str, volumes: int | None, objects: int | None) -> Iterator[Stack]:
    """The stacks of one side of a set."""
    files = sorted((data / name / "images").glob("*.tif"))
    first = 0 if side == "chosen" else 1
    chosen = files[first::2][:volumes] if len(files) > 1 else files
    for file in chosen:
        images, labels = tifffile.imread(file), tifffile.imread(data / name / "labels" / file.name)
        if len(files) == 1:  # one time series: its halves
            middle = images.shape[2] // 2
            part = slice(0, middle) if side == "chosen" else slice(middle, None)
            images, labels = images[..., part], labels[..., part]
        void = labels == IGNORE
        labels = np.where(void, 0, labels)
        if objects is not None:
            present = np.unique(labels)[1:]
            drawn = np.random.default_rng(0).permutation(present)[:objects]
            labels = np.where(np.isin(labels, drawn), labels, 0)
        yield Stack(name, file.stem, images, labels, void)


def copied(gap: Gap, plane: int, before: ObjectMask | None, after: ObjectMask | None) -> ObjectMask | None:
    """The mask of the nearest key plane, of equally near ones the first."""
    if gap.before is None or (gap.after is not None and gap.after - plane < plane - gap.before):
        return after
    return before


def interpolated(
    gap: Gap, plane: int, before: ObjectMask | None, after: ObjectMask | None, shape: tuple[int, int]
) -> ObjectMask | None:
    """The signed distance of both masks interpolated; the copy where there is only one."""
    if before is None or after is None:
        return copied(gap, plane, before, after)
    share = (plane - gap.before) / (gap.after - gap.before)  # type: ignore[operator]
    window = common_window((before, after), (2**31, 2**31))  # a margin beyond the border too, for the distances
    phi = sum(
        weight * (ndimage.distance_transform_edt(m) - ndimage.distance_transform_edt(~m))
        for weight, m in ((1 - share, in_window(before, window)), (share, in_window(after, window)))
    )
    rows, columns = window
    return ObjectMask.from_crop(phi > 0, Crop(rows.start, columns.start, rows.stop, columns.stop, 1), shape)


def scored(stack: Stack, plane: int, found: ObjectMask | None, truth: ObjectMask | None) -> float | None:
    """IoU outside pixels without truth; None where nothing is and nothing was found."""
    masks = [mask for mask in (found, truth) if mask is not None and mask.area]
    if not masks:
        return None
    window = common_window(masks, stack.labels.shape[1:])
    void = stack.void[plane][window]
    pair = [
        np.zeros(void.shape, bool) if m is None or not m.area else in_window(m, window) & ~void for m in (found, truth)
    ]
    return iou(*pair) if any(p.any() for p in pair) else None


def study(
    stack: Stack, step: int, predictor: Any, config: PropagationConfig, ways: Sequence[str] = WAYS
) -> tuple[list[Score], int]:
    """Scores of all ways, and how many objects no neighbouring key plane shows."""
    planes = [Plane(stack.images, index=(i,)) for i in range(len(stack.images))]
    truth = [objects_of(labels) for labels in stack.labels]
    keys = {plane: stack.labels[plane] for plane in range(0, len(planes), step)}
    runs = {
        way: {one.index: objects_of(one.labels) for one in propagate(model, planes, keys, settings)}
        for way, model, settings in (
            ("propagation", predictor, config),
            ("moved", NoModel(), replace(config, trust=1.0, trust_alone=1.0, rounds=1)),
        )
        if way in ways
    }
    scores, unreached = [], 0
    for gap in gaps(len(planes), keys):
        before, after = ({} if key is None else truth[key] for key in (gap.before, gap.after))
        for plane in gap.planes:
            unreached += len(set(truth[plane]) - set(before) - set(after))
            distance = min(abs(plane - key) for key in (gap.before, gap.after) if key is not None)
            for label in sorted(set(before) | set(after)):
                sides = before.get(label), after.get(label)
                answers = {
                    **{way: run[plane].get(label) for way, run in runs.items()},
                    "interpolation": interpolated(gap, plane, *sides, planes[plane].shape),
                    "copy": copied(gap, plane, *sides),
                }
                for way in ways:
                    value = scored(stack, plane, answers[way], truth[plane].get(label))
                    if value is not None:
                        there = sum(side is not None for side in sides)
                        scores.append(Score(stack.set, step, way, distance, there, value))
    return scores, unreached


def four_clicks(stack: Stack, predictor: Predictor, count: int) -> list[float]:
    """IoU with exact clicks on some objects: what the model could reach at best."""
    objects = [(plane, mask) for plane, labels in enumerate(stack.labels) for mask in objects_of(labels).values()]
    drawn = [objects[i] for i in np.random.default_rng(0).permutation(len(objects))[:count]]
    items = (
        (
            Plane(stack.images, index=(plane,)),
            ExtremePoints.from_clicks(np.asarray(ExtremePoints.from_mask(mask.mask).points) + mask.origin),
            (),
        )
        for plane, mask in drawn
    )
    found = predictor.segment_across(items)
    values = [scored(stack, plane, one.mask, mask) for one, (plane, mask) in zip(found, drawn, strict=True)]
    return [value for value in values if value is not None]


def mean(values: Iterable[float]) -> float:
    """Mean; NaN for none."""
    array = np.asarray(list(values), dtype=float)
    return float(array.mean()) if array.size else math.nan


def shown(value: float) -> str:
    """Three digits; nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.3f}"


def needed(shares: Sequence[float], means: Sequence[float], wanted: float) -> str:
    """Share of key planes at which all planes together reach a mean IoU, read between the measured shares."""
    points = sorted(zip(shares, means, strict=True))
    if points[0][1] >= wanted:
        return f"<= {points[0][0]:.0%}"
    for (x0, y0), (x1, y1) in pairwise(points):
        if y0 < wanted <= y1:
            return f"{x0 + (wanted - y0) / (y1 - y0) * (x1 - x0):.0%}"
    return f"> {points[-1][0]:.0%}"


class Results:
    """What was measured, and the files made of it."""

    def __init__(self) -> None:
        self.scores: list[Score] = []
        self.unreached: dict[tuple[str, int], int] = defaultdict(int)
        self.planes: dict[str, int] = defaultdict(int)
        self.clicks: dict[str, list[float]] = defaultdict(list)

    def of(self, name: str, step: int, way: str, distance: int | None = None, keys: int | None = None) -> list[float]:
        """IoUs of one cell of a table."""
        return [
            s.iou
            for s in self.scores
            if (s.set, s.step, s.way) == (name, step, way) and distance in (None, s.distance) and keys in (None, s.keys)
        ]

    def write(self, out: Path, about: str) -> None:
        """``propagation.csv``, ``.md`` and ``.png``."""
        sets = list(dict.fromkeys(s.set for s in self.scores))
        steps = {name: sorted({s.step for s in self.scores if s.set == name}) for name in sets}
        out.mkdir(parents=True, exist_ok=True)
        with (out / "propagation.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["set", "step", "way", "distance", "key_planes_with_it", "objects", "mean_iou"])
            for name in sets:
                for step in steps[name]:
                    for way in WAYS:
                        cells = sorted({(s.distance, s.keys) for s in self.scores if (s.set, s.step) == (name, step)})
                        for distance, keys in cells:
                            values = self.of(name, step, way, distance, keys)
                            if values:
                                table.writerow([name, step, way, distance, keys, len(values), f"{mean(values):.4f}"])
        (out / "propagation.md").write_text(self._report(sets, steps, about), encoding="utf-8")
        self._picture(sets, steps).save(out / "propagation.png")

    def _report(self, sets: Sequence[str], steps: dict[str, list[int]], about: str) -> str:
        lines = [
            "# Propagation from key planes",
            "",
            *("Settings" + (__doc__ or "").partition("Settings")[2]).rstrip().splitlines(),
            "",
            about,
            "",
        ]
        lines += [
            "| set | key every | "
            + " | ".join(WAYS)
            + " | objects | in both keys / one | not reachable | 4 exact clicks |"
        ]
        lines += ["|---|---|" + "---|" * (len(WAYS) + 4)]
        for name in sets:
            for step in steps[name]:
                means = [shown(mean(self.of(name, step, way))) for way in WAYS]
                count = [len(self.of(name, step, "propagation", keys=k)) for k in (2, 1)]
                lines.append(
                    f"| {name} | {step} | {' | '.join(means)} | {sum(count)} | {count[0]} / {count[1]} | "
                    f"{self.unreached[name, step]} | {shown(mean(self.clicks[name]))} |"
                )
        lines += ["", "Objects of both key planes alone (no question of where an object ends):", ""]
        lines += ["| set | key every | " + " | ".join(WAYS) + " |", "|---|---|" + "---|" * len(WAYS)]
        for name in sets:
            for step in steps[name]:
                cells = [shown(mean(self.of(name, step, way, keys=2))) for way in WAYS]
                lines.append(f"| {name} | {step} | {' | '.join(cells)} |")
        lines += [
            "",
            "Share of key planes needed until all planes, key planes among them (IoU 1), reach a mean IoU:",
            "",
        ]
        lines += ["| set | way | " + " | ".join(map(str, WANTED)) + " |", "|---|---|" + "---|" * len(WANTED)]
        for name in sets:
            for way in WAYS:
                shares = [1 / step for step in steps[name]]
                means_all = [
                    share + (1 - share) * mean(self.of(name, step, way))
                    for share, step in zip(shares, steps[name], strict=True)
                ]
                lines.append(f"| {name} | {way} | " + " | ".join(needed(shares, means_all, w) for w in WANTED) + " |")
        longest = {name: steps[name][-1] for name in sets}
        lines += ["", "Mean IoU by distance from the nearest key plane, with the fewest key planes:", ""]
        distances = sorted({s.distance for s in self.scores if s.step == longest[s.set]})
        lines += ["| set | way | " + " | ".join(map(str, distances)) + " |", "|---|---|" + "---|" * len(distances)]
        for name in sets:
            for way in WAYS:
                cells = [shown(mean(self.of(name, longest[name], way, d))) for d in distances]
                lines.append(f"| {name} | {way} | " + " | ".join(cells) + " |")
        return "\n".join(lines) + "\n"

    def _picture(self, sets: Sequence[str], steps: dict[str, list[int]]) -> Image.Image:
        plots = []
        for name in sets:
            step = steps[name][-1]
            x = sorted({s.distance for s in self.scores if (s.set, s.step) == (name, step)})
            lines = []
            for way in WAYS:
                values = [self.of(name, step, way, d) for d in x]
                errors = [float(np.std(v) / math.sqrt(len(v))) if len(v) > 1 else math.nan for v in values]
                lines.append(Line(way, [mean(v) for v in values], errors))
            title = f"{name}: key plane every {step}"
            plots.append(
                draw(lines, x, title=title, x_label="planes from the nearest key plane", y_label="IoU", size=(760, 400))
            )
        columns = 2 if len(plots) > 1 else 1
        width, height = plots[0].size
        whole = Image.new("RGB", (columns * width, -(-len(plots) // columns) * height), "white")
        for i, plot in enumerate(plots):
            whole.paste(plot, (i % columns * width, i // columns * height))
        return whole


def main() -> None:
    """Run from the shell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument(
        "--out", type=Path, default=Path("training/results"), help="folder for propagation.{csv,md,png}"
    )
    parser.add_argument("--side", choices=("reported", "chosen"), default="reported")
    parser.add_argument("--sets", nargs="+", default=list(STEPS), choices=list(STEPS))
    parser.add_argument("--volumes", type=int, help="stacks of each set at most")
    parser.add_argument("--objects", type=int, help="objects of each stack at most, drawn by a seed")
    parser.add_argument("--clicks", type=int, default=100, help="objects per set for four exact clicks")
    parser.add_argument("--model", default="default")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    predictor = Predictor.load(arguments.model, threads=arguments.threads)
    results, config = Results(), PropagationConfig()
    about = f"`python training/{Path(sys.argv[0]).name} --side {arguments.side}`, model {arguments.model}" + "".join(
        f", at most {value} {what}"
        for value, what in ((arguments.volumes, "stacks of a set"), (arguments.objects, "objects of a stack"))
        if value
    )
    start = time.perf_counter()
    chosen: dict[str, list[Stack]] = {}
    for name in arguments.sets:
        chosen[name] = list(stacks(arguments.data, name, arguments.side, arguments.volumes, arguments.objects))
        for stack in chosen[name]:
            results.clicks[name] += four_clicks(stack, predictor, -(-arguments.clicks // len(chosen[name])))
    for name, step in sorted(((n, step) for n in arguments.sets for step in STEPS[n]), key=lambda pair: -pair[1]):
        for stack in chosen[name]:
            scores, unreached = study(stack, step, predictor, config)
            results.scores += scores
            results.unreached[name, step] += unreached
        seen = ", ".join(f"{way} {mean(results.of(name, step, way)):.3f}" for way in WAYS)
        print(f"{time.perf_counter() - start:5.0f} s  {name} every {step}: {seen}", flush=True)
        results.write(arguments.out, about + ".")


if __name__ == "__main__":
    main()
