"""How the fine-tuning widget looks: the status line and the buttons, below them tabs; without behaviour."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_delse.widgets._docked import STYLE, DockedPanel
from napari_delse.widgets._finetune.curves import Pairs, Plot
from napari_delse.widgets._finetune.fields import Ink, reachable, words
from napari_delse.widgets._finetune.models import ModelsTab
from napari_delse.widgets._finetune.settings import TrainingForm
from napari_delse.widgets._finetune.source import SourceForm
from napari_delse.widgets._finetune.strip import StripView

_ROWS = "QLabel#row { min-width: 7.2em; }"
_WIDTH = 370
_STATUS_HEIGHT = 74  # room for three lines, so that nothing below jumps


class TrainingPanel(DockedPanel):
    """Status line and buttons, always in view, and tabs below them.

    Parameters
    ----------
    source : SourceForm
        What to learn from.
    """

    def __init__(self, source: SourceForm) -> None:
        super().__init__()
        self.guide, self.notice = words(name="guide"), words(name="notice")
        self.notice.hide()
        self.train_button = reachable("Train", "Begin the training; annotation can go on meanwhile")
        self.pause_button = reachable("Pause", "Save and stop; it goes on later, also after napari was closed")
        self.stop_button = reachable("Stop", "End now and keep the best model so far, if it is better than before")
        self.kill_button = reachable("End its program", "It should have ended by now; what it saved last stays")
        self.resume_button = reachable("Go on", "Continue this training")
        self.drop_button = reachable("Discard", "Delete this training; models stay")
        self.new_button = reachable("New training", "Back to the form")
        self.back_button = reachable("", "Work with the model from before again")
        self.offer_text = words()
        self.offer_resume = reachable("Go on", "Continue this training where it was")
        self.offer_finish = reachable("End it", "Judge its best model so far and keep it, if it is better than before")
        self.offer_drop = reachable("Discard", "Delete this training; models stay")
        self.source, self.form, self.models = source, TrainingForm(), ModelsTab()
        self.found = words()
        self.facts = QFrame(objectName="facts", visible=False)
        self.again_button = reachable("Look again", "Look at the labels again")
        self.bar, self.numbers = QProgressBar(textVisible=False), words()
        self.loss_plot = Plot("Training loss over minutes", 104)
        self.score_plot = Plot("IoU and boundary F (2 px) of the held-out objects over minutes", 140)
        self.strip = StripView()
        self.pairs = Pairs()
        self.verdict = words()
        self.verdict.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.setup_page, self.run_page = QWidget(), QWidget(visible=False)
        self.tabs = QTabWidget()
        self._lay_out()

    def _lay_out(self) -> None:
        self.setStyleSheet(STYLE + _ROWS)
        layout = self._column()
        layout.addWidget(self._status_line(_STATUS_HEIGHT))
        layout.addWidget(self._offer_line((self.offer_resume, self.offer_finish, self.offer_drop)))
        layout.addLayout(self._buttons())
        layout.addWidget(self.tabs, stretch=1)
        self._fill_setup()
        self._fill_run()
        pages, inside = QWidget(), QVBoxLayout()
        pages.setLayout(inside)
        inside.setContentsMargins(2, 8, 8, 4)
        inside.addWidget(self.setup_page)
        inside.addWidget(self.run_page)
        inside.addStretch()
        self._add_tab(pages, "Training", "What to learn from and for how long, and how it goes")
        self._add_tab(self.models, "Models", "The models that there are, and where they come from")

    def _buttons(self) -> QHBoxLayout:
        row = QHBoxLayout()
        self.buttons = (
            self.train_button,
            self.pause_button,
            self.resume_button,
            self.stop_button,
            self.kill_button,
            self.drop_button,
            self.back_button,
            self.new_button,
        )
        for one in self.buttons:
            one.setMinimumHeight(30)
            row.addWidget(one, 1)
        return row

    def _fill_setup(self) -> None:
        layout = QVBoxLayout(self.setup_page)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.source)
        inside = QVBoxLayout(self.facts)
        inside.setContentsMargins(8, 6, 8, 6)
        inside.addWidget(self.found)
        inside.addWidget(self.again_button, alignment=Qt.AlignmentFlag.AlignRight)
        layout.addWidget(self.facts)
        layout.addWidget(self.form)

    def _fill_run(self) -> None:
        layout = QVBoxLayout(self.run_page)
        layout.setContentsMargins(0, 0, 0, 0)
        self.bar.setRange(0, 1000)
        self.bar.setFixedHeight(10)
        self.bar.setToolTip("How much of the time or of the steps is over")
        for one in (self.bar, self.numbers, self.verdict, self.pairs, self.score_plot, self.loss_plot, self.strip):
            layout.addWidget(one)

    def _add_tab(self, widget: QWidget, title: str, tooltip: str) -> None:
        area = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(widget)
        self.tabs.setTabToolTip(self.tabs.addTab(area, title), tooltip)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Wide enough to read the fields; its texts break, so they ask for nothing."""
        return QSize(_WIDTH, 700)

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Keep what ends the typing in a field from napari."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Escape):
            event.accept()
        else:
            super().keyPressEvent(event)

    def use(self, ink: Ink) -> None:
        """Draw in these colours."""
        for one in (self.loss_plot, self.score_plot, self.strip, self.pairs, self.models):
            one.use(ink)

    def show_buttons(self, shown: Sequence[QPushButton]) -> None:
        """Show these buttons only."""
        for one in self.buttons:
            one.setVisible(one in shown)

    def show_offer(self, text: str, *, ready: bool = True) -> None:
        """Offer to go on with a training; nothing without text."""
        for one in (self.offer_resume, self.offer_finish, self.offer_drop):
            one.setEnabled(ready)
        super().show_offer(text)

    def show_found(self, found: str) -> None:
        """What was found in the source."""
        self.found.setText(found)
        self.facts.setVisible(bool(found))
