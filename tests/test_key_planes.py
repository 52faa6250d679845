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
from napari_delse.stacks.planes import flat

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


def written(folder, truth, keys):
    """A stack and its key planes in files."""
    stack = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    labels = np.where(np.isin(np.arange(len(truth)), keys)[:, None, None], truth, 0).astype(np.uint16)
    tifffile.imwrite(folder / "image.tif", (truth > 0).astype(np.uint8) * 90 + 20, **stack)
    tifffile.imwrite(folder / "keys.tif", labels, compression="zlib", **stack)
    return Job(folder / "image.tif", "propagate", folder / "keys.tif", folder / "out" / "image.tif")


@pytest.fixture
def job(tmp_path):
    truth = moving(7, 1)
    return SimpleNamespace(job=written(tmp_path, truth, [1, 5]), truth=truth)


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
    assert {index[0] for index in rest.seen} == {1, 2, 3, 4, 5}  # what lies beyond was kept
    assert job.job.out.read_bytes() == expected


def test_a_correction_of_a_key_plane_is_another_result(job):
    outcome(job.job, Ellipses())
    assert outcome(job.job, Ellipses()).status == "skipped"
    assert outcome(job.job, Ellipses(), How(keys=(1,))).status == "done"
    assert outcome(job.job, Ellipses(), How(keys=(1,))).status == "skipped"


def test_an_image_without_key_planes_says_which_file_it_lacks(job):
    job.job.prompts.unlink()
    with pytest.raises(FileNotFoundError, match=r"no .*keys\.tif with the labels of image\.tif; put it there"):
        outcome(job.job, Ellipses())


def image(pixels, axes, name="image.tif"):
    return ImageFile(Path(name), pixels, axes)


def tasks_of(work, done=()):
    """All tasks, each done as soon as it is given."""
    done, found = set(done), []
    counts = work._image.plane_counts
    for task in work.tasks(done, lambda key: str(key).encode()):
        assert task is not None  # there is always one that can be done
        done |= {(flat(index, counts), flat(index, counts), 0, 1) for index in task.planes}
        found.append(task)
    return found


def test_each_line_of_planes_is_carried_by_itself():
    labels = np.zeros((3, 5, 8, 9), np.uint8)
    labels[0, 1:3] = labels[2, 4] = 1
    series = image(np.zeros((3, 5, 2, 8, 9)), "TZCYX")
    work = KeyPlanes(image(labels, "TZYX"), series, (1,))
    spans = sorted((task.at[0], task.first, task.last, task.keys) for task in tasks_of(work))
    assert spans == [(0, 0, 0, (1,)), (0, 1, 1, (1, 2)), (0, 2, 4, (2,)), (2, 0, 3, (4,)), (2, 4, 4, (4,))]
    assert work.planes() == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    done = [(plane, plane, 0, 1) for plane in (0, 1, 2, 3, 10, 11, 12, 13)]
    assert [(task.at[0], task.first) for task in tasks_of(work, done)] == [(0, 2), (2, 4)]
    in_time = KeyPlanes(image(labels, "TZYX"), series, along="t")
    assert sorted((task.at[1], task.planes[0], task.keys) for task in tasks_of(in_time)) == [
        (1, (0, 1), (0,)),
        (2, (0, 2), (0,)),
        (4, (0, 4), (2,)),
        (4, (2, 4), (2,)),
    ]


def test_planes_beyond_the_outermost_keys_are_done_a_few_at_a_time_from_those_before():
    labels = np.zeros((40, 8, 9), np.uint8)
    labels[[12, 20]] = 1
    work = KeyPlanes(image(labels, "ZYX"), image(np.zeros((40, 8, 9)), "ZYX"))
    done: set = set()
    waiting = work.tasks(done, lambda key: str(key[0]).encode())
    first = [next(waiting) for _ in range(4)]
    assert [(task.first, task.last, task.since) for task in first[:3]] == [
        (4, 11, None),
        (20, 27, None),
        (12, 19, None),
    ]
    assert first[3] is None  # the others depend on these
    done |= {(plane, plane, 0, 1) for plane in range(20, 28)}
    following = next(waiting)
    assert (following.first, following.last, following.since, following.objects) == (28, 35, 27, b"27")
    assert next(waiting) is None
    done |= {(plane, plane, 0, 1) for plane in (*range(4, 20), *range(28, 36))}
    for first, last, since in ((0, 3, 4), (36, 39, 35)):
        task = next(waiting)
        assert (task.first, task.last, task.since, task.objects) == (first, last, since, str(since).encode())
    done |= {(plane, plane, 0, 1) for plane in (*range(4), *range(36, 40))}
    assert next(waiting, "no more") == "no more"


@pytest.mark.parametrize("threads", [1, 3])
def test_a_long_run_from_one_key_plane_goes_on_where_it_was_stopped(tmp_path, threads):
    job = written(tmp_path, moving(34, 0.5), [9])
    every = Ellipses()
    found = list(run([job], Threads(every, "m", threads)))
    steps = [one.fraction for one in found[:-1]]
    assert steps == sorted(steps)
    assert len(steps) == 6  # it shows how far it is
    whole = job.out.read_bytes()
    job.out.unlink()
    assert list(run([job], Threads(Ellipses(fails_after=50), "m", threads)))[-1].status == "failed"
    rest = Ellipses()
    assert list(run([job], Threads(rest, "m", threads)))[-1].status == "done"
    assert len(rest.seen) < len(every.seen) - 20
    assert job.out.read_bytes() == whole


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
    assert [task.keys for task in tasks_of(KeyPlanes(image(empty, "ZYX"), stack, keys=(1,)))] == [(1,), (1,)]
