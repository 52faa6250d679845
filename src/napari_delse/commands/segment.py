"""The commands that make masks: demo and segment."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_delse._words import many
from napari_delse.commands.common import (
    Axes,
    Channels,
    Device,
    Json,
    Model,
    channels_of,
    check_json,
    numbers_of,
    progress,
    refuse,
    report,
    sentence_of,
    table,
)

if TYPE_CHECKING:
    from napari_delse.stacks.batches import Engine, How, Job, Mode, Outcome, Progress


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
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...", help="TIFF (also stacks), PNG, OME-Zarr ...; folders; patterns such as *.tif"
        ),
    ],
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            "-p",
            metavar="FILE|labels:PATH|propagate:PATH",
            help="CSV that napari saved from a Points layer (every four rows one object), or a table "
            "label,kind,axis-0,...,to-0,... with kind extreme, box or drag; labels:PATH refines the labels of another "
            "tool; propagate:PATH carries the objects of labelled planes through the others. For several inputs, a "
            "folder with files of their names.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="TIFF or .zarr for the labels of a single input; replaced if it exists."),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option("--out-dir", help="Folder for labels and tables; what is finished there is not made again."),
    ] = None,
    format_name: Annotated[
        str | None, typer.Option("--format", help="tiff, ome-tiff or ome-zarr; by default as the input.")
    ] = None,
    channels: Channels = None,
    axes: Axes = None,
    along: Annotated[
        str | None, typer.Option("--along", help="Axis to propagate along, z or t; by default the only one, or z.")
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option("--keys", help="Planes to propagate from, such as 0,10,20; by default all with labels."),
    ] = None,
    overwrite_labels: Annotated[
        bool, typer.Option("--overwrite-labels", help="Let later objects paint over earlier ones.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make finished results anew, and replace other files.")
    ] = False,
    model: Model = "default",
    device: Device = "auto",
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Groups of objects at a time; by default one per core.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", help="Address of a dask cluster to work on, such as tcp://host:8786.")
    ] = None,
    json_out: Json = None,
) -> None:
    """Segment objects of images from prompts, coarse labels or labelled planes.

    Labels are unsigned integers of the smallest type that holds the largest label (uint8, uint16 or uint32). The exit
    code is 0 if all files are made, 1 if some failed, 2 if nothing was begun, 130 after Ctrl-C; the same command goes
    on where it was stopped.
    """
    from napari_delse.stacks.batch_files import inputs_of, jobs_of, mode_of
    from napari_delse.stacks.batches import How

    check_json(json_out)
    mode, path = mode_of(prompts)
    images = inputs_of(inputs)
    if mode != "propagate":
        refuse("only propagate:PATH follows planes", {"--along": along, "--keys": keys})
    if out is not None:
        refuse("the name that --out gives says the format", {"--format": format_name})
    how = How(
        channels=channels_of(channels),
        axes=axes,
        overwrite_labels=overwrite_labels,
        along=along,
        keys=numbers_of("--keys", keys) or (),
    )
    if out is not None and out_dir is None:
        jobs = [_single_job(images, mode, path, out)]
    elif out_dir is not None and out is None:
        jobs = jobs_of(images, mode, path, out_dir, format_name)
    else:
        raise ValueError("say where the labels go: --out FILE for a single input, or --out-dir FOLDER")
    with _engine(model, device, threads, scheduler) as (engine, about):
        if out is not None:
            _one_file(jobs[0], engine, how, about, json_out)
        else:
            _many_files(jobs, engine, how, about, json_out, again=overwrite)


def _single_job(images: Sequence[Path], mode: Mode, prompts: Path, out: Path) -> Job:
    from napari_delse.data.files import TIFF
    from napari_delse.stacks.batch_files import prompts_of, spare_inputs
    from napari_delse.stacks.batches import Job

    if len(images) != 1:
        raise ValueError(f"--out is for a single input, got {len(images)}; give a folder with --out-dir")
    zarr = out.suffix.lower() == ".zarr" or (out.parent.name == "labels" and not out.suffix)
    if not zarr and (out.suffix.lower() not in TIFF or out.is_dir()):
        raise ValueError(
            f"labels are written as TIFF or OME-Zarr, so --out must be such as labels.tif or labels.ome.zarr, got {out}"
        )
    job = Job(images[0], mode, prompts_of(images[0], mode, prompts), out)
    spare_inputs([job], "give the labels a file of their own")
    return job


@contextmanager
def _engine(
    model: str, device: str, threads: int | None, scheduler: str | None
) -> Iterator[tuple[Engine, dict[str, str]]]:
    """Where to predict, and what to tell of it."""
    if scheduler is not None:
        from napari_delse.stacks.cluster import Cluster

        with Cluster(scheduler, model, device) as cluster:
            yield cluster, {"model": model, "device": scheduler}
        return
    from napari_delse.checkpoint import model_fingerprint
    from napari_delse.predict import Predictor
    from napari_delse.stacks.batches import Threads, usual_threads

    # Each block on one thread: blocks side by side are faster than all threads on one, and give the same bits
    # whatever their number.
    predictor = Predictor.load(model, device, 1)
    device = str(predictor.device)
    yield (
        Threads(predictor, model_fingerprint(model), threads or usual_threads(device)),
        {"model": predictor.name, "device": device},
    )


def _one_file(job: Job, engine: Engine, how: How, about: dict[str, str], json_out: str | None) -> None:
    """The command with --out: errors are those of the command."""
    from napari_delse.stacks.batches import run

    (outcome,) = _watched(run([job], engine, how, again=True, rows=True), 1)
    if outcome.error is not None:
        raise outcome.error
    rows = outcome.rows
    if empty := [row for row in rows if row.area == 0 and not row.doubt]:
        named = ", ".join(str(row.label) + (f" in plane {row.index}" if row.index else "") for row in empty)
        print(f"napari-delse: warning: nothing was painted for label {named}", file=sys.stderr)
    timed = [row.milliseconds for row in rows if row.milliseconds]  # objects of key planes, or carried, are not
    summary = {
        "image": str(job.image),
        "out": str(job.out),
        **about,
        "axes": outcome.axes,
        "shape": list(outcome.shape),
        "dtype": outcome.dtype,
        "objects": outcome.objects,
        "planes": outcome.planes,
        "ms_per_object": sum(timed) / len(timed) if timed else None,
        "seconds": outcome.seconds,
        "labels": [
            {"label": row.label, "index": list(row.index), "area": row.area, "confidence": row.confidence}
            for row in rows
        ],
    }
    found = f"{many(outcome.objects, 'object')} in {many(outcome.planes, 'plane')}"
    what = f"{found} of {outcome.shape} {outcome.dtype}"
    report(json_out, summary, [f"{job.out}: {what}, {outcome.seconds:.1f} s"])


def _many_files(
    jobs: Sequence[Job], engine: Engine, how: How, about: dict[str, str], json_out: str | None, *, again: bool
) -> None:
    """The command with --out-dir: bad files are reported, and the rest goes on."""
    from napari_delse.stacks.batches import run

    outcomes = []
    for outcome in _watched(run(jobs, engine, how, again=again), len(jobs)):
        outcomes.append(outcome)
        if outcome.error is not None:
            print(f"napari-delse: {outcome.job.image}: {_reason(outcome.error)}", file=sys.stderr)
    failed = sum(outcome.status == "failed" for outcome in outcomes)
    rows = [_row(outcome) for outcome in outcomes]
    counted = ", ".join(
        f"{n} {status}"
        for status in ("done", "skipped", "failed")
        if (n := sum(outcome.status == status for outcome in outcomes))
    )
    report(json_out, {**about, "files": [_summary(one) for one in outcomes]}, [table(_HEADER, rows), "", counted])
    if failed:
        raise typer.Exit(1)


_HEADER = ("file", "objects", "planes", "confidence", "unsure planes", "seconds", "result")


def _row(one: Outcome) -> list[str]:
    known = one.status != "failed" and one.counted
    confidence = f"{one.confidence:.2f}" if one.objects else ""
    counts = [str(one.objects), str(one.planes), confidence, str(len(one.unsure))] if known else [""] * 4
    result = str(one.job.out) if one.status == "done" else one.status
    return [one.job.image.name, *counts, f"{one.seconds:.1f}", result]


def _summary(one: Outcome) -> dict[str, Any]:
    summary: dict[str, Any] = {"image": str(one.job.image), "prompts": str(one.job.prompts), "result": one.status}
    if one.error is not None:
        return summary | {"error": _reason(one.error), "seconds": one.seconds}
    counts: dict[str, Any] = {
        "objects": one.objects,
        "planes": one.planes,
        "confidence": one.confidence if one.objects else None,
        "unsure_planes": [list(index) for index in one.unsure],
    }
    counts = counts if one.counted else dict.fromkeys(counts)
    return summary | {"out": str(one.job.out), "table": str(one.job.table), **counts, "seconds": one.seconds}


def _reason(error: Exception) -> str:
    return sentence_of(error) or f"{type(error).__name__}: {error}"


def _watched(steps: Iterable[Progress | Outcome], total: int) -> Iterator[Outcome]:
    """The outcomes, with a line on stderr about what happens in between if a person looks at it."""
    from napari_delse.stacks.batches import Outcome

    made = 0

    def describe(step: Progress | Outcome) -> tuple[int, str]:
        if isinstance(step, Outcome):
            return made, "files"
        left = timedelta(seconds=round(step.seconds_left))
        return made, f"files, {step.job.image.name} {step.fraction:.0%}, {left} left"

    for step in progress(steps, total, describe):
        if isinstance(step, Outcome):
            made += 1
            yield step
