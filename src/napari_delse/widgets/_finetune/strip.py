"""A strip of held-out objects with the truth, and what the models make of them before and now."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QHelpEvent, QImage, QPainter, QPaintEvent, QPen, QPixmap, QPolygonF, QResizeEvent
from qtpy.QtWidgets import QSizePolicy, QToolTip, QWidget

from napari_delse.widgets._finetune.fields import Ink

if TYPE_CHECKING:
    from napari_delse.finetuning.held_out import Strip

_COLUMNS = 3
_GAP, _HEAD = 4, 20  # pixels
_KINDS = ("truth", "before", "now")
_GROUND = "#303030"  # under the legend, as most images are
_LOOKS = {
    "truth": ("#ffffff", Qt.PenStyle.DotLine),
    "before": ("#ff9d5c", Qt.PenStyle.SolidLine),
    "now": ("#4fc3ff", Qt.PenStyle.SolidLine),
}  # whatever the theme: they are seen on pictures

Lines = list[npt.NDArray[np.float64]]


class Picture(NamedTuple):
    """One object of the strip."""

    name: str
    image: npt.NDArray[np.uint8]  # (128, 128, 3)
    contours: dict[str, Lines]  # positions (y, x) in pixels of the image, by "truth", "before" and "now"


def pictures_of(strip: Strip) -> list[Picture]:
    """In a worker: what is drawn of a strip."""
    from skimage.measure import find_contours

    def lines(mask: npt.NDArray[np.bool_]) -> Lines:
        return [line - 0.5 for line in find_contours(np.pad(mask, 1).astype(float), 0.5)]

    return [
        Picture(
            name,
            np.ascontiguousarray(strip.image[i]),
            {kind: lines(getattr(strip, kind)[i]) for kind in _KINDS},
        )
        for i, name in enumerate(strip.names)
    ]


class StripView(QWidget):
    """Draws pictures of held-out objects in rows of three."""

    def __init__(self) -> None:
        super().__init__()
        self.pictures: list[Picture] = []
        self._images: list[QImage] = []
        self._ink: Ink | None = None
        self._drawn: QPixmap | None = None
        policy = QSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setAccessibleName("Held-out objects: truth, before and now")

    def use(self, ink: Ink) -> None:
        """Draw in these colours."""
        self._ink, self._drawn = ink, None
        self.update()

    def show_pictures(self, pictures: list[Picture]) -> None:
        """Draw these."""
        is_other = len(pictures) != len(self.pictures)
        self.pictures, self._drawn = pictures, None
        self._images = [
            QImage(p.image.data, p.image.shape[1], p.image.shape[0], 3 * p.image.shape[1], QImage.Format.Format_RGB888)
            for p in pictures
        ]
        if is_other:
            self.updateGeometry()
        self.update()

    # ---- sizes

    def _side(self, width: int) -> float:
        return (width - (_COLUMNS - 1) * _GAP) / _COLUMNS

    def hasHeightForWidth(self) -> bool:  # noqa: N802 - Qt's name
        """The pictures are squares."""
        return True

    def heightForWidth(self, width: int) -> int:  # noqa: N802 - Qt's name
        """A line of words and the rows."""
        rows = -(-len(self.pictures) // _COLUMNS)
        return _HEAD + round(rows * (self._side(width) + _GAP))

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Of a narrow panel."""
        return QSize(330, self.heightForWidth(330))

    def _places(self) -> list[QRectF]:
        side = self._side(self.width())
        return [
            QRectF(i % _COLUMNS * (side + _GAP), _HEAD + i // _COLUMNS * (side + _GAP), side, side)
            for i in range(len(self.pictures))
        ]

    # ---- drawing

    def event(self, event: object) -> bool:
        """Tell which object is under the mouse."""
        if isinstance(event, QHelpEvent):
            for place, picture in zip(self._places(), self.pictures, strict=True):
                if place.contains(QPointF(event.pos())):
                    QToolTip.showText(event.globalPos(), f"{picture.name} (image/plane/label)", self)
                    return True
            QToolTip.hideText()
            return True
        return bool(super().event(event))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802, ARG002 - Qt's name
        """Draw anew."""
        self._drawn = None

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802, ARG002 - Qt's name
        """Show what was drawn: the lines take 30 ms, and a window is painted often."""
        if self._ink is None or not self.pictures:
            return
        if self._drawn is None:
            self._drawn = QPixmap(self.size() * self.devicePixelRatioF())
            self._drawn.setDevicePixelRatio(self.devicePixelRatioF())
            self._drawn.fill(Qt.GlobalColor.transparent)
            painter = QPainter(self._drawn)
            self._draw(painter)
            painter.end()
        painter = QPainter(self)
        painter.drawPixmap(0, 0, self._drawn)
        painter.end()

    def _draw(self, painter: QPainter) -> None:
        painter.setFont(self.font())
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        self._draw_legend(painter)
        for place, picture, image in zip(self._places(), self.pictures, self._images, strict=True):
            painter.drawImage(place, image)
            painter.save()
            painter.setClipRect(place)
            zoom = place.width() / picture.image.shape[1]
            for kind in ("before", "now", "truth"):
                for line in picture.contours[kind]:
                    _draw(painter, kind, QPolygonF([place.topLeft() + zoom * QPointF(x, y) for y, x in line]))
            painter.restore()

    def _draw_legend(self, painter: QPainter) -> None:
        assert self._ink is not None
        x = 0.0
        for kind in _KINDS:
            painter.fillRect(QRectF(x, 2, 22, 14), QColor(_GROUND))
            _draw(painter, kind, QPolygonF([QPointF(x + 2, 9), QPointF(x + 20, 9)]))
            painter.setPen(self._ink.text)
            width = painter.fontMetrics().horizontalAdvance(kind)
            painter.drawText(QRectF(x + 27, 1, width + 2, 16), int(Qt.AlignmentFlag.AlignVCenter), kind)
            x += width + 42


def _draw(painter: QPainter, kind: str, line: QPolygonF) -> None:
    """A line that is seen on bright and on dark ground."""
    painter.setPen(QPen(QColor(0, 0, 0, 110), 2.6))
    painter.drawPolyline(line)
    colour, style = _LOOKS[kind]
    painter.setPen(QPen(QColor(colour), 1.5, style))
    painter.drawPolyline(line)
