"""``napari-delse figure``: the body of the command."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_delse.commands.common import (
    Axes,
    Channels,
    Device,
    Json,
    Model,
    channels_of,
    check_json,
    numbers_of,
    report,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from napari_delse.data.files import ImageFile
    from napari_delse.data.prompts import ObjectPrompt
    from napari_delse.predict import Prediction


def figure(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="TIFF (also stacks), PNG, JPEG ...")],
    prompts: Annotated[Path, typer.Option("--prompts", "-p", help="Table of clicks, boxes and drags; see segment.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="PNG for the figure; replaced if it exists.")],
    labels: Annotated[
        Path | None, typer.Option("--labels", help="True labels: draws and scores the truth too.")
    ] = None,
    label: Annotated[
        int | None, typer.Option("--label", help="Which object of the table; the first without it.")
    ] = None,
    plane: Annotated[
        str | None, typer.Option("--plane", help="Which plane of a stack, such as 3 or 0,3; the first with the object.")
    ] = None,
    gif: Annotated[Path | None, typer.Option("--gif", help="GIF of the evolution too; replaced if it exists.")] = None,
    channels: Channels = None,
    axes: Axes = None,
    model: Model = "default",
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Show how one mask came about: clicks, motion, modulation, phi step by step, contour and truth.

    The object is segmented anew from its prompts. With --gif the contour's way is animated as well.
    """
    from napari_delse.data.files import open_image
    from napari_delse.data.prompts import read_prompts
    from napari_delse.stacks.planes import fit_prompts

    check_json(json_out)
    _check_files(out, gif, (image, prompts, labels))
    one = _chosen(read_prompts(prompts), label, numbers_of("--plane", plane), prompts)
    with open_image(image, axes) as opened:
        ((one, seen),) = fit_prompts([one], opened, channels_of(channels))
        truth, owner = (None, None) if labels is None else _truth(labels, opened, one)
        from napari_delse.figures.evolution import evolution_figure, evolution_frames, write_animation, write_picture
        from napari_delse.figures.panels import Shown
        from napari_delse.predict import Predictor

        predictor = Predictor.load(model, device)
        shown_plane = opened.plane(one.index, seen)
        prediction = predictor.segment(shown_plane, one.prompt, one.corrections)
        shown = Shown(shown_plane, prediction, truth)
        name = f"{image.name}, label {one.label}" + (f", plane {','.join(map(str, one.index))}" if one.index else "")
        first, last = shown.scores(0), shown.scores(-1)
        caption = _caption(prediction, predictor.name, owner if owner != one.label else None, first, last)
        write_picture(out, evolution_figure(shown, name, caption))
        lines = [f"{out}: {caption.replace('φ', 'phi')}"]
        if gif is not None:
            frames = list(evolution_frames(shown, name))
            write_animation(gif, frames)
            lines.append(f"{gif}: {len(frames)} frames")
    summary = {
        "image": str(image),
        "figure": str(out),
        "gif": None if gif is None else str(gif),
        "model": predictor.name,
        "label": one.label,
        "index": list(one.index),
        "confidence": prediction.confidence,
        "truth": owner,
        "iou": None if last is None else last.iou,
        "boundary_f": None if last is None else list(last.boundary_f),
    }
    report(json_out, summary, lines)


def _check_files(out: Path, gif: Path | None, inputs: tuple[Path | None, ...]) -> None:
    """Refuse impossible files before the work and not after it."""
    for option, path, suffix in (("--out", out, ".png"), ("--gif", gif, ".gif")):
        if path is None:
            continue
        if path.suffix.lower() != suffix or path.is_dir():
            raise ValueError(f"{option} must be a file such as figure{suffix}, got {path}")
        if path.exists() and any(other is not None and other.exists() and path.samefile(other) for other in inputs):
            raise ValueError(f"{option} {path} is what is read; give the picture a file of its own")


def _chosen(objects: list[ObjectPrompt], label: int | None, plane: tuple[int, ...] | None, table: Path) -> ObjectPrompt:
    """The wanted object of a table."""
    for one in objects:
        if label in (None, one.label) and plane in (None, one.index):
            return one
    wanted = " in ".join(
        part for part in (f"label {label}" * (label is not None), f"plane {plane}" * (plane is not None)) if part
    )
    known = sorted({one.label for one in objects if plane in (None, one.index)} or {one.label for one in objects})
    some = ", ".join(map(str, known[:8])) + (" ..." if len(known) > 8 else "")
    raise ValueError(f"{table} has no prompts of {wanted}; it has the labels {some}")


def _truth(path: Path, image: ImageFile, one: ObjectPrompt) -> tuple[npt.NDArray[np.bool_], int]:
    """The true object at the prompts, and its id: that of the prompts if it lies there, else the one that fits best."""
    from napari_delse.data.files import open_image

    shape = (*image.plane_counts, *image.plane_shape)
    try:
        with open_image(path, image.plane_axes + "YX") as opened:
            if tuple(opened.data.shape) != shape:
                raise ValueError(f"it has the shape {tuple(opened.data.shape)}")
            pixels: Any = opened.data[(*one.index, slice(None), slice(None))]
    except ValueError as error:
        raise ValueError(
            f"--labels {path} must hold labels of {image.path}, shape {shape}, but cannot ({error}); give those"
        ) from error
    import numpy as np

    from napari_delse.confidence import box_iou, box_of
    from napari_delse.data.samples import IGNORE
    from napari_delse.geometry import ObjectMask

    y0, x0, y1, x1 = (round(v) for v in one.prompt.box)
    near = np.unique(pixels[max(0, y0) : max(0, y1 + 1), max(0, x0) : max(0, x1 + 1)])
    fits = {
        int(label): box_iou(box_of(ObjectMask.from_plane(pixels == label)), one.prompt.box)
        for label in near
        if label not in (0, IGNORE)
    }
    if not fits:
        raise ValueError(f"{path} has no object where label {one.label} was clicked; leave --labels out")
    best = one.label if one.label in fits else max(fits, key=lambda label: fits[label])
    return pixels == best, best


def _caption(prediction: Prediction, model: str, owner: int | None, first: Any, last: Any) -> str:
    """Numbers of the figure in one line."""
    points, drags = len(prediction.prompt.points), len(prediction.corrections)
    said = "a box" if prediction.prompt.kind == "box" else f"{points} clicks"
    said += f" and {drags} drag{'s' * (drags > 1)}" if drags else ""
    parts = [f"{said}, model {model}", f"{prediction.confidence:.0%} sure"]
    if last is not None:
        score = f"IoU {last.iou:.3f}, F {last.boundary_f[0]:.3f} at 1 px and {last.boundary_f[1]:.3f} at 2 px"
        if len(prediction.states) > 1:
            score += f" (φ_0: {first.iou:.3f}, {first.boundary_f[0]:.3f}, {first.boundary_f[1]:.3f})"
        parts.insert(1, score + (f", truth: label {owner}" if owner is not None else ""))
    return "; ".join(parts)
