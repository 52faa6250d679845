"""The fine-tuning widget: what it finds and refuses, a training from its beginning to its end, and the models."""

import errno
import shutil
import threading
import time
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

pytest.importorskip("napari")
pytest.importorskip("pytestqt")

from conftest import handed
from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget

from napari_delse.checkpoint import available_models, user_models
from napari_delse.finetuning import process
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.jobs import list_jobs, user_jobs
from napari_delse.finetuning.model_store import choose_model, current_model
from napari_delse.finetuning.run import finish, run
from napari_delse.settings import nested, notes
from napari_delse.widgets._finetune import words as say
from napari_delse.widgets._finetune.curves import axis
from napari_delse.widgets.annotate import AnnotateWidget
from napari_delse.widgets.finetune import FineTuneWidget

pytestmark = pytest.mark.usefixtures("own_home")

LEARNS = {
    "steps": 50,
    "replay": 0,
    "batch_size": 4,
    "freeze_norm": False,
    "learning_rate": 5e-3,
    "interactive_share": 0.0,
}
LASTS = {"steps": 4000, "replay": 0, "minutes": 1e-4, "batch_size": 2, "score_objects": 2}
NAMES = ("Fine-tune", "Annotate")
IDLES = {"steps": 2, "replay": 0, "learning_rate": 1e-12}


class InThread:
    """Trains as the child process does, without another process."""

    def __init__(self, job, device, error=None):
        self.job, self.error, self.order = job, error, ""

    def stop(self):
        self.order = self.order or "stop"

    def finish(self):
        self.order = "finish"

    def progress(self):
        with closing(run(self.job, device="cpu")) as steps:
            for last in steps:
                yield last
                if self.error is not None:
                    raise self.error
                if self.order:
                    break
        if self.order == "finish":
            yield last.__class__(**{**last.__dict__, "outcome": finish(self.job, device="cpu")})


@pytest.fixture
def parent(tiny_parent):
    """The tiny model, under the name that the widget offers first."""
    user_models().mkdir(parents=True)
    shutil.copytree(tiny_parent, user_models() / "tiny")
    choose_model("tiny")


@pytest.fixture
def viewer():
    """The viewer without its window."""
    return ViewerModel()


@pytest.fixture
def open_widget(qtbot, viewer):
    opened = []

    def open_it(start=InThread, on=None, **settings):
        widget = FineTuneWidget(handed(viewer if on is None else on), start=start)
        if on is None:
            qtbot.addWidget(widget)
        opened.append(widget)
        qtbot.waitUntil(lambda: widget._is_ready and bool(widget.models.models))
        if settings:
            widget.form.fold.click()
            widget.form.config.build_all()
            widget.form.config.show_values(settings)
            widget.form.config.changed.emit()
        return widget

    yield open_it
    for widget in opened:
        widget.shut_down()
    deadline = time.monotonic() + 30
    while any(t.name == "napari-delse-training" for t in threading.enumerate()) and time.monotonic() < deadline:
        time.sleep(0.05)


def until_told(qtbot, widget, text):
    def told():
        said = f"{widget.notice.text()} {widget.guide.text()}"
        assert text in said, said

    qtbot.waitUntil(told)


def until_ready(qtbot, widget):
    qtbot.waitUntil(lambda: widget.train_button.isEnabled() and widget.surveyor.last is not None)


def show(viewer, image, labels):
    viewer.add_image(image, name="disks")
    return viewer.add_labels(labels, name="truth")


def learn_from(widget, labels):
    """Choose a labels layer, instead of the one that is annotated."""
    box = widget.source.labels_box
    box.setCurrentIndex(box.findData(labels))
    box.activated.emit(box.currentIndex())


def train_until(qtbot, widget, *states):
    until_ready(qtbot, widget)
    widget.train_button.click()
    qtbot.waitUntil(lambda: widget.run.state in states)
    qtbot.waitUntil(lambda: not widget._soon.isActive())


# ---------------------------------------------------------------- what it finds


