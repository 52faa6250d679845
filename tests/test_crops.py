"""Packed training crops against the geometry that prediction uses, and what augmentation may not break."""

from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from napari_delse.data.images import Plane
from napari_delse.data.prompts import ObjectPrompt
from napari_delse.data.samples import IGNORE, split_planes, to_input
from napari_delse.geometry import Correction, Crop, CropConfig, ExtremePoints
from napari_delse.model import ModelConfig
from napari_delse.train.crop_records import no_records
from napari_delse.train.crops import (
    AugmentConfig,
    CropSampler,
    ObjectPack,
    join_packs,
    pack_object,
    pack_objects,
)

CONFIG = ModelConfig(crop=CropConfig(size=128))
EXACT = CropSampler(CONFIG, None)
AUGMENTED = CropSampler(CONFIG, AugmentConfig())


def scene(seed=0, shape=(260, 300), colour=False, dtype=np.uint8):
    """Ellipses of many sizes, some cut by the border, on a shaded background."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = np.zeros(shape, np.uint16)
    places = [
        (60, 60, 40, 25),
        (150, 90, 18, 33),
        (60, 200, 12, 12),
        (180, 220, 50, 40),
        (0, 130, 22, 14),
        (255, 20, 30, 25),
    ]
    for i, (cy, cx, ry, rx) in enumerate(places, start=1):
        labels[((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1] = i
    image = 60 + 40 * np.sin(x / 40) + 70 * (labels > 0) + rng.normal(0, 4, shape)
    if colour:
        image = np.stack([image, 0.7 * image, 200 - image], axis=-1)
    image = image.clip(0, 255).astype(dtype) if dtype == np.uint8 else image.astype(dtype)
    (sample,) = split_planes("scene", image, labels)
    return sample


@pytest.fixture(scope="module")
def sample():
    return scene()


@pytest.fixture(scope="module")
def pack(sample):
    return join_packs(pack_objects([sample], group=2))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def iou(a, b):
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def exact_prompt(sample, label):
    return ExtremePoints.from_mask(sample.labels == label)


def prediction_crop(sample, label):
    return Crop.around(exact_prompt(sample, label).box, CONFIG.crop)


def pixels_of(sample):
    height, width = sample.image.shape
    return sample.image.read(Crop(0, 0, height, width, max(height, width)))


# --- without augmentation


def exact_window(sample, label):
    """`Crop.around` without its rounding to whole pixels: edges (y0, x0) and (y1, x1) in the plane."""
    y0, x0, y1, x1 = exact_prompt(sample, label).box
    low, high = np.array([y0, x0]) - 0.5, np.array([y1, x1]) + 0.5
    grow = np.maximum(CONFIG.crop.margin * (high - low), CONFIG.crop.min_margin)
    low, high = low - grow, high + grow
    missing = np.maximum(0, CONFIG.crop.squareness * (high - low).max() - (high - low))
    return low - missing / 2, high + missing / 2


def labels_at(sample, positions):
    """Labels at plane positions, 0 beyond the border."""
    y, x = np.moveaxis(np.floor(positions + 0.5).astype(int), -1, 0)
    height, width = sample.labels.shape
    inside = (y >= 0) & (x >= 0) & (y < height) & (x < width)
    return np.where(inside, sample.labels[y.clip(0, height - 1), x.clip(0, width - 1)], 0)


NETWORK_PIXELS = np.stack(np.meshgrid(np.arange(128), np.arange(128), indexing="ij"), axis=-1)


@pytest.mark.parametrize("label", [1, 2, 3, 4, 5, 6])
def test_a_training_mask_is_the_truth_in_the_window_of_prediction(sample, pack, label):
    low, high = exact_window(sample, label)
    truth = labels_at(sample, low + (NETWORK_PIXELS + 0.5) / 128 * (high - low)) == label
    mask = EXACT(pack.select(torch.tensor([label - 1]))).mask[0, 0].numpy() > 0
    assert iou(mask, truth) > 0.97
    crop = prediction_crop(sample, label)
    slack = np.array([low - (crop.y0 - 0.5, crop.x0 - 0.5), (crop.y1 - 0.5, crop.x1 - 0.5) - high])
    assert (slack >= 0).all()  # prediction rounds the same window outwards to whole pixels
    assert (slack < 1).all()
    cropped = labels_at(sample, crop.to_plane(NETWORK_PIXELS)) == label
    assert iou(mask, cropped) > 0.98 - 2 * (slack[0] + slack[1]).max() / (high - low).min()


def test_the_whole_object_is_in_its_crop_at_the_right_size(sample, pack):
    batch = EXACT(pack)
    for i, label in enumerate(range(1, 7)):
        low, high = exact_window(sample, label)
        expected = np.count_nonzero(sample.labels == label) * np.prod(128 / (high - low))
        assert batch.mask[i].sum().item() == pytest.approx(expected, rel=0.03)


def test_training_sees_the_pixels_that_prediction_sees(sample, pack):
    batch = EXACT(pack)
    for i, label in enumerate(range(1, 7)):
        crop = prediction_crop(sample, label)
        seen = to_input(sample.image.read(crop), 128)
        correlation = np.corrcoef(seen[0].flatten(), batch.image[i, 0].flatten())[0, 1]
        assert correlation > (0.98 if label in (1, 2, 4) else 0.93), label
        assert (seen - batch.image[i]).abs().mean() < 0.15


@pytest.mark.parametrize("rgb", [False, True])
def test_training_sees_a_dim_channel_as_prediction_does(sample, rgb):
    """Channels of a microscope have a range each; the colours of a photograph share one."""
    bright = np.asarray(sample.image.data, dtype=np.float32)
    dim = 100 + 0.005 * bright[::-1]
    image = Plane(np.stack([40 * bright, dim, bright]), axes=(1, 2), channel_axis=0, rgb=rgb)
    batch = EXACT(join_packs(pack_objects([sample._replace(image=image)], 0)))
    crop = prediction_crop(sample, 1)
    seen = to_input(image.read(crop), 128, rgb=rgb)
    assert (seen - batch.image[0]).abs().mean() < 0.15
    assert (seen[1].std() > 0.3) == (not rgb)


def test_a_margin_in_pixels_is_filled_from_a_pack_that_reaches_as_far(sample):
    """The paper grows every box by so many pixels of the image, however small the object is."""
    config = ModelConfig(crop=CropConfig(size=128, margin=0, min_margin=40, squareness=0))
    label = 3  # 25 pixels wide

    def difference(reach):
        batch = CropSampler(config, None)(
            ObjectPack(
                *(torch.as_tensor(part)[None] for part in pack_object(sample, label, 256, reach=reach)),
                colour=torch.tensor([False]),
                group=torch.tensor([0]),
                **no_records(1),
            )
        )
        seen = to_input(sample.image.read(Crop.around(exact_prompt(sample, label).box, config.crop)), 128)
        return (seen - batch.image[0]).abs().mean().item()

    assert difference(40.0) < difference(8.0) / 2


@pytest.mark.parametrize("label", [1, 2, 3, 4, 5, 6])
def test_extreme_points_lie_on_the_boundary_of_the_mask(sample, pack, label):
    batch = EXACT(pack.select(torch.tensor([label - 1])))
    low, high = exact_window(sample, label)
    pixel = (128 / (high - low)).max()  # of the plane, in network pixels
    mask = batch.mask[0, 0].numpy() > 0
    edge = np.minimum(distance_transform_edt(mask), distance_transform_edt(~mask))
    points = batch.points[0].numpy()
    assert max(edge[round(y), round(x)] for y, x in points) <= pixel / 2 + 1.5
    ys, xs = np.nonzero(mask)
    top, left, bottom, right = points
    ends = (ys.min(), xs.min(), ys.max(), xs.max())
    np.testing.assert_allclose((top[0], left[1], bottom[0], right[1]), ends, atol=pixel / 2 + 1)
    true = exact_prompt(sample, label).box
    expected = [(true[i] + 0.5 - low[i % 2] - 0.5) / (high - low)[i % 2] * 128 - 0.5 for i in range(4)]
    np.testing.assert_allclose((top[0], left[1], bottom[0], right[1]), expected, atol=0.02 * 128)
    assert batch.clicks[0, 0, round(top[0]), round(top[1])] > 0.9
    assert batch.present.all()


def test_the_distance_is_that_of_the_mask(pack):
    batch = EXACT(pack)
    assert torch.equal(batch.distance > 0, batch.mask > 0)
    assert batch.distance.abs().max() == CONFIG.truncation_pixels()
    assert batch.directions.shape == (6, 2, 128, 128)


def test_exact_crops_need_no_random_numbers(pack):
    for a, b in zip(EXACT(pack, seeded(0)), EXACT(pack, seeded(1)), strict=True):
        assert torch.equal(a, b)


def test_a_batch_is_cropped_as_its_members_are_one_by_one(pack):
    together = EXACT(pack)
    for i in range(6):
        alone = EXACT(pack.select(torch.tensor([i])))
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a, b[i : i + 1], atol=1e-4)


# --- borders and ignored pixels


def test_there_is_no_object_beyond_the_border_of_the_image():
    labels = np.zeros((100, 120), np.uint16)
    labels[:30, :40] = 1  # touches two borders, which reading replicates
    (sample,) = split_planes("corner", np.where(labels, 200, 50).astype(np.uint8), labels)
    batch = EXACT(join_packs(pack_objects([sample], 0)))
    crop = prediction_crop(sample, 1)
    top, left = np.ceil(crop.to_network((-0.5, -0.5))).astype(int)
    mask = batch.mask[0, 0]
    assert top > 5
    assert left > 5
    assert mask[: top - 2].sum() == 0
    assert mask[:, : left - 2].sum() == 0
    assert mask[top + 3, left + 3] == 1
    for seed in range(5):
        ratio = AUGMENTED(join_packs(pack_objects([sample], 0)), seeded(seed)).mask.mean().item()
        assert 0.1 < ratio < 0.65


def test_ignored_pixels_have_no_weight():
    sample = scene()
    sample.labels[120:200, 60:100] = IGNORE
    batch = EXACT(join_packs(pack_objects([sample], 0)))
    ignored = labels_at(sample, prediction_crop(sample, 2).to_plane(NETWORK_PIXELS)) == IGNORE
    found = batch.weight[1, 0].numpy()
    assert set(np.unique(found)) == {0, 1}
    assert iou(found == 0, ignored) > 0.9
    assert (batch.mask[1, 0].numpy()[ignored & (found == 0)] == 0).all()
    everywhere = EXACT(join_packs(pack_objects([scene()], 0)))
    assert (everywhere.weight == 1).all()


# --- with augmentation


@pytest.mark.parametrize("seed", range(6))
def test_augmented_clicks_stay_near_the_boundary(pack, seed):
    batch = AUGMENTED(pack, seeded(seed))
    for mask, points, present in zip(batch.mask[:, 0].numpy() > 0, batch.points, batch.present, strict=True):
        assert mask.any()
        edge = np.minimum(distance_transform_edt(mask), distance_transform_edt(~mask))
        extent = max(np.ptp(np.nonzero(mask), axis=1))
        for y, x in points[present].numpy():
            assert edge[int(np.clip(round(y), 0, 127)), int(np.clip(round(x), 0, 127))] < 0.17 * extent + 3


def test_without_jitter_augmented_clicks_lie_on_the_boundary(pack):
    sampler = CropSampler(CONFIG, AugmentConfig(jitter=0, box_only=0))
    for seed in range(6):
        batch = sampler(pack, seeded(seed))
        for mask, points, present in zip(batch.mask[:, 0].numpy() > 0, batch.points, batch.present, strict=True):
            edge = np.minimum(distance_transform_edt(mask), distance_transform_edt(~mask))
            pixel = 128 / 20  # the smallest object's pixel, stretched
            assert max(edge[round(y), round(x)] for y, x in points[present].numpy()) < pixel


def test_a_seed_makes_crops_repeatable_and_another_one_changes_them(pack):
    one, again, other = (AUGMENTED(pack, seeded(seed)) for seed in (7, 7, 8))
    for a, b in zip(one, again, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(one.mask, other.mask)
    assert not torch.equal(one.image, other.image)


def test_box_only_prompts_show_no_click(pack):
    batch = CropSampler(CONFIG, AugmentConfig(box_only=1))(pack, seeded(0))
    assert not batch.present.any()
    assert (batch.clicks == 0).all()


def test_extra_clicks_lie_on_the_boundary(pack):
    batch = CropSampler(CONFIG, AugmentConfig(box_only=0, extra_clicks=1))(pack, seeded(0))
    extra, present = batch.points[:, 4:], batch.present[:, 4:]
    assert present[:, 0].all()
    assert present.float().mean() > 0.4
    inner = -F.max_pool2d(-F.pad(batch.mask, (1, 1, 1, 1)), 3, 1)
    edge = (batch.mask - inner) > 0.5
    for i, k in present.nonzero().tolist():
        y, x = extra[i, k].long().tolist()
        assert edge[i, 0, y, x]


@pytest.mark.parametrize("name", [f.name for f in fields(AugmentConfig) if f.name not in ("scale", "jitter", "margin")])
def test_every_augmentation_keeps_fields_sound(pack, name):
    quiet = {f.name: 0.0 for f in fields(AugmentConfig)}
    batch = CropSampler(CONFIG, AugmentConfig(**{**quiet, name: 1.0}))(pack, seeded(0))
    for part in (batch.image, batch.clicks, batch.points, batch.distance):
        assert torch.isfinite(part).all()
    assert batch.image.abs().max() <= 1.5
    assert set(batch.mask.unique().tolist()) == {0, 1}
    assert (batch.mask.mean(dim=(1, 2, 3)) > 0.05).all()


def test_photometric_changes_leave_geometry_alone(pack):
    quiet = {f.name: 0.0 for f in fields(AugmentConfig)}
    loud = {**quiet, "intensity": 1.0, "invert": 1.0, "noise": 1.0, "blur": 1.0, "grey": 1.0}
    plain, changed = (CropSampler(CONFIG, AugmentConfig(**v))(pack, seeded(3)) for v in (quiet, loud))
    assert torch.equal(plain.mask, changed.mask)
    assert torch.equal(plain.points[:, :4], changed.points[:, :4])
    assert not torch.equal(plain.image, changed.image)


# --- packing


def test_a_pack_says_how_large_its_pixels_are_and_where_they_come_from(sample, pack):
    assert pack.pixels.shape == (6, 5, 256, 256)
    assert pack.pixels.dtype == torch.uint8
    assert pack.group.tolist() == [2] * 6
    assert not pack.colour.any()
    for i, label in enumerate(range(1, 7)):
        area = np.count_nonzero(sample.labels == label)
        packed = (pack.pixels[i, 3] > 127).sum().item() / pack.zoom[i].item() ** 2
        assert packed == pytest.approx(area, rel=0.03)
    assert join_packs(pack_objects([scene(colour=True)], 0)).colour.all()


def test_the_hull_surrounds_the_packed_object(pack):
    for pixels, hull, zoom in zip(pack.pixels[:, 3], pack.hull, pack.zoom, strict=True):
        ys, xs = (pixels > 127).nonzero(as_tuple=True)
        for values, along in ((ys, hull[:, 0]), (xs, hull[:, 1])):
            # Pixel centres of the plane lie half a plane pixel inside the outermost canvas pixel.
            assert along.min().item() == pytest.approx(values.min().item() + zoom.item() / 2 - 0.5, abs=1)
            assert along.max().item() == pytest.approx(values.max().item() - zoom.item() / 2 + 0.5, abs=1)


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("offset", [0, 300])
def test_images_in_any_unit_are_packed_alike(unit, offset):
    """Float images come in metres, counts or electrons per second."""
    sample = scene(dtype=np.float64)
    (scaled,) = split_planes("x", unit * (pixels_of(sample)[0].astype(np.float64) + offset), sample.labels)
    plain, other = (pack_object(s, 1, 64)[0] for s in (sample, scaled))
    assert np.abs(plain[:3].astype(int) - other[:3]).max() <= 1
    assert plain[:3].std() > 20


def test_constant_images_are_packed_and_cropped_without_a_fuss():
    labels = np.zeros((40, 40), np.uint16)
    labels[10:30, 10:30] = 1
    for value in (0.0, 7.0, 65535.0, np.nan):
        (sample,) = split_planes("flat", np.full((40, 40), value), labels)
        for sampler in (EXACT, AUGMENTED):
            batch = sampler(join_packs(pack_objects([sample], 0, canvas=64)), seeded(0))
            assert torch.isfinite(batch.image).all()
            assert batch.mask.any()


@pytest.mark.parametrize(
    "window", [np.s_[5:6, 3:30], np.s_[3:30, 5:6], np.s_[10:14, 10:13], np.s_[range(4, 30), range(4, 30)]]
)
def test_thin_and_tiny_objects_are_cropped_with_something_in_them(window):
    labels = np.zeros((40, 40), np.uint16)
    labels[window] = 9
    (sample,) = split_planes("thin", np.random.default_rng(0).random((40, 40)), labels)
    pack = join_packs(pack_objects([sample], 0, min_area=1))
    for sampler in (EXACT, AUGMENTED):
        batch = sampler(pack, seeded(1))
        assert batch.mask.any()
        assert torch.isfinite(batch.points).all()


def test_small_objects_are_left_out_and_a_limit_holds_about():
    samples = [scene(seed) for seed in range(10)]
    assert len(join_packs(pack_objects(samples, 0, canvas=64, min_area=900)).zoom) == 10 * 4
    limited = join_packs(pack_objects(samples, 0, canvas=64, limit=20, seed=1))
    assert 8 <= len(limited.zoom) <= 32
    again = join_packs(pack_objects(samples, 0, canvas=64, limit=20, seed=1))
    assert all(torch.equal(a, b) for a, b in zip(limited, again, strict=True))


def test_no_object_at_all_is_said():
    (sample,) = split_planes("empty", np.zeros((20, 20)), np.zeros((20, 20), np.uint16))
    with pytest.raises(ValueError, match="no object to train on: label at least one object of 12 pixels"):
        join_packs(pack_objects([sample], 0))


def test_selecting_keeps_the_parts_of_an_object_together(pack):
    chosen = pack.select(torch.tensor([4, 1, 4]))
    assert isinstance(chosen, ObjectPack)
    for part, whole in zip(chosen, pack, strict=True):
        assert torch.equal(part, whole[[4, 1, 4]])


def test_the_true_prompt_is_that_of_the_mask(sample):
    prompt = exact_prompt(sample, 3)
    assert prompt.box == (48, 188, 72, 212)
    assert Plane.of(sample.image) is sample.image


# --- partial labels


def touching_pair():
    """A plane with two objects that share an edge, both labelled."""
    labels = np.zeros((90, 120), np.uint16)
    labels[25:65, 20:60], labels[30:70, 60:95] = 1, 2
    image = np.where(labels == 1, 150, np.where(labels == 2, 140, 60)) + np.random.default_rng(0).normal(
        0, 5, (90, 120)
    )
    (sample,) = split_planes("pair", image.astype(np.float32), labels)
    return sample


def test_whether_a_neighbour_is_labelled_changes_nothing_of_an_example():
    """What surrounds an object is background of *it*, so a neighbour without a label teaches nothing wrong."""
    full = touching_pair()
    partly = full._replace(labels=np.where(full.labels == 1, 1, 0).astype(np.uint16))
    one = torch.tensor([0])
    packs = [join_packs(pack_objects([sample], group=0)).select(one) for sample in (full, partly)]
    assert all(torch.equal(a, b) for a, b in zip(*packs, strict=True))
    a, b = (AUGMENTED(pack, seeded(3)) for pack in packs)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert a.weight.all()  # and the neighbour's pixels do count: with these clicks they are not the object


def test_an_unlabelled_object_is_no_example_of_background():
    full = touching_pair()
    partly = full._replace(labels=np.where(full.labels == 1, 1, 0).astype(np.uint16))
    empty = full._replace(labels=np.zeros_like(full.labels))
    assert len(join_packs(pack_objects([partly, empty], group=0)).group) == 1


# --- what a person did


def recorded_pack(sample, label, *, box=False, drags=1):
    """One object with its exact extreme points as recorded clicks, and drags from its centre to its top."""
    exact = exact_prompt(sample, label)
    y, x = np.argwhere(sample.labels == label).mean(axis=0)
    drag = Correction((y, x), min(exact.points))
    prompt = ExtremePoints.from_box(exact.points) if box else exact
    recorded = {("scene", 0, label): ObjectPrompt(label, (), prompt, (drag,) * drags)}
    pack = join_packs(pack_objects([sample], group=0, recorded=recorded))
    return pack.select(torch.full((24,), label - 1))


def recorded_crops(pack, chance=1.0, seed=0):
    return CropSampler(CONFIG, AugmentConfig(recorded=chance))(pack, seeded(seed))


@pytest.mark.parametrize("label", [1, 2, 4])
def test_recorded_clicks_and_drags_turn_with_the_object(sample, label):
    batch = recorded_crops(recorded_pack(sample, label))
    for mask, points, present, drags in zip(batch.mask[:, 0], batch.points, batch.present, batch.drags, strict=True):
        inside = mask.numpy() > 0
        ys, xs = np.nonzero(inside)
        clicks = points[present].numpy()
        assert len(clicks) == 4
        np.testing.assert_allclose(clicks.min(axis=0), (ys.min(), xs.min()), atol=2.5)
        np.testing.assert_allclose(clicks.max(axis=0), (ys.max(), xs.max()), atol=2.5)
        start, end = drags[0].numpy()
        np.testing.assert_allclose(start, (ys.mean(), xs.mean()), atol=2.5)
        edge = np.minimum(distance_transform_edt(inside), distance_transform_edt(~inside))
        assert edge[tuple(end.round().astype(int))] <= 3
        assert drags[1:].isinf().all()


def test_a_recorded_box_is_not_shown(sample):
    batch = recorded_crops(recorded_pack(sample, 1, box=True))
    assert not batch.clicks.any()
    rows = batch.mask.amax(dim=(1, 3)).sum(dim=1)  # the window is the box's, as it is with clicks
    assert ((rows > 0.5 * 128) & (rows < 0.85 * 128)).all()


def test_recorded_prompts_are_used_as_often_as_asked(sample):
    pack = recorded_pack(sample, 1)
    used = [int(recorded_crops(pack, chance).drags[:, 0, 0, 0].isfinite().sum()) for chance in (0.0, 0.5, 1.0)]
    assert used[0] == 0
    assert 4 < used[1] < 20
    assert used[2] == 24


def test_the_clicks_that_span_the_box_are_kept_of_many(sample):
    exact = exact_prompt(sample, 1)
    centre = np.mean(exact.points, axis=0)
    prompt = ExtremePoints(tuple((centre[0] + i / 9, centre[1]) for i in range(9)) + exact.points)
    recorded = {("scene", 0, 1): ObjectPrompt(1, (), prompt)}
    pack = join_packs(pack_objects([sample], group=0, recorded=recorded)).select(torch.tensor([0]))
    plain = recorded_pack(sample, 1, drags=0).select(torch.tensor([0]))
    assert torch.equal(pack.prompt.amin(dim=1), plain.prompt.amin(dim=1))
    finite = plain.prompt[0, :4]
    assert torch.equal(pack.prompt[0].amax(dim=0), finite.amax(dim=0))


def test_a_pack_without_records_spends_no_random_numbers_on_them(sample, pack):
    for a, b in zip(recorded_crops(pack, 0.0), recorded_crops(pack, 1.0), strict=True):
        assert torch.equal(a, b)
