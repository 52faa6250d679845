#!/usr/bin/env python3
"""Try what the user guide (docs/guide.md) says, in a real window with the default model and real mouse and key events.

python scripts/try_guide.py [--only WORD]

Prints one line for each part: what was tried, and whether it holds. Exit code 1 if something does not. Without a
screen: xvfb-run -a -s "-screen 0 1400x1000x24" before the command.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hands import let_pass, wait_until
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from tour import CONTROL, SHIFT, Key, Person, open_window

SIDE = 160
CENTRES = [(40, 40), (40, 118), (112, 46), (108, 118)]  # of bright disks
RADIUS = 20


def disks(background: float = 60, contrast: float = 90) -> np.ndarray:
    """Bright disks on noise."""
    plane = np.random.default_rng(0).normal(background, 6, (SIDE, SIDE))
    ys, xs = np.mgrid[:SIDE, :SIDE]
    for y, x in CENTRES:
        plane[np.hypot(ys - y, xs - x) < RADIUS] += contrast
    return plane.clip(0, 255).astype(np.uint8)


def sit_down(image: Any, **options: Any) -> Person:
    """A person before a window with an image."""
    return Person(*open_window([(image, {"name": "disks", **options}, "image")]))


def four(number: int, radius: float = RADIUS) -> list[tuple[float, float]]:
    """The extreme points of a disk."""
    y, x = CENTRES[number]
    return [(y - radius, x), (y, x + radius), (y + radius, x), (y, x - radius)]


def label(person: Person, number: int) -> int:
    """Outline a disk and accept it."""
    person.click(*four(number))
    person.wait()
    return person.accept()


def said(person: Person) -> str:
    """All that the status line and the notice below it say."""
    return f"{person.widget.guide.text()} {person.widget.notices.text}"


def active(person: Person) -> str:
    """Name of the active layer."""
    return str(person.viewer.layers.selection.active.name)


# ---------------------------------------------------------------- the parts of the guide


def when_the_outline_is_wrong() -> None:
    """Pulls, further clicks, lines, a box, and Esc."""
    person = sit_down(disks())
    person.click(*four(0))
    person.wait()
    person.pull(person.on_outline((40, 60)), (40, 70))
    person.pull(person.on_outline((60, 40)), (68, 40))
    assert len(person.session.draft.corrections) == 2, "pulls add up"
    person.click((26, 26))
    person.wait()
    assert len(person.session.draft.clicks) == 5, "a further click"
    person.hands.key(Key.Key_W)
    let_pass(0.2)
    assert active(person) == "DELSE drags", "W goes to the drags layer"
    line(person, person.on_outline((20, 40)), (14, 40))
    wait_until(lambda: len(person.session.draft.corrections) == 3)
    person.wait()
    line(person, (100, 80), (90, 80))
    wait_until(lambda: "begins" in said(person))
    assert len(person.session.draft.corrections) == 3, "a line that begins far away is refused"
    person.hands.key(Key.Key_W)
    let_pass(0.2)
    assert active(person) == "DELSE clicks", "W goes back"
    person.hands.key(Key.Key_Escape)
    let_pass(0.2)
    assert person.session.draft.is_empty, "Esc forgets"
    person.hands.key(Key.Key_W)
    person.hands.key(Key.Key_R)
    let_pass(0.2)
    line(person, (19, 97), (61, 139))
    person.wait()
    assert person.session.draft.kind == "box", "W and R draw a box"
    person.viewer.close()


def line(person: Person, start: Any, end: Any) -> None:
    """Draw with the tool that is chosen."""
    person.hands.drag(person.world(start), person.world(end))
    let_pass(0.4)


def undo_of_everything() -> None:
    """Every kind of step, back to the beginning and forward again."""
    person = sit_down(disks())
    one, two = label(person, 0), label(person, 1)
    person.choose(one)
    person.name("round")
    person.choose(one, two)
    person.hands.key(Key.Key_M, SHIFT)
    wait_until(lambda: len(person.session.objects) == 1)
    person.press(person.widget.review.split_button)
    wait_until(lambda: len(person.session.objects) == 2)
    person.press(person.widget.review.delete_button)
    wait_until(lambda: len(person.session.objects) == 1)
    states = [person.labels.copy()]
    while person.session.can_undo:
        person.undo()
        states.append(person.labels.copy())
    assert not person.labels.any(), "everything is undone"
    for state in states[-2::-1]:
        person.undo(redo=True)
        assert np.array_equal(person.labels, state), "and done again"
    person.viewer.close()


def painting() -> None:
    """napari's brush, and its undo."""
    person = sit_down(disks())
    label(person, 0)
    labels = person.widget._labels
    person.viewer.layers.selection.active = labels
    labels.mode, labels.selected_label, labels.brush_size = "paint", 1, 6
    line(person, (100, 20), (100, 60))
    assert (person.labels[100, 25:55] == 1).all(), "the brush works as ever"
    person.hands.key(Key.Key_Z, CONTROL)
    let_pass(0.3)
    assert not person.labels[100].any(), "and Ctrl+Z takes the stroke back"
    person.viewer.close()


