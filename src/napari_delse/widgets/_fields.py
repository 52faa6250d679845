"""Fields and buttons as the widgets have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QPushButton, QSizePolicy


def choice(tip: str) -> QComboBox:
    """A combo box that stays narrow however long its entries are."""
    box = QComboBox()
    box.setToolTip(tip)
    box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    box.setMinimumContentsLength(8)
    box.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return box


def fill(box: QComboBox, entries: Iterable[tuple[str, Any]], chosen: Any) -> None:
    """Offer entries (text, value), one of them chosen, without telling anybody."""
    blocked = box.blockSignals(True)
    try:
        box.clear()
        for number, (text, value) in enumerate(entries):
            box.addItem(text, value)
            box.setItemData(number, text, Qt.ItemDataRole.ToolTipRole)
            if value is chosen or (not hasattr(value, "events") and value == chosen):
                box.setCurrentIndex(number)
    finally:
        box.blockSignals(blocked)


def button(text: str, tip: str) -> QPushButton:
    """A button that leaves the keyboard to the canvas."""
    result = QPushButton(text)
    result.setToolTip(tip)
    result.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return result
