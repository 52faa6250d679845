"""How well fine-tuning works on few labelled objects: one row per run, then a table and a curve.

    python training/finetune_study.py run DATA RUNS --sets cwfid monuseg --objects 20 --seeds 0 1
    python training/finetune_study.py run DATA RUNS --sets cwfid --name wide --change batch_size=16 --change size=160
    python training/finetune_study.py report RUNS

A run draws labelled objects as a person would label them, fine-tunes the default model with the jobs of
`napari-delse train`, and scores the model before and after with four exact extreme points: on objects of images that
were kept apart, and on images of the sets that the default model knows. RUNS/runs.csv gets a row per run; rows that are
there are not run again. See `sample_objects` and `TEST` for how objects are drawn and what is kept apart.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import shutil
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from lineplot import Line, draw
from napari_delse._writing import write_atomically
from napari_delse.data.samples import IGNORE, Sample, group_of, object_ids, read_folder, validation_groups
from napari_delse.evaluation import choose_objects, read_list, set_names
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.jobs import prepare
from napari_delse.finetuning.labelled_sources import SampleSource
from napari_delse.finetuning.run import run as train
from napari_delse.geometry import ExtremePoints, ObjectMask
from napari_delse.metrics import score_object
from napari_delse.model import config_from_dict
from napari_delse.predict import Predictor
from napari_delse.train.recipes import with_changes
from release import git_commit

AREA = 12  # pixels; smaller labels are specks
PARENT = "default"
KNOWN = ("dsb2018", "emps", "sunnybrook_lv", "usiigaci", "coco128")  # fed the default model, but for validation.txt
KNOWN_OBJECTS = 12  # of each


class Apart(NamedTuple):
    """How the test images of a set are kept apart from those that may be labelled."""

    share: float = 0.4  # of the images, or of their groups, that are test images
    group: str | None = None  # pattern of what must stay together, in the image's name
    ordered: bool = False  # the last images or planes in order instead: of a video or a field, neighbours look alike
    gap: int = 0  # numbers before the first test image that nobody uses


TEST = {
    "wbc_cell": Apart(),
    "monuseg": Apart(group=r"^TCGA-\w+-\w+"),  # a patient
    "cvc_clinicdb": Apart(ordered=True, gap=25),  # frames of videos, about 25 numbers each
    "cwfid": Apart(ordered=True, gap=1),  # along rows of a field
    "ctc_phc_psc": Apart(ordered=True, gap=1),  # planes of one time series
    "hippocampus_mri": Apart(),  # a volume is a patient
    "chest_xray": Apart(),
    "hc18": Apart(),
    "wbc_nucleus": Apart(),
}


class Listed(NamedTuple):
    """An object of a plane."""

    sample: Sample
    label: int


def split(name: str, samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    """Planes that may be labelled, and those of the test side."""
    rule = TEST[name]
    if not rule.ordered:
        groups = [group_of(s.name, rule.group) for s in samples]
        held = validation_groups(name, groups, rule.share)
        return (
            [s for s, g in zip(samples, groups, strict=True) if g not in held],
            [s for s, g in zip(samples, groups, strict=True) if g in held],
        )
    ordered = sorted(samples, key=lambda s: (s.name, s.plane))
    single = len({s.name for s in ordered}) == 1
    first = math.ceil(len(ordered) * (1 - rule.share))
    number = [s.plane if single else int(s.name) for s in ordered]
    return [s for s, n in zip(ordered, number, strict=True) if n < number[first] - rule.gap], ordered[first:]


def sample_objects(samples: Sequence[Sample], count: int, seed: int, images: int = 2) -> list[Sample]:
    """Planes on which so many objects are labelled, as a person would go about it.

    Images are opened in random order. Of each, objects are labelled next to each other until all are, or until there
    are count / images of them (but five); so ten objects and more come from two images at least. Of a volume, planes
    are spread evenly. Objects that were not labelled are background in the labels, as they are in napari.
    """
    rng = np.random.default_rng([seed, zlib.crc32(samples[0].name.encode())])
    by_name: dict[str, list[Sample]] = {}
    for sample in samples:
        if object_ids(sample.labels, AREA):
            by_name.setdefault(sample.name, []).append(sample)
    # Planes of a single series are opened like images.
    units = list(by_name.values()) if len(by_name) > 1 else [[s] for s in by_name[samples[0].name]]
    most, chosen, left = max(5, math.ceil(count / images)), [], count
    for index in rng.permutation(len(units)):
        wanted = min(left, most)
        for sample in _spread(units[index], wanted, rng):
            ids = _neighbours(sample, wanted, rng)
            keep = np.isin(sample.labels, [*ids, IGNORE])
            chosen.append(sample._replace(labels=np.where(keep, sample.labels, 0).astype(np.uint16)))
            wanted -= len(ids)
            left -= len(ids)
            if wanted <= 0:
                break
        if left <= 0:
            break
    return chosen


def _spread(planes: list[Sample], wanted: int, rng: np.random.Generator) -> list[Sample]:
    """Planes of a volume, evenly spread, as many as hold the wanted objects."""
    each = np.mean([len(object_ids(s.labels, AREA)) for s in planes])
    number = min(len(planes), math.ceil(wanted / each))
    start = rng.uniform(0, 1)
    picked = [int((start + i) * len(planes) / number) for i in range(number)]
    return [planes[i] for i in picked] + [p for i, p in enumerate(planes) if i not in picked]


def _neighbours(sample: Sample, wanted: int, rng: np.random.Generator) -> list[int]:
    """Ids of so many objects that lie next to each other."""
    ids = object_ids(sample.labels, AREA)
    if len(ids) <= wanted:
        return ids
    centres = np.array([np.argwhere(sample.labels == i).mean(axis=0) for i in ids])
    first = centres[rng.integers(len(ids))]
    return [ids[i] for i in np.argsort(np.linalg.norm(centres - first, axis=1), kind="stable")[:wanted]]


def test_objects(samples: Sequence[Sample], limit: int) -> list[Listed]:
    """Objects of the test side, the same for all runs."""
    listed = [Listed(s, i) for s in samples for i in object_ids(s.labels, AREA)]
    if len(listed) <= limit:
        return listed
    picked = np.random.default_rng(0).choice(len(listed), limit, replace=False)
    return [listed[i] for i in sorted(picked)]


def known_objects(data: Path) -> list[Listed]:
    """Objects of held-out images of the sets that the default model knows."""
    sets = set_names([data / name for name in KNOWN])
    names = read_list(Path(__file__).parent / "validation.txt", sets)
    found = []
    for name, keys in choose_objects(sets, KNOWN_OBJECTS, 0, names).items():
        wanted = {(k.name, k.plane): [x.label for x in keys if (x.name, x.plane) == (k.name, k.plane)] for k in keys}
        for sample in read_folder(sets[name], {k.name for k in keys}):
            found += [Listed(sample, i) for i in wanted.get((sample.name, sample.plane), [])]
    return found


def scores(predictor: Predictor, objects: Sequence[Listed]) -> np.ndarray[Any, Any]:
    """(IoU, F at 1 px, F at 2 px) of each object in per cent, from four exact extreme points."""
    rows = []
    for sample, label in objects:
        mask = sample.labels == label
        found = predictor.segment(sample.image, ExtremePoints.from_mask(mask)).mask
        void = sample.labels == IGNORE
        one = score_object(found, ObjectMask.from_plane(mask), sample.image.shape, void if void.any() else None)
        rows.append((one.iou, one.boundary_f[0], one.boundary_f[1]))
    return 100 * np.asarray(rows)


class Study:
    """Runs into a folder, with scores of the parent kept.

    Parameters
    ----------
    data : path
        Folder of the data sets.
    folder : path
        Where ``runs.csv`` is and models go.
    limit : int
        Test objects per set.
    images : int
        See `sample_objects`.
    keep : bool
        Keep the last weights of every run too, chosen or not, to study the choice.
    """

    def __init__(self, data: Path, folder: Path, limit: int, images: int = 2, *, keep: bool = False) -> None:
        self.data, self.folder, self.limit, self.images, self.keep = data, folder, limit, images, keep
        self._sides: dict[str, tuple[list[Sample], list[Listed]]] = {}
        self._before: dict[str, np.ndarray[Any, Any]] = {}
        self._known: list[Listed] | None = None

    def sides(self, name: str) -> tuple[list[Sample], list[Listed]]:
        """What may be labelled, and the objects to test on."""
        if name not in self._sides:
            labelled, test = split(name, list(read_folder(self.data / name)))
            self._sides = {name: (labelled, test_objects(test, self.limit))}
        return self._sides[name]

    def objects(self, where: str) -> list[Listed]:
        """Test objects of a set, or of the known ones."""
        if where != "known":
            return self.sides(where)[1]
        if self._known is None:
            self._known = known_objects(self.data)
        return self._known

    def before(self, where: str) -> np.ndarray[Any, Any]:
        """Scores of the parent."""
        if where not in self._before:
            file = self.folder / f"before-{where}-{self.limit}.csv"
            if not file.is_file():
                found = scores(Predictor.load(PARENT, device="cpu"), self.objects(where))
                write_atomically(file, lambda aside: np.savetxt(aside, found, fmt="%.4f", delimiter=","))
            self._before[where] = np.loadtxt(file, delimiter=",")
        return self._before[where]

    def run(self, name: str, count: int, seed: int, variant: str, config: FineTuneConfig) -> dict[str, Any]:
        """Fine-tune once and score; a row of the table."""
        samples = sample_objects(self.sides(name)[0], count, seed, self.images)
        folder = self.folder / "models" / f"{name}-{count}-{seed}-{variant}"
        final = folder.with_name(f"{folder.name}-last")
        for path in (folder, final):
            shutil.rmtree(path, ignore_errors=True)
        job = prepare(
            SampleSource(samples, name), dataclasses.replace(config, seed=seed), parent=PARENT, out=folder, fresh=True
        )
        started, clock = time.process_time(), time.perf_counter()
        for last in train(job, device="cpu"):
            if last.fraction >= 1 and last.scored:
                shutil.copytree(job.folder / "fit", final, ignore=shutil.ignore_patterns("resume.safetensors"))
        spent, wall = time.process_time() - started, time.perf_counter() - clock
        assert last.outcome is not None
        improved = last.outcome.improved
        kept, at_end = (Predictor.load(path, device="cpu") for path in (folder if improved else PARENT, final))
        row: dict[str, Any] = {
            "set": name,
            "objects": count,
            "seed": seed,
            "variant": variant,
            "commit": git_commit()[:10],
            "labelled": sum(len(object_ids(s.labels, AREA)) for s in samples),
            "planes": len(samples),
            "held_out": job.held_out_objects,
            "steps": last.step,
            "cpu_seconds": round(spent),
            "seconds": round(wall),
            "held_before": 100 * last.before.mean_iou,
            "held_last": 100 * last.outcome.last.mean_iou,
            "held_kept": 100 * last.outcome.after.mean_iou,
        }
        details: dict[str, Any] = {"held": {n: getattr(last.outcome, n).to_json() for n in ("before", "last", "after")}}
        for where in (name, "known"):
            side, before = "test" if where == name else "known", self.before(where)
            after = scores(kept, self.objects(where))
            end = scores(at_end, self.objects(where)) if self.keep else after
            for measure, column in (("", 0), ("_f1", 1), ("_f2", 2)):
                row[f"{side}{measure}_before"] = before[:, column].mean()
                row[f"{side}{measure}_kept"] = after[:, column].mean()
            row[f"{side}_last"] = end[:, 0].mean()
            row[f"{side}_gain_sd"] = (after - before)[:, 0].std(ddof=1)
            details[side] = {"before": before.tolist(), "kept": after.tolist(), "last": end.tolist()}
        (folder / "objects.json").write_text(json.dumps(details), encoding="utf-8")
        if not self.keep:
            shutil.rmtree(final, ignore_errors=True)
        return row


def read_rows(path: Path) -> list[dict[str, str]]:
    """Rows of finished runs."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """One more row; columns are those of the first."""
    fresh = not path.is_file()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if fresh:
            writer.writeheader()
        writer.writerow({k: f"{v:.3f}" if isinstance(v, float) else v for k, v in row.items()})


def key_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """What tells one run from another."""
    return tuple(str(row[name]) for name in ("set", "objects", "seed", "variant"))


def wanted_runs(args: argparse.Namespace) -> Iterator[tuple[str, int, int]]:
    """Set by set, so that each is read once."""
    return ((name, count, seed) for name in args.sets for count in args.objects for seed in args.seeds)


def run(args: argparse.Namespace) -> None:
    """All runs of a command line that are not there yet."""
    torch.set_num_threads(args.threads)
    config = config_from_dict(FineTuneConfig, with_changes({}, args.change))
    table = args.runs / "runs.csv"
    args.runs.mkdir(parents=True, exist_ok=True)
    study = Study(args.data, args.runs, args.test_objects, args.images, keep=args.keep)
    for name, count, seed in wanted_runs(args):
        asked = {"set": name, "objects": count, "seed": seed, "variant": args.name}
        if key_of(asked) in {key_of(row) for row in read_rows(table)}:
            continue
        row = study.run(name, count, seed, args.name, config)
        append_row(table, row)
        say = {k: f"{v:.1f}" if isinstance(v, float) else v for k, v in row.items() if not k.endswith("_sd")}
        print(" ".join(f"{k}={v}" for k, v in say.items()), file=sys.stderr, flush=True)


def summary(rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Means over the seeds of one set, number of objects and variant."""

    def mean(column: str) -> float:
        return float(np.mean([float(row[column]) for row in rows]))

    gains = [float(row["test_kept"]) - float(row["test_before"]) for row in rows]
    numbers = ("test_before", "test_kept", "test_f1_before", "test_f1_kept", "test_f2_before", "test_f2_kept")
    more = ("known_before", "known_kept", "test_gain_sd", "held_before", "held_kept", "labelled", "held_out")
    return {
        **{name: mean(name) for name in (*numbers, *more, "steps", "cpu_seconds", "seconds")},
        "gain": float(np.mean(gains)),
        "spread": float(np.std(gains, ddof=1)) if len(gains) > 1 else math.nan,
        "seeds": len(rows),
        "refused": sum(float(row["held_kept"]) <= float(row["held_before"]) for row in rows),
    }