def channels() -> None:
    """A channel axis, and channels of it; wrong ones are refused."""
    image = np.stack([np.full((SIDE, SIDE), 50, np.uint8), disks(), disks(20, 30), np.zeros((SIDE, SIDE), np.uint8)])
    person = sit_down(image)
    settings = person.widget.settings
    person.show_tab("Settings")
    choose(settings.channel_box, 1)
    wait_until(lambda: person.widget.is_ready and person.widget.desk.source.channel_axis == 0)
    assert person.widget._labels.data.shape == (SIDE, SIDE), "labels have no channel axis"
    for text in ("1", "1,2"):
        write(settings.channels_edit, text)
        wait_until(lambda text=text: person.widget.desk.source.channels == tuple(map(int, text.split(","))))
    write(settings.channels_edit, "1,9")
    wait_until(lambda: "9" in said(person))
    write(settings.channels_edit, "1,2")
    person.show_tab("Objects")
    person.widget.desk.take_clicks()
    assert area(person, label(person, 0)) > 0.85, "two channels outline a disk"
    person.viewer.close()


def choose(box: Any, row: int) -> None:
    """Choose a row of a list that opens, as its keys do."""
    box.setCurrentIndex(row)
    box.activated.emit(row)
    let_pass(0.3)


def write(field: Any, text: str) -> None:
    """Type into a field, and press Enter."""
    QTest.mouseClick(field, Qt.MouseButton.LeftButton)
    field.selectAll()
    QTest.keyClicks(field, text)
    QTest.keyClick(field, Key.Key_Return)
    let_pass(0.3)


def area(person: Person, made: int) -> float:
    """Pixels of an object, as a share of a disk's; above 1 as a share of the object's."""
    share = person.session.objects[made].area / (np.pi * RADIUS**2)
    return float(min(share, 1 / share))


def axes() -> None:
    """Planes of 4D and 5D images, turned ones, and other axes than the last two."""
    for shape, order in (((3, 2), (0, 1, 2, 3)), ((2, 3, 2), (0, 1, 2, 3, 4)), ((3,), (0, 2, 1)), ((3,), (0, 1, 2))):
        image = np.broadcast_to(disks(), (*shape, SIDE, SIDE)).copy()
        person = sit_down(image, scale=(2,) * len(shape) + (0.5, 0.5))
        dims = person.viewer.dims
        dims.order, place = order, tuple(n - 1 for n in shape)
        dims.current_step = (*place, 0, 0)
        let_pass(0.4)
        turned = order[-1] < order[-2]
        person.click(*[point[::-1] if turned else point for point in four(1)])
        person.wait()
        made = person.accept()
        assert area(person, made) > 0.85, f"{shape} {order}"
        assert (person.labels[place] == made).sum() == person.session.objects[made].area, "in the plane shown"
        assert person.labels.astype(bool).sum() == person.session.objects[made].area, "and in no other"
        person.viewer.close()


def three_d() -> None:
    """Nothing is outlined in the 3D view."""
    person = sit_down(np.broadcast_to(disks(), (3, SIDE, SIDE)).copy())
    person.hands.key(Key.Key_Y, CONTROL)
    wait_until(lambda: person.viewer.dims.ndisplay == 3)
    wait_until(lambda: "Ctrl+Y" in said(person))
    person.hands.key(Key.Key_Y, CONTROL)
    wait_until(lambda: person.viewer.dims.ndisplay == 2)
    label(person, 0)
    person.viewer.close()


