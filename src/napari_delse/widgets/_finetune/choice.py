"""Keeps the choice of what to learn from in step with the viewer and with the annotate widget, and looks at it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from napari_delse.widgets._brush import undo_depth
from napari_delse.widgets._events import Followed
from napari_delse.widgets._finetune.survey import Surveyor
from napari_delse.widgets._guide import sentence

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_delse.finetuning.survey import Survey
    from napari_delse.widgets._finetune.source import SourceForm
    from napari_delse.widgets.annotate import AnnotateWidget


class SourceChoice:
    """What is to be learned from, and what was found there.

    Parameters
    ----------
    form : SourceForm
        Where the person chooses.
    viewer : ViewerModel
        Whose layers are offered.
    annotate : callable
        Gives the annotate widget of the viewer, if it is open.
    validation : callable
        Gives the share of objects to hold out.
    changed : callable
        Called when `seen` or `trouble` are new.

    Attributes
    ----------
    seen : Survey or None
        What was found, perhaps not all of it yet.
    trouble : str
        Why nothing can be looked at; empty if all is well.
    is_off, is_hidden : bool
        While something trains, or nobody sees it, labels that change are not looked at.
    """

    def __init__(
        self,
        form: SourceForm,
        viewer: ViewerModel,
        annotate: Callable[[], AnnotateWidget | None],
        validation: Callable[[], float],
        changed: Callable[[], object],
    ) -> None:
        self.form, self.surveyor = form, Surveyor()
        self.seen: Survey | None = None
        self.trouble, self.is_off, self.is_hidden = "", False, False
        self._depth = undo_depth(None)  # of napari's history when the labels were changed last
        self._is_old = False  # whether the labels changed since they were looked at
        self.followed, self._labels = Followed(), Followed()
        self._annotate, self._validation, self._changed = annotate, validation, changed
        self._met: WeakSet[AnnotateWidget] = WeakSet()
        self._closed = False
        form.changed.connect(self._on_source)
        self.surveyor.found.connect(self._on_found)
        self.surveyor.failed.connect(self._on_failed)
        for emitter, callback in (
            (viewer.layers.events.inserted, self._on_inserted),
            (viewer.layers.events.removed, self.look_at_layers),
            (viewer.dims.events.order, self._on_source),
            *((layer.events.name, self.look_at_layers) for layer in viewer.layers),
        ):
            self.followed.follow(emitter, callback)

    def close(self) -> None:
        """Hear and look no more."""
        self._closed = True
        self.surveyor.close()
        self.followed.let_go()
        self._labels.let_go()

    # ---- layers

    def _on_inserted(self, event: Any) -> None:
        self.followed.follow(event.value.events.name, self.look_at_layers)
        self.look_at_layers()

    def look_at_layers(self, *_: Any) -> None:
        """There are other layers, or others are worked on."""
        if self._closed:
            return
        annotate = self._meet()
        desk = None if annotate is None else annotate.desk
        before = self._chosen()
        self.form.offer_layers(None if desk is None else desk.source, None if desk is None else desk.labels)
        if self._chosen() != before or self.seen is None:
            self._on_source()

    def _meet(self) -> AnnotateWidget | None:
        """Hear of what the annotate widget does."""
        annotate = self._annotate()
        if annotate is not None and annotate not in self._met:
            self._met.add(annotate)
            annotate.desk.image_chosen.connect(self.look_at_layers)
            annotate.desk.labels_chosen.connect(self.look_at_layers)
            annotate.desk.objects_changed.connect(self._on_labelled)
        return annotate

    def _chosen(self) -> tuple[Any, ...]:
        form = self.form
        return form.image_box.currentData(), form.labels_box.currentData(), form.channel_box.currentData()

    def _on_source(self, *_: Any) -> None:
        """Something else is to be learned from."""
        if self._closed:
            return
        if self.form.kind == "journal" and not self.form.journal_edit.text():
            annotate = self._annotate()
            if annotate is not None and annotate.journal is not None:
                self.form.journal_edit.setText(str(annotate.journal))  # comes back here
        self._labels.let_go()
        labels = self.form.labels
        if labels is not None:
            for emitter in (labels.events.paint, labels.events.labels_update, labels.events.data):
                self._labels.follow(emitter, self._on_labelled)
            self._labels.follow(labels.events.set_data, self._on_drawn)
        self._depth = undo_depth(labels)
        self.look()

    def _on_labelled(self, *_: Any) -> None:
        """The labels were changed."""
        self._is_old, self._depth = True, undo_depth(self.form.labels)
        if not self.is_off and not self.is_hidden:
            self.look()

    def _on_drawn(self, *_: Any) -> None:
        """The labels were drawn anew: after an undo, or because another plane is shown."""
        if undo_depth(self.form.labels) != self._depth:
            self._on_labelled()

    def show(self) -> None:
        """The person looks here again."""
        self.is_hidden = False
        self.look_at_layers()
        if self._is_old and not self.is_off:
            self.look()

    # ---- looking

    def look(self, *, at_once: bool = False) -> None:
        """Look at what is chosen."""
        if self._closed:
            return
        self._is_old = False
        try:
            make = self.form.chosen()
            self.trouble = ""
        except ValueError as error:
            make, self.seen = None, None
            self.trouble = sentence(error)
        self.surveyor.ask(make, self._validation(), at_once=at_once)
        self._changed()

    def look_if_split_otherwise(self) -> None:
        """Look again if another share is to be held out than before."""
        if not self.surveyor.is_busy and self._validation() != self.surveyor.validation:
            self.look()

    def _on_found(self, known: Survey) -> None:
        self.seen = known
        self._changed()

    def _on_failed(self, error: Exception) -> None:
        self.seen, self.trouble = None, sentence(error)
        self._changed()
