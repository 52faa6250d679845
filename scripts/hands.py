"""A person's hands for scripts and tests: mouse and keyboard events on the canvas of a real napari window."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

Point = Sequence[float]
_LEFT, _NO_BUTTON = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
_NO_MODIFIER = Qt.KeyboardModifier.NoModifier
_BETWEEN_MOVES = 0.012  # vispy drops movements in quicker succession, seconds


def wait_until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Let Qt work until something holds.

    Raises
    ------
    TimeoutError
        If it does not in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:g} s in vain")
        QApplication.processEvents()
        time.sleep(0.001)


def let_pass(seconds: float) -> None:
    """Let Qt work for a while."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.002)


class Hands:
    """Clicks, drags and keys on a viewer that shows a plane; points are (y, x) of the world."""

    def __init__(self, viewer: Any) -> None:
        self.canvas = viewer.window._qt_viewer.canvas
        self.native = self.canvas.native

    def at(self, point: Point) -> QPoint:
        """Where a point of the world lies on the canvas."""
        x, y = self.canvas.view.scene.transform.map((point[1], point[0]))[:2]
        return QPoint(round(x), round(y))

    def click(self, point: Point) -> None:
        """Press and release the left button."""
        QTest.mouseClick(self.native, _LEFT, _NO_MODIFIER, self.at(point))

    def drag(self, start: Point, end: Point, steps: int = 8, *, release: bool = True) -> None:
        """Press, move in a straight line, and release."""
        first, last = np.array(start, float), np.array(end, float)
        QTest.mousePress(self.native, _LEFT, _NO_MODIFIER, self.at(start))
        for step in range(1, steps + 1):
            let_pass(_BETWEEN_MOVES)
            self.move(first + (last - first) * step / steps)
        if release:
            self.release(end)

    def release(self, point: Point) -> None:
        """Release the left button."""
        QTest.mouseRelease(self.native, _LEFT, _NO_MODIFIER, self.at(point))

    def move(self, point: Point) -> None:
        """Move with the button held down, which QTest cannot."""
        position = self.at(point)
        here, there = QPointF(position), QPointF(self.native.mapToGlobal(position))
        event = QMouseEvent(QEvent.Type.MouseMove, here, there, _NO_BUTTON, _LEFT, _NO_MODIFIER)
        QApplication.sendEvent(self.native, event)

    def key(self, key: Qt.Key, modifier: Qt.KeyboardModifier = _NO_MODIFIER) -> None:
        """Press and release a key."""
        QTest.keyClick(self.native, key, modifier)
