#!/usr/bin/env python3
"""A tour of the Batch widget in a real window: carried, paused, undone, corrected, carried on, and scored.

python scripts/tour_batch.py pictures [--theme dark|light]                 the pictures of docs/batch.md
python scripts/tour_batch.py score IMAGE LABELS [--step 10]    a stack with its true labels

`score` keeps every STEP-th plane of the true labels as key planes, has the widget fill the others, and compares the
mean IoU with copying the nearest key plane and with interpolating the masks. Without a screen:
xvfb-run -a -s "-screen 0 1400x1000x24" before the command.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from hands import let_pass, wait_until
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
IGNORED = 65535  # in true labels: nobody knows
SIZE = (1280, 800)


def open_window(image: Any, labels: Any, theme: str) -> tuple[Any, Any]:
    """A viewer with an image, its labels and the widget."""
    import napari
    from napari.utils._proxies import PublicOnlyProxy

    from napari_delse.widgets.batch import BatchWidget

    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    viewer.show()
    axes = ("z", "y", "x")
    viewer.add_image(image, name="stack", axis_labels=axes)
    viewer.add_labels(labels, name="labels", axis_labels=axes)
    widget = BatchWidget(PublicOnlyProxy(viewer))  # as napari's menu does
    viewer.window.add_dock_widget(widget, name="Batch (DELSE)", area="right")
    let_pass(0.5)
    viewer.reset_view()
    wait_until(widget.start_button.isEnabled, 300)
    let_pass(0.5)
    return viewer, widget


def press(button: Any) -> None:
    """Click a button of the widget."""
    wait_until(button.isEnabled, 300)
    QTest.mouseClick(button, Qt.MouseButton.LeftButton)
    let_pass(0.1)


def run(widget: Any) -> float:
    """Press Start and wait for the end; the longest the window stood still, seconds."""
    press(widget.start_button)
    return wait(widget)


def wait(widget: Any) -> float:
    """Wait for the end of a run; the longest the window stood still, seconds."""
    worst, last = 0.0, time.perf_counter()
    while widget.is_busy:
        let_pass(0.005)
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    let_pass(0.3)
    return worst


def take(viewer: Any, name: str) -> None:
    """A picture of the window."""
    from PIL import Image

    let_pass(0.4)
    shot = viewer.screenshot(canvas_only=False, flash=False)[..., :3]
    Image.fromarray(shot).quantize(255).save(IMAGES / name, optimize=True)


def pictures(theme: str) -> None:
    """The bundled sample, labelled in its first and its last plane."""
    from napari_delse._sample_data import cells

    (image, *_), (truth, *_) = cells()[:2]
    truth = np.asarray(truth)
    labels = np.zeros_like(truth)
    labels[[0, -1]] = truth[[0, -1]]
    viewer, widget = open_window(image, labels, theme)
    suffix = "" if theme == "dark" else f"_{theme}"
    take(viewer, f"batch_plan{suffix}.png")
    widget.form.unsure_box.setValue(93)  # stricter than by default, so that there is something to look at
    press(widget.start_button)
    wait_until(lambda: widget.work.run is None or widget.work.run.control.predictions > 10, 300)
    press(widget.pause_button)
    take(viewer, f"batch_run{suffix}.png")
    press(widget.pause_button)
    print(f"window stood still for at most {wait(widget):.3f} s, writing {widget.labels.slowest:.3f} s")
    widget.tabs.setCurrentWidget(widget.review)
    if widget.review.count:
        press(widget.review.next_button)
    take(viewer, f"batch_review{suffix}.png")
    before = np.array(viewer.layers["labels"].data)
    press(widget.undo_button)
    print("undone in one step:", not viewer.layers["labels"].data[1:-1].any())
    press(widget.redo_button)
    print("done again:", bool((viewer.layers["labels"].data == before).all()))
    correct(viewer, widget, truth)
    with tempfile.TemporaryDirectory() as folder:
        run_files(viewer, widget, Path(folder), (image, truth), suffix)
    viewer.close()


def run_files(viewer: Any, widget: Any, folder: Path, stack: tuple[Any, np.ndarray], suffix: str) -> None:
    """Copies of the stack in files, one of them without labels."""
    import tifffile

    about = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    image, truth = (np.asarray(one)[:, :96, :96] for one in stack)  # few objects: it is about the files
    keys = np.zeros_like(truth)
    keys[[0, -1]] = truth[[0, -1]]
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for number in range(1, 5):
        tifffile.imwrite(folder / "images" / f"embryo_{number}.tif", image, **about)
        if number != 3:
            tifffile.imwrite(folder / "labels" / f"embryo_{number}.tif", keys, **about)
    page = widget.files
    widget.tabs.setCurrentWidget(page)
    with contextlib.chdir(folder):
        for edit, name in ((page.images_edit, "images"), (page.prompts_edit, "labels"), (page.out_edit, "results")):
            edit.setText(name)
        let_pass(0.1)
        press(widget.start_button)
        wait_until(lambda: widget.file_work.made >= 2, 300)
        take(viewer, f"batch_files{suffix}.png")
        wait(widget)
        print(widget.notice.text())


def correct(viewer: Any, widget: Any, truth: np.ndarray) -> None:
    """Paint a plane as it should be, and carry on from there."""
    layer, place = viewer.layers["labels"], len(truth) // 2
    viewer.dims.set_point(0, place)
    wrong = np.nonzero((layer.data[place] != truth[place]) & (truth[place] != 0))
    index = (np.full(len(wrong[0]), place), *wrong)
    layer.data_setitem(index, truth[place][wrong])
    let_pass(1.0)  # until the plane was looked at
    before = layer.data.copy()
    press(widget.review.again_button)
    wait(widget)
    changed = [z for z in range(len(truth)) if (layer.data[z] != before[z]).any()]
    print("carried on from plane", place, "changed planes", changed)


def score(image: Path, labels: Path, step: int) -> None:
    """Key planes of the truth, the others by the widget, and both simple ways."""
    import tifffile

    sys.path.insert(0, str(ROOT / "training"))
    from napari_delse.propagation.planes import gaps, objects_of
    from propagation_study import copied, interpolated

    pixels, truth = tifffile.imread(image), tifffile.imread(labels)
    clean = np.where(truth == IGNORED, 0, truth).astype(np.uint16)
    keys = list(range(0, len(truth), step))
    given = np.zeros_like(clean)
    given[keys] = clean[keys]
    viewer, widget = open_window(pixels, given, "dark")
    print(widget.guide.text())
    start = time.perf_counter()
    still = run(widget)
    print(f"{time.perf_counter() - start:.0f} s; the window stood still for at most {still:.3f} s")
    print(widget.notice.text())
    results: dict[str, list[float]] = {"carried": [], "copied": [], "interpolated": []}
    for gap in gaps(len(truth), keys):
        before, after = ({} if key is None else objects_of(clean[key]) for key in (gap.before, gap.after))
        for place in gap.planes:
            for label in sorted(set(before) | set(after)):
                wanted = clean[place] == label
                found = {"carried": given[place] == label}
                ends = before.get(label), after.get(label)
                ways = {
                    "copied": copied(gap, place, *ends),
                    "interpolated": interpolated(gap, place, *ends, wanted.shape),
                }
                for name, mask in ways.items():
                    whole = np.zeros(wanted.shape, bool)
                    if mask is not None and mask.area:
                        whole[mask.slices] = mask.mask
                    found[name] = whole
                for name, one in found.items():
                    if either := np.count_nonzero((one | wanted) & (truth[place] != IGNORED)):
                        results[name].append(np.count_nonzero(one & wanted) / either)
    print({name: round(float(np.mean(values)), 3) for name, values in results.items()}, len(results["carried"]))
    viewer.close()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("pictures").add_argument("--theme", default="dark", choices=("dark", "light"))
    scored = commands.add_parser("score")
    scored.add_argument("image", type=Path)
    scored.add_argument("labels", type=Path)
    scored.add_argument("--step", type=int, default=10)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ["NAPARI_DELSE_HOME"] = home
        if given.command == "pictures":
            pictures(given.theme)
        else:
            score(given.image, given.labels, given.step)


if __name__ == "__main__":
    main()
