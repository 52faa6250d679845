"""The commands that make masks: demo and segment."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_delse._cli_common import (
    Axes,
    Channels,
    Device,
    Json,
    Model,
    channels_of,
    check_json,
    progress,
    report,
    table,
)

if TYPE_CHECKING:
    from napari_delse.stacks import LabelPlane


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for label images and overlays.")] = Path(
        "demo_output"
    ),
    view: Annotated[bool, typer.Option("--view", help="Open napari on the result.")] = False,
    model: Model = "default",
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Segment the bundled sample stack and a photograph from recorded clicks and one drag."""
    from napari_delse.demo import HEADER, run_demo, show
    from napari_delse.predict import Predictor

    check_json(json_out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder with --out")
    predictor = Predictor.load(model, device)
    results = list(run_demo(predictor, out))
    summary = {
        "model": predictor.name,
        "device": str(predictor.device),
        "images": [result.summary() for result in results],
    }
    rows = table(HEADER, [result.row() for result in results])
    files = [f"wrote {path}" for result in results for path in (result.labels_path, result.overlay_path)]
    report(json_out, summary, [rows, "", *files])
    if view:
        show(results)


def segment(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="TIFF (also stacks), PNG, JPEG ...")],
    prompts: Annotated[
        Path,
        typer.Option(
            "--prompts",
            "-p",
            help="CSV that napari saved from a Points layer (every four rows one object), "
            "or a table label,kind,axis-0,...,to-0,... with kind extreme, box or drag.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="TIFF for the labels; replaced if it exists.")],
    channels: Channels = None,
    axes: Axes = None,
    overwrite_labels: Annotated[
        bool, typer.Option("--overwrite-labels", help="Let later objects paint over earlier ones.")
    ] = False,
    model: Model = "default",
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Segment objects of an image from recorded prompts.

    Labels are unsigned integers of the smallest type that holds the largest label (uint8, uint16 or uint32).
    """
    from napari_delse.files import TIFF, label_dtype, open_image, write_labels
    from napari_delse.prompts import read_prompts
    from napari_delse.stacks import fit_prompts, label_planes

    check_json(json_out)
    if out.suffix.lower() not in TIFF or out.is_dir():
        raise ValueError(f"labels are written as TIFF, so --out must be a file such as labels.tif, got {out}")
    if out.exists() and any(other.exists() and out.samefile(other) for other in (image, prompts)):
        raise ValueError(f"--out {out} is what is read; give the labels a file of their own")
    objects = read_prompts(prompts)
    dtype = label_dtype(max(one.label for one in objects))
    with open_image(image, axes) as opened:
        fitted = fit_prompts(objects, opened, channels_of(channels))
        from napari_delse.checkpoint import write_atomically
        from napari_delse.predict import Predictor

        start = time.perf_counter()
        predictor = Predictor.load(model, device)
        done: list[Any] = []
        planes = _collected(label_planes(predictor, opened, fitted, dtype, overwrite=overwrite_labels), done)
        planes = progress(planes, len(fitted), lambda _: (len(done), "objects"))
        shape: list[int] = []
        ome = out.name.lower().endswith((".ome.tif", ".ome.tiff"))
        write_atomically(
            out, lambda aside: shape.extend(write_labels(aside, (p.labels for p in planes), dtype, opened, ome=ome))
        )
        letters = opened.plane_axes + "YX"
    seconds = time.perf_counter() - start
    empty = [one for one in done if one.area == 0]
    if empty:
        named = ", ".join(str(one.label) + (f" in plane {one.index}" if one.index else "") for one in empty)
        print(f"napari-delse: warning: nothing was painted for label {named}", file=sys.stderr)
    mean = sum(one.milliseconds for one in done) / len(done)
    summary = {
        "image": str(image),
        "out": str(out),
        "model": predictor.name,
        "device": str(predictor.device),
        "axes": letters,
        "shape": shape,
        "dtype": str(dtype),
        "objects": len(done),
        "planes": len({one.index for one in done}),
        "ms_per_object": mean,
        "seconds": seconds,
        "labels": [
            {"label": one.label, "index": list(one.index), "area": one.area, "confidence": one.confidence}
            for one in done
        ],
    }
    text = f"{out}: {len(done)} objects in {summary['planes']} planes of {tuple(shape)} {dtype}, {mean:.0f} ms each"
    report(json_out, summary, [text])


def _collected(planes: Iterable[LabelPlane], done: list[Any]) -> Iterator[LabelPlane]:
    for plane in planes:
        done.extend(plane.objects)
        yield plane