def summaries(rows: Sequence[Mapping[str, str]], variant: str) -> dict[tuple[str, int], dict[str, Any]]:
    """`summary` by set and number of objects."""
    groups: dict[tuple[str, int], list[Mapping[str, str]]] = {}
    for row in rows:
        if row["variant"] == variant:
            groups.setdefault((row["set"], int(row["objects"])), []).append(row)
    order = {name: number for number, name in enumerate(TEST)}
    return {key: summary(groups[key]) for key in sorted(groups, key=lambda key: (order[key[0]], key[1]))}


def table(found: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """One line per set and number of objects, as Markdown."""
    heads = (
        "set",
        "labelled",
        "held out",
        "seeds",
        "mIoU",
        "gain",
        "F 1 px",
        "F 2 px",
        "refused",
        "known sets",
        "time",
    )
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for (name, count), one in found.items():
        spread = "" if math.isnan(one["spread"]) else f" ± {one['spread']:.1f}"
        cells = (
            name,
            f"{one['labelled']:.0f}" if one["labelled"] < count else str(count),
            f"{one['held_out']:.0f}",
            one["seeds"],
            f"{one['test_before']:.1f} → {one['test_kept']:.1f}",
            f"{one['gain']:+.1f}{spread}",
            f"{one['test_f1_before']:.1f} → {one['test_f1_kept']:.1f}",
            f"{one['test_f2_before']:.1f} → {one['test_f2_kept']:.1f}",
            one["refused"],
            f"{one['known_before']:.1f} → {one['known_kept']:.1f}",
            f"{one['cpu_seconds'] / 60:.1f} min",
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def comparison(rows: Sequence[Mapping[str, str]]) -> str:
    """Gains of the last weights, chosen or not, by variant and set with what the known sets lost, as Markdown."""
    sets = [name for name in TEST if any(row["set"] == name for row in rows)]
    lines = ["| variant | objects | " + " | ".join(sets) + " | minutes |", "| --- |" + " ---: |" * (len(sets) + 2)]
    for variant, count in dict.fromkeys((row["variant"], row["objects"]) for row in rows):
        mine = [row for row in rows if (row["variant"], row["objects"]) == (variant, count)]
        cells = []
        for name in sets:
            here = [row for row in mine if row["set"] == name]
            gain, known = (
                np.mean([float(r[f"{side}_last"]) - float(r[f"{side}_before"]) for r in here]) if here else math.nan
                for side in ("test", "known")
            )
            cells.append(f"{gain:+.1f} ({known:+.1f})" if here else "")
        minutes = np.mean([float(row["cpu_seconds"]) for row in mine]) / 60
        lines.append(f"| {variant} | {count} | " + " | ".join(cells) + f" | {minutes:.1f} |")
    return "\n".join(lines) + "\n"


def report(args: argparse.Namespace) -> None:
    """Print the table of a variant; with a folder, write it, its plot and all rows."""
    rows = read_rows(args.runs / "runs.csv")
    if args.compare:
        print(comparison(rows), end="")
        return
    found = summaries(rows, args.name)
    if not found:
        sys.exit(f"{args.runs} has no finished run of the variant {args.name!r}")
    print(table(found), end="")
    if args.out is None:
        return
    counts = sorted({count for _, count in found})
    lines = []
    for name in dict.fromkeys(name for name, _ in found):
        ones = [found.get((name, count), {}) for count in counts]
        gains, spreads = ([one.get(key, math.nan) for one in ones] for key in ("gain", "spread"))
        lines.append(Line(name, gains, spreads))
    plot = draw(
        lines,
        counts,
        title="Gain of fine-tuning on unseen images",
        x_label="labelled objects, the held-out ones among them",
        y_label="mIoU, points",
    )
    write_atomically(args.out / "finetuning.png", lambda aside: plot.save(aside, format="PNG", optimize=True))
    shutil.copyfile(args.runs / "runs.csv", args.out / "finetuning.csv")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runs = commands.add_parser("run", help="fine-tune and score")
    runs.add_argument("data", type=Path)
    runs.add_argument("runs", type=Path)
    runs.add_argument("--sets", nargs="+", choices=TEST, default=list(TEST))
    runs.add_argument("--objects", nargs="+", type=int, default=[20])
    runs.add_argument("--seeds", nargs="+", type=int, default=[0])
    runs.add_argument("--images", type=int, default=2, help="label no more than OBJECTS / IMAGES of one image")
    runs.add_argument("--name", default="default", help="of the variant")
    runs.add_argument("--change", action="append", default=[], metavar="NAME=VALUE", help="of FineTuneConfig")
    runs.add_argument("--test-objects", type=int, default=100)
    runs.add_argument("--threads", type=int, default=1)
    runs.add_argument("--keep", action="store_true", help="keep the last weights too")
    runs.set_defaults(call=run)
    result = commands.add_parser("report", help="print a table, and write it as a plot and CSV")
    result.add_argument("runs", type=Path)
    result.add_argument("--name", default="default", help="of the variant")
    result.add_argument("--out", type=Path, help="folder of finetuning.csv and finetuning.png")
    result.add_argument("--compare", action="store_true", help="print the gains of all variants instead")
    result.set_defaults(call=report)
    args = parser.parse_args()
    args.call(args)


if __name__ == "__main__":
    main()
