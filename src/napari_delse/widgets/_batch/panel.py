"""How the batch widget looks: the status line, the buttons and the progress, below them tabs; without behaviour."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QFrame,
    QGridLayout,
    QLabel,
    QProgressBar,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_delse.widgets._batch.files import FilesPage
from napari_delse.widgets._batch.form import LayersForm
from napari_delse.widgets._batch.review import ReviewPage
from napari_delse.widgets._docked import STYLE, DockedPanel
from napari_delse.widgets._fields import button

_STATUS_HEIGHT = 104  # room for the longest usual text, so that nothing below jumps


class BatchPanel(DockedPanel):
    """Status line, buttons and progress, always in view, and tabs below them."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = QLabel(objectName="guide", wordWrap=True)
        self.notice = QLabel(objectName="notice", wordWrap=True, visible=False)
        self.start_button = button("Start", "Do what is said above, in the background")
        self.pause_button = button("Pause", "Wait before the next object; the model stays loaded")
        self.cancel_button = button("Cancel", "Stop; planes that are done stay, and Undo takes them back")
        self.undo_button = button("Undo", "Take the last step on these labels back; a whole run is one step")
        self.redo_button = button("Redo", "Do again what was undone")
        self.offer_text = QLabel(wordWrap=True)
        self.restore_button = button("Restore", "Bring it back into the labels, with its undo, and go on with it")
        self.discard_button = button("Discard", "Do not ask again; the file of it is kept")
        self.bar = QProgressBar(textVisible=False)
        self.bar.setRange(0, 1000)
        self.bar.setFixedHeight(8)
        self.progress = QLabel()
        self.form, self.files, self.review = LayersForm(), FilesPage(), ReviewPage()
        self.tabs = QTabWidget(usesScrollButtons=True)
        self.tabs.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.tabs.tabBar().setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._lay_out()

    def _lay_out(self) -> None:
        self.setStyleSheet(STYLE)
        layout = self._column()
        layout.addWidget(self._status_line(_STATUS_HEIGHT))
        layout.addWidget(self._offer_line((self.restore_button, self.discard_button)))
        layout.addWidget(self._progress_line())
        layout.addLayout(self._buttons())
        layout.addWidget(self.tabs, stretch=1)
        area = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(self.form)
        for page, title, tip in (
            (area, "Layers", "Work on layers of this window"),
            (self.files, "Files", "Work on files and folders, without opening them"),
            (self.review, "Review", "Objects that somebody should look at"),
        ):
            self.tabs.setTabToolTip(self.tabs.addTab(page, title), tip)

    def _progress_line(self) -> QWidget:
        self.progress_line = QWidget(visible=False)
        lines = QVBoxLayout(self.progress_line)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(3)
        lines.addWidget(self.bar)
        lines.addWidget(self.progress)
        return self.progress_line

    def _buttons(self) -> QGridLayout:
        buttons = QGridLayout()
        self.start_button.setMinimumHeight(32)
        buttons.addWidget(self.start_button, 0, 0, 1, 4)
        lesser = (self.pause_button, self.cancel_button, self.undo_button, self.redo_button)
        for column, one in enumerate(lesser):
            buttons.addWidget(one, 1, column)
            buttons.setColumnStretch(column, 1)
        return buttons

    @property
    def is_on_files(self) -> bool:
        """Whether Start means the files."""
        return self.tabs.currentWidget() is self.files

    def show_progress(self, fraction: float | None, text: str = "") -> None:
        """How far a run is; nothing without one."""
        self.progress_line.setVisible(fraction is not None)
        self.bar.setValue(round(1000 * (fraction or 0.0)))
        self.progress.setText(text)

    def show_doubts(self, count: int) -> None:
        """How many doubts there are, in the title of their tab."""
        place = self.tabs.indexOf(self.review)
        self.tabs.setTabText(place, f"Review ({count})" if count else "Review")


def duration(seconds: float) -> str:
    """A time as people say it."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
