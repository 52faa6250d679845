"""The command line, with a predictor that fills the ellipse in the box of the clicks."""

import json
import math
import os
import subprocess
import sys
from types import SimpleNamespace

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from skimage.draw import ellipse
from skimage.measure import find_contours

import napari_delse.predict
from napari_delse import __version__, cli
from napari_delse.annotation.edits import ArrayLabels, PlaneKey
from napari_delse.annotation.journal import Identity, start
from napari_delse.annotation.session import AnnotationSession
from napari_delse.data.files import open_image
from napari_delse.data.images import Plane
from napari_delse.data.prompts import ObjectPrompt, read_prompts, write_prompts
from napari_delse.export.labels import export_labels
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask


class EllipsePredictor:
    """Fills the ellipse through the box of all points it is shown."""

    name = "ellipse"
    device = "cpu"
    seen: list  # the planes, prompts and drags of every call

    def __init__(self):
        self.seen = []

    def segment(self, image, prompt, corrections=(), *, known=None):
        plane = Plane.of(image)
        self.seen.append((plane, prompt, tuple(corrections)))
        y0, x0, y1, x1 = prompt.with_points(*(c.end for c in corrections)).box
        mask = np.zeros(plane.shape, bool)
        mask[ellipse((y0 + y1) / 2, (x0 + x1) / 2, (y1 - y0) / 2 + 0.6, (x1 - x0) / 2 + 0.6, plane.shape)] = True
        ys, xs = np.nonzero(mask)
        found = ObjectMask(np.zeros((0, 0), bool), (0, 0))
        if len(ys):
            window = mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
            found = ObjectMask(window, (int(ys.min()), int(xs.min())))
        return SimpleNamespace(
            mask=found,
            confidence=0.9,
            prompt=prompt,
            corrections=tuple(corrections),
            contours=lambda: [line - 1 for line in find_contours(np.pad(mask, 1).astype(float), 0.5)],
        )

    def correct(self, image, prediction, *corrections):
        return self.segment(image, prediction.prompt, (*prediction.corrections, *corrections))

    def segment_many(self, image, prompts, corrections=(), batch_size=None):
        yield from self.segment_across(
            (image, *rest) for rest in zip(prompts, corrections or [()] * len(prompts), strict=True)
        )

    def segment_across(self, items):
        for image, prompt, drags in items:
            yield self.segment(image, prompt, drags)


@pytest.fixture
def predictor(monkeypatch):
    stub = EllipsePredictor()

    def load(model="default", device="auto", threads=None):
        if model not in ("default", "other"):
            raise ValueError(f"no model {model!r}")
        return stub

    monkeypatch.setattr(napari_delse.predict.Predictor, "load", load)
    return stub


@pytest.fixture
def run(capsys, predictor):
    """Run a command; gives exit code, stdout and stderr."""

    def call(*args):
        with pytest.raises(SystemExit) as left:
            cli.main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return SimpleNamespace(code=left.value.code, out=captured.out, err=captured.err)

    return call


@pytest.fixture
def fails(run, tmp_path):
    """Run a command that must fail in one sentence and leave nothing behind."""

    def call(*args):
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        result = run(*args)
        assert result.code == 2
        assert result.out == ""
        assert result.err.startswith("napari-delse: ")
        assert result.err.count("\n") == 1
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        return result.err

    return call


def clicks(y, x, radius):
    return ExtremePoints(((y - radius, x), (y, x - radius), (y + radius, x), (y, x + radius)))


@pytest.fixture
def job(tmp_path):
    """An image file and a table of prompts for it."""

    def make(pixels, objects, **options):
        options.setdefault("photometric", "minisblack")
        tifffile.imwrite(tmp_path / "image.tif", pixels, **options)
        write_prompts(tmp_path / "clicks.csv", objects)
        return tmp_path / "image.tif", "--prompts", tmp_path / "clicks.csv", "--out", tmp_path / "labels.tif"

    return make


FLAT = np.zeros((60, 80), np.uint16)
TWO = [ObjectPrompt(1, (), clicks(20, 20, 10)), ObjectPrompt(300, (), clicks(20, 36, 10))]


# ---------------------------------------------------------------- the command itself


def test_version_and_help(run):
    assert run("--version").out == f"napari-delse {__version__}\n"
    for args in ((), ("--help",)):
        result = run(*args)
        assert result.code == 0
        assert all(name in result.out for name in ("demo", "segment", "evaluate", "models"))
    for name in ("demo", "segment", "evaluate", "models"):
        assert "--json" in run(name, "--help").out


