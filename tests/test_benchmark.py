"""Recipes of the paper's rows, and the tables made of checkpoints, data and the paper's figures."""

import csv
import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage
from skimage.io import imsave

from napari_delse.data.images import Plane
from napari_delse.evaluation import ObjectKey
from napari_delse.geometry import Crop, ObjectMask
from napari_delse.metrics import Scores
from napari_delse.model import Delse, ModelConfig, config_from_dict
from napari_delse.train import TrainConfig

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "training" / "recipes").glob("table*.toml"))


@pytest.fixture(autouse=True)
def modules(checkout, monkeypatch):
    monkeypatch.syspath_prepend(str(checkout / "training"))


# ---- recipes


def read_recipe(path):
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    assert set(content) == {"model", "train"}
    return config_from_dict(ModelConfig, content["model"]), config_from_dict(TrainConfig, content["train"])


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_a_recipe_builds_the_papers_network_with_the_papers_lengths(path):
    model, train = read_recipe(path)
    size = model.crop.size
    assert model.architecture == "resnet101-psp"
    assert (size, model.crop.min_margin) in {(224, 10), (512, 50)}
    assert model.crop.margin == 0
    assert model.truncation_pixels() == 30
    assert (model.evolution.steps, model.evolution.curvature, model.evolution.mu) == (5, 1, 0.04)
    assert (train.optimizer, train.learning_rate, train.schedule, train.batch_size) == ("sgd", 3e-4, "steps", 12)
    if model.evolves:
        loss = train.loss
        assert loss.scale * size == pytest.approx(1, abs=1e-5)
        assert loss.shift * size == pytest.approx(5, abs=1e-4)
        assert (loss.distance / 30**2, loss.simulated, loss.direction) == (1, 100, 1)
    with torch.device("meta"):
        network = Delse(model)
    assert sum(p.numel() for p in network.parameters()) > 42e6


def test_rows_of_the_paper_differ_as_the_paper_says():
    models = {path.stem: read_recipe(path)[0] for path in RECIPES}
    assert models["table1-dextr"].output == "dextr"
    assert not models["table5-level-set-regression"].motion
    assert models["table2-delse-box"].crop.squareness == 1
    assert models["table1-delse-box"].crop.squareness == 0
    assert not models["table2-delse-box"].extreme_points
    ablation = [models[f"table6-{name}"] for name in ("motion", "modulation", "skip-features", "no-extreme-points")]
    parts = [(m.motion, m.modulation, m.skip_features, m.extreme_points) for m in ablation]
    assert parts == [
        (True, False, False, True),
        (True, True, False, True),
        (True, True, True, True),
        (True, True, True, False),
    ]


def test_every_row_of_the_papers_tables_has_its_recipe(checkout):
    import tables

    index = tables.read_index(checkout / "training" / "paper.toml")
    runs = {row.runs.replace("{variant}", c.variant) for t in index for row in t.rows if row.runs for c in t.columns}
    recipes = {path.stem for path in RECIPES}
    assert runs - recipes == set()
    assert recipes - runs == {"table8-delse-10-cities"}  # where the last two rows begin
    assert {t.name for t in index} == {*(f"table{n}" for n in range(1, 9)), "figure5"}


def test_the_papers_figures_stand_in_every_cell_of_its_tables(checkout):
    import tables

    figures = tables.read_figures(checkout / "training" / "paper_tables.toml")
    for table in tables.read_index(checkout / "training" / "paper.toml"):
        known = {(r.title, c.head) for r in table.rows for c in table.columns} & set(figures.get(table.name, {}))
        assert known == set(figures.get(table.name, {})), table.name
    for name in ("table1", "table2"):  # a misread figure would break the mean over the classes
        rows = {row for row, _ in figures[name]}
        for row in rows:
            values = {column: value for (title, column), value in figures[name].items() if title == row}
            assert np.mean([v for c, v in values.items() if c != "mIoU"]) == pytest.approx(values["mIoU"], abs=0.011)


