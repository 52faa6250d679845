"""The tab "Settings": which image, labels and model, and how objects are written."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from napari.layers import Image, Labels
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFormLayout, QLabel, QLineEdit, QSpinBox, QVBoxLayout, QWidget

from napari_delse.annotation.policy import LabelPolicy
from napari_delse.widgets._fields import DEVICES, choice, fill, show_refused
from napari_delse.widgets._source import channel_axes, channel_numbers

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from napari_delse.widgets._source import ImageSource

_NONE: dict[str, str] = {}
_Channels = tuple[int | None, tuple[int, ...]]  # axis, and channels of it


class SettingsTab(QWidget):
    """Fields with the choices for the work, without behaviour."""

    def __init__(self) -> None:
        super().__init__()
        self.image_box = choice("The image whose objects are outlined")
        self.channel_box = choice("An axis that holds channels, if the image has one")
        self.channels_edit = QLineEdit(placeholderText="first three, such as 0,1,2")
        self.channels_edit.setToolTip("Up to three channels to look at, counted from 0 and separated by commas")
        self.labels_box = choice("The labels layer that accepted objects are written to")
        self.model_box = choice("The model that outlines the objects")
        self.device_box = choice("Where the model runs; automatic takes a GPU if there is one")
        self.protect_box = QCheckBox("Protect existing labels", checked=True)
        self.protect_box.setToolTip("Accepted objects leave pixels alone that have a label already")
        self.fill_box = QCheckBox("Fill holes")
        self.fill_box.setToolTip("Holes of accepted objects are filled; other labels inside them stay")
        self.part_box = QSpinBox(minimum=0, maximum=1_000_000, suffix=" px")
        self.part_box.setKeyboardTracking(False)
        self.part_box.setToolTip(
            "Unconnected parts of an object with fewer pixels are left out; its largest part always stays. 0 keeps all"
        )
        self._image: Image | None = None  # whose channels are offered
        self._worked_with: WeakKeyDictionary[Image, _Channels] = WeakKeyDictionary()  # the last ones of each image
        fill(self.model_box, [("default", "default")], "default")
        fill(self.device_box, DEVICES, "auto")
        self._lay_out()

    def _lay_out(self) -> None:
        self.form = QFormLayout()
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.form.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        for text, field in (
            ("Image", self.image_box),
            ("Channel axis", self.channel_box),
            ("Channels", self.channels_edit),
            ("Labels", self.labels_box),
            ("Model", self.model_box),
            ("Device", self.device_box),
        ):
            self._add(text, field)
        self.form.addRow(QLabel("<b>When an object is accepted</b>"))
        self.form.addRow(self.protect_box)
        self.form.addRow(self.fill_box)
        self._add("Drop parts below", self.part_box)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 8, 8, 4)
        layout.addLayout(self.form)
        layout.addStretch()

    def _add(self, text: str, field: QWidget) -> None:
        name = QLabel(text)
        name.setToolTip(field.toolTip())
        self.form.addRow(name, field)

    def show_row(self, field: QWidget, *, visible: bool) -> None:
        """Show or hide a field with its name."""
        field.setVisible(visible)
        if (name := self.form.labelForField(field)) is not None:
            name.setVisible(visible)

    # ---- what is chosen

    def offer_layers(
        self,
        images: Iterable[Image],
        labels: Iterable[Labels],
        source: ImageSource | None,
        chosen: Labels | None,
        unfit: Mapping[str, str] = _NONE,
    ) -> None:
        """Offer these layers, with the present ones chosen; labels that do not fit are shown with the reason only."""
        image = None if source is None else source.layer
        fill(self.image_box, [(layer.name, layer) for layer in images], image)
        fill(self.labels_box, [*((layer.name, layer) for layer in labels), ("New layer", None)], chosen)
        for name, why in unfit.items():
            show_refused(self.labels_box, name, why)
        channel = None if source is None else source.channel_axis
        if source is not None:
            self._worked_with[source.layer] = source.channel_axis, source.channels
        if image is not self._image:
            self._image = image
            self.channels_edit.setText("" if source is None else ",".join(map(str, source.channels)))
        axes: list[tuple[str, int | None]] = [("None", None), *([] if image is None else channel_axes(image))]
        fill(self.channel_box, axes, channel)
        self.show_row(self.channel_box, visible=len(axes) > 1)
        self.show_row(self.channels_edit, visible=channel is not None)

    def offer_models(self, names: list[str], wanted: str = "") -> None:
        """Offer these models, with the wanted one or else the one chosen before, if it is among them."""
        names = names or ["default"]
        chosen = wanted or self.model_box.currentData()
        fill(self.model_box, [(name, name) for name in names], chosen if chosen in names else names[0])

    def chosen_channels(self, layer: Image) -> _Channels:
        """The channel axis and the channels chosen for an image; those it had before if others' are offered now.

        Raises
        ------
        ValueError
            If the channels are no numbers.
        """
        if layer is not self._image:
            return self._worked_with.get(layer, (None, ()))
        axis = self.channel_box.currentData()
        return axis, channel_numbers(self.channels_edit.text()) if axis is not None else ()

    def show_policy(self, policy: LabelPolicy) -> None:
        """Show how objects are written, without telling anybody."""
        for field in (self.protect_box, self.fill_box, self.part_box):
            field.blockSignals(True)
        self.protect_box.setChecked(policy.protect)
        self.fill_box.setChecked(policy.fill_holes)
        self.part_box.setValue(policy.min_part)
        for field in (self.protect_box, self.fill_box, self.part_box):
            field.blockSignals(False)

    @property
    def policy(self) -> LabelPolicy:
        """How objects are to be written."""
        return LabelPolicy(
            protect=self.protect_box.isChecked(),
            fill_holes=self.fill_box.isChecked(),
            min_part=self.part_box.value(),
        )
