"""Files to files: what is done is not done again, what was interrupted goes on, and nothing is ever half."""

import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile

from napari_delse.data.files import open_image
from napari_delse.data.prompts import ObjectPrompt, write_prompts
from napari_delse.geometry import ExtremePoints, ObjectMask
from napari_delse.stacks import batches, label_files
from napari_delse.stacks.batch_files import inputs_of, jobs_of, mode_of
from napari_delse.stacks.batches import How, Job, Outcome, Progress, Threads, run
from napari_delse.stacks.planes import BLOCK, Table, blocks_of, planes_of
from napari_delse.stacks.threads import on_threads
from napari_delse.stacks.work_folder import WorkFolder

RNG = np.random.default_rng(0)
PLANES = 6


class Boxes:
    """Fills the box of each prompt; counts what it was asked for."""

    def __init__(self, fails_after=10**9):
        self.seen, self.fails_after, self.lock = [], fails_after, threading.Lock()

    def segment_across(self, items):
        for plane, prompt, _ in items:
            with self.lock:
                self.seen.append((plane.index, prompt))
                if len(self.seen) > self.fails_after:
                    raise RuntimeError("out of memory")
            y0, x0, y1, x1 = (round(v) for v in prompt.box)
            y1, x1 = min(y1 + 1, plane.shape[0]), min(x1 + 1, plane.shape[1])
            mask = np.ones((y1 - y0, x1 - x0), bool)
            yield SimpleNamespace(mask=ObjectMask(mask, (y0, x0)), confidence=0.9 if x0 < 40 else 0.3)


@pytest.fixture
def stack(tmp_path):
    """An image and coarse labels of rectangles, a dozen in each plane but the second."""
    labels = np.zeros((PLANES, 60, 80), np.uint16)
    for plane in range(PLANES):
        for i in range(12 * (plane != 1)):
            y, x = 20 * (i // 4), 20 * (i % 4)
            labels[plane, y + 3 : y + 15, x + 2 : x + 10 + plane] = 300 + i
    pixels = RNG.integers(0, 255, labels.shape).astype(np.uint8)
    scale = {"resolution": (4, 5), "metadata": {"axes": "ZYX", "spacing": 2.0, "unit": "um"}}
    tifffile.imwrite(tmp_path / "a.tif", pixels, imagej=True, **scale)
    tifffile.imwrite(tmp_path / "coarse.tif", labels, compression="zlib", metadata={"axes": "ZYX"})
    return SimpleNamespace(
        job=Job(tmp_path / "a.tif", "labels", tmp_path / "coarse.tif", tmp_path / "out" / "a.tif"), labels=labels
    )


def outcome(job, predictor, how=None, model="m", threads=1, **options):
    *_, last = run([job], Threads(predictor, model, threads), how, **options)
    assert isinstance(last, Outcome)
    if last.error is not None:
        raise last.error
    return last


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- blocks


def items(counts):
    """Prompts of planes with so many objects."""
    box = ExtremePoints.from_box([(1, 1), (3, 3)])
    return [(ObjectPrompt(i + 1, (plane,), box), ()) for plane, n in enumerate(counts) for i in range(n)]


@pytest.mark.parametrize("counts", [[5] * 40, [0, 100, 1, 1, 31, 33, 64, 2], [1] * 200, [32, 32, 33]])
def test_blocks_hold_everything_once_and_are_the_same_whatever_is_done(counts):
    table, shape = Table(items(counts), (len(counts),)), (len(counts),)
    blocks = list(blocks_of(table, shape))
    assert [item for block in blocks for item in block.items] == items(counts)
    assert all(len(block.items) <= 2 * BLOCK for block in blocks)
    assert all(a.last < b.first or a.part + 1 == b.part for a, b in pairwise(blocks))
    for _ in range(20):
        done = {block.key for block in blocks if RNG.random() < 0.5}
        assert list(blocks_of(table, shape, done)) == [block for block in blocks if block.key not in done]


def test_finished_planes_are_not_asked_for_again():
    class Counting(Table):
        asked = 0

        def at(self, plane):
            self.asked += 1
            return super().at(plane)

    table = Counting(items([5] * 40), (40,))
    done = {block.key for block in blocks_of(table, (40,))}
    table.asked = 0
    assert list(blocks_of(table, (40,), done)) == []
    assert table.asked == 0


def label_planes(predictor, image, source, threads):
    """Planes as soon as their last block is predicted."""
    earlier = []
    blocks = blocks_of(source, image.plane_counts)
    for block, pieces in on_threads(lambda block: block.predict(predictor, image), blocks, threads):
        earlier += pieces[0][1]
        if block.part == block.parts - 1:
            yield from planes_of(block.planes, earlier, image.plane_shape)
            earlier = []


@pytest.mark.parametrize("threads", [1, 3])
def test_planes_of_blocks_come_in_order_and_stop_when_closed(stack, threads, monkeypatch):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 5)
    with open_image(stack.job.image) as image, open_image(stack.job.prompts) as labels:
        source = batches.CoarseLabels(labels, image)
        planes = list(label_planes(Boxes(), image, source, threads=threads))
        assert [plane.index for plane in planes] == [(i,) for i in range(PLANES)]
        for plane, expected in zip(planes, stack.labels, strict=True):
            np.testing.assert_array_equal(plane.labels(np.uint16), expected)
            np.testing.assert_array_equal(plane.window(7, 5, 30, 41, dtype=np.uint16), expected[7:30, 5:41])
        assert [plane.unsure for plane in planes] == [True, False, True, True, True, True]
        predictor = Boxes()
        steps = label_planes(predictor, image, source, threads=threads)
        next(steps)
        steps.close()
        assert len(predictor.seen) < 12 * (PLANES - 1)


