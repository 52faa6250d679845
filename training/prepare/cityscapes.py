"""Cityscapes (gtFine, leftImg8bit) in our layout, split as in the paper.

    python training/prepare/cityscapes.py SRC OUT [--split base corrections val test]

The labels of the official test set are not public. So, as in Polygon-RNN and the paper, the 500 official validation
images are the test set, Weimar and Zurich are held out of the training images for validation, and 16 cities remain.
``base`` are ten of them and ``corrections`` the other six (section 5.3); together they are the training set of the
other tables. The paper does not name the ten: these are the first in the alphabet.

Of the classes with instances the eight of the benchmark are kept. An object in several parts, cut by one before it, is
one object. Groups whose members could not be told apart are background.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from layout import CLASS, Labels, Source, Split, arguments, read_png, require, write_splits

CLASSES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
CITIES = {  # of the split: the official part and its cities
    "base": (
        "train",
        ["aachen", "bochum", "bremen", "cologne", "darmstadt", "dusseldorf", "erfurt", "hamburg", "hanover", "jena"],
    ),
    "corrections": ("train", ["krefeld", "monchengladbach", "strasbourg", "stuttgart", "tubingen", "ulm"]),
    "val": ("train", ["weimar", "zurich"]),
    "test": ("val", ["frankfurt", "lindau", "munster"]),
}


def read(root: Path, split: str) -> Split:
    """One split of the unpacked archives gtFine_trainvaltest and leftImg8bit_trainvaltest."""
    part, cities = CITIES[split]
    what = "an unpacked Cityscapes (gtFine_trainvaltest and leftImg8bit_trainvaltest)"
    require(root, what, "gtFine", "leftImg8bit")
    require(root / "gtFine" / part, f"its {part} part", *cities)
    sources = []
    for city in cities:
        stems = {file.name.rsplit("_gtFine_", 1)[0] for file in (root / "gtFine" / part / city).glob("*_gtFine_*")}
        for stem in sorted(stems):
            image = root / "leftImg8bit" / part / city / f"{stem}_leftImg8bit.png"
            labels = partial(read_labels, root / "gtFine" / part / city / stem)
            sources.append(Source(stem, image, labels))
    card = {
        "name": f"cityscapes/{split}",
        "split": split,
        "cities": cities,
        "classes": {str(number): name for number, name in CLASSES.items()},
        "licence": "Cityscapes terms of use: no redistribution, no commercial use",
    }
    return Split(sources, card)


def read_labels(stem: Path) -> Labels:
    """Ids of one image, from the image of ids or else from the polygons that it was drawn from."""
    drawn = stem.with_name(f"{stem.name}_gtFine_instanceIds.png")
    polygons = stem.with_name(f"{stem.name}_gtFine_polygons.json")
    if drawn.is_file():
        ids = read_png(drawn).astype(np.int64)
    elif polygons.is_file():
        ids = draw_polygons(json.loads(polygons.read_text(encoding="utf-8")))
    else:
        raise FileNotFoundError(f"{stem}_gtFine_ has neither instanceIds.png nor polygons.json; unpack gtFine again")
    return np.where(np.isin(ids // CLASS, list(CLASSES)), ids, 0).astype(np.uint16)


def draw_polygons(annotation: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """Ids (1000 * class + number in the order of the file) of the polygons, drawn from back to front."""
    picture = Image.new("I", (annotation["imgWidth"], annotation["imgHeight"]))
    numbers = {name: number for number, name in CLASSES.items()}
    counts = dict.fromkeys(CLASSES, 0)
    for shape in annotation["objects"]:
        name = shape["label"]
        # A licence plate is part of its car, which lies under it; everything else hides what was drawn before.
        if shape.get("deleted") or name == "license plate":
            continue
        value = 0
        if name in numbers:
            value = numbers[name] * CLASS + counts[numbers[name]]
            counts[numbers[name]] += 1
        ImageDraw.Draw(picture).polygon([(x, y) for x, y in shape["polygon"]], fill=value)
    return np.asarray(picture, dtype=np.int64)


def main() -> None:
    args = arguments(__doc__, tuple(CITIES)).parse_args()
    write_splits(args.out, args.split, partial(read, args.source))


if __name__ == "__main__":
    main()
