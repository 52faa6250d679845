"""Evaluation on small folders, with a predictor that needs no weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from skimage.io import imsave

from napari_delse.data.images import Plane
from napari_delse.evaluation import (
    EvaluateConfig,
    choose_objects,
    evaluate,
    objects_of,
    read_list,
    run,
    set_names,
    summarise,
)
from napari_delse.geometry import ObjectMask


class BoxFiller:
    """Fills the box of what it is shown; every drag's end is shown, too."""

    name = "box-filler"
    device = "cpu"

    def __init__(self):
        self.prompts = []

    def segment(self, image, prompt, corrections=()):
        self.prompts.append(prompt)
        shape = Plane.of(image).shape
        box = prompt.with_points(*(c.end for c in corrections)).box
        (y0, x0), (y1, x1) = (np.clip(np.round(box[i : i + 2]), 0, np.subtract(shape, 1)).astype(int) for i in (0, 2))
        mask = ObjectMask(np.ones((y1 - y0 + 1, x1 - x0 + 1), bool), (int(y0), int(x0)))
        return SimpleNamespace(mask=mask, prompt=prompt, corrections=tuple(corrections))

    def correct(self, image, prediction, *corrections):
        return self.segment(image, prediction.prompt, (*prediction.corrections, *corrections))


def rectangles(shape=(40, 50)):
    labels = np.zeros(shape, np.uint16)
    labels[5:15, 5:20] = 1
    labels[20:30, 10:14] = 300
    labels[:6, 30:] = 7
    return labels


@pytest.fixture
def folder(tmp_path):
    """Two images and a stack of three planes; every object is a rectangle."""
    root = tmp_path / "rectangles"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    labels = rectangles()
    for name in ("a", "b"):
        imsave(root / "images" / f"{name}.png", (labels > 0).astype(np.uint8) * 200, check_contrast=False)
        imsave(root / "labels" / f"{name}.png", labels, check_contrast=False)
    stack = np.stack([labels, np.zeros_like(labels), labels])
    tifffile.imwrite(root / "images" / "s.tif", (stack > 0).astype(np.uint16) * 900, photometric="minisblack")
    tifffile.imwrite(root / "labels" / "s.tif", stack, photometric="minisblack")
    return root


SCORES = {"miou", "f_1px", "f_2px", "boundary_f", "miou_worst_quarter"}


def test_the_result_has_every_field(folder):
    result = json.loads(json.dumps(run(BoxFiller(), [folder], EvaluateConfig(drags=2, seed=3))))
    assert set(result) == SCORES | {
        "objects", "ms_per_object", "by_set", "steps", "model", "device",
        "prompts", "jitter", "seed", "drags", "clicks", "max_objects",
    }  # fmt: skip
    assert (result["model"], result["device"], result["seed"], result["objects"]) == ("box-filler", "cpu", 3, 12)
    assert set(result["by_set"]) == {"rectangles"}
    assert set(result["by_set"]["rectangles"]) == SCORES | {"objects", "ms_per_object", "steps"}
    assert len(result["steps"]) == 3
    for step in result["steps"]:
        assert set(step) == SCORES
        assert len(step["boundary_f"]) == 10
        assert (step["boundary_f"][0], step["boundary_f"][1]) == (step["f_1px"], step["f_2px"])
    assert {k: result[k] for k in SCORES} == result["steps"][0]
    assert result["ms_per_object"] > 0


def test_the_worst_quarter_is_that_of_the_first_masks(folder):
    config = EvaluateConfig(jitter=0.1, seed=3)
    predictor = BoxFiller()
    scores = list(evaluate(predictor, [folder], config))
    lowest = sorted(score.steps[0].iou for score in scores)[:3]  # of twelve
    assert summarise(scores, predictor, config)["miou_worst_quarter"] == pytest.approx(np.mean(lowest))


def test_exact_prompts_of_rectangles_score_one(folder):
    for prompts in ("extreme", "box"):
        result = run(BoxFiller(), [folder], EvaluateConfig(prompts=prompts))
        assert result["miou"] == 1
        assert result["boundary_f"] == [1.0] * 10


def test_boxes_are_given_as_boxes(folder):
    predictor = BoxFiller()
    run(predictor, [folder], EvaluateConfig(prompts="box", max_objects=2))
    assert {p.kind for p in predictor.prompts} == {"box"}


def test_jitter_costs_and_the_seed_repeats_it(folder):
    def score(seed, **options):
        return run(BoxFiller(), [folder], EvaluateConfig(jitter=0.1, seed=seed, **options))["miou"]

    assert 0.7 < score(0) < 1
    assert score(0) == score(0)
    assert score(0) != score(1)


def test_an_object_scores_the_same_in_any_draw(folder):
    whole = {s.key: s.steps for s in evaluate(BoxFiller(), [folder], EvaluateConfig(jitter=0.1))}
    drawn = {s.key: s.steps for s in evaluate(BoxFiller(), [folder], EvaluateConfig(jitter=0.1, max_objects=5))}
    assert len(drawn) == 5
    assert drawn.items() <= whole.items()


def test_the_first_call_is_not_timed(folder):
    class SlowStart(BoxFiller):
        def segment(self, image, prompt, corrections=()):
            if not self.prompts:
                import time

                time.sleep(0.5)
            return super().segment(image, prompt, corrections)

    assert run(SlowStart(), [folder])["ms_per_object"] < 100


