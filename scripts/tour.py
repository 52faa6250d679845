#!/usr/bin/env python3
"""A tour of the Annotate widget by a scripted person: real windows, real mouse and key events.

python scripts/tour.py pictures [--out FOLDER] [--theme dark|light]    the pictures of the README and the guide
python scripts/tour.py label IMAGE LABELS [--plane N] [--objects N] [--picture FILE]     a day's work, and how it went

`label` clicks and pulls as the true labels (a label image of the same shape) say: every object of an image, or of a
plane of a stack. In the middle of it the process is killed, and another one restores the work and goes on. Then it
undoes and redoes, reopens, names, merges and splits. Without a screen: xvfb-run -a -s "-screen 0 1400x1000x24" before
the command.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from hands import Hands, let_pass, wait_until
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

SIZE = (1280, 800)
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
GOOD = 0.96  # IoU from which on nobody would correct an outline
SHORTEST = 6.0  # shorter pulls are clicks, screen pixels
PULLS = 20  # in a day, at most
EACH = 2  # pulls of an object, at most
MANY = 1000  # objects of an image: all of them
BEFORE = 6  # objects that are accepted before the process is killed
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # which ends a process of Windows as suddenly
KILLED = -KILL if os.name == "posix" else int(KILL)  # exit code of a killed process

CONTROL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier
Key = Qt.Key


# ---------------------------------------------------------------- a person


def open_window(
    layers: Sequence[tuple[Any, ...]], theme: str = "dark", viewer: Any = None, **widget_options: Any
) -> tuple[Any, Any]:
    """A viewer with these layers and the widget, ready to be clicked on."""
    import napari
    from napari.layers import Layer
    from napari.utils._proxies import PublicOnlyProxy

    from napari_delse.widgets.annotate import AnnotateWidget

    viewer = viewer or napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    viewer.show()
    for layer in layers:
        viewer.add_layer(Layer.create(*layer))
    widget = AnnotateWidget(PublicOnlyProxy(viewer), **widget_options)  # as napari's menu does
    viewer.window.add_dock_widget(widget, name="Annotate (DELSE)", area="right")
    wait_until(lambda: widget.is_ready, 300)
    let_pass(0.3)
    viewer.reset_view()
    let_pass(0.3)
    return viewer, widget


class Person:
    """Outlines, corrects and looks over objects with mouse and keyboard; points are (y, x) of the shown plane.

    Parameters
    ----------
    viewer, widget : Viewer, AnnotateWidget
        In a window that is open.
    pause : float
        Between two clicks, seconds.
    """

    def __init__(self, viewer: Any, widget: Any, pause: float = 0.05) -> None:
        self.viewer, self.widget, self.pause = viewer, widget, pause
        self.hands = Hands(viewer)

    @property
    def session(self) -> Any:
        """What was done so far."""
        return self.widget._session

    @property
    def labels(self) -> np.ndarray:
        """The labels as they are now."""
        return np.asarray(self.widget._labels.data)

    def world(self, point: Sequence[float]) -> np.ndarray:
        """Where a point of the plane lies in the world."""
        scale = np.asarray(self.widget._labels.scale)
        return np.asarray(point) * scale[-2:]

    def click(self, *points: Sequence[float]) -> None:
        """Click."""
        for point in points:
            self.hands.click(self.world(point))
            let_pass(self.pause)

    def outline(self, truth: np.ndarray) -> None:
        """The four clicks on an object, and the wait for its outline."""
        from napari_delse.annotator import inner_boundary
        from napari_delse.geometry import ExtremePoints

        self.click(*ExtremePoints.from_mask(truth).points)
        boundary = np.argwhere(inner_boundary(truth))
        while self.session.draft.missing:  # a tip is two extreme points in one: click as far from the others as can be
            away = boundary[:, None] - np.array(self.session.draft.clicks)
            self.click(boundary[np.hypot(*away.T).min(axis=0).argmax()])
        self.wait()

    def wait(self) -> None:
        """Until the outline of what was said last is shown."""
        wait_until(lambda: self.widget.has_shown_preview)

    def pull(self, start: Sequence[float], end: Sequence[float], steps: int = 8) -> float:
        """Pull the outline from one point to another; seconds from letting go until the new one is shown."""
        drags = len(self.session.draft.corrections)
        self.hands.drag(self.world(start), self.world(end), steps, release=False)
        let_pass(self.pause)
        begun = time.perf_counter()
        self.hands.release(self.world(end))
        wait_until(lambda: len(self.session.draft.corrections) > drags)
        self.wait()
        return time.perf_counter() - begun

    def correct(self, truth: np.ndarray) -> float | None:
        """Pull where the outline is most wrong; see `pull`. None if nobody would."""
        from napari_delse.annotator import simulated_drag
        from napari_delse.geometry import ObjectMask

        found = self.widget.preview_mask
        if found is None or overlap(found, truth) >= GOOD:
            return None
        drag = simulated_drag(found, ObjectMask(truth, (0, 0)), truth.shape)
        if drag is None:
            return None
        start = self.on_outline(drag.start)
        if np.hypot(*np.subtract(*self.on_screen(start, drag.end))) < SHORTEST:
            return None
        return self.pull(start, drag.end)

    def on_outline(self, point: Sequence[float]) -> Sequence[float]:
        """The point of the shown outline that is nearest to one."""
        from napari_delse.widgets._layers import nearest_on

        found = nearest_on(self.session.preview.contours, (float(point[0]), float(point[1])))
        return point if found is None else found[0]

    def on_screen(self, *points: Sequence[float]) -> list[tuple[int, int]]:
        """Where points lie on the canvas."""
        return [(p.x(), p.y()) for p in (self.hands.at(self.world(point)) for point in points)]

    def accept(self) -> int:
        """Press Enter; the label that it became."""
        before = dict(self.session.objects)
        self.hands.key(Key.Key_Return)
        wait_until(lambda: any(before.get(n) is not made for n, made in self.session.objects.items()))
        return next(n for n, made in self.session.objects.items() if before.get(n) is not made)

    def undo(self, *, redo: bool = False) -> None:
        """Ctrl+Z, or Ctrl+Shift+Z."""
        self.hands.key(Key.Key_Z, CONTROL | SHIFT if redo else CONTROL)
        let_pass(self.pause)

    def press(self, button: Any) -> None:
        """Click a button of the widget."""
        wait_until(button.isEnabled)
        QTest.mouseClick(button, Qt.MouseButton.LeftButton)
        let_pass(self.pause)

    def choose(self, *labels: int) -> None:
        """Click objects in the list, all but the first with Ctrl."""
        table, model = self.widget.review.table, self.widget.review.model
        for number, label in enumerate(labels):
            index = model.index(model.row_of_label(label), 0)
            table.scrollTo(index)
            place = table.visualRect(index).center()
            held = CONTROL if number else Qt.KeyboardModifier.NoModifier
            QTest.mouseClick(table.viewport(), Qt.MouseButton.LeftButton, held, place)
            let_pass(self.pause)

    def name(self, class_name: str) -> None:
        """Type a class for the chosen objects."""
        line = self.widget.review.class_box.lineEdit()
        QTest.mouseClick(line, Qt.MouseButton.LeftButton)
        line.selectAll()
        QTest.keyClicks(line, class_name)
        QTest.keyClick(line, Key.Key_Return)
        let_pass(self.pause)

    def show_tab(self, title: str) -> None:
        """Click a tab of the widget."""
        tabs = self.widget.tabs
        number = next(n for n in range(tabs.count()) if tabs.tabText(n) == title)
        QTest.mouseClick(tabs.tabBar(), Qt.MouseButton.LeftButton, pos=tabs.tabBar().tabRect(number).center())
        let_pass(self.pause)


def overlap(found: Any, truth: np.ndarray) -> float:
    """IoU of an `ObjectMask` with a mask of the whole plane."""
    from napari_delse.metrics import iou

    whole = np.zeros(truth.shape, bool)
    whole[found.slices] = found.mask
    return iou(whole, truth)


# ---------------------------------------------------------------- a day's work


@dataclass
class Pull:
    """One correction, with the IoU before and after it, and how long its outline took to show."""

    label: int
    before: float
    after: float
    seconds: float

    def __str__(self) -> str:
        taken_back = ", taken back" if self.after < self.before else ""
        return f"object {self.label}: {self.before:.3f} -> {self.after:.3f} in {1000 * self.seconds:.0f} ms{taken_back}"


@dataclass
class Day:
    """What became of the objects of a plane."""

    made: dict[int, int] = field(default_factory=dict)  # true label -> ours
    first: dict[int, float] = field(default_factory=dict)  # IoU after four clicks
    pulled: list[Pull] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write it down."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Day:
        """Read it again."""
        known = json.loads(path.read_text())
        made, first = ({int(label): value for label, value in known[name].items()} for name in ("made", "first"))
        return cls(made, first, [Pull(**one) for one in known["pulled"]])


def label_all(person: Person, truth: np.ndarray, pulls: int = PULLS, day: Day | None = None) -> Day:
    """Outline every object of a plane, and correct those that need it, a limited number of times."""
    day = day or Day()
    for label in reading_order(truth):
        mask = truth == label
        person.outline(mask)
        before = day.first[label] = overlap(person.widget.preview_mask, mask)
        for _ in range(min(EACH, pulls - len(day.pulled))):
            seconds = person.correct(mask)
            if seconds is None:
                break
            after = overlap(person.widget.preview_mask, mask)
            day.pulled.append(Pull(label, before, after, seconds))
            if after < before:  # a person would take that back
                person.undo()
                person.wait()
                break
            before = after
        day.made[label] = person.accept()
    return day


def reading_order(truth: np.ndarray) -> list[int]:
    """Labels from top to bottom."""
    from skimage.measure import regionprops

    return [region.label for region in sorted(regionprops(truth), key=lambda region: region.centroid)]


def undo_and_redo(person: Person, objects: int) -> bool:
    """Take objects back, and bring them again; whether the labels are what they were."""
    before, left = person.labels.copy(), len(person.session.objects) - objects
    steps = 0
    while len(person.session.objects) > left:
        person.undo()
        steps += 1
    is_changed = not np.array_equal(before, person.labels)
    for _ in range(steps):
        person.undo(redo=True)
    return is_changed and np.array_equal(before, person.labels)


def reopen(person: Person, label: int, truth: np.ndarray) -> int:
    """Choose an object in the list, reopen it, click one point more, and accept it; the label that it has then."""
    person.choose(label)
    person.hands.key(Key.Key_R, SHIFT)
    person.wait()
    diagonal = np.argwhere(truth)
    person.click(diagonal[diagonal.sum(axis=1).argmax()])
    person.wait()
    return person.accept()


def merge(person: Person, *labels: int) -> None:
    """Make objects one."""
    person.choose(*labels)
    person.press(person.widget.review.merge_button)
    wait_until(lambda: not set(labels[1:]) & person.session.objects.keys())


def split(person: Person, label: int) -> int:
    """Make the parts of an object two objects; the label of the second."""
    before = set(person.session.objects)
    person.choose(label)
    person.press(person.widget.review.split_button)
    wait_until(lambda: len(person.session.objects) > len(before))
    return (person.session.objects.keys() - before).pop()


def work_until_killed(image: Path, truth: Path, objects: int, labels: Path) -> None:
    """Label some objects of an image, begin another one, write down the labels, and be killed."""
    true = np.load(truth)
    person = Person(*open_window([(np.load(image), {"name": image.stem}, "image")]))
    plane = show_plane(person, true)
    *first, last = reading_order(plane)[: objects + 1]
    label_all(person, np.where(np.isin(plane, first), plane, 0)).save(labels.with_suffix(".json"))
    person.outline(plane == last)
    journals = person.widget._journals
    recording = journals._recordings[person.session]
    wait_until(lambda: recording.path is not None and not recording._left)
    np.save(labels, person.labels)
    os.kill(os.getpid(), KILL)


def crash(image: Path, truth: Path, objects: int, labels: Path) -> int:
    """`work_until_killed` in a process of its own; its exit code."""
    command = [sys.executable, __file__, "crash", image, truth, str(objects), labels]
    return subprocess.run(command, check=False, timeout=600).returncode


def show_plane(person: Person, truth: np.ndarray) -> np.ndarray:
    """Go to the plane of a stack in which there are true labels; these labels."""
    if truth.ndim == 2:
        return truth
    index = int(np.flatnonzero(truth.any(axis=(1, 2)))[0])
    person.viewer.dims.current_step = (index, 0, 0)
    let_pass(0.3)
    return truth[index]


def restore(person: Person) -> None:
    """Take the offer to bring unfinished work back."""
    wait_until(lambda: person.widget.offer.isVisible())
    person.press(person.widget.restore_button)
    wait_until(lambda: person.session is not None and person.widget.accepted > 0)
    let_pass(0.3)


def label_image(
    image: Path, labels: Path, plane: int | None = None, objects: int = MANY, picture: Path | None = None
) -> None:
    """A whole day on one image, or on a plane of a stack, and how it went."""
    from skimage.io import imread

    pixels, truth = imread(image), imread(labels)
    shown = truth if plane is None else truth[plane]
    chosen = np.where(np.isin(shown, reading_order(shown)[:objects]), shown, 0)
    true = chosen if plane is None else np.where(np.arange(len(truth))[:, None, None] == plane, chosen, 0)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in (f"{image.stem}.npy", "truth.npy", "left.npy")]
        for path, array in zip(files, (pixels, true), strict=False):
            np.save(path, array)
        print("killed in the middle of an object, exit code", crash(files[0], files[1], BEFORE, files[2]))
        day, left = Day.load(files[2].with_suffix(".json")), np.load(files[2])
    person = Person(*open_window([(pixels, {"name": image.stem}, "image")]))
    chosen = show_plane(person, true)
    restore(person)
    print(f"{len(day.made)} objects restored, as they were:", np.array_equal(person.labels, left))
    person.hands.key(Key.Key_Escape)  # the object that was in progress; it comes again
    let_pass(person.pause)
    label_all(person, np.where(np.isin(chosen, list(day.made)), 0, chosen), day=day)
    print(f"labelled in {time.perf_counter() - begun:.0f} s")
    tell(day, person.labels if plane is None else person.labels[plane], chosen)
    look_back(person, day, chosen)
    if picture is not None:
        person.viewer.reset_view()
        take(person.viewer, picture)
    person.viewer.close()


def tell(day: Day, labels: np.ndarray, truth: np.ndarray) -> None:
    """How well it went."""
    ious = {label: overlap_of(labels == ours, truth == label) for label, ours in day.made.items()}
    print(f"{len(ious)} objects, mean IoU {np.mean(list(day.first.values())):.3f} after four clicks,", end=" ")
    print(f"{np.mean(list(ious.values())):.3f} in the labels, the worst {min(ious.values()):.3f}")
    corrected = {one.label for one in day.pulled}
    if not corrected:
        print("no pull was needed")
        return
    better = sum(one.after > one.before for one in day.pulled)
    print(f"{len(day.pulled)} pulls of {len(corrected)} objects, {better} for the better; these objects", end=" ")
    print(*(f"{np.mean([found[label] for label in corrected]):.3f}" for found in (day.first, ious)), sep=" -> ")
    print(*(f"  {one}" for one in day.pulled), sep="\n")


def look_back(person: Person, day: Day, truth: np.ndarray) -> None:
    """Undo and redo, reopen, name, merge and split."""
    print("undo and redo of ten objects leave the labels as they were:", undo_and_redo(person, 10))
    (first, ours), (_, other) = list(day.made.items())[:2]
    print("reopened under its label:", reopen(person, ours, truth == first) == ours)
    person.choose(ours, other)
    person.name("nucleus")
    merge(person, ours, other)
    print("classes:", {made.class_name for made in person.session.objects.values() if made.class_name})
    print("split again as", split(person, ours))


def overlap_of(found: np.ndarray, truth: np.ndarray) -> float:
    """IoU of two masks of the whole plane."""
    from napari_delse.metrics import iou

    return iou(found, truth)


# ---------------------------------------------------------------- pictures


def take(viewer: Any, path: Path) -> None:
    """Save a picture of the whole window."""
    let_pass(0.6)  # tooltips and highlights settle
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    print(path)


STATUS_BAR = 26  # pixels


class Film:
    """An animated picture of the canvas and the widget, with the mouse drawn into it."""

    def __init__(self, person: Person, width: int = 860) -> None:
        self.person, self.width = person, width
        self.frames: list[Any] = []
        self.times: list[int] = []

    def shoot(self, seconds: float, at: Sequence[float] | None = None) -> None:
        """One picture, shown for some time, with the mouse at a point of the plane."""
        from PIL import Image, ImageDraw

        let_pass(0.15)
        native, top = self.person.hands.native, self.person.viewer.window._qt_window
        window = Image.fromarray(self.person.viewer.screenshot(canvas_only=False, flash=False)).convert("RGB")
        if at is not None:
            corner = native.mapTo(top, self.person.hands.at(self.person.world(at)))
            arrow = [(0, 0), (0, 17), (4, 13), (7, 20), (10, 18), (7, 12), (12, 12)]
            shape = [(corner.x() + x, corner.y() + y) for x, y in arrow]
            ImageDraw.Draw(window).polygon(shape, fill="white", outline="black")
        left = native.mapTo(top, QPoint(0, 0))
        window = window.crop((left.x(), left.y(), window.width, window.height - STATUS_BAR))
        height = round(window.height * self.width / window.width)
        self.frames.append(window.resize((self.width, height), Image.Resampling.LANCZOS))
        self.times.append(round(1000 * seconds))

    def save(self, path: Path) -> None:
        """As an animated GIF of one palette."""
        from PIL import Image

        palette = palette_of(self.frames)
        plain = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in self.frames]
        plain[0].save(path, save_all=True, append_images=plain[1:], duration=self.times, loop=0, optimize=False)
        print(path, f"{path.stat().st_size / 1e6:.1f} MB")


def palette_of(frames: Sequence[Any]) -> Any:
    """Colours for all frames; thin lines in bright colours get their share, rare as they are."""
    from PIL import Image

    pixels = np.concatenate([np.asarray(frame).reshape(-1, 3) for frame in frames])
    is_bright = np.ptp(pixels, axis=1) > VIVID
    colours: list[int] = []
    for chosen, count in ((pixels[~is_bright], 90), (np.unique(pixels[is_bright], axis=0), 165)):
        part = Image.fromarray(chosen[None]).quantize(count, method=Image.Quantize.MEDIANCUT, kmeans=1)
        colours += (part.getpalette() or [])[: 3 * count]
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours)
    return palette


VIVID = 40  # between the largest and the smallest of red, green and blue
PLANE = 4  # of the sample stack, for the film
HARD = 14  # its cell whose first outline needs a pull
NEIGHBOURS = 5  # cells around it that are labelled before


def camera_of(viewer: Any) -> Any:
    """The camera, which moved in napari 0.9."""
    return viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera


def look_at(person: Person, point: Sequence[float], zoom: float) -> None:
    """Put a point of the plane into the middle of the view, at so many screen pixels per pixel."""
    camera = camera_of(person.viewer)
    camera.zoom = zoom / person.widget._labels.scale[-1]
    camera.center = (0, *person.world(point))
    let_pass(0.5)


def nearest_cells(truth: np.ndarray, label: int, count: int) -> list[int]:
    """The cells around one."""
    from skimage.measure import regionprops

    places = {region.label: np.array(region.centroid) for region in regionprops(truth)}
    others = sorted(places, key=lambda other: float(np.hypot(*(places[other] - places[label]))))
    return others[1 : count + 1]


def picture_cells(out: Path, theme: str) -> None:
    """Four clicks on a cell, a pull, and how its contour evolved; and the same as a film."""
    from napari_delse._sample_data import cells
    from napari_delse.annotator import simulated_drag
    from napari_delse.geometry import ExtremePoints, ObjectMask

    image, (labels, _, _), _ = cells()
    truth = labels[PLANE]
    person = Person(*open_window([image], theme))
    person.viewer.dims.current_step = (PLANE, 0, 0)
    let_pass(0.3)
    for label in nearest_cells(truth, HARD, NEIGHBOURS):
        person.outline(truth == label)
        person.accept()
    mask = truth == HARD
    points = ExtremePoints.from_mask(mask).points
    look_at(person, np.mean(points, axis=0), 5.0)
    film = Film(person)
    film.shoot(0.8)
    for number, point in enumerate(points):
        person.click(point)
        film.shoot(0.5 if number < len(points) - 1 else 0.1, at=point)
    person.wait()
    film.shoot(1.6, at=points[-1])
    take(person.viewer, out / "annotate.png")
    drag = simulated_drag(person.widget.preview_mask, ObjectMask(mask, (0, 0)), mask.shape)
    assert drag is not None, "the model needs no correction any more; choose another cell"
    film_pull(film, person, drag)
    take(person.viewer, out / "annotate_drag.png")
    film_evolution(film, person)
    take(person.viewer, out / "evolution.png")
    person.show_tab("Objects")
    person.accept()
    film.shoot(1.6)
    film.save(out / "tour.gif")
    person.viewer.close()


def film_pull(film: Film, person: Person, drag: Any) -> None:
    """Pull the outline, with pictures on the way."""
    start, end = np.array(person.on_outline(drag.start)), np.array(drag.end)
    film.shoot(0.8, at=start)
    person.hands.drag(person.world(start), person.world((3 * start + end) / 4), release=False)
    film.shoot(0.1, at=(3 * start + end) / 4)
    for part in (0.5, 0.75, 1.0):
        person.hands.move(person.world(start + part * (end - start)))
        film.shoot(0.1 if part < 1 else 0.5, at=start + part * (end - start))
    before = person.widget.preview_mask
    person.hands.release(person.world(end))
    wait_until(lambda: person.widget.has_shown_preview and person.widget.preview_mask is not before)
    film.shoot(1.6, at=end)


def film_evolution(film: Film, person: Person) -> None:
    """Open the tab of the evolution, and move its slider from phi_0 to phi_T."""
    view = person.widget.evolution
    person.show_tab("Evolution")
    wait_until(lambda: view.is_settled and view.step_slider.maximum() > 0)
    for step in range(view.step_slider.maximum() + 1):
        view.step_slider.setValue(step)
        wait_until(lambda: view.is_settled)
        film.shoot(0.5)
    film.shoot(1.0)


def picture_stack(out: Path, theme: str) -> None:
    """Objects in planes of a stack, with classes, as the list shows them; and the other tabs."""
    from napari_delse._sample_data import cells

    image, (labels, _, _), _ = cells()
    person = Person(*open_window([image], theme))
    for plane, count in ((1, 3), (PLANE, 8)):
        person.viewer.dims.current_step = (plane, 0, 0)
        let_pass(0.2)
        for label in [HARD, *nearest_cells(labels[plane], HARD, count - 1)]:
            person.outline(labels[plane] == label)
            person.accept()
    person.choose(2, 5, 7)
    person.name("round")
    person.choose(4)
    take(person.viewer, out / "stack.png")
    for title in ("Settings", "Keys"):
        person.show_tab(title)
        take(person.viewer, out / f"{title.lower()}.png")
    person.show_tab("Objects")
    person.press(person.widget.review.export_button)
    person.widget.export_form.file_edit.setText("cells-objects.tif")  # not where this runs
    take(person.viewer, out / "export.png")
    person.viewer.close()


def picture_restore(out: Path, theme: str) -> None:
    """What is offered after a crash."""
    from skimage import data

    from napari_delse._sample_data import coins

    (_, (labels, _, _), _) = coins()
    with tempfile.TemporaryDirectory() as folder:
        image, truth, left = (Path(folder) / name for name in ("coins.npy", "truth.npy", "left.npy"))
        np.save(image, data.coins())
        np.save(truth, labels)
        crash(image, truth, 4, left)
        person = Person(*open_window([(np.load(image), {"name": "coins"}, "image")], theme))
        wait_until(lambda: person.widget.offer.isVisible())
        take(person.viewer, out / "restore.png")
        restore(person)
        assert np.array_equal(person.labels, np.load(left))
        person.viewer.close()


PICTURES: tuple[Callable[[Path, str], None], ...] = (picture_cells, picture_stack, picture_restore)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    pictures = commands.add_parser("pictures")
    pictures.add_argument("--out", type=Path, default=IMAGES)
    pictures.add_argument("--theme", default="dark", choices=["dark", "light"])
    pictures.add_argument("--only", choices=[one.__name__.partition("_")[2] for one in PICTURES])
    label = commands.add_parser("label")
    label.add_argument("image", type=Path)
    label.add_argument("labels", type=Path)
    label.add_argument("--plane", type=int, help="of a stack")
    label.add_argument("--objects", type=int, default=MANY, help="only the first so many, from the top")
    label.add_argument("--picture", type=Path)
    killed = commands.add_parser("crash")
    for name, kind in (("image", Path), ("truth", Path), ("objects", int), ("labels", Path)):
        killed.add_argument(name, type=kind)
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_DELSE_HOME", tempfile.mkdtemp())  # no journals among the user's own
    if options.command == "label":
        label_image(options.image, options.labels, options.plane, options.objects, options.picture)
    elif options.command == "crash":
        work_until_killed(options.image, options.truth, options.objects, options.labels)
    else:
        options.out.mkdir(parents=True, exist_ok=True)
        for picture in PICTURES:
            if options.only in (None, picture.__name__.partition("_")[2]):
                picture(options.out, options.theme)


if __name__ == "__main__":
    main()
