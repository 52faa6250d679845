"""What the tests share."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
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


def handed(viewer):
    """A viewer as napari hands it to widgets of its menu: behind a proxy, if it has a window."""
    from napari.utils._proxies import PublicOnlyProxy

    return PublicOnlyProxy(viewer) if hasattr(viewer, "window") else viewer


@pytest.fixture
def annotating(qtbot):
    """Opens the Annotate widget on a viewer, in its window if there is one, and shuts it down in the end."""
    from napari_delse.widgets.annotate import AnnotateWidget

    opened = []

    def open_on(viewer, predictor, load=None, models=("default",), *, ready=True):
        widget = AnnotateWidget(
            handed(viewer), load=load or (lambda model, device: predictor), names=lambda: list(models)
        )
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


@pytest.fixture
def tiny_parent(tmp_path, monkeypatch) -> Path:
    """Folder of an untrained model that learns disks in seconds."""
    import torch

    from napari_delse.checkpoint import save_model
    from napari_delse.geometry import CropConfig
    from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig

    arch = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
    monkeypatch.setitem(ARCHITECTURES, "tiny", arch)
    torch.manual_seed(0)
    model = Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64)))
    return save_model(tmp_path / "tiny-parent", model, {"licence": "CC0"})


@pytest.fixture(scope="session")
def disks() -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Makes stacks of bright disks on a dark ground: image and labels, (planes, 96, 96)."""

    def make(planes: int = 3, per_plane: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:96, :96]
        labels = np.zeros((planes, 96, 96), np.uint16)
        for z in range(planes):
            for i in range(per_plane):
                cy, cx = 26 + 44 * (i // 2) + rng.integers(-3, 4), 26 + 44 * (i % 2) + rng.integers(-3, 4)
                labels[z][(y - cy) ** 2 + (x - cx) ** 2 < rng.integers(9, 16) ** 2] = i + 1
        return ((labels > 0) * 120.0 + rng.normal(60, 8, labels.shape)).astype(np.float32), labels

    return make


@pytest.fixture(scope="session")
def annotated() -> Callable[..., None]:
    """Writes the journal of a session in which each object of a stack was clicked and accepted, some after drags."""
    from napari_delse.annotation.edits import ArrayLabels, PlaneKey
    from napari_delse.annotation.journal import Identity, start
    from napari_delse.annotation.session import AnnotationSession
    from napari_delse.geometry import Correction, ExtremePoints, ObjectMask

    def write(
        image: np.ndarray, labels: np.ndarray, path: Path, drags: int = 0, begun: np.ndarray | None = None
    ) -> None:
        before = np.zeros(labels.shape, np.uint16) if begun is None else begun.copy()
        session = AnnotationSession(ArrayLabels(before), largest=int(before.max()))
        journal = start(session, Identity.of(image, "stack"), path)
        for z, plane in enumerate(labels):
            for label in filter(None, np.unique(plane)):
                truth = ObjectMask.from_plane(plane == label)
                points = ExtremePoints.from_mask(plane == label).points
                session.set_clicks(PlaneKey((1, 2), (z,)), points)
                if drags > 0:
                    session.add_correction(Correction(points[0], (points[0][0] - 1, points[0][1])))
                    drags -= 1
                session.receive(session.request(), SimpleNamespace(mask=truth, confidence=0.9))
                session.commit()
        journal.close()

    return write
