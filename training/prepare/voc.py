"""PASCAL VOC 2012 (segmentation) in our layout: the official train and val lists.

    python training/prepare/voc.py SRC OUT [--split train val]

SRC is VOC2012, or a folder above it. Void pixels (the seam around every object, and objects too hard to outline) are
ignored in training and evaluation, as in the paper.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from layout import CLASS, Labels, Source, Split, arguments, read_names, read_png, require, write_splits
from napari_delse.data.samples import IGNORE

CLASSES = [
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]
VOID = 255


def find_root(folder: Path) -> Path:
    """VOC2012 in an unpacked VOCtrainval_11-May-2012."""
    candidates = (folder, folder / "VOC2012", folder / "VOCdevkit" / "VOC2012")
    root = next((c for c in candidates if (c / "SegmentationObject").is_dir()), folder)
    parts = ("JPEGImages", "SegmentationObject", "SegmentationClass", "ImageSets/Segmentation")
    require(root, "an unpacked PASCAL VOC 2012 (VOCdevkit/VOC2012)", *parts)
    return root


def names_of(root: Path, split: str) -> list[str]:
    """Images of the official split."""
    lists = root / "ImageSets" / "Segmentation"
    require(lists, "the folder of the segmentation lists", f"{split}.txt")
    return read_names(lists / f"{split}.txt")


def read(source: Path, split: str) -> Split:
    """One split."""
    root = find_root(source)
    sources = [
        Source(name, root / "JPEGImages" / f"{name}.jpg", partial(read_labels, root, name))
        for name in names_of(root, split)
    ]
    card = {
        "name": f"voc2012/{split}",
        "split": split,
        "classes": {str(number): name for number, name in enumerate(CLASSES, start=1)},
        "licence": "VOC 2012: images under the Flickr terms of use",
    }
    return Split(sources, card)


def read_labels(root: Path, name: str) -> Labels:
    """Ids of one image: the objects of SegmentationObject with the classes of SegmentationClass."""
    for folder in ("SegmentationObject", "SegmentationClass"):
        if not (root / folder / f"{name}.png").is_file():
            raise FileNotFoundError(f"{root / folder / name}.png is missing, but its split names it; unpack VOC again")
    objects = read_png(root / "SegmentationObject" / f"{name}.png")
    classes = read_png(root / "SegmentationClass" / f"{name}.png")
    labels = np.zeros(objects.shape, np.uint16)
    labels[objects == VOID] = IGNORE
    for number in np.unique(objects):
        if number in (0, VOID):
            continue
        here = objects == number
        votes = np.bincount(classes[here & (classes != VOID)], minlength=1)
        labels[here] = CLASS * int(votes.argmax()) + int(number)
    return labels


def main() -> None:
    args = arguments(__doc__, ("train", "val")).parse_args()
    write_splits(args.out, args.split, partial(read, args.source))


if __name__ == "__main__":
    main()
