#!/usr/bin/env python3
"""Measure how long a person waits: from the fourth click to the painted preview, from Enter to the painted label.

python scripts/benchmark_clicks.py [--model NAME] [--objects N] [--json FILE]

A real napari window, real mouse and key events, a 1000 x 1000 image in memory and a 20000 x 20000 image on disk. A
time ends when the canvas has been drawn again with the answer in it. Without a screen: xvfb-run -a -s
"-screen 0 1400x1000x24" python scripts/benchmark_clicks.py (then the processor draws, which is most of the time).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from hands import Hands, let_pass, wait_until
from qtpy.QtCore import Qt, QTimer

WINDOW = 1000  # pixels of the image in view
HANDLERS = (
    "_on_clicks", "_on_drags", "_on_zoomed", "_on_painted", "_on_inserted", "_refresh",
    "accept", "undo", "redo", "start_over", "switch_tool",
)  # fmt: skip


class Stopwatch:
    """Notes when the canvas was drawn, how long our handlers ran, and the longest pause of the event loop.

    The processor time of our handlers tells of ourselves also on a machine that is busy with other things.
    """

    def __init__(self) -> None:
        self.drawn = 0.0
        self.ours: dict[str, tuple[float, float]] = {}  # longest run, and longest on the processor
        self.pause = 0.0
        self._last = 0.0
        self._timer = QTimer(interval=1)
        self._timer.timeout.connect(self._tick)

    def watch(self, viewer: Any) -> None:
        """Begin."""
        viewer.window._qt_viewer.canvas._scene_canvas.events.draw.connect(self._on_draw, position="last")
        self.ours.clear()
        self.pause, self._last = 0.0, time.perf_counter()
        self._timer.start()

    def stop(self) -> None:
        """End."""
        self._timer.stop()

    def _on_draw(self, _event: Any) -> None:
        self.drawn = time.perf_counter()

    def _tick(self) -> None:
        now = time.perf_counter()
        self.pause, self._last = max(self.pause, now - self._last), now

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, its longest run noted."""

        @wraps(method)
        def run(*args: Any, **kwargs: Any) -> Any:
            start, busy = time.perf_counter(), time.thread_time()
            try:
                return method(*args, **kwargs)
            finally:
                known = self.ours.get(method.__name__, (0.0, 0.0))
                spent = time.perf_counter() - start, time.thread_time() - busy
                self.ours[method.__name__] = max(known[0], spent[0]), max(known[1], spent[1])

        return run


def fill_with_objects(image: np.ndarray, count: int) -> list[tuple[float, float, float]]:
    """Draw bright ellipse-like spots on noise in the middle of an image; (y, x, radius) of each."""
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


def measure(
    image: np.ndarray, spots: list[tuple[float, float, float]], widget_class: Any, watch: Stopwatch
) -> dict[str, Any]:
    """Label every spot in a viewer of its own, and sum the times up."""
    import napari

    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1280, 800)
    viewer.add_image(image, contrast_limits=(0, 255), name="image")
    widget = widget_class(viewer)
    viewer.window.add_dock_widget(widget, name="Annotate (DELSE)", area="right")
    wait_until(lambda: widget.is_ready, 300)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    camera.center = (0, image.shape[0] / 2, image.shape[1] / 2)
    hands = Hands(viewer)
    camera.zoom = 0.95 * min(hands.native.width(), hands.native.height()) / WINDOW
    let_pass(1.0)
    watch.watch(viewer)
    previews, labels = [], []
    for number, (y, x, radius) in enumerate(spots):
        clicks = [(y - radius, x), (y, x + radius), (y + radius, x), (y, x - radius)]
        for point in clicks[:3]:
            hands.click(point)
            let_pass(0.45)  # a person takes longer; two clicks in quick succession are a double click
        previews.append(
            until_drawn(watch, lambda point=clicks[3]: hands.click(point), lambda: widget.has_shown_preview)
        )
        let_pass(0.2)
        labels.append(
            until_drawn(watch, lambda: hands.key(Qt.Key.Key_Return), lambda done=number + 1: widget.accepted == done)
        )
        let_pass(0.2)
    watch.stop()
    frames = [until_drawn(watch, viewer.window._qt_viewer.canvas._scene_canvas.update, lambda: True) for _ in range(10)]
    viewer.close()
    both = np.add(previews, labels)
    return {
        "click_to_preview_ms": summary(previews),
        "enter_to_label_ms": summary(labels),
        "click_to_label_ms": summary(both),
        "napari_frame_ms": summary(frames),
        "longest_pause_ms": round(1000 * watch.pause, 1),
        "longest_of_ours_ms": {name: round(1000 * t, 1) for name, (t, _) in sorted(watch.ours.items())},
        "longest_of_ours_cpu_ms": {name: round(1000 * t, 1) for name, (_, t) in sorted(watch.ours.items())},
    }


def until_drawn(watch: Stopwatch, act: Callable[[], object], is_done: Callable[[], bool]) -> float:
    """Seconds from an act to the end of the first drawing after its result is there."""
    start = time.perf_counter()
    act()
    wait_until(is_done)
    there = time.perf_counter()
    wait_until(lambda: watch.drawn > there)
    return watch.drawn - start


def summary(seconds: Any) -> dict[str, float]:
    """Median and maximum in milliseconds."""
    return {"median": round(1000 * float(np.median(seconds)), 1), "max": round(1000 * float(np.max(seconds)), 1)}


def main(model: str, objects: int, load: Callable[..., Any] | None = None) -> dict[str, Any]:
    """Both images."""
    import napari

    from napari_delse.widgets import annotate

    watch = Stopwatch()

    class Timed(annotate.AnnotateWidget):
        def __init__(self, napari_viewer: Any) -> None:
            super().__init__(napari_viewer, load=lambda _, device: (load or annotate.load_predictor)(model, device))

    for name in HANDLERS:
        setattr(Timed, name, watch.timed(getattr(annotate.AnnotateWidget, name)))
    result: dict[str, Any] = {"model": model, "objects": objects, "napari": napari.__version__}
    memory = np.zeros((1000, 1000), np.uint8)
    result["numpy 1000 x 1000"] = measure(memory, fill_with_objects(memory, objects), Timed, watch)
    with tempfile.TemporaryDirectory() as folder:
        disk = np.memmap(Path(folder) / "image.dat", np.uint8, "w+", shape=(20000, 20000))
        result["memmap 20000 x 20000"] = measure(disk, fill_with_objects(disk, objects), Timed, watch)
        del disk
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--objects", type=int, default=16, help="objects to label in each image")
    parser.add_argument("--json", type=Path, help="write the numbers here as well")
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_DELSE_HOME", tempfile.mkdtemp())  # no journals among the user's own
    numbers = main(options.model, options.objects)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(numbers, indent=2))
