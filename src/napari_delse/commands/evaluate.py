"""The command evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_delse.commands.common import Device, Json, Model, check_json, progress, report, table


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

    check_json(json_out)
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
    scores = list(progress(score(predictor, folders, config, names), None, lambda s: (s.done, f"of {s.total}")))
    result = summarise(scores, predictor, config)
    header = ("", "objects", "mIoU", "F 1 px", "F 2 px", "ms/object")

    def row(name: str, part: dict[str, Any]) -> list[str]:
        milliseconds = f"{part['ms_per_object']:.1f}" if "ms_per_object" in part else ""
        shown = [f"{part[key]:.4f}" for key in ("miou", "f_1px", "f_2px")]
        return [name, str(part.get("objects", "")), *shown, milliseconds]

    rows = [row(name, part) for name, part in result["by_set"].items()] + [row("all", result)]
    kind = "drag" if drags else "click"
    rows += [row(f"all + {k} {kind}{'s' * (k > 1)}", step) for k, step in enumerate(result["steps"]) if k]
    report(json_out, result, [table(header, rows)])
