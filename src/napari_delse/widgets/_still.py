"""A window that is not painted for a moment, so that what is computed for it is there sooner."""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

_LONGEST = 250  # milliseconds; a person would begin to feel a longer one


class StillWindow(QObject):
    """Holds back the painting of the window that a widget lies in.

    The network asks for the interpreter at each of its some hundred steps, and painting keeps that for milliseconds at
    a time: a frame with the state of a moment ago delays the answer by more than the frame takes.

    What is due to be painted stays due: Qt's request to do so is put off. (Without updates the whole window would have
    to be painted afterwards, which takes twice as long.)

    Parameters
    ----------
    widget : QWidget
        Anywhere in the window, also in a dock that floats beside it.
    """

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        self._held: QWidget | None = None
        self._timer = QTimer(self, singleShot=True, interval=_LONGEST)
        self._timer.timeout.connect(self.let_go)

    def hold(self) -> None:
        """Paint nothing from now on, but no longer than a quarter of a second."""
        window = self._widget
        while (parent := window.parentWidget()) is not None:  # of a floating dock, too, that is the main window
            window = parent
        if self._held is None:
            self._held = window
            window.installEventFilter(self)
            self._timer.start()

    def let_go(self) -> None:
        """Paint what there is."""
        held, self._held = self._held, None
        if held is not None:
            with suppress(RuntimeError):  # Qt may have deleted any of them
                self._timer.stop()
                held.removeEventFilter(self)
                QCoreApplication.postEvent(held, QEvent(QEvent.Type.UpdateRequest))

    def eventFilter(self, _window: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Put painting off."""
        return event is not None and event.type() == QEvent.Type.UpdateRequest