# ---------------------------------------------------------------- one file


def test_coarse_labels_are_refined_with_their_ids_axes_and_pixel_size(stack):
    made = outcome(stack.job, Boxes(), rows=True)
    with open_image(stack.job.out) as result, open_image(stack.job.image) as image:
        np.testing.assert_array_equal(result.read(), stack.labels)
        assert (result.axes, result.kind, result.pixel_size) == ("ZYX", "imagej", image.pixel_size)
    assert (made.objects, made.planes, made.dtype) == (60, 5, "uint16")
    assert made.confidence == pytest.approx(0.6)
    assert made.unsure == ((0,), (2,), (3,), (4,), (5,))
    assert [row.area for row in made.rows[:2]] == [12 * 8, 12 * 8]
    assert contents(stack.job.out.parent).keys() == {Path("a.tif")}  # no work is left


def test_what_was_interrupted_goes_on_and_gives_the_same_bytes(stack, monkeypatch):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 5)
    whole = Boxes()
    outcome(stack.job, whole)
    expected = contents(stack.job.out.parent)
    stack.job.out.unlink()
    seen = []
    for _ in range(30):
        predictor = Boxes(fails_after=7)
        steps = run([stack.job], Threads(predictor, "m"))
        *_, last = steps
        assert last.status == "done" or not stack.job.out.exists()
        seen.append(len(predictor.seen))
        if last.status == "done":
            break
    assert 8 <= len(seen) < 30
    assert contents(stack.job.out.parent) == expected
    assert sum(seen) < 2 * len(whole.seen)


def test_a_run_that_is_closed_keeps_what_is_done(stack, monkeypatch):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 5)
    steps = run([stack.job], Threads(Boxes(), "m"))
    first = next(steps)
    assert isinstance(first, Progress)
    assert 0 < first.fraction < 1
    assert first.seconds_left >= 0
    assert first.planes[0].objects[0].label == 300
    steps.close()
    assert not stack.job.out.exists()
    predictor = Boxes()
    again = list(run([stack.job], Threads(predictor, "m")))
    assert len(predictor.seen) < 60
    assert again[0].fraction > first.fraction
    np.testing.assert_array_equal(tifffile.imread(stack.job.out), stack.labels)


