"""The tab "Files" of the batch widget: which files, what they are prompted with, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import QModelIndex, Qt, Signal
from qtpy.QtWidgets import (
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QLineEdit,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_delse.stacks.batch_files import FORMATS, inputs_of, jobs_of
from napari_delse.stacks.batches import Job, Mode, Outcome, Progress
from napari_delse.widgets._batch.rows import RowsModel
from napari_delse.widgets._fields import button, choice, fill, row_table
from napari_delse.widgets._guide import sentence

_MODES: list[tuple[str, Mode]] = [
    ("Labelled planes, carried on", "propagate"),
    ("Labels of another tool, refined", "labels"),
    ("Tables of points (CSV)", "table"),
]
_TITLES = {"tiff": "TIFF", "ome-tiff": "OME-TIFF", "ome-zarr": "OME-Zarr"}


@dataclass(frozen=True)
class FileRow:
    """What is known of a file."""

    job: Job
    state: str = "waiting"
    objects: str = ""
    unsure: str = ""
    tip: str = ""


class FilesModel(RowsModel):
    """Files in their order."""

    rows: list[FileRow]
    headings = ("File", "State", "Objects", "Unsure")
    tips = (
        "The image; a double click opens it with its labels",
        "How far it is; what was done before is not done again",
        "Objects, counted in each plane",
        "Planes that somebody should look at",
    )

    def reset(self, jobs: list[Job]) -> None:
        """Show these files; what is known of one that was shown already stays."""
        known = {row.job: row for row in self.rows}
        rows = [known.get(job, FileRow(job)) for job in jobs]
        if rows != self.rows:
            self.beginResetModel()
            self.rows = rows
            self.endResetModel()

    def change(self, job: Job, **known: Any) -> None:
        """Something became of a file."""
        for number, row in enumerate(self.rows):
            if row.job == job:
                self.rows[number] = replace(row, **known)
                self.dataChanged.emit(self.index(number, 0), self.index(number, len(self.headings) - 1))

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        row = self.rows[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return (row.job.image.name, row.state, row.objects, row.unsure)[index.column()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return row.tip or f"{row.job.image} → {row.job.out}"
        if role == Qt.ItemDataRole.TextAlignmentRole and index.column() > 1:
            return int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        return None


class FilesPage(QWidget):
    """Fields for a run over files, and the table of them."""

    changed = Signal()
    opened = Signal(object)  # the Job whose result the person wants to see

    def __init__(self) -> None:
        super().__init__()
        self.images_edit = QLineEdit(placeholderText="folder, file or pattern such as data/*.tif")
        self.images_edit.setToolTip("Images: a folder, one file, or a pattern; TIFF, OME-Zarr, PNG and others")
        self.mode_box = choice("What tells where the objects are")
        self.prompts_edit = QLineEdit(placeholderText="folder, or one file for all images")
        self.prompts_edit.setToolTip("Labels or tables: a folder with files of the images' names, or one file for all")
        self.out_edit = QLineEdit(placeholderText="folder for the results")
        self.out_edit.setToolTip("Labels and a table of the objects are written here; finished ones are not made again")
        self.format_box = choice("What the labels are written as")
        fill(self.mode_box, _MODES, "propagate")
        fill(self.format_box, [("As the image", None), *((_TITLES[name], name) for name in FORMATS)], None)
        self.model = FilesModel(self)
        self.table = self._make_table()
        self.empty = QLabel("The files that are found are listed here, with what became of each.", wordWrap=True)
        self._lay_out()
        for edit in (self.images_edit, self.prompts_edit, self.out_edit):
            edit.textChanged.connect(lambda: self.changed.emit())
        for box in (self.mode_box, self.format_box):
            box.activated.connect(lambda: self.changed.emit())
        self.table.doubleClicked.connect(lambda index: self.opened.emit(self.model.rows[index.row()].job))

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        form.addRow("Images", self._with_browser(self.images_edit, "Choose the folder of the images"))
        form.addRow("From", self.mode_box)
        form.addRow("", self._with_browser(self.prompts_edit, "Choose the folder of the labels or tables"))
        form.addRow("Results", self._with_browser(self.out_edit, "Choose the folder of the results"))
        form.addRow("Format", self.format_box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 8, 4)
        layout.addLayout(form)
        layout.addWidget(self.empty)
        layout.addWidget(self.table, stretch=1)
        layout.addStretch()

    def _with_browser(self, edit: QLineEdit, tip: str) -> QHBoxLayout:
        row = QHBoxLayout()
        browse = button("...", tip)
        browse.setFixedWidth(28)
        browse.clicked.connect(lambda: self._browse(edit, tip))
        row.addWidget(edit, stretch=1)
        row.addWidget(browse)
        return row

    def _browse(self, edit: QLineEdit, title: str) -> None:
        dialog = QFileDialog(self, title, edit.text())
        dialog.setFileMode(QFileDialog.FileMode.Directory)
        dialog.setModal(False)
        dialog.fileSelected.connect(edit.setText)
        dialog.show()

    def _make_table(self) -> QTableView:
        table = row_table(self.model)
        columns = table.horizontalHeader()
        columns.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for column, width in ((1, 84), (2, 58), (3, 58)):
            columns.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            table.setColumnWidth(column, width)
        return table

    # ---- what is chosen

    @property
    def wish(self) -> FilesWish:
        """All of it."""
        return FilesWish(
            self.images_edit.text().strip(),
            self.mode_box.currentData(),
            self.prompts_edit.text().strip(),
            self.out_edit.text().strip(),
            self.format_box.currentData(),
        )

    def show_jobs(self, jobs: list[Job]) -> None:
        """List the files."""
        self.model.reset(jobs)
        self.table.setVisible(bool(jobs))
        self.empty.setVisible(not jobs)

    def show_step(self, step: Progress | Outcome) -> None:
        """Something became of a file."""
        if isinstance(step, Progress):
            self.model.change(step.job, state=f"{step.fraction:.0%}")
        elif step.error is not None:
            self.model.change(step.job, state="failed", tip=sentence(step.error))
        else:
            state = "done" if step.status == "done" else "was done"
            counts = (f"{step.objects:,}", f"{len(step.unsure):,}") if step.counted else ("", "")
            self.model.change(step.job, state=state, objects=counts[0], unsure=counts[1], tip="")

    def show_stopped(self) -> None:
        """What was begun and not finished goes on from there next time."""
        for row in list(self.model.rows):
            if row.state.endswith("%"):
                self.model.change(row.job, state=f"at {row.state}")


@dataclass(frozen=True)
class FilesWish:
    """What the person chose."""

    images: str
    mode: Mode
    prompts: str
    out: str
    format: str | None

    def jobs(self) -> list[Job]:
        """The files to be made.

        Raises
        ------
        ValueError, FileNotFoundError
            If something is missing, with the remedy.
        """
        if not self.images:
            raise ValueError("choose a folder with images, and what tells where the objects are")
        images = inputs_of([str(Path(self.images).expanduser())])
        if not self.prompts:
            what = "the tables of points" if self.mode == "table" else "the labels"
            raise ValueError(f"choose the folder or file of {what} for {len(images)} images")
        prompts = Path(self.prompts).expanduser()
        if not prompts.exists():
            raise FileNotFoundError(f"there is no {prompts}; choose the folder or file of the prompts")
        if not self.out:
            raise ValueError("choose a folder for the results")
        return jobs_of(images, self.mode, prompts, Path(self.out).expanduser(), self.format)


def told(jobs: list[Job]) -> str:
    """What a run over files will do."""
    many = "1 image" if len(jobs) == 1 else f"{len(jobs):,} images"
    what = {
        "propagate": "Objects of labelled planes will be carried through the other planes of",
        "labels": "Labels of another tool will be refined in",
        "table": "Objects will be outlined from tables of points in",
    }[jobs[0].mode]
    ready = sum(job.out.exists() for job in jobs)
    there = f" {ready} of them have a result already, which is looked at first." if ready else ""
    return f"{what} {many}.{there}"
