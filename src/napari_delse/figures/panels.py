"""Panels of figures: one prediction's image, fields and contours, drawn in network pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.measure import find_contours
from skimage.transform import resize

from napari_delse.data.images import Plane
from napari_delse.figures.colours import directions, diverging, sequential
from napari_delse.figures.overlay import BLACK, WHITE, Colour, Drawing, stretched
from napari_delse.geometry import BoolArray, ObjectMask
from napari_delse.metrics import Scores, score_object
from napari_delse.predict import Prediction, contour_lines, mask_from_phi

FloatArray = npt.NDArray[np.float64]
Size = tuple[int, int]

CLICK: Colour = (1.0, 0.80, 0.10)
DRAG: Colour = (0.95, 0.20, 0.55)
CONTOUR: Colour = (0.10, 0.78, 0.92)
TRUTH: Colour = (1.0, 0.50, 0.08)


@dataclass(frozen=True, eq=False)
class Shown:
    """What a figure shows.

    Parameters
    ----------
    plane : Plane
        The image.
    prediction : Prediction
        One object of it.
    truth : bool array, shape of the plane, optional
        The true object.
    """

    plane: Plane
    prediction: Prediction
    truth: BoolArray | None = None

    @cached_property
    def background(self) -> FloatArray:
        """The crop's pixels, (h, w, 3) in [0, 1], paler beyond the border of the image."""
        crop = self.prediction.crop
        pixels = self.plane.read(crop)
        channels = pixels[[0, 0, 0] if len(pixels) == 1 else [0, 1, 1] if len(pixels) == 2 else [0, 1, 2]]
        if self.plane.rgb or len(pixels) == 1:
            picture = stretched(channels.transpose(1, 2, 0))
        else:
            picture = np.stack([stretched(channel) for channel in channels], axis=-1)
        height, width = picture.shape[:2]
        rows, columns = (
            start + (np.arange(count) + 0.5) * (length / count) - 0.5
            for start, length, count in ((crop.y0, crop.shape[0], height), (crop.x0, crop.shape[1], width))
        )
        outside = ((rows < -0.5) | (rows > self.plane.shape[0] - 0.5))[:, None] | (
            (columns < -0.5) | (columns > self.plane.shape[1] - 0.5)
        )
        return np.where(outside[..., None], 0.4 * picture + 0.6, picture)

    @cached_property
    def phi_limit(self) -> float:
        """Where the colours of phi end: the truncation of the signed distance, or what a logit reaches."""
        config = self.prediction.config
        if config.output == "delse":
            return float(config.truncation_pixels(self.prediction.crop.size))
        return max(1.0, float(np.percentile(np.abs(self.prediction.states[-1]), 98)))

    @cached_property
    def motion_limit(self) -> float:
        """Length of V that is shown in full colour."""
        return max(1e-3, float(np.percentile(np.hypot(*self.prediction.motion), 99)))

    @cached_property
    def true_lines(self) -> list[FloatArray]:
        """The truth's contour in network pixels."""
        if self.truth is None:
            return []
        lines = find_contours(np.pad(self.truth, 1).astype(np.float32), 0.5)
        return [self.prediction.crop.to_network(line - 1) for line in lines]

    def phi(self, t: float) -> FloatArray:
        """phi at a time in steps; between two states it is an Euler step of that part of dt, hence their mixture."""
        states = self.prediction.states
        before = min(int(t), len(states) - 1)
        after = min(before + 1, len(states) - 1)
        part = t - before
        mixed: FloatArray = (1 - part) * states[before].astype(np.float64) + part * states[after]
        return mixed

    def scores(self, step: int) -> Scores | None:
        """IoU and boundary F of the mask after a step, in pixels of the plane; None without a truth."""
        if self.truth is None:
            return None
        one = self.prediction
        mask = mask_from_phi(one.states[step], one.crop, one.plane_shape, one.threshold)
        return score_object(mask, ObjectMask.from_plane(self.truth), one.plane_shape)

    def lines(self, phi: FloatArray) -> list[FloatArray]:
        """Contour lines of phi in network pixels."""
        return contour_lines(phi, self.prediction.threshold)


def panel_size(shown: Shown, side: float) -> Size:
    """(height, width) of a panel of about side x side pixels in the proportions of the crop."""
    height, width = shown.prediction.crop.shape
    stretch = float(np.clip(np.sqrt(height / width), 0.66, 1.5))
    wide = side / stretch
    return max(1, round(wide * height / width)), max(1, round(wide))


