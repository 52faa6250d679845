"""The commands about models: evaluate and models."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from napari_delse._cli_common import Device, Json, Model, check_json, progress, report, sentence_of, table


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


def models(json_out: Json = None) -> None:
    """List the models that can be named with --model."""
    from napari_delse.checkpoint import available_models

    check_json(json_out)
    found = [_describe(name, path) for name, path in available_models().items()]
    rows = []
    for one in found:
        scores = one["validation"] or {}
        shown = [f"{scores[key]:.4f}" if key in scores else "" for key in ("miou", "f_1px", "f_2px")]
        counted = [f"{one['parameters'] / 1e6:.2f} M", f"{one['megabytes']:.1f} MB"] if one["parameters"] else ["", ""]
        note = one["path"] + (f" (damaged: {one['problem']})" if one["problem"] else "")
        rows.append([one["name"], one["architecture"] or "", str(one["size"] or ""), *counted, *shown, note])
    header = ("name", "architecture", "size", "parameters", "file", "mIoU", "F 1 px", "F 2 px", "path")
    report(json_out, {"models": found}, [table(header, rows) if rows else "no model is installed"])


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
        described["problem"] = sentence_of(error) if isinstance(error, (OSError, ValueError)) else f"no {error}"
    return described


def _product(numbers: Iterable[int]) -> int:
    result = 1
    for number in numbers:
        result *= number
    return result
