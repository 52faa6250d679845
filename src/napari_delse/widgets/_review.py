"""The list of objects: sorted, fast with thousands of them, with buttons to look them over."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHBoxLayout, QHeaderView, QLabel, QTableView, QVBoxLayout, QWidget

from napari_delse.actions import LabelledObject
from napari_delse.review import ObjectRow, most_uncertain, row_of
from napari_delse.widgets._fields import button

NO_OBJECTS = "No objects yet. Accepted objects are listed here."
_FEWEST = 3  # rows that are shown where there is little room
_MANY = 100  # changes, from which on the list is made anew
_Key = tuple[Any, int]


def _place_of(row: ObjectRow) -> str:
    return ", ".join(map(str, row.plane.index)) + (f" +{row.planes - 1}" if row.planes > 1 else "")


def _sure(row: ObjectRow) -> float:
    return -1.0 if math.isnan(row.confidence) else row.confidence


class _Column(NamedTuple):
    name: str
    tip: str
    key: Callable[[ObjectRow], Any]
    text: Callable[[ObjectRow], str]


_COLUMNS = (
    _Column("Id", "Value in the labels", lambda row: row.label, lambda row: str(row.label)),
    _Column("Plane", "Its place on the other axes", lambda row: (row.plane.axes, row.plane.index), _place_of),
    _Column("Area", "Pixels", lambda row: row.area, lambda row: f"{row.area:,}"),
    _Column("Sure", "How sure the model is", _sure, lambda row: f"{row.confidence:.0%}" if _sure(row) >= 0 else ""),
    _Column("Prompts", "Clicks and drags", lambda row: row.prompts, lambda row: str(row.prompts)),
)
_PLANE = 1


class ObjectsModel(QAbstractTableModel):
    """Objects of a session in the order of one column; a change moves one row, however many there are."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._rows: dict[int, ObjectRow] = {}
        self._keys: list[_Key] = []  # ascending, whichever way they are shown
        self._column, self._falling = 0, False

    def rowCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        return 0 if parent.isValid() else len(self._keys)

    def columnCount(self, parent: QModelIndex = QModelIndex()) -> int:  # noqa: N802, B008 - Qt's
        return 0 if parent.isValid() else len(_COLUMNS)

    def headerData(  # noqa: N802 - Qt's
        self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole
    ) -> Any:
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(_COLUMNS):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[section].name
        return f"{_COLUMNS[section].tip}; click to sort" if role == Qt.ItemDataRole.ToolTipRole else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        if role == Qt.ItemDataRole.DisplayRole:
            return _COLUMNS[index.column()].text(self._rows[self.label_at(index.row())])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None

    def label_at(self, row: int) -> int:
        """The object shown in a row."""
        return self._keys[self._place(row)][1]

    def row_of_label(self, label: int) -> int | None:
        """The row that shows an object."""
        made = self._rows.get(label)
        return None if made is None else self._place(bisect_left(self._keys, self._key(made)))

    def _place(self, row: int) -> int:
        """From rows to keys, and back."""
        return len(self._keys) - 1 - row if self._falling else row

    def _key(self, row: ObjectRow) -> _Key:
        return _COLUMNS[self._column].key(row), row.label

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """Show by another column."""
        self.beginResetModel()
        self._column, self._falling = max(0, column), order == Qt.SortOrder.DescendingOrder
        self._keys = sorted(map(self._key, self._rows.values()))
        self.endResetModel()

    def reset(self, objects: Mapping[int, LabelledObject]) -> None:
        """Show other objects."""
        self.beginResetModel()
        self._rows = {label: row_of(made) for label, made in objects.items()}
        self._keys = sorted(map(self._key, self._rows.values()))
        self.endResetModel()

    def update(self, objects: Mapping[int, LabelledObject], labels: Iterable[int]) -> None:
        """These labels came, changed or went."""
        for label in labels:
            old, made = self._rows.get(label), objects.get(label)
            new = None if made is None else row_of(made)
            if old is not None and new is not None and self._key(old) == self._key(new):
                self._rows[label] = new
                row = self.row_of_label(label)
                self.dataChanged.emit(self.index(row, 0), self.index(row, len(_COLUMNS) - 1))
                continue
            if old is not None:
                self._remove(old)
            if new is not None:
                self._insert(new)

    def _remove(self, row: ObjectRow) -> None:
        place = bisect_left(self._keys, self._key(row))
        shown = self._place(place)
        self.beginRemoveRows(QModelIndex(), shown, shown)
        del self._keys[place], self._rows[row.label]
        self.endRemoveRows()

    def _insert(self, row: ObjectRow) -> None:
        key = self._key(row)
        place = bisect_left(self._keys, key)
        shown = len(self._keys) - place if self._falling else place
        self.beginInsertRows(QModelIndex(), shown, shown)
        insort(self._keys, key)
        self._rows[row.label] = row
        self.endInsertRows()


