"""What the tests share."""

import os
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The checkout; tests of its files skip where the package is tested without it."""
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("these files stand in the checkout, and this is none")
    return ROOT


@pytest.fixture
def own_home(tmp_path, monkeypatch) -> Path:
    """A folder of its own for what the program keeps for the user."""
    monkeypatch.setenv("NAPARI_DELSE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def qtbot(qtbot):
    """A bot that waits longer than five seconds for what surely comes: machines may be busy."""
    qtbot.waitUntil = partial(qtbot.waitUntil, timeout=60_000)
    return qtbot


@pytest.fixture
def annotating(qtbot):
    """Opens the Annotate widget on a viewer, in its window if there is one, and shuts it down in the end."""
    from napari_delse.widgets.annotate import AnnotateWidget

    opened = []

    def open_on(viewer, predictor, load=None, models=("default",), *, ready=True):
        widget = AnnotateWidget(viewer, load=load or (lambda model, device: predictor), names=lambda: list(models))
        if hasattr(viewer, "window"):
            viewer.window.add_dock_widget(widget, name="Annotate (DELSE)")
        else:
            qtbot.addWidget(widget)
        opened.append(widget)
        if ready:
            qtbot.waitUntil(lambda: widget.is_ready)
        return widget

    yield open_on
    for widget in opened:
        widget.shut_down()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public annotated images: NAPARI_DELSE_DATA, or `shared/data` beside the checkout."""
    folder = Path(os.environ.get("NAPARI_DELSE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no annotated images in {folder}; set NAPARI_DELSE_DATA to their folder")
    return folder
