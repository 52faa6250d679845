"""The command train: a recipe from the start, or fine-tuning on a person's own images."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from napari_delse.commands import finetune
from napari_delse.commands.common import Axes, Channels, Command, Device, Json, channels_of, check_json, refuse, report
from napari_delse.commands.finetune import told_when_stopped

if TYPE_CHECKING:
    from napari_delse.settings import Setting

_GIVEN = "napari_delse.settings"


class TrainCommand(Command):
    """`train`, whose options are the fields of `FineTuneConfig`; they are looked up when they are needed."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The command's own parameters and those of the settings."""
        own = super().get_params(ctx)
        return [*own[:-1], *_setting_options(), *own[-1:]]

    def invoke(self, ctx: Any) -> Any:
        """Call the command; what was given of the settings is in the context."""
        values = {option.name: ctx.params.pop(option.name, None) for option in _setting_options()}
        ctx.meta[_GIVEN] = {name: value for name, value in values.items() if value is not None}
        return super().invoke(ctx)


def _setting_options() -> list[Any]:
    """Options for the plain fields of `FineTuneConfig`."""
    from napari_delse.finetuning.config import FineTuneConfig
    from napari_delse.settings import settings

    parameters = [_parameter(setting) for setting in settings(FineTuneConfig)]

    def holder(**_: Any) -> None: ...

    holder.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    holder.__annotations__ = {one.name: one.annotation for one in parameters}
    app = typer.Typer(add_completion=False)
    app.command()(holder)
    return list(typer.main.get_command(app).params)


def _parameter(setting: Setting) -> inspect.Parameter:
    flag = setting.name.replace("_", "-")
    names = f"--{flag}/--no-{flag}" if setting.kind is bool else f"--{flag}"
    note = setting.note[:1].upper() + setting.note[1:]
    shown = "" if setting.default is None else f"[default: {setting.default}]"
    option = typer.Option(names, help=" ".join(filter(None, (note + "." * bool(note), shown))), show_default=False)
    # Optional and not "| None": typer reads it in all its versions. None is "not given".
    kind = Annotated[Optional[setting.kind], option]  # type: ignore[name-defined]  # noqa: UP045
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)


def train(
    context: typer.Context,
    images: Annotated[
        Path | None,
        typer.Argument(
            metavar="IMAGES|RECIPE.toml", help="Image, stack (TIFF, OME-Zarr) or folder of them; or a recipe."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LABELS|JOURNAL|DATA]",
            help="Instance ids: a file, or a folder of equal names; or the annotation journal of the image. With a "
            "recipe: a pack or a data set in place of its [data].",
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--name", help="Of the new model among your models; NAME-2 if it is taken. [default: the image's]"
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the new model instead; its last part is the name.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--from", help="Model to begin with: a name or a folder. [default: default]")
    ] = None,
    begun_with: Annotated[
        Path | None,
        typer.Option("--begun-with", metavar="LABELS", help="With a journal: labels that were there before it began."),
    ] = None,
    channels: Channels = None,
    axes: Axes = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, such as augment.invert=0; of a recipe: train.ema=0.99.",
        ),
    ] = None,
    job: Annotated[
        Path | None,
        typer.Option("--job", metavar="JOB", help="Go on with a fine-tuning that was begun: its folder or name."),
    ] = None,
    told: Annotated[
        str | None,
        typer.Option(
            "--progress",
            metavar="jsonl",
            help="With --job: one JSON object a line on stdout; the line stop or finish on stdin, or its end, ends it.",
        ),
    ] = None,
    device: Device = "auto",
    json_out: Json = None,
) -> int | None:
    """Fine-tune a model on your own labelled images, and say whether it became better; or train by a recipe.

    First it says what it found. Some of the objects are held out (whole images or planes, so that they are new to the
    model) and scored before and after; a model that is not better is not kept. Ctrl-C stops; the same command goes on.
    Started by torchrun, all processes train together.
    """
    check_json(json_out)
    given: dict[str, Any] = context.meta[_GIVEN]
    if told not in (None, "jsonl") or (told and job is None):
        raise ValueError(f"--progress takes jsonl and goes with --job JOB, got {told!r}")
    if job is not None:
        if images is not None or given or changes:
            raise ValueError("--job goes on with what was begun, so images and settings do not go with it")
        others = {"--name": name, "--out": out, "--from": parent, "--begun-with": begun_with}
        refuse("--job goes on with what was begun", {**others, "--channels": channels, "--axes": axes})
        return finetune.go_on(job, device, json_out, lines=told is not None)
    if images is None:
        raise ValueError("say what to train on: napari-delse train IMAGES LABELS")
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder with --out")
    if images.suffix.lower() == ".toml":
        if parent is not None:
            raise ValueError("a recipe trains from the start, so --from does not go with it; leave one of them out")
        if name is not None:
            raise ValueError("a recipe's model goes to a folder; name it with --out")
        looks = {"--channels": channels, "--axes": axes, "--begun-with": begun_with}
        refuse("a recipe says what it trains on", looks)
        _train_recipe(images, labels, out, [*_as_changes(given), *(changes or [])], device, json_out)
        return None
    if labels is None:
        raise ValueError(f"{images} needs labels; give them behind it: napari-delse train IMAGES LABELS")
    if name is not None and out is not None:
        raise ValueError("--name puts the model among yours and --out into a folder; leave one of them out")
    where = finetune.Where(images, labels, begun_with, channels_of(channels), axes)
    wanted = finetune.Wanted(name or "", out, parent or "default", given, tuple(changes or ()))
    finetune.fine_tune(where, wanted, device, json_out)
    return None


def _as_changes(given: Mapping[str, Any]) -> list[str]:
    """Options as settings of a recipe, which has most of them."""
    from napari_delse.settings import settings
    from napari_delse.train import TrainConfig

    known = {setting.name for setting in settings(TrainConfig)}
    for name in given:
        if name not in known:
            raise ValueError(
                f"--{name.replace('_', '-')} is for fine-tuning; a recipe does not know it, so leave it out"
            )
    values = dict(given)
    if "steps" in values and "minutes" not in values:
        values["minutes"] = "none"
    return [f"train.{name}={str(value).lower()}" for name, value in values.items()]


def _train_recipe(
    path: Path, data: Path | None, out: Path | None, changes: list[str], device: str, json_out: str | None
) -> None:
    from napari_delse.predict import choose_device
    from napari_delse.train.distributed import joined
    from napari_delse.train.recipes import on_data, read_recipe, train_recipe

    recipe = on_data(read_recipe(path, changes), data, out)
    last = None
    with joined(choose_device(device)) as (world, place):
        with told_when_stopped(world), closing(train_recipe(recipe, device=place, world=world, name=path.name)) as run:
            for last in run:
                parts = ", ".join(f"{name} {value:.4f}" for name, value in last.parts.items())
                print(
                    f"step {last.step}, {last.fraction:.1%}, loss {last.loss:.4f} ({parts}), "
                    f"{last.seconds / 60:.1f} min, {last.remaining / 60:.1f} min left",
                    file=sys.stderr,
                    flush=True,
                )
        if not world.leads:
            return
    folder = recipe.data.out
    if last is None:
        report(
            json_out,
            {"model": folder, "steps": None},
            [f"the run in {folder} was complete; use it with --model {folder}"],
        )
        return
    summary = {"model": folder, "steps": last.step, "loss": last.loss, "seconds": last.seconds}
    report(json_out, summary, [f"{folder}: {last.step} steps, loss {last.loss:.4f}; use it with --model {folder}"])
