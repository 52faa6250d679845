"""The command train: a recipe from the start, or fine-tuning on a person's own images."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from napari_delse._cli_common import Command, Device, Json, check_json, report, table

if TYPE_CHECKING:
    from napari_delse.distributed import World
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
    from napari_delse.finetune import FineTuneConfig
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
        Path,
        typer.Argument(
            metavar="IMAGES|RECIPE.toml", help="Image, stack (TIFF, OME-Zarr) or folder of them; or a recipe."
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Argument(
            metavar="[LABELS|DATA]",
            help="Instance ids: a file, or a folder of equal names. With a recipe: a pack or a data set in place of "
            "its [data].",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for the new model; its last part is the name.")
    ] = None,
    parent: Annotated[
        str | None, typer.Option("--from", help="Model to begin with: a name or a folder. [default: default]")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting, such as augment.invert=0; of a recipe: train.ema=0.99.",
        ),
    ] = None,
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Fine-tune a model on your own labelled images, and say whether it became better; or train by a recipe.

    Some of the objects are held out (whole images or planes, so that they are new to the model) and scored before
    and after. A model that is not better than its parent is not kept. Ctrl-C stops; the same command goes on.
    Started by torchrun, all processes train together.
    """
    check_json(json_out)
    given: dict[str, Any] = context.meta[_GIVEN]
    if out is not None and out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a folder with --out")
    if images.suffix.lower() == ".toml":
        if parent is not None:
            raise ValueError("a recipe trains from the start, so --from does not go with it; leave one of them out")
        _train_recipe(images, labels, out, [*_as_changes(given), *(changes or [])], device, json_out)
        return
    if labels is None:
        raise ValueError(f"{images} needs labels; give them behind it: napari-delse train IMAGES LABELS --out DIR")
    if out is None:
        raise ValueError("say where the new model goes with --out DIR")
    _fine_tune(images, labels, out, parent or "default", given, changes or [], device, json_out)


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


@contextmanager
def _said(world: World) -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        if world.leads:
            print("napari-delse: stopped; the same command goes on from here", file=sys.stderr)
        raise


def _train_recipe(
    path: Path, data: Path | None, out: Path | None, changes: list[str], device: str, json_out: str | None
) -> None:
    from napari_delse.distributed import joined
    from napari_delse.predict import choose_device
    from napari_delse.recipes import on_data, read_recipe, train_recipe

    recipe = on_data(read_recipe(path, changes), data, out)
    last = None
    with joined(choose_device(device)) as (world, place):
        with _said(world), closing(train_recipe(recipe, device=place, world=world, name=path.name)) as run:
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


def _fine_tune(
    images: Path,
    labels: Path,
    out: Path,
    parent: str,
    given: Mapping[str, Any],
    changes: list[str],
    device: str,
    json_out: str | None,
) -> None:
    from napari_delse.data import read_pairs
    from napari_delse.distributed import joined
    from napari_delse.finetune import FineTuneConfig, fine_tune
    from napari_delse.model import config_from_dict
    from napari_delse.predict import choose_device
    from napari_delse.recipes import with_changes

    config = config_from_dict(FineTuneConfig, with_changes(given, changes))
    samples = list(read_pairs(images, labels))
    last = None
    with joined(choose_device(device)) as (world, place):
        with _said(world), closing(fine_tune(parent, samples, out, config, device=place, world=world)) as run:
            for last in run:
                print(
                    f"{last.fraction:4.0%}  loss {last.loss:.3f}  held-out IoU {last.now.mean_iou:.4f} (before "
                    f"{last.before.mean_iou:.4f}, best {last.best.mean_iou:.4f}), {last.remaining:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
        if not world.leads or last is None:
            return
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
    report(json_out, summary, [table(header, rows), "", verdict])
