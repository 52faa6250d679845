"""From what napari's layers tell to what the session is told: clicks, drags, pulls and brush strokes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Points
from qtpy.QtCore import QTimer

from napari_delse.annotation.edits import PlaneKey
from napari_delse.geometry import Correction, Point
from napari_delse.widgets._annotate.view import show_foreseen
from napari_delse.widgets._events import Followed
from napari_delse.widgets._layers import is_settled, nearest_on
from napari_delse.widgets._outliner import Outlined
from napari_delse.widgets._source import ImageSource, to_plane

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from napari_delse.annotation.session import AnnotationSession
    from napari_delse.widgets._desk import Desk
    from napari_delse.widgets._notices import Notices

_GRAB = 8.0  # how near to the outline a pull must begin, screen pixels
_REACH = 24.0  # how near to it a drawn line must begin, screen pixels
_STILL = 5.0  # a shorter pull is a click, as napari has it; screen pixels
_REST = 20  # a hand that pulls and has not moved for so long may let go here, milliseconds


class Hearing:
    """Follows the layers of a desk, for as long as their image is worked on.

    Parameters
    ----------
    desk : Desk
        What is worked on.
    notices : Notices
        Where trouble is told.
    ask : callable
        Called when the session was told something: predict and show what is missing.
    foresee : callable
        Called with a drag that may not be over yet, and with what is to be called with its outline.
    """

    def __init__(
        self,
        desk: Desk,
        notices: Notices,
        ask: Callable[[], object],
        foresee: Callable[[Correction, Callable[[Outlined], object]], object],
    ) -> None:
        self.desk, self._notices, self._ask, self._foresee = desk, notices, ask, foresee
        self._pulled: Correction | None = None  # where the hand is, that has not let go yet
        self._rest = QTimer(singleShot=True, interval=_REST)
        self._rest.timeout.connect(self._on_rest)
        self.followed = Followed()
        desk.left.connect(self.followed.let_go)
        desk.image_chosen.connect(self._follow_image)
        desk.layer_made.connect(self._follow_layer)

    def _follow_image(self, source: ImageSource | None) -> None:
        if source is not None:
            for name in ("scale", "translate", "rotate", "shear", "affine", "units", "axis_labels"):
                self.followed.follow(getattr(source.layer.events, name), self._on_moved)
            self.followed.follow(source.layer.events.data, self._on_image_data)
            for name in ("order", "ndisplay"):
                self.followed.follow(getattr(self.desk.viewer.dims.events, name), self._on_turned)

    def _follow_layer(self, layer: Any) -> None:
        is_clicks = isinstance(layer, Points)
        self.followed.follow(layer.events.data, self._on_clicks if is_clicks else self._on_drags)
        if is_clicks:
            layer.mouse_drag_callbacks.append(self._on_pull)
            for name in ("visible", "editable", "mode"):
                self.followed.follow(getattr(layer.events, name), self._on_tool)

    def _on_tool(self) -> None:
        self.desk.look()  # whether clicks do something is told

    # ---- image

    def _on_moved(self) -> None:
        self.desk.move()

    def _on_turned(self) -> None:
        self._notices.say()  # what was told about the former view is over
        if self.desk.layers is not None:
            self.desk.layers.give_steps_back()

    def _on_image_data(self) -> None:
        source, labels, session = self.desk.source, self.desk.labels, self.desk.session
        self.desk.forget_predictions()
        if source is not None and labels is not None and session is not None:
            if source.shape != tuple(labels.data.shape):
                self.desk.choose_again(source)
            else:
                self._ask()

    # ---- clicks and drags

    def _on_clicks(self, event: Any) -> None:
        """Points were added, moved or removed on the clicks layer."""
        desk, session, source = self.desk, self.desk.session, self.desk.source
        if source is None or session is None or not is_settled(event):
            self._ask()
            return
        rows = np.asarray(event.source.data)
        layers, known = desk.layers, len(session.draft.clicks)
        had, is_stale = known, False
        if layers is not None:  # after Esc, undo and the like there may be rows of what is over
            had, layers.rows = layers.rows, len(rows)
            is_stale = had != known
        with self._notices.told():
            if len(rows) > had:
                for row in rows[had:]:
                    key = source.shown_plane(desk.viewer, row)
                    session.add_click(key, to_plane(key, row))
            elif not is_stale:
                key = session.draft.plane or PlaneKey()
                kind = session.draft.kind if len(rows) == known else "extreme"  # the corner of a box was moved
                session.set_clicks(key, [to_plane(key, row) for row in rows], kind)
        self._ask()

    def _on_drags(self, event: Any) -> None:
        """Lines were drawn, moved or deleted on the drags layer, or a box was drawn there."""
        desk, session, source = self.desk, self.desk.session, self.desk.source
        if session is None or source is None or not is_settled(event):
            return
        shapes, kinds = event.source.data, list(event.source.shape_type)
        with self._notices.told():
            if not all(np.isfinite(shape).all() for shape in shapes):  # napari 0.9.2 scales such lines by x / 0
                raise ValueError("a level or upright line cannot be moved as a whole; move one of its ends (D)")
            if "rectangle" in kinds and session.draft.is_empty:
                key = source.shown_plane(desk.viewer, shapes[kinds.index("rectangle")][0])
                session.set_box(key, [to_plane(key, row) for row in shapes[kinds.index("rectangle")]])
            elif "rectangle" in kinds:
                raise ValueError("a box begins an object; accept the one in progress or press Esc, then draw the box")
            elif any(kind not in ("line", "path") for kind in kinds):
                raise ValueError(
                    "a correction is a line from the outline to where it belongs; draw it with the line tool (L)"
                )
            else:
                session.set_corrections(self._drawn(session, source, shapes))
        self._ask()

    def _drawn(self, session: AnnotationSession, source: ImageSource, lines: Sequence[Any]) -> Iterator[Correction]:
        """The drags that lines on the drags layer are, those that are new put onto the outline.

        Raises
        ------
        ValueError
            If a new one lies in another plane than the object, or away from its outline.
        """
        key = session.draft.plane or PlaneKey()
        known = {_single(c.start, c.end): c for c in session.draft.corrections}
        begun = {_single(c.start): c.start for c in session.draft.corrections}
        for line in lines:
            ends = to_plane(key, line[0]), to_plane(key, line[-1])
            if (drag := known.get(_single(*ends))) is None:
                session.check_drag(source.shown_plane(self.desk.viewer, line[0]))
                # Where only the end was moved, the drag has pulled the outline away from its start already.
                start = begun.get(_single(ends[0]))
                drag = self._on_outline(Correction(*ends)) if start is None else Correction(start, ends[1])
            yield drag

    def _on_outline(self, drag: Correction) -> Correction:
        """The drag with its start put onto the outline it corrects.

        Raises
        ------
        ValueError
            If it begins too far away.
        """
        found = self._nearest(drag.start)
        if found is None:
            return drag
        start, distance = found
        if distance > _REACH:
            raise ValueError(f"that line begins {distance:.0f} screen pixels from the outline; begin it on the outline")
        return Correction(start, drag.end)

    def _nearest(self, point: Point) -> tuple[Point, float] | None:
        """The nearest point of the outline and its distance in screen pixels."""
        session, layers = self.desk.session, self.desk.layers
        preview = None if session is None else session.preview
        if not isinstance(preview, Outlined) or layers is None or session is None:
            return None
        found = nearest_on(preview.contours, point)
        return None if found is None else (found[0], found[1] * layers.zoom(session.draft.plane))

    def _on_pull(self, layer: Any, event: Any) -> Iterator[None]:
        """A press near the outline, followed by a movement, pulls it; a short one stays a click."""
        session, layers, source = self.desk.session, self.desk.layers, self.desk.source
        if session is None or layers is None or source is None or event.button != 1 or str(layer.mode) != "add":
            return
        position = layer.world_to_data(event.position)
        try:
            key = source.shown_plane(self.desk.viewer, position)
        except ValueError:
            return
        found = self._nearest(to_plane(key, position)) if key == session.draft.plane else None
        if found is None or found[1] > _GRAB:
            return
        start, pressed = found[0], np.asarray(event.pos)

        def pull() -> Correction | None:
            end = to_plane(key, layer.world_to_data(event.position))
            far = np.hypot(*(np.asarray(event.pos) - pressed)) >= _STILL
            return Correction(start, end) if far and end != start else None

        layer.mouse_pan = False  # the camera stays
        try:
            yield
            while event.type == "mouse_move":
                self._pulled = drag = pull()
                layers.show_draft(session.draft, (drag,) if drag else ())
                self._rest.start()
                yield
        finally:
            layer.mouse_pan = True
            self._pulled = None
            self._rest.stop()
        if (drag := pull()) is not None and session is self.desk.session and session.preview is not None:
            with self._notices.told():
                session.add_correction(drag)
        self._ask()

    def _on_rest(self) -> None:
        """Show what the outline would be if the pull ended where the hand rests, and have it ready for then."""
        drag, session = self._pulled, self.desk.session

        def show(outlined: Outlined) -> None:
            if drag == self._pulled and session is self.desk.session:
                show_foreseen(self.desk, outlined)

        if drag is not None:
            self._foresee(drag, show)


def _single(*points: Point) -> tuple[float, ...]:
    """Points in the single precision in which napari keeps shapes."""
    return tuple(float(np.float32(value)) for point in points for value in point)
