"""Which sentence of the guide fits to what there is and what the person is doing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_delse.widgets import _guide as guide
from napari_delse.widgets._layers import takes_clicks

if TYPE_CHECKING:
    from napari_delse.annotation.session import AnnotationSession
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._layers import WorkLayers


def what_next(desk: Desk, words: guide.Words, *, restoring: bool, no_model: bool, loading: bool) -> str:
    """What the person can do now.

    Parameters
    ----------
    desk : Desk
        What is worked on.
    words : Words
        What to press for what.
    restoring : bool
        Its labels are just being restored.
    no_model : bool
        The model could not be loaded.
    loading : bool
        It is still being loaded.
    """
    session, layers = desk.session, desk.layers
    if desk.source is None or layers is None:
        return guide.NO_IMAGE
    if restoring:
        return "The unfinished work is being restored ..."
    if session is None:
        return "The labels layer was deleted: Start over makes a new one."
    if not layers.is_complete:
        return "A layer of this widget was deleted: Start over brings it back."
    if desk.viewer.dims.ndisplay != 2:
        return "Objects are outlined in the 2D view: switch to it with Ctrl+Y."
    if (tool := _tool(desk, session, layers, words)) is not None:
        return tool
    return _draft(session, words, no_model=no_model, loading=loading)


def _tool(desk: Desk, session: AnnotationSession, layers: WorkLayers, words: guide.Words) -> str | None:
    """What to say while another layer than the clicks is active."""
    preview, active = session.preview, desk.viewer.layers.selection.active
    if active is layers.drags and (preview is not None or session.draft.is_empty):
        if preview is None:
            return f"Draw a box around an object with the rectangle tool (R). To click instead: {words.switch_tool}."
        return (
            "Draw a line from the outline to where it belongs. "
            f"To accept: {words.accept}. Back to clicking: {words.switch_tool}."
        )
    if layers.clicks is not None and active is layers.clicks and not takes_clicks(layers.clicks):
        why = "is hidden" if not layers.clicks.visible else "moves the view" if layers.clicks.editable else "is locked"
        return f"Clicks do nothing now: the layer '{layers.clicks.name}' {why}. To click again: {words.switch_tool}."
    if layers.clicks is not None and active is layers.clicks and str(layers.clicks.mode) == "select":
        accept = "" if preview is None else f" To accept: {words.accept}."
        return f"Move or delete clicks.{accept} To click again: {words.switch_tool}."
    if active is not layers.clicks:
        return f"Back to clicking (layer '{layers.clicks.name}'): {words.switch_tool}." if layers.clicks else ""
    return None


def _draft(session: AnnotationSession, words: guide.Words, *, no_model: bool, loading: bool) -> str:
    """What to say of the object in progress."""
    preview, draft = session.preview, session.draft
    again = "" if draft.label is None else f"Object {draft.label} again: "
    if draft.missing:
        return again + guide.next_click(draft.missing, words)
    if preview is not None:
        return again + guide.preview(preview.mask.area, preview.confidence, words)
    if no_model:
        return "There is no model: choose another model or device."
    if loading:
        return "The model is being loaded; the outline appears by itself."
    if session.is_waiting:
        return "Outlining the object ..."
    return f"There is no outline: click a further point of the boundary, or start over ({words.start_over})."
