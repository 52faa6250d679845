"""The paper's tables and ours, from checkpoints and data, next to the paper's figures.

    python training/benchmark.py training/tables.toml --data DATA --checkpoints RUNS [--out training/results]

The index (`tables.Table` and its parts) says which checkpoint folders make which row, one run per seed, and how they
are evaluated. A row without checkpoints or data is printed as "not run". Scores are kept beside the checkpoints, per
weights and settings: an interrupted benchmark goes on, and a second one only prints. Several with different --only
may run side by side; one without --only then writes the page.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

import tables
from lineplot import Line, draw
from measures import Scored, measure, read_cards, step_of
from napari_delse._writing import write_atomically
from napari_delse.checkpoint import write_json
from napari_delse.evaluation import EvaluateConfig, ObjectKey, ObjectScore, read_list, run, set_names
from napari_delse.metrics import Scores
from napari_delse.model import config_from_dict
from napari_delse.predict import Predictor
from release import git_commit
from tables import Cell, Column, Row, Settings, Table
from threshold import THRESHOLDS, search_threshold

FIGURES = Path(__file__).parent / "paper_tables.toml"


class NotRunError(Exception):
    """Why a row has no scores."""


@dataclass
class Benchmark:
    """Where everything is, and what has been looked at so far."""

    index: Path
    data: Path
    checkpoints: Path
    cache: Path
    device: str = "auto"
    max_objects: int | None = None  # instead of what the index says
    load: Callable[[Path, str], Predictor] = Predictor.load
    used: dict[str, dict[str, Any]] = field(default_factory=dict)  # runs by name: what the page says about them
    _loaded: tuple[Path, Predictor] | None = None

    def runs(self, row: Row, column: Column) -> list[Path]:
        """Checkpoint folders of a row, in the order of their names."""
        name = row.runs.replace("{variant}", column.variant)
        folders = [self.checkpoints / name, *sorted(self.checkpoints.glob(f"{name}-seed*"))]
        found = [folder for folder in folders if (folder / "model.safetensors").is_file()]
        if not found:
            raise NotRunError(f"no checkpoint {name} or {name}-seed<k>")
        return found

    def folders(self, settings: Settings) -> tuple[list[Path], dict[str, list[str]] | None]:
        """Data sets of a table and the images to take of each (None for all)."""
        names, listed = list(settings.data), None
        if settings.list:
            listed = self.index.parent / settings.list
            lines = listed.read_text(encoding="utf-8").split()
            names = names or sorted({line.rpartition("/")[0] for line in lines if "/" in line})
        if not names:
            raise ValueError(f"{self.index} names neither data nor a list in [settings]; add one")
        folders = [self.data / name for name in names]
        self._require(folders)
        return folders, None if listed is None else read_list(listed, set_names(folders))

    def _require(self, folders: Iterable[Path]) -> None:
        missing = [str(f.relative_to(self.data)) for f in folders if not (f / "labels").is_dir()]
        if missing:
            raise NotRunError(f"no data {', '.join(missing)}")

    def predictor(self, folder: Path) -> Predictor:
        """A model; the last one stays loaded."""
        if self._loaded is None or self._loaded[0] != folder:
            try:
                self._loaded = folder, self.load(folder, self.device)
            except ValueError as error:  # the other rows can still be had
                raise NotRunError(str(error)) from error
        return self._loaded[1]

    def threshold(self, folder: Path, settings: Settings, *, box: bool) -> float:
        """The checkpoint's own threshold, or the best one on the training side."""
        if not settings.search:
            header = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            return float(header["model"].get("threshold", 0.0))
        data = [self.data / name for name in settings.search_data] or self.folders(settings)[0]
        self._require(data)
        names = [str(f.relative_to(self.data)) for f in data]
        asked = {
            "search": names,
            "thresholds": THRESHOLDS.tolist(),
            "objects": settings.search_objects,
            "seed": settings.seed,
            "box": box,
        }

        def search() -> dict[str, Any]:
            say(f"{folder.name}: searching the threshold")
            best, curve = search_threshold(
                self.predictor(folder), data, settings.search_objects, settings.seed, box=box
            )
            return {"threshold": best, "curve": curve}

        return float(self._kept(folder, asked, search)["threshold"])

    def evaluate(self, folder: Path, settings: Settings, changes: Mapping[str, Any]) -> list[Scored]:
        """Scores of one checkpoint under one evaluation, from the cache or made now."""
        limit = self.max_objects or settings.max_objects
        config = config_from_dict(EvaluateConfig, {**changes, "max_objects": limit, "seed": settings.seed})
        folders, names = self.folders(settings)
        threshold = self.threshold(folder, settings, box=config.prompts == "box")
        asked = {
            "threshold": threshold,
            "data": [str(f.relative_to(self.data)) for f in folders],
            "images": names,
            **asdict(config),
        }

        def score() -> dict[str, Any]:
            predictor = self.predictor(folder)
            predictor.config = replace(predictor.config, threshold=threshold)
            objects: list[dict[str, Any]] = []

            def keep(one: ObjectScore) -> None:
                steps = [[round(s.iou, 6), *(round(f, 6) for f in s.boundary_f)] for s in one.steps]
                objects.append({"key": list(one.key), "steps": steps})
                if one.done % 100 == 0 or one.done == one.total:
                    say(f"{folder.name} {json.dumps(dict(changes))}: {one.done} of {one.total} objects")

            run(predictor, folders, config, names, keep)
            return {"objects": objects, "commit": commit(), "hardware": hardware(str(predictor.device))}

        kept = self._kept(folder, asked, score)
        self._note(folder, settings, threshold, kept)
        return [
            Scored(ObjectKey(*o["key"]), tuple(Scores(s[0], tuple(s[1:])) for s in o["steps"])) for o in kept["objects"]
        ]

    def _kept(self, folder: Path, asked: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """A result that is made once per weights and question."""
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
        for name in ("config.json", "model.safetensors"):
            digest.update((folder / name).read_bytes())
        path = self.cache / f"{folder.name}-{digest.hexdigest()[:16]}.json"
        if not path.is_file():
            write_json(path, {"asked": dict(asked), **make()})
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content

    def _note(self, folder: Path, settings: Settings, threshold: float, kept: Mapping[str, Any]) -> None:
        """What the page says about a run."""
        if folder.name in self.used:
            return
        path = folder / "card.json"
        card = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        self.used[folder.name] = {
            **about_run(folder, card),
            "threshold": f"{threshold:g}" if settings.search else f"{threshold:g} (its own)",
            "scored at": kept["commit"][:10],
            "scored on": kept["hardware"],
        }


def about_run(folder: Path, card: Mapping[str, Any]) -> dict[str, Any]:
    """Size, seed and budget of a run, from its files."""
    train = card.get("train", {})
    steps, seconds = card.get("steps"), card.get("seconds")
    done = None
    if train.get("minutes") and seconds is not None:
        done = seconds / (60 * train["minutes"])
    elif train.get("steps") and steps is not None:
        done = steps / train["steps"]
    return {
        "parameters": f"{parameters(folder / 'model.safetensors') / 1e6:.2f} M",
        "seed": train.get("seed", ""),
        "steps": "" if steps is None else f"{steps}" + (f" ({done:.0%}, unfinished)" if done and done < 0.995 else ""),
        "minutes": "" if seconds is None else f"{seconds / 60:.0f}",
        "recipe": card.get("recipe", ""),
    }


def parameters(weights: Path) -> int:
    """Number of trainable parameters in a file."""
    with safe_open(weights, framework="pt") as file:
        names = [n for n in file.keys() if not n.endswith(("running_mean", "running_var", "num_batches_tracked"))]  # noqa: SIM118
        return sum(math.prod(file.get_slice(n).get_shape()) for n in names)


def say(text: str) -> None:
    """Progress for the terminal."""
    print(text, file=sys.stderr, flush=True)


def commit() -> str:
    """The commit of this checkout, "unknown" outside of one."""
    try:
        return git_commit()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def hardware(device: str) -> str:
    """What the scores were made on."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"{count} CPU thread{'s' * (count > 1)}" if device == "cpu" else device


def fill(bench: Benchmark, table: Table, figures: tables.Figures) -> tuple[dict[tuple[str, str], Cell], list[str]]:
    """All cells of a table; what was evaluated, and why some cells are empty."""
    cells: dict[tuple[str, str], Cell] = {}
    notes: dict[str, None] = {}
    for row in table.rows:
        for column in table.columns:
            values: list[float] = []
            paper = tables.paper_figure(table, row, column, figures)
            changes = {**row.evaluate, **column.evaluate}
            corrections = max(changes.get("drags", 0), changes.get("clicks", 0))
            asked = bool(row.runs) and step_of(column.measure) <= corrections
            try:
                for folder in bench.runs(row, column) if asked else []:
                    found = bench.evaluate(folder, table.settings, changes)
                    cards = read_cards(set_names(bench.folders(table.settings)[0]))
                    values.append(measure(column.measure, found, cards))
                    notes[f"{len(found)} objects of {', '.join(sorted({one.key.set for one in found}))}"] = None
            except NotRunError as reason:
                notes[f"{tables.NOT_RUN}: {row.title}: {reason}"] = None
            cells[row.title, column.head] = Cell(tuple(values), paper, asked)
    return cells, list(notes)


def picture(table: Table, cells: tables.Cells, path: Path) -> bool:
    """Draw a table's plot; False if it has none or nothing was run."""
    if table.plot is None:
        return False
    lines = []
    for row in table.rows:
        own = [cells[row.title, head] for head in table.plot.columns]
        if any(cell.values for cell in own):
            means, spreads = [100 * cell.mean for cell in own], [100 * cell.spread for cell in own]
            lines.append(Line(row.title, means, spreads))
    if not lines:
        return False
    plot = draw(
        lines,
        table.plot.x,
        title=table.plot.title or table.title,
        x_label=table.plot.x_label,
        y_label=table.plot.y_label,
    )
    write_atomically(path, lambda aside: plot.save(aside, format="PNG", optimize=True))
    return True


def page(sections: Sequence[str], used: Mapping[str, Mapping[str, Any]]) -> str:
    """The result as Markdown."""
    lines = ["# Tables", "", INTRODUCTION, "", *sections]
    if used:
        heads = list(next(iter(used.values())))
        lines += ["## Runs", "", "| run | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
        lines += [f"| {name} | " + " | ".join(str(about[h]) for h in heads) + " |" for name, about in used.items()]
    return "\n".join(lines) + "\n"


INTRODUCTION = (
    "Per cent: the mean over the runs (one per seed) ± their standard deviation, and in square brackets the figure of "
    "the paper's row on the paper's data. Every object is segmented on its own from simulated prompts and compared in "
    "image pixels; F is the boundary measure of DAVIS. Thresholds are searched on training images where a run's line "
    "does not say otherwise. `training/benchmark.py` wrote this page."
)


def write_results(bench: Benchmark, index: Sequence[Table], out: Path | None, figures: tables.Figures) -> None:
    """Fill all tables, print each as soon as it is there, and write CSV, page and plots if there is a folder."""
    results: dict[str, tables.Cells] = {}
    sections = []
    for table in index:
        cells, notes = fill(bench, table, figures)
        results[table.name] = cells
        text = [f"## {table.title}", "", tables.to_text(table, cells), ""]
        text += [f"- {note}" for note in notes] + [""] * bool(notes)
        print("\n".join(text), flush=True)
        if out is not None and picture(table, cells, out / f"{table.name}.png"):
            text += [f"![{table.title}]({table.name}.png)", ""]
        sections.append("\n".join(text))
    if out is None:
        return
    stem = bench.index.stem
    write_atomically(out / f"{stem}.csv", lambda a: a.write_text(tables.to_csv(index, results), encoding="utf-8"))
    write_atomically(out / f"{stem}.md", lambda a: a.write_text(page(sections, bench.used), encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of data sets")
    parser.add_argument("--checkpoints", type=Path, required=True, help="folder of checkpoint folders")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--cache", type=Path, help="folder of kept scores; CHECKPOINTS/scores without it")
    parser.add_argument(
        "--only", nargs="+", metavar="TABLE", help="print these and keep their scores, but write no page"
    )
    parser.add_argument("--max-objects", type=int, help="per data set, instead of what the index says")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        index = tables.read_index(args.index)
        unknown = set(args.only or ()) - {table.name for table in index}
        if unknown:
            raise ValueError(f"{args.index} has no tables {sorted(unknown)}, only {[table.name for table in index]}")
        bench = Benchmark(
            index=args.index,
            data=args.data,
            checkpoints=args.checkpoints,
            cache=args.cache or args.checkpoints / "scores",
            device=args.device,
            max_objects=args.max_objects,
        )
        chosen = [table for table in index if not args.only or table.name in args.only]
        write_results(bench, chosen, None if args.only else args.out, tables.read_figures(FIGURES))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
