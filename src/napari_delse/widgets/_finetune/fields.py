"""Fields, buttons and colours of the fine-tuning widget."""

from __future__ import annotations

from typing import NamedTuple

from napari.utils.theme import get_theme
from qtpy.QtCore import Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import QLabel, QPushButton, QSizePolicy, QWidget

from napari_delse.widgets._fields import button


def reachable(text: str, tip: str) -> QPushButton:
    """A button that Tab reaches; a click on it leaves the keyboard where it is."""
    result = button(text, tip)
    result.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return result


def words(text: str = "", name: str = "") -> QLabel:
    """A text that breaks anywhere and never widens the widget."""
    label = QLabel(text, objectName=name, wordWrap=True)
    label.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
    return label


def row_name(text: str, field: QWidget) -> QLabel:
    """The name of a field; the style makes those of both forms equally wide, so that the fields stand in one line."""
    label = QLabel(text, objectName="row")
    label.setToolTip(field.toolTip())
    return label


class Ink(NamedTuple):
    """Colours to draw with: those of a theme, and two that mean something."""

    paper: QColor
    text: QColor
    faint: QColor
    before: QColor
    now: QColor


def ink_of(theme: str) -> Ink:
    """Colours for a theme by its name."""
    found = get_theme(theme)
    paper, text, faint = (QColor(str(c.as_hex())) for c in (found.background, found.text, found.secondary))
    dark = paper.lightness() < 128
    before, now = ("#ff9d5c", "#4fc3ff") if dark else ("#b85400", "#0069b4")
    return Ink(paper, text, faint, QColor(before), QColor(now))
