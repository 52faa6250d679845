"""Prompt tables: what napari saves, our own layout, and clear words for every broken row."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_delse.data.prompts import ObjectPrompt, read_prompts, write_prompts
from napari_delse.geometry import Correction, ExtremePoints

positions = st.tuples(*[st.floats(-1e6, 1e6, allow_subnormal=False)] * 2)
clicks = st.lists(positions, min_size=2, max_size=6, unique=True).map(ExtremePoints.from_clicks)
boxes = st.lists(positions, min_size=2, max_size=2, unique=True).map(ExtremePoints.from_box)
drags = st.tuples(positions, positions).filter(lambda p: p[0] != p[1]).map(lambda p: Correction(*p))


@st.composite
def tables(draw):
    axes = draw(st.integers(0, 3))
    keys = draw(
        st.lists(
            st.tuples(st.integers(1, 2**32 - 1), st.tuples(*[st.integers(0, 5000)] * axes)), min_size=1, unique=True
        )
    )
    return [
        ObjectPrompt(label, index, draw(st.one_of(clicks, boxes)), tuple(draw(st.lists(drags, max_size=3))))
        for label, index in keys
    ]


@settings(max_examples=60)
@given(objects=tables())
def test_a_written_table_is_read_back_exactly(tmp_path_factory, objects):
    path = tmp_path_factory.mktemp("prompts") / "prompts.csv"
    write_prompts(path, objects)
    assert read_prompts(path) == objects
    assert [p.name for p in path.parent.iterdir()] == ["prompts.csv"]


def table(tmp_path, text):
    path = tmp_path / "clicks.csv"
    path.write_text(text, encoding="utf-8")
    return path


FOUR = "0,1,5\n1,5,1\n2,9,5\n3,5,9\n"


def test_napari_points_of_a_plane(tmp_path):
    one, two = read_prompts(table(tmp_path, "index,axis-0,axis-1\n" + FOUR + FOUR))
    assert (one.label, two.label) == (1, 2)
    assert one.index == ()
    assert one.prompt.points == ((1, 5), (5, 1), (9, 5), (5, 9))


def test_napari_points_of_a_stack_with_features_and_byte_order_mark(tmp_path):
    rows = "\n".join(f"{i},0.0,{z},{y},{x},7,red" for z in (3, 3.2) for i, (y, x) in enumerate([(1, 2), (3, 4)]))
    (one,) = read_prompts(table(tmp_path, "\ufeffindex,axis-0,axis-1,axis-2,axis-3,label,colour\n" + rows + "\n\n"))
    assert one.label == 7
    assert one.index == (0, 3)
    assert one.prompt.points == ((1, 2), (3, 4))  # doubled clicks count once


def test_napari_itself_writes_what_we_read(tmp_path):
    from napari.layers import Points
    from napari_builtins.io import napari_write_points

    path = tmp_path / "saved.csv"
    points = np.array([[2, 1, 5], [2, 5, 1], [2, 9, 5], [2, 5, 9.5]])
    layer = Points(points, features={"label": [4] * 4})
    napari_write_points(str(path), layer.data, layer._get_state())
    (one,) = read_prompts(path)
    assert (one.label, one.index) == (4, (2,))
    assert one.prompt.points[3] == (5, 9.5)


def test_our_own_table(tmp_path):
    path = table(
        tmp_path,
        "label,kind,axis-0,axis-1,to-0,to-1\n"
        "5,drag,4,4,2,2\n"
        "5,extreme,1,5,,\n5,extreme,9,5,,\n"
        "2,box,0,0,,\n2,box,9,8,,\n"
        "5,drag,6,6,7,7.5\n",
    )
    five, two = read_prompts(path)
    assert five == ObjectPrompt(
        5, (), ExtremePoints(((1, 5), (9, 5))), (Correction((4, 4), (2, 2)), Correction((6, 6), (7, 7.5)))
    )
    assert two == ObjectPrompt(2, (), ExtremePoints(((0, 0), (9, 8)), "box"))


def test_one_label_in_two_planes_is_two_prompts(tmp_path):
    rows = "".join(f"1,extreme,{z},{y},{y}\n" for z in (0, 1) for y in (1, 9))
    assert [one.index for one in read_prompts(table(tmp_path, "label,kind,axis-0,axis-1,axis-2\n" + rows))] == [
        (0,),
        (1,),
    ]


def test_the_samples_are_read(checkout):
    assert len(read_prompts(checkout / "sample_data" / "coins_clicks.csv")) == 15
    cells = read_prompts(checkout / "sample_data" / "cells_clicks.csv")
    assert {one.index for one in cells} == {(z,) for z in range(5)}


NAPARI = "index,axis-0,axis-1\n"
OURS = "label,kind,axis-0,axis-1,to-0,to-1\n"


@pytest.mark.parametrize(
    ("text", "row", "rule"),
    [
        ("", None, r"columns \(none\)"),
        (NAPARI, None, "no rows"),
        ("index,y,x\n0,1,2\n", None, "index,y,x"),
        ("index;axis-0;axis-1\n0;1;2\n", None, "axis-0"),
        ("index,axis-0,axis-2\n0,1,2\n", None, "axis-2"),
        ("index,shape-type,vertex-index,axis-0,axis-1\n0,rectangle,0,1,2\n", None, "Points layer"),
        (NAPARI + FOUR + "4,1,1\n", 6, "leave 1 over"),
        (NAPARI + FOUR.replace("9,5", "nine,5"), 4, "axis-0 must be a finite number, got 'nine'"),
        (NAPARI + FOUR.replace("9,5", "nan,5"), 4, "finite"),
        (NAPARI + FOUR.replace("2,9,5", "2,9"), 4, "axis-1 must be a finite number, got ''"),
        (NAPARI + FOUR.replace("2,9,5", "2,9,5,1"), 4, "4 values stand below 3 column names"),
        ("index,axis-0,axis-1,axis-2\n" + "0,1,1,1\n1,1,2,2\n2,2,3,3\n3,2,4,4\n", 4, "one plane"),
        (NAPARI + "0,1,1\n" * 4, 2, "two or more different places"),
        ("index,axis-0,axis-1,label\n" + FOUR.replace("\n", ",3\n") * 2, 6, "label 3 has four clicks"),
        (OURS + "1,polygon,1,1,,\n", 2, "'polygon'"),
        (OURS + "x,extreme,1,1,,\n", 2, "label must be"),
        (OURS + "1.5,extreme,1,1,,\n", 2, "whole number"),
        (OURS + "0,extreme,1,1,,\n0,extreme,5,5,,\n", 2, "1..4294967295"),
        (OURS + "1,extreme,1,1,,\n", 2, "two or more different places"),
        (OURS + "1,extreme,1,1,,\n1,extreme,5,5,,\n1,box,0,0,,\n1,box,9,9,,\n", 5, "both clicks and a box"),
        (OURS + "1,extreme,1,1,,\n1,extreme,5,5,,\n2,drag,1,1,2,2\n", 4, "needs an object"),
        (OURS + "1,extreme,1,1,,\n1,extreme,5,5,,\n1,drag,1,1,,\n", 4, "to-0 must be a finite number"),
        (OURS + "1,extreme,1,1,,\n1,extreme,5,5,,\n1,drag,1,1,1,1\n", 4, "must move"),
        ("label,kind,axis-0,axis-1\n1,drag,1,1\n", 2, "to-"),
        ("label,kind,axis-0,axis-1,axis-2,to-0,to-1,to-2\n1,drag,0,1,1,1,2,2\n", 2, "stay in its plane"),
        (OURS + '1,"extreme,1\n', None, "not a CSV table"),
    ],
)
def test_a_broken_table_is_named_with_row_and_rule(tmp_path, text, row, rule):
    path = table(tmp_path, text)
    with pytest.raises(ValueError, match=rule) as caught:
        read_prompts(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    if row is not None:
        assert f"row {row}:" in message


def test_bytes_are_no_table(tmp_path):
    path = tmp_path / "image.csv"
    path.write_bytes(b"II*\x00\xff\xfe\x80")
    with pytest.raises(ValueError, match="not a CSV table"):
        read_prompts(path)


def test_a_failed_write_leaves_the_old_table(tmp_path, monkeypatch):
    path = tmp_path / "clicks.csv"
    one = ObjectPrompt(1, (), ExtremePoints(((1, 5), (9, 5))))
    write_prompts(path, [one])
    before = path.read_bytes()
    with pytest.raises(ValueError, match="stands twice"):
        write_prompts(path, [one, one])
    with pytest.raises(ValueError, match="same axes"):
        write_prompts(path, [one, ObjectPrompt(2, (0,), one.prompt)])
    monkeypatch.setattr(csv, "writer", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_prompts(path, [one])
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["clicks.csv"]
