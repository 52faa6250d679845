"""The commands that turn files into others: export and replay."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_delse._words import many
from napari_delse.commands.common import Device, Json, channels_of, check_json, report

if TYPE_CHECKING:
    import numpy as np

    from napari_delse.annotation.actions import LabelledObject
    from napari_delse.annotation.records import Contents
    from napari_delse.annotation.replay import Replay
    from napari_delse.data.files import ImageFile


def export(
    labels: Annotated[
        Path, typer.Argument(metavar="LABELS", help="Label image: TIFF, OME-TIFF, PNG, OME-Zarr or a zarr array.")
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="File (or .zarr folder); its suffix tells the format.")],
    format_name: Annotated[
        str | None,
        typer.Option("--format", help="tiff, ome-tiff, ome-zarr, ome-zarr-0.4, coco, geojson (QuPath) or imagej."),
    ] = None,
    axes: Annotated[str | None, typer.Option("--axes", help="Names of the labels' axes, such as ZYX.")] = None,
    classes: Annotated[
        Path | None, typer.Option("--classes", help="CSV with the columns label,class: names of the objects.")
    ] = None,
    image: Annotated[str | None, typer.Option("--image", help="File name of the labelled image, for COCO.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it exists.")] = False,
) -> None:
    """Write labels for another program: OME, COCO, QuPath, ImageJ."""
    from napari_delse.data.files import open_image
    from napari_delse.export.labels import export_labels
    from napari_delse.export.source import fitting_units

    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; give another name, or --overwrite")
    options: dict[str, Any] = {"classes": _classes(classes), "image_name": image}
    with open_image(labels, axes, labels=True) as opened:
        if "S" in opened.axes:
            raise ValueError(
                f"{labels} holds colours (axes {opened.axes}), not labels; save one whole number per pixel"
            )
        sizes, units = opened.pixel_size
        scale, places = (
            [known.get(axis, none) for axis in opened.axes] for known, none in ((sizes, 1.0), (opened.origin, 0.0))
        )
        fitting, pixels = fitting_units(scale, [units.get(axis, "") for axis in opened.axes], places, opened.axes)
        options |= fitting if sizes else {"translate": places}
        if pixels:
            unknown = ", ".join(dict.fromkeys(units[axis] for axis in pixels))
            print(
                f"napari-delse: warning: {labels} has a unit that is not known along {', '.join(pixels)} ({unknown}); "
                "sizes there are left out",
                file=sys.stderr,
            )
        written = export_labels(opened.data, out, format_name, axes=opened.axes, **options)
    print(f"wrote {written}")


def replay(
    journal: Annotated[Path, typer.Argument(metavar="JOURNAL", help="Journal of an annotation, *.delse.jsonl.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="TIFF for the labels; replaced if it exists.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="Labels that the work began with, if there were some.")
    ] = None,
    prompts: Annotated[
        Path | None, typer.Option("--prompts", "-p", help="CSV for the clicks, boxes and drags of all objects.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Predict anew with this model and say which objects differ.")
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", help="The image, if it was moved.")] = None,
    channels: Annotated[str | None, typer.Option("--channels", help="Channels that were looked at.")] = None,
    axes: Annotated[str | None, typer.Option("--axes", help="Names of the image's axes.")] = None,
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Make labels anew from the journal of an annotation, such as after a crash."""
    from napari_delse._writing import write_atomically
    from napari_delse.annotation.journal import read
    from napari_delse.annotation.replay import labels_like, on_image
    from napari_delse.annotation.replay import replay as make_anew
    from napari_delse.data.files import TIFF, write_labels

    check_json(json_out)
    if out.suffix.lower() not in TIFF or out.is_dir():
        raise ValueError(f"labels are written as TIFF, so --out must be a file such as labels.tif, got {out}")
    taken = [other for other in (journal, labels, image) if other is not None and other.exists()]
    for target in (out, prompts):
        if target is not None and target.exists() and any(target.samefile(other) for other in taken):
            raise ValueError(f"{target} is what is read; give the result a file of its own")
    if prompts is not None and out.absolute().resolve() == prompts.absolute().resolve():
        raise ValueError(f"--out and --prompts are both {out}; give each a file of its own")
    contents = read(journal)
    header = contents.header
    named = image or (Path(header.image.path) if header.image.path else None)
    with _image_of_journal(named, axes, needed=image is not None or model is not None) as opened:
        predictor, predict = None, None
        if model is not None and opened is not None:
            from napari_delse.predict import Predictor

            predictor = Predictor.load(model, device)
            predict = on_image(predictor, opened, header.shape, channels_of(channels))
        began = None if labels is None else _labels_of_type(labels, contents.dtype)
        found = make_anew(journal, began, predict)
        like, array = labels_like(found.labels, opened), found.labels
        planes = array.reshape(-1, *array.shape[-2:])
        ome = out.name.lower().endswith((".ome.tif", ".ome.tiff"))
        write_atomically(out, lambda aside: write_labels(aside, planes, array.dtype, like, ome=ome))
    objects = found.session.objects
    lines = [f"{out}: {many(len(objects), 'object')} in labels of {array.shape} {array.dtype}"]
    if found.torn:
        lines.append("the journal broke off in its last line, which was left out")
    left_out, told = ([], []) if prompts is None else _write_prompts(prompts, objects)
    lines += told
    if predictor is not None:
        lines += _compared(found, contents, predictor.name, str(model))
    summary = {
        "journal": str(journal),
        "out": str(out),
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "objects": len(objects),
        "torn": found.torn,
        "model": header.model if predictor is None else predictor.name,
        "predicted": found.predicted,
        "differences": _differences(found),
        "kept": list(found.kept),
        "prompts": None if prompts is None else str(prompts),
        "without_prompts": left_out,
    }
    report(json_out, summary, lines)


