"""What the viewer shows: the object in progress, and which part of the image."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from napari_delse.annotation.edits import PlaneKey
from napari_delse.widgets._layers import centre_on, show_plane
from napari_delse.widgets._source import to_space

if TYPE_CHECKING:
    from napari_delse.annotation.actions import LabelledObject
    from napari_delse.annotation.session import Preview
    from napari_delse.widgets._desk import Desk


def show_draft(desk: Desk) -> None:
    """Bring clicks, drags and the preview in step with the session."""
    session, layers = desk.session, desk.layers
    if session is None or layers is None:
        return
    layers.show_draft(session.draft)
    layers.calm()
    state = (session.preview, session.draft.plane)
    if session.is_waiting and desk.shown[1:] == state[1:]:
        return  # the outline stays until the next one comes: without it there is nothing to compare with
    if state != desk.shown:
        desk.shown = state
        if session.preview is not None and session.draft.plane is not None:
            layers.show_preview(session.draft.plane, session.preview.mask)
        else:
            layers.hide_preview()


def show_foreseen(desk: Desk, foreseen: Preview) -> None:
    """Show in place of the preview what it would be after a pull that is not over yet."""
    plane = None if desk.session is None else desk.session.draft.plane
    if desk.layers is not None and plane is not None:
        desk.layers.show_preview(plane, foreseen.mask)
        desk.shown = (foreseen, plane)


def shown_plane(desk: Desk) -> PlaneKey | None:
    """The plane of the labels that the viewer shows now; None if it shows none."""
    if desk.source is None or desk.layers is None or desk.layers.clicks is None:
        return None
    with suppress(ValueError):
        point = np.asarray(desk.viewer.dims.point)[-desk.source.ndim :]
        return desk.source.shown_plane(desk.viewer, desk.layers.clicks.world_to_data(point))
    return None


def go_to(desk: Desk, plane: PlaneKey | None) -> None:
    """Show the plane on which something changes; the view is turned if it shows other axes."""
    if plane is None or desk.layers is None or desk.layers.clicks is None:
        return
    world = desk.layers.clicks.data_to_world(to_space(plane, [(0, 0)])[0])
    show_plane(desk.viewer, sorted(plane.axes), np.asarray(world))


def show_object(desk: Desk, made: LabelledObject) -> None:
    """Go to the plane of an object and put it into the middle of the view."""
    if desk.source is None or desk.layers is None or desk.layers.clicks is None:
        return
    here = shown_plane(desk)
    piece = next((one for one in made.pieces if one.plane == here), made)
    go_to(desk, piece.plane)
    middle = np.add(piece.mask.origin, np.array(piece.mask.shape) / 2 - 0.5)
    centre_on(desk.viewer, np.asarray(desk.layers.clicks.data_to_world(to_space(piece.plane, [middle])[0])))
