"""The form with which labels are exported: a format, a file, and how far it is."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QFrame, QHBoxLayout, QLineEdit, QProgressBar

from napari_delse.widgets._annotate.exporting import FORMATS
from napari_delse.widgets._fields import button, choice


class ExportForm(QFrame):
    """Format and file, to be filled in beside the work: nothing has to be answered at once."""

    wanted = Signal(str, str, bool)  # kind of format, path, whether what is there may be replaced
    cancelled = Signal()

    def __init__(self) -> None:
        super().__init__(objectName="export", visible=False)
        self.format_box = choice("What the labels are written as")
        for number, one in enumerate(FORMATS):
            self.format_box.addItem(one.title, one)
            self.format_box.setItemData(number, one.tip, Qt.ItemDataRole.ToolTipRole)
        self.file_edit = QLineEdit()
        self.file_edit.setToolTip("Where to write it; nothing that is there already is replaced unasked")
        self.browse_button = button("...", "Choose the place")
        self.browse_button.setFixedWidth(28)
        self.write_button = button("Write", "Write it now, while the work goes on")
        self.cancel_button = button("Close", "Close this form")
        self.bar = QProgressBar(visible=False, textVisible=False)
        self.bar.setToolTip("How much of the labels has been read")
        self.bar.setFixedHeight(8)
        self._dialog: QFileDialog | None = None
        self._is_there = False
        self._lay_out()
        self.format_box.currentIndexChanged.connect(self._on_format)
        self.file_edit.textChanged.connect(self._on_file)
        self.browse_button.clicked.connect(lambda: self._browse())
        self.write_button.clicked.connect(lambda: self._write())
        self.file_edit.returnPressed.connect(self.write_button.click)
        self.cancel_button.clicked.connect(lambda: self.cancelled.emit())

    def _lay_out(self) -> None:
        form = QFormLayout(self)
        form.setContentsMargins(8, 6, 8, 6)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        place, answers = QHBoxLayout(), QHBoxLayout()
        place.addWidget(self.file_edit, stretch=1)
        place.addWidget(self.browse_button)
        answers.addWidget(self.write_button)
        answers.addWidget(self.cancel_button)
        form.addRow("Format", self.format_box)
        form.addRow("File", place)
        form.addRow(self.bar)
        form.addRow(answers)

    @property
    def kind(self) -> str:
        """The chosen format."""
        return str(self.format_box.currentData().kind)

    @property
    def suffix(self) -> str:
        """How files of the chosen format end."""
        return str(self.format_box.currentData().suffix)

    def suggest(self, path: Path) -> None:
        """Fill in a place, unless the person wrote one."""
        if not self.file_edit.isModified():
            self.file_edit.setText(str(path))

    def _on_format(self) -> None:
        """Let the file end as its format does."""
        was_written, text = self.file_edit.isModified(), self.file_edit.text().strip()
        suffixes = sorted({one.suffix for one in FORMATS}, key=len, reverse=True)
        old = next((suffix for suffix in suffixes if text.endswith(suffix)), None)
        if old is not None:
            self.file_edit.setText(text.removesuffix(old) + self.suffix)
            self.file_edit.setModified(was_written)
        self.format_box.setToolTip(self.format_box.currentData().tip)

    def _on_file(self, text: str) -> None:
        self._is_there = False
        self.write_button.setEnabled(bool(text.strip()) and not self.bar.isVisibleTo(self))
        self.write_button.setText("Write")

    def _write(self) -> None:
        self.file_edit.clearFocus()  # the keyboard goes back to the canvas
        self.wanted.emit(self.kind, self.file_edit.text().strip(), self._is_there)

    def ask_to_replace(self) -> None:
        """What was to be written is there already: the next press replaces it, unless the name is changed."""
        self._is_there = True
        self.write_button.setText("Replace")

    def _browse(self) -> None:
        if self._dialog is None:
            self._dialog = QFileDialog(self, "Export to")
            self._dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
            self._dialog.setModal(False)
            self._dialog.setOption(QFileDialog.Option.DontConfirmOverwrite)  # the form says so itself
            self._dialog.fileSelected.connect(self._on_chosen)
        path = Path(self.file_edit.text().strip() or ".")
        self._dialog.setDirectory(str(path.parent))
        self._dialog.selectFile(path.name)
        self._dialog.show()

    def _on_chosen(self, path: str) -> None:
        self.file_edit.setText(path if path.endswith(self.suffix) else path + self.suffix)
        self.file_edit.setModified(True)

    # ---- while it runs

    def show_progress(self, done: int, total: int) -> None:
        """How many planes were read; 0 of 0 at the beginning."""
        self.bar.setVisible(True)
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.write_button.setEnabled(False)
        self.cancel_button.setText("Cancel")
        self.cancel_button.setToolTip("Stop; nothing is written then")

    def finish(self, *, close: bool) -> None:
        """It is over."""
        self.bar.hide()
        self.cancel_button.setText("Close")
        self.cancel_button.setToolTip("Close this form")
        self._on_file(self.file_edit.text())
        if close:
            self.hide()
