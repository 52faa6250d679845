"""What is worked on: an image, the layers made for it, the labels, and the session that writes to them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet, ref

import numpy as np
from napari.layers import Image, Labels
from qtpy.QtCore import QObject, QTimer, Signal

from napari_delse.annotation.actions import Draft
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets import _guide as guide
from napari_delse.widgets._kept import is_kept, keep, take_up
from napari_delse.widgets._label_store import LayerLabels, is_quick, largest_label
from napari_delse.widgets._layers import MINE, WorkLayers, is_of, new_labels, place, takes_clicks
from napari_delse.widgets._removing import ready_to_remove
from napari_delse.widgets._run import Runner
from napari_delse.widgets._sessions import Sessions
from napari_delse.widgets._source import ImageSource, is_same_picture

if TYPE_CHECKING:
    from pathlib import Path

    from napari.components import ViewerModel

    from napari_delse.widgets._notices import Notices
    from napari_delse.widgets._recording import Journals

_SEEN_THROUGH = 300_000_000  # labels that are looked through before their layer is removed
_DESKS: WeakSet[Desk] = WeakSet()


def desk_of(layer: Labels) -> Desk | None:
    """Where somebody works on labels at present."""
    return next((desk for desk in _DESKS if layer in desk.sessions), None)


def _is_ours(labels: Labels) -> bool:
    """Whether labels were made by a widget, and nobody has written into their array without telling."""
    data = labels.data
    if not labels.metadata.get(MINE) or not isinstance(data, np.ndarray):
        return False
    return data.size > _SEEN_THROUGH or not data.any()


class Desk(QObject):
    """The image that is worked on, with its working layers, its labels and their session.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are.
    journals : Journals
        Where sessions are recorded.
    notices : Notices
        Where trouble is told.
    changed : callable
        Called when something else is to be shown.
    """

    image_chosen = Signal(object)  # an ImageSource, after its layers were prepared; None for no image
    labels_chosen = Signal(object)  # Labels, with their session
    layer_made = Signal(object)  # a clicks or drags layer that came (back)
    left = Signal()  # the present image is about to be left
    moved = Signal()  # the image was scaled, moved or turned, and its layers with it
    objects_changed = Signal(object)  # labels of objects that came, changed or went
    step_wanted = Signal(object, object)  # Labels whose undo keys were pressed, and the session's undo or redo

    def __init__(
        self, viewer: ViewerModel, journals: Journals, notices: Notices, changed: Callable[[], object]
    ) -> None:
        super().__init__()
        self.viewer = viewer
        self.source: ImageSource | None = None
        self.layers: WorkLayers | None = None
        self.labels: Labels | None = None
        self.session: AnnotationSession | None = None
        self.sessions = Sessions(notices.say, self.step_wanted.emit, self._on_replaced)
        self.searched: WeakKeyDictionary[AnnotationSession, bool] = WeakKeyDictionary()  # whose largest label is not
        # known yet, and whether somebody looks for it
        self._used: WeakKeyDictionary[Labels, ref[Image]] = WeakKeyDictionary()  # the image they were worked on with
        self.restoring: Labels | None = None  # work is being brought back into these, so that they have no session
        self.shown: tuple[object, ...] = ()  # preview and plane that are on the canvas
        self.policy = LabelPolicy()
        self.reader = Runner("napari-delse-labels")
        self._journals, self._notices, self._changed = journals, notices, changed
        self._is_closed = False
        _DESKS.add(self)

    def close(self) -> None:
        """Take up nothing any more: what Qt still has to call may come after the widget is gone."""
        self._is_closed = True
        self.sessions.let_go()
        self.reader.close()

    def look(self) -> None:
        """Something was done with a session from elsewhere."""
        self._changed()

    def keep(self) -> None:
        """End all work, and leave its sessions to the next widget that takes up their labels."""
        for layer in self.sessions:
            session, written = self.sessions[layer], self.end(layer)
            if layer in self.viewer.layers and not session.is_untouched:
                keep(layer, session, written)

    def end(self, layer: Labels) -> Path | None:
        """End the work on labels; the journal of their session, if all of it stands there."""
        return self._journals.end(self.sessions.end(layer))

    @property
    def is_complete(self) -> bool:
        """Whether all layers are there that a person needs."""
        return self.layers is not None and self.layers.is_complete

    # ---- image

    def choose_image(
        self, layer: Image | None, channel_axis: int | None = None, channels: tuple[int, ...] = ()
    ) -> None:
        """Work on this image from now on; None for none at all."""
        if self._is_closed:
            return
        try:
            source = None if layer is None else ImageSource(layer, channel_axis, channels)
        except ValueError as error:
            self._notices.say(error)
            return
        self.leave()
        self.source = source
        if source is not None:
            self.layers = WorkLayers(self.viewer, source)
            labels = self._labels_of(source)
            others = [] if labels is not None else [x for x in self.matching_labels() if x in self.sessions]
            self.choose_labels(labels)
            if others:
                self._notices.tell(guide.own_labels(source.layer.name, others[-1].name))
        self._journals.look(source)
        self.image_chosen.emit(source)
        self._changed()

    def choose_again(self, source: ImageSource) -> None:
        """Begin with an image anew once napari is done with its event: it or its labels have another shape by now."""
        QTimer.singleShot(0, partial(self.choose_image, source.layer, source.channel_axis, source.channels))

    def _labels_of(self, source: ImageSource) -> Labels | None:
        """The labels to go on with: those last worked on with this image, else made for it, else of no other one."""
        found = self.matching_labels()
        used = [x for x, image in self._used.items() if x in found and image() is source.layer]
        own = [x for x in found if is_of(x, source)]
        begun = [x for x in found if x in self.sessions or is_kept(x)]
        wanted = used or [x for x in own if x in begun] or own or [x for x in begun if not self._is_taken(x, source)]
        return wanted[-1] if wanted else None

    def _is_taken(self, labels: Labels, source: ImageSource) -> bool:
        """Whether labels are those of another picture that is open: not of another channel of the same one."""
        image = self._used[labels]() if labels in self._used else None
        for other in self.viewer.layers:
            if isinstance(other, Image) and other.ndim > 1 and (other is image or is_of(labels, ImageSource(other))):
                return not is_same_picture(other, source.layer)
        return False

    def leave(self) -> None:
        """Stop working on the present image; its labels and its session stay, unless nothing is in them."""
        ready_to_remove(self.viewer)
        self.left.emit()
        source, layers, labels, session = self.source, self.layers, self.labels, self.session
        self.source = self.layers = self.labels = self.session = None
        self.shown = ()
        self.forget_predictions()  # the labels may be taken up with another image, or other channels of it
        if layers is not None:
            layers.remove()
        unused = session is not None and session.next_label == 1 and not self._is_wanted(source, session)
        if unused and labels is not None and _is_ours(labels) and labels in self.viewer.layers:
            self.end(labels)
            self.viewer.layers.remove(labels)

    def _is_wanted(self, source: ImageSource | None, session: AnnotationSession) -> bool:
        """Whether somebody may come back to what can be undone; to clicks only as long as their image is there."""
        if source is None or source.layer not in self.viewer.layers:
            return session.has_objects_to_undo
        return not session.is_untouched

    def move(self) -> None:
        """The image was scaled, moved or turned: everything on it goes along."""
        if self.layers is not None and self.source is not None:
            self.layers.move()
            if self.labels is not None and self.labels.metadata.get(MINE):
                place(self.labels, self.source)
            self.shown = ()
            self.moved.emit()
            self._changed()

    def forget(self, layer: Any) -> None:
        """A layer was removed from the viewer."""
        if isinstance(layer, Labels):
            self.end(layer)
        if layer is self.labels:
            self.labels = self.session = None
            if self.layers is not None:
                self.layers.show_draft(Draft())
                self.layers.hide_preview()
            self.shown = ()
        elif self.layers is not None:
            was_clicks = layer is self.layers.clicks
            if self.layers.forget(layer) and self.session is not None:
                if was_clicks:
                    self.session.clear()
                self.shown = ()

    def forget_predictions(self) -> None:
        """Predict anew whatever is shown next, in all labels: the model or the image is another one."""
        for layer in self.sessions:
            self.sessions[layer].forget_predictions()

    # ---- labels

    def matching_labels(self) -> list[Labels]:
        """Labels layers that fit the image."""
        if self.source is None:
            return []
        return [
            layer
            for layer in self.viewer.layers
            if isinstance(layer, Labels)
            and layer.metadata.get(MINE) != "preview"
            and not layer.multiscale
            and tuple(layer.data.shape) == self.source.shape
        ]

    def unfit_labels(self) -> dict[str, str]:
        """Labels layers of a person that do not fit the image: name -> why, to be told."""
        source = self.source
        if source is None:
            return {}
        fitting = self.matching_labels()
        return {
            layer.name: "several resolutions; open the finest by itself"
            if layer.multiscale
            else f"shape {tuple(layer.data.shape)}, and the image has {source.shape}"
            for layer in self.viewer.layers
            if isinstance(layer, Labels) and not layer.metadata.get(MINE) and layer not in fitting
        }

    def choose_labels(self, layer: Labels | None) -> None:
        """Write to these labels from now on; None makes a new layer."""
        if self.source is None or self.layers is None:
            return
        try:
            if layer is None:
                layer = new_labels(self.source)
                self.viewer.add_layer(layer)
                self._begin_session(layer, blank=True)
        except ValueError as error:
            self._notices.say(error)
            return
        self.labels = layer
        self._used.pop(layer, None)
        self._used[layer] = ref(self.source.layer)  # the last one used is the last one in it
        self.session = None if layer is self.restoring else self._session_of(layer)
        self.make_layers()
        self._notices.say()
        if not self._lies_on_image(layer):
            self._notices.tell(guide.labels_elsewhere(layer.name, self.source.layer.name))
        self.labels_chosen.emit(layer)

    def _lies_on_image(self, labels: Labels) -> bool:
        clicks = self.layers.clicks if self.layers is not None else None
        if clicks is None:
            return True
        corners = np.zeros(labels.ndim), np.array(labels.data.shape, float)
        places = [(labels.data_to_world(corner), clicks.data_to_world(corner)) for corner in corners]
        return all(np.allclose(one, other, rtol=1e-5, atol=1e-6) for one, other in places)

    def use_policy(self, policy: LabelPolicy) -> None:
        """How objects are written from now on."""
        self.policy = policy
        if self.session is not None:
            self.session.policy = policy

    def _session_of(self, layer: Labels) -> AnnotationSession:
        """The session of labels that are written to from now on."""
        if layer not in self.sessions:
            self._begin_session(layer)
        elif self.sessions[layer] in self.searched:
            self.search(layer)
        session = self.sessions[layer]
        session.observer, session.policy = self.objects_changed.emit, self.policy
        return session

    def _begin_session(self, layer: Labels, *, blank: bool = False) -> None:
        """A session on labels, recorded from its first action on; the one that a closed widget left, if there is."""
        kept = take_up(layer)
        if kept is not None and self.source is not None:
            self.sessions.begin(layer, kept.session)
            self._journals.go_on(kept, self.source)
            self.search(layer)
            return
        session = AnnotationSession(LayerLabels(layer), policy=self.policy)
        self.sessions.begin(layer, session)
        if not blank:
            self.search(layer)
            blank = session.largest_found == 0 and session not in self.searched
        if self.source is not None:
            self._journals.record(session, self.source, blank=blank)

    def _on_replaced(self, layer: Labels) -> None:
        """Somebody gave labels other data: they may hold labels that are not known, or not fit any more."""
        source, shape = self.source, tuple(layer.data.shape)
        if source is not None and layer is self.labels and shape != source.shape:
            self.end(layer)
            self.choose_again(source)
        else:
            self.sessions[layer].forget_predictions()
            self.search(layer)
            if layer is self.labels:
                self.labels_chosen.emit(layer)  # its object in progress is predicted anew
            self._changed()

    def search(self, layer: Labels) -> None:
        """Find the largest label that is there already, unless that goes on; large or lazy arrays in a thread."""
        session, data, name = self.sessions[layer], layer.data, layer.name
        if is_quick(data):
            session.note_label(largest_label(data))
            return
        if self.searched.get(session):
            return
        self.searched[session] = True
        still = ref(layer)

        def found(largest: int) -> None:
            session.note_label(largest)
            self.searched.pop(session, None)
            now = still()
            if now is not None and self.sessions.get(now) is session and now.data is not data:
                self.search(now)  # it got other data meanwhile
            self._changed()

        def failed(error: Exception) -> None:
            self.searched[session] = False
            why = str(error).partition("\n")[0].rstrip(".")
            text = f"labels '{name}' could not be searched for the largest one ({why}); accept again to try once more"
            self._notices.say(RuntimeError(text))

        job = partial(largest_label, data, lambda: self.reader.is_closed)
        self.reader.submit(job, found, failed)

    # ---- working layers

    def make_layers(self) -> None:
        """Bring the working layers (back) and make the clicks layer active."""
        if self.layers is None:
            return
        had = self.layers.clicks, self.layers.drags
        self.layers.make()
        for layer, former in zip((self.layers.clicks, self.layers.drags), had, strict=True):
            if layer is not None and layer is not former:
                self.layer_made.emit(layer)
        self.take_clicks()

    def take_clicks(self) -> None:
        """Let the person click, whatever was done to the layer; a shape that is not finished is dropped."""
        if self.layers is not None and self.layers.clicks is not None:
            self.layers.drop_unfinished()
            clicks = self.layers.clicks
            self.viewer.layers.selection.active = clicks
            if not takes_clicks(clicks):  # napari draws anew whatever is set
                clicks.visible = clicks.editable = True
            clicks.mode = "add"

    def switch_tool(self) -> None:
        """Between clicking and drawing correction lines."""
        if self.layers is None or self.layers.clicks is None or self.layers.drags is None:
            return
        clicks = self.layers.clicks
        if self.viewer.layers.selection.active is clicks and takes_clicks(clicks) and str(clicks.mode) == "add":
            self.viewer.layers.selection.active = self.layers.drags
            self.layers.drags.mode = "add_line"
        else:
            self.take_clicks()
