"""Turn a finished run into a model that ships: threshold, validation scores, model card.

    python training/release.py RUN_FOLDER DATA_FOLDER src/napari_delse/weights/default [--max-objects 150]

The threshold is searched on training images only; the scores are of held-out images (training/validation.txt).
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from napari_delse._writing import write_atomically
from napari_delse.checkpoint import load_model, parameter_count, save_model
from napari_delse.evaluation import EvaluateConfig, read_list, run, set_names
from napari_delse.predict import Predictor
from pack import SETS
from threshold import search_threshold

WORTH = 0.005  # mean IoU that another threshold than 0 must gain
MEASURES = ("miou", "f_1px", "f_2px", "miou_worst_quarter")
LICENCES = {
    "dsb2018": "CC0 1.0",
    "usiigaci": "MIT",
    "emps": "MIT",
    "sunnybrook_lv": "CC0 1.0",
    "coco128": "CC BY 4.0 (annotations)",
    "nasa_superalloy": "MIT",
    "nasa_ebc": "MIT",
    "nasa_meltpool": "MIT",
    "ads_sem": "MIT",
    "usgra": "CC BY 4.0",
    "wsu_chloroplast": "MIT",
    "pfc_neuron": "CC0 1.0",
    "fly_embryo": "CC BY 4.0",
}


def validation_scores(predictor: Predictor, data: Path, max_objects: int, **changes: Any) -> dict[str, Any]:
    """What `napari-delse evaluate --list training/validation.txt` reports."""
    listed = Path(__file__).parent / "validation.txt"
    names = sorted({line.split("/")[0] for line in listed.read_text(encoding="utf-8").split()})
    folders = [data / name for name in names]
    config = EvaluateConfig(max_objects=max_objects, **changes)
    return run(predictor, folders, config, read_list(listed, set_names(folders)))


def _row(*cells: object) -> str:
    texts = [f"{100 * c:.1f}" if isinstance(c, float) else str(c) for c in cells]
    return "| " + " | ".join(texts) + " |"


def readme(card: dict[str, Any]) -> str:
    """The model card as a page for people."""
    scores = card["validation"]
    plain = scores["extreme_points"]
    lines = [
        f"# Model card: {card['name']}",
        "",
        f"{card['task'].capitalize()}. {card['parameters'] / 1e6:.2f} million parameters, float16 on disk. "
        f"Licence: {card['licence']}. {card['note']}".strip(),
        "",
        "## Training",
        "",
        (
            f"Command `{card['command']}` at commit `{card['commit'][:10]}`, seed {card['train'].get('seed')}: "
            f"{card['steps']} steps in {card['seconds'] / 60:.0f} minutes on {card['hardware']}."
        ),
        "",
        _row("data", "licence"),
        _row("---", "---"),
        *(_row(name, licence) for name, licence in card["data"].items()),
        "",
        f"Held out: {card['held_out']}.",
        "",
        "## Scores on held-out images",
        "",
        (
            f"Per cent, means over objects, at most {scores['objects_per_set_at_most']} objects per set, in image "
            "pixels; F is the boundary measure within 1 or 2 pixels. The worst quarter holds the objects whose first "
            "masks are worst. `training/release.py` wrote this page."
        ),
        "",
        _row("four extreme points, set", "objects", "mIoU", "F 1 px", "F 2 px"),
        _row("---", "---:", "---:", "---:", "---:"),
        *(
            _row(name, s["objects"], s["miou"], s["f_1px"], s["f_2px"])
            for name, s in (*plain["by_set"].items(), ("**all objects**", plain))
        ),
        "",
        _row("prompt", "mIoU", "F 1 px", "F 2 px", "mIoU, worst quarter"),
        _row("---", "---:", "---:", "---:", "---:"),
        _row("four extreme points", *(plain[name] for name in MEASURES)),
    ]
    for title, key in (("the same with 5 % noise", "jitter_5_percent"), ("box only", "box")):
        lines.append(_row(title, *(scores[key][name] for name in MEASURES)))
    for title, key in (("drag", "drags"), ("further click", "clicks")):
        for count, step in enumerate(scores[key]["steps"][1:], start=1):
            lines.append(_row(f"{count} simulated {title}{'s' * (count > 1)}", *(step[name] for name in MEASURES)))
    return "\n".join(lines) + "\n"


def git_commit() -> str:
    """The commit of this checkout."""
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    """Release a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--max-objects", type=int, default=150)
    parser.add_argument(
        "--command", default="python training/run.py training/recipes/default.toml pack.safetensors RUN"
    )
    parser.add_argument("--commit", help="commit that trained; the present one by default")
    parser.add_argument("--hardware", help="what trained; what runs here by default")
    parser.add_argument("--note", default="")
    args = parser.parse_args()
    loaded = load_model(args.run)
    names = [name for name, rule in SETS["sets"].items() if rule.get("ship")]
    predictor = Predictor.load(args.run, device="cpu")
    threshold, curve = search_threshold(predictor, [args.data / name for name in names], 30, 0, worth=WORTH)
    loaded.model.config = replace(loaded.config, threshold=threshold)
    threads = torch.get_num_threads()
    here = f"{threads} CPU core{'s' * (threads > 1)}, torch {torch.__version__}"
    train = loaded.card.get("train", {})
    card: dict[str, Any] = {
        "name": args.out.name,
        "licence": "BSD-3-Clause",
        "task": "segmentation of one object in a 2D crop from four extreme points, a box, and drags",
        "data": {**{name: LICENCES[name] for name in names}, "synthetic": "napari_delse.synthetic, own code"},
        "held_out": "whole images, or patients, fields and series: training/sets.toml, training/validation.txt",
        "command": args.command,
        "commit": args.commit or git_commit(),
        "parameters": parameter_count(loaded.model),
        "threshold_search": {"data": "training images, 30 objects per set, seed 0", "miou": curve},
        "hardware": args.hardware or here,
        "note": args.note,
        "train": {**train, "parent": Path(train.get("parent", "")).name},  # not where it lies on this machine
        "steps": loaded.card.get("steps"),
        "seconds": loaded.card.get("seconds"),
    }
    save_model(args.out, loaded.model, card, half=True)
    predictor = Predictor.load(args.out, device="cpu")
    card["validation"] = {
        "objects_per_set_at_most": args.max_objects,
        "extreme_points": validation_scores(predictor, args.data, args.max_objects),
        "jitter_5_percent": validation_scores(predictor, args.data, args.max_objects, jitter=0.05),
        "box": validation_scores(predictor, args.data, args.max_objects, prompts="box"),
        "drags": validation_scores(predictor, args.data, args.max_objects, drags=3),
        "clicks": validation_scores(predictor, args.data, args.max_objects, clicks=3),
    }
    save_model(args.out, loaded.model, card, half=True)
    write_atomically(args.out / "README.md", lambda aside: aside.write_text(readme(card), encoding="utf-8"))
    print(json.dumps(card["validation"]["extreme_points"], indent=1))


if __name__ == "__main__":
    main()
