"""Coarse labels become the prompts of the same objects, whatever the tiles they are read in."""

from pathlib import Path

import numpy as np
import pytest

from napari_delse.data.files import ImageFile
from napari_delse.geometry import ExtremePoints
from napari_delse.stacks import coarse
from napari_delse.stacks.coarse import CoarseLabels, extreme_points, match_planes

RNG = np.random.default_rng(3)


def image(pixels, axes):
    return ImageFile(Path(f"{axes}.tif"), pixels, axes)


@pytest.fixture
def blobs():
    labels = np.zeros((60, 70), np.uint32)
    for label in (3, 7, 4_000_000_000, 9):
        y, x = RNG.integers(0, 40, 2)
        labels[y : y + 15, x : x + 17][RNG.random((15, 17)) > 0.4] = label
    labels[59, 69] = 12
    return labels


@pytest.mark.parametrize("tile", [1 << 22, 700, 70])
@pytest.mark.parametrize("chunks", [None, (16, 20)])
def test_extreme_points_are_those_of_the_masks(blobs, tile, chunks, monkeypatch):
    monkeypatch.setattr(coarse, "_TILE", tile)
    data = blobs
    if chunks:
        data = pytest.importorskip("zarr").create_array({}, data=blobs, chunks=chunks)
    found = extreme_points(image(data, "YX"), ())
    assert list(found) == [int(v) for v in np.unique(blobs) if v]
    for label, prompt in found.items():
        assert prompt == ExtremePoints.from_mask(blobs == label)


def test_objects_are_asked_for_plane_by_plane(blobs):
    stack = np.stack([blobs, np.zeros_like(blobs), blobs])
    source = CoarseLabels(image(stack, "ZYX"), image(np.zeros((2, 3, 60, 70)), "CZYX"), (1,))
    assert source.planes() == range(3)
    assert source.at(1) == []
    assert {(one.index, channels) for one, channels in source.at(2)} == {((2,), (1,))}


def test_labels_fit_an_image_by_the_names_of_its_axes():
    whole = image(np.zeros((1, 4, 5, 8, 9)), "TCZYX")
    assert match_planes(image(np.zeros((5, 8, 9), int), "ZYX"), whole) == (1,)
    assert match_planes(image(np.zeros((5, 1, 8, 9), int), "ZTYX"), whole) == (1, 0)
    assert match_planes(image(np.zeros((1, 5, 8, 9), int), "QIYX"), whole) == (0, 1)
    for shape, axes in (((4, 8, 9), "ZYX"), ((5, 8, 8), "ZYX"), ((8, 9), "YX")):
        with pytest.raises(ValueError, match="does not fit"):
            match_planes(image(np.zeros(shape, int), axes), whole)
    with pytest.raises(ValueError, match="whole numbers"):
        match_planes(image(np.zeros((5, 8, 9)), "ZYX"), whole)
    with pytest.raises(ValueError, match="no channels"):
        match_planes(image(np.zeros((5, 3, 8, 9), int), "ZCYX"), whole)


def test_labels_beyond_the_range_are_named(blobs):
    with pytest.raises(ValueError, match="label -1"):
        extreme_points(image(-(blobs == 3).astype(int), "YX"), ())
