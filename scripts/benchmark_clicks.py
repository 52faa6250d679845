#!/usr/bin/env python3
"""Measure how long a person waits for outlines and labels, and how long we hold the GUI thread.

python scripts/benchmark_clicks.py [--model NAME] [--objects N] [--cases NAME ...] [--json FILE]

A real napari window, real mouse and key events: the last of four clicks, a pull that is let go while the hand moves
(`flick`) and one that is let go after the hand has rested (`pull`), Enter, undo and redo. Images in memory
of 1000 x 1000 and 10000 x 10000 pixels, without and with 5,000 accepted objects in the list, and one on disk of
20000 x 20000. A time ends when the canvas has been drawn again with the answer in it. Without a screen: xvfb-run -a -s
"-screen 0 1400x1000x24" python scripts/benchmark_clicks.py (then the processor draws, which is much of the time).

On a machine that is busy with other things, times on the clock tell of those things. So the time on the processor is
given as well (`cpu`), and that is what a verdict should rest on: of the GUI thread, and where it waits for the model,
of the worker in its place. That is what the clock shows where two cores are free.
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import pkgutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from hands import Hands, let_pass, wait_until
from qtpy.QtCore import QEventLoop, Qt, QThread, QTimer
from qtpy.QtWidgets import QApplication

WINDOW = 1000  # pixels of the image in view
MANY = 5000  # objects in a long list
PULL = 0.35  # how far an outline is pulled, of the object's radius
REST = 0.2  # before a pull is let go, seconds


@dataclass(frozen=True)
class Case:
    """One image to label in, and how many objects are accepted before."""

    side: int
    accepted: int = 0
    on_disk: bool = False


CASES = {
    "1000": Case(1000),
    "1000 full": Case(1000, MANY),
    "10000": Case(10_000),
    "10000 full": Case(10_000, MANY),
    "20000 on disk": Case(20_000, on_disk=True),
}


class Stopwatch:
    """Notes when the canvas was drawn, how long our handlers held the GUI thread, and its longest pause."""

    def __init__(self) -> None:
        self.drawn = (0.0, 0.0)  # when the canvas was drawn with what is wanted in it
        self.is_wanted: Callable[[], bool] = bool
        self.on_drawn: Callable[[], object] = bool
        self.ours: dict[str, tuple[float, float]] = {}  # longest run, and longest on the processor
        self.pause = 0.0
        self.worker = self.beside = 0.0  # on the processor: predictions, and what the GUI thread did meanwhile
        self._depth = 0
        self._last = 0.0
        self._timer = QTimer(interval=5)
        self._timer.timeout.connect(self._tick)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """For as long as the person works."""
        self.ours.clear()
        self.pause, self._last = 0.0, time.perf_counter()
        self._timer.start()
        try:
            yield
        finally:
            self._timer.stop()

    def note_drawing(self, _event: Any) -> None:
        """The canvas was drawn."""
        if self.is_wanted is not bool and self.is_wanted():
            self.drawn = time.perf_counter(), time.thread_time()
            self.is_wanted = bool
            self.on_drawn()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.pause, self._last = max(self.pause, now - self._last), now

    def watch_package(self) -> None:
        """Time whatever the widgets' code is called for by Qt and napari, with all that it calls in turn."""
        import napari_delse.widgets as package

        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            module = importlib.import_module(info.name)
            for kind in vars(module).values():
                if inspect.isclass(kind) and kind.__module__ == module.__name__:
                    for name, method in list(vars(kind).items()):
                        if inspect.isfunction(method) and not inspect.isgeneratorfunction(inspect.unwrap(method)):
                            setattr(kind, name, self._timed(method))

    def watch_predictor(self, predictor: Any) -> Any:
        """Time its predictions in the worker."""
        segment, gui = predictor.segment, time.pthread_getcpuclockid(threading.main_thread().ident or 0)

        def run(*args: Any, **kwargs: Any) -> Any:
            own, other = time.thread_time(), time.clock_gettime(gui)
            try:
                return segment(*args, **kwargs)
            finally:
                self.worker += time.thread_time() - own
                self.beside += time.clock_gettime(gui) - other

        predictor.segment = run
        return predictor

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        taken = None if method.__code__.co_flags & inspect.CO_VARARGS else method.__code__.co_argcount

        @wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            args = args[:taken]  # Qt leaves out what a method does not take, but does not see through this one
            if self._depth or QThread.currentThread() is not QApplication.instance().thread():
                return method(*args, **kwargs)
            self._depth = 1
            start, busy = time.perf_counter(), time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                self._depth = 0
                known = self.ours.get(method.__qualname__, (0.0, 0.0))
                spent = time.perf_counter() - start, time.thread_time() - busy
                self.ours[method.__qualname__] = max(known[0], spent[0]), max(known[1], spent[1])

        return run


Spot = tuple[float, float, float]  # y, x, radius
Spent = tuple[float, float]  # seconds on the clock, and on the processor


