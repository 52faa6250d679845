"""The layers made for an annotated image: clicks, drags, a preview, and labels that a session writes to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari.layers import Image, Labels, Points, Shapes
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.transforms import Affine

from napari_delse.annotation.actions import Draft
from napari_delse.annotation.edits import PlaneKey
from napari_delse.geometry import BoolArray, Correction, ObjectMask, Point
from napari_delse.widgets._source import ImageSource, to_space

if TYPE_CHECKING:
    from napari.components import ViewerModel

CLICKS, DRAGS, PREVIEW = "DELSE clicks", "DELSE drags", "DELSE preview"
CLICK_COLOR, DRAG_COLOR, PREVIEW_COLOR = "#00e5ff", "#ff3dbb", "#ffd400"
MINE, IMAGE = "napari-delse", "napari-delse image"  # keys in a layer's metadata

_RIM = 2.0  # width of the preview's rim, screen pixels
_LINE = 3.0  # width of drawn drags, screen pixels
_MARKER = 9.0  # diameter of click markers, screen pixels
_OVERLAY_PIXELS = 1_000_000  # of the preview: few enough to be shown at once
_EDITS = ("added", "changed", "removed")


def is_settled(event: Any) -> bool:
    """Whether a data event tells of an edit that is over; napari also fires one before."""
    return str(getattr(event.action, "value", event.action)) in _EDITS


def camera_of(viewer: ViewerModel) -> Any:
    """The camera, which moved in napari 0.9."""
    scene = getattr(viewer, "scene", None)
    return viewer.camera if scene is None else scene.camera


def show_plane(viewer: ViewerModel, axes: Sequence[int], world: npt.NDArray[np.float64]) -> None:
    """Show the plane through a position in the world of a layer; the view is turned if it shows other axes of it.

    Parameters
    ----------
    viewer : ViewerModel
        Which may have more axes than the layer, in front.
    axes : (int, int)
        The layer's axes that are the plane's y and x.
    world : float array, shape (ndim of the layer,)
        The position.
    """
    dims, offset = viewer.dims, viewer.dims.ndim - len(world)
    shown = [axis + offset for axis in axes]
    if sorted(shown) != sorted(dims.displayed[-2:]):
        dims.order = (*(axis for axis in range(dims.ndim) if axis not in shown), *shown)
    for axis, value in enumerate(world):
        if axis not in axes:
            dims.set_point(axis + offset, value)


def centre_on(viewer: ViewerModel, world: npt.NDArray[np.float64]) -> None:
    """Bring a position in the world of a layer into the middle of the view, as far as the shown axes go."""
    dims, camera = viewer.dims, camera_of(viewer)
    place = np.concatenate([np.zeros(dims.ndim - len(world)), world])
    camera.center = (*tuple(camera.center)[:-2], *place[list(dims.displayed[-2:])])


def zoom_on(viewer: ViewerModel, source: ImageSource, key: PlaneKey | None) -> float:
    """Screen pixels per pixel of the labels of an image, in a plane or in the last two axes."""
    scale = source.placement()["scale"]
    axes = key.axes if key is not None else (len(scale) - 2, len(scale) - 1)
    return float(camera_of(viewer).zoom * math.sqrt(abs(scale[axes[0]] * scale[axes[1]]))) or 1.0


def is_picture(layer: Any) -> bool:
    """Whether a layer is an image that a person opened."""
    return isinstance(layer, Image) and MINE not in layer.metadata


# ---------------------------------------------------------------- what is shown


def outline(mask: BoolArray, zoom: float) -> tuple[npt.NDArray[np.uint8], float]:
    """A picture of a mask: 1 inside and 2 on a rim about two screen pixels wide.

    Parameters
    ----------
    mask : bool array
        Not empty.
    zoom : float
        Screen pixels per pixel of the mask.

    Returns
    -------
    uint8 array, float
        The picture, and how many mask pixels one of its pixels spans: less than one when zoomed in, so that
        the rim stays thin, and more than one for a mask too large to be shown pixel by pixel.
    """
    room = math.sqrt(_OVERLAY_PIXELS / mask.size)
    fine = int(min(16, zoom / _RIM, room))
    coarse = math.ceil(max(1.0, 1 / room, 0.5 / zoom))
    if coarse > 1:
        picture, step = mask[::coarse, ::coarse], float(coarse)
    elif fine > 1:
        picture, step = mask.repeat(fine, axis=0).repeat(fine, axis=1), 1 / fine
    else:
        picture, step = mask, 1.0
    thickness = max(1, round(_RIM / (zoom * step)))
    core = np.pad(picture, thickness)
    for _ in range(thickness):  # each time one row and column fewer on every side
        core = core[1:-1, 1:-1] & core[:-2, 1:-1] & core[2:, 1:-1] & core[1:-1, :-2] & core[1:-1, 2:]
    return picture.astype(np.uint8) + (picture & ~core), step


def nearest_on(contours: Iterable[npt.NDArray[np.float64]], point: Point) -> tuple[Point, float] | None:
    """The point of the contour lines that is nearest to a point, and its distance; None without contours."""
    best: tuple[Point, float] | None = None
    here = np.asarray(point)
    for line in contours:
        start, along = line[:-1], np.diff(line, axis=0)
        length = np.maximum((along**2).sum(axis=1), 1e-12)
        part = np.clip(((here - start) * along).sum(axis=1) / length, 0, 1)
        foot = start + part[:, None] * along
        distance = np.hypot(*(foot - here).T)
        if len(foot) and (best is None or distance.min() < best[1]):
            nearest = foot[int(distance.argmin())]
            best = (float(nearest[0]), float(nearest[1])), float(distance.min())
    return best


class WorkLayers:
    """The layers in which the person works on one image: clicks, drags and the preview.

    Any of them may be deleted or renamed at any time; `make` brings back what is missing.
    """

    def __init__(self, viewer: ViewerModel, source: ImageSource) -> None:
        self.viewer, self.source = viewer, source
        self.clicks: Points | None = None
        self.rows = 0  # that the clicks layer has, also if its object is over and it has yet to be drawn anew
        self.drags: Shapes | None = None
        self.preview: Labels | None = None

    def make(self) -> None:
        """Add the layers that are missing."""
        zoom, placement = self.zoom(), self.source.placement()
        if self.preview is None:
            self.preview = _preview_layer(self.source.ndim, placement)
            self.viewer.add_layer(self.preview)
        if self.drags is None:
            self.drags = _drags_layer(self.source.ndim, placement, zoom)
            self.viewer.add_layer(self.drags)
        if self.clicks is None:
            self.clicks, self.rows = _clicks_layer(self.source.ndim, placement, zoom), 0
            self.viewer.add_layer(self.clicks)

    def forget(self, layer: Any) -> bool:
        """A layer was removed from the viewer; True if it was one of these."""
        for name in ("clicks", "drags", "preview"):
            if getattr(self, name) is layer:
                setattr(self, name, None)
                return True
        return False

    def remove(self) -> None:
        """Take the layers out of the viewer."""
        for layer in (self.clicks, self.drags, self.preview):
            if layer is not None and layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    @property
    def is_complete(self) -> bool:
        """Whether a person can click and see the answer."""
        return None not in (self.clicks, self.drags, self.preview)

    def move(self) -> None:
        """Follow the image after its scale, place or rotation changed."""
        for layer in (self.clicks, self.drags, self.preview):
            if layer is not None:
                place(layer, self.source)

    def zoom(self, key: PlaneKey | None = None) -> float:
        """Screen pixels per pixel of the labels."""
        return zoom_on(self.viewer, self.source, key)

    # ---- showing

    def show_draft(self, draft: Draft, extra: tuple[Correction, ...] = ()) -> None:
        """Show the clicks and drags of a draft, and perhaps a drag that is being made."""
        if self.clicks is not None:
            rows = np.empty((0, self.source.ndim)) if draft.plane is None else to_space(draft.plane, draft.clicks)
            if not np.array_equal(rows, self.clicks.data):
                with in_one_go(self.clicks):
                    self.clicks.data = rows
            self.rows = len(rows)
        if self.drags is None or getattr(self.drags, "_is_creating", False):  # a shape that is just being drawn stays
            return
        lines = []
        if draft.plane is not None:
            lines = [to_space(draft.plane, (c.start, c.end)) for c in (*draft.corrections, *extra)]
        shown = self.drags.data
        if len(shown) == len(lines) and all(
            np.array_equal(a, b.astype(a.dtype)) for a, b in zip(shown, lines, strict=True)
        ):
            return
        if _can_bend(self.drags, shown, lines):
            with in_one_go(self.drags, highlight=False, thumbnail=False):
                _bend(self.drags, shown, lines)
            return
        with in_one_go(self.drags):
            self.drags.selected_data = set(range(self.drags.nshapes))
            self.drags.remove_selected()
            if lines:
                width = _LINE / self.zoom(draft.plane)
                self.drags.add(lines, shape_type="line", edge_width=width, edge_color=DRAG_COLOR)
            self.drags.selected_data = set()

    def drop_unfinished(self) -> None:
        """Take away a box, line or polygon that is still being drawn."""
        if self.drags is None or not getattr(self.drags, "_is_creating", False):
            return
        with suppress(AttributeError), self.drags.events.data.blocker():  # private: another version may do otherwise
            self.drags._finish_drawing()

    def calm(self) -> None:
        """Deselect the click just made: napari's highlight would hide the boundary."""
        if self.clicks is not None and self.clicks.selected_data and str(self.clicks.mode) == "add":
            self.clicks.selected_data = set()

    def show_preview(self, key: PlaneKey, mask: ObjectMask) -> None:
        """Show a mask in the overlay."""
        if self.preview is None:
            return
        if mask.area == 0:
            self.hide_preview()
            return
        picture, step = outline(mask.mask, self.zoom(key))
        others = [a for a in range(self.source.ndim) if a not in key.axes]
        placement = self.source.placement()
        corner = to_space(key, [np.add(mask.origin, (step - 1) / 2)])[0]
        scale = placement["scale"].copy()
        scale[list(key.axes)] *= step
        with in_one_go(self.preview, extent=False, highlight=False, thumbnail=False):
            self.preview.data = np.expand_dims(picture if key.axes[0] < key.axes[1] else picture.T, others)
            self.preview.scale = scale
            self.preview.translate = physical(placement, corner)

    def hide_preview(self) -> None:
        """Show nothing in the overlay."""
        if self.preview is not None and self.preview.data.size > 1:
            placement = self.source.placement()
            with in_one_go(self.preview):
                self.preview.data = np.zeros((1,) * self.source.ndim, np.uint8)
                self.preview.scale, self.preview.translate = placement["scale"], placement["translate"]
            self.give_steps_back()

    def give_steps_back(self) -> None:
        """Sliders step by the finest layer, and the preview was finer than the image: have napari look again."""
        own, dims = self.source.layer.extent.step[-self.source.ndim :], self.viewer.dims
        first = dims.ndim - len(own)
        sliders = [axis for axis in dims.not_displayed if axis >= first]
        if self.preview is not None and any(dims.range[axis].step < 0.999 * own[axis - first] for axis in sliders):
            self.preview.events.scale()

    def rescale(self, key: PlaneKey | None) -> None:
        """Keep lines and markers as wide on the screen as they were after a change of zoom.

        Not by the layer's `canvas_size_limits`: with narrow ones, napari 0.9.2 draws some markers wrong.
        """
        zoom = self.zoom(key)
        if self.drags is not None:
            with self.drags.events.data.blocker():
                self.drags.current_edge_width = _LINE / zoom
                if self.drags.nshapes:
                    self.drags.edge_width = [_LINE / zoom] * self.drags.nshapes
        if self.clicks is not None:
            self.clicks.current_size = _MARKER / zoom
            if len(self.clicks.data):
                self.clicks.size = _MARKER / zoom


