"""The dock widget "Annotate (DELSE)": four clicks, a preview, one key to accept it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QEvent, QTimer

from napari_delse.actions import Draft, LabelledObject
from napari_delse.edits import PlaneKey
from napari_delse.geometry import Correction, ObjectMask
from napari_delse.session import AnnotationSession
from napari_delse.widgets import _guide as guide
from napari_delse.widgets._brush import painted
from napari_delse.widgets._fields import fill
from napari_delse.widgets._layers import (
    MINE,
    LayerLabels,
    WorkLayers,
    camera_of,
    is_settled,
    largest_label,
    nearest_on,
    new_labels,
    place,
)
from napari_delse.widgets._outliner import Outlined, Outliner, PredictorLike, load_predictor, model_names
from napari_delse.widgets._panel import AnnotatePanel
from napari_delse.widgets._recording import Journals
from napari_delse.widgets._run import Runner
from napari_delse.widgets._source import ImageSource, to_plane, to_space

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import napari.viewer

    from napari_delse.records import Header

_GRAB = 8.0  # how near to the outline a pull must begin, screen pixels
_REACH = 24.0  # how near to it a drawn line must begin, screen pixels
_STILL = 5.0  # a shorter pull is a click, as napari has it; screen pixels
_SMALL = 4_000_000  # labels that are searched for the largest one at once


_NOTHING: dict[int, LabelledObject] = {}  # what there is without a session
Followed = list[tuple[Any, Callable[..., Any]]]  # events and what is called on them


_PATIENCE = 0.12  # seconds in which an answer comes unannounced
_TIMERS = {"soon": 0, "zoom": 80, "patience": 130}  # milliseconds


class AnnotateWidget(AnnotatePanel):
    """Outline objects with clicks and drags, and collect them in a Labels layer.

    Parameters
    ----------
    napari_viewer : Viewer
        Where to work.
    load : callable, optional
        Makes the predictor from the names of a model and a device, in the worker.
    names : callable, optional
        Lists the models, in the worker.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        load: Callable[[str, str], PredictorLike] = load_predictor,
        names: Callable[[], list[str]] = model_names,
    ) -> None:
        super().__init__()
        self.viewer = napari_viewer
        self._names = names
        self._outliner = Outliner(load, self._on_ready, self._on_load_failed)
        self._source: ImageSource | None = None
        self._layers: WorkLayers | None = None
        self._labels: Labels | None = None
        self._session: AnnotationSession | None = None
        self._sessions: WeakKeyDictionary[Labels, AnnotationSession] = WeakKeyDictionary()
        self._searched: set[AnnotationSession] = set()  # whose largest label is not known yet
        self._shown: tuple[object, ...] = ()
        self._notice, self._trouble = "", False
        self._asked_at = 0.0
        self._no_model = ""  # why the model did not load; stays until one does
        self._connected: Followed = []  # for as long as the widget lives
        self._followed: Followed = []  # for as long as the image is chosen
        self._bound: list[str] = []
        self._docked = self._closed = False
        self._reader = Runner("napari-delse-labels")
        self._journals = Journals(self._later)
        self._changed: set[int] = set()  # labels that the list shows as they were
        self._restoring: Labels | None = None
        workers = (self._outliner, self._reader, self._journals)
        self.destroyed.connect(partial(_let_go, workers, (self._connected, self._followed)))
        self._timers = {name: QTimer(self, singleShot=True, interval=ms) for name, ms in _TIMERS.items()}
        self._timers["soon"].timeout.connect(self._refresh)
        self._timers["patience"].timeout.connect(self._refresh)
        self._timers["zoom"].timeout.connect(self._on_zoomed)
        self._connect()
        self._outliner.runner.submit(self._names, self._on_models, self._say)
        self._load_model()
        self._refresh()
        QTimer.singleShot(0, self._start)  # the window shows up first: new layers take napari a moment

    # ---------------------------------------------------------------- set-up and end

    def _connect(self) -> None:
        fill(self.model_box, [("default", "default")], "default")
        devices = [("Automatic", "auto"), ("CPU", "cpu"), ("GPU (CUDA)", "cuda"), ("GPU (Apple)", "mps")]
        fill(self.device_box, devices, "auto")
        self.keys.setText(guide.keys_table())
        self.accept_button.clicked.connect(lambda: self.accept())
        self.restart_button.clicked.connect(lambda: self.start_over())
        self.undo_button.clicked.connect(lambda: self.undo())
        self.redo_button.clicked.connect(lambda: self.redo())
        self.image_box.activated.connect(lambda _: self._choose_image(self.image_box.currentData()))
        self.channel_box.activated.connect(lambda _: self._choose_image(self.image_box.currentData()))
        self.channels_edit.editingFinished.connect(self._on_channels)
        self.labels_box.activated.connect(lambda _: self._choose_labels(self.labels_box.currentData()))
        self.model_box.activated.connect(lambda _: self._load_model())
        self.device_box.activated.connect(lambda _: self._load_model())
        self.protect_box.toggled.connect(self._on_protect)
        self.restore_button.clicked.connect(lambda: self.restore())
        self.discard_button.clicked.connect(lambda: self._journals.discard(self._say))
        self.review.chosen.connect(self.show_object)
        self.review.reopen.connect(self.reopen_object)
        self.review.delete.connect(self.delete_object)
        layers, dims = self.viewer.layers, self.viewer.dims
        for emitter, callback in (
            (layers.events.inserted, self._on_inserted),
            (layers.events.removed, self._on_removed),
            (layers.selection.events.active, self._later),
            (dims.events.ndisplay, self._later),
            (camera_of(self.viewer).events.zoom, self._on_zoom),
        ):
            self._follow(self._connected, emitter, callback)
        for layer in layers:
            self._follow(self._connected, layer.events.name, self._on_renamed)
        self._bind(self.viewer, "N", self.accept)
        self._bind(self.viewer, "W", self.switch_tool)
        review = self.review
        self._bind(self.viewer, "Shift-N", review.next_button.click)
        self._bind(self.viewer, "Shift-B", review.previous_button.click)
        self._bind(self.viewer, "Shift-U", review.unsure_button.click)
        self._bind(self.viewer, "Shift-R", review.reopen_button.click)
        self._bind(self.viewer, "Shift-D", review.delete_button.click)

    @staticmethod
    def _follow(kept: Followed, emitter: Any, callback: Callable[..., Any]) -> None:
        emitter.connect(callback)
        kept.append((emitter, callback))

    def _bind(self, owner: Any, key: str, action: Callable[[], None]) -> None:
        """Bind a key of the viewer unless somebody else has it, or of one of our own layers."""
        try:
            owner.bind_key(key, lambda _: action(), overwrite=owner is not self.viewer)
        except ValueError:
            return
        if owner is self.viewer:
            self._bound.append(key)

    def _start(self) -> None:
        if self._closed or self._source is not None:
            return
        self._fill_choices()
        images = [layer for layer in self.viewer.layers if isinstance(layer, Image)]
        active = self.viewer.layers.selection.active
        if images:
            self._choose_image(active if isinstance(active, Image) else images[-1])

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Notice being taken out of the window: napari orphans the widget of a dock that is closed."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.shut_down()

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop working when closed as a window of its own."""
        self.shut_down()
        super().closeEvent(event)

    def shut_down(self) -> None:
        """Leave the viewer as if the widget had never been opened, but for the labels."""
        if self._closed:
            return
        self._closed = True
        _let_go((self._outliner, self._reader), (self._connected,))
        for key in self._bound:
            with suppress(Exception):
                self.viewer.bind_key(key, None)
        with suppress(Exception):  # the viewer may be half gone
            self._leave()
        self._journals.close()

    @property
    def is_ready(self) -> bool:
        """Whether a person can click and will be answered."""
        return self._outliner.is_ready and self._layers is not None and self._layers.is_complete

    @property
    def preview_mask(self) -> ObjectMask | None:
        """The pixels that would be accepted now."""
        preview = None if self._session is None else self._session.preview
        return None if preview is None else preview.mask

    @property
    def has_shown_preview(self) -> bool:
        """Whether the preview of what was said last is on the canvas."""
        return (
            self.preview_mask is not None and self._session is not None and self._shown[:1] == (self._session.preview,)
        )

    @property
    def accepted(self) -> int:
        """How many objects the labels got here."""
        return 0 if self._session is None else len(self._session.objects)

    # ---------------------------------------------------------------- model

    def _load_model(self) -> None:
        for session in self._sessions.values():
            session.forget_predictions()
        self._no_model = ""
        self._outliner.use(self.model_box.currentData(), self.device_box.currentData())
        self._later()

    def _on_load_failed(self, error: BaseException) -> None:
        self._no_model = guide.sentence(error)
        self._later()

    def _on_ready(self) -> None:
        self._journals.use_model(self.model_box.currentData(), self._outliner.runner)
        self._say()
        self._ask()

    def _on_models(self, names: list[str]) -> None:
        names = names or ["default"]
        chosen = self.model_box.currentData()
        fill(self.model_box, [(name, name) for name in names], chosen if chosen in names else names[0])

    # ---------------------------------------------------------------- image and labels

    def _choose_image(self, layer: Image | None) -> None:
        """Work on this image from now on; None for none at all."""
        try:
            source = None if layer is None else ImageSource(layer, *self._chosen_channels(layer))
        except ValueError as error:
            self._say(error)
            return
        self._leave()
        self._source = source
        if source is not None:
            self._layers = WorkLayers(self.viewer, source)
            for name in ("scale", "translate", "rotate", "shear", "affine"):
                self._follow(self._followed, getattr(source.layer.events, name), self._on_moved)
            self._follow(self._followed, source.layer.events.data, self._on_image_data)
            kept = [other for other in self._matching_labels() if other in self._sessions]
            self._choose_labels(kept[-1] if kept else None)
        self._journals.look(source)
        self._fill_choices()
        self._later()

    def _chosen_channels(self, layer: Image) -> tuple[int | None, tuple[int, ...]]:
        if layer is not self.image_box.currentData():
            return None, ()
        axis = self.channel_box.currentData()
        text = self.channels_edit.text().replace(",", " ").split()
        try:
            return axis, tuple(int(word) for word in text) if axis is not None else ()
        except ValueError:
            raise ValueError(
                "channels are numbers counted from 0, such as 0,2; correct them or leave them out"
            ) from None

    def _choose_labels(self, layer: Labels | None) -> None:
        """Write to these labels from now on; None makes a new layer."""
        if self._source is None or self._layers is None:
            return
        try:
            if layer is None:
                layer = new_labels(self._source)
                self.viewer.add_layer(layer)
                self._begin_session(layer, blank=True)
        except ValueError as error:
            self._say(error)
            return
        if self._labels is not None:
            with suppress(Exception):
                self._labels.events.paint.disconnect(self._on_painted)
        self._labels = layer
        if layer not in self._sessions:
            self._begin_session(layer)
        self._session = self._sessions[layer]
        self._session.observer = self._changed.update
        self._session.protect = self.protect_box.isChecked()
        self._follow(self._followed, layer.events.paint, self._on_painted)
        self._make_layers()
        self._say()
        self._fill_choices()
        self._ask()

    def _begin_session(self, layer: Labels, *, blank: bool = False) -> None:
        """A session on labels, recorded from its first action on."""
        session = self._sessions[layer] = AnnotationSession(LayerLabels(layer))
        if not blank:
            self._search(session, layer.data)
            blank = session.largest_found == 0 and session not in self._searched
        if self._source is not None:
            self._journals.record(session, self._source, blank=blank)

    def _search(self, session: AnnotationSession, data: Any) -> None:
        """Find the largest label that is there already: large or lazy arrays off the GUI thread."""
        if isinstance(data, np.ndarray) and data.size <= _SMALL:
            session.note_label(largest_label(data))
            return
        self._searched.add(session)

        def found(largest: int) -> None:
            session.note_label(largest)
            self._searched.discard(session)
            self._later()

        job = partial(largest_label, data, lambda: self._reader.is_closed)
        self._reader.submit(job, found, self._say)

    def _make_layers(self) -> None:
        """Bring the working layers (back) and make the clicks layer active."""
        if self._layers is None or self._source is None:
            return
        had = self._layers.clicks, self._layers.drags
        self._layers.make()
        clicks, drags = self._layers.clicks, self._layers.drags
        if clicks is not None and clicks is not had[0]:
            self._follow(self._followed, clicks.events.data, self._on_clicks)
            clicks.mouse_drag_callbacks.append(self._on_pull)
            self._bind_layer(clicks)
        if drags is not None and drags is not had[1]:
            self._follow(self._followed, drags.events.data, self._on_drags)
            self._bind_layer(drags)
        self._take_clicks()

    def _bind_layer(self, layer: Any) -> None:
        for key, action in (
            ("Enter", self.accept),
            ("Escape", self.start_over),
            ("Control-Z", self.undo),
            ("Control-Shift-Z", self.redo),
        ):
            self._bind(layer, key, action)

    def _take_clicks(self) -> None:
        if self._layers is not None and self._layers.clicks is not None:
            self.viewer.layers.selection.active = self._layers.clicks
            self._layers.clicks.mode = "add"

    def _leave(self) -> None:
        """Stop working on the present image; its labels and its session stay."""
        _unfollow(self._followed)
        layers, labels, session = self._layers, self._labels, self._session
        self._source = self._layers = self._labels = self._session = None
        self._shown = ()
        if layers is not None:
            layers.remove()
        unused = session is not None and session.next_label == 1  # nothing accepted, nothing painted
        if unused and labels is not None and labels.metadata.get(MINE) and labels in self.viewer.layers:
            self._journals.end(self._sessions.pop(labels, None))
            self.viewer.layers.remove(labels)

    def _matching_labels(self) -> list[Labels]:
        if self._source is None:
            return []
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels)
            and layer.metadata.get(MINE) != "preview"
            and not layer.multiscale
            and tuple(layer.data.shape) == self._source.shape
        ]

    def _fill_choices(self) -> None:
        chosen = None if self._source is None else self._source.layer
        fill(self.image_box, [(x.name, x) for x in self.viewer.layers if isinstance(x, Image)], chosen)
        fill(self.labels_box, [*((x.name, x) for x in self._matching_labels()), ("New layer", None)], self._labels)
        channel = None if self._source is None else self._source.channel_axis
        axes: list[tuple[str, int | None]] = [("None", None)]
        if chosen is not None and not chosen.rgb and chosen.ndim > 2:
            data = chosen.data[0] if chosen.multiscale else chosen.data
            names = getattr(chosen, "axis_labels", None) or [""] * chosen.ndim
            axes += [
                (f"{names[a] or a} ({data.shape[a]} channels)", a) for a in range(chosen.ndim) if data.shape[a] < 64
            ]
        fill(self.channel_box, axes, channel)
        self.show_row(self.channel_box, visible=len(axes) > 1)
        self.show_row(self.channels_edit, visible=channel is not None)

    # ---------------------------------------------------------------- what the viewer tells

    def _on_inserted(self, event: Any) -> None:
        self._follow(self._connected, event.value.events.name, self._on_renamed)
        if isinstance(event.value, (Image, Labels)):
            self._fill_choices()
        if isinstance(event.value, Image) and self._source is None:
            QTimer.singleShot(0, self._start)

    def _on_removed(self, event: Any) -> None:
        layer = event.value
        if isinstance(layer, Labels):
            self._journals.end(self._sessions.pop(layer, None))
        if self._source is not None and layer is self._source.layer:
            QTimer.singleShot(0, self._on_image_removed)
        elif layer is self._labels:
            self._labels = self._session = None
            if self._layers is not None:
                self._layers.show_draft(Draft())
                self._layers.hide_preview()
            self._shown = ()
        elif self._layers is not None:
            was_clicks = layer is self._layers.clicks
            if self._layers.forget(layer) and self._session is not None:
                if was_clicks:
                    self._session.clear()
                self._shown = ()
        self._fill_choices()
        self._later()

    def _on_image_removed(self) -> None:
        if not self._closed:
            self._choose_image(None)
            self._start()

    def _on_renamed(self) -> None:
        self._fill_choices()
        self._later()

    def _on_moved(self) -> None:
        """The image was scaled, moved or turned: everything on it goes along."""
        if self._layers is not None and self._source is not None:
            self._layers.move()
            if self._labels is not None and self._labels.metadata.get(MINE):
                place(self._labels, self._source)
            self._shown = ()
            self._later()

    def _on_image_data(self) -> None:
        if self._source is not None and self._labels is not None and self._session is not None:
            self._session.forget_predictions()
            if self._source.shape != tuple(self._labels.data.shape):
                QTimer.singleShot(0, partial(self._choose_image, self._source.layer))
            else:
                self._ask()

    def _on_painted(self, event: Any) -> None:
        """The brush was used, and not by us."""
        session, labels = self._session, self._labels
        if session is None or labels is None or getattr(session.store, "is_writing", False):
            return
        try:
            for stroke in painted(event.value):
                session.note_painted(*stroke)
        except (AttributeError, TypeError, ValueError):  # another version of napari may tell it otherwise
            session.note_label(labels.selected_label)

    def _on_zoom(self) -> None:
        self._timers["zoom"].start()

    def _on_zoomed(self) -> None:
        if self._layers is not None and self._session is not None:
            self._layers.rescale(self._session.draft.plane)
            self._shown = ()
            self._refresh()

    def _on_protect(self, checked: bool) -> None:
        if self._session is not None:
            self._session.protect = checked
        self._say()

    def _on_channels(self) -> None:
        if self._source is not None:
            with suppress(ValueError):
                if self._chosen_channels(self._source.layer) == (self._source.channel_axis, self._source.channels):
                    return
            self._choose_image(self._source.layer)

    def _on_clicks(self, event: Any) -> None:
        """Points were added, moved or removed on the clicks layer."""
        if self._layers is None or self._source is None or self._session is None or not is_settled(event):
            self._later()
            return
        rows, session = np.asarray(event.source.data), self._session
        with self._told():
            known = len(session.draft.clicks)
            if len(rows) > known:
                for row in rows[known:]:
                    key = self._source.shown_plane(self.viewer, row)
                    session.add_click(key, to_plane(key, row))
            else:
                key = session.draft.plane or PlaneKey()
                session.set_clicks(key, [to_plane(key, row) for row in rows])
        self._ask()

    def _on_drags(self, event: Any) -> None:
        """Lines were drawn, moved or deleted on the drags layer, or a box was drawn there."""
        if self._layers is None or self._session is None or self._source is None or not is_settled(event):
            return
        session, shapes, kinds = self._session, event.source.data, list(event.source.shape_type)
        with self._told():
            if "rectangle" in kinds and session.draft.is_empty:
                key = self._source.shown_plane(self.viewer, shapes[kinds.index("rectangle")][0])
                session.set_box(key, [to_plane(key, row) for row in shapes[kinds.index("rectangle")]])
            elif any(kind not in ("line", "path") for kind in kinds):
                raise ValueError(
                    "a correction is a line from the outline to where it belongs; draw it with the line tool (L)"
                )
            else:
                key = session.draft.plane or PlaneKey()
                lines = [Correction(to_plane(key, s[0]), to_plane(key, s[-1])) for s in shapes]
                known = {_single(c): c for c in session.draft.corrections}
                session.set_corrections(known.get(_single(c)) or self._on_outline(c) for c in lines)
        self._ask()

    def _on_outline(self, drag: Correction) -> Correction:
        """The drag with its start put onto the outline it corrects.

        Raises
        ------
        ValueError
            If it begins too far away.
        """
        found = self._nearest(drag.start)
        if found is None:
            return drag
        start, distance = found
        if distance > _REACH:
            raise ValueError(f"that line begins {distance:.0f} screen pixels from the outline; begin it on the outline")
        return Correction(start, drag.end)

    def _nearest(self, point: tuple[float, float]) -> tuple[tuple[float, float], float] | None:
        """The nearest point of the outline and its distance in screen pixels."""
        preview = None if self._session is None else self._session.preview
        if not isinstance(preview, Outlined) or self._layers is None or self._session is None:
            return None
        found = nearest_on(preview.contours, point)
        return None if found is None else (found[0], found[1] * self._layers.zoom(self._session.draft.plane))

    def _on_pull(self, layer: Any, event: Any) -> Iterator[None]:
        """A press near the outline, followed by a movement, pulls it; a short one stays a click."""
        session, layers, source = self._session, self._layers, self._source
        if session is None or layers is None or source is None or event.button != 1 or str(layer.mode) != "add":
            return
        position = layer.world_to_data(event.position)
        try:
            key = source.shown_plane(self.viewer, position)
        except ValueError:
            return
        found = self._nearest(to_plane(key, position)) if key == session.draft.plane else None
        if found is None or found[1] > _GRAB:
            return
        start, pressed = found[0], np.asarray(event.pos)

        def pull() -> Correction | None:
            end = to_plane(key, layer.world_to_data(event.position))
            far = np.hypot(*(np.asarray(event.pos) - pressed)) >= _STILL
            return Correction(start, end) if far and end != start else None

        layer.mouse_pan = False  # the camera stays
        try:
            yield
            while event.type == "mouse_move":
                layers.show_draft(session.draft, (drag,) if (drag := pull()) else ())
                yield
        finally:
            layer.mouse_pan = True
        if (drag := pull()) is not None and session is self._session and session.preview is not None:
            with self._told():
                session.add_correction(drag)
            self._ask()

    # ---------------------------------------------------------------- what the person wants

    def accept(self) -> None:
        """Write the preview into the labels and begin the next object."""
        session = self._session
        if session is None or self._labels is None:
            self._later()
            return
        if session in self._searched:
            self._say(ValueError("the labels are still being searched for the largest one; accept again in a moment"))
            return
        with self._told("the labels could not be written: "):
            made = session.commit()
            self._labels.selected_label = made.label
            self._take_clicks()
            self._refresh()
            self.review.mark(made.label)

    def start_over(self) -> None:
        """Forget the object in progress, and bring back layers that were deleted."""
        if self._source is None:
            self._start()
        elif self._labels is None:
            self._choose_labels(None)
        else:
            with self._told():
                if self._session is not None:
                    self._session.clear()
                self._make_layers()
            self._ask()

    def undo(self) -> None:
        """Take the last click, drag, accepted or deleted object back."""
        self._step(AnnotationSession.undo)

    def redo(self) -> None:
        """Do again what was undone."""
        self._step(AnnotationSession.redo)

    def _step(self, step: Callable[[AnnotationSession], Any]) -> None:
        if self._session is None:
            return
        with self._told("the labels could not be written: "):
            if (action := step(self._session)) is not None:
                self._go_to(action.plane)
        self._ask()

    def show_object(self, label: int) -> None:
        """Go to the plane of an object and put it into the middle of the view."""
        made = None if self._session is None else self._session.objects.get(label)
        if made is None or self._source is None or self._layers is None or self._layers.clicks is None:
            return
        piece = next((one for one in made.pieces if self._is_shown(one.plane)), made)
        dims, offset = self.viewer.dims, self.viewer.dims.ndim - self._source.ndim
        axes = [axis + offset for axis in piece.plane.axes]
        if sorted(axes) != sorted(dims.displayed[-2:]):
            dims.order = (*(axis for axis in range(dims.ndim) if axis not in axes), *sorted(axes))
        self._go_to(piece.plane)
        middle = np.add(piece.mask.origin, np.array(piece.mask.shape) / 2 - 0.5)
        world = np.zeros(dims.ndim)
        world[offset:] = self._layers.clicks.data_to_world(to_space(piece.plane, [middle])[0])
        camera = camera_of(self.viewer)
        camera.center = (*tuple(camera.center)[:-2], *world[list(dims.displayed[-2:])])
        self._later()

    def _is_shown(self, plane: PlaneKey) -> bool:
        """Whether the viewer shows this plane now."""
        if self._source is None or self._layers is None or self._layers.clicks is None:
            return False
        with suppress(ValueError):
            point = np.asarray(self.viewer.dims.point)[-self._source.ndim :]
            return self._source.shown_plane(self.viewer, self._layers.clicks.world_to_data(point)) == plane
        return False

    def reopen_object(self, label: int) -> None:
        """Edit the clicks of an accepted object again; it is accepted under the same label."""
        if self._session is None or label not in self._session.objects:
            return
        with self._told():
            pieces = self._session.objects[label].pieces
            plane = next((one.plane for one in pieces if self._is_shown(one.plane)), pieces[0].plane)
            self._session.reopen(label, plane)
            self._go_to(plane)
            self._take_clicks()
        self._ask()

    def delete_object(self, label: int) -> None:
        """Take an accepted object out of the labels."""
        if self._session is None or label not in self._session.objects:
            return
        with self._told("the labels could not be written: "):
            self._session.delete(label)
        self._ask()

    def restore(self) -> None:
        """Bring unfinished work on this image back: into the labels if they are untouched, else into new ones."""
        offer = self._journals.offer
        if offer is None or self._source is None or self._restoring is not None:
            return
        with self._told():
            layer = self._labels_for(offer.header)
            self._restoring = layer
            if layer is self._labels:
                self._session = None
            self._journals.restore(layer.data, partial(self._on_restored, self._source, layer), self._not_restored)

    def _labels_for(self, header: Header) -> Labels:
        """The labels that unfinished work is restored into.

        Raises
        ------
        ValueError
            If it began with labels that are not there, or the memory does not suffice for new ones.
        """
        assert self._source is not None
        found = [x for x in self._matching_labels() if np.dtype(x.data.dtype) == np.dtype(header.dtype)]
        free = [x for x in found if x not in self._sessions or not self._sessions[x].can_undo]
        if not header.blank:
            filled = [x for x in free if not x.metadata.get(MINE) or self._labels is not x]
            if self._labels in filled or len(filled) == 1:
                return self._labels if self._labels in filled else filled[0]
            raise ValueError(
                "this work began with labels that were there already; open them, choose them as the labels, "
                "and restore it then"
            )
        mine = self._labels
        if mine is not None and mine in free and mine.metadata.get(MINE) and self._sessions[mine].next_label == 1:
            return mine
        layer = new_labels(self._source)
        if np.dtype(layer.data.dtype) != np.dtype(header.dtype):
            layer.data = np.zeros(self._source.shape, header.dtype)
        return layer

    def _on_restored(self, source: ImageSource, layer: Labels, session: AnnotationSession) -> None:
        self._restoring = None
        if layer not in self.viewer.layers:
            self.viewer.add_layer(layer)
        self._journals.end(self._sessions.get(layer))
        session.store = LayerLabels(layer)
        self._sessions[layer] = session
        with suppress(AttributeError):  # private: what napari would undo is gone
            layer._reset_history()
        layer.refresh()
        if self._source is source:
            self._choose_labels(layer)

    def _not_restored(self, error: Exception) -> None:
        self._restoring = None
        if self._labels is not None:
            self._session = self._sessions.get(self._labels)
        self._say(error)

    def _go_to(self, plane: PlaneKey | None) -> None:
        """Show the plane on which something changes."""
        if plane is None or self._layers is None or self._layers.clicks is None or not plane.index:
            return
        world = self._layers.clicks.data_to_world(to_space(plane, [(0, 0)])[0])
        offset = self.viewer.dims.ndim - len(world)
        for axis, value in enumerate(world):
            if axis not in plane.axes:
                self.viewer.dims.set_point(axis + offset, value)

    def switch_tool(self) -> None:
        """Between clicking and drawing correction lines."""
        if self._layers is None or self._layers.clicks is None or self._layers.drags is None:
            return
        if self.viewer.layers.selection.active is self._layers.clicks:
            self.viewer.layers.selection.active = self._layers.drags
            self._layers.drags.mode = "add_line"
        else:
            self._take_clicks()

    # ---------------------------------------------------------------- prediction

    def _ask(self) -> None:
        """Have predicted what is missing, and show what is there as soon as napari is done with its event."""
        self._later()
        session, source = self._session, self._source
        if session is None or source is None or not self._outliner.is_ready:
            return
        request = session.request()
        if request is None or request.draft.plane is None:
            return
        try:
            plane = source.plane(request.draft.plane)
        except ValueError as error:
            session.fail(request)
            self._say(error)
        else:
            self._asked_at = monotonic()
            self._outliner.outline(session, request, plane, self._refresh, self._say)

    # ---------------------------------------------------------------- showing

    @contextmanager
    def _told(self, what: str = "") -> Iterator[None]:
        """Whatever goes wrong inside is told in the status line, and what went wrong before no more."""
        self._say()
        try:
            yield
        except ValueError as error:  # the session's, written for people
            self._say(error)
        except Exception as error:  # that of an array, a disk, a driver ...
            self._say(RuntimeError(f"{what}{error}"))

    def _say(self, error: BaseException | None = None) -> None:
        """Show what went wrong until the next action, or that nothing does."""
        self._notice, self._trouble = (guide.sentence(error), True) if error is not None else ("", False)
        self._later()

    def _later(self) -> None:
        if not self._closed:
            self._timers["soon"].start()

    def _refresh(self) -> None:
        """Bring layers, buttons and the status line in step with the session."""
        if self._closed:
            return
        session, layers = self._session, self._layers
        if session is not None and session.is_waiting and monotonic() - self._asked_at < _PATIENCE:
            self._timers["patience"].start()  # the answer is near: painting now would only make it wait
            return
        preview = None if session is None else session.preview
        if session is not None and layers is not None:
            layers.show_draft(session.draft)
            layers.calm()
            state = (preview, session.draft.plane)
            if state != self._shown:
                self._shown = state
                if preview is not None and session.draft.plane is not None:
                    layers.show_preview(session.draft.plane, preview.mask)
                else:
                    layers.hide_preview()
        self.accept_button.setEnabled(preview is not None and preview.mask.area > 0)
        self.restart_button.setEnabled(self._source is not None)
        self.undo_button.setEnabled(session is not None and session.can_undo)
        self.redo_button.setEnabled(session is not None and session.can_redo)
        objects = _NOTHING if session is None else session.objects
        changed = self._changed.copy()
        self._changed.clear()
        has_planes = self._source is not None and self._source.ndim > 2
        self.review.show_objects(objects, changed, has_planes=has_planes)
        offer = None if self._restoring is not None else self._journals.offer
        made = len(objects)
        self.count.setText("" if made == 0 else f"{made} object{'s' * (made > 1)} accepted")
        is_crowded = made > 0 and offer is not None
        if is_crowded:  # first, since Qt makes the window larger at once for what is shown
            self.keys.hide()
        self.show_offer("" if offer is None else offer.text)
        self.review.setVisible(made > 0)
        self.keys.setVisible(not is_crowded)
        problem = self._journals.problem(session)
        trouble = self._no_model or problem
        self.show_status(self._what_next(), self._notice or trouble, trouble=self._trouble or bool(trouble))

    def _what_next(self) -> str:
        session, layers = self._session, self._layers
        if self._source is None or layers is None:
            return guide.NO_IMAGE
        if self._restoring is not None and self._restoring is self._labels:
            return "The unfinished work is being restored ..."
        if session is None:
            return "The labels layer was deleted: Start over makes a new one."
        if not layers.is_complete:
            return "A layer of this widget was deleted: Start over brings it back."
        if self.viewer.dims.ndisplay != 2:
            return "Objects are outlined in the 2D view: switch to it with Ctrl+Y."
        preview = session.preview
        active = self.viewer.layers.selection.active
        if active is layers.drags and (preview is not None or session.draft.is_empty):
            if preview is None:
                return "Draw a box around an object with the rectangle tool (R), or press W to click."
            return "Draw a line from the outline to where it belongs. Enter accepts, W goes back to clicking."
        if active is not layers.clicks:
            return f"Press W to go back to clicking (layer '{layers.clicks.name}')." if layers.clicks else ""
        again = "" if session.draft.label is None else f"Object {session.draft.label} again: "
        if session.draft.missing:
            return again + guide.next_click(session.draft.missing)
        if preview is not None:
            return again + guide.preview(preview.mask.area, preview.confidence)
        if self._no_model:
            return "There is no model: choose another model or device."
        if not self._outliner.is_ready and not self._trouble:
            return "The model is being loaded; the outline appears by itself."
        if session.is_waiting:
            return "Outlining the object ..."
        return "There is no outline: click a further point of the boundary, or press Esc and start over."


def _single(drag: Correction) -> tuple[float, ...]:
    """A drag in the single precision in which napari keeps shapes."""
    return tuple(float(np.float32(value)) for value in (*drag.start, *drag.end))


def _unfollow(kept: Followed) -> None:
    for emitter, callback in kept:
        with suppress(Exception):  # the layer may be gone for good
            emitter.disconnect(callback)
    kept.clear()


def _let_go(runners: Iterable[Runner | Outliner | Journals], followed: Iterable[Followed]) -> None:
    """Let no answer and no event of the viewer come any more; also after Qt has deleted the widget."""
    for runner in runners:
        runner.close()
    for kept in followed:
        _unfollow(kept)
