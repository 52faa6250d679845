"""What the fine-tuning widget says: always what is going on and what to do next."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from napari_delse.widgets._finetune.source import NO_IMAGE, NO_LABELS
from napari_delse.widgets._guide import sentence

if TYPE_CHECKING:
    from napari_delse.finetuning.run import JobProgress
    from napari_delse.finetuning.survey import Survey

LOADING = "Getting ready ..."
LOOKING = "Looking at the labels ..."
FEW = "Label five objects first, better ten: the widget Annotate (DELSE) takes four clicks for each."
TAKEN = "Annotate (DELSE) outlines with it from now on."
_FEW = 5
HARMLESS = (LOADING, LOOKING, FEW, NO_IMAGE, NO_LABELS)


def problem(found: Survey, kind: str) -> str:
    """Why nothing can be learned from a source."""
    if kind == "layers" and found.objects == 0 and found.seen and not found.planes and "labelled" in found.problems[0]:
        return FEW
    return sentence(found.problems[0])


def found(known: Survey) -> str:
    """What was found so far."""
    if not known.complete:
        return f"{known.objects:,} objects in {known.seen:,} planes so far ..."
    said = known.sentences()[len(known.problems) :]
    return "".join(f"<p style='margin: 0 0 4px 0'>{escape(one)}</p>" for one in said)


def ready(values: Mapping[str, Any], objects: int) -> str:
    """What Train will do."""
    if objects < _FEW:
        return f"{objects} objects can be trained on, but only five or more tell whether the model is better; label on."
    if steps := values.get("steps"):
        return f"Train takes {steps:,} steps. Annotation can go on meanwhile, with the old model."
    minutes = duration(60 * float(values.get("minutes") or 5))
    most = f"at most {minutes}, until it stops improving" if values.get("patience") else f"about {minutes}"
    return f"Train takes {most}. Annotation can go on meanwhile, with the old model."


def duration(seconds: float) -> str:
    """A time in words."""
    if seconds < 60:
        return f"{max(0, round(seconds))} s"
    if seconds < 595:
        minutes, rest = divmod(round(seconds / 10), 6)
        return f"{minutes} min {rest}0 s" if rest else f"{minutes} min"
    return f"{round(seconds / 60)} min"


def running(state: str, read: tuple[int, int], last: JobProgress | None, *, is_late: bool = False) -> str:
    """How far a training is; late is one that should have ended."""
    if state == "preparing":
        return f"Reading the objects: {read[0]:,} of {read[1]:,} ..." if read[1] else "Reading the objects ..."
    if state == "starting":
        return "The training is starting: its program is loaded, and the model scored as it is."
    if state == "training" and last is not None:
        if last.fraction >= 1:
            return "The time is over: the best model is judged ..."
        left = duration(last.remaining)
        return f"Training: {last.fraction:.0%}, about {left} left. You can go on annotating meanwhile."
    if is_late:
        return "The training has not ended yet. Wait, or end its program: it can go on from its last checkpoint."
    if state == "pausing":
        return "Saving the training ..."
    if state == "finishing":
        return "Ending: the best model so far is judged ..."
    if state == "paused":
        return "The training is paused and saved. Go on continues it, also after napari was closed."
    if last is not None and last.outcome is not None:
        return last.outcome.sentences[0]
    return ""


def unsaved(name: str, error: OSError) -> str:
    """What holds of a model that was chosen where no settings can be written."""
    return (
        f"'{name}' outlines objects until napari is closed, but the choice cannot be saved ({error}); see to it that "
        "the file can be written, and choose it again"
    )


def numbers(last: JobProgress) -> str:
    """Scores in one line or two."""
    count = len(last.before.iou)
    scores = f"IoU {last.before.mean_iou:.3f} before, {last.now.mean_iou:.3f} now, {last.best.mean_iou:.3f} best"
    where = f"on {count} held-out object{'s' * (count != 1)}"
    return f"{scores} {where}. Step {last.step:,} ({last.batch_size} objects a step)."
