"""The tab "Layers" of the batch widget: what is to be done with which layers; fields without behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from napari.layers import Image, Labels, Points
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_delse.propagation.config import PropagationConfig
from napari_delse.widgets._batch.plan import Wish, axes_along
from napari_delse.widgets._fields import choice, fill, show_refused
from napari_delse.widgets._source import ImageSource, channel_axes

_TASKS = [
    ("Carry to other planes", "carry"),
    ("Refine other labels", "refine"),
    ("Outline from points", "points"),
]
_STARTS = [("All labelled planes", "labelled"), ("The shown plane", "shown"), ("These planes", "these")]


class LayersForm(QWidget):
    """What is to be done with which layers."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.task_box = choice("What to do on many planes")
        self.image_box = choice("The image whose planes are looked at")
        self.channel_box = choice("An axis that holds channels, if the image has one")
        self.coarse_box = choice("The labels of another tool; each object is outlined anew, under its label")
        self.points_box = choice("Extreme points: every four points are one object, on any plane")
        self.labels_box = choice("The labels layer that is read and written")
        self.along_box = choice("The axis along which planes follow each other")
        self.start_box = choice("The planes whose objects are carried; they are never changed")
        self.these_edit = QLineEdit(placeholderText="such as 0,10,20")
        self.these_edit.setToolTip("Numbers of the labelled planes, counted from 0")
        self.first_box, self.last_box = QSpinBox(), QSpinBox()
        self.protect_box = QCheckBox("Protect existing labels", checked=True)
        self.protect_box.setToolTip(
            "Pixels that have a label already are left alone; what an earlier run wrote gives way in any case"
        )
        self.unsure_box = QSpinBox(minimum=0, maximum=100, suffix=" %")
        self.unsure_box.setValue(round(100 * PropagationConfig().review_below))
        self.unsure_box.setToolTip("Objects that the model is less sure of are listed in the tab Review")
        self.model_box = choice("The model that outlines the objects")
        for box, tip in ((self.first_box, "first"), (self.last_box, "last")):
            box.setToolTip(f"The {tip} plane that is filled, counted from 0")
            box.setKeyboardTracking(False)
        fill(self.task_box, _TASKS, "carry")
        fill(self.start_box, _STARTS, "labelled")
        fill(self.model_box, [("default", "default")], "default")
        self._names: dict[QWidget, QLabel] = {}
        self._image: Image | None = None  # whose channels are offered
        self._offered = "carry"  # the task that labels are offered for
        self._count = -1  # planes of the range that is offered
        self._lay_out()
        self._connect()
        self.show_rows()

    def _lay_out(self) -> None:
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        self.range_row = QWidget()
        span = QHBoxLayout(self.range_row)
        span.setContentsMargins(0, 0, 0, 0)
        span.addWidget(self.first_box, stretch=1)
        span.addWidget(QLabel("to"))
        span.addWidget(self.last_box, stretch=1)
        for text, row in (
            ("Task", self.task_box),
            ("Image", self.image_box),
            ("Channel axis", self.channel_box),
            ("Refine", self.coarse_box),
            ("Points", self.points_box),
            ("Labels", self.labels_box),
            ("Along", self.along_box),
            ("From", self.start_box),
            ("", self.these_edit),
            ("Planes", self.range_row),
            ("Model", self.model_box),
            ("Unsure below", self.unsure_box),
        ):
            name = QLabel(text)
            name.setToolTip(row.toolTip())
            self._names[row] = name
            self.form.addRow(name, row)
        self.form.addRow(self.protect_box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 8, 4)
        layout.addLayout(self.form)
        layout.addStretch()

    def _connect(self) -> None:
        for box in (
            self.task_box,
            self.image_box,
            self.channel_box,
            self.coarse_box,
            self.points_box,
            self.labels_box,
            self.along_box,
            self.start_box,
            self.model_box,
        ):
            box.activated.connect(self._on_choice)
        self.these_edit.textChanged.connect(lambda: self.changed.emit())
        self.protect_box.toggled.connect(lambda: self.changed.emit())
        for spin in (self.first_box, self.last_box, self.unsure_box):
            spin.valueChanged.connect(lambda: self.changed.emit())

    def _on_choice(self) -> None:
        self.show_rows()
        self.changed.emit()

    def show_rows(self) -> None:
        """Show the fields that the task has, and hide the others."""
        task, start = self.task, self.start_box.currentData()
        self._show(self.coarse_box, visible=task == "refine")
        self._show(self.points_box, visible=task == "points")
        self._show(self.start_box, visible=task == "carry")
        self._show(self.these_edit, visible=task == "carry" and start == "these")
        self._show(self.channel_box, visible=self._may_have_channels())
        self._names[self.labels_box].setText("Labels" if task == "carry" else "Into")

    def _may_have_channels(self) -> bool:
        """Whether an axis could hold channels: a stack of three axes with names has none unless one says so."""
        image = self._image
        if self.channel_box.count() < 2 or image is None:
            return False
        names = [str(name).lower() for name in getattr(image, "axis_labels", ())]
        return image.ndim > 3 or any(name.startswith("c") for name in names)

    def _show(self, row: QWidget, *, visible: bool) -> None:
        row.setVisible(visible)
        self._names[row].setVisible(visible)

    # ---- what is chosen

    @property
    def task(self) -> str:
        """What is to be done."""
        return str(self.task_box.currentData())

    @property
    def model(self) -> tuple[str, str]:
        """Names of the model and the device."""
        return str(self.model_box.currentData()), "auto"

    @property
    def source(self) -> ImageSource | None:
        """The chosen image."""
        layer = self.image_box.currentData()
        if not isinstance(layer, Image) or layer.ndim < 2:
            return None
        axis = self.channel_box.currentData()
        return ImageSource(layer, axis if axis is not None and axis < layer.ndim and not layer.rgb else None)

    def wish(self) -> Wish:
        """All of it."""
        along = self.along_box.currentData()
        return Wish(
            task=self.task_box.currentData(),
            source=self.source,
            labels=self.labels_box.currentData(),
            coarse=self.coarse_box.currentData(),
            points=self.points_box.currentData(),
            along=along,
            start=self.start_box.currentData(),
            these=self.these_edit.text(),
            first=self.first_box.value(),
            last=self.last_box.value(),
            protect=self.protect_box.isChecked(),
            config=PropagationConfig(review_below=self.unsure_box.value() / 100),
        )

    # ---- what can be chosen

    def offer_images(self, layers: Sequence[Image], active: object) -> None:
        """Offer these images; the active one, or the last, if none of them was chosen yet."""
        chosen = self.image_box.currentData()
        if chosen not in layers:
            chosen = active if active in layers else (layers[-1] if layers else None)
        fill(self.image_box, [(layer.name, layer) for layer in layers], chosen)
        self._offer_channels(chosen if isinstance(chosen, Image) else None)

    def _offer_channels(self, image: Image | None) -> None:
        axes: list[tuple[str, int | None]] = [("None", None)]
        if image is not None:
            axes += [(name, axis) for name, axis in channel_axes(image) if axis < image.ndim - 2]
        chosen = self.channel_box.currentData() if image is self._image else None
        self._image = image
        fill(self.channel_box, axes, chosen)

    def offer_labels(self, fitting: Sequence[Labels], unfit: Mapping[str, str], active: object) -> None:
        """Offer labels of the image's shape; of others it is told why not."""
        new = [] if self.task == "carry" else [("New layer", None)]
        chosen = self.labels_box.currentData() if self.task == self._offered else None
        self._offered = self.task
        if self.task == "carry" and chosen not in fitting:
            chosen = active if active in fitting else (fitting[-1] if fitting else None)
        fill(self.labels_box, [*new, *((layer.name, layer) for layer in fitting)], chosen)
        coarse = self.coarse_box.currentData()
        if coarse not in fitting:
            coarse = active if active in fitting else (fitting[0] if fitting else None)
        fill(self.coarse_box, [(layer.name, layer) for layer in fitting], coarse)
        for name, why in unfit.items():
            show_refused(self.labels_box, name, why)

    def choose_labels(self, layer: Labels) -> None:
        """Choose labels that are offered."""
        self.labels_box.setCurrentIndex(self.labels_box.findData(layer))
        self._on_choice()

    def offer_points(self, layers: Iterable[Points]) -> None:
        """Offer these Points layers."""
        entries = [(layer.name, layer) for layer in layers]
        chosen = self.points_box.currentData()
        known = [layer for _, layer in entries]
        fill(self.points_box, entries, chosen if chosen in known else (known[-1] if known else None))

    def offer_axes(self, source: ImageSource | None) -> None:
        """Offer the axes with several planes, and all planes along the chosen one."""
        axes = [] if source is None else axes_along(source)
        chosen = self.along_box.currentData()
        numbers = [axis for _, axis in axes]
        chosen = chosen if chosen in numbers else (numbers[0] if numbers else None)
        shape = () if source is None else source.shape
        fill(self.along_box, [(f"{name} ({shape[axis]} planes)", axis) for name, axis in axes], chosen)
        self._offer_range(0 if chosen is None else shape[chosen])
        self.show_rows()

    def _offer_range(self, count: int) -> None:
        if count == self._count:
            return
        self._count = count
        for box, value in ((self.first_box, 0), (self.last_box, max(0, count - 1))):
            blocked = box.blockSignals(True)
            box.setRange(0, max(0, count - 1))
            box.setValue(value)
            box.blockSignals(blocked)

    def offer_models(self, names: Sequence[str]) -> None:
        """Offer these models, and keep the chosen one if it is among them."""
        chosen = self.model_box.currentData()
        offered = list(names) or ["default"]
        fill(self.model_box, [(name, name) for name in offered], chosen if chosen in offered else offered[0])


def entry(box: QComboBox, value: object) -> None:
    """Choose an entry as a person does."""
    for number in range(box.count()):
        if box.itemData(number) is value or box.itemData(number) == value:
            box.setCurrentIndex(number)
            box.activated.emit(number)
            return
    raise ValueError(f"{value!r} is not offered")
