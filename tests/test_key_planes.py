"""Objects of labelled planes are carried through the others, line by line, and go on where they were stopped."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_delse.data.files import ImageFile
from napari_delse.geometry import Crop, CropConfig
from napari_delse.stacks.batches import How, Job, Outcome, Threads, run
from napari_delse.stacks.key_planes import KeyPlanes

SIZE = 64


class Ellipses:
    """phi of the ellipse in the box of the prompt."""

    def __init__(self, fails_after=10**9):
        self.seen, self.fails_after = [], fails_after

    def segment_across(self, items, batch_size=None):
        for plane, prompt, _ in items:
            self.seen.append(plane.index)
            if len(self.seen) > self.fails_after:
                raise RuntimeError("out of memory")
            crop = Crop.around(prompt.box, CropConfig(size=SIZE))
            y0, x0, y1, x1 = prompt.box
            y, x = np.moveaxis(crop.to_plane(np.stack(np.mgrid[:SIZE, :SIZE], axis=-1)), -1, 0)
            radius = np.hypot((y - (y0 + y1) / 2) / ((y1 - y0) / 2 + 0.5), (x - (x0 + x1) / 2) / ((x1 - x0) / 2 + 0.5))
            phi = (10 * (1 - radius)).astype(np.float32)
            yield SimpleNamespace(states=(phi,), threshold=0.0, crop=crop, confidence=0.9)


def moving(planes, drift, start=20):
    """Two disks that move through planes."""
    y, x = np.mgrid[:50, :90]
    labels = np.zeros((planes, 50, 90), np.uint16)
    for plane in range(planes):
        labels[plane][(y - 25) ** 2 + (x - start - drift * plane) ** 2 < 64] = 500
        labels[plane][(y - 25) ** 2 + (x - start - 40) ** 2 < 36] = 7
    return labels


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


@pytest.fixture
def job(tmp_path):
    truth = moving(7, 1)
    pixels = (truth > 0).astype(np.uint8) * 90 + 20
    keys = truth.copy()
    keys[[0, 2, 3, 4, 6]] = 0
    stack = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "image.tif", pixels, **stack)
    tifffile.imwrite(tmp_path / "keys.tif", keys, compression="zlib", **stack)
    made = Job(tmp_path / "image.tif", "propagate", tmp_path / "keys.tif", tmp_path / "out" / "image.tif")
    return SimpleNamespace(job=made, truth=truth)


def outcome(job, predictor, how=None):
    *_, last = run([job], Threads(predictor, "m"), how)
    assert isinstance(last, Outcome)
    if last.error is not None:
        raise last.error
    return last


def test_all_planes_get_the_objects_of_the_key_planes(job):
    made = outcome(job.job, Ellipses())
    found = tifffile.imread(job.job.out)
    assert (made.objects, made.planes, found.dtype) == (14, 7, np.uint16)
    for key in (1, 5):
        np.testing.assert_array_equal(found[key], job.truth[key])
    for plane in range(7):
        for label in (7, 500):
            assert iou(found[plane] == label, job.truth[plane] == label) > 0.75, (plane, label)


def test_where_an_object_ended_is_in_the_table(job, tmp_path):
    class Vanishing(Ellipses):
        def segment_across(self, items, batch_size=None):
            for plane, prompt, drags in items:
                for found in super().segment_across([(plane, prompt, drags)]):
                    if plane.index == (6,) and prompt.box[3] > 50:
                        found.states = (found.states[0] * 0 - 99,)
                    yield found

    table = tmp_path / "table.csv"
    made = outcome(replace(job.job, table=table), Vanishing())
    assert (made.objects, made.planes, made.unsure) == (13, 7, ((6,),))
    assert [line.split(",", 4)[::2] for line in table.read_text().splitlines()[-2:]] == [
        ["7", "0", "ended: it vanished"],
        ["500", "193", ""],
    ]


def test_a_run_that_was_stopped_goes_on_with_the_same_bytes(job):
    whole = Ellipses()
    outcome(job.job, whole)
    expected = job.job.out.read_bytes()
    job.job.out.unlink()
    with pytest.raises(RuntimeError):
        outcome(job.job, Ellipses(fails_after=len(whole.seen) - 1))
    assert not job.job.out.exists()
    rest = Ellipses()
    outcome(job.job, rest)
    assert len(rest.seen) < len(whole.seen)
    assert {index[0] for index in rest.seen} <= {5, 6}
    assert job.job.out.read_bytes() == expected


def test_a_correction_of_a_key_plane_is_another_result(job):
    outcome(job.job, Ellipses())
    assert outcome(job.job, Ellipses()).status == "skipped"
    assert outcome(job.job, Ellipses(), How(keys=(1,))).status == "done"
    assert outcome(job.job, Ellipses(), How(keys=(1,))).status == "skipped"


def image(pixels, axes, name="image.tif"):
    return ImageFile(Path(name), pixels, axes)


def test_each_line_of_planes_is_carried_by_itself():
    labels = np.zeros((3, 5, 8, 9), np.uint8)
    labels[0, 1:3] = labels[2, 4] = 1
    series = image(np.zeros((3, 5, 2, 8, 9)), "TZCYX")
    work = KeyPlanes(image(labels, "TZYX"), series, (1,))
    spans = [(task.at[0], task.first, task.last, task.keys) for task in work.tasks(())]
    assert spans == [(0, 0, 0, (1,)), (0, 1, 1, (1, 2)), (0, 2, 4, (2,)), (2, 0, 3, (4,)), (2, 4, 4, (4,))]
    assert work.planes() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    done = [(plane, plane, 0, 1) for plane in (0, 1, 2, 3, 10, 11, 12, 13)]
    assert [(task.at[0], task.first) for task in work.tasks(done)] == [(0, 2), (2, 4)]
    in_time = KeyPlanes(image(labels, "TZYX"), series, along="t")
    assert [(task.at[1], task.planes[0], task.keys) for task in in_time.tasks(())] == [
        (1, (0, 1), (0,)),
        (2, (0, 2), (0,)),
        (4, (0, 4), (2,)),
        (4, (2, 4), (2,)),
    ]


def test_what_cannot_be_carried_is_said():
    stack, empty = image(np.zeros((5, 8, 9)), "ZYX"), np.zeros((5, 8, 9), np.uint8)
    with pytest.raises(ValueError, match="no labelled plane"):
        KeyPlanes(image(empty, "ZYX", "keys.tif"), stack)
    with pytest.raises(ValueError, match=r"along Z lie in 0\.\.4 of image.tif, got 5"):
        KeyPlanes(image(empty, "ZYX"), stack, keys=(1, 5))
    with pytest.raises(ValueError, match=r"--along t: image\.tif has planes along Z"):
        KeyPlanes(image(empty, "ZYX"), stack, along="t")
    with pytest.raises(ValueError, match="no stack of planes"):
        KeyPlanes(image(empty[0], "YX"), image(np.zeros((8, 9)), "YX"))
    assert [task.keys for task in KeyPlanes(image(empty, "ZYX"), stack, keys=(1,)).tasks(())] == [(1,), (1,)]
