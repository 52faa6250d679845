"""Scores of a model on labelled images, with simulated clicks, noise and corrections.

Every object is segmented on its own from simulated prompts and compared with the truth in **image** pixels.
Objects and pixels with the id 65535 are left out, stacks are taken plane by plane (an object counts once per plane).
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_delse.annotator import simulated_click, simulated_drag, simulated_prompt
from napari_delse.data.labelled_planes import image_files
from napari_delse.data.samples import IGNORE, Sample, read_folder
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask, Point
from napari_delse.metrics import WIDTHS, Scores, score_object


class HasMask(Protocol):
    """What a prediction must offer."""

    @property
    def mask(self) -> ObjectMask: ...


class Segmenter(Protocol):
    """What evaluation asks of a predictor; `napari_delse.predict.Predictor` is one."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> Any: ...
    def segment(self, image: Any, prompt: ExtremePoints, /) -> HasMask: ...
    def correct(self, image: Any, prediction: Any, /, *corrections: Correction) -> HasMask: ...


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """What is evaluated; part of the result."""

    prompts: Literal["extreme", "box"] = "extreme"  # four extreme points, or the box only (DELSE*)
    jitter: float = 0.0  # uniform noise on the prompts, as a fraction of the box side along each axis
    drags: int = 0  # simulated drags per object, one after the other
    clicks: int = 0  # simulated further boundary clicks per object instead of drags
    max_objects: int | None = None  # objects per data set, drawn with the seed; all without it
    seed: int = 0  # of the noise and of the draw

    def __post_init__(self) -> None:
        if self.prompts not in ("extreme", "box"):
            raise ValueError(f"prompts must be 'extreme' or 'box', got {self.prompts!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"jitter must be a fraction of the box side in [0, 1), such as 0.05, got {self.jitter}")
        if min(self.drags, self.clicks, self.seed) < 0:
            raise ValueError(f"drags, clicks and seed must not be negative: {self.drags}, {self.clicks}, {self.seed}")
        if self.drags and self.clicks:
            raise ValueError("drags and clicks exclude each other; evaluate them one after the other")
        if self.clicks and self.prompts == "box":
            raise ValueError("further clicks need extreme points: a model does not see points of a box; use drags")
        if self.max_objects is not None and self.max_objects < 1:
            raise ValueError(f"max_objects must be at least 1, got {self.max_objects}")

    @property
    def steps(self) -> int:
        """Number of simulated corrections."""
        return self.drags or self.clicks


class ObjectKey(NamedTuple):
    """One object in one plane of one data set."""

    set: str
    name: str
    plane: int
    label: int


@dataclass(frozen=True)
class ObjectScore:
    """One evaluated object and how far the evaluation is."""

    key: ObjectKey
    steps: tuple[Scores, ...]  # after 0..K corrections
    milliseconds: float  # first mask, prompt to pixels
    done: int
    total: int


def set_names(folders: Sequence[Path | str]) -> dict[str, Path]:
    """Names of data sets: that of the folder, with its parent's where two are equal.

    Raises
    ------
    ValueError
        If a folder is given twice.
    """
    paths = [Path(folder).resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        raise ValueError(f"a folder is given twice among {', '.join(map(str, folders))}; give each once")
    short = [path.name for path in paths]
    names = [path.name if short.count(path.name) == 1 else "/".join(path.parts[-2:]) for path in paths]
    if len(set(names)) < len(names):
        names = [str(path) for path in paths]
    return dict(zip(names, paths, strict=True))


def read_list(path: Path | str, sets: Mapping[str, Path]) -> dict[str, list[str]]:
    """Which images to take, from a text file with one stem, or ``set/stem``, per line.

    Parameters
    ----------
    path : path
        Empty lines and those starting with ``#`` do not count, neither do lines that name other data sets.
    sets : mapping of str to path
        What `set_names` returned. A line without a set counts for all of them.

    Returns
    -------
    dict
        Stems by set, without the sets of which no image is listed.

    Raises
    ------
    ValueError
        If an image does not exist, or nothing is listed.
    """
    present = {
        name: set(image_files(folder / "labels")) if (folder / "labels").is_dir() else set()
        for name, folder in sets.items()
    }
    chosen: dict[str, list[str]] = {name: [] for name in sets}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file with one image name per line: {error.reason}") from error
    for number, line in enumerate(lines, start=1):
        entry = line.strip()
        owner, slash, stem = entry.rpartition("/")
        if not entry or entry.startswith("#") or (slash and owner not in sets):
            continue
        owners = [name for name in ([owner] if slash else sets) if stem in present[name]]
        if not owners:
            raise ValueError(
                f"{path}, line {number}: no labels {stem!r} in {owner or ', '.join(sets)}; remove the line"
            )
        for name in owners:
            chosen[name].append(stem)
    result = {name: stems for name, stems in chosen.items() if stems}
    if not result:
        raise ValueError(f"{path} lists no image of {', '.join(sets)}; write one stem or set/stem per line")
    return result


def _rng(seed: int, *parts: str | int) -> np.random.Generator:
    """A generator that depends on the seed and a name only, not on what was drawn before."""
    return np.random.default_rng([seed, zlib.crc32("/".join(map(str, parts)).encode())])


def objects_of(labels: npt.NDArray[Any]) -> dict[int, ObjectMask]:
    """All objects of a label plane by id, without background and ignored pixels."""
    seen = np.where(labels == IGNORE, 0, labels)
    result = {}
    for label, window in enumerate(ndimage.find_objects(seen), start=1):
        if window is not None:
            rows, columns = window
            result[label] = ObjectMask(seen[window] == label, (rows.start, columns.start))
    return result


def choose_objects(
    sets: Mapping[str, Path], max_objects: int | None, seed: int, names: Mapping[str, Sequence[str]] | None = None
) -> dict[str, list[ObjectKey]]:
    """The objects to evaluate, by data set, in the order in which they are read.

    Parameters
    ----------
    sets : mapping of str to path
        Folders by name.
    max_objects : int or None
        At most so many of each data set, drawn without bias towards images with few of them.
    seed : int
        Of the draw.
    names : mapping of str to sequence of str, optional
        Stems to take of each data set; those without an entry are left out.

    Raises
    ------
    ValueError
        If a data set holds no object.
    """
    chosen = {}
    for name, folder in sets.items():
        if names is not None and name not in names:
            continue
        keys = [
            ObjectKey(name, sample.name, sample.plane, label)
            for sample in read_folder(folder, None if names is None else names[name])
            for label in objects_of(sample.labels)
        ]
        if not keys:
            raise ValueError(f"the labels in {folder} hold no object; every pixel is 0 or {IGNORE}")
        if max_objects is not None and len(keys) > max_objects:
            drawn = _rng(seed, name).choice(len(keys), size=max_objects, replace=False)
            keys = [keys[i] for i in sorted(drawn)]
        chosen[name] = keys
    return chosen


def evaluate(
    predictor: Segmenter,
    folders: Sequence[Path | str],
    config: EvaluateConfig | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
) -> Iterator[ObjectScore]:
    """Segment and score labelled objects one by one.

    Parameters
    ----------
    predictor : Segmenter
        The model.
    folders : sequence of path
        Data sets in the layout of `napari_delse.data.samples`.
    config : EvaluateConfig, optional
        Prompts, noise and corrections.
    names : mapping of str to sequence of str, optional
        Images to take by data set; see `read_list`.

    Yields
    ------
    ObjectScore
        Collect them for `summarise`. An object depends on nothing but the seed and its own name: another order
        or draw gives it the same score.

    Raises
    ------
    ValueError
        If a data set holds no object or its files do not fit.
    FileNotFoundError
        If a data set has no images or labels.
    """
    config = config or EvaluateConfig()
    sets = set_names(folders)
    chosen = choose_objects(sets, config.max_objects, config.seed, names)
    total = sum(map(len, chosen.values()))
    done = 0
    for name, keys in chosen.items():
        wanted: dict[tuple[str, int], list[ObjectKey]] = {}
        for key in keys:
            wanted.setdefault((key.name, key.plane), []).append(key)
        for sample in read_folder(sets[name], list(dict.fromkeys(key.name for key in keys))):
            here = wanted.get((sample.name, sample.plane), [])
            objects = objects_of(sample.labels) if here else {}
            ignore = sample.labels == IGNORE
            for key in here:
                if done == 0:  # the first call of a fresh process pays for caches and kernels
                    predictor.segment(sample.image, _prompt(objects[key.label], key, config))
                steps, milliseconds = _score_steps(predictor, sample, objects[key.label], ignore, key, config)
                done += 1
                yield ObjectScore(key, steps, milliseconds, done, total)


def _prompt(truth: ObjectMask, key: ObjectKey, config: EvaluateConfig) -> ExtremePoints:
    return simulated_prompt(truth, _rng(config.seed, *key), jitter=config.jitter, box=config.prompts == "box")


def _score_steps(
    predictor: Segmenter,
    sample: Sample,
    truth: ObjectMask,
    ignore: npt.NDArray[np.bool_],
    key: ObjectKey,
    config: EvaluateConfig,
) -> tuple[tuple[Scores, ...], float]:
    """Scores of one object after 0..K corrections, and the milliseconds of the first mask."""
    shape = sample.image.shape
    void = ignore if ignore.any() else None
    prompt = _prompt(truth, key, config)
    start = time.perf_counter()
    prediction = predictor.segment(sample.image, prompt)
    milliseconds = (time.perf_counter() - start) * 1000
    scores = [score_object(prediction.mask, truth, shape, void)]
    clicks: list[Point] = []
    for _ in range(config.steps):
        drag = click = None
        if config.drags and (drag := simulated_drag(prediction.mask, truth, shape, void)):
            prediction = predictor.correct(sample.image, prediction, drag)
        elif config.clicks and (click := simulated_click(prediction.mask, truth, shape, void)):
            clicks.append(click)
            prediction = predictor.segment(sample.image, prompt.with_points(*clicks))
        if drag is None and click is None:  # nothing left to repair: the mask stays
            scores += [scores[-1]] * (config.steps + 1 - len(scores))
            break
        scores.append(score_object(prediction.mask, truth, shape, void))
    return tuple(scores), milliseconds


def _means(scores: Sequence[ObjectScore]) -> dict[str, Any]:
    """Mean scores of some objects in the JSON's fields; those of the first mask stand at the top."""
    worst = sorted(scores, key=lambda score: score.steps[0].iou)[: math.ceil(len(scores) / 4)]
    steps = []
    for step in range(len(scores[0].steps)):
        here = [score.steps[step] for score in scores]
        curve = np.mean([s.boundary_f for s in here], axis=0)
        steps.append(
            {
                "miou": float(np.mean([s.iou for s in here])),
                "f_1px": float(curve[WIDTHS.index(1)]),
                "f_2px": float(curve[WIDTHS.index(2)]),
                "boundary_f": [float(f) for f in curve],
                "miou_worst_quarter": float(np.mean([score.steps[step].iou for score in worst])),
            }
        )
    return {
        "objects": len(scores),
        **steps[0],
        "ms_per_object": float(np.mean([score.milliseconds for score in scores])),
        "steps": steps,
    }


def summarise(scores: Iterable[ObjectScore], predictor: Segmenter, config: EvaluateConfig) -> dict[str, Any]:
    """The result of an evaluation as plain data for JSON.

    Parameters
    ----------
    scores : iterable of ObjectScore
        All that `evaluate` yielded.
    predictor : Segmenter
        The evaluated model.
    config : EvaluateConfig
        What was evaluated.

    Returns
    -------
    dict
        ``objects``, ``miou``, ``f_1px``, ``f_2px``, ``boundary_f`` (k = 1..10) and ``ms_per_object`` of the first
        masks, as means over objects; ``miou_worst_quarter`` over the quarter of the objects whose first masks are
        worst; ``steps`` with the scores after 0..K corrections; ``by_set`` with all of these
        for each data set; ``model``, ``device`` and the fields of the config.

    Raises
    ------
    ValueError
        Without any score.
    """
    collected = list(scores)
    if not collected:
        raise ValueError("no object was evaluated; give a folder with labels")
    groups: dict[str, list[ObjectScore]] = {}
    for score in collected:
        groups.setdefault(score.key.set, []).append(score)
    return {
        "model": predictor.name,
        "device": str(predictor.device),
        **asdict(config),
        **_means(collected),
        "by_set": {name: _means(group) for name, group in groups.items()},
    }


def run(
    predictor: Segmenter,
    folders: Sequence[Path | str],
    config: EvaluateConfig | None = None,
    names: Mapping[str, Sequence[str]] | None = None,
    progress: Callable[[ObjectScore], None] | None = None,
) -> dict[str, Any]:
    """`evaluate` and `summarise` in one call, for scripts; ``progress`` sees every object's score."""
    config = config or EvaluateConfig()
    scores = []
    for score in evaluate(predictor, folders, config, names):
        scores.append(score)
        if progress is not None:
            progress(score)
    return summarise(scores, predictor, config)
