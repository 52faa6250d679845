"""SBD, the Semantic Boundaries Dataset, in our layout: what it adds to the training images of PASCAL VOC 2012.

    python training/prepare/sbd.py SRC OUT --voc VOC2012

SRC is benchmark_RELEASE or its folder ``dataset``. All of its images are taken, its own val list too, except those that
VOC 2012 has in its train list (VOC's labels are finer) or its val list (which is the test set). With VOC's train images
these are the paper's 10582.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from scipy.io import loadmat

import voc
from layout import CLASS, Labels, Source, Split, arguments, read_names, require, write_splits


def find_root(folder: Path) -> Path:
    """The folder with img/, inst/ and the lists."""
    root = folder / "dataset" if (folder / "dataset" / "inst").is_dir() else folder
    require(root, "an unpacked SBD (benchmark_RELEASE/dataset)", "img", "inst", "train.txt", "val.txt")
    return root


def read(source: Path, voc_source: Path, split: str) -> Split:
    """All images that VOC 2012 does not have."""
    root, voc_root = find_root(source), voc.find_root(voc_source)
    listed = [name for part in ("train", "val") for name in read_names(root / f"{part}.txt")]
    taken = {name for part in ("train", "val") for name in voc.names_of(voc_root, part)}
    sources = [
        Source(name, root / "img" / f"{name}.jpg", partial(read_labels, root / "inst" / f"{name}.mat"))
        for name in sorted(set(listed) - taken)
    ]
    card = {
        "name": f"sbd/{split}",
        "split": split,
        "classes": {str(number): name for number, name in enumerate(voc.CLASSES, start=1)},
        "licence": "SBD: images of PASCAL VOC 2011 under the Flickr terms of use",
    }
    return Split(sources, card)


def read_labels(path: Path) -> Labels:
    """Ids of one image from GTinst: Segmentation numbers the objects, Categories holds their classes."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing, but its list names it; unpack SBD again")
    found = loadmat(path, squeeze_me=True, struct_as_record=False).get("GTinst")
    if found is None:
        raise ValueError(f"{path} holds no GTinst; expected the instances of SBD (inst/*.mat)")
    objects = np.atleast_2d(found.Segmentation).astype(np.int64)
    classes = np.concatenate([[0], np.atleast_1d(found.Categories)]).astype(np.int64)
    if objects.max() >= len(classes):
        raise ValueError(f"{path} has object {objects.max()} but {len(classes) - 1} classes; unpack it again")
    return np.where(objects > 0, CLASS * classes[objects] + objects, 0).astype(np.uint16)


def main() -> None:
    parser = arguments(__doc__, ("train",))
    parser.add_argument("--voc", type=Path, required=True, metavar="VOC2012", help="an unpacked PASCAL VOC 2012")
    args = parser.parse_args()
    write_splits(args.out, args.split, partial(read, args.source, args.voc))


if __name__ == "__main__":
    main()
