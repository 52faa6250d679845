#!/usr/bin/env python3
"""A tour of the Fine-tune widget by a scripted person: real windows, a real child process, closed and killed.

python scripts/tour_finetune.py [--minutes 4] [--out FOLDER] [--theme dark|light]

Two objects are outlined by clicks, the others come from the sample's labels, grown as if a halo belonged to the cells:
the default model does not know that. The training is paused, gone on with and stopped; models are compared and
switched. Another one is begun in a napari that is closed, gone on with in one that is killed, and ended here.
Without a screen: xvfb-run -a -s "-screen 0 1400x1000x24" before the command.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hands import let_pass, wait_until
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from tour import IMAGES, Person, open_window, take

HALO = 4  # pixels that the labels are grown by
NOISE = 25.0
PLANE = 2
LONG = 600.0  # seconds that something may take on a busy machine
BRIEF = {"steps": "400", "batch size": "2", "score objects": "2", "replay": "0", "minutes": "0.01"}


def cells() -> tuple[np.ndarray, np.ndarray]:
    """The sample stack with noise, and its labels with a halo."""
    import tifffile
    from skimage.segmentation import expand_labels

    from napari_delse._sample_data import sample_folder

    image, labels = (tifffile.imread(sample_folder() / name) for name in ("cells.tif", "cells_labels.tif"))
    noisy = image / image.max() * 200 + np.random.default_rng(0).normal(20, NOISE, image.shape)
    halo = np.stack([expand_labels(plane, HALO) for plane in labels])
    return np.clip(noisy, 0, 255).astype(np.uint8), halo.astype(np.uint16)


class Trainer(Person):
    """A person who also trains.

    Parameters
    ----------
    image : array
        Opened in a new window with both widgets.
    theme : str
        Of the window.
    """

    def __init__(self, image: np.ndarray, theme: str) -> None:
        from napari.utils._proxies import PublicOnlyProxy

        from napari_delse.widgets.finetune import FineTuneWidget

        super().__init__(*open_window([(image, {"name": "cells"}, "image")], theme))
        self.tuner = FineTuneWidget(PublicOnlyProxy(self.viewer))  # as napari's menu does
        self.viewer.window.add_dock_widget(self.tuner, name="Fine-tune (DELSE)", area="right", tabify=True)
        self.viewer.dims.current_step = (PLANE, 0, 0)
        wait_until(lambda: self.tuner._is_ready and self.tuner.models.models, LONG)

    def show(self, widget: Any) -> None:
        """Bring one of both widgets to the front."""
        dock = widget.parentWidget()
        dock.show()
        dock.raise_()
        let_pass(0.3)

    def write(self, name: str, text: str) -> None:
        """Write into a field under Advanced with the keyboard."""
        form = self.tuner.form
        if not form.fold.isChecked():
            QTest.mouseClick(form.fold, Qt.MouseButton.LeftButton)
            wait_until(lambda: form.config is not None and not form.config._waiting)
        field = form.config.fields[name.replace(" ", "_")].widget.native
        field.setFocus()
        field.selectAll()
        QTest.keyClicks(field, text)

    def fold(self) -> None:
        """Close what is under Advanced."""
        if self.tuner.form.fold.isChecked():
            QTest.mouseClick(self.tuner.form.fold, Qt.MouseButton.LeftButton)

    def until(self, *states: str) -> None:
        """Until the training is in one of these states."""
        wait_until(lambda: self.tuner.run.state in states, LONG)
        let_pass(0.5)

    def label_rest(self, truth: np.ndarray) -> None:
        """Take labels over, as if somebody had drawn them."""
        labels = self.widget._labels
        labels.data[:] = truth
        labels.refresh()
        self.press(self.tuner.again_button)
        wait_until(lambda: self.tuner.surveyor.last is not None and self.tuner.train_button.isEnabled(), LONG)

    def train(self) -> None:
        """Press Train and wait until it trains."""
        self.press(self.tuner.train_button)
        self.until("training")


def learn(out: Path, theme: str, minutes: float) -> None:
    """Label, train, pause, go on, stop, compare and switch."""
    image, truth = cells()
    person = Trainer(image, theme)
    tuner, plane = person.tuner, truth[PLANE]
    chosen = [n for n in np.unique(plane) if n and not touches_border(plane == n)]
    for label in chosen[:2]:
        person.outline(plane == label)
        person.accept()
    person.show(tuner)
    wait_until(lambda: tuner.surveyor.last is not None, LONG)
    let_pass(0.5)
    print("with two objects:", tuner.guide.text())
    few = truth * np.isin(truth, [n for n in np.unique(truth) if n % 2])
    person.label_rest(few)
    take(person.viewer, out / "finetune_ready.png")
    person.write("minutes", f"{minutes:g}")
    person.fold()
    person.train()
    wait_until(lambda: len(tuner.strip.pictures) > 0 and tuner.run.fraction > 0.3, LONG)
    person.outline(plane == next(n for n in chosen if n % 2 == 0))  # annotation goes on
    person.show(tuner)
    take(person.viewer, out / "finetune_running.png")
    person.press(tuner.pause_button)
    person.until("paused")
    step = tuner.run.last.step
    print("paused:", tuner.guide.text())
    person.press(tuner.resume_button)
    wait_until(lambda: tuner.run.last.step > step and tuner.run.fraction > 0.9, LONG + 60 * minutes)
    person.press(tuner.stop_button)
    person.until("done")
    outcome = tuner.run.last.outcome
    print("\n".join(outcome.sentences))
    if outcome.improved:
        wait_until(lambda: person.widget.model == outcome.model and person.widget.is_ready, LONG)
    let_pass(2)
    take(person.viewer, out / "finetune_done.png")
    compare_and_switch(person, outcome, out)
    person.viewer.close()


def compare_and_switch(person: Trainer, outcome: Any, out: Path) -> None:
    """Compare the new model with its parent, take the parent, and the new one again."""
    if not outcome.improved:
        return
    tuner, models = person.tuner, person.tuner.models
    QTest.mouseClick(tuner.tabs.tabBar(), Qt.MouseButton.LeftButton, pos=tuner.tabs.tabBar().tabRect(1).center())
    models.table.clearSelection()
    models.select(outcome.parent, outcome.model)
    person.press(models.compare_button)
    wait_until(models.pairs.isVisible, LONG)
    take(person.viewer, out / "finetune_models.png")
    print(models.about.text())
    for name in (outcome.parent, outcome.model):
        models.table.clearSelection()
        models.select(name)
        person.press(models.use_button)
        wait_until(lambda name=name: person.widget.model == name and person.widget.is_ready, LONG)
        print("annotate works with", person.widget.model)


def touches_border(mask: np.ndarray) -> bool:
    """Whether an object is cut off."""
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


# ---------------------------------------------------------------- closed, and killed


def begin_and_close(theme: str) -> None:
    """Begin a training, and close napari in the middle."""
    image, truth = cells()
    person = Trainer(image, theme)
    person.show(person.tuner)
    person.label_rest(truth)
    for name, value in BRIEF.items():
        person.write(name, value)
    person.fold()
    person.train()
    wait_until(lambda: person.tuner.run.last.step >= 2, LONG)
    print("closed at step", person.tuner.run.last.step, flush=True)
    person.viewer.close()


def go_on_and_die(theme: str) -> None:
    """Go on with the training that is offered, and be killed in the middle."""
    person = Trainer(cells()[0], theme)
    take_offer(person)
    begun = person.tuner.run.last.step
    wait_until(lambda: person.tuner.run.last.step >= begun + 2, LONG)
    print("went on at step", begun, "and is killed at step", person.tuner.run.last.step, flush=True)
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def take_offer(person: Trainer) -> None:
    """Go on with what is offered."""
    tuner = person.tuner
    person.show(tuner)
    wait_until(lambda: tuner.offer.isVisible() and tuner.offer_resume.isEnabled(), LONG)
    person.press(tuner.offer_resume)
    person.until("training")


def survive(out: Path, theme: str) -> None:
    """A training that goes on after napari was closed, and after it was killed."""
    for what in ("close", "die"):
        code = subprocess.run([sys.executable, __file__, "--part", what, "--theme", theme], check=False).returncode
        print(f"napari ended with {code}")
    person = Trainer(cells()[0], theme)
    tuner = person.tuner
    person.show(tuner)
    wait_until(lambda: tuner.offer.isVisible() and tuner.offer_resume.isEnabled(), LONG)
    take(person.viewer, out / "finetune_offer.png")
    take_offer(person)
    print("went on at step", tuner.run.last.step)
    person.press(tuner.stop_button)
    person.until("done")
    print(tuner.guide.text())
    person.viewer.close()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4.0, help="time to train")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    parser.add_argument("--part", choices=["learn", "survive", "close", "die"])
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_DELSE_HOME", tempfile.mkdtemp())  # no models among the user's own
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part == "close":
        begin_and_close(options.theme)
    elif options.part == "die":
        go_on_and_die(options.theme)
    else:
        if options.part != "survive":
            learn(options.out, options.theme, options.minutes)
        if options.part != "learn":
            survive(options.out, options.theme)


if __name__ == "__main__":
    main()
