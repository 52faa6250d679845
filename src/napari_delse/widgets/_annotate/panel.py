"""How the annotate widget looks: the status line and the buttons, below them tabs; without behaviour."""

from __future__ import annotations

from qtpy.QtCore import Qt
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QFrame, QGridLayout, QLabel, QScrollArea, QTabWidget, QWidget

from napari_delse.widgets._annotate.export_form import ExportForm
from napari_delse.widgets._annotate.keys import Keyboard, shown
from napari_delse.widgets._annotate.keys_tab import KeysTab
from napari_delse.widgets._annotate.review import ReviewList
from napari_delse.widgets._annotate.settings_tab import SettingsTab
from napari_delse.widgets._docked import STYLE, DockedPanel
from napari_delse.widgets._fields import button, icon_button, name_keys

_STATUS_HEIGHT = 132  # room for the longest text and a notice, so that nothing below jumps


class AnnotatePanel(DockedPanel):
    """Status line and buttons, always in view, and tabs below them."""

    def __init__(self) -> None:
        super().__init__()
        self.guide = QLabel(objectName="guide", wordWrap=True)
        self.notice = QLabel(objectName="notice", wordWrap=True, visible=False)
        self.accept_button = icon_button(
            "check", "Accept", "Write the preview into the labels and go on with the next object"
        )
        self.restart_button = button("Start over", "Forget the clicks and drags of this object")
        self.undo_button = button("Undo", "Take the last click, drag, or change of an object back")
        self.redo_button = button("Redo", "Do again what was undone")
        self.offer_text = QLabel(wordWrap=True)
        self.restore_button = button("Restore", "Bring its labels, its list and its undo back, and go on with it")
        self.discard_button = button("Discard", "Do not ask again; the file of it is kept")
        self.review = ReviewList()
        self.count = self.review.heading
        self.settings = settings = SettingsTab()
        self.image_box, self.labels_box, self.protect_box = (
            settings.image_box,
            settings.labels_box,
            settings.protect_box,
        )
        self.channel_box, self.channels_edit = settings.channel_box, settings.channels_edit
        self.model_box, self.device_box = settings.model_box, settings.device_box
        self.export_form = ExportForm()
        self.review.pages.insertWidget(1, self.export_form)
        self.keys = KeysTab()
        self.tabs = QTabWidget(usesScrollButtons=True)
        self.tabs.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.tabs.tabBar().setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._lay_out()

    def _lay_out(self) -> None:
        self.setStyleSheet(STYLE)
        layout = self._column()
        layout.addWidget(self._status_line(_STATUS_HEIGHT))
        layout.addWidget(self._offer_line((self.restore_button, self.discard_button)))
        layout.addLayout(self._buttons())
        layout.addWidget(self.tabs, stretch=1)
        self.tabs.addTab(self.review, "Objects")
        self.tabs.setTabToolTip(0, "The accepted objects: look them over, and change them")
        self.add_tab(self.settings, "Settings", "Image, labels and model, and how objects are written")
        self.add_tab(self.keys, "Keys", "What the keys do, and other keys for it")

    def _buttons(self) -> QGridLayout:
        buttons = QGridLayout()
        self.accept_button.setMinimumHeight(32)
        buttons.addWidget(self.accept_button, 0, 0, 1, 3)
        for column, lesser in enumerate((self.undo_button, self.redo_button, self.restart_button)):
            buttons.addWidget(lesser, 1, column)
            buttons.setColumnStretch(column, 1)
        return buttons

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Keep what ends the typing in a field from napari, where it would accept or drop the object in progress."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Escape):
            event.accept()
        else:
            super().keyPressEvent(event)

    def show_keys(self, keyboard: Keyboard) -> None:
        """Show the keys in their tab, and in the tooltips of the buttons that do the same."""
        self.keys.show_keys(keyboard)
        review = self.review
        for one, names in (
            (self.accept_button, ("accept_here", "accept")),
            (self.restart_button, ("start_over",)),
            (self.undo_button, ("undo",)),
            (self.redo_button, ("redo",)),
            (review.next_button, ("next",)),
            (review.previous_button, ("previous",)),
            (review.unsure_button, ("unsure",)),
            (review.unnamed_button, ("unnamed",)),
            (review.empty_button, ("empty",)),
            (review.reopen_button, ("reopen",)),
            (review.delete_button, ("delete",)),
            (review.merge_button, ("merge",)),
            (review.split_button, ("split",)),
        ):
            name_keys(one, [shown(keyboard[name]) for name in names if keyboard[name]])

    def add_tab(self, widget: QWidget, title: str, tooltip: str = "") -> None:
        """Add a tab at the end; what is higher than the window scrolls.

        Parameters
        ----------
        widget : QWidget
            Its content, also there as long as the tab is not shown.
        title : str
            One short word.
        tooltip : str
            One sentence.
        """
        area = QScrollArea(widgetResizable=True, frameShape=QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        area.setWidget(widget)
        self.tabs.setTabToolTip(self.tabs.addTab(area, title), tooltip)

    def show_tab(self, widget: QWidget) -> None:
        """Bring a tab to the front."""
        for number in range(self.tabs.count()):
            page = self.tabs.widget(number)
            if page is widget or (isinstance(page, QScrollArea) and page.widget() is widget):
                self.tabs.setCurrentIndex(number)
