"""Labels from a journal: from the masks that it holds, or predicted anew from its prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from napari_delse.annotation.actions import Commit, Draft
from napari_delse.annotation.edits import ArrayLabels, PlaneKey, cut, union
from napari_delse.annotation.journal import Contents, Header, read, repeat
from napari_delse.annotation.policy import LabelPolicy, tidy
from napari_delse.annotation.session import AnnotationSession, Preview
from napari_delse.data.files import ImageFile
from napari_delse.data.images import Plane
from napari_delse.evolution import EvolutionConfig
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask


class Segmenter(Protocol):
    """What predicting anew asks of a predictor; `napari_delse.predict.Predictor` is one."""

    def segment(
        self, image: Plane, prompt: ExtremePoints, corrections: tuple[Correction, ...], /, *, known: Any = None
    ) -> Preview: ...

    # Asked for drafts with settings of their own only.
    def evolve(self, prediction: Any, evolution: EvolutionConfig, threshold: float, /) -> Preview: ...


def predict_draft(predictor: Segmenter, image: Plane, draft: Draft, fields: Any = None, known: Any = None) -> Any:
    """What a model makes of a draft: bit by bit the same in the window and from a journal.

    Parameters
    ----------
    predictor : Segmenter
        The model.
    image : Plane
        Where the draft lies.
    draft : Draft
        Prompts, and how to evolve.
    fields : Prediction, optional
        Of the same prompts: its fields are evolved, which needs no network.
    known : Prediction, optional
        Of the same image: the pixels that it saw are not read again.
    """
    if draft.evolution is None:
        return predictor.segment(image, draft.prompt(), draft.corrections, known=known)
    if fields is None:
        fields = predictor.segment(image, draft.prompt(), draft.corrections, known=known)
    return predictor.evolve(fields, draft.evolution.config, draft.evolution.threshold)


@dataclass(frozen=True)
class Difference:
    """An object that a model predicts differently now.

    Parameters
    ----------
    label, plane : int, PlaneKey
        Which one.
    iou : float
        Of the mask in the journal and the new one.
    problem : str
        Why the new one could not be written; then the pixels of the journal stay.
    """

    label: int
    plane: PlaneKey
    iou: float
    problem: str = ""


@dataclass(frozen=True, eq=False)
class Replay:
    """What `replay` found.

    Parameters
    ----------
    header : Header
        Of the journal.
    labels : array
        As they were at its end; with a predictor, as it sees them.
    session : AnnotationSession
        On these labels; without a recorder.
    torn : bool
        Whether an incomplete last line was left out.
    predicted : int
        How many masks were predicted anew.
    differences : tuple of Difference
        Those that are not the same.
    kept : tuple of int
        Labels that were merged or split, which prompts alone do not give: their pixels are those of the journal.
    """

    header: Header
    labels: npt.NDArray[Any]
    session: AnnotationSession
    torn: bool
    predicted: int = 0
    differences: tuple[Difference, ...] = ()
    kept: tuple[int, ...] = ()


def replay(path: Path | str, labels: Any = None, predictor: Callable[[Draft], Preview] | None = None) -> Replay:
    """The labels of a journal, without the image.

    Parameters
    ----------
    path : path
        The journal.
    labels : array, optional
        Labels at its beginning, if they were not all 0; they are changed. If they were converted later, of the
        wider type.
    predictor : callable, optional
        Gives a mask and a confidence for clicks and drags: predict all objects anew instead of taking their masks.

    Raises
    ------
    ValueError
        If the journal is damaged, or the labels do not fit it or are missing.
    """
    contents = read(path)
    session = rebuild(contents, labels)
    array = session.store.data  # type: ignore[attr-defined] # which is ArrayLabels
    if predictor is None:
        return Replay(contents.header, array, session, contents.torn)
    policies = {action.before.unlabelled: action.policy for action in session.actions if isinstance(action, Commit)}
    predicted, differences, kept = 0, [], []
    session.clear()
    for label, made in sorted(session.objects.items()):
        for piece in made.pieces:
            if piece.origins:
                kept.append(label)
                continue
            predicted += 1
            policy = policies.get(piece.draft, session.policy)
            preview, old = predictor(piece.draft), piece.mask.unpack()
            overlap = _iou(old, tidy(preview.mask, policy).mask)
            if overlap < 1:
                problem = _put(session, label, piece.plane, preview, policy)
                differences.append(Difference(label, piece.plane, overlap, problem))
    return Replay(
        contents.header, array, session, contents.torn, predicted, tuple(differences), tuple(dict.fromkeys(kept))
    )


def _put(session: AnnotationSession, label: int, plane: PlaneKey, preview: Preview, policy: LabelPolicy) -> str:
    """Give an object another mask; why not, if that cannot be."""
    session.policy = policy
    session.reopen(label, plane)
    try:
        if (request := session.request()) is not None:
            session.receive(request, preview)
        session.commit()
    except ValueError as error:
        session.clear()
        return str(error)
    return ""


def _iou(one: ObjectMask, other: ObjectMask) -> float:
    window = union([one, other]).slices
    a, b = cut(one, *window), cut(other, *window)
    either = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / either if either else 1.0


def rebuild(contents: Contents, labels: Any = None) -> AnnotationSession:
    """A session on an array, made from the journal alone (or from the labels at its beginning, which are changed).

    Raises
    ------
    ValueError
        If the labels were not all 0 at the beginning and are not given, or are of another shape or a narrower type.
    """
    header = contents.header
    if labels is None:
        if not header.blank:
            raise ValueError(
                f"{contents.path} began with labels that were there already; give these too, so that they can be "
                "added to"
            )
        labels = np.zeros(header.shape, contents.dtype)
    contents.check(tuple(labels.shape), np.dtype(labels.dtype))
    session = AnnotationSession(ArrayLabels(labels), largest=header.largest, policy=header.policy)
    repeat(contents, session, write=True)
    return session


def other_weights(contents: Contents, model: str, weights: str) -> str:
    """One sentence if a journal was written with other weights than these; empty if not, or if that is unknown.

    Parameters
    ----------
    contents : Contents
        The journal.
    model, weights : str
        Name of the model that predicts now, and `weights_hash` of it.
    """
    header = contents.header
    said = [(header.model, header.weights)]
    said += [(entry["model"], entry["weights"]) for entry in contents.entries if entry["step"] == "model"]
    used = {known: name for name, known in said if known}
    if not weights or not used or set(used) == {weights}:
        return ""
    names = " and ".join(f"'{name}'" for known, name in used.items() if known != weights)
    return f"the journal was written with other weights (of {names}) than those of '{model}', so masks may differ"


def label_axes(image: ImageFile) -> str:
    """Letters of the axes of labels of an image: all but channels."""
    return "".join(axis for axis in image.axes if axis not in "CS")


def labels_like(labels: npt.NDArray[Any], image: ImageFile | None) -> ImageFile:
    """What `write_labels` needs to know: the image if it has planes in the labels' order, else plain axes."""
    ordered = image is not None and label_axes(image) == image.plane_axes + "YX"
    if image is not None and ordered and (*image.plane_counts, *image.plane_shape) == labels.shape:
        return image
    return ImageFile(Path(), labels, "RQTZYX"[-labels.ndim :])


def on_image(
    predictor: Segmenter, image: ImageFile, shape: tuple[int, ...], channels: tuple[int, ...] = ()
) -> Callable[[Draft], Preview]:
    """What `replay` takes, from a model and an image.

    Parameters
    ----------
    predictor : Segmenter
        The model.
    image : ImageFile
        What was annotated.
    shape : tuple of int
        Of the labels.
    channels : tuple of int
        See `data.images.Plane`.

    Raises
    ------
    ValueError
        If the labels were not made on such an image.
    """
    axes = [image.axes.index(letter) for letter in label_axes(image)]
    found = tuple(image.data.shape[axis] for axis in axes)
    if found != shape:
        raise ValueError(
            f"{image.path} has {found} pixels along {label_axes(image)}, but the labels have {shape}; "
            "is it the right image? Name its axes with --axes if they are read wrongly"
        )
    first = image.plane((0,) * len(image.plane_counts), channels)

    def predict(draft: Draft) -> Preview:
        assert draft.plane is not None  # committed objects have one
        y, x = (axes[axis] for axis in draft.plane.axes)
        plane = replace(first, axes=(y, x), index=draft.plane.index)
        made: Preview = predict_draft(predictor, plane, draft)
        return made

    return predict