def test_finished_results_are_skipped_unless_something_changed(stack):
    job = replace(stack.job, table=stack.job.out.with_name("a_objects.csv"))
    first = outcome(job, Boxes())
    stamp = job.out.stat().st_mtime_ns
    predictor = Boxes()
    second = outcome(job, predictor)
    assert (second.status, predictor.seen, job.out.stat().st_mtime_ns) == ("skipped", [], stamp)
    for name in ("objects", "planes", "unsure"):
        assert getattr(second, name) == getattr(first, name)
    assert outcome(job, Boxes(), How(overwrite_labels=True)).status == "done"
    assert outcome(job, Boxes(), model="other").status == "done"
    tifffile.imwrite(job.prompts, stack.labels * (stack.labels < 305), metadata={"axes": "ZYX"})
    assert outcome(job, Boxes(), model="other").objects == 25
    assert outcome(job, Boxes(), model="other", again=True).status == "done"


def test_blocks_of_other_options_are_not_used(stack, monkeypatch):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 5)
    with pytest.raises(RuntimeError):
        outcome(stack.job, Boxes(fails_after=20))
    predictor = Boxes()
    outcome(stack.job, predictor, model="other")
    assert len(predictor.seen) == 60


def test_a_damaged_block_is_made_again(stack, monkeypatch):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 5)
    with pytest.raises(RuntimeError):
        outcome(stack.job, Boxes(fails_after=20))
    block = next(stack.job.out.parent.rglob("*.block"))
    block.write_bytes(block.read_bytes()[:-30])
    outcome(stack.job, Boxes())
    np.testing.assert_array_equal(tifffile.imread(stack.job.out), stack.labels)


def test_two_processes_do_not_make_one_result(stack):
    steps = run([stack.job], Threads(Boxes(), "m"))
    next(steps)
    with pytest.raises(ValueError, match="being made by another process"):
        outcome(stack.job, Boxes())
    steps.close()


def test_what_another_process_began_after_the_end_stays(stack):
    folder = WorkFolder(stack.job.out, "made")
    stack.job.out.parent.mkdir(parents=True, exist_ok=True)
    with folder:
        folder.remove()  # complete
        with WorkFolder(stack.job.out, "another") as other:
            other.store((0, 1, 0, 1), b"kept")
            folder.__exit__()
            assert other.read((0, 1, 0, 1)) == b"kept"


def test_files_of_other_origin_are_not_replaced_in_a_folder(stack):
    job = replace(stack.job, table=stack.job.out.with_name("a_objects.csv"))
    job.out.parent.mkdir()
    tifffile.imwrite(job.out, stack.labels)
    with pytest.raises(ValueError, match="was not made by this command"):
        outcome(job, Boxes())
    assert outcome(job, Boxes(), again=True).status == "done"


