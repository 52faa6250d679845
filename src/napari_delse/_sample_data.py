"""Sample data for napari (File > Open Sample): an image, its labels and its recorded clicks."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

LayerData = tuple[Any, dict[str, Any], str]

CELL_SCALE = (1.0, 0.25, 0.25)


def sample_folder() -> Path:
    """Folder of the samples: inside an installed package, at the top of a checkout.

    Raises
    ------
    FileNotFoundError
        If neither is there.
    """
    here = Path(__file__).resolve()
    candidates = [here.parent / "sample_data", here.parents[2] / "sample_data"]
    for folder in candidates:
        if (folder / "cells.tif").is_file():
            return folder
    raise FileNotFoundError(f"no sample data in {' or '.join(map(str, candidates))}; install napari-delse again")


def cells() -> list[LayerData]:
    """Five planes of made-up touching cells, with ids linked from plane to plane."""
    import tifffile

    folder = sample_folder()
    shared = {"scale": CELL_SCALE, "units": ("um",) * 3, "axis_labels": ("z", "y", "x")}
    image = tifffile.imread(folder / "cells.tif")
    contrast = (float(np.percentile(image, 1)), float(np.percentile(image, 99.8)))
    return [
        (image, {"name": "cells", "contrast_limits": contrast, **shared}, "image"),
        (tifffile.imread(folder / "cells_labels.tif"), {"name": "cells labels", "visible": False, **shared}, "labels"),
        _clicks(folder / "cells_clicks.csv", "cells clicks", shared),
    ]


def coins() -> list[LayerData]:
    """The photograph of coins that scikit-image carries, with labels and clicks of 15 coins."""
    import tifffile
    from skimage import data

    folder = sample_folder()
    shared = {"axis_labels": ("y", "x")}
    return [
        (data.coins(), {"name": "coins", **shared}, "image"),
        (tifffile.imread(folder / "coins_labels.tif"), {"name": "coins labels", "visible": False, **shared}, "labels"),
        _clicks(folder / "coins_clicks.csv", "coins clicks", shared),
    ]


def _clicks(table: Path, name: str, shared: dict[str, Any]) -> LayerData:
    """Points layer with the extreme points of a prompt table, hidden like the labels: napari opens on the image."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "extreme"]
    axes = sorted(column for column in rows[0] if column.startswith("axis-"))
    points: npt.NDArray[np.float64] = np.array([[float(row[axis]) for axis in axes] for row in rows])
    options = {
        "name": name,
        "features": {"label": np.array([int(row["label"]) for row in rows])},
        "size": 5,
        "face_color": "orange",
        "visible": False,
        **shared,
    }
    return points, options, "points"
