"""Public data sets in their true file formats, made small, become our layout with the paper's splits."""

import importlib
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from napari_delse.data.samples import IGNORE, read_folder

SHAPE = (40, 60)
TRAIN_CITIES = [
    "aachen",
    "bochum",
    "bremen",
    "cologne",
    "darmstadt",
    "dusseldorf",
    "erfurt",
    "hamburg",
    "hanover",
    "jena",
    "krefeld",
    "monchengladbach",
    "strasbourg",
    "stuttgart",
    "tubingen",
    "ulm",
    "weimar",
    "zurich",
]
VAL_CITIES = ["frankfurt", "lindau", "munster"]


@pytest.fixture
def modules(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "training" / "prepare"))


@pytest.fixture
def prepare(modules, monkeypatch, capsys):
    """Runs a script with a command line; returns its exit status and what it said."""

    def run(script, *arguments):
        monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
        try:
            importlib.import_module(script).main()
        except SystemExit as left:
            return 1, str(left.code)
        return 0, capsys.readouterr().err

    return run


def save_picture(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*SHAPE, 3), np.uint8)).save(path)


def save_paletted(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(pixels.astype(np.uint8)).convert("P")
    picture.putpalette([v for i in range(256) for v in ((37 * i) % 256, (91 * i) % 256, (13 * i) % 256)])
    picture.putdata(pixels.ravel().tolist())
    picture.save(path)


def labels_of(folder):
    return {sample.name: sample.labels for sample in read_folder(folder)}


def card_of(folder):
    return json.loads((folder / "dataset.json").read_text())


# ---- Cityscapes


def box(y0, x0, y1, x1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


SCENE = {
    "imgHeight": SHAPE[0],
    "imgWidth": SHAPE[1],
    "objects": [
        {"label": "road", "polygon": box(0, 0, 39, 59)},
        {"label": "car", "polygon": box(10, 5, 25, 45)},
        {"label": "license plate", "polygon": box(20, 8, 22, 12)},
        {"label": "person", "polygon": box(2, 20, 38, 24)},  # stands before the car, which comes apart
        {"label": "cargroup", "polygon": box(30, 30, 38, 55)},
        {"label": "car", "polygon": box(3, 50, 8, 57), "deleted": 1},
        {"label": "trailer", "polygon": box(3, 30, 8, 40)},
    ],
}


def scene_ids():
    ids = np.full(SHAPE, 7, np.uint16)  # road
    ids[10:26, 5:46] = 26000
    ids[2:39, 20:25] = 24000
    ids[30:39, 30:56] = 26  # a group
    ids[3:9, 30:41] = 30000  # a trailer
    return ids


@pytest.fixture
def cityscapes(tmp_path):
    root = tmp_path / "cityscapes"
    for part, cities in (("train", TRAIN_CITIES), ("val", VAL_CITIES)):
        for city in cities:
            stem = f"{city}_000001_000019"
            save_picture(root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png")
            folder = root / "gtFine" / part / city
            folder.mkdir(parents=True)
            (folder / f"{stem}_gtFine_polygons.json").write_text(json.dumps(SCENE))
            if city != "bremen":  # of which only the polygons were unpacked
                Image.fromarray(scene_ids()).save(folder / f"{stem}_gtFine_instanceIds.png")
    return root


def test_cityscapes_is_split_by_city_as_in_the_paper(prepare, cityscapes, tmp_path):
    status, said = prepare("cityscapes", cityscapes, tmp_path / "out")
    assert status == 0, said
    splits = {"base": 10, "corrections": 6, "val": 2, "test": 3}
    cities = {split: sorted(n.split("_")[0] for n in labels_of(tmp_path / "out" / split)) for split in splits}
    assert {split: len(names) for split, names in cities.items()} == splits
    assert cities["val"] == ["weimar", "zurich"]
    assert cities["test"] == VAL_CITIES
    assert sorted(cities["base"] + cities["corrections"] + cities["val"]) == TRAIN_CITIES


def test_cityscapes_keeps_the_eight_classes_and_objects_in_parts(prepare, cityscapes, tmp_path):
    assert prepare("cityscapes", cityscapes, tmp_path / "out", "--split", "base")[0] == 0
    labels = labels_of(tmp_path / "out" / "base")
    wanted = np.where(scene_ids() >= 24000, scene_ids(), 0)
    wanted[wanted == 30000] = 0
    for name, ids in labels.items():  # from the image of ids and, for Bremen, from the polygons
        np.testing.assert_array_equal(ids, wanted, err_msg=name)
    assert not (labels["aachen_000001_000019"][15, 20:25] == 26000).any()  # the person parts the car
    card = card_of(tmp_path / "out" / "base")
    assert (card["n_images"], card["n_objects"], card["classes"]["26"]) == (10, 20, "car")


def test_a_city_that_was_not_unpacked_is_named(prepare, cityscapes, tmp_path):
    (cityscapes / "gtFine" / "train" / "jena").rename(tmp_path / "elsewhere")
    status, said = prepare("cityscapes", cityscapes, tmp_path / "out", "--split", "base")
    assert status == 1
    assert "missing jena" in said


# ---- PASCAL VOC and SBD


@pytest.fixture
def voc_root(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for split, names in (("train", ["2007_000032", "2007_000039"]), ("val", ["2007_000033"])):
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            save_picture(root / "JPEGImages" / f"{name}.jpg")
            objects, classes = np.zeros(SHAPE), np.zeros(SHAPE)
            objects[5:20, 5:20], classes[5:20, 5:20] = 1, 15
            objects[5:20, 30:50], classes[5:20, 30:50] = 2, 1
            objects[25:30, 30:50], classes[25:30, 30:50] = 2, 1  # the same aeroplane behind something
            for seam in (objects, classes):
                seam[4:21, 4] = seam[4:21, 20] = 255
            save_paletted(root / "SegmentationObject" / f"{name}.png", objects)
            save_paletted(root / "SegmentationClass" / f"{name}.png", classes)
    return root


def test_voc_has_classes_void_pixels_and_objects_in_parts(prepare, voc_root, tmp_path):
    status, said = prepare("voc", voc_root.parent, tmp_path / "out")
    assert status == 0, said
    train, val = labels_of(tmp_path / "out" / "train"), labels_of(tmp_path / "out" / "val")
    assert sorted(train) == ["2007_000032", "2007_000039"]
    assert sorted(val) == ["2007_000033"]
    ids = val["2007_000033"]
    assert sorted(np.unique(ids)) == [0, 1002, 15001, IGNORE]
    assert (ids == IGNORE).sum() == 34
    assert (ids == 1002).sum() == 20 * 20
    assert card_of(tmp_path / "out" / "val")["classes"]["15"] == "person"


@pytest.fixture
def sbd_root(tmp_path):
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    lists = {"train": ["2008_000001", "2007_000033"], "val": ["2007_000032", "2008_000002", "2008_000003"]}
    for split, names in lists.items():
        (root / "inst").mkdir(parents=True, exist_ok=True)
        (root / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            save_picture(root / "img" / f"{name}.jpg")
            objects = np.zeros(SHAPE, np.uint8)
            objects[5:20, 5:20] = 1
            categories = np.array([[9]], np.uint8)
            if name != "2008_000003":  # one object only: MATLAB then stores a scalar
                objects[25:35, 10:50] = 2
                categories = np.array([[9], [20]], np.uint8)
            content = {"Segmentation": objects, "Boundaries": np.zeros((2, 1), object), "Categories": categories}
            savemat(root / "inst" / f"{name}.mat", {"GTinst": content})
    return root


def test_sbd_gives_what_voc_does_not_have(prepare, sbd_root, voc_root, tmp_path):
    status, said = prepare("sbd", sbd_root.parent, tmp_path / "out", "--voc", voc_root)
    assert status == 0, said
    labels = labels_of(tmp_path / "out" / "train")
    assert sorted(labels) == ["2008_000001", "2008_000002", "2008_000003"]  # neither VOC's train nor its val images
    assert sorted(np.unique(labels["2008_000001"])) == [0, 9001, 20002]
    assert sorted(np.unique(labels["2008_000003"])) == [0, 9001]
    assert (labels["2008_000002"] == 20002).sum() == 400


def test_a_broken_sbd_file_is_named(sbd_root, modules):
    import sbd

    path = sbd_root / "inst" / "2008_000001.mat"
    savemat(path, {"GTcls": 1})
    with pytest.raises(ValueError, match=r"2008_000001\.mat holds no GTinst"):
        sbd.read_labels(path)


# ---- DAVIS


@pytest.fixture
def davis_root(tmp_path):
    root = tmp_path / "DAVIS"
    (root / "ImageSets" / "480p").mkdir(parents=True)
    for split, sequences in (("train", ["bear", "bmx-bumps"]), ("val", ["cows"])):
        lines = []
        for sequence in sequences:
            for frame in range(3):
                paths = [f"{p}/480p/{sequence}/0000{frame}" for p in ("JPEGImages", "Annotations")]
                lines.append(f"/{paths[0]}.jpg /{paths[1]}.png")
                save_picture(root / f"{paths[0]}.jpg", frame)
                mask = np.zeros(SHAPE)
                mask[10:20, 5 + frame : 15 + frame] = mask[10:20, 40:45] = 255
                if sequence == "bear":
                    save_paletted(root / f"{paths[1]}.png", mask / 255)
                else:
                    (root / paths[1]).parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask.astype(np.uint8)).save(root / f"{paths[1]}.png")
        (root / "ImageSets" / "480p" / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def test_davis_is_one_object_per_frame_grouped_by_sequence(prepare, davis_root, tmp_path):
    status, said = prepare("davis", davis_root, tmp_path / "out")
    assert status == 0, said
    train = labels_of(tmp_path / "out" / "train")
    assert sorted(train) == [f"{s}_0000{i}" for s in ("bear", "bmx-bumps") for i in range(3)]
    for ids in train.values():
        assert sorted(np.unique(ids)) == [0, 1]
        assert (ids == 1).sum() == 150
    card = card_of(tmp_path / "out" / "train")
    assert card["sequences"]["bmx-bumps"] == {"frames": 3, "width": 1}
    assert sorted(labels_of(tmp_path / "out" / "val")) == ["cows_00000", "cows_00001", "cows_00002"]


# ---- all of them


@pytest.mark.parametrize("script", ["cityscapes", "voc", "davis", "sbd"])
def test_a_wrong_folder_is_told_in_one_sentence(prepare, tmp_path, script):
    extra = ["--voc", tmp_path] if script == "sbd" else []
    status, said = prepare(script, tmp_path, tmp_path / "out", *extra)
    assert status == 1
    assert "is not an unpacked" in said
    assert "expected in it" in said
    assert len(said.splitlines()) == 1


def test_a_script_runs_from_any_folder(checkout, tmp_path):
    script = checkout / "training" / "prepare" / "davis.py"
    done = subprocess.run(
        [sys.executable, script, ".", "out"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith(". is not an unpacked DAVIS 2016")


def test_a_second_run_repairs_what_is_missing_and_leaves_the_rest(davis_root, tmp_path, modules):
    import davis
    from layout import write_split

    out = tmp_path / "out"
    partly = write_split(out, davis.read(davis_root, "train"))
    for _ in range(2):
        next(partly)
    partly.close()
    assert not (out / "dataset.json").exists()
    first = out / "labels" / "bear_00000.png"
    before = first.stat().st_mtime_ns
    assert list(write_split(out, davis.read(davis_root, "train")))[-1] == (6, 6)
    assert first.stat().st_mtime_ns == before
    assert card_of(out)["n_objects"] == 6
    whole = {name: ids.copy() for name, ids in labels_of(out).items()}
    (out / "labels" / "bmx-bumps_00001.png").unlink()
    list(write_split(out, davis.read(davis_root, "train")))
    again = labels_of(out)
    assert again.keys() == whole.keys()
    assert all((again[name] == whole[name]).all() for name in whole)


def test_an_image_of_another_size_is_refused(davis_root, tmp_path, modules):
    import davis
    from layout import write_split

    Image.new("RGB", (30, 30)).save(davis_root / "JPEGImages" / "480p" / "cows" / "00001.jpg")
    with pytest.raises(ValueError, match=r"00001\.jpg is 30 x 30 pixels, its labels are 40 x 60"):
        list(write_split(tmp_path / "out", davis.read(davis_root, "val")))


def test_a_missing_image_is_named(davis_root, tmp_path, modules):
    import davis
    from layout import write_split

    (davis_root / "JPEGImages" / "480p" / "cows" / "00002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"00002\.jpg is missing"):
        list(write_split(tmp_path / "out", davis.read(davis_root, "val")))