def test_bad_files_do_not_stop_the_others(stack, tmp_path):
    bad, cut = tmp_path / "bad.tif", tmp_path / "cut.tif"
    bad.write_bytes(b"no image")
    noise = RNG.integers(0, 255, stack.labels.shape).astype(np.uint8)
    tifffile.imwrite(cut, noise, photometric="minisblack", compression="zlib", metadata={"axes": "ZYX"})
    damaged = bytearray(cut.read_bytes())
    damaged[len(damaged) // 4 : len(damaged) // 2] = bytes(len(damaged) // 4)
    cut.write_bytes(damaged)

    class Reading(Boxes):
        def segment_across(self, items):
            for item in items:
                item[0].window(0, 0, 5, 5)
                yield from super().segment_across([item])

    jobs = jobs_of([bad, cut, stack.job.image], "labels", stack.job.prompts, tmp_path / "out")
    ends = [step for step in run(jobs, Threads(Reading(), "m")) if isinstance(step, Outcome)]
    assert [end.status for end in ends] == ["failed", "failed", "done"]
    assert "bad.tif cannot be read as TIFF" in str(ends[0].error)
    assert [p.name for p in sorted((tmp_path / "out").iterdir())] == ["a.tif", "a_objects.csv"]


def test_a_full_disk_at_the_beginning_locks_nobody_out(stack, monkeypatch):
    def full(self, name, content):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(WorkFolder, "_write", full)
        with pytest.raises(RuntimeError, match=r"no space is left in .*out; make some and start again"):
            outcome(stack.job, Boxes())
    assert outcome(stack.job, Boxes()).objects == 60


@pytest.mark.parametrize("edit", [None, lambda text: text.replace(",", ";"), lambda text: text.replace("doubt", "ok")])
def test_a_finished_file_is_skipped_whatever_became_of_its_table(stack, tmp_path, edit):
    job = replace(stack.job, table=tmp_path / "a.csv")
    outcome(job, Boxes())
    text = job.table.read_text()
    job.table.unlink()
    if edit is not None:
        job.table.write_text(edit(text))
    predictor = Boxes()
    again = outcome(job, predictor)
    assert (again.status, again.counted, again.objects, predictor.seen) == ("skipped", False, 0, [])
    if edit is not None:
        assert job.table.read_text() == edit(text)


def test_a_table_of_somebody_else_is_not_replaced(stack, tmp_path):
    job = replace(stack.job, table=tmp_path / "a.csv")
    job.table.write_text("label,comment\n1,mine\n")
    predictor = Boxes()
    with pytest.raises(ValueError, match=r"a\.csv exists and is not as this command writes it; move it"):
        outcome(job, predictor)
    assert (job.table.read_text(), predictor.seen) == ("label,comment\n1,mine\n", [])
    assert outcome(job, predictor, again=True).objects == 60
    job.out.unlink()  # as after a run that ended between the table and the labels
    assert outcome(job, Boxes()).objects == 60


@pytest.mark.parametrize("name", ["a.ome.tif", "a.ome.zarr"])
def test_axes_that_a_format_cannot_name_are_refused_before_any_work(tmp_path, name):
    for file, value in (("a.tif", 0), ("b.tif", 1)):
        pixels = np.full((2, 3, 20, 30), value, np.uint8)
        tifffile.imwrite(tmp_path / file, pixels, photometric="minisblack", metadata={"axes": "QIYX"})
    predictor = Boxes()
    with pytest.raises(ValueError, match=r"knows .* got (QIYX|Q and I)"):
        outcome(Job(tmp_path / "a.tif", "labels", tmp_path / "b.tif", tmp_path / "out" / name), predictor)
    assert predictor.seen == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("axes", ["QQYX", "TZYX", "SYX"])
def test_planes_of_labels_need_no_names_in_a_plain_tiff(tmp_path, axes):
    shape = (3, 20, 30) if axes == "SYX" else (2, 3, 20, 30)
    labels = np.zeros(shape, np.uint16)
    labels[..., 4:12, 5:15] = np.arange(1, labels[..., 0, 0].size + 1).reshape(*shape[:-2], 1, 1)
    grey = {"photometric": "minisblack"}
    tifffile.imwrite(tmp_path / "a.tif", np.zeros(shape, np.uint8), metadata={"axes": "TZYX"[-len(shape) :]}, **grey)
    options = {
        "QQYX": grey,
        "TZYX": {"metadata": {"axes": "TZYX"}} | grey,
        "SYX": {"photometric": "rgb", "planarconfig": "separate"},
    }[axes]
    tifffile.imwrite(tmp_path / "b.tif", labels, **options)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert file.series[0].axes == axes
    job = Job(tmp_path / "a.tif", "labels", tmp_path / "b.tif", tmp_path / "out.tif")
    outcome(job, Boxes())
    with open_image(job.out) as result:
        np.testing.assert_array_equal(result.read(), labels)


def test_each_block_of_a_large_plane_is_read_once_however_its_objects_lie(stack, monkeypatch, tmp_path):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 4)
    for module, name, value in ((label_files, "_HUGE", 99), (label_files, "_TIFF_TILE", 16), (label_files, "TILE", 16)):
        monkeypatch.setattr(module, name, value)
    objects = [
        ObjectPrompt(i + 1, (2,), ExtremePoints.from_box([(y, x), (y + 5, x + 5)]))
        for i, (y, x) in enumerate(RNG.permutation([(y, x) for y in range(2, 50, 8) for x in range(2, 70, 8)]).tolist())
    ]
    write_prompts(tmp_path / "p.csv", objects)
    reads = []
    read = WorkFolder.read
    monkeypatch.setattr(WorkFolder, "read", lambda self, key: reads.append(key) or read(self, key))
    job = replace(stack.job, mode="table", prompts=tmp_path / "p.csv", table=tmp_path / "t.csv")
    made = outcome(job, Boxes(), rows=True)
    assert len(reads) == len(set(reads)) > 10  # once for the table and the labels
    assert [row.area for row in made.rows] == [36] * len(objects)
    with open_image(job.out) as result:
        for one in objects:
            y, x = (round(v) for v in one.prompt.box[:2])
            assert (result.data[2, y : y + 6, x : x + 6] == one.label).all()


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize("suffix", [".tif", ".ome.tif", ".ome.zarr"])
@pytest.mark.parametrize("tile", [4096, 16])
def test_many_objects_in_large_planes_are_the_same_in_tiles(stack, suffix, tile, monkeypatch, tmp_path):
    if suffix == ".ome.zarr":
        pytest.importorskip("zarr")
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 5)
    job = replace(stack.job, out=tmp_path / f"b{suffix}", table=tmp_path / "b.csv")
    if tile == 16:
        for module, name, value in ((label_files, "_HUGE", 99), (label_files, "_TIFF_TILE", 16)):
            monkeypatch.setattr(module, name, value)
        monkeypatch.setattr(label_files, "TILE", 16)
        monkeypatch.setattr("napari_delse.export.images._CHUNK", 16)
        monkeypatch.setattr("napari_delse.export.source.TILE", 16)
    outcome(job, Boxes())
    with open_image(job.out) as result:
        np.testing.assert_array_equal(result.read(), stack.labels)
        assert result.axes == "ZYX"
        sizes, units = result.pixel_size
        assert sizes == pytest.approx({"Z": 2, "Y": 0.2, "X": 0.25})
        assert set(units.values()) <= {"um", "µm", "micrometer"}
    rows = job.table.read_text().splitlines()
    assert rows[0] == "label,z,area,confidence,doubt"
    assert rows[1] == "300,0,96,0.9000,"
    assert len(rows) == 61
    assert outcome(job, Boxes()).status == "skipped"


