"""What the widgets of this plugin have in common: a status line, an offer, and an end when the dock is closed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QFrame, QHBoxLayout, QLabel, QVBoxLayout, QWidget

V = TypeVar("V")

STYLE = """
QFrame#status { border-left: 4px solid #ffd400; border-radius: 0px; background: rgba(128, 128, 128, 40); }
QFrame#status[trouble="true"] { border-left-color: #ff5c5c; }
QFrame#status QLabel { background: transparent; }
QFrame#offer { border-left: 4px solid #00e5ff; border-radius: 0px; background: rgba(128, 128, 128, 40); }
QFrame#offer QLabel { background: transparent; }
QFrame#export, QFrame#facts { border-radius: 0px; background: rgba(128, 128, 128, 40); }
QFrame#export QLabel, QFrame#facts QLabel { background: transparent; }
QLabel#guide { font-size: 11pt; }
QLabel#notice { font-weight: bold; }
"""


def main_window(widget: QWidget) -> QWidget:
    """The window that a widget belongs to, also if it lies in a dock that floats beside it."""
    while (parent := widget.parentWidget()) is not None:
        widget = parent
    return widget


def itself(viewer: V) -> V:
    """The viewer itself: widgets of napari's menu get a proxy, which gives another proxy for a layer at each question.

    With these no layer is the one that is active, nor any other that it is compared with.
    """
    found: V = getattr(viewer, "__wrapped__", viewer)
    return found


class DockedPanel(QWidget):
    """A status line and an offer above what a widget shows; it ends its work when it is taken out of the window.

    A panel makes the labels `guide`, `notice` and `offer_text` before it lays them out.
    """

    guide: QLabel
    notice: QLabel
    offer_text: QLabel
    _docked = False

    def shut_down(self) -> None:
        """End all work; called at least once, and perhaps again."""
        raise NotImplementedError

    def changeEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Notice being taken out of the window: napari orphans the widget of a dock that is closed."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.ParentChange:
            if self.parent() is not None:
                self._docked = True
            elif self._docked:
                self.shut_down()

    def closeEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Stop working when closed as a window of its own."""
        self.shut_down()
        super().closeEvent(event)

    def _column(self) -> QVBoxLayout:
        """The layout of the panel itself."""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 8)
        layout.setSpacing(8)
        self.setMinimumWidth(340)
        return layout

    def _status_line(self, height: int) -> QFrame:
        """The notice above the guide, with room for so many pixels, so that nothing below jumps."""
        self.status = QFrame(objectName="status")
        lines = QVBoxLayout(self.status)
        lines.setContentsMargins(10, 8, 8, 8)
        lines.addWidget(self.notice)
        lines.addWidget(self.guide)
        lines.addStretch()
        self.status.setMinimumHeight(height)
        return self.status

    def _offer_line(self, answers: Iterable[QWidget]) -> QFrame:
        """Something from before that one can go on with, hidden at first, above its answers."""
        self.offer = QFrame(objectName="offer", visible=False)
        inside = QVBoxLayout(self.offer)
        inside.setContentsMargins(10, 6, 8, 6)
        inside.addWidget(self.offer_text)
        row = QHBoxLayout()
        for one in answers:
            row.addWidget(one)
        inside.addLayout(row)
        return self.offer

    def show_status(self, guide: str, notice: str = "", *, trouble: bool = False) -> None:
        """What to do next, and above it what just went wrong or was done."""
        self.guide.setText(guide)
        self.notice.setText(notice)
        self.notice.setVisible(bool(notice))
        if self.status.property("trouble") != trouble:
            self.status.setProperty("trouble", trouble)
            self.status.style().unpolish(self.status)
            self.status.style().polish(self.status)

    def show_offer(self, text: str) -> None:
        """Offer to go on with unfinished work; nothing without text."""
        self.offer_text.setText(text)
        self.offer.setVisible(bool(text))