def test_it_says_what_to_do_until_there_is_something_to_learn_from(viewer, open_widget, qtbot):
    widget = open_widget()
    until_told(qtbot, widget, "Open an image first")
    assert not widget.train_button.isEnabled()
    viewer.add_image(np.random.default_rng(0).random((64, 64)), name="later")
    until_told(qtbot, widget, "Label five objects first")
    labels = viewer.add_labels(np.zeros((64, 64), np.uint16))
    qtbot.waitUntil(lambda: widget.surveyor.last is not None)
    until_told(qtbot, widget, say.FEW)
    assert not widget.status.property("trouble")
    for number, y in enumerate((5, 20, 35, 50), 1):
        labels.data[y : y + 8, 10:20] = number
    labels.events.labels_update(data=labels.data, offset=(0, 0))  # as napari tells of a stroke
    until_ready(qtbot, widget)
    assert "4 labelled objects in one plane" in widget.found.text()
    assert "five or more tell" in widget.guide.text()
    assert "held out" in widget.found.text()


def test_objects_planes_sizes_and_the_split_are_told_before_training(viewer, open_widget, qtbot, disks):
    show(viewer, *disks(planes=4))
    widget = open_widget()
    until_ready(qtbot, widget)
    for words in ("16 labelled objects in 4 planes", "96 x 96 pixels, 1 channel", "across", "held out"):
        assert words in widget.found.text()
    assert widget.form.name_edit.placeholderText() == "disks"


def colours(image):
    return np.repeat((image / image.max() * 255).astype(np.uint8)[..., None], 3, axis=-1)


def test_colours_and_channels_are_looked_at_as_annotate_does(viewer, open_widget, qtbot, disks):
    image, labels = disks(planes=1)
    viewer.add_image(colours(image[0]), name="rgb", rgb=True)
    viewer.add_labels(labels[0])
    widget = open_widget()
    until_ready(qtbot, widget)
    assert "colours" in widget.found.text()
    viewer.add_image(np.stack([image[0], image[0] * 2]), name="two")
    form = widget.source
    form.image_box.setCurrentIndex(form.image_box.findText("two"))
    form.image_box.activated.emit(form.image_box.currentIndex())
    until_told(qtbot, widget, "must match")
    form.channel_box.setCurrentIndex(1)
    form.channel_box.activated.emit(1)
    until_ready(qtbot, widget)
    assert "2 channels" in widget.found.text()
    form.channels_edit.setText("0,7")
    until_told(qtbot, widget, "one to three of the 2 channels")


def test_lazy_layers_are_read_where_it_does_not_disturb(viewer, open_widget, qtbot, disks):
    array = pytest.importorskip("dask.array")
    image, labels = disks(planes=2)
    threads = set()

    def noted(block):
        threads.add(threading.current_thread())
        return block

    lazy = array.from_array(labels, chunks=(1, 96, 96)).map_blocks(noted, dtype=labels.dtype)
    show(viewer, array.from_array(image, chunks=(1, 96, 96)), lazy)
    threads.clear()
    widget = open_widget()
    until_ready(qtbot, widget)
    assert threads
    assert threading.main_thread() not in threads


def test_labels_are_looked_at_again_when_somebody_sees_it(viewer, open_widget, qtbot, disks):
    labels = show(viewer, *disks(planes=2))
    widget = open_widget()
    widget.show()
    until_ready(qtbot, widget)
    widget.hide()
    found = widget.surveyor.last
    labels.data[0] = 0
    labels.events.labels_update(data=labels.data[0], offset=(0, 0))
    assert widget.surveyor.last is found
    widget.show()
    assert widget.surveyor.last is None
    until_ready(qtbot, widget)
    assert "4 labelled objects" in widget.found.text()


def test_labels_are_looked_at_again_after_an_undo_but_not_for_another_plane(viewer, open_widget, qtbot, disks):
    labels = show(viewer, *disks(planes=2))
    widget = open_widget()
    widget.show()
    labels.paint((0, 2, 2), 9)
    until_ready(qtbot, widget)
    assert "9 labelled objects" in widget.found.text()
    viewer.dims.set_point(0, 1)
    assert widget.surveyor.last is not None
    for step, count in ((labels.undo, 8), (labels.redo, 9)):
        step()
        assert widget.surveyor.last is None
        until_ready(qtbot, widget)
        assert f"{count} labelled objects" in widget.found.text()


