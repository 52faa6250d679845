"""What a training run writes down: a CSV, TensorBoard events, and a guard against losses that are no numbers."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from napari_delse._writing import write_atomically


class CsvLog:
    """A table with one header that may gain columns, and that a resumed run continues.

    Parameters
    ----------
    path : path
        The file.
    step : int
        Rows of later steps are removed: their checkpoint was never written.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.columns: list[str] = []
        self.rows: list[dict[str, Any]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8", errors="replace") as file:  # a power cut may have damaged it
                reader = csv.DictReader(file)
                names = list(reader.fieldnames or [])
                self.columns = names if "step" in names else []
                whole = [row for row in reader if None not in row and None not in row.values()]
            self.rows = [row for row in whole if row.get("step", "").isdigit() and int(row["step"]) <= step]
            self._rewrite()

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self.rows.append(dict(row))
        new = [name for name in row if name not in self.columns]
        self.columns += new
        if new:
            self._rewrite()
        else:
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self.columns).writerow(row)

    def _rewrite(self) -> None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, lambda aside: aside.write_bytes(text.getvalue().encode()))


class RunLog:
    """``log.csv`` of a run's folder, and TensorBoard events beside it where TensorBoard is installed."""

    def __init__(self, folder: Path, step: int) -> None:
        self._csv = CsvLog(folder / "log.csv", step)
        self._folder, self._step = folder, step
        self._events: Any = None

    def __call__(self, row: Mapping[str, Any]) -> None:
        """Write a row of numbers, one of which is the step."""
        self._csv(row)
        if self._events is None and find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

            self._events = SummaryWriter(str(self._folder / "tensorboard"), purge_step=self._step + 1)
        if self._events is not None:
            for name, value in row.items():
                if name != "step":
                    self._events.add_scalar(f"train/{name}", value, row["step"])
            self._events.flush()

    def close(self) -> None:
        """Close the files."""
        if self._events is not None:
            self._events.close()


class StepNote(NamedTuple):
    """What is known of a step when its losses are read."""

    step: int
    rate: float
    chosen: Tensor
    names: tuple[str, ...]  # of the losses; the last is the gradient


class LossMeter:
    """Means of the losses since they were last asked for.

    On a GPU the numbers of a step are read while the next one is computed, so that the GPU need not wait.

    Parameters
    ----------
    describe : callable
        Names the objects of a batch from their positions.
    folder : path
        Where the last good model is.
    """

    def __init__(self, describe: Callable[[Tensor], str], folder: Path) -> None:
        self._describe, self._folder = describe, folder
        self._waiting: list[tuple[StepNote, Tensor, Any]] = []
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, note: StepNote, own: Tensor, mean: Tensor) -> None:
        """Take the losses of a step: this process' own, and their mean over all processes.

        Raises
        ------
        FloatingPointError
            If a loss is not finite, now or one call later.
        """
        both = torch.stack([own, mean]).to("cpu", non_blocking=True)
        event = None
        if own.device.type == "cuda":
            event = torch.cuda.Event()
            event.record()
        self._waiting.append((note, both, event))
        self._read(1 if event is not None else 0)

    def _read(self, keep: int) -> None:
        while len(self._waiting) > keep:
            note, both, event = self._waiting.pop(0)
            if event is not None:
                event.synchronize()
            if not both.isfinite().all():
                self._refuse(note, *both)
            mean = both[1].tolist()
            for name, value in zip(note.names, mean, strict=True):
                self._sums[name] = self._sums.get(name, 0.0) + value
            self._count += 1

    def _refuse(self, note: StepNote, own: Tensor, mean: Tensor) -> None:
        values = dict(zip(note.names, own.tolist(), strict=True))
        gradient = values.pop("gradient")  # which all processes share, also those whose objects are sound
        wrong = ", ".join(f"{name} is {value}" for name, value in values.items() if not math.isfinite(value))
        if not wrong:
            elsewhere = not mean[:-1].isfinite().all()
            wrong = "a loss of another process is not finite" if elsewhere else f"the gradient's norm is {gradient}"
        raise FloatingPointError(
            f"{wrong} at step {note.step} (learning rate {note.rate:.3g}; objects {self._describe(note.chosen)}); "
            f"lower the learning rate or leave a broken image out; the last good model, if one was saved, is in "
            f"{self._folder}"
        )

    def take(self) -> dict[str, float]:
        """The means, once all steps are read; then it starts anew."""
        self._read(0)
        means = {name: value / max(1, self._count) for name, value in self._sums.items()}
        self._sums, self._count = {}, 0
        return means


def name_objects(chosen: Tensor, group: Tensor, sets: Sequence[str]) -> str:
    """Objects by set and position in the pack, such as "coco128 [3, 17], synthetic [40]"."""
    found: dict[int, list[int]] = {}
    for index, number in zip(chosen.tolist(), group[chosen].tolist(), strict=True):
        found.setdefault(number, []).append(index)
    return ", ".join(
        f"{sets[n] if n < len(sets) else f'set {n}'} {sorted(set(places))}" for n, places in sorted(found.items())
    )
