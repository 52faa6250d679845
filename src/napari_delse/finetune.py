"""Fine-tuning on a person's own labelled images, with the score on held-out images before and after.

A labelled object is one training example, and what surrounds it is background for *it*, labelled or not:
so it does no harm to have labelled only some objects of some planes.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from napari_delse.annotator import simulated_prompt
from napari_delse.checkpoint import LoadedModel, load_model, save_model, write_json
from napari_delse.crops import AugmentConfig, ObjectPack, join_packs, pack_objects
from napari_delse.data import IGNORE, Sample, check_images, object_ids
from napari_delse.distributed import World
from napari_delse.geometry import ExtremePoints, ObjectMask
from napari_delse.images import Plane
from napari_delse.metrics import score_object
from napari_delse.predict import Predictor
from napari_delse.synthetic import synthetic_set
from napari_delse.train import LossConfig, TrainConfig, fit

_MIN_AREA = 12  # pixels; smaller labels are specks


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig:
    """A fine-tuning run; what is not here is as in `TrainConfig`."""

    minutes: float = 5.0  # time to train; stopping earlier keeps the best model so far
    steps: int | None = None  # exactly so many steps instead, for repeatable runs
    validation: float = 0.25  # share of the objects held out, by planes or images
    score_objects: int = 40  # held-out objects scored at every checkpoint, at most
    learning_rate: float = 5e-4  # at its highest
    batch_size: int = 8  # objects per step
    size: int | None = None  # input side of the new model; the parent's without it
    warm_size: int | None = None  # input side for the first part of the run
    warm_part: float = 0.6  # how long
    replay: int = 24  # synthetic images mixed in, against forgetting; 0 for none
    replay_share: float = 0.25  # share of the examples that are from them
    ema: float = 0.99  # decay of the averaged weights, which are the ones kept
    anchor: float = 0.0  # pull towards the parent's weights, as strong as a weight decay of this size
    weight_decay: float = 0.02  # of weights
    learn: tuple[str, ...] = ()  # beginnings of the names of the parameters that learn; () is all
    freeze_norm: bool = True  # keep the parent's batch norm statistics
    interactive_share: float = 0.25  # share of steps that train corrections
    seed: int = 0  # of everything that is drawn
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loss: LossConfig = field(default_factory=LossConfig)

    def __post_init__(self) -> None:
        if self.minutes <= 0 or not 0 < self.validation < 1:
            raise ValueError(
                f"minutes must be > 0 and validation in (0, 1), got {self.minutes:g} and {self.validation:g}"
            )


class ScoredObjects(NamedTuple):
    """Scores of held-out objects, in the order of the objects."""

    iou: tuple[float, ...]
    f_2px: tuple[float, ...]

    @property
    def mean_iou(self) -> float:
        """Mean over the objects."""
        return float(np.mean(self.iou))

    @property
    def mean_f(self) -> float:
        """Mean boundary F within two pixels."""
        return float(np.mean(self.f_2px))


@dataclass(frozen=True)
class FineTuneProgress:
    """What `fine_tune` yields: first before training, then at every checkpoint, last at the end."""

    fraction: float  # of the run
    loss: float  # nan before training
    now: ScoredObjects  # of the model in training
    before: ScoredObjects  # of the parent
    best: ScoredObjects  # of the model that is kept
    remaining: float  # seconds, estimated
    folder: Path  # where the best model is
    done: bool = False

    @property
    def improved(self) -> bool:
        """Whether the model kept is better than the parent on the held-out objects."""
        return self.best.mean_iou > self.before.mean_iou


class LabelledObjects(NamedTuple):
    """One side of a split: planes, and which of their objects belong to it."""

    planes: tuple[tuple[Sample, tuple[int, ...]], ...]

    @property
    def total(self) -> int:
        """Number of objects."""
        return sum(len(ids) for _, ids in self.planes)


def split_objects(samples: Iterable[Sample], validation: float) -> tuple[LabelledObjects, LabelledObjects]:
    """Training and held-out objects that do not leak into each other.

    Whole images are held out where there are several; else the last planes of the stack, because neighbouring
    planes look alike; else the objects on one side of the only plane.

    Parameters
    ----------
    samples : iterable of Sample
        Labelled planes; those without objects do not count.
    validation : float
        Share of the objects to hold out; at least one is, and at least one is not.

    Returns
    -------
    training, held_out : LabelledObjects

    Raises
    ------
    ValueError
        If there are fewer than two objects.
    """
    planes = [(s, ids) for s in samples if (ids := tuple(object_ids(s.labels, _MIN_AREA)))]
    total = sum(len(ids) for _, ids in planes)
    if total < 2:
        raise ValueError(
            f"{total} labelled object{'s' * (total != 1)} of {_MIN_AREA} pixels or more cannot be trained and checked "
            "on; label at least two, better ten"
        )
    names = list(dict.fromkeys(s.name for s, _ in planes))
    if len(names) > 1:
        units = [[p for p in planes if p[0].name == name] for name in names]
    elif len(planes) > 1:
        units = [[p] for p in planes]
    else:
        sample, ids = planes[0]
        order = sorted(ids, key=lambda i: float(np.argwhere(sample.labels == i)[:, 1].mean()))
        units = [[(sample, (i,))] for i in order]
    held: list[tuple[Sample, tuple[int, ...]]] = []
    while len(units) > 1:  # from the end, as long as it brings us nearer to the share
        share, more = sum(len(i) for _, i in held) / total, sum(len(i) for _, i in units[-1]) / total
        if held and abs(share + more - validation) > abs(share - validation):
            break
        held = [*units.pop(), *held]
    return LabelledObjects(tuple(p for unit in units for p in unit)), LabelledObjects(tuple(held))


def score(predictor: Predictor, objects: LabelledObjects, limit: int | None = None, seed: int = 0) -> ScoredObjects:
    """IoU and boundary F of four slightly loose clicks on each object, always the same clicks.

    Parameters
    ----------
    predictor : Predictor
        The model.
    objects : LabelledObjects
        What to score.
    limit : int, optional
        At most so many objects, drawn with the seed.
    seed : int
        Of the draw and of the clicks.
    """
    listed = [(sample, i) for sample, ids in objects.planes for i in ids]
    if limit is not None and len(listed) > limit:
        chosen = np.random.default_rng(seed).choice(len(listed), limit, replace=False)
        listed = [listed[i] for i in sorted(chosen)]
    ious, fs = [], []
    for number, (sample, label) in enumerate(listed):
        truth = ObjectMask.from_plane(sample.labels == label)
        prompt: ExtremePoints = simulated_prompt(truth, np.random.default_rng([seed, number]), jitter=0.02)
        found = predictor.segment(sample.image, prompt).mask
        void = sample.labels == IGNORE
        result = score_object(found, truth, sample.image.shape, void if void.any() else None)
        ious.append(result.iou)
        fs.append(result.boundary_f[1])
    return ScoredObjects(tuple(ious), tuple(fs))


def _pack(objects: LabelledObjects, config: FineTuneConfig, canvas: int) -> ObjectPack:
    packs: list[ObjectPack] = []
    for sample, ids in objects.planes:
        # Objects of the other side keep their pixels (they are background here) but are no examples.
        kept = np.where(np.isin(sample.labels, [*ids, IGNORE]), sample.labels, 0).astype(np.uint16)
        packs.extend(pack_objects([sample._replace(labels=kept)], 0, canvas, min_area=_MIN_AREA))
    synthetic = (
        Sample(f"synthetic-{i}", 0, Plane.of(image), labels.astype(np.uint16))
        for i, (image, labels) in enumerate(synthetic_set(config.replay, config.seed))
    )
    packs.extend(pack_objects(synthetic, 1, canvas, limit=8 * config.replay, seed=config.seed))
    return join_packs(packs)


def _train_config(config: FineTuneConfig) -> TrainConfig:
    return TrainConfig(
        minutes=None if config.steps else config.minutes,
        steps=config.steps or 1,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        warmup=0.1,
        ema=config.ema,
        anchor=config.anchor,
        weight_decay=config.weight_decay,
        learn=config.learn,
        sizes=((0.0, config.warm_size), (config.warm_part, config.size or 192)) if config.warm_size else (),
        joint_from=0.0,
        interactive_from=0.0,
        interactive_share=config.interactive_share,
        balance=0.0,
        set_weights={"synthetic": config.replay_share / (1 - config.replay_share)},
        freeze_norm=config.freeze_norm,
        save_minutes=min(1.0, config.minutes / 8),
        seed=config.seed,
        loss=config.loss,
        augment=config.augment,
    )


def fine_tune(
    parent: LoadedModel | str | Path,
    samples: Sequence[Sample],
    folder: Path | str,
    config: FineTuneConfig | None = None,
    *,
    device: str | torch.device = "cpu",
    card: dict[str, Any] | None = None,
    world: World | None = None,
) -> Generator[FineTuneProgress, None, None]:
    """Fine-tune a model on labelled planes.

    Parameters
    ----------
    parent : LoadedModel, str or path
        Model to begin with; it is not changed.
    samples : sequence of Sample
        Labelled planes.
    folder : path
        Where the best model goes; its last part is the model's name. Stopped and started again with the same
        arguments, training goes on.
    config : FineTuneConfig, optional
        The run.
    device : str or torch.device
        Where to train.
    card : dict, optional
        More for the model card.
    world : World, optional
        The processes that train together; only the first scores, saves and yields.

    Yields
    ------
    FineTuneProgress
        At every yield the best model so far is complete on disk. A model that is not better than its parent is
        never kept: then ``folder`` holds a copy of the parent.

    Raises
    ------
    ValueError
        If there are fewer than two objects, an image is blank, or ``folder`` holds another run.
    """
    config, folder = config or FineTuneConfig(), Path(folder)
    loaded = parent if isinstance(parent, LoadedModel) else load_model(parent)
    training, held_out = split_objects(samples, config.validation)
    check_images(sample for sample, _ in (*training.planes, *held_out.planes))
    facts = {
        **(card or {}),
        "parent": loaded.name,
        "objects": training.total,
        "held_out_objects": held_out.total,
        "held_out": [f"{s.name}/{s.plane}" for s, _ in held_out.planes],
    }
    work = folder / "training"
    network = load_model(loaded.path).model.requires_grad_(True)
    if config.size is not None:
        network.config = network.config.resized(config.size)
    run = fit(
        network,
        _pack(training, config, canvas=min(256, loaded.config.crop.size)),
        _train_config(config),
        work,
        device=device,
        sets=("own", "synthetic"),
        card=facts,
        world=world,
    )
    if world is not None and not world.leads:
        list(run)
        return
    before = score(Predictor(loaded, torch.device("cpu")), held_out, config.score_objects, config.seed)
    best = before
    if (work / "resume.safetensors").is_file() and (folder / "config.json").is_file():
        best = score(Predictor(load_model(folder), torch.device("cpu")), held_out, config.score_objects, config.seed)
    else:
        _keep(loaded, folder, facts, before, before)
    yield FineTuneProgress(0.0, float("nan"), before, before, best, 60 * config.minutes, folder)
    now = before
    with closing(run):
        for progress in run:
            if progress.saved:
                trained = load_model(work)
                now = score(Predictor(trained, torch.device("cpu")), held_out, config.score_objects, config.seed)
                if now.mean_iou > best.mean_iou:
                    best = now
                    _keep(replace(trained, name=folder.name), folder, facts, before, best)
            done = progress.fraction >= 1
            yield FineTuneProgress(
                progress.fraction, progress.loss, now, before, best, progress.remaining, folder, done=done
            )
    shutil.rmtree(work, ignore_errors=True)


def _keep(model: LoadedModel, folder: Path, facts: dict[str, Any], before: ScoredObjects, best: ScoredObjects) -> None:
    scores = {
        name: {"objects": len(s.iou), "miou": s.mean_iou, "f_2px": s.mean_f, "iou": list(s.iou)}
        for name, s in (("before", before), ("after", best))
    }
    save_model(folder, model.model, {**facts, "validation": scores})
    write_json(folder / "scores.json", scores)
