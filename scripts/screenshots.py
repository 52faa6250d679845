#!/usr/bin/env python3
"""Take the screenshots of the README: a real window, real mouse clicks and keys on a real image.

python scripts/screenshots.py [--model NAME] [--out FOLDER] [--theme dark|light]

Writes annotate.png (four clicks on a coin, and the preview) and annotate_drag.png (the outline pulled to where it
belongs). Without a screen: xvfb-run -a -s "-screen 0 1400x1000x24" python scripts/screenshots.py
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hands import Hands, let_pass, wait_until
from qtpy.QtCore import Qt

SIZE = (1280, 800)
ACCEPTED = 5  # coins that are labelled before the picture is taken
SHOWN = 11  # the coin of the pictures: its notch needs a recorded drag
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"


def open_coins(theme: str, load: Callable[..., Any] | None, model: str) -> tuple[Any, Any, Any]:
    """The viewer with the photograph of coins and the widget, ready to be clicked on; and the true labels."""
    import napari

    from napari_delse._sample_data import coins
    from napari_delse.widgets.annotate import AnnotateWidget, load_predictor

    viewer = napari.Viewer()
    viewer.theme = theme
    viewer.window._qt_window.resize(*SIZE)
    (image, options, _), (labels, _, _), _ = coins()
    viewer.add_image(image, **options)
    widget = AnnotateWidget(viewer, load=lambda _, device: (load or load_predictor)(model, device))
    viewer.window.add_dock_widget(widget, name="Annotate (DELSE)", area="right")
    wait_until(lambda: widget.is_ready)
    let_pass(0.5)
    camera = viewer.scene.camera if hasattr(viewer, "scene") else viewer.camera
    camera.zoom = 2.3
    camera.center = (0, 172, 205)
    let_pass(0.5)
    return viewer, widget, np.asarray(labels)


def take(viewer: Any, path: Path) -> None:
    """Save a picture of the whole window."""
    let_pass(0.6)  # tooltips and highlights settle
    viewer.screenshot(str(path), canvas_only=False, flash=False)
    print(path)


def in_view(hands: Hands, labels: np.ndarray) -> list[int]:
    """Objects that lie wholly on the canvas, left to right and top to bottom."""
    from skimage.measure import regionprops

    width, height = hands.native.width(), hands.native.height()
    seen = []
    for region in regionprops(labels):
        y0, x0, y1, x1 = region.bbox
        corners = [hands.at((y0, x0)), hands.at((y1, x1))]
        if all(30 < p.x() < width - 30 and 30 < p.y() < height - 30 for p in corners):
            seen.append((round(region.centroid[0] / 50), region.centroid[1], region.label))
    return [label for _, _, label in sorted(seen)]


def click_object(hands: Hands, widget: Any, mask: np.ndarray) -> None:
    """The four clicks on an object, and the wait for its preview."""
    from napari_delse.geometry import ExtremePoints

    for point in ExtremePoints.from_mask(mask).points:
        hands.click(point)
        let_pass(0.45)  # two clicks in one place are a double click
    wait_until(lambda: widget.accept_button.isEnabled())


def main(
    model: str = "default", out: Path = IMAGES, theme: str = "dark", load: Callable[..., Any] | None = None
) -> None:
    """Label some coins, and take the two pictures on the next one."""
    from napari_delse._sample_data import sample_folder
    from napari_delse.prompts import read_prompts

    out.mkdir(parents=True, exist_ok=True)
    viewer, widget, labels = open_coins(theme, load, model)
    hands = Hands(viewer)
    recorded = {one.label: one for one in read_prompts(sample_folder() / "coins_clicks.csv")}[SHOWN]
    for label in [label for label in in_view(hands, labels) if label != SHOWN][:ACCEPTED]:
        click_object(hands, widget, labels == label)
        hands.key(Qt.Key.Key_Return)
        let_pass(0.2)
    click_object(hands, widget, labels == SHOWN)
    take(viewer, out / "annotate.png")

    before = widget.preview_mask
    hands.drag(recorded.corrections[0].start, recorded.corrections[0].end)
    wait_until(lambda: widget.has_shown_preview and widget.preview_mask is not before)
    take(viewer, out / "annotate_drag.png")
    viewer.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--out", type=Path, default=IMAGES)
    parser.add_argument("--theme", default="dark", choices=["dark", "light"])
    options = parser.parse_args()
    os.environ.setdefault("NAPARI_DELSE_HOME", tempfile.mkdtemp())  # no journals among the user's own
    main(options.model, options.out, options.theme)
