"""The dock widget "Fine-tune (DELSE)": a model learns from labelled objects, and one sees whether it became better."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QPushButton

from napari_delse.widgets._docked import itself, main_window
from napari_delse.widgets._events import Followed, let_go
from napari_delse.widgets._finetune import words as say
from napari_delse.widgets._finetune.choice import SourceChoice
from napari_delse.widgets._finetune.fields import ink_of
from napari_delse.widgets._finetune.jobs import JobOffers
from napari_delse.widgets._finetune.panel import TrainingPanel
from napari_delse.widgets._finetune.pictures import Drawn, Pictures
from napari_delse.widgets._finetune.run import TrainingLike, TrainingRun, start_training
from napari_delse.widgets._finetune.source import SourceForm
from napari_delse.widgets._guide import sentence
from napari_delse.widgets._notices import Notices
from napari_delse.widgets._run import Runner
from napari_delse.widgets.annotate import AnnotateWidget

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtGui import QHideEvent, QShowEvent

    from napari_delse.finetuning.config import FineTuneConfig
    from napari_delse.finetuning.jobs import Job
    from napari_delse.finetuning.run import JobProgress

_SURE = 4000  # a button that deletes waits so long for its second press, milliseconds


class FineTuneWidget(TrainingPanel):
    """Fine-tune a model on labelled objects, follow it, and choose between models.

    Parameters
    ----------
    napari_viewer : Viewer
        Whose layers are offered.
    start : callable, optional
        Starts the process that trains, from a job and a device; called in a thread.
    """

    def __init__(
        self,
        napari_viewer: napari.viewer.Viewer,
        start: Callable[[Job, str], TrainingLike] = start_training,
    ) -> None:
        viewer = itself(napari_viewer)
        super().__init__(SourceForm(viewer))
        self.viewer = viewer
        self._closed = self._is_ready = False
        self._unused = ""  # the model from before, once another one was taken
        self._connected = Followed()
        self._soon = QTimer(self, singleShot=True, interval=0)
        self._soon.timeout.connect(self._refresh)
        self._asked: QPushButton | None = None  # the button that waits for its second press
        self._sure = QTimer(self, singleShot=True, interval=_SURE)
        self._sure.timeout.connect(self._calm)
        self.notices = Notices(self._later)
        self.choice = SourceChoice(self.source, viewer, lambda: self.annotate, self._validation, self._later)
        self.surveyor, self.run, self.runner = self.choice.surveyor, TrainingRun(start), Runner("napari-delse-finetune")
        self.offers = JobOffers(self._later, self.notices.say)
        self.pictures = Pictures(self._show_pictures)
        self._workers = (self.choice, self.run, self.runner, self.offers, self.pictures, self.models.runner)
        self.destroyed.connect(partial(let_go, self._workers, (self._connected,)))
        self._connect_panel()
        self._connected.follow(self.viewer.events.theme, self._paint)
        self._paint()
        self.choice.look_at_layers()
        self.runner.submit(_settings, self._on_ready, self.notices.say)
        self._refresh()

    # ---------------------------------------------------------------- set-up and end

    def _connect_panel(self) -> None:
        self.form.changed.connect(self._on_form)
        self.run.changed.connect(self._on_run)
        self.run.progressed.connect(self._on_progress)
        self.run.failed.connect(self.notices.say)
        self.models.listed.connect(self._on_models)
        self.models.wanted.connect(self.use_model)
        self.models.replaced.connect(self._on_replaced)
        self.again_button.clicked.connect(lambda: self.choice.look(at_once=True))
        self.train_button.clicked.connect(lambda: self.train())
        self.pause_button.clicked.connect(lambda: self.run.pause())
        self.stop_button.clicked.connect(lambda: self._finish())
        self.kill_button.clicked.connect(lambda: self._end())
        self.resume_button.clicked.connect(lambda: self.resume())
        self.drop_button.clicked.connect(lambda: self._drop())
        self.new_button.clicked.connect(lambda: self._begin_anew())
        self.back_button.clicked.connect(lambda: self._go_back())
        self.offer_resume.clicked.connect(lambda: self._take_offer())
        self.offer_finish.clicked.connect(lambda: self._take_offer("finish"))
        self.offer_drop.clicked.connect(lambda: self._drop_offer())

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Look what there is now."""
        super().showEvent(event)
        self.choice.show()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Leave the processor to the work on the labels."""
        super().hideEvent(event)
        self.choice.is_hidden = True

    def shut_down(self) -> None:
        """Have the training saved and ended, and wait for nothing."""
        if not self._closed:
            self._closed = True
            let_go(self._workers, (self._connected,))
            with suppress(Exception):  # the viewer may be half gone
                self.source.release()

    def _on_ready(self, known: tuple[type, Any]) -> None:
        self._is_ready = True
        self.form.offer(*known)
        self.models.look()
        self.offers.look()

    # ---------------------------------------------------------------- the annotate widget

    @property
    def annotate(self) -> AnnotateWidget | None:
        """The annotate widget of the same viewer, if it is open."""
        # A window has one viewer, which napari hides behind many proxies.
        found = main_window(self).findChildren(AnnotateWidget)
        return found[-1] if found else None

    def use_model(self, name: str, *, is_new: bool = False) -> None:
        """Outline objects with this model from now on, also in the annotate widget.

        Parameters
        ----------
        name : str
            One that is there.
        is_new : bool
            Whether nobody asked for it, so that the way back to the present one is offered.
        """

        def chosen(former: str, told: str = "") -> None:
            if (annotate := self.annotate) is not None:
                former = annotate.model
                annotate.use_model(name)
            if is_new:
                self._unused = former if former != name else ""
            self.models.look(lambda: self.models.say(told or f"'{name}' outlines objects from now on."))
            self._later()

        def not_saved(error: Exception) -> None:
            if isinstance(error, OSError) and self.annotate is not None:
                error = OSError(say.unsaved(name, error))
                chosen("", str(error))
            else:
                self.models.look(lambda: self.models.say(error))
            self.notices.say(error)

        self.runner.submit(partial(_choose, name), chosen, not_saved)

    def _on_replaced(self, old: str, new: str) -> None:
        if (annotate := self.annotate) is not None:
            is_its = annotate.model == old
            annotate.use_model(new if is_its else "")
        self._unused = new if self._unused == old else self._unused
        self._later()

    def _on_models(self, models: list[Any]) -> None:
        usable = [info for info in models if not info.problem]
        current = next((info.name for info in usable if info.current), "default")
        self.form.offer_models([info.name for info in usable], current)
        self._later()

    def _validation(self) -> float:
        with suppress(ValueError, TypeError):
            share = float(self.form.values().get("validation", 0.25))
            if 0 < share < 1:
                return share
        return 0.25

    def _on_form(self) -> None:
        self.notices.say()
        self.choice.look_if_split_otherwise()

    # ---------------------------------------------------------------- what the person wants

    def train(self) -> None:
        """Begin a training with what the form says."""
        found = self.surveyor.last
        if self.run.is_working or found is None or self._why_not():
            return
        config, make = self._config(), self.source.chosen()
        self.notices.say()
        parent, name = self.form.parent_box.currentData(), self.form.name_edit.text().strip()

        def prepared(told: Callable[[int, int], None]) -> Job:
            from napari_delse.finetuning.jobs import prepare

            return prepare(make(), config, parent=parent, name=name, found=found, fresh=True, told=told)

        self.pictures.forget()
        self.run.begin(prepared, self.form.device)

    def resume(self) -> None:
        """Go on with the training that was paused."""
        if self.run.state == "paused" and self.run.job is not None:
            self.notices.say()
            self.run.go_on(self.run.job, self.form.device)

    def _take_offer(self, order: Any = "") -> None:
        offer = self.offers.offer
        if offer is not None and not offer.running and not self.run.is_working:
            self.notices.say()
            self.pictures.forget()
            self.run.go_on(offer.job, self.form.device, order)

    def _drop_offer(self) -> None:
        offer = self.offers.offer
        if offer is not None and not offer.running and self._is_sure(self.offer_drop):
            self.offers.discard(offer.job)

    def _finish(self) -> None:
        self.notices.say()
        self.run.finish(self.form.device)

    def _end(self) -> None:
        if self._is_sure(self.kill_button):
            self.run.end()

    def _drop(self) -> None:
        job = self.run.job
        if self.run.state == "paused" and job is not None and self._is_sure(self.drop_button):
            self.run.forget()
            self.offers.discard(job)
            self.choice.look()

    def _begin_anew(self) -> None:
        self.run.forget()
        self.notices.say()
        self._unused = ""
        self.choice.look()
        self.offers.look()

    def _go_back(self) -> None:
        name, self._unused = self._unused, ""
        if name:
            self.use_model(name)

    def _is_sure(self, button: QPushButton) -> bool:
        """Whether this is the second press in a row."""
        if self._asked is button:
            self._calm()
            return True
        self._calm()
        self._asked = button
        button.setProperty("before", button.text())
        button.setText("Really?")
        self._sure.start()
        return False

    def _calm(self) -> None:
        if self._asked is not None:
            self._asked.setText(self._asked.property("before"))
            self._asked = None

    def _config(self) -> FineTuneConfig:
        """The settings of the form.

        Raises
        ------
        ValueError
            If something cannot be; the message names it.
        """
        from napari_delse.finetuning.config import FineTuneConfig
        from napari_delse.model import config_from_dict

        return config_from_dict(FineTuneConfig, self.form.values())

    def _why_not(self) -> str:
        """Why nothing can be trained; empty if all is well."""
        if not self._is_ready:
            return say.LOADING
        if self.choice.trouble:
            return self.choice.trouble
        found = self.surveyor.last
        if found is not None and found.problems:
            return say.problem(found, self.source.kind)
        try:
            self._config()
            if name := self.form.name_edit.text().strip():
                _check_name(name)
        except ValueError as error:
            self.form.mark(str(error))
            return sentence(error)
        self.form.mark("")
        return "" if found is not None else say.LOOKING

    # ---------------------------------------------------------------- the training

    def _on_run(self) -> None:
        self.choice.is_off = self.run.is_working
        if self.run.state in ("starting", "finishing") or self.run.job is None:
            self.offers.take(self.run.job)
        self._later()

    def _on_progress(self, progress: JobProgress) -> None:
        if progress.note:
            self.notices.tell(progress.note)
        self.pictures.look(progress.folder)
        outcome = progress.outcome
        if outcome is not None and outcome.improved:
            self.use_model(outcome.model, is_new=True)

    def _show_pictures(self, drawn: Drawn) -> None:
        job = self.run.job
        if job is not None and drawn.folder == job.folder:
            drawn.show(self.loss_plot, self.score_plot, self.strip, self._ink)

    # ---------------------------------------------------------------- showing

    def _paint(self, *_: Any) -> None:
        self._ink = ink_of(self.viewer.theme)
        self.use(self._ink)

    def _later(self) -> None:
        if not self._closed:
            self._soon.start()

    def _refresh(self) -> None:
        """Bring everything in step with what is going on."""
        if self._closed:
            return
        state, is_idle = self.run.state, self.run.state == "idle"
        self.setup_page.setVisible(is_idle)
        self.run_page.setVisible(not is_idle)
        if is_idle:
            self._refresh_setup()
        else:
            self._refresh_run()
        buttons = {
            "idle": (self.train_button,),
            "paused": (self.resume_button, self.stop_button, self.drop_button),
            "done": (self.new_button, *((self.back_button,) if self._unused else ())),
            "preparing": (self.pause_button,),
        }
        late = (self.kill_button,) if self.run.is_late else (self.pause_button, self.stop_button)
        self.show_buttons(buttons.get(state, late))
        self.pause_button.setEnabled(state in ("preparing", "starting", "training"))
        self.pause_button.setText("Cancel" if state == "preparing" else "Pause")
        self.stop_button.setEnabled(state in ("starting", "training", "paused"))
        self.back_button.setText(f"Back to '{self._unused}'")
        self.back_button.setToolTip(f"Outline objects with '{self._unused}' again; the new model stays")
        offer = self.offers.offer if is_idle else None
        self.show_offer("" if offer is None else offer.text, ready=offer is not None and not offer.running)

    def _refresh_setup(self) -> None:
        why = self._why_not()
        self.train_button.setEnabled(not why)
        self.train_button.setToolTip(why or "Begin the training; annotation can go on meanwhile")
        seen = self.choice.seen
        self.show_found("" if seen is None else say.found(seen))
        self.form.suggest_name("" if seen is None else seen.name)
        is_wrong = bool(why) and why not in say.HARMLESS
        guide = why or say.ready(self.form.values(), 0 if seen is None else seen.objects)
        self.show_status(guide, self.notices.text, trouble=self.notices.is_trouble or is_wrong)

    def _refresh_run(self) -> None:
        run, last = self.run, self.run.last
        text = say.running(run.state, run.read, last, is_late=run.is_late)
        self.show_status(text, self.notices.text, trouble=self.notices.is_trouble)
        outcome = None if last is None else last.outcome
        done, total = run.read if run.state == "preparing" else (run.fraction, 1)
        # No busy bar while the process starts: it would draw the whole window anew thirty times a second.
        self.bar.setVisible(outcome is None and total > 0 and run.state != "starting")
        self.bar.setValue(round(1000 * done / max(1, total)))
        self.numbers.setText("" if last is None else say.numbers(last))
        self.numbers.setVisible(last is not None and outcome is None)
        self.verdict.setVisible(outcome is not None)
        self.pairs.setVisible(outcome is not None)
        for one in (self.loss_plot, self.score_plot):
            one.setVisible(bool(one.lines))
        self.strip.setVisible(bool(self.strip.pictures))
        if outcome is not None:
            taken = (say.TAKEN,) if outcome.improved and self._unused else ()
            self.verdict.setText("\n".join((*outcome.sentences[1:], *taken)))
            after = outcome.after if outcome.improved else outcome.last
            self.pairs.show_pairs(list(zip(outcome.before.iou, after.iou, strict=True)))


# ---------------------------------------------------------------- in the worker


def _settings() -> tuple[type, Any]:
    """What can be set; imports torch."""
    from napari_delse.finetuning import process  # noqa: F401 - so that its answers are read without a delay
    from napari_delse.finetuning.config import PRESETS, FineTuneConfig
    from napari_delse.finetuning.model_store import check_name  # noqa: F401
    from napari_delse.settings import notes

    notes(FineTuneConfig)
    return FineTuneConfig, PRESETS


def _choose(name: str) -> str:
    """Work with a model from now on; the one before."""
    from napari_delse.finetuning.model_store import choose_model, current_model

    former = current_model()
    choose_model(name)
    return former


def _check_name(name: str) -> None:
    from napari_delse.finetuning.model_store import check_name

    check_name(name)