def several_planes() -> None:
    """One object of its outlines in two planes, and the next empty plane."""
    person = sit_down(np.broadcast_to(disks(), (3, SIDE, SIDE)).copy())
    made = []
    for plane in (0, 1):
        person.viewer.dims.current_step = (plane, 0, 0)
        let_pass(0.3)
        made.append(label(person, 0))
    person.choose(*made)
    person.hands.key(Key.Key_M, SHIFT)
    wait_until(lambda: len(person.session.objects) == 1)
    assert person.labels[:2].any(axis=(1, 2)).all()
    assert set(np.unique(person.labels)) == {0, made[0]}
    person.hands.key(Key.Key_E, SHIFT)
    wait_until(lambda: person.viewer.dims.current_step[0] == 2)
    person.viewer.close()


def multiscale() -> None:
    """A lazy image of several resolutions."""
    import dask.array as da

    fine = np.tile(disks(), (4, 4))
    person = sit_down([da.from_array(fine, 64), da.from_array(fine[::4, ::4], 64)], multiscale=True)
    person.viewer.scene.camera.zoom = 4
    person.viewer.scene.camera.center = (0, 80, 80)
    let_pass(0.5)
    made = label(person, 0)
    assert person.labels.shape == fine.shape
    assert area(person, made) > 0.85
    person.viewer.close()


def how_labels_are_written() -> None:
    """Protection, holes and small parts."""
    person = sit_down(disks())
    first = label(person, 0)
    before = (person.labels == first).sum()
    person.widget._labels.data[20:30, 20:60] = 7  # a stranger's object
    person.widget._labels.refresh()
    settings = person.widget.settings
    settings.fill_box.click()
    write(settings.part_box.lineEdit(), "30")
    assert (settings.policy.fill_holes, settings.policy.min_part) == (True, 30)
    person.show_tab("Objects")
    person.widget.desk.take_clicks()
    person.choose(first)
    person.hands.key(Key.Key_R, SHIFT)
    person.wait()
    person.accept()
    assert (person.labels == 7).sum() == 400, "other labels are protected"
    settings.protect_box.click()
    person.hands.key(Key.Key_R, SHIFT)
    person.wait()
    person.accept()
    assert (person.labels == 7).sum() < 400, "or not"
    assert (person.labels == first).sum() > 0.9 * before
    settings.protect_box.click()
    settings.fill_box.click()
    person.viewer.close()


def the_list() -> None:
    """Classes, going through the list, reopening, splitting and deleting."""
    person = sit_down(disks())
    made = [label(person, number) for number in range(4)]
    review = person.widget.review
    person.choose(made[0])
    person.name("round")
    assert person.session.objects[made[0]].class_name == "round"
    features = person.widget._labels.features
    assert "round" in features.to_string(), "the class is in the layer's features"
    person.hands.key(Key.Key_C, SHIFT)
    let_pass(0.3)
    assert review.current != made[0], "to one without a class"
    person.hands.key(Key.Key_N, SHIFT)
    person.hands.key(Key.Key_B, SHIFT)
    person.hands.key(Key.Key_U, SHIFT)
    let_pass(0.3)
    person.choose(made[1])
    person.hands.key(Key.Key_R, SHIFT)
    person.wait()
    y, x = CENTRES[1]
    person.click((y + 15, x + 15))
    person.wait()
    assert person.accept() == made[1], "under the same id"
    person.click(*four(2, radius=8))
    person.wait()
    person.choose(made[2])
    person.hands.key(Key.Key_S, SHIFT)
    wait_until(lambda: len(person.session.objects) == 5)
    person.hands.key(Key.Key_D, SHIFT)
    wait_until(lambda: len(person.session.objects) < 5)
    person.viewer.close()


def evolution() -> None:
    """The tab, the film, a knob and its reset."""
    person = sit_down(disks())
    person.click(*four(0))
    person.wait()
    view = person.widget.evolution
    person.show_tab("Evolution")
    wait_until(lambda: view.is_settled and view.step_slider.maximum() > 0)
    names = {layer.name for layer in person.viewer.layers}
    assert {"DELSE contour", "DELSE motion field"} <= names
    view.play_button.click()
    wait_until(lambda: view.step == 0)
    wait_until(lambda: view.step == view.step_slider.maximum())
    before = person.widget.preview_mask
    knob = view.knobs.findChildren(type(view.step_slider))[0]
    knob.setValue(knob.minimum())
    wait_until(lambda: person.widget.preview_mask is not None and person.widget.preview_mask is not before)
    person.wait()
    view.knobs.reset_button.click()
    wait_until(lambda: person.session.draft.evolution is None)
    person.wait()
    assert np.array_equal(person.widget.preview_mask.mask, before.mask), "Reset brings the model's own values back"
    person.viewer.close()