def one_object(image, labels):
    return image, np.where(labels == 1, labels, 0) * (np.arange(len(labels)) == 0)[:, None, None].astype(labels.dtype)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda i, x: (i, x[:, :50]), "Image (2, 96, 96) and labels (2, 50, 96) of 'disks' must match"),
        (lambda i, x: (np.full_like(i, 7), x), "is 7 in every pixel"),
        (one_object, "1 labelled object of"),
    ],
    ids=["other shape", "constant image", "one object"],
)
def test_layers_that_cannot_be_learned_from_are_told_in_one_sentence(
    viewer, open_widget, qtbot, disks, own_home, spoil, sentence
):
    show(viewer, *spoil(*disks(planes=2)))
    widget = open_widget()
    until_told(qtbot, widget, sentence)
    assert widget.guide.text().count(".") < 6
    assert widget.guide.text().endswith(".")
    assert widget.status.property("trouble")
    assert not widget.train_button.isEnabled()
    widget.train()
    assert widget.run.state == "idle"
    assert not user_jobs().exists()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda x: x.astype(np.float32), "must be integer instance ids, got float32"),
        (lambda x: x * 0, "0 labelled objects"),
        (lambda x: x[:, :40], "must match"),
    ],
    ids=["float", "empty", "other shape"],
)
def test_files_that_cannot_be_learned_from_are_told_in_one_sentence(
    open_widget, qtbot, disks, tmp_path, spoil, sentence
):
    image, labels = disks(planes=2)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", spoil(labels), photometric="minisblack")
    widget = open_widget()
    choose_kind(widget, "files")
    until_told(qtbot, widget, "Choose the images")
    widget.source.images_edit.setText(str(tmp_path / "image.tif"))
    widget.source.truths_edit.setText(str(tmp_path / "nothing.tif"))
    until_told(qtbot, widget, "does not exist")
    widget.source.truths_edit.setText(str(tmp_path / "labels.tif"))
    until_told(qtbot, widget, sentence)
    assert not widget.train_button.isEnabled()


def choose_kind(widget, kind):
    box = widget.source.kind_box
    box.setCurrentIndex(box.findData(kind))
    box.activated.emit(box.currentIndex())


def test_files_and_journals_are_learned_from_as_well(viewer, open_widget, qtbot, disks, tmp_path, annotated):
    image, labels = disks(planes=3)
    tifffile.imwrite(tmp_path / "image.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    annotated(image, labels, tmp_path / "work.jsonl", drags=2)
    widget = open_widget()
    choose_kind(widget, "files")
    widget.source.images_edit.setText(str(tmp_path / "image.tif"))
    widget.source.truths_edit.setText(str(tmp_path / "labels.tif"))
    until_ready(qtbot, widget)
    assert "12 labelled objects" in widget.found.text()
    viewer.add_image(image, name="disks")
    choose_kind(widget, "journal")
    until_told(qtbot, widget, "Choose a journal")
    widget.source.journal_edit.setText(str(tmp_path / "work.jsonl"))
    until_ready(qtbot, widget)
    assert "clicks of 12 of them were recorded, and of 2 also drags" in widget.found.text()


def test_a_journal_that_began_with_labels_is_learned_from_with_these(
    viewer, open_widget, qtbot, disks, tmp_path, annotated
):
    image, labels = disks(planes=3)
    begun = labels * (np.arange(3) == 2)[:, None, None].astype(labels.dtype)
    tifffile.imwrite(tmp_path / "begun.tif", begun, photometric="minisblack")
    annotated(image, labels - begun, tmp_path / "work.jsonl", begun=begun)
    viewer.add_image(image, name="disks")
    widget = open_widget()
    assert not widget.source.begun_edit.isVisibleTo(widget)
    choose_kind(widget, "journal")
    assert widget.source.begun_edit.isVisibleTo(widget)
    widget.source.journal_edit.setText(str(tmp_path / "work.jsonl"))
    until_told(qtbot, widget, "began with labels that were there already; give these too")
    widget.source.begun_edit.setText(str(tmp_path / "begun.tif"))
    until_ready(qtbot, widget)
    assert "8 labelled objects" in widget.found.text()


# ---------------------------------------------------------------- the form


def test_every_setting_is_in_the_form_with_its_note(open_widget):
    form = open_widget(minutes=5.0).form.config
    for one in fields(FineTuneConfig):
        inner = nested(one)
        for cls, name in [(FineTuneConfig, one.name)] if inner is None else [(inner, f.name) for f in fields(inner)]:
            full = name if inner is None else f"{one.name}.{name}"
            assert form.fields[full].widget.native.toolTip() == notes(cls)[name]
    assert form.values() == {}


def test_the_form_gives_what_was_written(open_widget):
    widget = open_widget(steps=7, freeze_norm=False)
    form = widget.form.config
    form.fields["loss.final"].widget.value = "0.5"
    form.fields["size"].widget.value = ""
    config = widget._config()
    assert (config.steps, config.freeze_norm, config.loss.final, config.size) == (7, False, 0.5, None)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("learning_rate", "fast", "'learning_rate' must be a number, got 'fast'"),
        ("batch_size", "", "'batch_size' must be a whole number, got None"),
        ("validation", "1.5", "Validation must be a share in (0, 1) of the objects, such as 0.25, got 1.5"),
        ("validation", "nan", "Validation must be a share in (0, 1) of the objects, such as 0.25, got nan"),
        ("minutes", "1e999", "Minutes must be a number > 0, got inf"),
        ("learning_rate", "-1", "Learning_rate must be a number > 0, got -1"),
        ("augment.jitter", "-1", "Jitter must be a number >= 0, got -1"),
    ],
)
def test_a_value_that_cannot_be_is_told_and_marked(viewer, open_widget, qtbot, disks, name, value, sentence):
    show(viewer, *disks(planes=2))
    widget = open_widget(steps=7)
    until_ready(qtbot, widget)
    field = widget.form.config.fields[name].widget
    good = field.value
    field.value = value
    until_told(qtbot, widget, sentence)
    assert "border" in field.native.styleSheet()
    assert not widget.train_button.isEnabled()
    field.value = good
    until_ready(qtbot, widget)
    assert not field.native.styleSheet()