def test_ome_zarr_becomes_labels_in_it_or_beside_it(stack, tmp_path):
    zarr = pytest.importorskip("zarr")
    pixels = RNG.integers(0, 255, (1, 2, PLANES, 60, 80)).astype(np.uint8)
    group = zarr.create_group(store=str(tmp_path / "a.ome.zarr"))
    group.create_array("0", data=pixels, chunks=(1, 1, 4, 32, 32))
    space = {"type": "space", "unit": "micrometer"}
    axes = [{"name": "t", "type": "time", "unit": "second"}, {"name": "c", "type": "channel"}]
    axes += [{"name": axis, **space} for axis in "zyx"]
    scale = [{"type": "scale", "scale": [3.0, 1.0, 2.0, 0.5, 0.25]}]
    scales = [{"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": scales}
    inside = tmp_path / "a.ome.zarr" / "labels" / "cells"
    for out in (inside, tmp_path / "out" / "a.ome.zarr"):
        job = Job(tmp_path / "a.ome.zarr", "labels", stack.job.prompts, out)
        assert outcome(job, Boxes(), How(channels=(1,))).status == "done"
        assert outcome(job, Boxes(), How(channels=(1,))).status == "skipped"
        with open_image(out) as result:
            assert result.axes == "TZYX"
            np.testing.assert_array_equal(result.read()[0], stack.labels)
            assert result.pixel_size[0] == {"T": 3, "Z": 2, "Y": 0.5, "X": 0.25}
            assert result.pixel_size[1] == {"T": "second"} | dict.fromkeys("ZYX", "micrometer")
    assert zarr.open_group(str(inside.parent)).attrs["ome"]["labels"] == ["cells"]
    assert {p.name for p in inside.parent.iterdir()} == {"cells", "zarr.json"}


def test_prompt_tables_of_stacks_keep_protecting_earlier_objects(tmp_path):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((3, 30, 30), np.uint8), photometric="minisblack", metadata={"axes": "ZYX"}
    )
    boxes = [((2,), 5, [(0, 0), (9, 9)]), ((0,), 9, [(0, 0), (9, 9)]), ((0,), 3, [(5, 5), (14, 14)])]
    write_prompts(
        tmp_path / "p.csv", [ObjectPrompt(label, at, ExtremePoints.from_box(box)) for at, label, box in boxes]
    )
    job = Job(tmp_path / "a.tif", "table", tmp_path / "p.csv", tmp_path / "l.tif")
    made = outcome(job, Boxes(), rows=True)
    labels = tifffile.imread(job.out)
    assert labels.dtype == np.uint8
    assert [int((labels == label).sum()) for label in (9, 3, 5)] == [100, 75, 100]
    assert labels[0, 9, 9] == 9
    assert [(row.label, row.area) for row in made.rows] == [(9, 100), (3, 75), (5, 100)]
    made = outcome(job, Boxes(), How(overwrite_labels=True))
    assert tifffile.imread(job.out)[0, 9, 9] == 3


