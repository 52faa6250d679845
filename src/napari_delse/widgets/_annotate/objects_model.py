"""The objects of a session as a table for Qt: sorted, and fast with thousands of them."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from napari_delse.annotation.actions import LabelledObject
from napari_delse.annotation.review import ObjectRow, row_of

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
    _Column("Class", "What kind of object it is", lambda row: row.class_name, lambda row: row.class_name),
)
PLANE, CLASS = 1, 5


class ObjectsModel(QAbstractTableModel):
    """Objects of a session in the order of one column; a change moves one row, however many there are."""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._rows: dict[int, ObjectRow] = {}
        self._keys: list[_Key] = []  # ascending, whichever way they are shown
        self._column, self._falling = 0, False
        self._named: Counter[str] = Counter()  # how many objects each class has

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
        if role == Qt.ItemDataRole.ToolTipRole and index.column() == CLASS:
            return _COLUMNS[CLASS].text(self._rows[self.label_at(index.row())])
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignHCenter if index.column() == CLASS else Qt.AlignmentFlag.AlignRight
            return int(side | Qt.AlignmentFlag.AlignVCenter)
        return None

    @property
    def classes(self) -> list[str]:
        """Names of the classes that objects have."""
        return sorted(name for name, count in self._named.items() if name and count)

    @property
    def rows(self) -> Collection[ObjectRow]:
        """What is shown, in no order."""
        return self._rows.values()

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

    def clear(self) -> None:
        """Show nothing."""
        self.beginResetModel()
        self._rows, self._keys, self._named = {}, [], Counter()
        self.endResetModel()

    def update_many(self, objects: Mapping[int, LabelledObject], labels: Iterable[int]) -> None:
        """As `update`, for so many labels that the list is better made anew than moved row by row."""
        self.beginResetModel()
        gone, made = set[int](), list[_Key]()
        for label in labels:
            if (old := self._rows.pop(label, None)) is not None:
                self._named[old.class_name] -= 1
                gone.add(label)
            if (one := objects.get(label)) is not None:
                self._rows[label] = new = row_of(one)
                self._named[new.class_name] += 1
                made.append(self._key(new))
        if gone:
            self._keys = [key for key in self._keys if key[1] not in gone]
        self._keys.extend(sorted(made))
        self._keys.sort()  # merges two sorted runs: linear
        self.endResetModel()

    def update(self, objects: Mapping[int, LabelledObject], labels: Iterable[int]) -> None:
        """These labels came, changed or went."""
        for label in labels:
            old, made = self._rows.get(label), objects.get(label)
            new = None if made is None else row_of(made)
            if old is not None and new is not None and self._key(old) == self._key(new):
                self._rows[label] = new
                self._named[old.class_name] -= 1
                self._named[new.class_name] += 1
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
        self._named[row.class_name] -= 1
        self.endRemoveRows()

    def _insert(self, row: ObjectRow) -> None:
        key = self._key(row)
        place = bisect_left(self._keys, key)
        shown = len(self._keys) - place if self._falling else place
        self.beginInsertRows(QModelIndex(), shown, shown)
        insort(self._keys, key)
        self._rows[row.label] = row
        self._named[row.class_name] += 1
        self.endInsertRows()