def test_times_are_presets_until_the_person_writes_another_one(open_widget, qtbot):
    widget = open_widget(replay=0.5)
    box = widget.form.time_box
    box.setCurrentIndex(box.findText("until it stops improving"))
    box.activated.emit(box.currentIndex())
    assert widget._config().patience is not None
    assert widget.form.config.fields["patience"].widget.value == str(widget._config().patience)
    assert "until it stops improving" in say.ready(widget.form.values(), 9)
    widget.form.config.fields["patience"].widget.value = ""
    widget.form.config.fields["minutes"].widget.value = "3"
    assert box.currentText() == "own (Advanced)"
    assert (widget._config().minutes, widget._config().patience, widget._config().replay) == (3.0, None, 0.5)
    widget.form.reset_button.click()
    assert box.currentIndex() == 0
    assert widget._config() == FineTuneConfig(minutes=2.0)


def test_a_name_that_no_folder_can_have_is_told(viewer, open_widget, qtbot, disks):
    show(viewer, *disks(planes=2))
    widget = open_widget()
    until_ready(qtbot, widget)
    widget.form.name_edit.setText("../elsewhere")
    until_told(qtbot, widget, "may hold only letters")
    assert not widget.train_button.isEnabled()
    widget.form.name_edit.setText("default")
    until_told(qtbot, widget, "comes with the package")


# ---------------------------------------------------------------- a training


