"""The tab "Keys": what the mouse and the keys do, and fields to give actions other keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QKeySequence
from qtpy.QtWidgets import QGridLayout, QKeySequenceEdit, QLabel, QLineEdit, QVBoxLayout, QWidget

from napari_delse.widgets._annotate.keys import ACTIONS, from_qt, to_qt
from napari_delse.widgets._fields import button

if TYPE_CHECKING:
    from napari_delse.widgets._annotate.keys import Keyboard

_MOUSE = (
    ("Click", "boundary points of an object"),
    ("Pull", "the outline to where it belongs"),
)


class KeysTab(QWidget):
    """One field per action; a key that is not free is refused, and the field shows the former one again."""

    changed = Signal()  # a key was changed
    refused = Signal(object)  # the error that says why a key is not taken

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, QKeySequenceEdit] = {}
        self.reset_button = button("Default keys", "Give every action the key that it has at first")
        self._keyboard: Keyboard | None = None
        self._lay_out()
        self.reset_button.clicked.connect(lambda: self._reset())

    def _lay_out(self) -> None:
        grid = QGridLayout()
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        for row, (what, text) in enumerate(_MOUSE):
            grid.addWidget(QLabel(f"<b>{what}</b>"), row, 0)
            grid.addWidget(QLabel(text, wordWrap=True), row, 1)
        for row, action in enumerate(ACTIONS, len(_MOUSE)):
            where = "while a layer of this widget is active" if action.on_layers else "in any layer"
            field = QKeySequenceEdit()
            field.setToolTip(f"{action.text}, {where}: click here, and press another key; Backspace leaves it without")
            field.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
            field.setFixedWidth(112)
            if hasattr(field, "setMaximumSequenceLength"):  # Qt 6.5
                field.setMaximumSequenceLength(1)
            field.editingFinished.connect(lambda name=action.name: self._on_edited(name))
            self.fields[action.name] = field
            name = QLabel(action.text, wordWrap=True)
            name.setToolTip(field.toolTip())
            grid.addWidget(field, row, 0)
            grid.addWidget(name, row, 1)
        grid.setColumnStretch(1, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 8, 4)
        layout.addLayout(grid)
        layout.addWidget(self.reset_button)
        layout.addStretch()

    def show_keys(self, keyboard: Keyboard) -> None:
        """Show the keys of a keyboard, and change them from now on."""
        self._keyboard = keyboard
        for name, field in self.fields.items():
            blocked = field.blockSignals(True)
            field.setKeySequence(QKeySequence(to_qt(keyboard[name])))
            field.blockSignals(blocked)
            inner = field.findChild(QLineEdit)
            if inner is not None:
                inner.setPlaceholderText("none")

    def _on_edited(self, name: str) -> None:
        keyboard, field = self._keyboard, self.fields[name]
        if keyboard is None:
            return
        text = field.keySequence().toString(QKeySequence.SequenceFormat.PortableText).partition(", ")[0]
        try:
            key = "" if text == "Backspace" else from_qt(text)
            if key != keyboard[name]:
                keyboard.rebind(name, key)
                self.changed.emit()
        except ValueError as error:
            self.refused.emit(error)
        self.show_keys(keyboard)
        field.clearFocus()

    def _reset(self) -> None:
        if self._keyboard is not None:
            self._keyboard.reset()
            self.show_keys(self._keyboard)
            self.changed.emit()