def _can_bend(layer: Shapes, shown: Sequence[npt.NDArray[Any]], lines: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether `_bend` can make these lines of those that are shown."""
    has_edit = hasattr(getattr(layer, "_data_view", None), "edit")  # private: another version may not have it
    return has_edit and not layer.selected_data and [one.shape for one in shown] == [one.shape for one in lines]


def _bend(layer: Shapes, shown: Sequence[npt.NDArray[Any]], lines: Sequence[npt.NDArray[Any]]) -> None:
    """Change lines in place, as napari's own tools do: a hand that pulls does so with every movement."""
    for number, (old, new) in enumerate(zip(shown, lines, strict=True)):
        if not np.array_equal(old, new.astype(old.dtype)):
            layer._data_view.edit(number, new.astype(old.dtype))


def takes_clicks(layer: Points) -> bool:
    """Whether clicks on the clicks layer do something: napari has a hidden or locked layer move the view only."""
    return bool(layer.visible and layer.editable) and str(layer.mode) != "pan_zoom"


@contextmanager
def in_one_go(layer: Any, **shown: bool) -> Iterator[None]:
    """Change data and place of a small layer that lies within the image, and have napari show it once.

    Each change by itself has napari work out the extent of all layers and draw the layer anew, and new data of
    labels has it compile their shader again: several times as slow as all the rest.

    Parameters
    ----------
    layer : Layer
        What is changed.
    shown : bool
        What `Layer.refresh` may leave out.
    """
    events = (layer.events.data, layer.events.scale, layer.events.translate)
    with ExitStack() as held:
        for emitter in events:
            held.enter_context(emitter.blocker())
        with suppress(AttributeError):  # private: another version of napari may not have it, and is slower then
            held.enter_context(layer._block_refresh())
        yield
    layer.refresh(**shown)


def physical(placement: dict[str, Any], point: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where a position of the labels' space lies before the layers' common affine."""
    parts = {name: placement[name] for name in ("scale", "translate", "rotate", "shear") if name in placement}
    return np.asarray(Affine(**parts)(point), float)


def place(layer: Any, source: ImageSource) -> None:
    """Put a layer where the image is."""
    for name, value in source.placement().items():
        setattr(layer, name, value)


def new_labels(source: ImageSource, dtype: npt.DTypeLike = np.uint16) -> Labels:
    """Empty labels for an image.

    Raises
    ------
    ValueError
        If the memory does not suffice.
    """
    try:
        data = np.zeros(source.shape, dtype)
    except MemoryError:
        needed = np.dtype(dtype).itemsize * math.prod(source.shape) / 2**30
        raise ValueError(
            f"labels for '{source.layer.name}' need {needed:.0f} GiB of memory; open labels that lie on disk "
            "(zarr) and choose them instead"
        ) from None
    metadata = {MINE: "labels", IMAGE: _identity(source)}
    return Labels(data, name=f"{source.layer.name} objects", metadata=metadata, **source.placement())


def is_of(labels: Labels, source: ImageSource) -> bool:
    """Whether labels were made for an image by a widget, which may have been closed since."""
    return bool(labels.metadata.get(IMAGE) == _identity(source))


def _identity(source: ImageSource) -> str:
    return str(getattr(source.layer, "unique_id", source.layer.name))


def _clicks_layer(ndim: int, placement: dict[str, Any], zoom: float) -> Points:
    """Small rings that leave the boundary in sight."""
    return Points(
        ndim=ndim,
        name=CLICKS,
        size=_MARKER / zoom,
        symbol="ring",
        face_color=CLICK_COLOR,
        border_width=0.0,
        border_color="transparent",
        metadata={MINE: "clicks"},
        **placement,
    )


def _drags_layer(ndim: int, placement: dict[str, Any], zoom: float) -> Shapes:
    layer = Shapes(ndim=ndim, name=DRAGS, opacity=1.0, metadata={MINE: "drags"}, **placement)
    layer.current_edge_color = DRAG_COLOR
    layer.current_face_color = "transparent"
    layer.current_edge_width = _LINE / zoom
    return layer


def _preview_layer(ndim: int, placement: dict[str, Any]) -> Labels:
    red, green, blue = (int(PREVIEW_COLOR[i : i + 2], 16) / 255 for i in (1, 3, 5))
    colors = {None: "transparent", 0: "transparent", 1: (red, green, blue, 0.25), 2: (red, green, blue, 1.0)}
    colormap = DirectLabelColormap(color_dict=colors)
    data = np.zeros((1,) * ndim, np.uint8)
    layer = Labels(data, name=PREVIEW, colormap=colormap, opacity=1.0, metadata={MINE: "preview"}, **placement)
    layer.editable = False
    return layer
