"""DAVIS 2016 (480p) in our layout: every frame of the official 30 training and 20 validation sequences.

    python training/prepare/davis.py SRC OUT [--split train val]

Frames are named SEQUENCE_FRAME. The one object of a sequence stays one object when it comes apart. `dataset.json` tells
for each sequence how many frames it has and the width in pixels within which the official measure matches contours.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from layout import Labels, Source, Split, arguments, read_names, read_png, require, write_splits
from napari_delse.metrics import davis_width

LISTS = ("ImageSets/480p", "ImageSets/2016")  # as DAVIS 2016 has them, and as later editions do


def read(root: Path, split: str) -> Split:
    """One split."""
    require(root, "an unpacked DAVIS 2016", "Annotations/480p", "JPEGImages/480p")
    lists = [root / folder / f"{split}.txt" for folder in LISTS]
    found = next((file for file in lists if file.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"{root} is not an unpacked DAVIS 2016: it has neither {lists[0]} nor {lists[1]}")
    # A line is "/JPEGImages/480p/bear/00000.jpg /Annotations/480p/bear/00000.png", or only "bear".
    names = [line.split()[-1] for line in read_names(found)]
    sequences = sorted({Path(name).parent.name if "/" in name else name for name in names})
    sources, about = [], {}
    for sequence in sequences:
        frames = sorted((root / "Annotations" / "480p" / sequence).glob("*.png"))
        if not frames:
            raise FileNotFoundError(f"{root / 'Annotations/480p' / sequence} holds no frames; unpack DAVIS again")
        for frame in frames:
            image = root / "JPEGImages" / "480p" / sequence / f"{frame.stem}.jpg"
            sources.append(Source(f"{sequence}_{frame.stem}", image, partial(read_labels, frame)))
        with Image.open(frames[0]) as picture:
            about[sequence] = {"frames": len(frames), "width": davis_width(picture.size)}
    card = {
        "name": f"davis2016/{split}",
        "split": split,
        "group": r"^(.+)_\d+$",
        "sequences": about,
        "licence": "DAVIS 2016: CC BY-NC 4.0",
    }
    return Split(sources, card)


def read_labels(path: Path) -> Labels:
    """1 on the object, 0 elsewhere; later editions number several objects, which are one here."""
    pixels = read_png(path)
    return (pixels if pixels.ndim == 2 else pixels[..., :3].max(axis=-1)).astype(bool).astype(np.uint16)


def main() -> None:
    args = arguments(__doc__, ("train", "val")).parse_args()
    write_splits(args.out, args.split, partial(read, args.source))


if __name__ == "__main__":
    main()