def test_our_index_is_read(checkout):
    import tables

    assert [t.name for t in tables.read_index(checkout / "training" / "tables.toml")] == [
        "table6",
        "figure5",
        "table7",
        "table8",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[setings]\n", "unknown parts"),
        ('[[tables]]\nname="a"\ntitle="a"\nrows=[{title="x", run="y"}]\n', "unknown key 'rows.run'"),
        ('[[tables]]\nname="a"\ntitle="a"\nplot={columns=["z"], x=[1], x_label="", y_label=""}\n', "plot needs one x"),
        ('[[tables]]\nname="a"\ntitle="a"\n[[tables]]\nname="a"\ntitle="b"\n', "same name"),
    ],
)
def test_a_wrong_index_is_refused(tmp_path, text, said):
    import tables

    (tmp_path / "index.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        tables.read_index(tmp_path / "index.toml")


# ---- measures


def scored(name, label, *ious, width=8, set_="val"):
    from measures import Scored

    curve = lambda iou: tuple(iou if k == width else 0.0 for k in range(1, 11))  # noqa: E731
    return Scored(ObjectKey(set_, name, 0, label), tuple(Scores(i, curve(i)) for i in ious))


def test_class_means_count_each_class_once():
    from measures import measure

    objects = [scored("a", 26000, 0.9), scored("a", 26001, 0.7), scored("b", 28000, 0.2)]
    cards = {"val": {"classes": {"26": "car", "28": "bus", "31": "train"}}}
    assert measure("miou", objects, cards) == pytest.approx(0.6)
    assert measure("class:car", objects, cards) == pytest.approx(0.8)
    assert measure("class_miou", objects, cards) == pytest.approx(0.5)
    assert measure("class_f_8px", objects, cards) == pytest.approx(0.5)
    assert measure("f_1px", objects, cards) == 0
    assert math.isnan(measure("class:train", objects, cards))
    with pytest.raises(ValueError, match="val has no classes"):
        measure("class_miou", objects, {"val": {}})


def test_a_step_looks_behind_so_many_corrections():
    from measures import measure

    objects = [scored("a", 1, 0.5, 0.7, 0.9), scored("a", 2, 0.5, 0.5, 0.5)]
    assert [measure(f"miou@{k}", objects, {}) for k in range(3)] == pytest.approx([0.5, 0.6, 0.7])
    with pytest.raises(ValueError, match="needs 3 corrections"):
        measure("miou@3", objects, {})


def test_davis_means_over_sequences_and_leaves_their_ends_out():
    from measures import measure

    ious = {"bear": [0, 0.8, 0.4, 0], "cows": [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]}
    objects = [scored(f"{s}_{i:05d}", 1, iou) for s, values in ious.items() for i, iou in enumerate(values)]
    about = {"bear": {"frames": 4, "width": 8}, "cows": {"frames": 6, "width": 8}}
    cards = {"val": {"group": r"^(.+)_\d+$", "sequences": about}}
    assert measure("j_mean", objects, cards) == pytest.approx((0.6 + 1) / 2)
    assert measure("j_recall", objects, cards) == pytest.approx((0.5 + 1) / 2)
    assert measure("f_mean", objects, cards) == pytest.approx(0.8)  # within 8 px, where F is the IoU here
    drawn = objects[1:]  # not all frames of the bear: then all of them count
    assert measure("j_mean", drawn, cards) == pytest.approx((0.4 + 1) / 2)


@pytest.mark.parametrize("name", ["mious", "f_11px", "j_median", "", "miou@x"])
def test_unknown_measures_are_refused(name):
    from measures import measure

    with pytest.raises(ValueError, match=r"unknown measure|F is known"):
        measure(name, [scored("a", 1, 0.5)], {})


# ---- the threshold


class ShiftedDistance:
    """Answers with the signed distance of the bright pixels, too high by some pixels."""

    def __init__(self, shift):
        self.shift = shift

    def segment(self, image, prompt):
        plane = Plane.of(image)
        size = plane.shape[0]
        crop = Crop(0, 0, size, size, size)
        bright = plane.read(crop)[0] > 100
        phi = ndimage.distance_transform_edt(bright) - ndimage.distance_transform_edt(~bright)
        return SimpleNamespace(states=[(phi + self.shift).astype(np.float32)], crop=crop)


@pytest.fixture
def prepared(tmp_path):
    """A prepared split of one disk per image."""
    folder = tmp_path / "data" / "disks" / "train"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    y, x = np.mgrid[:64, :64]
    for number in range(6):
        disk = (y - 30) ** 2 + (x - 32) ** 2 < (12 + number) ** 2
        imsave(folder / "images" / f"v_{number:05d}.png", disk.astype(np.uint8) * 200, check_contrast=False)
        imsave(folder / "labels" / f"v_{number:05d}.png", disk.astype(np.uint16), check_contrast=False)
    card = {"split": "train", "group": r"^(.+)_\d+$", "sequences": {"v": {"frames": 6, "width": 2}}}
    (folder / "dataset.json").write_text(json.dumps(card))
    return folder


def test_the_threshold_that_fits_the_training_side_is_found(prepared):
    from threshold import search_threshold

    best, curve = search_threshold(ShiftedDistance(1.5), [prepared], 4, 0)
    assert 0.5 <= best <= 2  # where phi, too high by 1.5, has its jump from -1 to 1
    assert max(curve.values()) == curve[f"{best:g}"] > curve["0"]
    assert best == min(float(t) for t, value in curve.items() if value == max(curve.values()))
    assert search_threshold(ShiftedDistance(0.0), [prepared], 4, 0, worth=0.005)[0] == 0


def test_all_of_a_prepared_split_is_its_training_side(prepared):
    from pack import split

    assert len(list(split(prepared, validation=False))) == 6
    assert list(split(prepared, validation=True)) == []


# ---- the benchmark


class Filler:
    """Fills a part of the box, more after each correction; counts what it is asked."""

    device = "cpu"

    def __init__(self, folder):
        self.name = folder.name
        self.config = ModelConfig()
        self.share = json.loads((folder / "card.json").read_text())["share"]
        self.asked = 0

    def segment(self, image, prompt, corrections=0):
        self.asked += 1
        y0, x0, y1, x1 = (round(v) for v in prompt.box)
        width = max(1, round((x1 - x0 + 1) * min(1, self.share + 0.1 * corrections)))
        mask = ObjectMask(np.ones((y1 - y0 + 1, width), bool), (y0, x0))
        return SimpleNamespace(mask=mask, prompt=prompt, corrections=corrections)

    def correct(self, image, prediction, *corrections):
        return self.segment(image, prediction.prompt, prediction.corrections + len(corrections))


INDEX = """
[settings]
data = ["disks/train"]
search = false

[[tables]]
name = "table6"
title = "Ablation"
columns = [{ head = "J mean", measure = "j_mean" }, { head = "mIoU", measure = "miou" }]
rows = [
    { title = "DEXTR", runs = "dextr" },
    { title = "+ motion", runs = "motion" },
    { title = "+ modulation" },
]

[[tables]]
name = "drags"
title = "Corrections"
columns = [{ head = "0", measure = "miou@0" }, { head = "1", measure = "miou@1" }]
rows = [{ title = "DELSE", runs = "dextr", evaluate = { drags = 1 } }, { title = "none", runs = "dextr" }]
plot = { columns = ["0", "1"], x = [0, 1], x_label = "Drags", y_label = "mIoU" }
"""


@pytest.fixture
def bench(prepared, tmp_path):
    from benchmark import Benchmark

    (tmp_path / "index.toml").write_text(INDEX)
    for seed, share in enumerate((0.6, 0.8)):
        folder = tmp_path / "runs" / f"dextr-seed{seed}"
        folder.mkdir(parents=True)
        card = {"share": share, "steps": 50, "seconds": 120, "train": {"steps": 100, "seed": seed}}
        (folder / "card.json").write_text(json.dumps(card))
        (folder / "config.json").write_text(json.dumps({"model": {"threshold": 0.25}}))
        save_file({"conv.weight": torch.ones(2, 3), "bn.running_mean": torch.ones(9)}, folder / "model.safetensors")
    loaded = []

    def load(folder, device):
        loaded.append(Filler(folder))
        return loaded[-1]

    made = Benchmark(
        index=tmp_path / "index.toml",
        data=tmp_path / "data",
        checkpoints=tmp_path / "runs",
        cache=tmp_path / "cache",
        load=load,
    )
    return made, loaded


def write(bench, out):
    import tables
    from benchmark import FIGURES, write_results

    write_results(bench, tables.read_index(bench.index), out, tables.read_figures(FIGURES))
    return list(csv.DictReader((out / "index.csv").read_text(encoding="utf-8").splitlines()))


def test_tables_have_the_mean_and_spread_of_the_seeds_and_the_papers_figures(bench, tmp_path, capsys):
    made, loaded = bench
    cells = {(line["table"], line["row"], line["column"]): line for line in write(made, tmp_path / "out")}
    dextr = cells["table6", "DEXTR", "mIoU"]
    values = [float(v) for v in dextr["values"].split()]
    assert len(values) == 2
    assert values[0] < values[1]
    assert float(dextr["mean"]) == pytest.approx(np.mean(values), abs=1e-3)
    assert float(dextr["spread"]) == pytest.approx(np.std(values, ddof=1), abs=1e-3)
    assert cells["table6", "DEXTR", "J mean"]["paper"] == "82.400"
    assert cells["table6", "+ motion", "J mean"]["mean"] == ""
    assert float(cells["drags", "DELSE", "1"]["mean"]) > float(cells["drags", "DELSE", "0"]["mean"])
    page = (tmp_path / "out" / "index.md").read_text(encoding="utf-8")
    assert "- 6 objects of train" in page
    assert "not run [84.00]" in page
    assert "- not run: + motion: no checkpoint motion or motion-seed<k>" in page
    modulation = next(line for line in page.splitlines() if line.startswith("| + modulation"))
    assert "[84.80]" in modulation
    assert "not run" not in modulation  # another method: the paper's figure stands alone
    assert "| dextr-seed1 | 0.00 M | 1 | 50 (50%, unfinished) | 2 |" in page
    assert "0.25 (its own)" in page
    assert all(one.config.threshold == 0.25 for one in loaded)
    assert "## Ablation" in capsys.readouterr().out
    with Image.open(tmp_path / "out" / "drags.png") as plot:
        assert plot.size == (1000, 560)
        assert len(np.unique(np.asarray(plot.convert("L")))) > 10
    assert not (tmp_path / "out" / "table6.png").exists()


def test_an_interrupted_benchmark_goes_on_where_it_stopped(bench, tmp_path):
    made, loaded = bench
    first = write(made, tmp_path / "out")
    asked = [one.asked for one in loaded]
    assert write(made, tmp_path / "again") == first
    assert [one.asked for one in loaded] == asked
    kept = sorted((tmp_path / "cache").iterdir())
    assert len(kept) == 4  # two runs, with and without a drag
    kept[0].unlink()
    assert write(made, tmp_path / "again") == first
    assert sum(one.asked for one in loaded) > sum(asked)


def test_new_weights_are_scored_anew(bench, tmp_path):
    made, _ = bench
    before = write(made, tmp_path / "out")
    folder = tmp_path / "runs" / "dextr-seed0"
    save_file({"conv.weight": torch.zeros(2, 3)}, folder / "model.safetensors")
    (folder / "card.json").write_text(json.dumps({"share": 1.0}))
    after = write(replace(made, _loaded=None, used={}), tmp_path / "out")
    assert float(after[0]["mean"]) > float(before[0]["mean"])


def test_absent_data_is_told_and_the_rest_goes_on(bench, tmp_path):
    made, _ = bench
    (tmp_path / "index.toml").write_text(INDEX + '\n[tables.settings]\ndata = ["elsewhere"]\n')
    write(made, tmp_path / "out")
    page = (tmp_path / "out" / "index.md").read_text(encoding="utf-8")
    assert "- not run: DELSE: no data elsewhere" in page
    assert "| DEXTR" in page


def test_a_damaged_checkpoint_does_not_stop_the_others(bench, tmp_path):
    made, _ = bench
    whole = made.load

    def load(folder, device):
        if folder.name == "dextr-seed1":
            raise ValueError("model.safetensors is cut short; copy it again")
        return whole(folder, device)

    lines = write(replace(made, load=load), tmp_path / "out")
    assert [line["runs"] for line in lines if line["row"] == "DEXTR"] == ["1", "1"]
    assert "- not run: DEXTR: model.safetensors is cut short" in (tmp_path / "out" / "index.md").read_text()


# ---- plots


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (61.2, 88.7, [60, 65, 70, 75, 80, 85, 90]), (5.0, 5.0, None)],
)
def test_ticks_are_round_and_span_the_values(low, high, ticks):
    from lineplot import nice_ticks

    found = nice_ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    if ticks:
        assert found == pytest.approx(ticks)


def test_a_rising_line_rises_in_the_picture():
    from lineplot import COLOURS, Line, draw

    picture = draw([Line("a", [1, 2, 3], [math.nan] * 3)], [0, 1, 2], title="t", x_label="x", y_label="y")
    pixels = np.asarray(picture).astype(int)
    colour = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero(np.abs(pixels[:, :700] - colour).sum(axis=2) < 30)
    assert np.corrcoef(rows, columns)[0, 1] < -0.99
    with pytest.raises(ValueError, match="nothing to plot"):
        draw([Line("a", [math.nan], [math.nan])], [0], title="t", x_label="x", y_label="y")
