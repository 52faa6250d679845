"""The best threshold on phi_T (or on the logit of DEXTR), searched on training images only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from napari_delse.data.samples import IGNORE, Sample, object_ids, read_folder
from napari_delse.geometry import ExtremePoints, ObjectMask
from napari_delse.metrics import common_window, in_window, iou
from napari_delse.predict import Predictor, mask_from_phi
from pack import is_prepared, split

FLAT = 5e-4  # mean IoU; thresholds that are worse than the best by less are as good
THRESHOLDS = np.linspace(-4, 4, 33)  # network pixels, or units of DEXTR's logit


def search_threshold(
    predictor: Predictor, folders: Sequence[Path], count: int, seed: int, *, worth: float = 0.0, box: bool = False
) -> tuple[float, dict[str, float]]:
    """The threshold with the highest mean IoU over some training objects of every set; of equals that next to 0.

    Parameters
    ----------
    predictor : Predictor
        A model.
    folders : sequence of path
        Data sets; only their training side is read.
    count : int
        Objects of each.
    seed : int
        Of the choice of objects.
    worth : float
        Mean IoU that another threshold than 0 must gain; else it stays 0, which is what a level set function means.
    box : bool
        Show the model boxes instead of extreme points.

    Returns
    -------
    threshold : float
    curve : dict of str to float
        Mean IoU at each threshold.
    """
    rng = np.random.default_rng(seed)
    scores = []
    for folder in folders:
        samples = _training_samples(folder, 4 * count, rng)
        chosen: list[tuple[Sample, int]] = []
        for index in rng.permutation(len(samples))[: 4 * count]:
            ids = object_ids(samples[index].labels, 12)
            chosen += [(samples[index], int(i)) for i in rng.permutation(ids)[: max(1, count // 8)]]
        scores += [_ious(predictor, sample, label, box=box) for sample, label in chosen[:count]]
    if not scores:
        raise ValueError(f"no object of 12 pixels or more in {', '.join(map(str, folders))} to search a threshold on")
    means = np.mean(scores, axis=0)
    good = THRESHOLDS[means >= means.max() - FLAT]  # often a plateau: stay as near to 0 as it allows
    best = float(good[np.argmin(np.abs(good))])
    if means.max() - means[np.flatnonzero(THRESHOLDS == 0)[0]] < worth:
        best = 0.0
    return best, {f"{t:g}": round(float(m), 4) for t, m in zip(THRESHOLDS, means, strict=True)}


def _training_samples(folder: Path, most: int, rng: np.random.Generator) -> list[Sample]:
    """Labelled planes of the training side; of a prepared split, which may be large, not all are read."""
    if is_prepared(folder):
        names = sorted(file.stem for file in (folder / "labels").iterdir() if not file.name.startswith("."))
        return list(read_folder(folder, [names[i] for i in rng.permutation(len(names))[:most]]))
    return list(split(folder, validation=False))


def _ious(predictor: Predictor, sample: Sample, label: int, *, box: bool) -> list[float]:
    """IoU of one object at every threshold."""
    plane = sample.labels == label
    truth, prompt, ignore = ObjectMask.from_plane(plane), ExtremePoints.from_mask(plane), sample.labels == IGNORE
    found = predictor.segment(sample.image, ExtremePoints.from_box(prompt.points) if box else prompt)
    shape, values = sample.image.shape, []
    for threshold in THRESHOLDS:
        mask = mask_from_phi(found.states[-1], found.crop, shape, float(threshold))
        window = common_window((mask, truth), shape)
        values.append(iou(in_window(mask, window), in_window(truth, window), ignore[window]))
    return values
