"""Labelled planes are found in any layout and read window by window."""

import numpy as np
import pytest
import tifffile

from napari_delse.data.images import Plane
from napari_delse.data.labelled_planes import IGNORE, LabelledPlane, ObjectFacts, open_pair, paired_planes
from napari_delse.data.samples import read_pairs

RNG = np.random.default_rng(0)


class Watched:
    """An array that remembers the largest window that was read of it."""

    def __init__(self, data):
        self.data, self.largest = data, 0

    @property
    def shape(self):
        return self.data.shape

    @property
    def dtype(self):
        return self.data.dtype

    def __getitem__(self, key):
        found = self.data[key]
        self.largest = max(self.largest, found.size)
        return found


def test_channels_and_axes_of_length_one_stand_anywhere():
    image, labels = RNG.random((2, 3, 4, 20, 30)), np.arange(2 * 4)[:, None, None] * np.ones((20, 30), int)
    labels = labels.reshape(2, 1, 4, 20, 30)
    planes = list(paired_planes("x", image, labels, channel_axis=1, channels=(2, 0)))
    assert [p.number for p in planes] == list(range(8))
    assert planes[5].ids(0, 0, 2, 2)[0, 0] == 5
    assert (planes[5].image.window(0, 0, 20, 30) == image[1, [2, 0], 1]).all()


@pytest.mark.parametrize("axes", [(1, 2), (-2, -1)])
def test_channels_may_come_last_in_an_image_and_be_one_in_its_labels(axes):
    image = np.random.default_rng(0).random((5, 20, 30, 4))
    labels = np.zeros((5, 20, 30, 1), np.uint16)
    labels[2, 3:9, 4:15] = 6
    planes = list(paired_planes("x", image, labels, axes=axes, channel_axis=3, channels=(0, 2)))
    assert [list(plane.objects()) for plane in planes] == [[], [], [6], [], []]
    assert planes[2].objects()[6].box == (3, 4, 8, 14)
    np.testing.assert_array_equal(planes[2].image.window(0, 0, 20, 30), image[2, :, :, [0, 2]])


def test_shown_axes_may_be_any_two():
    image, labels = RNG.random((5, 20, 30)), np.broadcast_to(np.arange(20)[:, None], (5, 20, 30)).copy()
    planes = list(paired_planes("x", image, labels, axes=(0, 2)))
    assert len(planes) == 20
    assert planes[7].labels.shape == (5, 30)
    assert (planes[7].ids(0, 0, 5, 30) == 7).all()
    assert (planes[7].image.window(0, 0, 5, 30)[0] == image[:, 7]).all()


@pytest.mark.parametrize(
    ("image", "labels", "message"),
    [
        (np.zeros((3, 8, 9)), np.zeros((4, 8, 9), int), "must match"),
        (np.zeros((3, 8, 9)), np.zeros((8, 9), int), "must match"),
        (np.zeros((8, 9)), np.zeros((9, 8), int), "must match"),
        (np.zeros((8, 9)), np.zeros((8, 9)), "integer instance ids, got float64"),
        (np.zeros((8, 9)), np.zeros((8, 9), bool), "integer instance ids, got bool"),
        (np.zeros((2, 8, 3)), np.zeros((2, 8, 3), int), "look like a colour picture"),
    ],
)
def test_what_does_not_fit_is_refused(image, labels, message):
    with pytest.raises(ValueError, match=message):
        list(paired_planes("x", image, labels))


def test_objects_are_found_across_strips(monkeypatch):
    monkeypatch.setattr("napari_delse.data.labelled_planes._STRIP", 60)  # three rows
    labels = np.zeros((20, 20), np.int64)
    labels[2:15, 3:6], labels[7, 10], labels[19, 19] = 7, 2, IGNORE
    plane = LabelledPlane("x", 0, Plane.of(RNG.random((20, 20))), Plane.of(labels))
    assert plane.objects() == {2: ObjectFacts(1, (7, 10, 7, 10)), 7: ObjectFacts(39, (2, 3, 14, 5))}


def test_ids_beyond_16_bit_are_refused():
    labels = np.full((5, 5), 70000)
    with pytest.raises(ValueError, match=r"0\.\.65535, got 70000\.\.70000"):
        LabelledPlane("x", 0, Plane.of(RNG.random((5, 5))), Plane.of(labels)).objects()


def test_a_constant_image_is_known_and_reading_stops_at_the_first_difference(monkeypatch):
    monkeypatch.setattr("napari_delse.data.labelled_planes._STRIP", 200)
    flat, uneven = np.full((100, 20), 5), Watched(np.eye(100)[:, :20])
    labels = Plane.of(np.zeros((100, 20), int))
    assert LabelledPlane("x", 0, Plane.of(flat), labels).constant() == 5
    assert LabelledPlane("x", 0, Plane.of(uneven), labels).constant() is None
    assert np.isnan(LabelledPlane("x", 0, Plane.of(np.full((40, 40), np.nan)), labels).constant())
    assert uneven.largest == 200


def test_a_stack_is_read_plane_by_plane(tmp_path):
    stack, labels = RNG.integers(0, 9, (6, 32, 40), np.uint8), RNG.integers(0, 3, (6, 32, 40), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, compression="zlib", photometric="minisblack")
    tifffile.imwrite(tmp_path / "b.tif", labels, photometric="minisblack")
    for n, plane in enumerate(open_pair("a", tmp_path / "a.tif", tmp_path / "b.tif")):
        assert (plane.image.window(0, 0, 32, 40)[0] == stack[n]).all()
        assert (plane.ids(0, 0, 32, 40) == labels[n]).all()
    for n, sample in enumerate(read_pairs(tmp_path / "a.tif", tmp_path / "b.tif")):
        assert sample.image.data.shape == (32, 40)  # no more than its plane is kept
        assert (sample.labels == labels[n]).all()
