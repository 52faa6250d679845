"""The command ``napari-delse``. What costs time to import is imported by the commands that need it."""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand

from napari_delse._cli_figure import figure

if TYPE_CHECKING:
    from napari_delse.files import ImageFile
    from napari_delse.stacks import LabelPlane

T = TypeVar("T")

app = typer.Typer(
    name="napari-delse",
    help="Four clicks on an object's extreme points, one mask: deep level set evolution (DELSE).",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """A command whose ``--json`` without a file means standard output."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        parts: list[str] = []
        for i, part in enumerate(args):
            parts.append(part)
            following = args[i + 1] if i + 1 < len(args) else "--"
            if part == "--json" and following != "-" and following.startswith("-"):
                parts.append("-")
        return super().parse_args(ctx, parts)


Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model, or its folder.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps ...")]
Json = Annotated[
    str | None, typer.Option("--json", metavar="OUT", help="Write the result as JSON; '-' is standard output.")
]


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; errors are one sentence on stderr and exit code 2.

    Parameters
    ----------
    args : sequence of str, optional
        Arguments; those of the process by default. With NAPARI_DELSE_DEBUG in the environment, errors keep their
        traceback.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_run(args))


def _run(args: Sequence[str] | None) -> int:
    """Run the command line; returns the exit code."""
    try:
        code = app(args=args, prog_name="napari-delse", standalone_mode=False)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if type(error).__name__ == "Abort":  # what typer makes of Ctrl-C
            return 130
        sentence = _sentence(error)
        if sentence is None or os.environ.get("NAPARI_DELSE_DEBUG"):
            raise
        print(f"napari-delse: {sentence}", file=sys.stderr)
        return 2
    return code if isinstance(code, int) else 0


def _sentence(error: Exception) -> str | None:
    """What a person needs to know about an error; None for those that are ours."""
    if hasattr(error, "format_message"):  # click's, wherever typer keeps them
        text = error.format_message() + " (see --help)"
    elif isinstance(error, OSError) and error.strerror and error.filename:
        text = f"{error.filename}: {error.strerror}"
    elif isinstance(error, (ValueError, OSError, ImportError, RuntimeError, MemoryError)):
        text = str(error) or type(error).__name__
    else:
        return None
    return " ".join(text.split())


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
        print(f"napari-delse: warning: {' '.join(str(message).split())}", file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        from napari_delse import __version__

        print(f"napari-delse {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None and not version:
        print(context.get_help())


@app.command(cls=_Command)
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

    _check_json(json_out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder with --out")
    predictor = Predictor.load(model, device)
    results = list(run_demo(predictor, out))
    summary = {
        "model": predictor.name,
        "device": str(predictor.device),
        "images": [result.summary() for result in results],
    }
    table = _table(HEADER, [result.row() for result in results])
    files = [f"wrote {path}" for result in results for path in (result.labels_path, result.overlay_path)]
    _report(json_out, summary, [table, "", *files])
    if view:
        show(results)


@app.command(cls=_Command)
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
    channels: Annotated[
        str | None, typer.Option("--channels", help="One to three channels to look at, such as 0 or 2,1.")
    ] = None,
    axes: Annotated[
        str | None, typer.Option("--axes", help="Names of the image's axes, such as ZYX, TCYX or YXS (colours).")
    ] = None,
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

    _check_json(json_out)
    if out.suffix.lower() not in TIFF or out.is_dir():
        raise ValueError(f"labels are written as TIFF, so --out must be a file such as labels.tif, got {out}")
    if out.exists() and any(other.exists() and out.samefile(other) for other in (image, prompts)):
        raise ValueError(f"--out {out} is what is read; give the labels a file of their own")
    objects = read_prompts(prompts)
    dtype = label_dtype(max(one.label for one in objects))
    with open_image(image, axes) as opened:
        fitted = fit_prompts(objects, opened, _channels(channels))
        from napari_delse.checkpoint import write_atomically
        from napari_delse.predict import Predictor

        start = time.perf_counter()
        predictor = Predictor.load(model, device)
        done: list[Any] = []
        planes = _collected(label_planes(predictor, opened, fitted, dtype, overwrite=overwrite_labels), done)
        planes = _progress(planes, len(fitted), lambda _: (len(done), "objects"))
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
    _report(json_out, summary, [text])


@app.command(cls=_Command)
def evaluate(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Data sets with images/ and labels/ of the same names.")
    ],
    model: Model = "default",
    prompts: Annotated[str, typer.Option("--prompts", help="extreme (four extreme points) or box.")] = "extreme",
    jitter: Annotated[
        float, typer.Option("--jitter", help="Uniform noise on the prompts, as a fraction of the box side: 0.05.")
    ] = 0.0,
    drags: Annotated[int, typer.Option("--drags", help="Simulated drags per object.")] = 0,
    clicks: Annotated[int, typer.Option("--clicks", help="Simulated further boundary clicks, instead of drags.")] = 0,
    max_objects: Annotated[
        int | None, typer.Option("--max-objects", help="At most so many objects per folder, drawn with the seed.")
    ] = None,
    listed: Annotated[
        Path | None, typer.Option("--list", help="Text file with the images to take: one stem or folder/stem per line.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the noise and the draw.")] = 0,
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Score a model on labelled images.

    Labels are instance ids; 0 is background and 65535 is ignored. Stacks are taken plane by plane. Masks are
    compared in image pixels: mean IoU, and boundary F (DAVIS) within 1 and 2 pixels.
    """
    from napari_delse.evaluation import EvaluateConfig, read_list, set_names, summarise
    from napari_delse.evaluation import evaluate as score

    _check_json(json_out)
    config = EvaluateConfig(
        prompts=prompts,  # type: ignore[arg-type] # which the config checks
        jitter=jitter,
        drags=drags,
        clicks=clicks,
        max_objects=max_objects,
        seed=seed,
    )
    names = None if listed is None else read_list(listed, set_names(folders))
    from napari_delse.predict import Predictor

    predictor = Predictor.load(model, device)
    scores = list(_progress(score(predictor, folders, config, names), None, lambda s: (s.done, f"of {s.total}")))
    result = summarise(scores, predictor, config)
    header = ("", "objects", "mIoU", "F 1 px", "F 2 px", "ms/object")

    def row(name: str, part: dict[str, Any]) -> list[str]:
        milliseconds = f"{part['ms_per_object']:.1f}" if "ms_per_object" in part else ""
        shown = [f"{part[key]:.4f}" for key in ("miou", "f_1px", "f_2px")]
        return [name, str(part.get("objects", "")), *shown, milliseconds]

    rows = [row(name, part) for name, part in result["by_set"].items()] + [row("all", result)]
    kind = "drag" if drags else "click"
    rows += [row(f"all + {k} {kind}{'s' * (k > 1)}", step) for k, step in enumerate(result["steps"]) if k]
    _report(json_out, result, [_table(header, rows)])


@app.command(cls=_Command)
def train(
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="Image, stack (TIFF) or folder of them.")],
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Instance ids: a file, or a folder of equal names.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the new model; its last part is the name.")],
    parent: Annotated[str, typer.Option("--from", help="Model to begin with: a name or a folder.")] = "default",
    minutes: Annotated[float, typer.Option("--minutes", help="Time to train.")] = 5.0,
    steps: Annotated[
        int | None, typer.Option("--steps", help="Exactly so many steps instead, to be repeatable.")
    ] = None,
    validation: Annotated[float, typer.Option("--validation", help="Share of the objects held out.")] = 0.25,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="At its highest.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Objects per step.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of everything that is drawn.")] = 0,
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Fine-tune a model on your own labelled images, and say whether it became better.

    Some of the objects are held out (whole images or planes, so that they are new to the model) and scored before
    and after. A model that is not better than its parent is not kept. Ctrl-C stops; the same command goes on.
    """
    from napari_delse.data import read_pairs
    from napari_delse.finetune import FineTuneConfig, fine_tune

    _check_json(json_out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder with --out")
    given = {"steps": steps, "learning_rate": learning_rate, "batch_size": batch_size}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    config = FineTuneConfig(minutes=minutes, validation=validation, seed=seed, **chosen)
    samples = list(read_pairs(images, labels))
    from napari_delse.predict import choose_device

    last = None
    for last in fine_tune(parent, samples, out, config, device=choose_device(device)):
        print(
            f"{last.fraction:4.0%}  loss {last.loss:.3f}  held-out IoU {last.now.mean_iou:.4f} "
            f"(before {last.before.mean_iou:.4f}, best {last.best.mean_iou:.4f}), {last.remaining:.0f} s left",
            file=sys.stderr,
            flush=True,
        )
    assert last is not None
    scores = {
        name: {"miou": s.mean_iou, "f_2px": s.mean_f} for name, s in (("before", last.before), ("after", last.best))
    }
    summary = {"model": str(out), "improved": last.improved, "held_out_objects": len(last.before.iou), **scores}
    header = ("held-out objects", "mIoU", "F 2 px")
    rows = [[name, f"{s['miou']:.4f}", f"{s['f_2px']:.4f}"] for name, s in scores.items()]
    verdict = (
        f"{out} is better on {len(last.before.iou)} held-out objects; use it with --model {out}"
        if last.improved
        else f"nothing was better than {parent} on {len(last.before.iou)} held-out objects, so {out} is a copy of it; "
        "label more objects or train longer"
    )
    _report(json_out, summary, [_table(header, rows), "", verdict])


@app.command(cls=_Command)
def models(json_out: Json = None) -> None:
    """List the models that can be named with --model."""
    from napari_delse.checkpoint import available_models

    _check_json(json_out)
    found = [_describe(name, path) for name, path in available_models().items()]
    rows = []
    for one in found:
        scores = one["validation"] or {}
        shown = [f"{scores[key]:.4f}" if key in scores else "" for key in ("miou", "f_1px", "f_2px")]
        counted = [f"{one['parameters'] / 1e6:.2f} M", f"{one['megabytes']:.1f} MB"] if one["parameters"] else ["", ""]
        note = one["path"] + (f" (damaged: {one['problem']})" if one["problem"] else "")
        rows.append([one["name"], one["architecture"] or "", str(one["size"] or ""), *counted, *shown, note])
    header = ("name", "architecture", "size", "parameters", "file", "mIoU", "F 1 px", "F 2 px", "path")
    _report(json_out, {"models": found}, [_table(header, rows) if rows else "no model is installed"])


@app.command(cls=_Command)
def export(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Label image: TIFF, OME-TIFF, PNG or a zarr array.")],
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
    from napari_delse.export import export_labels
    from napari_delse.files import open_image

    if out.exists() and not overwrite:
        raise ValueError(f"{out} exists; give another name, or --overwrite")
    options: dict[str, Any] = {"classes": _classes(classes), "image_name": image}
    if labels.is_dir():
        import zarr

        written = export_labels(zarr.open_array(labels, mode="r"), out, format_name, axes=axes, **options)
    else:
        with open_image(labels, axes) as opened:
            sizes, units = opened.pixel_size
            if sizes:
                options["scale"] = [sizes.get(axis, 1.0) for axis in opened.axes]
                options["units"] = [units.get(axis, "pixel") for axis in opened.axes]
            written = export_labels(opened.data, out, format_name, axes=opened.axes, **options)
    print(f"wrote {written}")


@app.command(cls=_Command)
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
    from napari_delse.checkpoint import available_models, write_atomically
    from napari_delse.files import TIFF, write_labels
    from napari_delse.journal import read, weights_hash
    from napari_delse.prompts import write_prompts
    from napari_delse.replay import labels_like, on_image, other_weights
    from napari_delse.replay import replay as make_anew
    from napari_delse.review import object_prompts

    _check_json(json_out)
    if out.suffix.lower() not in TIFF or out.is_dir():
        raise ValueError(f"labels are written as TIFF, so --out must be a file such as labels.tif, got {out}")
    taken = [other for other in (journal, labels, image) if other is not None and other.exists()]
    for target in (out, prompts):
        if target is not None and target.exists() and any(target.samefile(other) for other in taken):
            raise ValueError(f"{target} is what is read; give the result a file of its own")
    contents = read(journal)
    header = contents.header
    named = image or (Path(header.image.path) if header.image.path else None)
    with _image_of_journal(named, axes, needed=image is not None or model is not None) as opened:
        predictor, predict = None, None
        if model is not None and opened is not None:
            from napari_delse.predict import Predictor

            predictor = Predictor.load(model, device)
            predict = on_image(predictor, opened, header.shape, _channels(channels))
        began = None if labels is None else _labels_of_type(labels, header.dtype)
        found = make_anew(journal, began, predict)
        like, array = labels_like(found.labels, opened), found.labels
        planes = array.reshape(-1, *array.shape[-2:])
        ome = out.name.lower().endswith((".ome.tif", ".ome.tiff"))
        write_atomically(out, lambda aside: write_labels(aside, planes, array.dtype, like, ome=ome))
    objects = found.session.objects
    lines = [f"{out}: {len(objects)} objects in labels of {array.shape} {array.dtype}"]
    if found.torn:
        lines.append("the journal broke off in its last line, which was left out")
    left_out: list[int] = []
    if prompts is not None:
        table, left_out = object_prompts(objects)
        write_prompts(prompts, table)
        unsaid = f", but not of {', '.join(map(str, left_out))}, in turned planes" if left_out else ""
        lines.append(f"{prompts}: prompts of {len(table)} objects{unsaid}")
    differences = [
        {"label": one.label, "index": list(one.plane.index), "iou": one.iou, "problem": one.problem}
        for one in found.differences
    ]
    if predictor is not None:
        lines.append(f"{len(differences)} of {found.predicted} masks differ with {predictor.name}")
        folder = available_models().get(str(model), Path(str(model)))
        if unlike := other_weights(contents, predictor.name, weights_hash(folder)):
            lines.append(unlike)
        lines += [f"label {one['label']}: IoU {one['iou']:.3f} {one['problem']}".rstrip() for one in differences]
        if found.kept:
            lines.append(f"merged or split, so kept as they are: {', '.join(map(str, found.kept))}")
    summary = {
        "journal": str(journal),
        "out": str(out),
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "objects": len(objects),
        "torn": found.torn,
        "model": header.model if predictor is None else predictor.name,
        "predicted": found.predicted,
        "differences": differences,
        "kept": list(found.kept),
        "prompts": None if prompts is None else str(prompts),
        "without_prompts": left_out,
    }
    _report(json_out, summary, lines)


app.command(cls=_Command)(figure)


@contextmanager
def _image_of_journal(path: Path | None, axes: str | None, *, needed: bool) -> Iterator[ImageFile | None]:
    """The annotated image; None if it is not needed and cannot be read, as napari has further readers."""
    from napari_delse.files import open_image

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


def _labels_of_type(path: Path, dtype: str) -> Any:
    """A label file in another type, if its labels fit."""
    from napari_delse.files import open_image

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


def _describe(name: str, path: Path) -> dict[str, Any]:
    """One model from its files, without loading it."""
    described: dict[str, Any] = dict.fromkeys(
        ("name", "architecture", "size", "parameters", "megabytes", "licence", "validation", "path", "problem")
    )
    described.update(name=name, path=str(path))
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))["model"]
        described.update(architecture=config["architecture"], size=config["crop"]["size"])
        weights = path / "model.safetensors"
        with weights.open("rb") as file:  # eight bytes tell the length of a header that names every tensor
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        described["parameters"] = sum(
            _product(tensor["shape"])
            for key, tensor in header.items()
            if key != "__metadata__" and not key.endswith(("running_mean", "running_var", "num_batches_tracked"))
        )
        described["megabytes"] = weights.stat().st_size / 1e6
        card_file = path / "card.json"
        card = json.loads(card_file.read_text(encoding="utf-8")) if card_file.is_file() else {}
        described["licence"] = card.get("licence")
        scores = card.get("validation", {}).get("extreme_points", {})
        kept = ("objects", "miou", "f_1px", "f_2px", "boundary_f", "ms_per_object")
        described["validation"] = {key: scores[key] for key in kept if key in scores} or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        described["problem"] = _sentence(error) if isinstance(error, (OSError, ValueError)) else f"no {error}"
    return described


def _product(numbers: Iterable[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result


def _channels(text: str | None) -> tuple[int, ...]:
    try:
        return () if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f"--channels must be numbers from 0 with commas between, such as 0,2, got {text!r}") from None


def _collected(planes: Iterable[LabelPlane], done: list[Any]) -> Iterator[LabelPlane]:
    for plane in planes:
        done.extend(plane.objects)
        yield plane


def _progress(steps: Iterable[T], total: int | None, describe: Callable[[T], tuple[int, str]]) -> Iterator[T]:
    """Pass the steps on, with a line on stderr if a person looks at it."""
    watched, start, shown = sys.stderr.isatty(), time.monotonic(), 0.0
    for step in steps:
        yield step
        now = time.monotonic()
        if watched and now - shown > 0.2:
            count, text = describe(step)
            of = f" of {total}" if total else ""
            print(f"\r\x1b[K{count}{of} {text}, {now - start:.0f} s", end="", file=sys.stderr, flush=True)
            shown = now
    if watched and shown:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text: the first and the last to the left, numbers to the right."""
    lines = [header, *rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if _is_number_column(rows, i) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _is_number_column(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(not row[column] or row[column][0].isdigit() for row in rows)


def _check_json(out: str | None) -> None:
    """Refuse an impossible file before the work and not after it."""
    if out not in (None, "-"):
        path = Path(out)
        existing = next(parent for parent in path.absolute().parents if parent.exists())
        if path.is_dir() or not existing.is_dir():
            raise ValueError(f"--json {out} cannot be written as a file; name a file such as result.json")


def _report(json_out: str | None, content: dict[str, Any], lines: Sequence[str]) -> None:
    """Text on stdout, unless the JSON goes there."""
    if json_out == "-":
        print(json.dumps(content, indent=1))
        return
    print("\n".join(lines))
    if json_out is not None:
        from napari_delse.checkpoint import write_json

        write_json(Path(json_out), content)
