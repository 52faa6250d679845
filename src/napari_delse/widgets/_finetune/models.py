"""The tab "Models": which there are, where they come from, and what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QLineEdit,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_delse.widgets._finetune.curves import Pairs
from napari_delse.widgets._finetune.fields import Ink, reachable, words
from napari_delse.widgets._guide import sentence
from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from napari_delse.finetuning.model_store import ModelInfo

_COLUMNS = ("Name", "Before", "After", "Objects", "Date")
_FEWEST = 6  # rows that are shown where there is little room


class ModelsTab(QWidget):
    """The user's models.

    Attributes
    ----------
    listed : Signal of list of ModelInfo
        The models that there are now.
    wanted : Signal of str
        A model to work with.
    replaced : Signal of str, str
        A model that was renamed, with its new name, or deleted, with "".
    """

    listed = Signal(object)
    wanted = Signal(str)
    replaced = Signal(str, str)

    def __init__(self) -> None:
        super().__init__()
        self.runner = Runner("napari-delse-models")
        self.models: list[ModelInfo] = []
        self.table = self._make_table()
        self.about = words()
        self.about.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.use_button = reachable("Use", "Outline objects with this model from now on")
        self.compare_button = reachable(
            "Compare", "Score the selected models on the same held-out objects; select two or more with Ctrl or Shift"
        )
        self.rename_button = reachable("Rename ...", "Give this model another name")
        self.delete_button = reachable("Delete ...", "Remove this model from the disk")
        self.export_button = reachable("Export ...", "Write this model as one file, for another computer")
        self.import_button = reachable("Import ...", "Add a model from a file that Export wrote")
        self.question, self.name_edit = words(), QLineEdit()
        self.yes_button = reachable("Yes", "Do it")
        self.no_button = reachable("Cancel", "Leave everything as it is")
        self.box = QFrame(objectName="offer", visible=False)
        self.pairs = Pairs()
        self.pairs.hide()
        self._answer: Callable[[], object] = int
        self._dialog: QFileDialog | None = None
        self._lay_out()
        self._connect()

    def _make_table(self) -> QTreeWidget:
        table = QTreeWidget()
        table.setHeaderLabels(_COLUMNS)
        table.setRootIsDecorated(False)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setToolTip("Before and After: IoU of the parent and of the model on the held-out objects of its training")
        header = table.header()
        header.setStretchLastSection(False)
        header.setMinimumSectionSize(20)
        for column in range(len(_COLUMNS)):
            stretch = column == 0
            mode = QHeaderView.ResizeMode.Stretch if stretch else QHeaderView.ResizeMode.ResizeToContents
            header.setSectionResizeMode(column, mode)
        table.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        table.setMinimumHeight(_FEWEST * (table.fontMetrics().height() + 8))
        return table

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 8, 4)
        layout.addWidget(self.table, stretch=1)
        buttons = QGridLayout()
        for number, one in enumerate(
            (
                self.use_button,
                self.compare_button,
                self.rename_button,
                self.delete_button,
                self.export_button,
                self.import_button,
            )
        ):
            buttons.addWidget(one, number // 3, number % 3)
        layout.addLayout(buttons)
        inside, answers = QVBoxLayout(self.box), QHBoxLayout()
        inside.addWidget(self.question)
        inside.addWidget(self.name_edit)
        answers.addWidget(self.yes_button)
        answers.addWidget(self.no_button)
        inside.addLayout(answers)
        layout.addWidget(self.box)
        layout.addWidget(self.about)
        layout.addWidget(self.pairs)
        layout.addStretch()

    def _connect(self) -> None:
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.table.itemActivated.connect(lambda *_: self._use())
        self.use_button.clicked.connect(lambda: self._use())
        self.compare_button.clicked.connect(lambda: self._compare())
        self.rename_button.clicked.connect(lambda: self._ask_name())
        self.delete_button.clicked.connect(lambda: self._ask_delete())
        self.export_button.clicked.connect(lambda: self._ask_place())
        self.import_button.clicked.connect(lambda: self._ask_file())
        self.yes_button.clicked.connect(lambda: self._answer())
        self.name_edit.returnPressed.connect(lambda: self._answer())
        self.no_button.clicked.connect(self.box.hide)

    def use(self, ink: Ink) -> None:
        """Draw in these colours."""
        self.pairs.use(ink)

    # ---- the list

    def look(self, then: Callable[[], object] = int) -> None:
        """List the models anew."""

        def listed(models: list[ModelInfo]) -> None:
            self._show(models)
            then()

        self.runner.submit(_models, listed, self.say)

    def _show(self, models: list[ModelInfo]) -> None:
        chosen = set(self.selected)
        self.models = models
        blocked = self.table.blockSignals(True)
        self.table.clear()
        for info in models:
            item = QTreeWidgetItem(self.table, _row(info))
            font = item.font(0)
            font.setBold(info.current)
            for column in range(len(_COLUMNS)):
                item.setFont(column, font)
                if column:
                    item.setTextAlignment(column, int(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter))
            item.setToolTip(0, f"{info.name} (in use)" if info.current else info.name)
            item.setSelected(info.name in chosen)
        self.table.blockSignals(blocked)
        self._on_selected()
        self.listed.emit(models)

    @property
    def selected(self) -> list[str]:
        """Names of the selected models, in the order of the list."""
        rows = sorted(self.table.indexOfTopLevelItem(item) for item in self.table.selectedItems())
        return [self.models[row].name for row in rows if row < len(self.models)]

    def select(self, *names: str) -> None:
        """Select models by name."""
        for row, info in enumerate(self.models):
            self.table.topLevelItem(row).setSelected(info.name in names)

    def _info(self) -> ModelInfo | None:
        names = self.selected
        return next((info for info in self.models if [info.name] == names), None)

    def _on_selected(self) -> None:
        info, many = self._info(), self.selected
        own = info is not None and not info.packaged
        self.use_button.setEnabled(info is not None and not info.current and not info.problem)
        self.compare_button.setEnabled(len(many) > 1)
        self.rename_button.setEnabled(own)
        self.delete_button.setEnabled(own)
        self.export_button.setEnabled(info is not None and not info.problem)
        self.box.hide()
        self.pairs.hide()
        self.about.setText(about(info) if info is not None else _HINTS[min(len(many), 1)])

    # ---- doing

    def say(self, text: BaseException | str) -> None:
        """Tell what was done or went wrong, below the list."""
        self.about.setText(sentence(text))

    def _do(self, job: Callable[[], Any], then: Callable[[Any], object], doing: str = "") -> None:
        """Work off the GUI thread, and list the models anew after it."""
        self.box.hide()
        if doing:
            self.about.setText(doing)
        # Also what failed may have changed something.
        self.runner.submit(
            job, lambda answer: self.look(lambda: then(answer)), lambda error: self.look(lambda: self.say(error))
        )

    def _use(self) -> None:
        if (info := self._info()) is not None and self.use_button.isEnabled():
            self.wanted.emit(info.name)

    def _ask(self, question: str, name: str | None, answer: str, then: Callable[[], object]) -> None:
        self.question.setText(question)
        self.name_edit.setVisible(name is not None)
        self.name_edit.setText(name or "")
        self.yes_button.setText(answer)
        self._answer = then
        self.box.show()
        if name is not None:
            self.name_edit.setFocus()
            self.name_edit.selectAll()

    def _ask_name(self) -> None:
        if (info := self._info()) is None:
            return
        old = info.name

        def rename() -> None:
            new = self.name_edit.text().strip()

            def renamed(_: Any) -> None:
                self.select(new)
                self.say(f"'{old}' is called '{new}' now.")
                self.replaced.emit(old, new)

            self._do(partial(_rename, old, new), renamed)

        self._ask(f"Another name for '{old}'", old, "Rename", rename)

    def _ask_delete(self) -> None:
        if (info := self._info()) is None:
            return
        name = info.name

        def delete() -> None:
            def deleted(_: Any) -> None:
                self.say(f"'{name}' was deleted.")
                self.replaced.emit(name, "")

            self._do(partial(_delete, name), deleted)

        self._ask(f"Delete '{name}'? It cannot be brought back.", None, "Delete", delete)

    def _ask_place(self) -> None:
        if (info := self._info()) is None:
            return
        dialog = self._open_dialog("Export a model", QFileDialog.AcceptMode.AcceptSave)
        dialog.selectFile(f"{info.name}.delse.zip")
        dialog.fileSelected.connect(partial(self.export_to, info.name))
        dialog.show()

    def _ask_file(self) -> None:
        dialog = self._open_dialog("Import a model", QFileDialog.AcceptMode.AcceptOpen)
        dialog.setFileMode(QFileDialog.FileMode.ExistingFile)
        dialog.fileSelected.connect(self.import_from)
        dialog.show()

    def _open_dialog(self, title: str, mode: QFileDialog.AcceptMode) -> QFileDialog:
        dialog = QFileDialog(self, title)
        dialog.setAcceptMode(mode)
        dialog.setNameFilter("Models (*.zip)")
        dialog.setModal(False)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        return dialog

    def export_to(self, name: str, path: str) -> None:
        """Write a model as one file."""
        self._do(partial(_export, name, path), lambda place: self.say(f"'{name}' was written to {place}."))

    def import_from(self, path: str) -> None:
        """Add a model from a file."""

        def imported(name: str) -> None:
            self.select(name)
            self.say(f"'{name}' was added; Use takes it.")

        self._do(partial(_import, path), imported)

    def _compare(self) -> None:
        names = self.selected
        self._do(
            partial(_compare, names),
            partial(self._compared, names),
            "Scoring them on held-out objects, which takes a few seconds a model ...",
        )

    def _compared(self, names: Sequence[str], found: dict[str, Any]) -> None:
        self.select(*names)
        rows = found["models"]
        self.about.setText(compared(found))
        if len(rows) == 2:
            pairs = list(zip(rows[0]["iou"], rows[1]["iou"], strict=True))
            self.pairs.show_pairs(pairs, rows[0]["name"], rows[1]["name"])
            self.pairs.show()

    def close(self) -> bool:
        """Let no answer come any more."""
        self.runner.close()
        return True


_HINTS = (
    "Select a model to see where it comes from. The bold one is in use.",
    "Compare scores the selected models on the same held-out objects.",
)


# ---------------------------------------------------------------- words


def _row(info: ModelInfo) -> list[str]:
    scores, card = info.scores, info.card or {}
    shown = [f"{scores[k]['miou']:.3f}" if "miou" in scores.get(k, {}) else "" for k in ("before", "after")]
    objects = (card.get("data") or {}).get("objects", "") if isinstance(card.get("data"), dict) else ""
    date = str(card.get("date", ""))[:10] if "before" in scores else ""
    return [info.name, *shown, str(objects) if "before" in scores else "", date]


def about(info: ModelInfo) -> str:
    """What is known of a model, in sentences."""
    if info.problem:
        return f"'{info.name}' cannot be used: {info.problem}."
    card, scores = info.card or {}, info.scores
    said = [f"'{info.name}'" + (" is in use." if info.current else ".")]
    if info.packaged:
        said.append("It comes with the plugin.")
    if "before" in scores and "after" in scores:
        data = card.get("data", {})
        said.append(
            f"Fine-tuned from '{info.parent}' on {data.get('objects', '?')} objects of "
            f"{_source(data.get('source', {}))}; {scores['after'].get('objects', '?')} held-out ones: IoU "
            f"{scores['before']['miou']:.3f} before, {scores['after']['miou']:.3f} after; boundary F at 2 px "
            f"{scores['before']['f_2px']:.3f} before, {scores['after']['f_2px']:.3f} after."
        )
    elif "extreme_points" in scores and "miou" in scores["extreme_points"]:
        said.append(f"IoU {scores['extreme_points']['miou']:.3f} in its own test.")
    said.append(f"{info.parameters / 1e6:.1f} million parameters, {info.megabytes:.0f} MB.")
    return " ".join(said)


def _source(source: dict[str, Any]) -> str:
    place = source.get("name") or source.get("image") or source.get("images") or source.get("journal") or "?"
    return f"'{Path(place).name}'" if isinstance(place, str) else "several images"


def compared(found: dict[str, Any]) -> str:
    """A comparison in sentences."""
    first, *others = found["models"]
    count = first["objects"]
    where = f"On {count} held-out object{'s' * (count != 1)} of '{Path(found['job']).name}'"
    said = [f"{where}: '{first['name']}' IoU {first['miou']:.3f}, F {first['f_2px']:.3f}."]
    for row in others:
        gain = row["gain"]
        said.append(
            f"'{row['name']}' IoU {row['miou']:.3f}, F {row['f_2px']:.3f}: {100 * gain['mean']:+.1f} points on average "
            f"({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f}), {gain['improved']} better and "
            f"{gain['worsened']} worse."
        )
    return " ".join(said)


# ---------------------------------------------------------------- in the worker


def _models() -> list[ModelInfo]:
    from napari_delse.finetuning.model_store import describe_models

    return describe_models()


def _rename(old: str, new: str) -> None:
    from napari_delse.finetuning.model_store import rename_model

    rename_model(old, new)


def _delete(name: str) -> None:
    from napari_delse.finetuning.model_store import delete_model

    delete_model(name)


def _export(name: str, path: str) -> Path:
    from napari_delse.finetuning.model_store import export_model

    return export_model(name, path)


def _import(path: str) -> str:
    from napari_delse.finetuning.model_store import import_model

    return import_model(path)[0]


def _compare(names: Sequence[str]) -> dict[str, Any]:
    """On the held-out objects of the newest training that made one of the models, else of the newest of all."""
    from napari_delse.finetuning.jobs import list_jobs
    from napari_delse.finetuning.model_store import compare_models
    from napari_delse.finetuning.result import read_outcome

    jobs = [job for job in list_jobs() if (job.folder / "held_out.safetensors").is_file()]
    if not jobs:
        raise ValueError("models are compared on the held-out objects of a training, and there is none yet")
    made = {job.folder: outcome.model for job in jobs if (outcome := read_outcome(job.folder)) is not None}
    job = next((job for job in jobs if made.get(job.folder) in names), jobs[0])
    return compare_models(job.folder, names)
