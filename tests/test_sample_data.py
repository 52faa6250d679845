"""The bundled samples: made again bit by bit, and opened by napari."""

import csv
import importlib.util
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Layer

from napari_delse import _sample_data


@pytest.fixture(scope="module")
def generator(checkout) -> ModuleType:
    path = checkout / "training" / "make_sample_data.py"
    spec = importlib.util.spec_from_file_location("make_sample_data", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made_again(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("sample_data")
    generator.main([str(folder)])
    return folder


@pytest.mark.parametrize("name", ["cells_labels.tif", "coins_labels.tif"])
def test_generator_makes_the_labels_again(made_again, name):
    again, kept = (tifffile.imread(folder / name) for folder in (made_again, _sample_data.sample_folder()))
    assert kept.dtype == np.uint16
    np.testing.assert_array_equal(again, kept)


def test_generator_makes_the_image_again(made_again):
    again, kept = (tifffile.imread(folder / "cells.tif") for folder in (made_again, _sample_data.sample_folder()))
    assert kept.dtype == np.uint16
    # the last bit of a float may round the other way on another platform
    np.testing.assert_allclose(again.astype(int), kept.astype(int), atol=1)


@pytest.mark.parametrize("name", ["cells_clicks.csv", "coins_clicks.csv"])
def test_generator_makes_the_clicks_again(made_again, name):
    again, kept = ((folder / name).read_text().split() for folder in (made_again, _sample_data.sample_folder()))
    assert again == kept


def test_another_seed_gives_other_cells(generator):
    assert (generator.make_cells(1)[1] != generator.make_cells()[1]).any()


def test_samples_are_small_and_licensed():
    folder = _sample_data.sample_folder()
    assert sum(path.stat().st_size for path in folder.iterdir() if path.is_file()) < 1_500_000
    assert "CC0" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["cells", "coins"])
def test_every_object_has_four_clicks_at_its_extremes(name):
    folder = _sample_data.sample_folder()
    labels = tifffile.imread(folder / f"{name}_labels.tif")
    planes = labels[None] if labels.ndim == 2 else labels
    clicks: dict[tuple[int, int], list[tuple[float, float]]] = {}
    with (folder / f"{name}_clicks.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "extreme":
                *z, y, x = (float(row[f"axis-{axis}"]) for axis in range(labels.ndim))
                clicks.setdefault((int(z[0]) if z else 0, int(row["label"])), []).append((y, x))
    objects = {(z, int(label)) for z, plane in enumerate(planes) for label in np.unique(plane[plane > 0])}
    assert set(clicks) == objects
    for (z, label), points in clicks.items():
        assert len(points) == 4
        there = np.argwhere(planes[z] == label)
        # clicks lie up to one pixel off in each direction
        np.testing.assert_allclose(np.min(points, axis=0), there.min(axis=0), atol=1.01)
        np.testing.assert_allclose(np.max(points, axis=0), there.max(axis=0), atol=1.01)


def test_cells_keep_their_id_from_plane_to_plane():
    labels = tifffile.imread(_sample_data.sample_folder() / "cells_labels.tif")
    for below, above in pairwise(labels):
        for label in np.unique(above[above > 0]):
            seen = below[above == label]
            assert (seen == label).mean() > 0.5 * (below == label).sum() / (above == label).sum()


@pytest.mark.parametrize("name", ["cells", "coins"])
def test_napari_opens_the_sample(name):
    viewer = ViewerModel()
    for data, options, kind in getattr(_sample_data, name)():
        viewer.add_layer(Layer.create(data, options, kind))
    image, labels, clicks = viewer.layers
    assert image.data.shape == labels.data.shape
    assert tuple(image.scale) == tuple(labels.scale) == tuple(clicks.scale)
    assert image.units == labels.units == clicks.units
    assert image.axis_labels == labels.axis_labels == clicks.axis_labels
    assert set(clicks.features["label"]) == set(np.unique(labels.data)) - {0}


def test_missing_samples_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(_sample_data, "__file__", str(tmp_path / "a" / "b" / "_sample_data.py"))
    with pytest.raises(FileNotFoundError, match="install napari-delse again"):
        _sample_data.sample_folder()
