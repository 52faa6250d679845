"""The tab "Review" of the batch widget: what somebody should look at, and why."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtWidgets import QHBoxLayout, QHeaderView, QLabel, QTableView, QVBoxLayout, QWidget

from napari_delse.annotation.carrying import PlaneLine
from napari_delse.propagation.planes import PropagatedPlane
from napari_delse.widgets._batch.rows import RowsModel
from napari_delse.widgets._fields import button, icon_button, row_table

NOTHING = "Nothing to look at yet.\n\nObjects that the model is unsure of are listed here while they are made."
ELSEWHERE = "Nothing to look at along these planes.\n\nMove the sliders, or choose the axis, to where runs were."


class Doubt(NamedTuple):
    """An object in a plane that somebody should look at."""

    place: int
    label: int
    confidence: float
    why: str
    run: str
    line: PlaneLine  # along which the place is counted


def doubts_of(plane: PropagatedPlane, run: str, line: PlaneLine) -> list[Doubt]:
    """What is in doubt in a plane."""
    return [Doubt(plane.index, one.label, one.confidence, _reason(one.review), run, line) for one in plane.review]


def _reason(text: str) -> str:
    """A reason as it is shown; the confidence has a column of its own."""
    return "unsure" if text.startswith("confidence") else text


class DoubtsModel(RowsModel):
    """Doubts by plane and object."""

    rows: list[Doubt]
    headings = ("Plane", "Object", "Sure", "Why")
    tips = (
        "Counted from 0 along the axis of the run",
        "Value in the labels",
        "How sure the model is",
        "What is in doubt",
    )

    def show(self, rows: Iterable[Doubt]) -> None:
        """Show these."""
        self.beginResetModel()
        self.rows = list(rows)
        self.endResetModel()

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return (str(row.place), str(row.label), f"{row.confidence:.0%}", row.why)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return f"Object {row.label} on plane {row.place}: {row.why}, {row.confidence:.0%} sure. A click goes there"
        if role == Qt.ItemDataRole.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignLeft if index.column() == 3 else Qt.AlignmentFlag.AlignRight
            return int(side | Qt.AlignmentFlag.AlignVCenter)
        return None


class ReviewPage(QWidget):
    """The list of doubts, and its buttons."""

    chosen = Signal(object)  # the `Doubt` that the person wants to see

    def __init__(self) -> None:
        super().__init__()
        self.model = DoubtsModel(self)
        self.heading = QLabel(NOTHING, wordWrap=True)
        self.table = self._make_table()
        self.previous_button = icon_button("left_arrow", "‹", "The doubt before (Shift+K)")
        self.next_button = icon_button("right_arrow", "›", "The next doubt (Shift+J)")
        self.again_button = button(
            "Carry on from here",
            "After you corrected the shown plane: it becomes a key plane, and only the planes that depend on it are "
            "made anew",
        )
        self._all: list[Doubt] = []
        self._nothing = NOTHING
        self._made: dict[tuple[PlaneLine, int], list[str]] = {}  # runs that made each plane, in their order
        going = QHBoxLayout()
        for one in (self.previous_button, self.next_button):
            one.setFixedWidth(36)
            going.addWidget(one)
        going.addWidget(self.again_button, stretch=1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 8, 4)
        layout.addWidget(self.heading)
        layout.addWidget(self.table, stretch=1)
        layout.addLayout(going)
        self.table.clicked.connect(lambda index: self._go_to(index.row()))
        self.previous_button.clicked.connect(lambda: self.step(-1))
        self.next_button.clicked.connect(lambda: self.step(1))
        self._show()

    def _make_table(self) -> QTableView:
        table = row_table(self.model)
        columns = table.horizontalHeader()
        for column in range(3):
            columns.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            table.setColumnWidth(column, 54)
        columns.setSectionResizeMode(3, QHeaderView.ResizeMode.Stretch)
        return table

    # ---- what is shown

    @property
    def count(self) -> int:
        """How many doubts are shown."""
        return len(self.model.rows)

    def add(self, line: PlaneLine, place: int, run: str, doubts: Iterable[Doubt]) -> None:
        """What is in doubt in a plane that a run made."""
        self._all += doubts
        self._made.setdefault((line, place), []).append(run)

    def count_of(self, run: str) -> int:
        """How many doubts a run left, shown or not yet."""
        return sum(one.run == run for one in self._all)

    def show_runs(self, line: PlaneLine | None, standing: frozenset[str], corrected: frozenset[int]) -> None:
        """Show the doubts of the last run that stands on each plane of a line, but for planes somebody corrected."""
        last = {
            place: next((run for run in reversed(runs) if run in standing), "")
            for (at, place), runs in self._made.items()
            if at == line
        }
        here = [one for one in self._all if one.line == line and last[one.place] == one.run]
        rows = sorted((one for one in here if one.place not in corrected), key=lambda one: one[:-1])
        nothing = ELSEWHERE if self._made and not last else NOTHING
        if (rows, nothing) != (self.model.rows, self._nothing):
            self._nothing = nothing
            self._show(rows)

    def _show(self, rows: Iterable[Doubt] = ()) -> None:
        kept = self._current()
        self.model.show(rows)
        if kept in self.model.rows:
            self.table.selectRow(self.model.rows.index(kept))
        count = len(self.model.rows)
        planes = len({row.place for row in self.model.rows})
        many = f"{count} object" if count == 1 else f"{count} objects"
        on = "1 plane" if planes == 1 else f"{planes} planes"
        self.heading.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.heading.setText(f"{many} on {on} to look at" if count else self._nothing)
        self.table.setVisible(bool(count))
        for one in (self.previous_button, self.next_button):
            one.setEnabled(bool(count))

    def _current(self) -> Doubt | None:
        index = self.table.currentIndex()
        return self.model.rows[index.row()] if index.isValid() and index.row() < len(self.model.rows) else None

    # ---- what the person wants

    def _go_to(self, row: int) -> None:
        self.chosen.emit(self.model.rows[row])

    def step(self, step: int) -> None:
        """The doubt some rows further; round the end."""
        if count := len(self.model.rows):
            index = self.table.currentIndex()
            row = (index.row() + step) % count if index.isValid() else (0 if step > 0 else count - 1)
            self.table.selectRow(row)
            self._go_to(row)