def test_a_better_model_is_named_listed_and_taken(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    shutil.copytree(user_models() / "tiny", user_models() / "my-disks")
    widget = open_widget(**LEARNS)
    widget.form.name_edit.setText("my-disks")
    train_until(qtbot, widget, "done")
    outcome = widget.run.last.outcome
    assert outcome.improved
    assert "'my-disks-2' is better than 'tiny'" in widget.guide.text()
    assert "95 % interval" in widget.verdict.text()
    qtbot.waitUntil(lambda: say.TAKEN in widget.verdict.text())
    assert widget.pairs.pairs == list(zip(outcome.before.iou, outcome.after.iou, strict=True))
    qtbot.waitUntil(lambda: len(widget.strip.pictures) > 0 and len(widget.loss_plot.lines) > 0)
    scores = {line.name: line.points for line in widget.score_plot.lines}
    assert scores["IoU"][0][1] == pytest.approx(outcome.before.mean_iou, abs=1e-4)
    qtbot.waitUntil(lambda: current_model() == "my-disks-2")
    qtbot.waitUntil(lambda: [one.name for one in widget.models.models if one.current] == ["my-disks-2"])
    widget.back_button.click()
    qtbot.waitUntil(lambda: current_model() == "tiny")
    widget.new_button.click()
    until_ready(qtbot, widget)


def in_a_window(qtbot, viewer, open_widget, load=lambda model, device: Anything(), **settings):
    """Both widgets in one window, as napari has them."""
    window = QWidget()
    qtbot.addWidget(window)
    annotate = AnnotateWidget(viewer, load=load, names=lambda: list(available_models()))
    annotate.setParent(window)
    widget = open_widget(on=viewer, **settings)
    widget.setParent(window)
    return window, annotate, widget  # Qt deletes a window that nobody holds


def test_the_way_back_leads_to_the_model_that_was_in_use_and_not_to_the_parent(
    viewer, open_widget, qtbot, disks, parent
):
    choose_model("default")
    _window, annotate, widget = in_a_window(qtbot, viewer, open_widget, **LEARNS)
    learn_from(widget, show(viewer, *disks()))
    box = widget.form.parent_box
    box.setCurrentIndex(box.findData("tiny"))
    train_until(qtbot, widget, "done")
    assert widget.run.last.outcome.parent == "tiny"
    qtbot.waitUntil(lambda: annotate.model == widget.run.last.outcome.model)
    qtbot.waitUntil(lambda: widget.back_button.text() == "Back to 'default'")
    annotate.shut_down()


@pytest.mark.parametrize("content", ['{"policy": {"colour": "red"}, "model": "tiny"}', "{"])
def test_settings_that_cannot_be_read_are_replaced_when_a_model_is_taken(own_home, open_widget, qtbot, parent, content):
    widget = open_widget()
    (own_home / "preferences.json").write_text(content)
    widget.use_model("tiny")
    qtbot.waitUntil(lambda: current_model() == "tiny")


def no_settings(*_, **__):
    raise OSError(errno.EROFS, "Read-only file system", "preferences.json")


def test_a_model_is_taken_for_now_where_its_choice_cannot_be_saved(
    viewer, open_widget, qtbot, disks, parent, monkeypatch
):
    monkeypatch.setattr("napari_delse.annotation.preferences.write_preferences", no_settings)
    _window, annotate, widget = in_a_window(qtbot, viewer, open_widget, **LEARNS)
    learn_from(widget, show(viewer, *disks()))
    train_until(qtbot, widget, "done")
    qtbot.waitUntil(lambda: annotate.model == "disks")
    until_told(qtbot, widget, "'disks' outlines objects until napari is closed, but the choice cannot be saved")
    qtbot.waitUntil(lambda: "disks" in [one.name for one in widget.models.models])
    qtbot.waitUntil(lambda: "cannot be saved" in widget.models.about.text())
    assert current_model() == "tiny"
    annotate.shut_down()


def test_where_nobody_outlines_a_choice_that_cannot_be_saved_is_none(open_widget, qtbot, parent, monkeypatch):
    monkeypatch.setattr("napari_delse.annotation.preferences.write_preferences", no_settings)
    widget = open_widget()
    widget.use_model("default", is_new=True)
    until_told(qtbot, widget, "Read-only file system")
    qtbot.waitUntil(lambda: "Read-only file system" in widget.models.about.text())
    assert widget._unused == ""


def test_the_models_are_listed_anew_also_after_what_failed(open_widget, qtbot, parent, monkeypatch):
    widget = open_widget()

    def half_done(old, new):
        shutil.copytree(user_models() / old, user_models() / new)
        raise OSError("half done")

    monkeypatch.setattr("napari_delse.finetuning.model_store.rename_model", half_done)
    widget.models.select("tiny")
    widget.models.rename_button.click()
    widget.models.name_edit.setText("nuclei")
    widget.models.yes_button.click()
    qtbot.waitUntil(lambda: "Half done" in widget.models.about.text())
    assert "nuclei" in [one.name for one in widget.models.models]


def test_a_model_that_is_not_better_never_becomes_current(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    widget = open_widget(**IDLES)
    train_until(qtbot, widget, "done")
    assert not widget.run.last.outcome.improved
    assert "'tiny' stays" in widget.guide.text()
    assert "more time" in widget.verdict.text()
    assert current_model() == "tiny"
    assert set(available_models()) == {"default", "tiny"}


def test_paused_it_goes_on_where_it_was_and_stopped_it_keeps_the_best(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    widget = open_widget(**LASTS)
    train_until(qtbot, widget, "training")
    qtbot.waitUntil(lambda: widget.run.last.step >= 3)
    widget.pause_button.click()
    qtbot.waitUntil(lambda: widget.resume_button.isVisibleTo(widget))
    step, before = widget.run.last.step, widget.run.last.before
    assert list_jobs()[0].state == "paused"
    widget.resume_button.click()
    qtbot.waitUntil(lambda: widget.run.state == "training" and widget.run.last.step > step)
    assert widget.run.last.before == before
    widget.stop_button.click()
    qtbot.waitUntil(lambda: widget.run.state == "done")
    assert widget.run.last.outcome.steps >= step
    assert list_jobs()[0].state == "finished"


class Hanging(InThread):
    """Obeys no order, until it is killed."""

    def __init__(self, job, device):
        super().__init__(job, device)
        self.killed = threading.Event()

    def kill(self):
        self.killed.set()

    def progress(self):
        with closing(run(self.job, device="cpu")) as steps:
            yield next(steps)
            self.killed.wait()


def test_a_training_that_does_not_end_can_be_ended(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    widget = open_widget(Hanging, **LASTS)
    train_until(qtbot, widget, "training")
    widget.pause_button.click()
    qtbot.waitUntil(lambda: widget.guide.text() == "Saving the training ...")
    assert not widget.kill_button.isVisibleTo(widget)
    widget.run._patience.start(0)  # as if it had been over long ago
    qtbot.waitUntil(lambda: widget.kill_button.isVisibleTo(widget))
    assert "has not ended yet" in widget.guide.text()
    widget.kill_button.click()
    assert widget.kill_button.text() == "Really?"
    widget.kill_button.click()
    qtbot.waitUntil(lambda: widget.run.state == "paused")
    qtbot.waitUntil(lambda: widget.resume_button.isVisibleTo(widget))


def test_a_training_whose_folder_was_removed_is_said_to_be_gone(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    widget = open_widget(Hanging, **LASTS)
    train_until(qtbot, widget, "training")
    shutil.rmtree(widget.run.job.folder)
    widget.run._child.kill()
    until_told(qtbot, widget, "The training 'disks' is gone: its folder")
    assert widget.run.state == "idle"
    until_ready(qtbot, widget)


def test_an_unfinished_training_of_another_version_is_told(viewer, open_widget, qtbot):
    folder = user_jobs() / "old"
    folder.mkdir(parents=True)
    (folder / "job.json").write_text('{"format": 0}', encoding="utf-8")
    widget = open_widget()
    qtbot.waitUntil(lambda: "it comes from another version" in widget.notice.text())
    assert not widget.offer.isVisibleTo(widget)


def test_an_unfinished_training_is_offered_the_next_time(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    first = open_widget(**LASTS)
    train_until(qtbot, first, "training")
    first.shut_down()  # as when napari is closed
    second = open_widget()
    qtbot.waitUntil(lambda: second.offer_resume.isVisibleTo(second) and second.offer_resume.isEnabled())
    assert "Unfinished training 'disks'" in second.offer_text.text()
    second.offer_resume.click()
    qtbot.waitUntil(lambda: second.run.state == "training")
    assert not second.offer.isVisibleTo(second)
    second.pause_button.click()
    qtbot.waitUntil(lambda: second.run.state == "paused")
    second.drop_button.click()
    assert second.drop_button.text() == "Really?"
    second.drop_button.click()
    qtbot.waitUntil(lambda: not list_jobs())
    assert second.run.state == "idle"


def test_a_crash_is_told_in_one_sentence_and_the_training_is_kept(viewer, open_widget, qtbot, disks, parent):
    crashes = [RuntimeError("the training ended unexpectedly (code -9)")]

    def start(job, device):
        return InThread(job, device, crashes.pop() if crashes else None)

    show(viewer, *disks())
    widget = open_widget(start=start, **LASTS)
    train_until(qtbot, widget, "paused")
    until_told(qtbot, widget, "The training ended unexpectedly (code -9).")
    assert widget.status.property("trouble")
    widget.resume_button.click()
    qtbot.waitUntil(lambda: widget.run.state == "training")
    assert widget.run.last.step >= 0


def test_a_full_disk_is_told_and_nothing_is_left(viewer, open_widget, qtbot, disks, parent, monkeypatch):
    show(viewer, *disks())
    widget = open_widget(**LEARNS)
    until_ready(qtbot, widget)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=10, used=10, free=0))
    widget.train_button.click()
    until_told(qtbot, widget, "There is not enough room in")
    assert widget.run.state == "idle"
    assert widget.train_button.isEnabled()
    assert not user_jobs().exists()


def test_labels_that_change_while_they_are_read_are_told(viewer, open_widget, qtbot, disks, parent):
    labels = show(viewer, *disks())
    widget = open_widget(**LEARNS)
    until_ready(qtbot, widget)
    labels.data[:] = 0
    widget.train_button.click()
    until_told(qtbot, widget, "was changed while it was read")
    assert not list_jobs()


def test_what_is_prepared_can_be_cancelled(viewer, open_widget, qtbot, disks, parent):
    show(viewer, *disks())
    widget = open_widget(**LEARNS)
    until_ready(qtbot, widget)
    widget.train_button.click()
    assert widget.run.state == "preparing"
    widget.run.pause()
    assert widget.run.state == "idle"
    done = threading.Event()
    widget.run.runner.submit(done.set, lambda _: None, lambda _: None)
    qtbot.waitUntil(done.is_set)
    assert not list_jobs()


# ---------------------------------------------------------------- in a window, with a child process


def test_closing_the_widget_has_the_child_save_and_waits_for_nothing(
    make_napari_viewer, open_widget, qtbot, disks, parent, monkeypatch
):
    command = (process.COMMAND[0], str(Path(__file__).with_name("tiny_cli.py")))
    monkeypatch.setattr(process, "COMMAND", command)
    children = []

    def start(job, device):
        children.append(process.TrainingProcess(job, "cpu"))
        return children[-1]

    viewer = make_napari_viewer()
    show(viewer, *disks())
    widget = open_widget(start=start, on=viewer, **LASTS)
    dock = viewer.window.add_dock_widget(widget, name="Fine-tune (DELSE)")
    train_until(qtbot, widget, "training")
    qtbot.waitUntil(lambda: widget.run.last.step >= 2)
    step = widget.run.last.step
    began = time.monotonic()
    viewer.window.remove_dock_widget(dock)
    assert time.monotonic() - began < 2
    qtbot.waitUntil(lambda: not children[0].is_alive)
    (job,) = list_jobs()
    assert job.state == "paused"
    assert next(run(job)).step >= step


class Anything:
    """A predictor that is asked for nothing."""


def test_the_annotate_widget_takes_the_new_model_and_notices_changes(viewer, open_widget, qtbot, disks, parent):
    loaded = []

    def load(model, device):
        loaded.append(model)
        return Anything()

    _window, annotate, widget = in_a_window(qtbot, viewer, open_widget, load)
    assert annotate.model == "tiny"  # the current one
    labels = show(viewer, *disks())
    qtbot.waitUntil(lambda: annotate.is_ready)
    assert widget.annotate is annotate
    qtbot.waitUntil(lambda: widget.source.labels is annotate.desk.labels)
    assert labels is not annotate.desk.labels
    shutil.copytree(user_models() / "tiny", user_models() / "other")
    widget.use_model("other")
    qtbot.waitUntil(lambda: annotate.is_ready and annotate.model == "other")
    box = annotate.settings.model_box
    assert box.currentText() == "other"
    qtbot.waitUntil(lambda: {box.itemText(i) for i in range(box.count())} == {"default", "tiny", "other"})
    qtbot.waitUntil(lambda: any(one.current and one.name == "other" for one in widget.models.models))
    widget.models.select("other")
    widget.models.rename_button.click()
    widget.models.name_edit.setText("better")
    widget.models.yes_button.click()
    qtbot.waitUntil(lambda: annotate.model == "better" and annotate.is_ready)
    qtbot.waitUntil(lambda: widget.models.selected == ["better"])
    widget.models.delete_button.click()
    widget.models.yes_button.click()
    qtbot.waitUntil(lambda: annotate.model == "default" and annotate.is_ready)
    assert loaded[0] == "tiny"
    assert loaded[-1] == "default"
    annotate.shut_down()


def test_opened_from_the_menu_all_widgets_work_and_find_each_other(make_napari_viewer, qtbot):
    """napari gives each of them a viewer of its own: a proxy, whose layers are others at each question."""
    viewer = make_napari_viewer()
    image = viewer.add_image(np.zeros((4, 80, 80), np.uint8), name="stack")
    opened = [viewer.window.add_plugin_dock_widget("napari-delse", f"{name} (DELSE)") for name in (*NAMES, "Batch")]
    (_, widget), (_, annotate), (_, batch) = opened
    assert widget.annotate is annotate
    assert annotate.viewer is widget.viewer is batch.viewer is viewer
    qtbot.waitUntil(lambda: widget._is_ready and annotate.is_ready)
    clicks = annotate.desk.layers.clicks
    assert viewer.layers.selection.active is clicks
    qtbot.waitUntil(lambda: "1 of 4" in annotate.guide.text())
    annotate.switch_tool()
    assert viewer.layers.selection.active is annotate.desk.layers.drags
    annotate.switch_tool()
    assert viewer.layers.selection.active is clicks
    viewer.layers.selection.active = image
    qtbot.waitUntil(lambda: "Back to clicking" in annotate.guide.text())
    assert batch.form.image_box.currentData() is widget.source.image_box.currentData() is image
    for dock, _ in opened:
        viewer.window.remove_dock_widget(dock)
    assert widget._closed
    assert annotate._closed


# ---------------------------------------------------------------- models


def test_models_are_exported_imported_and_compared(viewer, open_widget, qtbot, disks, parent, tmp_path):
    show(viewer, *disks())
    widget = open_widget(**LEARNS)
    train_until(qtbot, widget, "done")
    models = widget.models
    qtbot.waitUntil(lambda: "disks" in [one.name for one in models.models])
    models.select("disks")
    assert "Fine-tuned from 'tiny' on" in models.about.text()
    models.export_to("disks", str(tmp_path / "disks.delse.zip"))
    qtbot.waitUntil(lambda: "was written to" in models.about.text())
    models.import_from(str(tmp_path / "disks.delse.zip"))
    qtbot.waitUntil(lambda: "'disks-2' was added" in models.about.text())
    models.import_from(str(Path(__file__)))
    qtbot.waitUntil(lambda: "no model file" in models.about.text())
    models.table.clearSelection()
    models.select("tiny", "disks")
    models.compare_button.click()
    qtbot.waitUntil(lambda: models.pairs.isVisibleTo(models))
    outcome = widget.run.last.outcome
    assert f"'{models.selected[0]}' IoU" in models.about.text()
    assert sorted(models.pairs.pairs[0]) == pytest.approx(
        sorted((outcome.before.iou[0], outcome.after.iou[0])), abs=1e-3
    )


def test_a_model_that_came_with_the_plugin_can_only_be_used_and_copied(open_widget):
    models = open_widget().models
    models.select("default")
    assert models.export_button.isEnabled()
    assert not models.rename_button.isEnabled()
    assert not models.delete_button.isEnabled()
    assert "comes with the plugin" in models.about.text()


@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.81, 0.83), (-3.0, 200.0), (0.5, 0.5)])
def test_an_axis_has_round_ends_around_all_values(ends):
    low, high, step = axis(*ends)
    assert low <= ends[0]
    assert high >= ends[1]
    assert 2 <= round((high - low) / step) <= 8


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.4, "12 s"), (61, "1 min"), (178, "3 min"), (90, "1 min 30 s"), (598, "10 min")]
)
def test_times_are_told_as_people_do(seconds, text):
    assert say.duration(seconds) == text