def _write_prompts(path: Path, objects: Mapping[int, LabelledObject]) -> tuple[list[int], list[str]]:
    """Write a table of prompts; labels that it cannot hold, and what to tell."""
    from napari_delse.annotation.review import evolved_otherwise, object_prompts
    from napari_delse.data.prompts import write_prompts

    table, left_out = object_prompts(objects)
    write_prompts(path, table)
    unsaid = f", but not of {', '.join(map(str, left_out))}, in turned planes" if left_out else ""
    lines = [f"{path}: prompts of {many(len({one.label for one in table}), 'object')}{unsaid}"]
    if otherwise := evolved_otherwise(objects):
        settings = ", ".join(map(str, otherwise))
        lines.append(f"the table does not hold the evolution settings of {settings}; the journal does")
    return left_out, lines


def _differences(found: Replay) -> list[dict[str, Any]]:
    return [
        {"label": one.label, "index": list(one.plane.index), "iou": one.iou, "problem": one.problem}
        for one in found.differences
    ]


def _compared(found: Replay, contents: Contents, name: str, model: str) -> list[str]:
    """What to tell of masks that were predicted anew."""
    from napari_delse.annotation.journal import weights_hash
    from napari_delse.annotation.replay import other_weights
    from napari_delse.checkpoint import available_models

    lines = [f"{len(found.differences)} of {found.predicted} masks differ with {name}"]
    folder = available_models().get(model, Path(model))
    if unlike := other_weights(contents, name, weights_hash(folder)):
        lines.append(unlike)
    lines += [f"label {one.label}: IoU {one.iou:.3f} {one.problem}".rstrip() for one in found.differences]
    if found.kept:
        lines.append(f"merged or split, so kept as they are: {', '.join(map(str, found.kept))}")
    return lines


@contextmanager
def _image_of_journal(path: Path | None, axes: str | None, *, needed: bool) -> Iterator[ImageFile | None]:
    """The annotated image; None if it is not needed and cannot be read, as napari has further readers."""
    from napari_delse.data.files import open_image

    if needed and path is None:
        raise ValueError("the journal does not say where its image is; name it with --image")
    with ExitStack() as stack:
        opened = None
        if path is not None:
            try:
                opened = stack.enter_context(open_image(path, axes))
            except (OSError, ValueError):
                if needed:
                    raise
        yield opened


def _labels_of_type(path: Path, dtype: np.dtype[Any]) -> Any:
    """A label file in another type, if its labels fit."""
    from napari_delse.data.files import open_image

    with open_image(path) as opened:
        pixels = opened.read()
    labels = pixels.astype(dtype)
    if not (labels == pixels).all():
        raise ValueError(f"{path} holds labels that do not fit the type {labels.dtype} of the journal")
    return labels


def _classes(path: Path | None) -> dict[int, str] | None:
    """Class names from a table label,class."""
    if path is None:
        return None
    import csv

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.DictReader(file)
        if not {"label", "class"} <= set(rows.fieldnames or ()):
            raise ValueError(f"{path} must have the columns label,class, got {','.join(rows.fieldnames or ())}")
        try:
            return {int(row["label"]): row["class"] for row in rows}
        except ValueError as error:
            raise ValueError(f"{path}, line {rows.line_num}: labels must be whole numbers ({error})") from None
