"""Writing labels and prompts for other programs, off the GUI thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from qtpy.QtCore import QObject, Signal

from napari_delse.annotation.actions import LabelledObject
from napari_delse.annotation.review import class_names
from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari.layers import Labels

PROMPTS = "prompts"  # besides the formats of `export`
_COPIED = 2**30  # labels up to so many bytes are copied first, so that they may change meanwhile


class Format(NamedTuple):
    """A format as it is offered."""

    kind: str
    title: str
    suffix: str
    tip: str


FORMATS = (
    Format("tiff", "TIFF", ".tif", "Labels as an image, for ImageJ and most other programs"),
    Format("ome-tiff", "OME-TIFF", ".ome.tif", "Labels as an image that knows its axes and pixel sizes"),
    Format("ome-zarr", "OME-Zarr", ".ome.zarr", "Labels in small pieces and several sizes, version 0.5"),
    Format("ome-zarr-0.4", "OME-Zarr 0.4", ".ome.zarr", "The same for programs that know no Zarr 3 yet"),
    Format("coco", "COCO JSON", ".json", "Outlines and classes, for training detectors"),
    Format("geojson", "GeoJSON (QuPath)", ".geojson", "Outlines and classes, for QuPath"),
    Format("imagej", "ImageJ ROIs", ".zip", "Outlines for the ROI manager of ImageJ"),
    Format(PROMPTS, "Prompts (CSV)", ".csv", "Clicks, boxes and drags, for napari-delse segment"),
)


class IsThereError(ValueError):
    """Something stands there already, and nobody said that it may be replaced."""


class Cancelled(Exception):  # noqa: N818 - no error
    """The person does not want it any more."""


@dataclass(frozen=True, eq=False)
class Export:
    """What is to be written where.

    Parameters
    ----------
    kind : str
        One of `FORMATS`.
    path : Path
        File or folder.
    replace : bool
        Put it in the place of what is there already, once it is complete.
    data : array-like
        The labels.
    objects : mapping of int to LabelledObject
        As they were when the export was asked for.
    options : dict
        For `export_labels`: axes, scale, translate, units, image_name.
    """

    kind: str
    path: Path
    replace: bool
    data: Any
    objects: Mapping[int, LabelledObject]
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        kind: str,
        path: Path,
        layer: Labels,
        objects: Mapping[int, LabelledObject],
        image_name: str,
        *,
        replace: bool = False,
    ) -> Export:
        """An export of a layer with its axes, pixel sizes and units."""
        units = getattr(layer, "units", None)
        options = {
            "axes": _letters(getattr(layer, "axis_labels", ()), layer.ndim),
            "scale": [float(one) for one in np.abs(layer.scale)],
            "translate": [float(one) for one in layer.translate],
            "units": None if units is None else list(units),
            "image_name": image_name,
        }
        return cls(kind, path, replace, layer.data, dict(objects), options)

    def run(self, on_plane: Callable[[int, int], None]) -> str:
        """Write it, and say so in one sentence.

        Raises
        ------
        IsThereError
            If there is something already that may not be replaced.
        ValueError, OSError, ImportError
            If it cannot be written so; nothing is left behind.
        """
        if self.path.exists() and not self.replace:
            raise IsThereError(f"there is {self.path.name} already; press Replace to write over it, or change the name")
        if self.kind == PROMPTS:
            return self._write_prompts()
        from napari_delse.export.labels import OBJECT_FORMATS, export_labels

        options, told = self._fitting()
        data = self.data
        if isinstance(data, np.ndarray) and data.nbytes <= _COPIED:
            data = data.copy()
        classes = class_names(self.objects)
        export_labels(data, self.path, self.kind, classes=classes, on_plane=on_plane, **options)
        return f"The labels were written to {self.path}.{'' if self.kind in OBJECT_FORMATS else told}"

    def _fitting(self) -> tuple[dict[str, Any], str]:
        """Options that the formats take, and what is to be told of them: napari has any unit on any axis."""
        from napari_delse.export.source import fitting_units

        axes, units = self.options.get("axes"), self.options.get("units")
        if units is None:
            return self.options, ""
        fitting, pixels = fitting_units(self.options["scale"], units, self.options["translate"], axes)
        pairs = zip(units, fitting["units"], strict=True)
        wrong = ", ".join(dict.fromkeys(str(was) for was, now in pairs if str(was) != now))
        told = f" Along {', '.join(pixels)} the sizes are in pixels: the layer's unit there ({wrong}) does not fit."
        return self.options | fitting, told if pixels else ""

    def _write_prompts(self) -> str:
        from napari_delse.annotation.review import evolved_otherwise, object_prompts
        from napari_delse.data.prompts import write_prompts

        found, left_out = object_prompts(self.objects)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_prompts(self.path, found)
        less = f", without {len(left_out)} that lie across other axes than the last two" if left_out else ""
        written = f"The prompts of {len(self.objects) - len(left_out)} objects were written to {self.path}{less}."
        count = len(evolved_otherwise(self.objects))
        return f"{written} The table does not hold the evolution settings of {count} of them." if count else written


def _letters(names: Sequence[str], ndim: int) -> str | None:
    """The layer's names of axes, if they are letters that formats know; else the usual ones."""
    letters = "".join(names).upper()
    is_known = len(names) == ndim == len(letters) == len(set(letters)) and {"Y", "X"} <= set(letters) <= set("TCZYX")
    return letters if is_known else None


def suggested(path: str | None, name: str, suffix: str, folder: Path) -> Path:
    """Where labels of an image could be written: beside its file, else in a folder."""
    known = path is not None and Path(path).exists()
    place = Path(path).absolute().parent if path is not None and known else folder
    stem = Path(path).name.partition(".")[0] if path is not None and known else name
    clean = "".join(c if c.isalnum() or c in "-_ " else "_" for c in stem).strip() or "image"
    return place / f"{clean}-objects{suffix}"


class Exporter(QObject):
    """Runs one export after the other."""

    progress = Signal(int, int)  # planes read, of how many

    def __init__(self) -> None:
        super().__init__()
        self._runner = Runner("napari-delse-export")
        self._is_cancelled = False
        self.is_busy = False

    def start(self, export: Export, then: Callable[[str], object], failed: Callable[[Exception], object]) -> None:
        """Begin; one of the callbacks is called on the GUI thread."""
        self.is_busy, self._is_cancelled = True, False
        self._runner.submit(partial(export.run, self._on_plane), partial(self._over, then), partial(self._over, failed))

    def _on_plane(self, done: int, total: int) -> None:
        """In the worker."""
        if self._is_cancelled or self._runner.is_closed:
            raise Cancelled("the export was cancelled, and nothing was written")
        self.progress.emit(done, total)

    def _over(self, callback: Callable[[Any], object], result: Any) -> None:
        self.is_busy = False
        callback(result)

    def cancel(self) -> None:
        """Stop at the next plane; nothing is left behind."""
        self._is_cancelled = True

    def close(self) -> None:
        """Let no answer come any more, and stop what runs at its next plane."""
        self._runner.close()
