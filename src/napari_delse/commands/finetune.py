"""Fine-tuning on the command line: the survey first, then progress, then the verdict."""

from __future__ import annotations

import math
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_delse.commands.common import progress, report, table

if TYPE_CHECKING:
    from napari_delse.finetuning.jobs import Job
    from napari_delse.finetuning.labelled_sources import Source
    from napari_delse.finetuning.run import JobProgress
    from napari_delse.finetuning.survey import Survey
    from napari_delse.train.distributed import World


@dataclass(frozen=True)
class Where:
    """Where the labelled objects are."""

    images: Path
    labels: Path  # or a journal
    begun_with: Path | None = None
    channels: tuple[int, ...] = ()
    axes: str | None = None


@dataclass(frozen=True)
class Wanted:
    """What is to become of them."""

    name: str
    out: Path | None
    parent: str
    given: Mapping[str, Any]
    changes: tuple[str, ...] = ()


@contextmanager
def told_when_stopped(world: World) -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        if world.leads:
            print("napari-delse: stopped; the same command goes on from here", file=sys.stderr)
        raise


def fine_tune(where: Where, wanted: Wanted, device: str, json_out: str | None) -> None:
    """Survey, prepare, train and judge."""
    from napari_delse.finetuning.run import run
    from napari_delse.predict import choose_device
    from napari_delse.train.distributed import joined

    with joined(choose_device(device)) as (world, place), told_when_stopped(world):
        folder = _shared(world, where, wanted)
        if folder:
            _train(run(folder, device=place, world=world), world, json_out)


def _shared(world: World, where: Where, wanted: Wanted) -> str:
    """Folder of the job, which the first process prepares; empty on the others if it could not."""
    folder = b""
    try:
        if world.leads:
            folder = str(_prepared(where, wanted).folder).encode()
    finally:
        folder = world.share(folder)
    return folder.decode()


def _prepared(where: Where, wanted: Wanted) -> Job:
    from napari_delse.checkpoint import load_model
    from napari_delse.finetuning.config import FineTuneConfig
    from napari_delse.finetuning.jobs import prepare
    from napari_delse.model import config_from_dict
    from napari_delse.train.recipes import with_changes

    config = config_from_dict(FineTuneConfig, with_changes(wanted.given, wanted.changes))
    parent = load_model(wanted.parent)
    with _source(where) as source:
        found = _surveyed(source, config.validation)
        for sentence in () if found.problems else found.sentences():
            print(sentence, file=sys.stderr)
        job = prepare(source, config, parent=parent, name=wanted.name, out=wanted.out, found=found)
    if job.state != "new":
        said = "was complete" if job.state == "finished" else "goes on from where it was stopped"
        print(f"The same training {said} ({job.folder}).", file=sys.stderr)
    return job


@contextmanager
def _source(where: Where) -> Iterator[Source]:
    from napari_delse.finetuning.labelled_sources import FileSource, JournalSource

    if where.labels.suffix.lower() != ".jsonl":
        if where.begun_with is not None:
            raise ValueError(f"--begun-with goes with an annotation journal (.jsonl), not with {where.labels}")
        yield FileSource(where.images, where.labels, where.axes, where.channels)
        return
    from napari_delse.data.files import open_image

    with open_image(where.images, where.axes) as image:
        first = image.plane((0,) * len(image.plane_counts), where.channels)
        begun = None
        if where.begun_with is not None:
            with open_image(where.begun_with) as opened:
                begun = opened.read()
        yield JournalSource(where.labels, image.data, begun, first.channel_axis, where.channels, first.rgb)


def _surveyed(source: Source, validation: float) -> Survey:
    from napari_delse.finetuning.survey import look

    *_, found = progress(look(source, validation), None, lambda s: (s.seen, f"planes, {s.objects} objects"))
    return found


def go_on(job: Path, device: str, json_out: str | None, *, lines: bool) -> int | None:
    """Go on with a job, for a person or for a program that reads lines of JSON."""
    from napari_delse.finetuning.jobs import open_job
    from napari_delse.finetuning.run import run
    from napari_delse.train.distributed import World

    if lines:
        from napari_delse.finetuning.process import serve

        return serve(open_job(job).folder, device)
    with told_when_stopped(World()):
        _train(run(open_job(job), device=device), World(), json_out)
    return None


def _train(steps: Generator[JobProgress, None, None], world: World, json_out: str | None) -> None:
    last = None
    with closing(steps):
        for last in steps:
            _tell(last)
    if world.leads and last is not None and last.outcome is not None:
        _judge(last, json_out)


def _tell(step: JobProgress) -> None:
    if step.note:
        print(step.note, file=sys.stderr, flush=True)
    if step.scored and not step.done:
        loss = "" if math.isnan(step.loss) else f"  loss {step.loss:.3f}"  # there is none before the first step
        print(
            f"{step.fraction:4.0%}{loss}  held-out IoU {step.now.mean_iou:.4f} (before "
            f"{step.before.mean_iou:.4f}, best {step.best.mean_iou:.4f})  {step.remaining:.0f} s left",
            file=sys.stderr,
            flush=True,
        )


def _judge(last: JobProgress, json_out: str | None) -> None:
    outcome = last.outcome
    assert outcome is not None
    header = ("held-out objects", "mIoU", "F 2 px")
    shown = (("before", outcome.before), ("after", outcome.after if outcome.improved else outcome.last))
    rows = [[name, f"{scores.mean_iou:.4f}", f"{scores.mean_f:.4f}"] for name, scores in shown]
    use = [f"Use it with --model {outcome.model if _by_name(outcome.path) else outcome.path}."]
    summary = {**outcome.to_json(), "held_out_objects": len(outcome.before.iou), "model": outcome.model or None}
    report(json_out, summary, [table(header, rows), "", *outcome.sentences, *(use if outcome.improved else [])])


def _by_name(path: str) -> bool:
    from napari_delse.checkpoint import available_models

    return Path(path) in available_models().values()
