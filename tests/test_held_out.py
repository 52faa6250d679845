"""Held-out objects are scored on windows exactly as on their whole planes."""

import numpy as np
import pytest
import torch

from napari_delse.annotator import simulated_prompt
from napari_delse.checkpoint import load_model
from napari_delse.data.images import Plane
from napari_delse.data.labelled_planes import IGNORE, LabelledPlane
from napari_delse.finetuning.held_out import (
    JITTER,
    cut_out,
    evaluate,
    read_held_out,
    read_strip,
    strip_of,
    write_held_out,
    write_strip,
)
from napari_delse.geometry import ExtremePoints, ObjectMask
from napari_delse.metrics import score_object
from napari_delse.predict import Predictor

CPU = torch.device("cpu")


@pytest.fixture
def planes(disks):
    """Planes as a person has them: grey, colours and few channels, some truth unknown."""
    image, labels = disks(3)
    labels[0, :6, 30:60] = IGNORE
    grey = (image * 300).astype(np.uint16)
    colour = np.stack([image[1] * k for k in (0.5, 1, 0.2)], axis=-1).astype(np.uint8)
    return [
        LabelledPlane("grey", 0, Plane.of(grey[0]), Plane.of(labels[0])),
        LabelledPlane("colour", 0, Plane.of(colour), Plane.of(labels[1])),
        LabelledPlane("two", 0, Plane(np.stack([image[2], -image[2]]), (1, 2), 0), Plane.of(labels[2])),
    ]


def objects_of(planes, crop):
    return [
        (plane, label, cut_out(plane, label, facts.box, crop, (0, n, label)))
        for n, plane in enumerate(planes)
        for label, facts in plane.objects().items()
    ]


def test_a_window_scores_as_the_whole_plane_does(planes, tiny_parent):
    loaded = load_model(tiny_parent)
    predictor = Predictor(loaded, CPU)
    made = objects_of(planes, loaded.config.crop)
    scores, _ = evaluate(predictor, [one for *_, one in made])
    for (plane, label, _), iou, f in zip(made, scores.iou, scores.f_2px, strict=True):
        height, width = plane.labels.shape
        ids = plane.ids(0, 0, height, width)
        truth = ObjectMask.from_plane(ids == label)
        seed = (0, planes.index(plane), label)
        prompt = simulated_prompt(truth, np.random.default_rng(list(seed)), jitter=JITTER)
        found = predictor.segment(plane.image, prompt).mask
        void = ids == IGNORE
        whole = score_object(found, truth, ids.shape, void if void.any() else None)
        assert iou == pytest.approx(whole.iou, abs=1e-6)
        assert f == pytest.approx(whole.boundary_f[1], abs=1e-6)


def test_objects_are_read_as_they_were_written(planes, tiny_parent, tmp_path):
    made = [one for *_, one in objects_of(planes, load_model(tiny_parent).config.crop)]
    write_held_out(tmp_path / "held.safetensors", made)
    again = read_held_out(tmp_path / "held.safetensors")
    for old, new in zip(made, again, strict=True):
        assert (old.name, old.rgb, old.prompt) == (new.name, new.rgb, new.prompt)
        assert old.pixels.dtype == new.pixels.dtype
        assert (old.pixels == new.pixels).all()
        assert (old.truth == new.truth).all()


def test_a_damaged_file_is_told(tmp_path):
    (tmp_path / "held.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="does not hold the held-out objects"):
        read_held_out(tmp_path / "held.safetensors")


def test_huge_objects_are_thinned_out(tiny_parent):
    labels = np.zeros((5000, 5200), np.uint8)
    labels[300:4800, 200:5100] = 1
    plane = LabelledPlane("huge", 0, Plane.of(np.broadcast_to(np.float32(1), labels.shape)), Plane.of(labels))
    one = cut_out(plane, 1, (300, 200, 4799, 5099), load_model(tiny_parent).config.crop, (0, 0))
    assert max(one.truth.shape) <= 2048
    assert one.mask.area == pytest.approx(4500 * 4900 / 9, rel=0.01)


def test_a_thin_fibre_is_thinned_out_only_as_far_as_something_of_it_is_left(tiny_parent):
    labels = np.zeros((60, 3200), np.uint8)
    labels[31, 100:3100] = 1
    plane = LabelledPlane("fibre", 0, Plane.of(labels * np.float32(9)), Plane.of(labels))
    crop = load_model(tiny_parent).config.crop
    one = cut_out(plane, 1, plane.objects()[1].box, crop, (0, 0))
    assert one.truth.shape == one.image.shape
    assert one.mask.area == 3000


def test_the_strip_shows_what_lies_in_the_crop(planes, tiny_parent, tmp_path):
    loaded = load_model(tiny_parent)
    made = [one for *_, one in objects_of(planes, loaded.config.crop)]
    _, seen = evaluate(Predictor(loaded, CPU), made)
    strip = strip_of(made, seen, seen)
    assert strip.image.shape == (6, 128, 128, 3)
    assert (strip.before == strip.now).all()
    for truth in strip.truth:
        top = ExtremePoints.from_mask(truth).box[0]
        assert 10 < top < 40  # the crop's margin
        assert 0.2 < truth.mean() < 0.6
    bright = [image[truth].mean() > image[~truth].mean() for image, truth in zip(strip.image, strip.truth, strict=True)]
    assert all(bright[:4])
    assert read_strip(tmp_path / "strip.safetensors") is None
    write_strip(tmp_path / "strip.safetensors", strip)
    again = read_strip(tmp_path / "strip.safetensors")
    assert again is not None
    assert (again.truth == strip.truth).all()
    assert (again.image == strip.image).all()
    assert again.names == strip.names