def test_help_loads_nothing_heavy():
    code = (
        "import sys\nfrom napari_delse.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n"
        "    print(sorted({'torch', 'numpy', 'scipy', 'skimage', 'napari'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_wrong_usage_is_one_sentence(fails):
    assert "--wrong" in fails("models", "--wrong")
    assert "nothing" in fails("nothing")
    assert "FOLDER" in fails("evaluate")
    assert "prompts" in fails("segment", "image.tif")


def test_a_process_exits_with_2_and_one_line_on_stderr(tmp_path):
    command = [sys.executable, "-m", "napari_delse", "segment", "no.tif", "--prompts", "no.csv", "--out", "labels.tif"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "napari-delse: --prompts: there is no no.csv; give a file, or a folder of files\n"
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_diverges_is_one_sentence(fails, monkeypatch, job):
    def diverge(*_):
        raise FloatingPointError("the loss is nan at step 3; lower the learning rate")

    monkeypatch.setattr("napari_delse.stacks.batch_files.mode_of", diverge)
    image, *rest = job(FLAT, TWO)
    assert "the loss is nan at step 3; lower the learning rate" in fails("segment", image, *rest)


def test_a_bug_keeps_its_traceback(monkeypatch, predictor):
    monkeypatch.setattr("napari_delse.commands.models.check_json", lambda _: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(["models"])


def test_warnings_are_one_line(run, job, monkeypatch, predictor):
    import warnings

    def load(model="default", device="auto", threads=None):
        warnings.warn("cuda failed;\ngoing on with the CPU", RuntimeWarning, stacklevel=2)
        return predictor

    monkeypatch.setattr(napari_delse.predict.Predictor, "load", load)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        result = run("segment", *job(FLAT, TWO))
    assert result.code == 0
    assert "napari-delse: warning: cuda failed; going on with the CPU\n" in result.err


# ---------------------------------------------------------------- segment


def test_segment_writes_labels_and_protects_earlier_ones(run, job, tmp_path):
    args = job(FLAT, TWO, resolution=(100, 200), resolutionunit=3)
    result = run("segment", *args, "--json", tmp_path / "summary.json")
    assert (result.code, result.err) == (0, "")
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert (labels.dtype, labels.shape) == (np.uint16, (60, 80))
    assert labels[20, 28] == 1
    assert labels[20, 40] == 300
    with tifffile.TiffFile(tmp_path / "labels.tif") as file:
        assert file.pages[0].tags["XResolution"].value == (100, 1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert set(summary) == {
        "image", "out", "model", "device", "axes", "shape", "dtype", "objects", "planes", "ms_per_object", "seconds",
        "labels",
    }  # fmt: skip
    assert (summary["objects"], summary["axes"], summary["shape"], summary["dtype"]) == (2, "YX", [60, 80], "uint16")
    areas = {one["label"]: one["area"] for one in summary["labels"]}
    assert areas == {1: np.count_nonzero(labels == 1), 300: np.count_nonzero(labels == 300)}
    run("segment", *args, "--overwrite-labels")
    assert tifffile.imread(tmp_path / "labels.tif")[20, 28] == 300


def test_json_without_a_file_goes_to_stdout_alone(run, job):
    result = run("segment", *job(FLAT, TWO), "--json")
    assert json.loads(result.out)["objects"] == 2
    assert json.loads(run("models", "--json").out)["models"] is not None


def test_segment_a_stack_from_what_napari_saves(run, tmp_path):
    tifffile.imwrite(tmp_path / "stack.tif", np.stack([FLAT] * 3), imagej=True, metadata={"axes": "TYX"})
    rows = [f"{i},{t},{y},{x}" for t in (0, 2) for i, (y, x) in enumerate(clicks(30, 30, 8).points)]
    (tmp_path / "points.csv").write_text("\n".join(["index,axis-0,axis-1,axis-2", *rows]))
    out = tmp_path / "labels.tif"
    result = run("segment", tmp_path / "stack.tif", "-p", tmp_path / "points.csv", "-o", out)
    assert result.code == 0
    labels = tifffile.imread(out)
    assert labels.dtype == np.uint8
    assert [plane.max() for plane in labels] == [1, 0, 2]
    with tifffile.TiffFile(out) as file:
        assert file.series[0].axes == "TYX"


def test_drags_reach_the_predictor(run, job, predictor, tmp_path):
    one = ObjectPrompt(1, (), clicks(30, 30, 8), (Correction((30, 38), (30, 44)),))
    run("segment", *job(FLAT, [one]))
    assert predictor.seen[-1][1:] == (one.prompt, one.corrections)


@pytest.mark.parametrize(
    ("shape", "axes", "index", "options", "channels"),
    [
        ((3, 60, 80), "CYX", (), (), (0, 1, 2)),
        ((3, 60, 80), "CYX", (), ("--channels", "2"), (2,)),
        ((3, 60, 80), "CYX", (1,), (), (1,)),  # clicked on a layer with its channels as an axis
        ((2, 3, 60, 80), "ZCYX", (1,), ("--channels", "2,0"), (2, 0)),
        ((2, 3, 60, 80), "ZCYX", (1, 2), (), (2,)),
        ((2, 3, 60, 80), "ZCYX", (1, 2), ("--channels", "0"), (0,)),
        ((60, 80, 3), "YXS", (), (), (0, 1, 2)),
    ],
)
def test_channels(run, predictor, tmp_path, shape, axes, index, options, channels):
    write_prompts(tmp_path / "clicks.csv", [ObjectPrompt(5, index, clicks(30, 30, 8))])
    tifffile.imwrite(tmp_path / "image.tif", np.zeros(shape, np.uint8), photometric="minisblack")
    paths = (tmp_path / "image.tif", "-p", tmp_path / "clicks.csv", "-o", tmp_path / "labels.tif")
    result = run("segment", *paths, "--axes", axes, *options)
    assert (result.code, result.err) == (0, "")
    plane = predictor.seen[-1][0]
    assert plane.channels == channels
    assert plane.rgb == (axes == "YXS")
    labels = tifffile.imread(tmp_path / "labels.tif")
    assert labels.shape == ((2, 60, 80) if "Z" in axes else (60, 80))
    assert labels[(index[0], 30, 30) if "Z" in axes else (30, 30)] == 5


def test_pictures_are_segmented(run, tmp_path):
    write_prompts(tmp_path / "clicks.csv", TWO[:1])
    imageio.imwrite(tmp_path / "photo.jpg", np.zeros((60, 80, 3), np.uint8))
    result = run("segment", tmp_path / "photo.jpg", "-p", tmp_path / "clicks.csv", "-o", tmp_path / "new" / "l.tif")
    assert result.code == 0
    assert tifffile.imread(tmp_path / "new" / "l.tif").max() == 1


def test_objects_without_pixels_are_named(run, job):
    result = run("segment", *job(FLAT, [*TWO, ObjectPrompt(7, (), clicks(500, 500, 5))]))
    assert result.code == 0
    assert result.err == "napari-delse: warning: nothing was painted for label 7\n"


def test_segment_many_files_with_a_summary(run, tmp_path, predictor):
    folder, out = tmp_path / "in", tmp_path / "out"
    (tmp_path / "coarse").mkdir()
    folder.mkdir()
    for name, value in (("a", 1), ("b", 2), ("bad", 3)):
        labels = np.zeros((3, 60, 80), np.uint8)
        labels[0, 10:30, 20:50] = labels[2, 30:50, 20:50] = value
        stack = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
        tifffile.imwrite(folder / f"{name}.tif", np.stack([FLAT] * 3), **stack)
        tifffile.imwrite(tmp_path / "coarse" / f"{name}.tif", labels, **stack)
    (folder / "bad.tif").write_bytes(b"no image")
    args = ("segment", folder / "*.tif", "-p", f"labels:{tmp_path / 'coarse'}", "--out-dir", out, "--json")
    first = run(*args, tmp_path / "summary.json")
    assert first.code == 1
    assert first.err.startswith(f"napari-delse: {folder / 'bad.tif'}: ")
    assert first.err.count("\n") == 1
    lines = first.out.splitlines()
    assert lines[0].split() == ["file", "objects", "planes", "confidence", "unsure", "planes", "seconds", "result"]
    assert lines[1].split()[:5] == ["a.tif", "2", "2", "0.90", "0"]
    assert lines[3].split()[-1] == "failed"
    assert lines[-1] == "2 done, 1 failed"
    files = json.loads((tmp_path / "summary.json").read_text())["files"]
    assert [one["result"] for one in files] == ["done", "done", "failed"]
    assert (files[0]["objects"], files[0]["planes"], files[0]["unsure_planes"]) == (2, 2, [])
    assert sorted(p.name for p in out.iterdir()) == ["a.tif", "a_objects.csv", "b.tif", "b_objects.csv"]
    assert set(np.unique(tifffile.imread(out / "b.tif"))) == {0, 2}
    seen = len(predictor.seen)
    again = run(*args[:-1])
    assert (again.code, again.out.splitlines()[-1]) == (1, "2 skipped, 1 failed")
    assert again.out.splitlines()[1].split()[:5] == lines[1].split()[:5]
    assert len(predictor.seen) == seen
    (folder / "bad.tif").unlink()
    assert run(*args[:-1]).code == 0
    assert run(*args[:-1], "--overwrite").out.splitlines()[-1] == "2 done"


def test_where_labels_go_is_asked_for(fails, tmp_path, job):
    image, flag, prompts, *_ = job(FLAT, TWO)
    tifffile.imwrite(tmp_path / "other.tif", FLAT)
    assert "--out FILE for a single input, or --out-dir FOLDER" in fails("segment", image, flag, prompts)
    assert "for a single input, got 2" in fails("segment", tmp_path, flag, prompts, "--out", tmp_path / "l.tif")
    assert "is a file" in fails("segment", image, flag, prompts, "--out-dir", prompts)
    assert "what is read" in fails("segment", image, flag, prompts, "--out-dir", tmp_path)
    both = ("--out", tmp_path / "l.tif", "--format", "ome-zarr")
    assert "so --format does not go with it; leave it out" in fails("segment", image, flag, prompts, *both)
    both = ("--out-dir", tmp_path / "o", "--along", "z", "--keys", "0")
    assert "so --along and --keys do not go with it; leave them out" in fails("segment", image, flag, prompts, *both)
    keys = ("--out-dir", tmp_path / "o", "--keys", "a")
    assert "--keys must be numbers" in fails("segment", image, flag, f"propagate:{prompts}", *keys)


def test_what_cannot_be_segmented_leaves_nothing(fails, job, tmp_path, predictor, monkeypatch):
    image, *rest = job(FLAT, TWO)
    assert "no file" in fails("segment", tmp_path / "missing.tif", *rest)
    assert "labels.tif" in fails("segment", image, *rest[:3], tmp_path / "labels.png")
    assert "what is read" in fails("segment", image, *rest[:3], image)
    assert "no model 'none'" in fails("segment", image, *rest, "--model", "none")
    assert "--channels" in fails("segment", image, *rest, "--channels", "red")
    assert "no channel axis" in fails("segment", image, *rest, "--channels", "1")
    assert "--axes" in fails("segment", image, *rest, "--axes", "ZYX")
    assert "--json" in fails("segment", image, *rest, "--json", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: path != tmp_path)
        assert "is read-only" in fails("segment", image, *rest, "--json", tmp_path / "summary.json")
    image, *rest = job(np.stack([FLAT] * 3), TWO, metadata={"axes": "ZYX"})
    assert "axes ZYX" in fails("segment", image, *rest)
    image, *rest = job(np.stack([FLAT] * 3), [ObjectPrompt(4, (3,), TWO[0].prompt)], metadata={"axes": "ZYX"})
    assert "label 4 was clicked in plane (3,)" in fails("segment", image, *rest)
    image, *rest = job(FLAT, TWO)
    monkeypatch.setattr(predictor, "segment", lambda *_: (_ for _ in ()).throw(RuntimeError("out of\nmemory")))
    assert fails("segment", image, *rest) == "napari-delse: out of memory\n"


def test_labels_of_a_folder_are_not_written_over_while_they_are_refined(fails, tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", FLAT)
    (tmp_path / "coarse").mkdir()
    coarse = tmp_path / "coarse" / "a.tif"
    tifffile.imwrite(coarse, FLAT + 1)
    asked = "segment", tmp_path / "a.tif", "--prompts", f"labels:{coarse.parent}"
    assert "is what is read; give the labels a file of their own" in fails(*asked, "--out", coarse)
    assert "is what is read" in fails(*asked, "--out-dir", coarse.parent, "--overwrite")
    (tmp_path / "same.tif").symlink_to(coarse)
    assert "is what is read" in fails(*asked, "--out", tmp_path / "same.tif")


def test_the_only_label_image_of_a_group_is_not_written_over(fails, tmp_path):
    zarr = pytest.importorskip("zarr")
    tifffile.imwrite(tmp_path / "a.tif", FLAT)
    zarr.create_group(str(tmp_path / "k.zarr"), attributes={"ome": {"version": "0.5", "multiscales": [{}]}})
    cells = export_labels(FLAT + 1, tmp_path / "k.zarr" / "labels" / "cells")
    asked = "segment", tmp_path / "a.tif", "--prompts", f"labels:{cells.parent}"
    assert "cells is what is read" in fails(*asked, "--out", cells)
    assert "k.zarr is what is read" in fails(*asked, "--out", tmp_path / "k.zarr")


def test_a_folder_that_holds_the_image_is_not_written_over(fails, tmp_path):
    zarr = pytest.importorskip("zarr")
    group = zarr.create_group(str(tmp_path / "a.ome.zarr"))  # as converters write several images
    inner = group.create_group("0", attributes={"ome": {"version": "0.5", "multiscales": [{}]}})
    inner.create_array("0", data=FLAT)
    asked = "segment", tmp_path / "a.ome.zarr", "--prompts", f"labels:{tmp_path / 'a.ome.zarr'}"
    assert "a.ome.zarr is what is read" in fails(*asked, "--out-dir", tmp_path, "--overwrite")
    assert "a.ome.zarr is what is read" in fails(*asked, "--out", tmp_path / "a.ome.zarr")


# ---------------------------------------------------------------- evaluate


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "disks"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    labels = np.zeros((60, 80), np.uint16)
    ys, xs = np.ogrid[:60, :80]
    labels[(ys - 30) ** 2 + (xs - 20) ** 2 <= 15**2] = 1
    labels[(ys - 30) ** 2 + (xs - 60) ** 2 <= 12**2] = 9
    for name in ("a", "b"):
        imageio.imwrite(root / "images" / f"{name}.png", (labels > 0).astype(np.uint8))
        imageio.imwrite(root / "labels" / f"{name}.png", labels)
    return root


def test_evaluate_prints_a_table_and_writes_json(run, folder, tmp_path):
    out = tmp_path / "new" / "scores.json"
    result = run("evaluate", folder, "--jitter", "0.05", "--drags", "2", "--seed", "4", "--json", out)
    assert (result.code, result.err) == (0, "")
    assert [line.split()[0] for line in result.out.splitlines()[1:]] == ["disks", "all", "all", "all"]
    scores = json.loads(out.read_text())
    assert (scores["objects"], scores["seed"], scores["jitter"], scores["model"]) == (4, 4, 0.05, "ellipse")
    assert len(scores["steps"]) == 3
    assert 0.8 < scores["miou"] < 1
    again = json.loads(run("evaluate", folder, "--jitter", "0.05", "--drags", "2", "--seed", "4", "--json").out)
    assert {**again, **_times(scores)} == scores


def _times(scores):
    timed = {"ms_per_object": scores["ms_per_object"]}
    return {**timed, "by_set": scores["by_set"]}


def test_evaluate_takes_listed_images_and_few_objects(run, folder, tmp_path):
    (tmp_path / "val.txt").write_text("disks/b\n")
    assert json.loads(run("evaluate", folder, "--list", tmp_path / "val.txt", "--json").out)["objects"] == 2
    assert json.loads(run("evaluate", folder, "--max-objects", "3", "--json", "-").out)["objects"] == 3
    assert json.loads(run("evaluate", folder, "--prompts", "box", "--json").out)["miou"] > 0.9


def test_evaluate_names_what_is_wrong(fails, folder, tmp_path):
    assert "images" in fails("evaluate", tmp_path / "nothing")
    assert "prompts" in fails("evaluate", folder, "--prompts", "circle")
    assert "exclude" in fails("evaluate", folder, "--drags", "1", "--clicks", "1")
    assert "jitter" in fails("evaluate", folder, "--jitter", "-1")
    assert "val.txt" in fails("evaluate", folder, "--list", tmp_path / "val.txt")
    imageio.imwrite(folder / "images" / "a.png", np.zeros((5, 5), np.uint8))
    assert "must match" in fails("evaluate", folder, "--json", tmp_path / "scores.json")


# ---------------------------------------------------------------- models


def test_models_are_listed_from_their_files(run, tmp_path, monkeypatch):
    from safetensors.numpy import save_file

    root = tmp_path / "models"
    monkeypatch.setenv("NAPARI_DELSE_HOME", str(tmp_path))
    good = root / "cells-ft"
    good.mkdir(parents=True)
    weights = {"a.weight": np.zeros((4, 3, 3, 3), np.float16), "bn.running_mean": np.zeros(4, np.float16)}
    save_file(weights, good / "model.safetensors")
    (good / "config.json").write_text(
        json.dumps({"format": 2, "model": {"architecture": "small", "crop": {"size": 256}}})
    )
    scores = {"objects": 5, "miou": 0.91, "f_1px": 0.8, "f_2px": 0.9, "by_set": {}}
    (good / "card.json").write_text(json.dumps({"licence": "BSD-3-Clause", "validation": {"extreme_points": scores}}))
    bad = root / "broken"
    bad.mkdir()
    (bad / "config.json").write_text("{}")
    found = {one["name"]: one for one in json.loads(run("models", "--json").out)["models"]}
    assert found["cells-ft"] == {
        "name": "cells-ft", "architecture": "small", "size": 256, "parameters": 108, "licence": "BSD-3-Clause",
        "megabytes": (good / "model.safetensors").stat().st_size / 1e6, "path": str(good), "problem": None,
        "packaged": False, "current": False, "parent": None,
        "validation": {"objects": 5, "miou": 0.91, "f_1px": 0.8, "f_2px": 0.9},
    }  # fmt: skip
    assert "model" in found["broken"]["problem"]
    result = run("models")
    assert result.code == 0
    assert "0.9100" in result.out
    assert "damaged" in result.out


# ---------------------------------------------------------------- demo


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """One run of the demo, which draws and costs seconds."""
    out = tmp_path_factory.mktemp("demo") / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(napari_delse.predict.Predictor, "load", lambda *_, **__: EllipsePredictor())
        with pytest.raises(SystemExit) as left:
            cli.main(["demo", "--out", str(out), "--json", str(out.parent / "demo.json")])
    assert left.value.code == 0
    return out, json.loads((out.parent / "demo.json").read_text())


def test_demo_reports_and_writes_its_files(demo_run):
    out, summary = demo_run
    assert {p.name for p in out.iterdir()} == {
        "cells_labels.tif", "cells_overlay.png", "coins_labels.tif", "coins_overlay.png",
    }  # fmt: skip
    assert set(summary) == {"model", "device", "images"}
    cells, coins = summary["images"]
    for image in (cells, coins):
        assert set(image) == {"name", "objects", "miou", "drags", "ms_per_object", "labels", "overlay"}
        assert image["miou"] > 0.7  # of ellipses
    assert coins["objects"] == 15
    assert len(coins["drags"]) == 1
    assert set(coins["drags"][0]) == {"label", "index", "before", "after"}
    assert tifffile.imread(out / "coins_labels.tif").max() == 15
    assert tifffile.imread(out / "cells_labels.tif").shape == (5, 256, 256)


def test_demo_overlays_are_worth_looking_at(demo_run):
    out, _ = demo_run
    coins = imageio.imread(out / "coins_overlay.png").astype(int)
    assert min(coins.shape[:2]) > 900
    grey = np.ptp(coins, axis=2) < 8
    assert 0.3 < grey.mean() < 0.95  # most of the photograph, and coloured masks
    assert len(np.unique(coins.reshape(-1, 3), axis=0)) > 5000  # soft edges


def test_demo_without_a_screen_says_so(run, tmp_path, monkeypatch):
    if not sys.platform.startswith("linux"):
        pytest.skip("other systems always have a screen")
    from napari_delse import demo

    monkeypatch.setattr(demo, "run_demo", lambda *_: iter(()))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    result = run("demo", "--view", "--out", tmp_path / "out")
    assert result.code == 2
    assert result.err.startswith("napari-delse: --view needs a screen")


def test_demo_opens_napari(monkeypatch, qapp, tmp_path):
    import napari

    from napari_delse import demo

    opened = []

    def leave():
        opened.extend((layer.name, layer.visible) for layer in napari.current_viewer().layers)
        napari.current_viewer().close()

    monkeypatch.setattr(napari, "run", leave)
    predictor = EllipsePredictor()
    one = ObjectPrompt(1, (), clicks(20, 20, 10), (Correction((20, 30), (20, 33)),))
    found = predictor.segment(FLAT, one.prompt)
    thing = demo.DemoObject(one, found, found, 1, 1, 1)
    image = np.arange(60 * 80.0).reshape(60, 80)
    results = [demo.DemoResult(n, image, FLAT, (thing,), tmp_path, tmp_path) for n in ("a", "b")]
    demo.show(results)
    assert [name for name, visible in opened if visible] == ["b", "b labels", "b clicks", "b drags"]
    assert len(opened) == 8


def test_demo_takes_no_file_for_a_folder(fails, tmp_path):
    (tmp_path / "out").write_text("")
    assert "is a file" in fails("demo", "--out", tmp_path / "out")


# ---------------------------------------------------------------- drawing


def test_strokes_are_soft_and_where_they_should_be():
    from napari_delse.figures.overlay import Canvas, mosaic

    canvas = Canvas(np.zeros((20, 30)), 4)
    canvas.line([(5, 2), (5, 20)], (1.0, 0.0, 0.0), 4)
    red = canvas.pixels[..., 0]
    row = 5 * 4 + 1.5  # the centre of image row 5 on the canvas
    assert red[int(row), 40] == pytest.approx(1)
    assert red[:, 40].sum() == pytest.approx(4, abs=0.1)
    assert red[:, 100].max() == 0
    canvas.arrow((-50, -50), (100, 100), (0.0, 1.0, 0.0), 3)  # far outside: cut, not refused
    canvas.dot((1000, 1000), (0.0, 1.0, 0.0), 3)
    canvas.fill(ObjectMask(np.ones((2, 2), bool), (18, 28)), (0.0, 0.0, 1.0), 1)
    assert canvas.pixels[72:, 112:, 2].min() == 1
    assert math.isclose(canvas.pixels[..., 2].sum(), 64)
    board = mosaic([canvas.to_bytes()] * 5, 3, gap=2)
    assert board.shape == (2 * 82 + 2, 3 * 122 + 2, 3)


class TestExport:
    """Labels for other programs; the formats themselves are tested with `export`."""

    def run(self, *args):
        with pytest.raises(SystemExit) as ended:
            cli.main(["export", *map(str, args)])
        return ended.value.code

    def test_objects_with_classes_become_geojson(self, tmp_path):
        labels = np.zeros((40, 50), np.uint16)
        labels[5:15, 8:20], labels[20:30, 30:45] = 3, 8
        tifffile.imwrite(tmp_path / "labels.tif", labels)
        (tmp_path / "classes.csv").write_text("label,class\n3,tumour\n8,stroma\n")
        code = self.run(tmp_path / "labels.tif", tmp_path / "cells.geojson", "--classes", tmp_path / "classes.csv")
        assert code == 0
        features = json.loads((tmp_path / "cells.geojson").read_text())["features"]
        assert len(features) == 2
        assert {f["properties"]["classification"]["name"] for f in features} == {"tumour", "stroma"}

    def test_pixel_sizes_survive(self, tmp_path):
        labels = np.ones((3, 20, 30), np.uint16)
        sizes = {"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
        tifffile.imwrite(
            tmp_path / "labels.ome.tif", labels, metadata={"axes": "ZYX", **sizes}, photometric="minisblack"
        )
        assert self.run(tmp_path / "labels.ome.tif", tmp_path / "again.ome.tif") == 0
        with tifffile.TiffFile(tmp_path / "again.ome.tif") as file:
            text = file.ome_metadata
            np.testing.assert_array_equal(file.asarray(), labels)
        assert all(f'{name}="{size}"' in text for name, size in sizes.items())

    def test_an_unknown_unit_is_told_and_left_out(self, tmp_path, capsys):
        labels = np.ones((3, 20, 30), np.uint16)
        about = {"axes": "ZYX", "spacing": 0.5, "unit": "furlong"}
        tifffile.imwrite(tmp_path / "labels.tif", labels, imagej=True, resolution=(10, 10), metadata=about)
        assert self.run(tmp_path / "labels.tif", tmp_path / "cells.geojson") == 0
        assert "a unit that is not known along Z, Y, X (furlong); sizes there" in capsys.readouterr().err

    def test_named_axes_of_a_plain_tiff_stay(self, tmp_path):
        labels = np.ones((3, 20, 30), np.int32)
        tifffile.imwrite(tmp_path / "a.tif", labels, photometric="minisblack", metadata={"axes": "CYX"})
        assert self.run(tmp_path / "a.tif", tmp_path / "b.ome.tif") == 0
        with open_image(tmp_path / "b.ome.tif") as image:
            assert image.axes == "CYX"

    def test_ome_zarr_keeps_its_sizes_and_colours_are_no_labels(self, tmp_path, capsys):
        pytest.importorskip("zarr")
        where = {"axes": "ZYX", "scale": (2, 0.5, 0.5), "units": "micrometer", "translate": (0, 7, 0)}
        export_labels(np.ones((3, 20, 30), np.uint16), tmp_path / "a.zarr", **where)
        assert self.run(tmp_path / "a.zarr", tmp_path / "b.zarr") == 0
        assert self.run(tmp_path / "a.zarr", tmp_path / "b.ome.tif") == 0
        with open_image(tmp_path / "b.zarr") as image:
            assert (image.pixel_size[0], image.origin) == ({"Z": 2, "Y": 0.5, "X": 0.5}, {"Y": 7})
        with open_image(tmp_path / "b.ome.tif") as image:
            assert image.pixel_size[0] == {"Z": 2, "Y": 0.5, "X": 0.5}
        tifffile.imwrite(tmp_path / "c.tif", np.ones((20, 30, 3), np.uint8), photometric="rgb")
        assert self.run(tmp_path / "c.tif", tmp_path / "c.geojson") == 2
        assert "holds colours (axes YXS), not labels" in capsys.readouterr().err

    def test_what_exists_is_replaced_only_when_asked(self, tmp_path, capsys):
        tifffile.imwrite(tmp_path / "labels.tif", np.ones((20, 30), np.uint16))
        (tmp_path / "out.json").write_text("mine")
        assert self.run(tmp_path / "labels.tif", tmp_path / "out.json", "--format", "coco") == 2
        assert "--overwrite" in capsys.readouterr().err
        assert (tmp_path / "out.json").read_text() == "mine"
        assert self.run(tmp_path / "labels.tif", tmp_path / "out.json", "--format", "coco", "--overwrite") == 0
        assert json.loads((tmp_path / "out.json").read_text())["annotations"]


# ---------------------------------------------------------------- replay


@pytest.fixture
def annotated(tmp_path, monkeypatch, predictor):
    """A stack with three annotated objects, and what is left of the work after a crash."""
    monkeypatch.setenv("NAPARI_DELSE_HOME", str(tmp_path / "home"))
    pixels = np.zeros((3, 60, 80), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", pixels, metadata={"axes": "ZYX"}, photometric="minisblack")

    def make(labels):
        session = AnnotationSession(ArrayLabels(labels), largest=int(labels.max()))
        image = Identity.of(pixels, "stack", tmp_path / "stack.tif")
        recorder = start(session, image, tmp_path / "work.delse.jsonl", model="default")
        for z, x in ((0, 20), (1, 20), (1, 60)):
            session.set_clicks(PlaneKey((1, 2), (z,)), clicks(20, x, 10).points)
            if x == 60:
                session.add_correction(Correction((30, 60), (35, 60)))
            request = session.request()
            plane = Plane(pixels, axes=(1, 2), index=(z,))
            session.receive(request, predictor.segment(plane, request.draft.prompt(), request.draft.corrections))
            session.commit()
        recorder.abandon()
        return session, recorder.path

    return make


def test_replay_makes_the_labels_anew(run, annotated, tmp_path):
    session, journal = annotated(np.zeros((3, 60, 80), np.int32))
    with journal.open("ab") as file:
        file.write(b'{"crc":"0123')  # the line it died in
    result = run("replay", journal, "--out", tmp_path / "out.tif", "--prompts", tmp_path / "out.csv", "--json", "-")
    found = json.loads(result.out)
    assert (result.code, found["objects"], found["torn"], found["dtype"]) == (0, 3, True, "int32")
    with tifffile.TiffFile(tmp_path / "out.tif") as file:
        assert file.series[0].axes == "ZYX"
        np.testing.assert_array_equal(file.asarray(), session.store.data)
    prompts = read_prompts(tmp_path / "out.csv")
    assert [(one.label, one.index, len(one.corrections)) for one in prompts] == [
        (1, (0,), 0),
        (2, (1,), 0),
        (3, (1,), 1),
    ]


def test_replay_needs_no_image_without_a_model(run, annotated, tmp_path):
    session, journal = annotated(np.zeros((3, 60, 80), np.uint16))
    (tmp_path / "stack.tif").unlink()
    result = run("replay", journal, "--out", tmp_path / "out.tif")
    assert result.out == f"{tmp_path / 'out.tif'}: 3 objects in labels of (3, 60, 80) uint16\n"
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), session.store.data)


def test_replay_with_a_model_names_the_objects_that_differ(run, annotated, tmp_path, predictor, monkeypatch):
    session, journal = annotated(np.zeros((3, 60, 80), np.uint16))
    command = ("replay", journal, "--out", tmp_path / "out.tif", "--model", "other")
    result = run(*command)
    assert result.out.splitlines()[1:] == ["0 of 3 masks differ with ellipse"]
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), session.store.data)
    segment = EllipsePredictor.segment
    plain = lambda self, image, prompt, _=(), *, known=None: segment(self, image, prompt)  # noqa: E731 - without drags
    monkeypatch.setattr(EllipsePredictor, "segment", plain)
    result = run(*command)
    assert result.out.splitlines()[1] == "1 of 3 masks differ with ellipse"
    assert result.out.splitlines()[2].startswith("label 3: IoU 0.")
    (tmp_path / "stack.tif").rename(tmp_path / "moved.tif")
    assert run(*command, "--image", tmp_path / "moved.tif").code == 0


def test_replay_onto_labels_that_were_there(run, fails, annotated, tmp_path):
    began = np.zeros((3, 60, 80), np.int32)
    began[:, :15] = 7
    tifffile.imwrite(tmp_path / "began.tif", began.astype(np.uint8), photometric="minisblack")
    session, journal = annotated(began)
    command = ("replay", journal, "--out", tmp_path / "out.tif")
    assert "give these too" in fails(*command)
    assert run(*command, "--labels", tmp_path / "began.tif").code == 0
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "out.tif"), session.store.data)


def test_replay_refuses_what_it_cannot_do(fails, annotated, tmp_path):
    _, journal = annotated(np.zeros((3, 60, 80), np.uint16))
    out = ("--out", tmp_path / "out.tif")
    assert "not a journal" in fails("replay", tmp_path / "stack.tif", *out)
    assert "--out must be a file" in fails("replay", journal, "--out", tmp_path / "out.png")
    assert "a file of its own" in fails("replay", journal, *out, "--prompts", journal)
    assert "are both" in fails("replay", journal, *out, "--prompts", f"{tmp_path}/./out.tif")
    assert "no file" in fails("replay", journal, *out, "--image", tmp_path / "gone.tif")
    assert "is it the right image" in fails("replay", journal, *out, "--model", "other", "--axes", "CYX")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2] + lines[3:]))
    assert "line 3" in fails("replay", journal, *out)
