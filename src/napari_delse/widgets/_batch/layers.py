"""Runs of the batch widget over layers: what can be chosen, what would be done, and doing it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from napari.layers import Image, Labels, Points

from napari_delse.annotation.carrying import PlaneLine, Traces, earlier, edits_of
from napari_delse.annotation.edits import ArrayLabels, PixelEdit
from napari_delse.propagation.planes import PropagatedPlane
from napari_delse.widgets._batch.labels import BatchLabels, fits
from napari_delse.widgets._batch.plan import Plan, again_from, line_of, numbers, plan, shown_place
from napari_delse.widgets._batch.review import doubts_of
from napari_delse.widgets._batch.run import BatchRunner, Cancelled, Control, Pace, Watched
from napari_delse.widgets._batch.survey import Survey
from napari_delse.widgets._brush import painted_along
from napari_delse.widgets._desk import desk_of
from napari_delse.widgets._events import Followed
from napari_delse.widgets._kept import is_idle
from napari_delse.widgets._label_store import largest_label, written_past_undo
from napari_delse.widgets._layers import MINE, is_picture, new_labels

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer
    from napari.utils.events import Event

    from napari_delse.widgets._batch.panel import BatchPanel
    from napari_delse.widgets._notices import Notices
    from napari_delse.widgets._source import ImageSource

Step = tuple[PropagatedPlane, list[PixelEdit]] | int  # a plane, or the largest label that the run will give


@dataclass(eq=False)
class LayerRun:
    """A run over layers while it goes on."""

    plan: Plan
    layer: Labels
    source: ImageSource
    control: Control
    pace: Pace
    data: tuple[Any, Any]  # of the labels and the image when it began
    objects: frozenset[int]  # that there were when it began
    name: str = field(default_factory=lambda: uuid4().hex[:12])
    trouble: Exception | None = None  # that ended it
    has_ended: bool = False  # nothing more comes; what came may still be written

    def stop(self, why: str | Exception) -> None:
        """End it; the first reason is the one that is told."""
        self.trouble = self.trouble or (why if isinstance(why, Exception) else RuntimeError(why))
        self.control.cancel()


class LayerWork:
    """Everything about runs over layers but how it looks.

    Parameters
    ----------
    viewer : ViewerModel
        Where the layers are.
    panel : BatchPanel
        What is chosen, and where doubts are listed.
    runner : BatchRunner
        Where it runs.
    labels : BatchLabels
        Who writes.
    notices : Notices
        Where trouble and results are told.
    changed : callable
        Called when something else is to be shown.
    """

    def __init__(
        self,
        viewer: ViewerModel,
        panel: BatchPanel,
        runner: BatchRunner,
        labels: BatchLabels,
        notices: Notices,
        changed: Callable[[], object],
    ) -> None:
        self.viewer, self._form, self._review = viewer, panel.form, panel.review
        self._runner, self._labels, self._notices, self._changed = runner, labels, notices, changed
        self.survey = Survey(changed)
        self.run: LayerRun | None = None
        self.last_layer: Labels | None = None  # that a run wrote to
        self._last: Plan | None = None  # the last run that carried objects, with all its key planes
        self._followed = Followed()
        self._following: tuple[Image | Labels | Points, ...] = ()

    def close(self) -> None:
        """Follow and look up nothing any more."""
        self._followed.let_go()
        self.survey.close()

    # ---- what can be chosen

    def offer(self) -> None:
        """Offer the layers that there are."""
        layers, form = self.viewer.layers, self._form
        active = layers.selection.active
        form.offer_images([layer for layer in layers if is_picture(layer)], active)
        source = form.source
        mine = [x for x in layers if isinstance(x, Labels) and x.metadata.get(MINE) != "preview"]
        fitting = [x for x in mine if source is not None and fits(x, source)]
        unfit = {x.name: _why_not(x, source) for x in mine if source is not None and x not in fitting}
        form.offer_labels(fitting, unfit, next(filter(_is_worked_on, fitting), active))
        points = [x for x in layers if isinstance(x, Points) and not x.metadata.get(MINE)]
        form.offer_points(points)
        form.offer_axes(source)
        self._follow((*mine, *points, *(() if source is None else (source.layer,))))
        self._take_up()

    def _take_up(self) -> None:
        """Go on with the session that a closed widget left to the chosen labels, to see and undo what it did."""
        source, layer = self._form.source, self._form.labels_box.currentData()
        if source is not None and isinstance(layer, Labels) and is_idle(layer) and desk_of(layer) is None:
            self._labels.session(layer, source)

    def _follow(self, layers: tuple[Image | Labels | Points, ...]) -> None:
        """Hear what is painted and clicked in these layers, and that they get other data."""
        if layers != self._following:
            self._followed.let_go()
            self._following = layers
            for layer in layers:
                self._followed.follow(layer.events.data, self._on_data)
                if isinstance(layer, Labels):
                    self._followed.follow(layer.events.paint, self._on_painted)
                    self._followed.follow(written_past_undo(layer), self._on_written_past_undo)

    @property
    def _surveyed(self) -> Labels | None:
        """The layer whose labels the next run begins with."""
        box = {"carry": self._form.labels_box, "refine": self._form.coarse_box}.get(self._form.task)
        layer = None if box is None else box.currentData()
        return layer if isinstance(layer, Labels) and layer in self.viewer.layers else None

    def _on_painted(self, event: Event) -> None:
        if event.source is self._surveyed:
            line = self.line
            try:
                self._forget(None if line is None else painted_along(event.value, line.along))
            except (AttributeError, TypeError, ValueError, IndexError):  # another version may tell it otherwise
                self._forget()
        self._changed()

    def _on_written_past_undo(self, event: Event) -> None:
        line = self.line
        if event.source is self._surveyed and line is not None:
            planes = event.key[line.along]
            self._forget(range(planes.start, planes.stop))
        self._changed()

    def _on_data(self, event: Event) -> None:
        if event.source is self._surveyed:
            self._forget()
        self._stop_if_outdated()
        if not isinstance(event.source, Points):
            self.offer()  # it may have another shape
        self._changed()

    def touched(self, layer: Labels) -> None:
        """Steps were undone or done again in a layer."""
        if layer is self._surveyed:
            self._forget()
        self._stop_if_outdated()

    def _forget(self, places: Iterable[int] | None = None) -> None:
        """Planes have changed, all of them by default; nothing is carried on from one before it was looked at."""
        self.survey.forget(places)
        if self.place not in self.survey.known:
            self._review.again_button.setEnabled(False)

    @property
    def line(self) -> PlaneLine | None:
        """The chosen planes."""
        source, along = self._form.source, self._form.along_box.currentData()
        return None if source is None or along is None else line_of(source, along, self.viewer)

    @property
    def place(self) -> int | None:
        """Which of them is shown."""
        source, line = self._form.source, self.line
        return None if source is None or line is None else shown_place(source, line, self.viewer)

    # ---- what would be done

    def traces(self, layer: Labels | None = None, line: PlaneLine | None = None) -> Traces:
        """What was done to the chosen labels."""
        layer, line = layer or self._form.labels_box.currentData(), line or self.line
        if not isinstance(layer, Labels) or line is None:
            return Traces()
        session = self._labels.find(layer)
        return Traces() if session is None else Traces.of(session.actions, line)

    def plan(self) -> Plan:
        """What Start would do.

        Raises
        ------
        ValueError
            If it cannot, with the reason.
        """
        wish, line = self._form.wish(), self.line
        first = [] if self.place is None else [self.place]
        if wish.start == "these" and line is not None:
            with suppress(ValueError):  # told by the plan
                first = numbers(wish.these, line.count)
        self.survey.look_at(self._surveyed, line, first)
        return plan(wish, self.survey.known, self.survey.unread, self.traces(), self.viewer)

    def plan_again(self) -> Plan:
        """What "Carry on from here" would do.

        Raises
        ------
        ValueError
            If it cannot, with the reason.
        """
        last, place = self._last, self.place
        if last is None or last.wish.labels not in self.viewer.layers:
            raise ValueError("carry objects first; then correct a plane and carry on from it")
        image, source = last.wish.source, self._form.source
        if last.wish.labels is not self._surveyed or image is None or source is None or image.layer is not source.layer:
            named = " and ".join(f"'{layer.name}'" for layer in (image and image.layer, last.wish.labels) if layer)
            raise ValueError(f"choose {named} of the last run to carry on in it")
        if place is None or self.line != last.line or self._form.task != "carry":
            raise ValueError("show a plane of the last run, from the front")
        return again_from(last, place, self.survey.known, self.survey.unread)

    # ---- doing it

    def start(self, made: Plan) -> None:
        """Begin a run."""
        source, layer = made.wish.source, made.wish.labels
        assert source is not None  # the plan has one
        if layer is None:
            layer = new_labels(source)
            if made.wish.coarse is not None and made.wish.task == "refine":
                layer.data = np.zeros(source.shape, made.wish.coarse.data.dtype)
            layer.name = f"{source.layer.name} {'refined' if made.wish.task == 'refine' else 'objects'}"
            self.viewer.add_layer(layer)
            self._labels.session(layer, source, blank=True)
        session = self._labels.session(layer, source)
        self.last_layer = layer
        if made.wish.task == "carry":
            self._last = made
        steps = partial(_steps, made, layer.data, session.actions)
        control = self._runner.start(self._form.model, steps, self._on_step, self._on_end, self._on_failed)
        pace, data = Pace(len(made.planes), made.objects), (layer.data, source.layer.data)
        self.run = LayerRun(made, layer, source, control, pace, data, frozenset(session.objects))
        self._notices.say()
        self._changed()

    def _on_step(self, step: Step) -> None:
        """A plane came from the worker."""
        run = self.run
        if run is None:
            return
        self._stop_if_outdated()
        if isinstance(step, int):  # nobody else gives these labels meanwhile
            self._labels.session(run.layer, run.source).note_label(step)
        elif run.trouble is None:
            plane, edits = step
            then = partial(self._on_written, run, plane)
            self._labels.write(run.name, run.layer, run.source, edits, run.objects, then, self._on_unwritten)

    def _on_written(self, run: LayerRun, plane: PropagatedPlane) -> None:
        """A plane stands in the labels."""
        run.pace.plane(run.control.predictions)
        self._review.add(run.plan.line, plane.index, run.name, doubts_of(plane, run.name, run.plan.line))
        if run.layer is self._surveyed and run.plan.line == self.line:
            before = self.survey.known.get(plane.index, frozenset())
            self.survey.set(plane.index, before | {one.label for one in plane.objects if one.area})
        self._changed()
        self._look_whether_over()

    def _on_unwritten(self, error: Exception) -> None:
        """The labels cannot be written; what was left of the run was dropped."""
        if self.run is not None:
            self.run.stop(error)
            self._look_whether_over()

    def _stop_if_outdated(self) -> None:
        """A run whose labels were exchanged, or that was undone, does not go on."""
        run = self.run
        if run is None:
            return
        session = self._labels.find(run.layer)
        now = run.layer, run.source.layer
        if changed := [one for one, data in zip(now, run.data, strict=True) if one.data is not data]:
            self._give_up(run, f"'{changed[0].name}' got other data, so the run ended.")
        elif session is not None and session.is_undone(run.name):
            self._give_up(run, "The run was undone, so it ended.")

    def removed(self, layer: Layer) -> None:
        """A layer was taken out of the viewer."""
        run = self.run
        if run is not None and layer in (run.layer, run.source.layer):
            self._give_up(run, f"'{layer.name}' was deleted, so the run ended.")

    def _give_up(self, run: LayerRun, why: str) -> None:
        """Write nothing more of a run, and end it."""
        self._labels.drop()
        run.stop(why)
        self._look_whether_over()

    def _on_end(self) -> None:
        if self.run is not None:
            self.run.has_ended = True
            self._look_whether_over()

    def _look_whether_over(self) -> None:
        """The end of a run is that nothing more comes, and nothing is left to be written."""
        if self.run is not None and self.run.has_ended and not self._labels.is_writing:
            self._over(self.run)

    def _on_failed(self, error: Exception) -> None:
        if self.run is not None and not isinstance(error, Cancelled):
            self.run.stop(error)
        self._on_end()

    def _over(self, run: LayerRun) -> None:
        """All that came is written."""
        self.run = None
        done, total = run.pace.done, run.pace.total
        if run.trouble is not None:
            self._notices.say(run.trouble)
        elif run.control.is_cancelled:
            self._notices.tell(f"Cancelled after {done} of {total} planes; these stay, and Undo takes them back.")
        else:
            many = "1 plane is" if done == 1 else f"{done} planes are"
            found = self._review.count_of(run.name)
            what = "1 object to look at is" if found == 1 else f"{found} objects to look at are"
            look = f" {what} in the tab Review." if found else ""
            self._notices.tell(f"{many} done.{look}")
        self._changed()


def _steps(made: Plan, data: Any, actions: tuple[Any, ...], predictor: Any, control: Control) -> Iterator[Step]:
    """In the worker: planes, and what changes in the labels for each."""
    next_label = 1
    if made.new:
        next_label += largest_label(data, lambda: control.is_cancelled)
        yield next_label + made.new - 1
    store = ArrayLabels(data)
    for plane in made.produce(Watched(predictor, control), next_label):
        key = made.line.key(plane.index)
        former = earlier(actions, key)
        yield plane, list(edits_of(store, key, plane.labels, former, protect=made.wish.protect))


def _why_not(layer: Labels, source: ImageSource | None) -> str:
    if layer.multiscale:
        return "several resolutions; open the finest by itself"
    if source is not None and tuple(layer.data.shape) == source.shape:
        return f"{layer.data.dtype} is no type of labels"
    return f"shape {tuple(layer.data.shape)}, and the image has {None if source is None else source.shape}"


def _is_worked_on(layer: Labels) -> bool:
    """Whether these are the labels that the annotate widget writes to now."""
    desk = desk_of(layer)
    return desk is not None and desk.labels is layer
