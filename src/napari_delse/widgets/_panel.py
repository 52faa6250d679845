"""How the annotate widget looks: fields, buttons and the status line, without behaviour."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QCheckBox,
    QFormLayout,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_delse.widgets._fields import button, choice
from napari_delse.widgets._review import ReviewList

_STATUS = """
QFrame#status { border-left: 4px solid #ffd400; border-radius: 0px; background: rgba(128, 128, 128, 40); }
QFrame#status[trouble="true"] { border-left-color: #ff5c5c; }
QFrame#status QLabel { background: transparent; }
QFrame#offer { border-left: 4px solid #00e5ff; border-radius: 0px; background: rgba(128, 128, 128, 40); }
QFrame#offer QLabel { background: transparent; }
QLabel#guide { font-size: 11pt; }
QLabel#notice { font-weight: bold; }
"""


class AnnotatePanel(QWidget):
    """Status line, buttons and fields of the annotate widget."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = QLabel(objectName="guide", wordWrap=True)
        self.notice = QLabel(objectName="notice", wordWrap=True, visible=False)
        self.accept_button = button(
            "Accept", "Write the preview into the labels and go on with the next object (Enter or N)"
        )
        self.restart_button = button("Start over", "Forget the clicks and drags of this object (Esc)")
        self.undo_button = button("Undo", "Take the last click, drag or accepted object back (Ctrl+Z)")
        self.redo_button = button("Redo", "Do again what was undone (Ctrl+Shift+Z)")
        self.image_box = choice("The image whose objects are outlined")
        self.channel_box = choice("An axis that holds channels, if the image has one")
        self.channels_edit = QLineEdit(placeholderText="first three, such as 0,1,2")
        self.channels_edit.setToolTip("Up to three channels to look at, counted from 0 and separated by commas")
        self.labels_box = choice("The labels layer that accepted objects are written to")
        self.model_box = choice("The model that outlines the objects")
        self.device_box = choice("Where the model runs; automatic takes a GPU if there is one")
        self.protect_box = QCheckBox("Protect existing labels", checked=True)
        self.protect_box.setToolTip("Accepted objects leave pixels alone that have a label already")
        self.offer_text = QLabel(wordWrap=True)
        self.restore_button = button("Restore", "Bring its labels, its list and its undo back, and go on with it")
        self.discard_button = button("Discard", "Do not ask again; the file of it is kept")
        self.review = ReviewList()
        self.count = self.review.heading
        self.keys = QLabel(wordWrap=True, textFormat=Qt.TextFormat.RichText)
        self._lay_out()

    def _lay_out(self) -> None:
        self.setStyleSheet(_STATUS)
        self.status = QFrame(objectName="status")
        lines = QVBoxLayout(self.status)
        lines.setContentsMargins(10, 8, 8, 8)
        lines.addWidget(self.notice)
        lines.addWidget(self.guide)
        lines.addStretch()
        self.status.setMinimumHeight(104)  # room for the longest text, so that nothing below jumps

        self.offer = QFrame(objectName="offer", visible=False)
        inside = QVBoxLayout(self.offer)
        inside.setContentsMargins(10, 6, 8, 6)
        inside.addWidget(self.offer_text)
        answers = QHBoxLayout()
        answers.addWidget(self.restore_button)
        answers.addWidget(self.discard_button)
        inside.addLayout(answers)

        buttons = QGridLayout()
        self.accept_button.setMinimumHeight(32)
        buttons.addWidget(self.accept_button, 0, 0, 1, 3)
        for column, lesser in enumerate((self.undo_button, self.redo_button, self.restart_button)):
            buttons.addWidget(lesser, 1, column)
        for column in range(3):
            buttons.setColumnStretch(column, 1)

        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        for text, field in (
            ("Image", self.image_box),
            ("Channel axis", self.channel_box),
            ("Channels", self.channels_edit),
            ("Labels", self.labels_box),
            ("Model", self.model_box),
            ("Device", self.device_box),
        ):
            self.form.addRow(text, field)
        self.form.addRow(self.protect_box)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(10, 8, 10, 8)
        layout.setSpacing(8)
        layout.addWidget(self.status)
        layout.addWidget(self.offer)
        layout.addLayout(buttons)
        layout.addWidget(self.review)
        layout.addLayout(self.form)
        layout.addWidget(self.keys)
        layout.addStretch()
        self.setMinimumWidth(270)

    def show_row(self, field: QWidget, *, visible: bool) -> None:
        """Show or hide a field with its name."""
        field.setVisible(visible)
        if (name := self.form.labelForField(field)) is not None:
            name.setVisible(visible)

    def show_status(self, guide: str, notice: str = "", *, trouble: bool = False) -> None:
        """What to do next, and above it what just went wrong."""
        self.guide.setText(guide)
        self.notice.setText(notice)
        self.notice.setVisible(bool(notice))
        if self.status.property("trouble") != trouble:
            self.status.setProperty("trouble", trouble)
            self.status.style().unpolish(self.status)
            self.status.style().polish(self.status)

    def show_offer(self, text: str) -> None:
        """Offer to restore unfinished work; nothing without text."""
        self.offer_text.setText(text)
        self.offer.setVisible(bool(text))
