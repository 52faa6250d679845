"""The tab "Objects": the list of them, and buttons to look them over and to change them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

from qtpy.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, Qt, QTimer, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_delse.annotation.actions import LabelledObject
from napari_delse.annotation.review import most_uncertain, next_unnamed
from napari_delse.widgets._annotate.objects_model import CLASS, PLANE, ObjectsModel
from napari_delse.widgets._fields import button, icon_button, row_table

NO_OBJECTS = (
    "No objects yet.\n\nClick the four extreme points of one and accept its outline: it is listed here, to be looked "
    "at again, corrected, named, merged, split or deleted."
)
_FEWEST = 3  # rows that are shown where there is little room
_MANY = 100  # changes, from which on the list is made anew
_PART = 1000  # changes that are shown at once: more would hold up the window


class ReviewList(QWidget):
    """How many objects there are, the list of them, and its buttons.

    Several rows can be selected; the signals carry labels, in ascending order where there are several.
    """

    chosen = Signal(int)  # the person wants to see this object
    reopen = Signal(int)
    delete = Signal(object)  # list of labels
    merge = Signal(object)  # list of labels
    split = Signal(int)
    classify = Signal(object, str)  # list of labels, class name
    empty_plane = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.model = ObjectsModel(self)
        self.current: int | None = None  # label
        self._selected: set[int] = set()
        self._objects: Mapping[int, LabelledObject] = {}
        self._has_planes = False
        self._unlisted: dict[int, None] = {}  # labels that came, changed or went and are still listed as they were
        self._next_part = QTimer(self, singleShot=True, interval=0)
        self._seen: set[int] = set()
        self._names: set[str] = set()  # class names used so far, also ones that no object has now
        self._quiet = False
        self.heading = QLabel(NO_OBJECTS, wordWrap=True)
        self.heading.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)  # its text breaks anywhere
        self.heading.setToolTip("Objects that were accepted here; labels that were there before are not listed")
        self.export_button = icon_button(
            "pop_out", "Export ...", "Write the labels or their prompts for another program"
        )
        self.table = self._make_table()
        self._make_buttons()
        self.class_box = self._make_class_box()
        self.body = QWidget()
        self._lay_out()
        self._connect()

    # ---- how it looks

    def _make_table(self) -> QTableView:
        table = row_table(self.model, _FEWEST)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setToolTip("A click goes to an object; with Ctrl or Shift, several are selected")
        columns = table.horizontalHeader()
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        columns.setMinimumSectionSize(20)
        table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        table.setSortingEnabled(True)
        return table

    def _make_buttons(self) -> None:
        self.previous_button = icon_button("left_arrow", "‹", "The object before, in the order of the list")
        self.next_button = icon_button("right_arrow", "›", "The next object, in the order of the list")
        self.unsure_button = button("Least sure", "The object that the model is least sure of, then the next one")
        self.unnamed_button = button("No class", "The next object without a class; shown once a class is used")
        self.empty_button = button(
            "Empty plane",
            "The next plane in which no object was accepted here; labels that were there before do not count",
        )
        self.reopen_button = button("Reopen", "Edit its clicks again; it is accepted under the same id")
        self.delete_button = icon_button("delete", "Delete", "Take the selected objects out of the labels")
        self.merge_button = button("Merge", "Make the selected objects one, under the lowest of their ids")
        self.split_button = button(
            "Split",
            "Make unconnected parts of the object objects of their own. If a part of it is outlined at present, that "
            "part is split off instead",
        )

    def _make_class_box(self) -> QComboBox:
        box = QComboBox(editable=True)
        box.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        box.setMinimumContentsLength(8)
        box.completer().setCaseSensitivity(Qt.CaseSensitivity.CaseSensitive)  # else "nucleus" becomes "Nucleus"
        box.lineEdit().setPlaceholderText("a name, then Enter")
        box.setToolTip(
            "What kind of objects the selected ones are: type a name and press Enter, or choose one. Without a name, "
            "Enter takes the class away"
        )
        return box

    def _lay_out(self) -> None:
        going, changing, naming = QHBoxLayout(), QGridLayout(), QHBoxLayout()
        for one in (self.previous_button, self.next_button):
            one.setFixedWidth(28)
        for one in (
            self.previous_button,
            self.next_button,
            self.unsure_button,
            self.unnamed_button,
            self.empty_button,
        ):
            going.addWidget(one)
        for column, one in enumerate((self.reopen_button, self.split_button, self.merge_button, self.delete_button)):
            changing.addWidget(one, 0, column)
            changing.setColumnStretch(column, 1)
        name = QLabel("Class")
        name.setToolTip(self.class_box.toolTip())
        naming.addWidget(name)
        naming.addWidget(self.class_box, stretch=1)
        inside = QVBoxLayout(self.body)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        inside.addWidget(self.table, stretch=1)
        for row in (going, naming, changing):
            row.setSpacing(4)
            inside.addLayout(row)
        top = QHBoxLayout()
        top.addWidget(self.heading, stretch=1)
        top.addWidget(self.export_button)
        self.pages = QVBoxLayout(self)  # the export form takes its place above the list
        self.pages.setContentsMargins(2, 8, 2, 2)
        self.pages.setSpacing(4)
        self.pages.addLayout(top)
        self.pages.addWidget(self.body, stretch=100)
        self.pages.addStretch(1)
        self.body.hide()
        self.export_button.hide()

    def _connect(self) -> None:
        self.model.modelReset.connect(self._on_reset)
        self._next_part.timeout.connect(self._list_part)
        self.table.selectionModel().currentRowChanged.connect(self._on_row)
        self.table.selectionModel().selectionChanged.connect(self._on_selection)
        self.previous_button.clicked.connect(lambda: self.step(-1))
        self.next_button.clicked.connect(lambda: self.step(1))
        self.unsure_button.clicked.connect(lambda: self.least_sure())
        self.unnamed_button.clicked.connect(lambda: self.unnamed())
        self.empty_button.clicked.connect(lambda: self.empty_plane.emit())
        self.reopen_button.clicked.connect(lambda: self._with_single(self.reopen))
        self.split_button.clicked.connect(lambda: self._with_single(self.split))
        self.delete_button.clicked.connect(lambda: self._with_selected(self.delete))
        self.merge_button.clicked.connect(lambda: self._with_selected(self.merge))
        self.class_box.activated.connect(lambda _: self._name())
        self.class_box.lineEdit().returnPressed.connect(self._name)

    # ---- what is shown

    def show_objects(self, objects: Mapping[int, LabelledObject], changed: set[int], *, has_planes: bool) -> bool:
        """Show these objects, of which some changed since they were last shown; False if there is nothing new.

        Where there are thousands, part of them is listed at once and the others soon after.
        """
        if objects is not self._objects:
            with self._quietly():
                self.model.clear()
            self._objects, self._seen, self._selected, self.current = objects, set(), set(), None
            self._unlisted = dict.fromkeys(objects)
        elif changed:
            self._unlisted |= dict.fromkeys(changed)
        else:
            return False
        self._has_planes = has_planes
        self._seen -= changed
        self._list_part()
        return True

    def _list_part(self) -> None:
        """List objects that are not listed yet, as many as one does not have to wait for."""
        part = list(islice(self._unlisted, _PART))
        for label in part:
            del self._unlisted[label]
        with self._quietly():
            (self.model.update_many if len(part) > _MANY else self.model.update)(self._objects, part)
        if self.current not in self._objects:
            self.current = None
        self._mark(scroll=False)  # the person may have scrolled elsewhere
        made, names = len(self._objects), self.model.classes
        self.heading.setText(f"{made:,} object{'s' * (made > 1)} accepted" if made else NO_OBJECTS)
        for one in (self.body, self.export_button):
            one.setVisible(made > 0)
        self.table.setColumnHidden(PLANE, not self._has_planes)
        self.table.setColumnHidden(CLASS, not names)
        self.unnamed_button.setVisible(bool(names))
        self.empty_button.setVisible(self._has_planes)
        self._offer(names)
        if self._unlisted:
            self._next_part.start()

    def _offer(self, names: list[str]) -> None:
        """Offer the class names used so far; also after the last object of a class is gone."""
        if not self._names.issuperset(names):
            self._names.update(names)
            text = self.class_box.currentText()
            self.class_box.clear()
            self.class_box.addItems(sorted(self._names))
            self.class_box.setEditText(text)

    def mark(self, label: int) -> None:
        """Make an object the current one, and the only selected one, without going there."""
        self.current, self._selected = label, {label}
        self._mark()

    @property
    def selected(self) -> list[int]:
        """Labels of the selected objects, ascending."""
        return sorted(self._selected & self._objects.keys())

    def _on_reset(self) -> None:
        if not self._quiet:
            self._mark()

    def _mark(self, *, scroll: bool = True) -> None:
        """Select the rows of the selected objects, quietly, and enable what can be done with them."""
        self._selected &= self._objects.keys()
        if self.current is not None and not self._selected:
            self._selected = {self.current} & self._objects.keys()
        with self._quietly():
            if self._selected_rows() != self._selected:
                self._select()
            row = None if self.current is None else self.model.row_of_label(self.current)
            index = QModelIndex() if row is None else self.model.index(row, 0)
            self.table.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
            if scroll and row is not None and self._selected == {self.current}:
                self.table.scrollTo(index)
        self._enable()

    def _selected_rows(self) -> set[int]:
        chosen = self.table.selectionModel().selection()
        return {self.model.label_at(row) for part in chosen for row in range(part.top(), part.bottom() + 1)}

    def _select(self) -> None:
        """Select the rows of the selected objects, neighbours in one piece: thousands of pieces take seconds."""
        places = (self.model.row_of_label(label) for label in self._selected)
        rows = sorted(row for row in places if row is not None)
        chosen, last = QItemSelection(), self.model.columnCount() - 1
        begin = 0
        for end in range(1, len(rows) + 1):
            if end == len(rows) or rows[end] != rows[end - 1] + 1:
                chosen.select(self.model.index(rows[begin], 0), self.model.index(rows[end - 1], last))
                begin = end
        self.table.selectionModel().select(chosen, QItemSelectionModel.SelectionFlag.ClearAndSelect)

    def _enable(self) -> None:
        chosen = [self._objects[label] for label in self.selected]
        single, some = len(chosen) == 1, bool(chosen)
        for one in (self.previous_button, self.next_button, self.unsure_button, self.unnamed_button):
            one.setEnabled(bool(self._objects))
        for one in (self.reopen_button, self.split_button):
            one.setEnabled(single)
        self.merge_button.setEnabled(len(chosen) > 1)
        self.delete_button.setEnabled(some)
        self.class_box.setEnabled(some)
        if not self.class_box.lineEdit().hasFocus():
            names = {made.class_name for made in chosen}
            self.class_box.setEditText(names.pop() if len(names) == 1 else "")

    @contextmanager
    def _quietly(self) -> Iterator[None]:
        before, self._quiet = self._quiet, True
        try:
            yield
        finally:
            self._quiet = before

    # ---- what the person wants

    def _on_row(self, now: QModelIndex, _before: QModelIndex) -> None:
        if not self._quiet and now.isValid():
            self.current = self.model.label_at(now.row())
            self._seen.add(self.current)
            self.chosen.emit(self.current)

    def _on_selection(self) -> None:
        if not self._quiet:
            self._selected = self._selected_rows()
            self._enable()

    def go_to(self, label: int) -> None:
        """Choose an object."""
        self._seen.add(label)
        self.mark(label)
        self.chosen.emit(label)

    def step(self, step: int) -> None:
        """The object some rows further; round the end."""
        count = self.model.rowCount()
        if not count:
            return
        row = None if self.current is None else self.model.row_of_label(self.current)
        self.go_to(self.model.label_at((row + step) % count if row is not None else (0 if step > 0 else count - 1)))

    def least_sure(self) -> None:
        """The least sure object that was not looked at; after all of them it begins anew."""
        rows = [row for row in self.model.rows if row.label in self._objects]  # some may be gone and still be listed
        label = most_uncertain(rows, self._seen)
        if label is None:
            self._seen.clear()
            label = most_uncertain(rows)
        if label is not None:
            self.go_to(label)

    def unnamed(self) -> None:
        """The next object without a class."""
        label = next_unnamed(self._objects, self.current)
        if label is not None:
            self.go_to(label)

    def _name(self) -> None:
        self.class_box.lineEdit().clearFocus()
        if self._selected:
            self.classify.emit(self.selected, self.class_box.currentText().strip())

    def _with_single(self, signal: Any) -> None:
        if len(self.selected) == 1:
            signal.emit(*self.selected)

    def _with_selected(self, signal: Any) -> None:
        if self.selected:
            signal.emit(self.selected)