class ReviewList(QWidget):
    """The tab "Objects": how many there are, the list of them, and its buttons."""

    chosen = Signal(int)  # the person wants to see this object
    reopen = Signal(int)
    delete = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.model = ObjectsModel(self)
        self.current: int | None = None  # label
        self._objects: Mapping[int, LabelledObject] = {}
        self._seen: set[int] = set()
        self._quiet = False
        self.heading = QLabel(NO_OBJECTS, wordWrap=True)
        self.table = self._make_table()
        self.previous_button = button("‹", "The object before, in the order of the list (Shift+B)")
        self.next_button = button("›", "The next object, in the order of the list (Shift+N)")
        self.unsure_button = button("Least sure", "The object that the model is least sure of (Shift+U)")
        self.reopen_button = button("Reopen", "Edit its clicks again; Enter accepts it under the same id (Shift+R)")
        self.delete_button = button("Delete", "Take it out of the labels (Shift+D)")
        self.body = QWidget()
        self._lay_out()
        self.previous_button.clicked.connect(lambda: self.step(-1))
        self.next_button.clicked.connect(lambda: self.step(1))
        self.unsure_button.clicked.connect(lambda: self.least_sure())
        self.reopen_button.clicked.connect(lambda: self._with_current(self.reopen))
        self.delete_button.clicked.connect(lambda: self._with_current(self.delete))

    def _make_table(self) -> QTableView:
        table = QTableView()
        table.setModel(self.model)
        table.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # the keyboard stays with the canvas
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setWordWrap(False)
        table.setShowGrid(False)
        rows, columns = table.verticalHeader(), table.horizontalHeader()
        height = table.fontMetrics().height() + 6
        rows.hide()
        rows.setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        rows.setMinimumSectionSize(height)
        rows.setDefaultSectionSize(height)
        columns.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        columns.setMinimumSectionSize(20)
        columns.setHighlightSections(False)
        table.sortByColumn(0, Qt.SortOrder.AscendingOrder)
        table.setSortingEnabled(True)
        frame = columns.sizeHint().height() + 4
        table.setMinimumHeight(frame + _FEWEST * height)
        self.model.modelReset.connect(self._mark)
        table.selectionModel().currentRowChanged.connect(self._on_row)
        return table

    def _lay_out(self) -> None:
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        for one in (self.previous_button, self.next_button):
            one.setFixedWidth(28)
        for one in (
            self.previous_button,
            self.next_button,
            self.unsure_button,
            self.reopen_button,
            self.delete_button,
        ):
            buttons.addWidget(one)
        inside = QVBoxLayout(self.body)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        inside.addWidget(self.table, stretch=1)
        inside.addLayout(buttons)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 2, 2)
        layout.setSpacing(4)
        layout.addWidget(self.heading)
        layout.addWidget(self.body, stretch=1)
        layout.addStretch()
        self.body.hide()

    # ---- what is shown

    def show_objects(self, objects: Mapping[int, LabelledObject], changed: set[int], *, has_planes: bool) -> None:
        """Show these objects, of which some changed since they were last shown."""
        other = objects is not self._objects
        if not other and not changed:
            return
        with self._quietly():
            if other or len(changed) > _MANY:
                self.model.reset(objects)
            else:
                self.model.update(objects, changed)
            if other:
                self._objects, self._seen, self.current = objects, set(), None
        self._seen -= changed
        if self.current not in objects:
            self.current = None
        self._mark()
        made = len(objects)
        self.heading.setText(f"{made:,} object{'s' * (made > 1)} accepted" if made else NO_OBJECTS)
        self.body.setVisible(made > 0)
        self.table.setColumnHidden(_PLANE, not has_planes)
        for one in (self.previous_button, self.next_button, self.unsure_button):
            one.setEnabled(bool(objects))

    def mark(self, label: int) -> None:
        """Make an object the current one without going there."""
        self.current = label
        self._mark()

    def _mark(self) -> None:
        """Select the row of the current object, quietly."""
        row = None if self.current is None else self.model.row_of_label(self.current)
        with self._quietly():
            if row is None:
                self.table.setCurrentIndex(QModelIndex())
                self.table.clearSelection()
            elif self.table.currentIndex().row() != row or not self.table.selectionModel().hasSelection():
                self.table.selectRow(row)
        self.reopen_button.setEnabled(row is not None)
        self.delete_button.setEnabled(row is not None)

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
            self.go_to(self.model.label_at(now.row()))

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
        label = most_uncertain(self._objects, self._seen)
        if label is None:
            self._seen.clear()
            label = most_uncertain(self._objects)
        if label is not None:
            self.go_to(label)

    def _with_current(self, signal: Any) -> None:
        if self.current is not None:
            signal.emit(self.current)
