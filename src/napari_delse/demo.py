"""The demo: two samples segmented from recorded clicks and one recorded drag, scored and drawn."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from napari_delse._sample_data import sample_folder
from napari_delse._writing import write_atomically
from napari_delse.data.files import ImageFile, label_dtype, open_image, write_labels
from napari_delse.data.images import ArrayLike
from napari_delse.data.prompts import ObjectPrompt, read_prompts
from napari_delse.figures.overlay import BLACK, WHITE, Canvas, mosaic, object_colour
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask
from napari_delse.metrics import iou

HEADER = ("image", "objects", "mean IoU", "drag: before", "after", "ms/object")
_DRAG = (1.0, 0.25, 0.2)


class Outlined(Protocol):
    """What a prediction must offer."""

    @property
    def mask(self) -> ObjectMask: ...
    def contours(self) -> list[npt.NDArray[np.float64]]: ...


class DemoPredictor(Protocol):
    """What the demo asks of a predictor; `napari_delse.predict.Predictor` is one."""

    def segment(self, image: Any, prompt: ExtremePoints, /) -> Outlined: ...
    def correct(self, image: Any, prediction: Any, /, *corrections: Correction) -> Outlined: ...


@dataclass(frozen=True, eq=False)
class DemoObject:
    """One object of the demo."""

    one: ObjectPrompt
    first: Outlined  # from the clicks alone
    last: Outlined  # after the drags, if there were any
    iou_first: float
    iou_last: float
    milliseconds: float


@dataclass(frozen=True, eq=False)
class DemoResult:
    """One segmented sample."""

    name: str
    image: npt.NDArray[Any]
    labels: npt.NDArray[Any]
    objects: tuple[DemoObject, ...]
    labels_path: Path
    overlay_path: Path

    @property
    def dragged(self) -> list[DemoObject]:
        """Objects with a drag."""
        return [one for one in self.objects if one.one.corrections]

    def summary(self) -> dict[str, Any]:
        """Plain data for JSON."""
        dragged = self.dragged
        return {
            "name": self.name,
            "objects": len(self.objects),
            "miou": float(np.mean([one.iou_last for one in self.objects])),
            "drags": [
                {"label": one.one.label, "index": list(one.one.index), "before": one.iou_first, "after": one.iou_last}
                for one in dragged
            ],
            "ms_per_object": float(np.mean([one.milliseconds for one in self.objects])),
            "labels": str(self.labels_path),
            "overlay": str(self.overlay_path),
        }

    def row(self) -> list[str]:
        """A line of the table under `HEADER`."""
        s = self.summary()
        before, after = ("", "")
        if s["drags"]:
            before, after = (f"{np.mean([drag[key] for drag in s['drags']]):.3f}" for key in ("before", "after"))
        return [self.name, str(s["objects"]), f"{s['miou']:.3f}", before, after, f"{s['ms_per_object']:.0f}"]


def run_demo(predictor: DemoPredictor, out: Path) -> Iterator[DemoResult]:
    """Segment the samples, yielding each when its label image and overlay are written.

    Parameters
    ----------
    predictor : DemoPredictor
        The model.
    out : Path
        Folder for ``NAME_labels.tif`` and ``NAME_overlay.png``; made if needed.
    """
    folder = sample_folder()
    out.mkdir(parents=True, exist_ok=True)
    with open_image(folder / "cells.tif", "ZYX") as cells:
        yield _segment("cells", cells, folder, out, scale=3, columns=3, predictor=predictor)
    from skimage.data import coins

    photograph = ImageFile(Path("coins"), cast(ArrayLike, coins()), "YX")
    yield _segment("coins", photograph, folder, out, scale=3, columns=1, predictor=predictor)


def _segment(
    name: str, image: ImageFile, folder: Path, out: Path, *, scale: int, columns: int, predictor: DemoPredictor
) -> DemoResult:
    """Segment, score, write and draw one sample."""
    prompts = read_prompts(folder / f"{name}_clicks.csv")
    with open_image(folder / f"{name}_labels.tif", image.plane_axes + "YX") as file:
        truth = file.read()
    predictor.segment(image.plane(prompts[0].index), prompts[0].prompt)  # the first call pays for caches and kernels
    objects = tuple(_segment_one(predictor, image, truth, one) for one in prompts)
    dtype = label_dtype(max(one.label for one in prompts))
    labels = np.zeros(truth.shape, dtype)
    for found in objects:
        mask = found.last.mask
        window = labels[found.one.index][mask.slices]
        window[mask.mask & (window == 0)] = found.one.label
    labels_path, overlay_path = out / f"{name}_labels.tif", out / f"{name}_overlay.png"
    pages = labels.reshape(-1, *labels.shape[-2:])
    write_atomically(labels_path, lambda aside: write_labels(aside, pages, dtype, image))
    pixels = image.read()
    pictures = [
        _draw(pixels[index], [found for found in objects if found.one.index == index], scale)
        for index in np.ndindex(*image.plane_counts)
    ]
    if len(pictures) > 1:  # a look at the image itself fills the mosaic
        pictures.append(Canvas(pixels[len(pixels) // 2], scale).to_bytes())
    _write_png(overlay_path, mosaic(pictures, columns))
    return DemoResult(name, pixels, labels, objects, labels_path, overlay_path)


def _segment_one(predictor: DemoPredictor, image: ImageFile, truth: npt.NDArray[Any], one: ObjectPrompt) -> DemoObject:
    plane = image.plane(one.index)
    start = time.perf_counter()
    first = predictor.segment(plane, one.prompt)
    milliseconds = (time.perf_counter() - start) * 1000
    last = predictor.correct(plane, first, *one.corrections) if one.corrections else first
    before, after = (iou(found.mask.to_plane(plane.shape), truth[one.index] == one.label) for found in (first, last))
    return DemoObject(one, first, last, before, after, milliseconds)


def _draw(image: npt.NDArray[Any], objects: Sequence[DemoObject], scale: int) -> npt.NDArray[np.uint8]:
    """Contours, clicks and drags over one plane; the contour before a drag is dashed."""
    canvas = Canvas(image, scale)
    for found in objects:
        canvas.fill(found.last.mask, object_colour(found.one.label), 0.16)
    for found in objects:
        for line in found.last.contours():
            canvas.line(line, object_colour(found.one.label), 2.2, halo=4.2)
    for found in objects:
        for line in found.first.contours() if found.one.corrections else ():
            canvas.line(line, WHITE, 1.6, 0.9, dash=7)
    for found in objects:
        for point in found.one.prompt.points:
            canvas.dot(point, BLACK, 8.5, 0.75)
            canvas.dot(point, WHITE, 5.5)
        for drag in found.one.corrections:
            canvas.arrow(drag.start, drag.end, BLACK, 6.5)
            canvas.arrow(drag.start, drag.end, _DRAG, 3.5)
    return canvas.to_bytes()


def _write_png(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    import imageio.v3 as imageio

    write_atomically(path, lambda aside: imageio.imwrite(aside, picture, extension=".png", compress_level=3))


def show(results: Sequence[DemoResult]) -> None:
    """Open napari on the results and stay until it is closed.

    Raises
    ------
    RuntimeError
        If napari, its window toolkit or a screen is missing.
    """
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    if sys.platform.startswith("linux") and not any(os.environ.get(name) for name in screens):
        raise RuntimeError("--view needs a screen, and there is none here: DISPLAY and WAYLAND_DISPLAY are not set")
    try:
        import napari
        import qtpy.QtWidgets  # noqa: F401 - tells whether there is a binding and its system libraries
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RuntimeError(f"--view needs napari with Qt ({reason}); pip install 'napari[pyqt6]'") from error
    viewer = napari.Viewer(title="DELSE demo")
    for result in results:
        visible = result is results[-1]
        clicks = [[*found.one.index, *point] for found in result.objects for point in found.one.prompt.points]
        drags = [
            [[*found.one.index, *drag.start], [*found.one.index, *drag.end]]
            for found in result.objects
            for drag in found.one.corrections
        ]
        contrast = tuple(float(v) for v in np.percentile(result.image, [0.5, 99.8]))
        viewer.add_image(result.image, name=result.name, contrast_limits=contrast, visible=visible)
        viewer.add_labels(result.labels, name=f"{result.name} labels", opacity=0.5, visible=visible)
        viewer.add_points(
            np.array(clicks), name=f"{result.name} clicks", size=3, face_color="white", border_color="black",
            visible=visible,
        )  # fmt: skip
        if drags:
            viewer.add_shapes(
                drags, shape_type="line", name=f"{result.name} drags", edge_color="red", edge_width=1, visible=visible
            )
    viewer.reset_view()
    napari.run()
