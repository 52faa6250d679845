"""A window that is not painted for a moment, so that what is computed for it is there sooner."""

from __future__ import annotations

from contextlib import suppress

from qtpy.QtCore import QCoreApplication, QEvent, QObject, QTimer
from qtpy.QtWidgets import QWidget

from napari_delse.widgets._docked import main_window


class StillWindow:
    """Holds back the painting of the main window that a widget belongs to.

    The network asks for the interpreter at each of its some hundred steps, and painting keeps that for milliseconds at
    a time: a frame with the state of a moment ago delays the answer by more than the frame takes.

    Parameters
    ----------
    widget : QWidget
        Anywhere in the main window, also in a dock that floats beside it.
    longest : int
        After so many milliseconds it is painted in any case.
    """

    def __init__(self, widget: QWidget, longest: int) -> None:
        self._widget, self.longest = widget, longest
        self._pause: _Pause | None = None

    def hold(self) -> None:
        """Paint nothing from now on."""
        if self._pause is None or self._pause.is_over:
            self._pause = _Pause(main_window(self._widget), self.longest)

    def release(self) -> None:
        """Paint what there is."""
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.end()


class _Pause(QObject):
    """Swallows Qt's requests to paint a window, and makes one good at the end.

    What is to be painted stays noted in Qt. `QWidget.setUpdatesEnabled` would not do: it has the whole window painted
    afterwards, which takes twice as long. It is the window's own child, not the widget's: whatever becomes of the
    widget, it ends, for a window whose request is lost is not painted any more.
    """

    def __init__(self, window: QWidget, longest: int) -> None:
        super().__init__(window)
        self._window: QWidget | None = window  # until the end
        self._is_due = False
        window.installEventFilter(self)
        QTimer.singleShot(longest, self.end)

    @property
    def is_over(self) -> bool:
        """Whether the window is painted again."""
        return self._window is None

    def eventFilter(self, _window: QObject | None, event: QEvent | None) -> bool:  # noqa: N802 - Qt's name
        """Put painting off."""
        is_request = event is not None and event.type() == QEvent.Type.UpdateRequest
        self._is_due |= is_request
        return is_request

    def end(self) -> None:
        """Have painted what was put off."""
        window, self._window = self._window, None
        if window is None:
            return
        with suppress(RuntimeError):  # it may be gone
            window.removeEventFilter(self)
            if self._is_due:
                QCoreApplication.postEvent(window, QEvent(QEvent.Type.UpdateRequest))
            self.deleteLater()
