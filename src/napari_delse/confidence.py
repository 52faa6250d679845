"""Confidence: a score in [0, 1] that says how good a mask probably is, from its own prediction alone.

A model carries a `Calibration` in the field ``confidence`` of its card: a logistic regression on a few features of one
prediction, fitted on labelled objects that did not train the model (``training/calibrate.py``). The sign of most
weights is fixed beforehand, so that the score can only fall when, say, the contour misses the clicks. Without a
calibration the score is `expected_iou`, which trusts phi as if it were a log-odds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage, optimize
from scipy.spatial import cKDTree
from scipy.special import expit, logit

from napari_delse.annotator import inner_boundary, jittered
from napari_delse.geometry import BoolArray, Correction, Crop, ExtremePoints, ObjectMask
from napari_delse.metrics import mask_iou

Float32Array = npt.NDArray[np.float32]
FloatArray = npt.NDArray[np.float64]

# What a larger value must mean: +1 a better mask, -1 a worse one, 0 whatever the data say.
DIRECTIONS: dict[str, int] = {
    "expected_iou": 1,  # log-odds of `expected_iou`
    "steepness": 1,  # log of the mean |grad phi_T| along the contour
    "weakest": 1,  # log of the tenth percentile of the same
    "last_move": -1,  # way of the contour in the last step, as a share of the network's side
    "evolved": -1,  # 1 - IoU of the masks of phi_0 and phi_T
    "clicks_off": -1,  # mean distance of the clicks and the drags' ends from the contour, share of the side
    "box_off": -1,  # 1 - IoU of the boxes of the mask and of the prompt
    "pieces": -1,  # share of the area outside the largest component
    "thinness": -1,  # log of contour pixels by area, times the side: a strip loses more to an error of one pixel
    "prompts": 0,  # number of clicks and drags
    "boxed": 0,  # 1 for a box, 0 for clicks
    "area": 0,  # log of the area as a share of the network's input
    "pixels": 0,  # log of the number of pixels in the plane
}

# What a calibration is fitted on: with all features the map orders new kinds of images no better
# (training/results/confidence.md). The number of prompts would gain a little, but a further click must not cost trust.
FITTED = ("expected_iou", "weakest", "box_off", "boxed")

_PRIOR = 10  # objects that the old calibration counts for when it is shifted


class Evolved(Protocol):
    """What the features look at; `napari_delse.predict.Prediction` is one."""

    @property
    def states(self) -> tuple[Float32Array, ...]: ...
    @property
    def threshold(self) -> float: ...
    @property
    def softness(self) -> float: ...
    @property
    def mask(self) -> ObjectMask: ...
    @property
    def prompt(self) -> ExtremePoints: ...
    @property
    def corrections(self) -> tuple[Correction, ...]: ...
    @property
    def crop(self) -> Crop: ...


class HasMask(Protocol):
    """What a segmented object must offer."""

    @property
    def mask(self) -> ObjectMask: ...


class Resegmenter(Protocol):
    """What `agreement` asks of a predictor."""

    def segment_many(
        self, image: Any, prompts: Sequence[ExtremePoints], corrections: Sequence[Sequence[Correction]] = (), /
    ) -> Any: ...
    def evolve_like(self, prediction: Any, other: Any, /) -> Any: ...


@dataclass(frozen=True)
class Calibration:
    """Logistic regression from features to the IoU; saved in the model card.

    Parameters
    ----------
    names : tuple of str
        Features, of `DIRECTIONS`.
    means, scales : tuple of float
        They standardise the features.
    weights : tuple of float
        Of the standardised features.
    bias : float
        Log-odds of the IoU of an average prediction.

    Raises
    ------
    ValueError
        If a feature is unknown, or the lengths differ, or a number is not finite.
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        if unknown := [name for name in self.names if name not in DIRECTIONS]:
            raise ValueError(f"confidence has the unknown feature {unknown[0]!r}; fit it again or update napari-delse")
        lengths = {len(part) for part in (self.names, self.means, self.scales, self.weights)}
        numbers = (*self.means, *self.scales, *self.weights, self.bias)
        if len(lengths) != 1 or not all(map(math.isfinite, numbers)) or min(self.scales, default=1) <= 0:
            raise ValueError("confidence needs one finite mean, scale > 0 and weight per feature; fit it again")

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Calibration | None:
        """The calibration of a model card; None if it has none.

        Raises
        ------
        ValueError
            If it is damaged.
        """
        if "confidence" not in card:
            return None
        try:
            stored = card["confidence"]
            means, scales, weights = (tuple(float(v) for v in stored[key]) for key in ("means", "scales", "weights"))
            return cls(tuple(stored["names"]), means, scales, weights, float(stored["bias"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"the field confidence of the model card is damaged ({error}); fit it again") from error

    def to_card(self) -> dict[str, Any]:
        """Plain data that `from_card` reads."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def score(self, features: Mapping[str, float]) -> float:
        """Expected IoU of a prediction with such features, in (0, 1)."""
        row = [features[name] for name in self.names]
        return float(self.scores(np.array([row], dtype=np.float64))[0])

    def scores(self, rows: FloatArray) -> FloatArray:
        """Expected IoU of many predictions, shape (N,), from (N, number of features) in the order of ``names``."""
        # Beyond four deviations nothing was fitted: a stranger prediction must not get a bolder score.
        standard = np.clip((rows - self.means) / self.scales, -4, 4)
        result: FloatArray = expit(standard @ np.asarray(self.weights) + self.bias)
        return result

    def shifted(self, rows: FloatArray, ious: FloatArray) -> Calibration:
        """The same with another bias: for a model that was trained on from the one it was fitted for.

        What the features mean is kept; only the level is brought towards the mean IoU of a few labelled objects,
        the more of them the nearer.

        Parameters
        ----------
        rows : float64 array, shape (N, number of features)
            Features of the new model's predictions in the order of ``names``; rows with nan (empty masks) do not count.
        ious : float64 array, shape (N,)
            Their true IoU.
        """
        known = ~np.isnan(rows).any(axis=1)
        if not known.any():
            return self
        standard = np.clip((rows[known] - self.means) / self.scales, -4, 4) @ np.asarray(self.weights) + self.bias
        wanted = float(np.clip(ious[known].mean(), 0.01, 0.99))
        shift = optimize.brentq(lambda s: float(expit(standard + s).mean()) - wanted, -20, 20)
        trust = known.sum() / (known.sum() + _PRIOR)
        return replace(self, bias=self.bias + float(trust * shift))


def expected_iou(phi: Float32Array, threshold: float, softness: float) -> float:
    """Expected IoU in [0, 1], taking the logistic of phi for the probability of a pixel.

    Parameters
    ----------
    phi : float32 array, shape (H, W)
        Level set function, positive inside.
    threshold : float
        phi above this is inside.
    softness : float
        Network pixels over which the logistic falls.
    """
    probability = expit((phi - threshold) / softness)
    inside = phi > threshold
    hit = float(probability[inside].sum())
    union = float(np.count_nonzero(inside) + probability.sum() - hit)
    return hit / union if union else 0.0


def features_of(prediction: Evolved) -> dict[str, float]:
    """The features of one prediction, by the names of `DIRECTIONS`; about a millisecond.

    Raises
    ------
    ValueError
        If the mask is empty.
    """
    last, threshold, size = prediction.states[-1], prediction.threshold, prediction.crop.size
    inside = last > threshold
    area = int(np.count_nonzero(inside))
    if not area or not prediction.mask.area:
        raise ValueError("an empty mask has no features; its confidence is 0")
    contour = np.argwhere(_edge(inside))
    slopes = _slopes(last, contour)
    before = prediction.states[-2] if len(prediction.states) > 1 else last
    rows, columns = contour.T
    moved = np.abs(last[rows, columns] - before[rows, columns]) / np.maximum(slopes, 0.1)
    first = prediction.states[0] > threshold
    shared = np.count_nonzero(first & inside) / np.count_nonzero(first | inside)
    expected = float(np.clip(expected_iou(last, threshold, prediction.softness), 1e-3, 1 - 1e-3))
    return {
        "expected_iou": float(logit(expected)),
        "steepness": math.log(max(float(slopes.mean()), 1e-3)),
        "weakest": math.log(max(float(np.percentile(slopes, 10)), 1e-3)),
        "last_move": float(moved.mean()) / size,
        "evolved": 1 - shared,
        "clicks_off": _clicks_off(prediction, contour) / size,
        "box_off": 1 - box_iou(box_of(prediction.mask), prediction.prompt.box),
        "pieces": _outside_largest(inside),
        "thinness": math.log(len(contour) / area * size),
        "prompts": float(len(prediction.prompt.points) + len(prediction.corrections)),
        "boxed": float(prediction.prompt.kind == "box"),
        "area": math.log(area / size**2),
        "pixels": math.log(prediction.mask.area),
    }


def confidence(prediction: Evolved, calibration: Calibration | None) -> float:
    """The score of one prediction: calibrated, else `expected_iou`; 0 for an empty mask."""
    if prediction.mask.area == 0:
        return 0.0
    if calibration is None:
        return expected_iou(prediction.states[-1], prediction.threshold, prediction.softness)
    return calibration.score(features_of(prediction))


def fit(
    names: Sequence[str],
    rows: FloatArray,
    ious: FloatArray,
    weights: FloatArray | None = None,
    ridge: float = 0.003,
) -> Calibration:
    """Fit a calibration: logistic regression with fixed signs and a ridge.

    Parameters
    ----------
    names : sequence of str
        Features, of `DIRECTIONS`.
    rows : float64 array, shape (N, number of names)
        Their values.
    ious : float64 array, shape (N,)
        True IoU in [0, 1].
    weights : float64 array, shape (N,), optional
        How much each object counts; equal by default.
    ridge : float
        Weight of half the sum of squared weights.

    Raises
    ------
    ValueError
        If there are fewer than two objects or the shapes do not fit.
    """
    if rows.shape != (len(ious), len(names)) or len(ious) < 2:
        raise ValueError(f"features {rows.shape} must be (objects, {len(names)}) of two or more objects: {len(ious)}")
    counts = np.full(len(ious), 1 / len(ious)) if weights is None else np.asarray(weights) / np.sum(weights)
    means = counts @ rows
    scales = np.sqrt(counts @ (rows - means) ** 2)
    scales[scales < 1e-9] = 1.0
    standard = np.clip((rows - means) / scales, -4, 4)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        odds = standard @ parameters[:-1] + parameters[-1]
        error = counts * (expit(odds) - ious)
        value = counts @ (np.logaddexp(0, odds) - ious * odds) + ridge / 2 * (parameters[:-1] @ parameters[:-1])
        return float(value), np.append(standard.T @ error + ridge * parameters[:-1], error.sum())

    limits = {1: (0, None), -1: (None, 0), 0: (None, None)}
    bounds = [*(limits[DIRECTIONS[name]] for name in names), (None, None)]
    found = optimize.minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds, method="L-BFGS-B").x
    centres, spreads, slopes = (tuple(float(v) for v in part) for part in (means, scales, found[:-1]))
    return Calibration(tuple(names), centres, spreads, slopes, float(found[-1]))


def agreement(
    predictor: Resegmenter,
    image: Any,
    prediction: Evolved,
    count: int = 4,
    jitter: float = 0.05,
    seed: int = 0,
) -> float:
    """Mean IoU of a mask with those of moved clicks: costs ``count`` more passes of the network.

    Parameters
    ----------
    predictor : Resegmenter
        The model.
    image : array-like or Plane
        What was segmented.
    prediction : Evolved
        The mask to judge, with its prompt and drags; the others are evolved as it was.
    count : int
        How many times the clicks are moved.
    jitter : float
        See `annotator.jittered`.
    seed : int
        Of the moves.
    """
    rng = np.random.default_rng(seed)
    prompts = [jittered(prediction.prompt, jitter, rng) for _ in range(count)]
    moved = predictor.segment_many(image, prompts, [prediction.corrections] * count)
    others: list[HasMask] = [predictor.evolve_like(other, prediction) for other in moved]
    return float(np.mean([mask_iou(other.mask, prediction.mask) for other in others]))


def _edge(inside: BoolArray) -> BoolArray:
    """The contour's inner pixels; where an object touches the whole border, the border."""
    edge = inner_boundary(inside)
    return edge if edge.any() else inside & ~ndimage.binary_erosion(inside)


def _slopes(phi: Float32Array, contour: npt.NDArray[np.intp]) -> FloatArray:
    """|grad phi| by central differences at some pixels."""
    rows, columns = contour.T
    height, width = phi.shape
    d_y = phi[np.minimum(rows + 1, height - 1), columns] - phi[np.maximum(rows - 1, 0), columns]
    d_x = phi[rows, np.minimum(columns + 1, width - 1)] - phi[rows, np.maximum(columns - 1, 0)]
    slopes: FloatArray = np.hypot(d_y, d_x).astype(np.float64) / 2
    return slopes


def _clicks_off(prediction: Evolved, contour: npt.NDArray[np.intp]) -> float:
    """Mean distance in network pixels of what should lie on the contour; a box has no such points but drags."""
    points = [] if prediction.prompt.kind == "box" else list(prediction.prompt.points)
    points += [drag.end for drag in prediction.corrections]
    if not points:
        return 0.0
    distances, _ = cKDTree(contour).query(prediction.crop.to_network(points))
    return float(distances.mean())


def box_of(mask: ObjectMask) -> tuple[float, float, float, float]:
    """(y0, x0, y1, x1) of a mask that is not empty, in pixel centres."""
    (y, x), (height, width) = mask.origin, mask.mask.shape
    return y, x, y + height - 1, x + width - 1


def box_iou(one: tuple[float, float, float, float], other: tuple[float, float, float, float]) -> float:
    """IoU of two boxes (y0, x0, y1, x1) of pixel centres."""

    def area(y0: float, x0: float, y1: float, x1: float) -> float:
        return max(y1 - y0 + 1, 0) * max(x1 - x0 + 1, 0)

    (a0, b0, a1, b1), (c0, d0, c1, d1) = one, other
    shared = area(max(a0, c0), max(b0, d0), min(a1, c1), min(b1, d1))
    return shared / (area(*one) + area(*other) - shared)


def _outside_largest(inside: BoolArray) -> float:
    """Share of the area outside the largest component."""
    numbered, count = ndimage.label(inside)
    if count < 2:
        return 0.0
    areas = np.bincount(numbered.ravel())[1:]
    return float(1 - areas.max() / areas.sum())