def test_progress_counts_up_to_the_total(folder):
    seen = list(evaluate(BoxFiller(), [folder]))
    assert [s.done for s in seen] == list(range(1, 13))
    assert {s.total for s in seen} == {12}
    assert [s.key[1:] for s in seen if s.key.name == "s"] == [("s", z, i) for z in (0, 2) for i in (1, 7, 300)]


@pytest.mark.parametrize("kind", ["drags", "clicks"])
def test_corrections_are_scored_after_every_step(tmp_path, kind):
    root = tmp_path / "set"
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    labels = np.zeros((60, 60), np.uint16)
    labels[10:40, 10:40] = 1
    imsave(root / "images" / "a.png", labels.astype(np.uint8), check_contrast=False)
    imsave(root / "labels" / "a.png", labels, check_contrast=False)

    class Shy(BoxFiller):
        """Sees a quarter of the box first, and the whole box once anything is corrected."""

        def segment(self, image, prompt, corrections=()):
            found = super().segment(image, prompt, corrections)
            if not corrections and len(prompt.points) == 4:
                found.mask = ObjectMask(found.mask.mask[:15, :15], found.mask.origin)
            return found

    steps = run(Shy(), [root], EvaluateConfig(**{kind: 3}))["steps"]
    assert [s["miou"] for s in steps] == [0.25, 1, 1, 1]


def test_ignored_objects_and_pixels_do_not_count(folder):
    labels = rectangles()
    labels[labels == 300] = 65535
    labels[5:15, 15:20] = 65535  # hides a third of object 1
    imsave(folder / "labels" / "a.png", labels, check_contrast=False)

    class Bold(BoxFiller):
        def segment(self, image, prompt, corrections=()):
            found = super().segment(image, prompt, corrections)
            if found.mask.origin == (5, 5):
                found.mask = ObjectMask(np.ones((10, 15), bool), (5, 5))
            return found

    scores = list(evaluate(Bold(), [folder], names={"rectangles": ["a"]}))
    assert [s.key.label for s in scores] == [1, 7]
    assert [s.steps[0].iou for s in scores] == [1, 1]
    assert scores[0].steps[0].boundary_f == (1,) * 10


def test_objects_are_cut_from_their_plane():
    labels = rectangles()
    labels[0, 0] = 65535
    labels[39, 49] = 1  # a second part of object 1
    objects = objects_of(labels)
    assert list(objects) == [1, 7, 300]
    for label, one in objects.items():
        np.testing.assert_array_equal(one.to_plane(labels.shape), labels == label)


def test_the_draw_takes_objects_of_all_images(folder):
    sets = set_names([folder])
    names = {key.name for seed in range(5) for key in choose_objects(sets, 4, seed)["rectangles"]}
    assert names == {"a", "b", "s"}


def test_lists_choose_images(folder, tmp_path):
    sets = set_names([folder])
    path = tmp_path / "val.txt"
    path.write_text("# validation\nrectangles/a\n\nother/x\n")
    assert read_list(path, sets) == {"rectangles": ["a"]}
    assert run(BoxFiller(), [folder], names=read_list(path, sets))["objects"] == 3
    path.write_text("s\n")
    assert read_list(path, sets) == {"rectangles": ["s"]}
    for text, rule in [("rectangles/z", "line 1: no labels 'z'"), ("z\n", "no labels 'z'"), ("other/x\n", "lists no")]:
        path.write_text(text)
        with pytest.raises(ValueError, match=rule):
            read_list(path, sets)


def test_sets_are_named_apart(tmp_path):
    assert list(set_names([tmp_path / "a", tmp_path / "b"])) == ["a", "b"]
    assert list(set_names([tmp_path / "x" / "a", tmp_path / "y" / "a", tmp_path / "b"])) == ["x/a", "y/a", "b"]
    with pytest.raises(ValueError, match="twice"):
        set_names([tmp_path, str(tmp_path)])


@pytest.mark.parametrize(
    "options",
    [
        {"prompts": "circle"}, {"jitter": -0.1}, {"jitter": float("nan")}, {"drags": 1, "clicks": 1}, {"drags": -1},
        {"clicks": 1, "prompts": "box"}, {"max_objects": 0}, {"seed": -1},
    ],
)  # fmt: skip
def test_wrong_settings_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        EvaluateConfig(**options)


def test_folders_without_objects_are_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="images"):
        list(evaluate(BoxFiller(), [tmp_path / "nothing"]))
    for name in ("a.png", "b.png", "s.tif"):
        (folder / "labels" / name).unlink()
    imsave(folder / "labels" / "a.png", np.zeros((40, 50), np.uint16), check_contrast=False)
    with pytest.raises(ValueError, match="no object"):
        list(evaluate(BoxFiller(), [folder]))
    with pytest.raises(ValueError, match="no object"):
        summarise([], BoxFiller(), EvaluateConfig())


def test_real_folders_are_read(shared_data):
    folders = [shared_data / name for name in ("sunnybrook_lv", "hippocampus_mri")]
    result = run(BoxFiller(), folders, EvaluateConfig(max_objects=20, drags=1))
    assert result["objects"] == 40
    assert {name: part["objects"] for name, part in result["by_set"].items()} == {
        "sunnybrook_lv": 20,
        "hippocampus_mri": 20,
    }
    assert 0.4 < result["miou"] < 0.9