def fill_with_spots(image: np.ndarray, count: int) -> list[Spot]:
    """Draw bright disks on noise in the middle of an image."""
    rng = np.random.default_rng(0)
    corner = (image.shape[0] - WINDOW) // 2
    part = rng.normal(60, 8, (WINDOW, WINDOW))
    side = int(np.ceil(np.sqrt(count)))
    step = WINDOW / side
    ys, xs = np.mgrid[:WINDOW, :WINDOW]
    spots = []
    for number in range(count):
        y, x = step * (number // side + 0.5), step * (number % side + 0.5)
        radius = step * rng.uniform(0.2, 0.3)
        part[np.hypot(ys - y, xs - x) < radius] += 90
        spots.append((corner + y, corner + x, radius))
    image[corner : corner + WINDOW, corner : corner + WINDOW] = part.clip(0, 255).astype(np.uint8)
    return spots


@dataclass(frozen=True, eq=False)
class Square:
    """A preview that nobody had to predict."""

    mask: Any
    confidence: float


def accept_many(widget: Any, spots: list[Spot], side: int, count: int) -> list[float]:
    """Have small squares accepted all over the labels but on the spots, as clicks would; seconds for each."""
    from napari_delse.annotation.edits import ArrayLabels, PlaneKey
    from napari_delse.geometry import ObjectMask

    session, plane, half = widget._session, PlaneKey(), 2
    rng = np.random.default_rng(1)
    places = np.stack(np.meshgrid(*[np.arange(5, side, side // 100)] * 2), axis=-1).reshape(-1, 2)
    for y, x, radius in spots:
        places = places[np.hypot(places[:, 0] - y, places[:, 1] - x) > 1.6 * radius + 10]
    store, session.store = session.store, ArrayLabels(session.store.layer.data)
    spent = []
    for y, x in rng.permutation(places)[:count].tolist():
        begun = time.thread_time()
        session.set_clicks(plane, [(y - half, x), (y, x + half), (y + half, x), (y, x - half)])
        request = session.request()
        mask = ObjectMask(np.ones((2 * half + 1,) * 2, bool), (y - half, x - half))
        session.receive(request, Square(mask, float(rng.uniform(0.5, 1))))
        session.commit()
        spent.append(time.thread_time() - begun)
    session.store = store
    store.layer.refresh()
    return spent


def open_window(image: np.ndarray, widget_class: Any) -> tuple[Any, Any]:
    """The viewer and the widget, ready, with the spots in view."""
    import napari
    from napari.utils._proxies import PublicOnlyProxy

    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1280, 800)
    viewer.add_image(image, contrast_limits=(0, 255), name="image")
    widget = widget_class(PublicOnlyProxy(viewer))  # as napari's menu does
    viewer.window.add_dock_widget(widget, name="Annotate (DELSE)", area="right")
    wait_until(lambda: widget.is_ready, 300)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    camera.center = (0, image.shape[0] / 2, image.shape[1] / 2)
    native = viewer.window._qt_viewer.canvas.native
    camera.zoom = 0.95 * min(native.width(), native.height()) / WINDOW
    let_pass(1.0)
    return viewer, widget


def label_spot(hands: Hands, widget: Any, watch: Stopwatch, spot: Spot) -> dict[str, Spent]:
    """Click, pull, accept, undo and redo; seconds until each was drawn."""
    y, x, radius = spot
    clicks = [(y - radius, x), (y, x + radius), (y + radius, x), (y, x - radius)]
    for point in clicks[:3]:
        hands.click(point)
        let_pass(0.45)  # a person takes longer; two clicks in quick succession are a double click
    spent = {"click": until_drawn(watch, lambda: hands.click(clicks[3]), lambda: widget.has_shown_preview)}
    let_pass(0.45)
    for name, slant, rest in (("flick", 1, 0.0), ("pull", -1, REST)):
        spent[name] = pull(hands, widget, watch, spot, slant, rest)
        let_pass(0.2)
    done = widget.accepted
    for name, act, count in (
        ("enter", lambda: hands.key(Qt.Key.Key_Return), done + 1),
        ("undo", lambda: hands.key(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier), done),
        ("redo", lambda: hands.key(Qt.Key.Key_Z, REDO), done + 1),
    ):
        spent[name] = until_drawn(watch, act, lambda count=count: widget.accepted == count)
        let_pass(0.2)
    return spent


def pull(hands: Hands, widget: Any, watch: Stopwatch, spot: Spot, slant: int, rest: float) -> Spent:
    """Pull the outline up and to the right or left; seconds from letting go until what comes of it was drawn."""
    from napari_delse.widgets._layers import nearest_on

    (y, x, radius), before = spot, widget.preview_mask
    way = np.array((-1, slant)) * np.sqrt(0.5)
    start = np.array(nearest_on(widget._session.preview.contours, (y, x) + radius * way)[0])
    end = start + PULL * radius * way
    hands.drag(start, end, release=False)
    let_pass(rest)
    return until_drawn(
        watch,
        lambda: hands.release(end),
        lambda: widget.has_shown_preview and widget.preview_mask is not before,
        lambda: widget.desk.shown,
    )


REDO = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.ShiftModifier


def look_over(widget: Any, hands: Hands) -> None:
    """Use the list: sort it by each column, go through it, reopen, delete and bring back."""
    shift, control = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.ControlModifier
    for column in range(widget.review.model.columnCount()):
        widget.review.table.sortByColumn(column, Qt.SortOrder.DescendingOrder)
        let_pass(0.1)
    for key in (Qt.Key.Key_N, Qt.Key.Key_U, Qt.Key.Key_R):
        hands.key(key, shift)
        let_pass(0.4)
    hands.key(Qt.Key.Key_Escape)
    let_pass(0.2)
    hands.key(Qt.Key.Key_D, shift)
    let_pass(0.2)
    hands.key(Qt.Key.Key_Z, control)
    let_pass(0.4)


def measure(image: np.ndarray, case: Case, objects: int, widget_class: Any, watch: Stopwatch) -> dict[str, Any]:
    """Label every spot in a viewer of its own, and sum the times up."""
    spots = fill_with_spots(image, objects)
    viewer, widget = open_window(image, widget_class)
    hands = Hands(viewer)
    accepted = accept_many(widget, spots, case.side, case.accepted)
    let_pass(1.0)
    canvas = viewer.window._qt_viewer.canvas._scene_canvas
    canvas.events.draw.connect(watch.note_drawing, position="last")
    with watch.watching():
        widget._show_objects()
        spent = [label_spot(hands, widget, watch, spot) for spot in spots]
        look_over(widget, hands)
    frames = [until_drawn(watch, canvas.update, lambda: True) for _ in range(10)]
    viewer.close()
    result: dict[str, Any] = {f"{name}_ms": both([one[name] for one in spent]) for name in spent[0]}
    result |= {"napari_frame_ms": both(frames), "longest_pause_ms": round(1000 * watch.pause, 1)}
    longest = sorted(watch.ours.items(), key=lambda item: -item[1][1])
    result["ours_ms"] = {n: {"clock": round(1000 * t, 1), "cpu": round(1000 * c, 1)} for n, (t, c) in longest[:10]}
    if accepted:
        result["first_accepted_cpu_ms"] = summary(accepted[:500])
        result["last_accepted_cpu_ms"] = summary(accepted[-500:])
    return result


def until_drawn(
    watch: Stopwatch, act: Callable[[], object], is_done: Callable[[], bool], shown: Callable[[], object] = object
) -> Spent:
    """From an act to the end of the first drawing with its result in it, or of the act if that was drawn before.

    Two calls of `shown` give the same as long as nothing else is to be drawn.
    """
    loop, drawn = QEventLoop(), shown()
    watch.is_wanted, watch.on_drawn = is_done, loop.quit
    QTimer.singleShot(60_000, loop.quit)
    watch.worker = watch.beside = 0.0
    start, busy = time.perf_counter(), time.thread_time()
    act()
    if watch.is_wanted is is_done and is_done() and shown() is drawn:
        watch.is_wanted, watch.drawn = bool, (time.perf_counter(), time.thread_time())
    if watch.is_wanted is is_done:  # else it was drawn at once
        loop.exec()
    if watch.is_wanted is is_done:
        raise TimeoutError("nothing was drawn for a minute")
    return watch.drawn[0] - start, watch.drawn[1] - busy + watch.worker - watch.beside


def summary(seconds: Any) -> dict[str, float]:
    """Median and maximum in milliseconds."""
    return {"median": round(1000 * float(np.median(seconds)), 2), "max": round(1000 * float(np.max(seconds)), 2)}


def both(spent: list[Spent]) -> dict[str, dict[str, float]]:
    """Summaries by the clock and by the processor."""
    return {"clock": summary([one[0] for one in spent]), "cpu": summary([one[1] for one in spent])}


def main(
    model: str, objects: int, cases: list[str] | None = None, load: Callable[..., Any] | None = None
) -> dict[str, Any]:
    """Every case."""
    import napari

    from napari_delse.widgets import annotate
    from napari_delse.widgets._outliner import load_predictor

    watch = Stopwatch()
    watch.watch_package()

    class Chosen(annotate.AnnotateWidget):
        def __init__(self, napari_viewer: Any) -> None:
            super().__init__(
                napari_viewer,
                load=lambda _, device: watch.watch_predictor((load or load_predictor)(model, device)),
            )

    result: dict[str, Any] = {"model": model, "objects": objects, "napari": napari.__version__}
    with tempfile.TemporaryDirectory() as folder:
        for name in cases or CASES:
            case = CASES[name]
            shape = (case.side, case.side)
            if case.on_disk:
                image: np.ndarray = np.memmap(Path(folder) / "image.dat", np.uint8, "w+", shape=shape)
            else:
                image = np.zeros(shape, np.uint8)
            result[name] = measure(image, case, objects, Chosen, watch)
            print(name, json.dumps(result[name], indent=1), flush=True)
            del image
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=16, help="objects to label in each image")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), help="only these")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_DELSE_HOME", tempfile.mkdtemp())  # no journals among the user's own
    numbers = main(options.model, options.objects, options.cases)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