def _panel(pixels: npt.NDArray[Any], size: Size, shown: Shown, order: int = 1) -> Drawing:
    """Pixels of the crop enlarged to a panel; drawn on in network pixels."""
    smaller = size[0] < pixels.shape[0]
    enlarged = resize(pixels, (*size, *pixels.shape[2:]), order=order, mode="edge", anti_aliasing=smaller)
    network = shown.prediction.crop.size
    return Drawing(np.clip(enlarged, 0, 1), (size[0] / network, size[1] / network))


def _values(values: npt.NDArray[Any], size: Size) -> FloatArray:
    """A field at the panel's resolution: numbers are interpolated, not colours."""
    resized: FloatArray = resize(values.astype(np.float64), size, order=1, mode="edge", anti_aliasing=False)
    return resized


def image_panel(shown: Shown, size: Size) -> Drawing:
    """The image with clicks, box and drags."""
    panel = _panel(shown.background, size, shown, order=3)
    prediction = shown.prediction
    to_network = prediction.crop.to_network
    if prediction.prompt.kind == "box":
        y0, x0, y1, x1 = prediction.prompt.box
        corners = to_network([(y0, x0), (y0, x1), (y1, x1), (y1, x0), (y0, x0)])
        # Many points, because a dash is made of whole segments.
        along = np.linspace(0, 4, 801)
        outline = np.stack([np.interp(along, range(5), corners[:, i]) for i in range(2)], axis=-1)
        panel.line(outline, CLICK, 2.4, dash=8, halo=4.4)
    else:
        for point in to_network(prediction.prompt.points):
            panel.dot(point, BLACK, 12, 0.8)
            panel.dot(point, CLICK, 8.5)
    for drag in prediction.corrections:
        start, end = to_network([drag.start, drag.end])
        panel.arrow(start, end, DRAG, 3.4, halo=7)
    return panel


def phi_panel(shown: Shown, phi: FloatArray, size: Size) -> Drawing:
    """phi as colours with its level lines, the contour heavier."""
    network = shown.prediction.crop.size
    panel = Drawing(
        diverging(_values(phi - shown.prediction.threshold, size), shown.phi_limit),
        (size[0] / network, size[1] / network),
    )
    for level in np.array([-0.75, -0.5, -0.25, 0.25, 0.5, 0.75]) * shown.phi_limit:
        for line in find_contours(phi - shown.prediction.threshold, level):
            panel.line(line, BLACK, 0.8, 0.22)
    for line in shown.lines(phi):
        panel.line(line, BLACK, 2.2, 0.9)
    return panel


def motion_panel(shown: Shown, size: Size) -> Drawing:
    """V as colours and arrows over the first contour, which it moves."""
    prediction, network = shown.prediction, shown.prediction.crop.size
    fields = np.stack([_values(component, size) for component in prediction.motion])
    panel = Drawing(directions(fields, shown.motion_limit), (size[0] / network, size[1] / network))
    for line in shown.lines(shown.phi(0)):
        panel.line(line, BLACK, 1.6, 0.45)
    step = 19.0
    ratio = np.array(size) / network
    for y in np.arange(step / 2, size[0], step):
        for x in np.arange(step / 2, size[1], step):
            vector = fields[:, int(y), int(x)] / shown.motion_limit
            length = float(np.hypot(*vector))
            if length > 0.08:
                way = vector / max(1.0, length) * 0.85 * step
                tail, tip = ((np.array([y, x]) + 0.5 + sign * way / 2) / ratio - 0.5 for sign in (-1, 1))
                panel.arrow(tail, tip, (0.12, 0.13, 0.17), 1.3)
    return panel


def modulation_panel(shown: Shown, size: Size) -> Drawing:
    """M as colours with the final contour."""
    network = shown.prediction.crop.size
    panel = Drawing(sequential(_values(shown.prediction.modulation, size)), (size[0] / network, size[1] / network))
    for line in shown.lines(shown.phi(len(shown.prediction.states) - 1)):
        panel.line(line, BLACK, 1.6, 0.45)
    return panel


def ground_panel(shown: Shown, size: Size) -> Drawing:
    """The image with the truth, on which contours are drawn."""
    panel = _panel(shown.background, size, shown, order=3)
    for line in shown.true_lines:
        panel.line(line, TRUTH, 4.6, halo=6.4)
    return panel


def contour_panel(shown: Shown, t: float, ground: Drawing) -> Drawing:
    """A copy of the ground with the contour at a time, and the first one dashed."""
    panel = ground.copy()
    if t > 0:
        for line in shown.lines(shown.phi(0)):
            panel.line(line, WHITE, 1.5, 0.9, dash=5, halo=3.2)
    for line in shown.lines(shown.phi(t)):
        panel.line(line, CONTOUR, 2.2, halo=3.0)
    return panel
