"""Fields and buttons as the widgets have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qtpy.QtCore import QAbstractItemModel, Qt
from qtpy.QtGui import QIcon, QStandardItemModel
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHeaderView,
    QPushButton,
    QSizePolicy,
    QSlider,
    QTableView,
    QWidget,
)

DEVICES = [("Automatic", "auto"), ("CPU", "cpu"), ("GPU (CUDA)", "cuda"), ("GPU (Apple)", "mps")]
_ICON = 64  # pixels; shown smaller, also on fine screens


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


def show_refused(box: QComboBox, name: str, why: str) -> None:
    """Show an entry that cannot be chosen, and say why."""
    box.addItem(f"{name}: {why}")
    number = box.count() - 1
    box.setItemData(number, f"{name}: {why}", Qt.ItemDataRole.ToolTipRole)
    model = box.model()
    if isinstance(model, QStandardItemModel):
        model.item(number).setEnabled(False)


def button(text: str, tip: str) -> QPushButton:
    """A button that leaves the keyboard to the canvas."""
    result = QPushButton(text)
    result.setToolTip(tip)
    result.setProperty("tip", tip)
    result.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    return result


def row_table(model: QAbstractItemModel, least: int = 3) -> QTableView:
    """A table of rows that are chosen as a whole, which leaves the keyboard to the canvas.

    Parameters
    ----------
    model : QAbstractItemModel
        Its rows.
    least : int
        How many of them are in sight, however low the window is.
    """
    table = QTableView()
    table.setModel(model)
    table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
    table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
    table.setWordWrap(False)
    table.setShowGrid(False)
    rows, columns = table.verticalHeader(), table.horizontalHeader()
    height = table.fontMetrics().height() + 6
    rows.hide()
    rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
    rows.setMinimumSectionSize(height)
    rows.setDefaultSectionSize(height)
    columns.setHighlightSections(False)
    table.setMinimumHeight(columns.sizeHint().height() + 4 + least * height)
    return table


def name_keys(one: QPushButton, keys: Sequence[str]) -> None:
    """Tell in the tooltip of a button which keys do the same."""
    tip = one.property("tip")
    one.setToolTip(f"{tip} ({' or '.join(keys)})" if keys else tip)


def icon_button(icon: str, text: str, tip: str) -> QPushButton:
    """A button with one of napari's icons, drawn by `paint_icons`; until then, and without icons, the text."""
    result = button(text, tip)
    result.setProperty("napari_icon", icon)
    result.setProperty("instead", text)
    return result


def paint_icons(parent: QWidget, theme: str) -> None:
    """Draw the icons of all buttons inside a widget in the colours of a theme."""
    try:
        from napari._qt.qt_resources import QColoredSVGIcon
    except ImportError:  # private: then the texts stay
        return
    for one in parent.findChildren(QPushButton):
        if name := one.property("napari_icon"):
            drawn = QColoredSVGIcon.from_resources(name).colored(theme=theme)
            one.setIcon(QIcon(drawn.pixmap(_ICON)))  # of a pixmap, Qt makes a pale one for buttons that are disabled
            one.setText("" if len(one.property("instead")) == 1 else one.property("instead"))


def slider(tip: str) -> QSlider:
    """A horizontal slider that leaves the keyboard to the canvas unless it is reached by Tab."""
    result = QSlider(Qt.Orientation.Horizontal)
    result.setToolTip(tip)
    result.setFocusPolicy(Qt.FocusPolicy.TabFocus)
    return result


def set_slider(bar: QSlider, value: int, low: int, high: int) -> None:
    """Give a slider a range and a value without telling anybody."""
    blocked = bar.blockSignals(True)
    try:
        bar.setRange(low, high)
        bar.setValue(value)
    finally:
        bar.blockSignals(blocked)
