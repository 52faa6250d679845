"""What a person relies on when an object is segmented: any plane, any clicks, only the crop."""

import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_delse._giving_up import GivenUpError, only_while
from napari_delse.checkpoint import save_model
from napari_delse.confidence import agreement
from napari_delse.data.images import Plane
from napari_delse.geometry import Correction, Crop, CropConfig, ExtremePoints, ObjectMask
from napari_delse.levelset import EvolutionConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.predict import Predictor, contour_lines, mask_from_phi

TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
CLICKS = [(20.0, 41.0), (38.0, 22.0), (61.0, 40.0), (42.0, 63.0)]


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model with statistics and an editor that do something."""
    ARCHITECTURES.setdefault("tiny", TINY)
    torch.manual_seed(0)
    model = Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64)))
    torch.nn.init.normal_(model.editor.leave.weight, std=0.0025)
    torch.nn.init.normal_(model.phi_head[-1].weight, std=0.0125)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return save_model(tmp_path_factory.mktemp("models") / "tiny", model, {})


@pytest.fixture(scope="module")
def predictor(model_folder: Path) -> Predictor:
    return Predictor.load(model_folder, device="cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:90, :100]
    disk = (y - 41) ** 2 + (x - 42) ** 2 < 20**2
    return (rng.normal(300, 20, disk.shape) + 400 * disk).clip(0, 65535).astype(np.uint16)


def test_clicks_in_any_order_give_the_same_mask(predictor, image):
    first = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    other = predictor.segment(image, ExtremePoints.from_clicks([CLICKS[i] for i in (2, 0, 3, 1, 2)]))
    np.testing.assert_array_equal(first.mask.to_plane(image.shape), other.mask.to_plane(image.shape))


def test_a_prediction_that_nobody_waits_for_any_more_is_given_up_on_the_way(predictor, image):
    prompt, drag = ExtremePoints.from_clicks(CLICKS), Correction((61.0, 40.0), (66.0, 40.0))
    before, asked = predictor.segment(image, prompt, (drag,)), []
    with only_while(lambda: asked.append(True) or True):
        after = predictor.segment(image, prompt, (drag,))
    np.testing.assert_array_equal(after.states[-1], before.states[-1])
    assert len(asked) > 20  # often enough that little is worked out in vain
    for count in (1, 9, len(asked)):
        left = iter([True] * (count - 1))
        with pytest.raises(GivenUpError), only_while(lambda left=left: next(left, False)):
            predictor.segment(image, prompt, (drag,))
        assert next(left, None) is None
    again = predictor.segment(image, prompt, (drag,))  # elsewhere nobody is asked
    np.testing.assert_array_equal(again.states[-1], before.states[-1])


def test_many_at_once_are_as_one_by_one(predictor, image):
    prompts = [
        ExtremePoints.from_clicks(CLICKS),
        ExtremePoints.from_box([(10, 10), (30, 44)]),
        ExtremePoints.from_clicks([(-4, 50), (30, 40), (33, 70), (20, 61), (15, 69)]),
    ]
    drags = [(), (Correction((10, 20), (5, 20)),), (Correction((15, 69), (16, 75)), Correction((33, 70), (37, 66)))]
    many = list(predictor.segment_many(image, prompts, drags, batch_size=2))
    for prompt, drag, together in zip(prompts, drags, many, strict=True):
        alone = predictor.segment(image, prompt, drag)
        np.testing.assert_allclose(together.states[-1], alone.states[-1], rtol=1e-3, atol=1e-2)
        np.testing.assert_allclose(together.motion, alone.motion, rtol=1e-3, atol=1e-3)
        assert together.crop == alone.crop
        assert together.corrections == drag


def test_objects_of_several_planes_share_batches_and_come_in_order(predictor, image):
    colours = np.stack([image[:70, :80], image[5:75, 3:83], image[9:79, 9:89]], axis=-1)
    stack = np.stack([image, image[::-1]])
    planes = [image, Plane(stack, index=(1,)), colours, Plane(image.T, axes=(1, 0))]
    items = [(plane, ExtremePoints.from_clicks(CLICKS), ()) for plane in planes]
    items[1] = (planes[1], ExtremePoints.from_box([(10, 10), (30, 44)]), [Correction((10, 20), (5, 20))])
    passes, run = [], predictor._run
    predictor._run = lambda images, *rest: passes.append(len(images)) or run(images, *rest)
    try:
        across = list(predictor.segment_across(items, batch_size=3))
    finally:
        del predictor._run
    assert passes == [3, 1]
    for (plane, prompt, drags), together in zip(items, across, strict=True):
        alone = predictor.segment(plane, prompt, drags)
        np.testing.assert_allclose(together.states[-1], alone.states[-1], rtol=1e-3, atol=1e-2)
        assert (together.crop, together.prompt, together.plane_shape) == (alone.crop, prompt, Plane.of(plane).shape)
        assert together.corrections == tuple(drags)


def test_no_more_than_one_batch_is_read_ahead(predictor, image):
    taken = []

    def endless():
        while True:
            taken.append(1)
            yield image, ExtremePoints.from_clicks(CLICKS), ()

    found = predictor.segment_across(endless(), batch_size=2)
    assert not taken
    next(found)
    assert len(taken) == 2
    next(found)
    assert len(taken) == 2


def test_folding_batch_norms_changes_nothing(predictor, model_folder):
    from napari_delse.checkpoint import load_model

    crop, clicks = torch.randn(2, 3, 64, 64), torch.rand(2, 1, 64, 64)
    with torch.inference_mode():
        plain = load_model(model_folder).model.encode(crop, clicks)
        folded = predictor._model.encode(crop, clicks)
    for a, b in zip(plain.fields, folded.fields, strict=True):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-3)


def test_a_correction_edits_the_motion_and_keeps_the_first_prediction(predictor, image):
    first = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    before = first.motion.copy()
    second = predictor.correct(image, first, Correction((20, 41), (14, 41)))
    third = predictor.correct(image, second, Correction((61, 40), (66, 40)))
    np.testing.assert_array_equal(first.motion, before)
    assert np.abs(second.motion - first.motion).max() > 1e-4
    assert [len(p.corrections) for p in (first, second, third)] == [0, 1, 2]
    assert third.prompt == first.prompt


def test_a_correction_keeps_how_its_prediction_evolved(predictor, image):
    first = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    chosen = EvolutionConfig(steps=2), 0.5
    turned = predictor.evolve(first, *chosen)
    drag = Correction((20, 41), (14, 41))
    corrected = predictor.correct(image, turned, drag)
    assert (corrected.config.evolution, corrected.threshold) == chosen
    expected = predictor.evolve(predictor.correct(image, first, drag), *chosen)
    np.testing.assert_array_equal(corrected.states[-1], expected.states[-1])
    np.testing.assert_array_equal(corrected.mask.mask, expected.mask.mask)
    assert predictor.correct(image, first, drag).config == predictor.config


def test_moved_clicks_are_judged_with_the_evolution_and_the_threshold_of_the_mask(predictor, image):
    plain = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    turned = predictor.evolve(plain, EvolutionConfig(steps=2), 0.5)
    assert turned.mask.area < 0.9 * plain.mask.area
    assert agreement(predictor, image, turned, 2, jitter=0) > 0.99


class Counting:
    """An image that notes what is read of it."""

    def __init__(self, pixels):
        self.pixels, self.shape, self.dtype, self.reads = pixels, pixels.shape, pixels.dtype, 0

    def __getitem__(self, key):
        self.reads += 1
        return self.pixels[key]


def test_pixels_that_a_known_prediction_saw_are_not_read_again(predictor, image):
    prompt, near, far = (
        ExtremePoints.from_clicks(CLICKS),
        [Correction((20, 41), (14, 41))],
        [Correction((42.0, 63.0), (42.0, 95.0))],
    )
    counting = Counting(image)
    first = predictor.segment(counting, prompt)
    assert counting.reads == 1
    again = predictor.segment(counting, prompt, near, known=first)
    assert counting.reads == 1
    np.testing.assert_array_equal(again.states[-1], predictor.segment(image, prompt, near).states[-1])
    for other in (Plane(np.stack([image] * 2), index=(1,)), Plane(image, axes=(1, 0)), image.copy()):
        fresh = predictor.segment(other, prompt, near, known=first)
        np.testing.assert_array_equal(fresh.states[-1], predictor.segment(other, prompt, near).states[-1])
    wider = predictor.segment(counting, prompt, far, known=again)  # out of the crop
    assert counting.reads == 2
    np.testing.assert_array_equal(wider.states[-1], predictor.segment(image, prompt, far).states[-1])


def test_a_drag_far_out_of_the_crop_widens_it(predictor, image):
    first = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    wider = predictor.correct(image, first, Correction((42.0, 63.0), (42.0, 95.0)))
    assert wider.crop.x1 > first.crop.x1
    assert wider.crop.x1 > 95


def test_evolving_again_with_no_steps_shows_phi_0(predictor, image):
    prediction = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    assert len(prediction.states) == predictor.config.evolution.steps + 1
    start = predictor.evolve(prediction, EvolutionConfig(steps=0))
    np.testing.assert_array_equal(start.states[-1], prediction.states[0])
    again = predictor.evolve(prediction, predictor.config.evolution)
    np.testing.assert_allclose(again.states[-1], prediction.states[-1], atol=1e-4)


def test_contours_run_through_the_plane_where_phi_changes_sign(predictor, image):
    prediction = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    crop, area = prediction.crop, 0.0
    for line in prediction.contours():
        assert line[:, 0].min() >= crop.y0 - 2
        assert line[:, 0].max() <= crop.y1 + 2
        y, x = line.T
        area += abs(np.dot(y[:-1], np.diff(x)) - np.dot(x[:-1], np.diff(y))) / 2
    assert bool(area) == bool((prediction.states[-1] > 0).any())


@pytest.mark.parametrize("threshold", [-2.0, 0.0, 3.0])
def test_contour_lines_are_closed_also_where_everything_is_inside(threshold):
    (line,) = contour_lines(np.full((8, 8), threshold + 0.5, np.float32), threshold)
    np.testing.assert_array_equal(line[0], line[-1])
    assert np.ptp(line, axis=0).min() > 7


@given(
    dtype=st.sampled_from(["uint8", "uint16", "int32", "float32", "float64", "bool"]),
    bad=st.sampled_from([None, np.nan, np.inf, -np.inf]),
    fill=st.sampled_from(["noise", "constant", "saturated"]),
    colours=st.sampled_from([(), (3,), (4,)]),
)
@settings(max_examples=25, deadline=None)
def test_any_plane_gives_finite_fields(predictor, dtype, bad, fill, colours):
    rng = np.random.default_rng(1)
    top = 1.0 if dtype in ("bool", "float32", "float64") else float(np.iinfo(dtype).max)
    values = {"noise": rng.random((80, 90, *colours)), "constant": np.full((80, 90, *colours), 0.5)}.get(
        fill, np.ones((80, 90, *colours))
    )
    plane = (values * top).astype(dtype)
    if bad is not None and plane.dtype.kind == "f":
        plane[10:40, 30:33] = bad
    prediction = predictor.segment(plane, ExtremePoints.from_clicks(CLICKS))
    assert all(np.isfinite(state).all() for state in prediction.states)
    assert 0 <= prediction.confidence <= 1


@pytest.mark.parametrize("clicks", [[(0, 2), (2, 0), (4, 2), (2, 4)], [(-3, 5), (5, -3), (9, 5), (5, 9)]])
def test_small_objects_at_and_beyond_the_border_stay_in_the_plane(predictor, image, clicks):
    mask = predictor.segment(image, ExtremePoints.from_clicks(clicks)).mask
    ys, xs = mask.indices()
    assert (ys >= 0).all()
    assert (xs >= 0).all()
    assert mask.to_plane(image.shape).sum() == mask.area


def test_a_huge_object_is_read_in_strips(predictor):
    class Recorder:
        shape, dtype = (6000, 7000), np.dtype(np.uint8)

        def __init__(self):
            self.largest = 0

        def __getitem__(self, key):
            rows, columns = key
            block = np.full((rows.stop - rows.start, columns.stop - columns.start), 7, np.uint8)
            self.largest = max(self.largest, block.size)
            return block

    recorder = Recorder()
    prediction = predictor.segment(
        recorder, ExtremePoints.from_clicks([(500, 3000), (3000, 500), (5500, 3000), (3000, 5500)])
    )
    assert prediction.mask.mask.shape <= recorder.shape
    assert recorder.largest < 0.25 * 6000 * 7000


def test_the_size_of_the_image_does_not_matter(predictor, image):
    class Endless:
        """A plane of 10^6 x 10^6 pixels that exists only where it is looked at."""

        shape, dtype = (10**6, 10**6), np.dtype(np.uint16)

        def __getitem__(self, key):
            rows, columns = key
            assert rows.stop - rows.start < 200
            assert columns.stop - columns.start < 200
            return image[np.ix_(np.arange(rows.start, rows.stop) % 90, np.arange(columns.start, columns.stop) % 100)]

    small = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    shifted = predictor.segment(
        Endless(), ExtremePoints.from_clicks([(y + 90 * 5000, x + 100 * 5000) for y, x in CLICKS])
    )
    np.testing.assert_allclose(small.states[-1], shifted.states[-1], atol=1e-4)
    assert shifted.mask.origin == (small.mask.origin[0] + 450_000, small.mask.origin[1] + 500_000)


def test_a_plane_of_a_stack_with_chosen_channels_is_what_slicing_gives(predictor):
    rng = np.random.default_rng(3)
    stack = rng.integers(0, 4000, (5, 3, 90, 100), dtype=np.uint16)  # C, Z, Y, X
    plane = Plane(stack, channel_axis=0, channels=(4, 1), index=(2,))
    sliced = Plane(np.stack([stack[4, 2], stack[1, 2]], axis=-1), axes=(0, 1), channel_axis=2)
    prompt = ExtremePoints.from_clicks(CLICKS)
    np.testing.assert_array_equal(
        predictor.segment(plane, prompt).states[-1], predictor.segment(sliced, prompt).states[-1]
    )


def test_a_box_shows_the_network_no_clicks(predictor, image):
    box = predictor.segment(image, ExtremePoints.from_box([(20, 22), (61, 63)]))
    clicks = predictor.segment(image, ExtremePoints.from_clicks(CLICKS))
    assert box.crop == clicks.crop
    assert np.abs(box.states[0] - clicks.states[0]).max() > 1e-4


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here, so it does not fail")
def test_a_failing_gpu_falls_back_with_one_warning(model_folder, image):
    with pytest.warns(RuntimeWarning, match="going on with the CPU") as caught:
        predictor = Predictor.load(model_folder, device="cuda")
    assert len(caught) == 1
    assert predictor.device.type == "cpu"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        predictor.segment(image, ExtremePoints.from_clicks(CLICKS))


def test_a_gpu_short_of_memory_gets_smaller_batches(model_folder, image, monkeypatch):
    predictor = Predictor.load(model_folder, device="cpu")
    whole = list(predictor.segment_many(image, [ExtremePoints.from_clicks(CLICKS)] * 5, batch_size=5))
    run, sizes = predictor._run, []

    def crowded(images, *rest):
        sizes.append(len(images))
        if len(images) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        device, predictor.device = predictor.device, torch.device("cpu")
        try:
            return run(images, *rest)
        finally:
            predictor.device = device

    monkeypatch.setattr(predictor, "_run", crowded)
    predictor.device = torch.device("meta")  # any device that is not the CPU
    halved = list(predictor.segment_many(image, [ExtremePoints.from_clicks(CLICKS)] * 5, batch_size=5))
    assert max(s for s in sizes if s <= 2) == 2
    for a, b in zip(whole, halved, strict=True):
        np.testing.assert_allclose(a.states[-1], b.states[-1], atol=1e-3)


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, RuntimeError])
def test_what_fills_a_gpu_is_let_go_before_anything_else_is_tried(model_folder, image, monkeypatch, error):
    predictor = Predictor.load(model_folder, device="cpu")
    run, filled = predictor._run, []

    class Activations:
        pass

    def crowded(images, *rest):
        assert not any(activations() for activations in filled)
        if len(images) > 1 and predictor.device.type != "cpu":
            activations = Activations()
            filled.append(weakref.ref(activations))
            raise error("out of memory")
        predictor.device = torch.device("cpu")
        return run(images, *rest)

    monkeypatch.setattr(predictor, "_run", crowded)
    predictor.device = torch.device("meta")  # any device that is not the CPU
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(predictor.segment_many(image, [ExtremePoints.from_clicks(CLICKS)] * 4, batch_size=4))
    assert len(found) == 4
    assert filled


def test_wrong_input_is_told_in_one_sentence(predictor, model_folder, image):
    prompt = ExtremePoints.from_clicks(CLICKS)
    with pytest.raises(ValueError, match=r"\(2, 90, 100\) is neither"):
        predictor.segment(np.zeros((2, 90, 100)), prompt)
    with pytest.raises(ValueError, match="corrections of 1 objects do not fit 2 prompts"):
        list(predictor.segment_many(image, [prompt] * 2, [[]]))
    with pytest.raises(ValueError, match="batch_size must be at least 1 object, got 0"):
        list(predictor.segment_across([(image, prompt, ())], batch_size=0))
    with pytest.raises(ValueError, match="device must be auto, cpu, cuda or mps, got 'gpu'"):
        Predictor.load(model_folder, device="gpu")


@given(
    seed=st.integers(0, 1000),
    corner=st.tuples(st.integers(-40, 60), st.integers(-40, 60)),
    shape=st.tuples(st.integers(1, 90), st.integers(1, 90)),
)
@settings(deadline=None)
def test_a_mask_is_phi_interpolated_at_the_pixel_centres(seed, corner, shape):
    rng = np.random.default_rng(seed)
    phi = rng.normal(-1, 1, (32, 32)).astype(np.float32)
    phi[: rng.integers(0, 32)] = -5
    crop = Crop(*corner, corner[0] + shape[0], corner[1] + shape[1], 32)
    whole = torch.nn.functional.interpolate(torch.from_numpy(phi)[None, None], shape, mode="bilinear")[0, 0].numpy()
    unsure = np.abs(whole) < 1e-5
    expected = ObjectMask.from_crop((whole > 0) & ~unsure, crop, (50, 60)).to_plane((50, 60))
    found = mask_from_phi(phi, crop, (50, 60), 0.0).to_plane((50, 60))
    doubt = ObjectMask.from_crop(unsure, crop, (50, 60)).to_plane((50, 60))
    np.testing.assert_array_equal(found & ~doubt, expected & ~doubt)


def test_a_crop_of_a_million_pixels_a_side_costs_nothing():
    phi = np.full((64, 64), -1, np.float32)
    phi[32, 32] = 1
    mask = mask_from_phi(phi, Crop(-500_000, -500_000, 500_000, 500_000, 64), (100, 100), 0.0)
    assert mask.mask.size <= 100 * 100
