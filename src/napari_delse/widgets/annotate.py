"""The dock widget "Annotate (DELSE)": four clicks, a preview, one key to accept it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from napari.layers import Image, Labels
from qtpy.QtCore import QTimer

from napari_delse.annotation.actions import LabelledObject
from napari_delse.annotation.session import AnnotationSession
from napari_delse.geometry import ObjectMask
from napari_delse.widgets import _guide as guide
from napari_delse.widgets._annotate.editing import PATIENCE, Editor
from napari_delse.widgets._annotate.evolution import EvolutionView
from napari_delse.widgets._annotate.export_control import ExportControl
from napari_delse.widgets._annotate.features import ClassColumn
from napari_delse.widgets._annotate.hearing import Hearing
from napari_delse.widgets._annotate.keys import Keyboard, shown
from napari_delse.widgets._annotate.layer_list import LayerList
from napari_delse.widgets._annotate.panel import AnnotatePanel
from napari_delse.widgets._annotate.remembering import Remembered
from napari_delse.widgets._annotate.restoring import Restorer
from napari_delse.widgets._annotate.status import what_next
from napari_delse.widgets._annotate.view import show_draft, show_object
from napari_delse.widgets._collecting import ShortCollections
from napari_delse.widgets._desk import Desk
from napari_delse.widgets._docked import itself
from napari_delse.widgets._events import Followed, let_go
from napari_delse.widgets._fields import paint_icons
from napari_delse.widgets._layers import WorkLayers, camera_of
from napari_delse.widgets._notices import Notices
from napari_delse.widgets._outliner import Outliner, PredictorLike, load_predictor, model_names
from napari_delse.widgets._recording import Journals
from napari_delse.widgets._removing import ready_to_remove
from napari_delse.widgets._source import ImageSource
from napari_delse.widgets._still import StillWindow

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import napari.viewer

_NOTHING: dict[int, LabelledObject] = {}  # what there is without a session
_TIMERS = {"soon": 0, "zoom": 80, "patience": round(1000 * PATIENCE) + 10}  # milliseconds


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
        self.viewer = viewer = itself(napari_viewer)
        self._no_model = ""  # why the model did not load; stays until one does
        self._connected = Followed()  # for as long as the widget lives
        self._closed = False
        self._changed: set[int] = set()  # labels that the list shows as they were
        self._timers = {name: QTimer(self, singleShot=True, interval=ms) for name, ms in _TIMERS.items()}
        self._timers["soon"].timeout.connect(self._refresh)
        self._timers["patience"].timeout.connect(self._refresh)
        self._timers["zoom"].timeout.connect(self._on_zoomed)
        self.notices = Notices(self._later)
        self._journals = Journals(self._later)
        self._outliner = Outliner(load, self._on_ready, self._on_load_failed)
        self.desk = Desk(viewer, self._journals, self.notices, self._later)
        self._still = StillWindow(self, _TIMERS["patience"] + 40)
        self.editor = Editor(self.desk, self._outliner, self.notices, self._later, self._refresh, self._still.hold)
        self._hearing = Hearing(self.desk, self.notices, self.editor.ask, self.editor.foresee)
        self._restorer = Restorer(self.desk, self._journals, self.notices)
        self._exports = ExportControl(self.export_form, self.desk, self.notices)
        self._classes = ClassColumn()
        self._remembered = Remembered(self._later)
        self._collections = ShortCollections()
        remembered = self._remembered.read()
        self.settings.show_policy(remembered.policy)
        self.settings.offer_models([remembered.model])
        self.desk.use_policy(remembered.policy)
        self.keyboard = Keyboard(viewer, self._key_actions(), remembered.keys)
        self.evolution = EvolutionView(viewer)
        self.add_tab(self.evolution, "Evolution", "How the level set moved to the outline, and settings of that")
        self._layer_list = LayerList(self.desk, self._connected, self._choose_image, self._fill_choices)
        others = (self._exports.exporter, self._remembered, self.evolution.runner, self._collections)
        self._workers = (self._outliner, self.desk, self._layer_list, *others)
        followed = (self._connected, self._hearing.followed)
        self.destroyed.connect(partial(let_go, (*self._workers, self._journals), followed))
        self._connect_panel()
        self._connect_desk()
        self._connect_viewer()
        self._show_keys()
        self._paint_icons()
        self._names, self._loaded = names, ""
        self.use_model()
        self._refresh()
        QTimer.singleShot(0, self._layer_list.start)  # the window shows up first: new layers take napari a moment

    # ---------------------------------------------------------------- set-up and end

    def _connect_panel(self) -> None:
        self.accept_button.clicked.connect(lambda: self.accept())
        self.restart_button.clicked.connect(lambda: self.start_over())
        self.undo_button.clicked.connect(lambda: self.undo())
        self.redo_button.clicked.connect(lambda: self.redo())
        self.restore_button.clicked.connect(lambda: self._restorer.restore())
        self.discard_button.clicked.connect(lambda: self._journals.discard(self.notices.say))
        settings = self.settings
        settings.image_box.activated.connect(lambda _: self._choose_image(settings.image_box.currentData()))
        settings.channel_box.activated.connect(lambda _: self._choose_image(settings.image_box.currentData()))
        settings.channels_edit.editingFinished.connect(self._on_channels)
        settings.labels_box.activated.connect(lambda _: self.desk.choose_labels(settings.labels_box.currentData()))
        settings.model_box.activated.connect(lambda _: self._choose_model(again=bool(self._no_model)))
        settings.device_box.activated.connect(lambda _: self._load_model())
        settings.protect_box.toggled.connect(self._on_policy)
        settings.fill_box.toggled.connect(self._on_policy)
        settings.part_box.valueChanged.connect(self._on_policy)
        self.review.chosen.connect(self.show_object)
        self.review.reopen.connect(self.reopen_object)
        self.review.delete.connect(self.editor.delete)
        self.review.merge.connect(self.merge_objects)
        self.review.split.connect(self.editor.split)
        self.review.classify.connect(self.editor.classify)
        self.review.empty_plane.connect(self.editor.next_empty_plane)
        self.review.export_button.clicked.connect(lambda: self._exports.toggle())
        self.keys.changed.connect(self._on_keys)
        self.keys.refused.connect(self.notices.say)

    def _connect_desk(self) -> None:
        self.desk.image_chosen.connect(self._fill_choices)
        self.desk.labels_chosen.connect(self._fill_choices)
        self.desk.labels_chosen.connect(self.editor.ask)
        self.desk.layer_made.connect(self.keyboard.bind_layer)
        self.desk.objects_changed.connect(self._changed.update)
        self.desk.left.connect(self.evolution.leave)
        self.desk.moved.connect(self.evolution.move)
        self.evolution.changed.connect(self.editor.evolve)

    def _connect_viewer(self) -> None:
        layers, dims = self.viewer.layers, self.viewer.dims
        for emitter, callback in (
            (layers.events.removed, lambda event: self.evolution.forget(event.value)),
            (layers.events.removed, lambda _: self._collections.look_at_all()),
            (layers.events.removing, lambda _: ready_to_remove(self.viewer)),
            (layers.selection.events.active, self._later),
            (dims.events.ndisplay, self._later),
            (camera_of(self.viewer).events.zoom, self._on_zoom),
            (self.viewer.events.theme, self._paint_icons),
        ):
            self._connected.follow(emitter, callback)

    def _key_actions(self) -> dict[str, Callable[[], object]]:
        review = self.review
        return {
            "accept_here": self.accept,
            "accept": self.accept,
            "start_over": self.start_over,
            "undo": self.undo,
            "redo": self.redo,
            "switch_tool": self.switch_tool,
            "next": review.next_button.click,
            "previous": review.previous_button.click,
            "unsure": review.unsure_button.click,
            "unnamed": review.unnamed_button.click,
            "empty": review.empty_button.click,
            "reopen": review.reopen_button.click,
            "delete": review.delete_button.click,
            "merge": review.merge_button.click,
            "split": review.split_button.click,
        }

    def shut_down(self) -> None:
        """Leave the viewer as if the widget had never been opened, but for the labels."""
        if self._closed:
            return
        self._closed = True
        self._still.release()
        let_go(self._workers, (self._connected,))
        self.keyboard.release()
        with suppress(Exception):  # the viewer may be half gone
            self.desk.leave()
            self.desk.keep()
            self.settings.offer_layers((), (), None, None)  # Qt would hold them as long as the widget
        self._journals.close()

    # ---------------------------------------------------------------- what there is

    @property
    def is_ready(self) -> bool:
        """Whether a person can click and will be answered."""
        return self._outliner.is_ready and self.desk.is_complete

    @property
    def preview_mask(self) -> ObjectMask | None:
        """The pixels that would be accepted now."""
        preview = None if self._session is None else self._session.preview
        return None if preview is None else preview.mask

    @property
    def has_shown_preview(self) -> bool:
        """Whether the preview of what was said last is on the canvas."""
        session = self._session
        return self.preview_mask is not None and session is not None and self.desk.shown[:1] == (session.preview,)

    @property
    def accepted(self) -> int:
        """How many objects the labels got here."""
        return 0 if self._session is None else len(self._session.objects)

    @property
    def model(self) -> str:
        """Name of the model that outlines, or is being loaded for it."""
        return str(self._loaded)

    @property
    def journal(self) -> Path | None:
        """Where this work is being recorded; None as long as nothing was."""
        return self._journals.path(self._session)

    @property
    def _source(self) -> ImageSource | None:
        return self.desk.source

    @property
    def _layers(self) -> WorkLayers | None:
        return self.desk.layers

    @property
    def _labels(self) -> Labels | None:
        return self.desk.labels

    @property
    def _session(self) -> AnnotationSession | None:
        return self.desk.session

    # ---------------------------------------------------------------- model

    def use_model(self, name: str = "") -> None:
        """Work with this model from now on, or with the present one; offer all models that there are now.

        Parameters
        ----------
        name : str
            One that is there; without it the present one stays as long as it is there.
        """
        if name:
            box = self.settings.model_box
            known = [box.itemText(i) for i in range(box.count())]
            self.settings.offer_models([*known, *([] if name in known else [name])], name)
        self._choose_model()
        self._outliner.runner.submit(self._names, self._offer_models, self.notices.say)

    def _offer_models(self, names: list[str]) -> None:
        self.settings.offer_models(names)
        self._choose_model()

    def _choose_model(self, *, again: bool = False) -> None:
        """Load the chosen model, unless it is loaded, and take it the next time."""
        if again or self.settings.model_box.currentData() != self._loaded:
            self._load_model()
            self._remembered.change(model=self._loaded)

    def _load_model(self) -> None:
        self._loaded = self.settings.model_box.currentData()
        self.desk.forget_predictions()
        self._no_model = ""
        self._outliner.use(self._loaded, self.settings.device_box.currentData())
        self._later()

    def _on_load_failed(self, error: BaseException) -> None:
        self._no_model = guide.sentence(error)
        self.notices.say()  # what was told before would hide it

    def _on_ready(self) -> None:
        self._journals.use_model(self.settings.model_box.currentData(), self._outliner.runner)
        self.notices.say()
        self.editor.ask()

    # ---------------------------------------------------------------- image, labels, and how they are written

    def _choose_image(self, layer: Image | None) -> None:
        """Work on this image, with the channels chosen for it; None for none at all."""
        try:
            chosen = (None, ()) if layer is None else self.settings.chosen_channels(layer)
        except ValueError as error:
            self.notices.say(error)
        else:
            self.desk.choose_image(layer, *chosen)

    def _on_channels(self) -> None:
        source = self.desk.source
        if source is not None:
            with suppress(ValueError):
                if self.settings.chosen_channels(source.layer) == (source.channel_axis, source.channels):
                    return
            self._choose_image(source.layer)

    def _fill_choices(self) -> None:
        desk = self.desk
        fitting, unfit = desk.matching_labels(), desk.unfit_labels()
        self.settings.offer_layers(self._layer_list.images, fitting, desk.source, desk.labels, unfit)
        self._later()

    def _on_policy(self) -> None:
        self.desk.use_policy(self.settings.policy)
        self._remembered.change(policy=self.settings.policy)
        self.notices.say()

    # ---------------------------------------------------------------- keys and colours

    def _on_keys(self) -> None:
        self._remembered.change(keys=self.keyboard.chosen)
        self.notices.say()
        self._show_keys()

    def _show_keys(self) -> None:
        self.show_keys(self.keyboard)
        self._words = guide.Words.of(lambda name: shown(self.keyboard[name]))

    def _paint_icons(self) -> None:
        paint_icons(self, self.viewer.theme)

    # ---------------------------------------------------------------- what the viewer tells

    def _on_zoom(self) -> None:
        self._timers["zoom"].start()

    def _on_zoomed(self) -> None:
        desk = self.desk
        if desk.layers is not None and desk.session is not None:
            desk.layers.rescale(desk.session.draft.plane)
            desk.shown = ()
            self.evolution.rescale()
            self._refresh()

    # ---------------------------------------------------------------- what the person wants

    def accept(self) -> None:
        """Write the preview into the labels and begin the next object."""
        made = self.editor.accept()
        if made is not None:
            self._refresh()
            self.review.mark(made.label)

    def start_over(self) -> None:
        """Forget the object in progress, and bring back layers that were deleted."""
        if self.desk.source is None:
            self._layer_list.start()
        else:
            self.editor.start_over()

    def undo(self) -> None:
        """Take the last click, drag, accepted or deleted object back."""
        self.editor.undo()

    def redo(self) -> None:
        """Do again what was undone."""
        self.editor.redo()

    def switch_tool(self) -> None:
        """Between clicking and drawing correction lines."""
        self.desk.switch_tool()

    def show_object(self, label: int) -> None:
        """Go to the plane of an object and put it into the middle of the view."""
        made = None if self._session is None else self._session.objects.get(label)
        if made is not None:
            show_object(self.desk, made)
            self._later()

    def reopen_object(self, label: int) -> None:
        """Edit the clicks of an accepted object again; it is accepted under the same label."""
        self.editor.reopen(label)

    def delete_object(self, label: int) -> None:
        """Take an accepted object out of the labels."""
        self.editor.delete([label])

    def merge_objects(self, labels: Iterable[int]) -> None:
        """Make accepted objects one."""
        made = self.editor.merge(labels)
        if made is not None:
            self._refresh()
            self.review.mark(made.label)

    # ---------------------------------------------------------------- showing

    def _later(self) -> None:
        if not self._closed:
            self._timers["soon"].start()

    def _refresh(self) -> None:
        """Bring layers, buttons and the status line in step with the session."""
        if self._closed:
            return
        if self.editor.is_answer_near:
            if not self._timers["patience"].isActive():
                self._timers["patience"].start()
            return
        self._still.release()
        session = self._session
        show_draft(self.desk)
        self.evolution.follow(self.desk.source, session, self._outliner.config)
        preview = None if session is None else session.preview
        self.accept_button.setEnabled(preview is not None and preview.mask.area > 0)
        self.restart_button.setEnabled(self.desk.source is not None)
        self.undo_button.setEnabled(session is not None and session.can_undo)
        self.redo_button.setEnabled(session is not None and session.can_redo)
        self._show_objects()
        offer = None if self._restorer.labels is not None else self._journals.offer
        self.show_offer("" if offer is None else offer.text)
        restoring, is_ready = self._restorer.is_busy, self._outliner.is_ready
        loading = not is_ready and not self.notices.is_trouble
        text = what_next(self.desk, self._words, restoring=restoring, no_model=bool(self._no_model), loading=loading)
        trouble = self._no_model or self._journals.problem(session) or self._remembered.problem or self.keyboard.problem
        notice, is_trouble = self.notices.or_else(trouble)
        self.show_status(text, notice, trouble=is_trouble)

    def _show_objects(self) -> None:
        objects = _NOTHING if self._session is None else self._session.objects
        changed = self._changed.copy()
        self._changed.clear()
        has_planes = self.desk.source is not None and self.desk.source.ndim > 2
        is_new = self.review.show_objects(objects, changed, has_planes=has_planes)
        if is_new and self.desk.labels is not None:
            self._classes.show(self.desk.labels, objects)
