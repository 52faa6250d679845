"""Curves of a training and the scores before and after, drawn by Qt itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_delse.widgets._finetune.fields import Ink

_MOST = 600  # points of a line
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 8, 22, 20  # pixels around a plot
_FLAT = 0.02  # least height of an axis of scores

Points = Sequence[tuple[float, float]]


class Line(NamedTuple):
    """One line of a plot."""

    name: str
    points: Points
    colour: QColor
    style: Qt.PenStyle = Qt.PenStyle.SolidLine
    marked: bool = False  # every point with a dot


def axis(low: float, high: float, steps: int = 3) -> tuple[float, float, float]:
    """Round ends and a round step for an axis of about so many steps."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    rough = (high - low) / steps
    power = 10 ** math.floor(math.log10(rough))
    step = min((1, 2, 5, 10), key=lambda n: abs(n * power - rough)) * power
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, step


def thinned(points: Points) -> Points:
    """At most so many points that each has a pixel."""
    step = -(-len(points) // _MOST)
    return [*points[::step], points[-1]] if step > 1 else points


class Plot(QWidget):
    """A plot of lines over minutes, with a legend above.

    Parameters
    ----------
    unit : str
        What the lines show, to be read aloud by a tooltip.
    height : int
        Pixels.
    """

    def __init__(self, unit: str, height: int = 130) -> None:
        super().__init__()
        self.setToolTip(unit)
        self.setAccessibleName(unit)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._height = height
        self._ink: Ink | None = None
        self.lines: list[Line] = []
        self.end = 0.0  # minutes shown at least

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As high as said."""
        return QSize(260, self._height)

    def use(self, ink: Ink) -> None:
        """Draw in these colours."""
        self._ink = ink
        self.update()

    def show_lines(self, lines: Sequence[Line], end: float = 0.0) -> None:
        """Draw these; the axis reaches at least so many minutes."""
        self.lines = [line._replace(points=thinned(line.points)) for line in lines if line.points]
        self.end = end
        self.update()

    def _range(self) -> tuple[float, float, float]:
        values = [v for line in self.lines for _, v in line.points if math.isfinite(v)]
        if not values:
            return 0.0, 1.0, 0.5
        low, high = min(values), max(values)
        room = max(0.0, _FLAT - (high - low)) / 2
        return axis(low - room, high + room, 3 if self._height > 120 else 2)

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802, ARG002 - Qt's name
        """Draw."""
        if self._ink is None:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area = QRectF(_LEFT, _TOP, self.width() - _LEFT - _RIGHT, self.height() - _TOP - _BOTTOM)
        low, high, step = self._range()
        end = max([self.end, *(line.points[-1][0] for line in self.lines)]) or 1.0
        self._draw_grid(painter, area, (low, high, step), end)
        for line in self.lines:
            pen = QPen(line.colour, 1.6, line.style)
            painter.setPen(pen)
            where = [
                QPointF(area.left() + x / end * area.width(), area.bottom() - (y - low) / (high - low) * area.height())
                for x, y in line.points
                if math.isfinite(y)
            ]
            painter.drawPolyline(QPolygonF(where))
            if line.marked:
                painter.setBrush(line.colour)
                for point in where:
                    painter.drawEllipse(point, 2, 2)
        self._draw_legend(painter)
        painter.end()

    def _draw_grid(self, painter: QPainter, area: QRectF, scale: tuple[float, float, float], end: float) -> None:
        assert self._ink is not None
        (low, high, step), ink = scale, self._ink
        digits = max(0, -math.floor(math.log10(step)))
        for i in range(round((high - low) / step) + 1):
            y = area.bottom() - i * step / (high - low) * area.height()
            painter.setPen(QPen(ink.faint, 0.8))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            painter.setPen(ink.text)
            place = QRectF(0, y - 8, area.left() - 5, 16)
            painter.drawText(
                place, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter), f"{low + i * step:.{digits}f}"
            )
        for minutes, right in ((0.0, False), (end, True)):
            text = f"{minutes:.0f} min" if minutes >= 10 or not right else f"{minutes:.1f} min"
            flag = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
            painter.drawText(
                QRectF(area.left(), area.bottom() + 3, area.width(), 16), int(flag), text if right else "0"
            )

    def _draw_legend(self, painter: QPainter) -> None:
        x = float(_LEFT)
        for line in self.lines:
            if not line.name:
                continue
            painter.setPen(QPen(line.colour, 2, line.style))
            painter.drawLine(QPointF(x, 11), QPointF(x + 16, 11))
            assert self._ink is not None
            painter.setPen(self._ink.text)
            width = painter.fontMetrics().horizontalAdvance(line.name)
            painter.drawText(QRectF(x + 20, 3, width + 2, 16), int(Qt.AlignmentFlag.AlignVCenter), line.name)
            x += width + 32


class Pairs(QWidget):
    """Each held-out object as a line from its IoU before to its IoU after, and their means as a thick one."""

    def __init__(self, height: int = 170) -> None:
        super().__init__()
        self.setToolTip(
            "Each line is one held-out object: its IoU before and after. Blue ones became better, orange ones worse"
        )
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self._height = height
        self._ink: Ink | None = None
        self._names = ("before", "after")
        self.pairs: list[tuple[float, float]] = []

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """As high as said."""
        return QSize(260, self._height)

    def use(self, ink: Ink) -> None:
        """Draw in these colours."""
        self._ink = ink
        self.update()

    def show_pairs(self, pairs: Sequence[tuple[float, float]], before: str = "before", after: str = "after") -> None:
        """Draw these, with names for both sides."""
        self.pairs, self._names = list(pairs), (before, after)
        self.update()

    def _coloured(self) -> Iterator[tuple[float, float, QColor]]:
        assert self._ink is not None
        for a, b in self.pairs:
            yield a, b, self._ink.now if b - a >= 0.01 else self._ink.before if a - b >= 0.01 else self._ink.faint

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802, ARG002 - Qt's name
        """Draw."""
        if self._ink is None or not self.pairs:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self._ink
        low, high, step = axis(min(map(min, self.pairs)), min(1.0, max(map(max, self.pairs)) + 1e-9))
        high = min(high, 1.0) if high > low else high
        left, right, top, bottom = _LEFT + 22.0, self.width() - 40.0, 24.0, self.height() - 10.0

        def y_of(value: float) -> float:
            return bottom - (value - low) / (high - low) * (bottom - top)

        digits = max(0, -math.floor(math.log10(step)))
        for i in range(math.floor((high - low) / step + 1e-9) + 1):
            y = y_of(low + i * step)
            painter.setPen(QPen(ink.faint, 0.8))
            painter.drawLine(QPointF(_LEFT, y), QPointF(self.width() - _RIGHT, y))
            painter.setPen(ink.text)
            painter.drawText(
                QRectF(0, y - 8, _LEFT - 5, 16),
                int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter),
                f"{low + i * step:.{digits}f}",
            )
        for a, b, colour in self._coloured():
            painter.setPen(QPen(colour, 1.1))
            painter.setBrush(colour)
            ends = QPointF(left, y_of(a)), QPointF(right, y_of(b))
            painter.drawLine(*ends)
            for end in ends:
                painter.drawEllipse(end, 1.8, 1.8)
        means = [sum(side) / len(self.pairs) for side in zip(*self.pairs, strict=True)]
        painter.setPen(QPen(ink.text, 3))
        painter.drawLine(QPointF(left, y_of(means[0])), QPointF(right, y_of(means[1])))
        self._draw_names(painter, left, right, means)
        painter.end()

    def _draw_names(self, painter: QPainter, left: float, right: float, means: Sequence[float]) -> None:
        half = (right - left) / 2
        for x, width, name, mean, flag in (
            (_LEFT, half + left - _LEFT, self._names[0], means[0], Qt.AlignmentFlag.AlignLeft),
            (left + half, half + self.width() - _RIGHT - right, self._names[1], means[1], Qt.AlignmentFlag.AlignRight),
        ):
            text = f"{name}: {mean:.3f}"
            room = painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, round(width))
            painter.drawText(QRectF(x, 2, width, 18), int(flag | Qt.AlignmentFlag.AlignVCenter), room)
