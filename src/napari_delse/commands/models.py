"""The commands about models: list, show, rename, delete, export, import, compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_delse.commands.common import Command, Device, Json, check_json, report, table

if TYPE_CHECKING:
    from napari_delse.finetuning.model_store import ModelInfo

models = typer.Typer(
    name="models", help="Your models and those that come with the package.", add_completion=False, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of a model.")]


@models.callback(invoke_without_command=True)
def _models(context: typer.Context, json_out: Json = None) -> None:
    """List the models that can be named with --model, or do something with one."""
    if context.invoked_subcommand is None:
        list_models(json_out)


def list_models(json_out: Json = None) -> None:
    """List the models that can be named with --model."""
    from napari_delse.finetuning.model_store import describe_models

    check_json(json_out)
    found = describe_models()
    rows = []
    for one in found:
        shown = _as_json(one)
        scores = shown["validation"] or {}
        numbers = [f"{scores[key]:.4f}" if key in scores else "" for key in ("miou", "f_1px", "f_2px")]
        counted = [f"{one.parameters / 1e6:.2f} M", f"{one.megabytes:.1f} MB"] if one.parameters else ["", ""]
        note = str(one.path) + (f" (damaged: {one.problem})" if one.problem else "")
        name = one.name + " *" * one.current
        rows.append([name, shown["architecture"] or "", str(shown["size"] or ""), *counted, *numbers, one.parent, note])
    header = ("name", "architecture", "size", "parameters", "file", "mIoU", "F 1 px", "F 2 px", "from", "path")
    lines = [table(header, rows), "", "* is the one that napari works with."] if rows else ["no model is installed"]
    report(json_out, {"models": [_as_json(one) for one in found]}, lines)


def _as_json(one: ModelInfo) -> dict[str, Any]:
    config, card = one.config or {}, one.card or {}
    scores = one.scores.get("extreme_points") or one.scores.get("after") or {}
    kept = ("objects", "miou", "f_1px", "f_2px", "boundary_f", "ms_per_object")
    return {
        "name": one.name,
        "path": str(one.path),
        "packaged": one.packaged,
        "current": one.current,
        "architecture": config.get("architecture"),
        "size": config.get("crop", {}).get("size"),
        "parameters": one.parameters or None,
        "megabytes": one.megabytes or None,
        "licence": card.get("licence"),
        "parent": one.parent or None,
        "validation": {key: scores[key] for key in kept if key in scores} or None,
        "problem": one.problem or None,
    }


def show(name: Name, json_out: Json = None) -> None:
    """Say where a model comes from and how good it is."""
    from napari_delse.finetuning.model_store import model_info, provenance

    check_json(json_out)
    info = model_info(name)
    report(json_out, {**_as_json(info), "card": info.card}, provenance(info))


def use(name: Name, json_out: Json = None) -> None:
    """Make a model the one that napari works with."""
    from napari_delse.finetuning.model_store import choose_model

    check_json(json_out)
    choose_model(name)
    report(json_out, {"current": name}, [f"napari works with {name} from now on"])


def rename(
    name: Name, new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")], json_out: Json = None
) -> None:
    """Give one of your models another name."""
    from napari_delse.finetuning.model_store import rename_model

    check_json(json_out)
    path = rename_model(name, new)
    report(json_out, {"name": new, "path": str(path)}, [f"{name} is {new} now ({path})"])


def delete(
    name: Name,
    sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json_out: Json = None,
) -> None:
    """Delete one of your models; the packaged ones stay."""
    from napari_delse.finetuning.model_store import delete_model, model_info

    check_json(json_out)
    info = model_info(name)
    if not (sure or info.packaged) and not typer.confirm(f"Delete {name} ({info.path})?", err=True):
        raise ValueError(f"{name} was not deleted")
    delete_model(name)
    report(json_out, {"deleted": name}, [f"{name} is deleted"])


def export(
    name: Name,
    out: Annotated[Path, typer.Argument(metavar="FILE.delse.zip", help="Where to write it.")],
    json_out: Json = None,
) -> None:
    """Write a model as one file, to be imported elsewhere."""
    from napari_delse.finetuning.model_store import export_model

    check_json(json_out)
    path = export_model(name, out)
    report(json_out, {"name": name, "file": str(path)}, [f"{path}: {name}, {path.stat().st_size / 1e6:.1f} MB"])


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What export wrote.")],
    name: Annotated[str | None, typer.Option("--name", help="What to call it. [default: the file's name]")] = None,
    json_out: Json = None,
) -> None:
    """Add a model from a file to yours, under a name that is free."""
    from napari_delse.finetuning.model_store import import_model

    check_json(json_out)
    found, path = import_model(file, name or "")
    report(json_out, {"name": found, "path": str(path)}, [f"{found} ({path}); use it with --model {found}"])


def compare(
    job: Annotated[Path, typer.Argument(metavar="JOB", help="A fine-tuning: its folder or name.")],
    names: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="Two or more models; the first is the measure.")
    ],
    device: Device = "auto",
    json_out: Json = None,
) -> None:
    """Score models on the held-out objects of a fine-tuning."""
    from napari_delse.finetuning.model_store import compare_models

    check_json(json_out)
    found = compare_models(job, names, device)
    rows = []
    for one in found["models"]:
        gain = one["gain"]
        change = f"{100 * gain['mean']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"
        rows.append(
            [one["name"], f"{one['miou']:.4f}", f"{one['f_2px']:.4f}", change if one is not found["models"][0] else ""]
        )
    header = (f"{len(found['objects'])} held-out objects", "mIoU", "F 2 px", "points of IoU, with 95 % interval")
    report(json_out, found, [table(header, rows)])


for _name, _command in (
    ("list", list_models),
    ("show", show),
    ("use", use),
    ("rename", rename),
    ("delete", delete),
    ("export", export),
    ("import", import_),
    ("compare", compare),
):
    models.command(_name, cls=Command)(_command)