# ---------------------------------------------------------------- names


def test_files_folders_and_patterns_are_inputs(tmp_path, monkeypatch):
    for name in ("a.tif", "b.ome.tif", "c.PNG", "notes.txt", ".hidden.tif", "deep/d.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "e.zarr").mkdir()
    (tmp_path / "e.zarr" / ".zgroup").write_text("{}")
    names = lambda *given: [p.relative_to(tmp_path).as_posix() for p in inputs_of(map(str, given))]  # noqa: E731
    assert names(tmp_path) == ["a.tif", "b.ome.tif", "c.PNG", "e.zarr"]
    assert names(tmp_path / "*.tif", tmp_path / "a.tif") == ["a.tif", "b.ome.tif"]
    assert names(tmp_path / "**" / "*.tif") == ["a.tif", "b.ome.tif", "deep/d.tif"]
    (tmp_path / "a[1].tif").write_bytes(b"")
    assert names(tmp_path / "a[1].tif") == ["a[1].tif"]
    for nothing, why in (("none*.tif", "no file, folder or pattern"), ("deep/..//deep/x", "no file")):
        with pytest.raises(FileNotFoundError, match=why):
            inputs_of([str(tmp_path / nothing)])
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no images"):
        inputs_of([str(tmp_path / "empty")])


def test_prompts_and_results_have_the_names_of_their_images(tmp_path):
    images = [tmp_path / "in" / name for name in ("a.tif", "b.ome.tif", "c.png")]
    labels = tmp_path / "coarse"
    labels.mkdir()
    for name in ("a.png", "b.tif", "other.tif"):
        (labels / name).write_bytes(b"")
    jobs = jobs_of(images, "labels", labels, tmp_path / "out")
    assert [job.out.name for job in jobs] == ["a.tif", "b.ome.tif", "c.tif"]
    assert [job.prompts.name for job in jobs] == ["a.png", "b.tif", "c.tif"]
    assert [job.table.name for job in jobs] == ["a_objects.csv", "b_objects.csv", "c_objects.csv"]
    assert jobs_of(images, "labels", labels, tmp_path, "ome-zarr")[2].out.name == "c.ome.zarr"
    (labels / "a.ome.tif").write_bytes(b"")
    with pytest.raises(ValueError, match="both belong to"):
        jobs_of(images, "labels", labels, tmp_path / "out")
    with pytest.raises(ValueError, match="would both become"):
        jobs_of([tmp_path / "a.tif", tmp_path / "x" / "a.png"], "table", tmp_path / "p.csv", tmp_path / "out")
    with pytest.raises(ValueError, match="what is read"):
        jobs_of(images[:1], "table", tmp_path / "p.csv", tmp_path / "in")
    with pytest.raises(ValueError, match="--format"):
        jobs_of(images, "table", tmp_path / "p.csv", tmp_path / "out", "png")


def test_prompts_name_a_way_and_a_path(tmp_path):
    (tmp_path / "p.csv").write_text("")
    for prefix, mode in (("", "table"), ("labels:", "labels"), ("propagate:", "propagate")):
        assert mode_of(f"{prefix}{tmp_path / 'p.csv'}") == (mode, tmp_path / "p.csv")
        with pytest.raises(FileNotFoundError, match="there is no"):
            mode_of(f"{prefix}{tmp_path / 'q.csv'}")
    with pytest.raises(ValueError, match="must name a file"):
        mode_of("labels:")