def export() -> None:
    """Every format, and no file is replaced unasked."""
    from napari_delse.widgets._annotate.exporting import FORMATS

    person = sit_down(disks())
    label(person, 0)
    label(person, 1)
    form = person.widget.export_form
    person.press(person.widget.review.export_button)
    with tempfile.TemporaryDirectory() as folder:
        for number, one in enumerate(FORMATS):
            if not form.isVisible():
                person.press(person.widget.review.export_button)
            choose(form.format_box, number)
            place = Path(folder) / f"labels{one.suffix}"
            write(form.file_edit, str(place))
            wait_until(lambda: not form.isVisible() or form.write_button.isEnabled())
            assert place.exists(), f"{one.title}: {said(person)}"
        person.press(person.widget.review.export_button)
        write(form.file_edit, str(place))
        wait_until(lambda: form.write_button.text() == "Replace")
    person.viewer.close()


def keys() -> None:
    """Other keys, and those of napari's are refused."""
    person = sit_down(disks())
    person.show_tab("Keys")
    field = person.widget.keys.fields["accept"]
    press_in(field, Key.Key_J)
    assert person.widget.keyboard["accept"] == "J", person.widget.keyboard["accept"]
    press_in(field, Key.Key_P)
    assert person.widget.keyboard["accept"] == "J", "a key of napari's is refused"
    assert "'P'" in said(person) or "P " in said(person), said(person)
    person.click(*four(0))
    person.wait()
    person.viewer.layers.selection.active = person.viewer.layers["disks"]
    person.hands.key(Key.Key_N)
    let_pass(0.3)
    assert not person.session.objects, "N does nothing any more"
    person.hands.key(Key.Key_J)
    wait_until(lambda: len(person.session.objects) == 1)
    person.widget.keys.reset_button.click()
    let_pass(0.2)
    assert person.widget.keyboard["accept"] == "N"
    person.viewer.close()


def press_in(field: Any, key: Any) -> None:
    """Click a field for a key, and press one."""
    QTest.mouseClick(field, Qt.MouseButton.LeftButton)
    let_pass(0.2)
    QTest.keyClick(field, key)
    let_pass(1.5)  # Qt waits for a second key


def trouble() -> None:
    """A deleted layer, another active layer, and labels of too small a type."""
    person = sit_down(disks())
    label(person, 0)
    person.viewer.layers.remove(person.viewer.layers["DELSE clicks"])
    wait_until(lambda: "Start over" in said(person))
    person.press(person.widget.restart_button)
    wait_until(lambda: person.widget.is_ready)
    assert person.labels.any(), "nothing accepted is lost"
    person.viewer.layers.selection.active = person.viewer.layers["disks"]
    wait_until(lambda: "W" in said(person))
    person.hands.key(Key.Key_W)
    wait_until(lambda: active(person) == "DELSE clicks")
    small = np.zeros((SIDE, SIDE), np.uint8)
    small[0, 0] = 255
    person.viewer.add_labels(small, name="small")
    let_pass(0.3)
    person.show_tab("Settings")
    box = person.widget.settings.labels_box
    choose(box, box.findText("small"))
    wait_until(lambda: person.widget._labels.name == "small")
    person.click(*four(1))
    person.wait()
    person.hands.key(Key.Key_Return)
    wait_until(lambda: "256" in said(person))
    person.viewer.close()


PARTS: tuple[Callable[[], None], ...] = (
    when_the_outline_is_wrong,
    undo_of_everything,
    painting,
    channels,
    axes,
    three_d,
    several_planes,
    multiscale,
    how_labels_are_written,
    the_list,
    evolution,
    export,
    keys,
    trouble,
)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[part.__name__ for part in PARTS])
    only = parser.parse_args().only
    failed = 0
    for part in PARTS:
        if only in (None, part.__name__):
            os.environ["NAPARI_DELSE_HOME"] = tempfile.mkdtemp()  # no settings or journals of the user
            try:
                part()
            except Exception:
                traceback.print_exc()
                failed += 1
                print(f"{part.__name__}: does not hold", flush=True)
            else:
                print(f"{part.__name__}: holds", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main())
