"""The form that says what to learn from: layers of the viewer, files, or an annotation journal."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image, Labels
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QFileDialog, QFormLayout, QHBoxLayout, QLineEdit, QMenu, QWidget

from napari_delse.widgets._fields import choice, fill
from napari_delse.widgets._finetune.fields import reachable, row_name
from napari_delse.widgets._layers import MINE, is_picture
from napari_delse.widgets._source import ImageSource, channel_axes, channel_numbers

if TYPE_CHECKING:
    from napari.components import ViewerModel

    from napari_delse.finetuning.labelled_sources import Source

NO_IMAGE = "Open an image first: drop a file onto the window, or take File > Open Sample > DELSE."
NO_LABELS = (
    "Label five objects first, better ten: with the widget Annotate (DELSE), or open a labels layer. An image that "
    "holds labels becomes one by a right click on it, Convert to Labels."
)
_KINDS = (("Viewer layers", "layers"), ("Files or folders", "files"), ("Annotation journal", "journal"))


class SourceForm(QWidget):
    """Where the labelled objects are.

    Parameters
    ----------
    viewer : ViewerModel
        Whose layers are offered.

    Attributes
    ----------
    changed : Signal
        Something else is chosen.
    """

    changed = Signal()

    def __init__(self, viewer: ViewerModel) -> None:
        super().__init__()
        self._viewer = viewer
        self.picked = False  # whether the person chose the layers
        self.kind_box = choice("Where the labelled objects come from")
        fill(self.kind_box, _KINDS, "layers")
        self.image_box = choice("The image that was labelled")
        self.channel_box = choice("An axis that holds channels, if the image has one")
        self.channels_edit = QLineEdit(placeholderText="first three, such as 0,1,2")
        self.channels_edit.setToolTip("Up to three channels to look at, counted from 0 and separated by commas")
        self.labels_box = choice("The labels layer with the objects to learn from")
        self.images_edit, images = self._place("Images: a file, an OME-Zarr folder, or a folder of images")
        self.truths_edit, truths = self._place("Labels: a file, an OME-Zarr folder, or a folder with the same names")
        self.journal_edit, journal = self._place("A journal that Annotate (DELSE) wrote", folders=False)
        self.begun_edit, begun = self._place(
            "Labels that were there before the journal began: a file or OME-Zarr folder"
        )
        self.begun_edit.setPlaceholderText("before it, if any")
        self._rows = {
            "image": ("Image", self.image_box),
            "axis": ("Channel axis", self.channel_box),
            "labels": ("Labels", self.labels_box),
            "images": ("Images", images),
            "truths": ("Labels", truths),
            "journal": ("Journal", journal),
            "begun": ("Labels", begun),
            "channels": ("Channels", self.channels_edit),
        }
        self._lay_out()
        self._connect()

    def _lay_out(self) -> None:
        self.form = QFormLayout(self)
        self.form.setContentsMargins(0, 0, 0, 0)
        self.form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, field in (("Learn from", self.kind_box), *self._rows.values()):
            self.form.addRow(row_name(text, field), field)
        self._show_rows()

    def _connect(self) -> None:
        self.kind_box.activated.connect(lambda _: self._on_changed())
        for box in (self.image_box, self.labels_box):
            box.activated.connect(lambda _: self._on_picked())
        self.channel_box.activated.connect(lambda _: self._on_changed())
        for edit in (self.channels_edit, self.images_edit, self.truths_edit, self.journal_edit, self.begun_edit):
            edit.textChanged.connect(lambda _: self.changed.emit())

    def _place(self, tip: str, *, folders: bool = True) -> tuple[QLineEdit, QWidget]:
        """A field for a path with a button that chooses it."""
        edit, row = QLineEdit(), QWidget()
        edit.setToolTip(tip)
        row.setToolTip(tip)
        browse = reachable("...", "Choose it")
        browse.setFixedWidth(28)
        line = QHBoxLayout(row)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(edit, stretch=1)
        line.addWidget(browse)
        menu = QMenu(browse)
        menu.addAction("File ...", lambda: self._browse(edit, QFileDialog.FileMode.ExistingFile))
        if folders:
            menu.addAction("Folder ...", lambda: self._browse(edit, QFileDialog.FileMode.Directory))
            browse.clicked.connect(lambda: menu.popup(browse.mapToGlobal(browse.rect().bottomLeft())))
        else:
            browse.clicked.connect(lambda: self._browse(edit, QFileDialog.FileMode.ExistingFile))
        return edit, row

    def _browse(self, edit: QLineEdit, mode: QFileDialog.FileMode) -> None:
        dialog = QFileDialog(self, "Labelled images")
        dialog.setFileMode(mode)
        dialog.setModal(False)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(edit.setText)
        if edit.text().strip():
            dialog.setDirectory(str(Path(edit.text().strip()).parent))
        dialog.show()

    # ---- what is offered

    def offer_layers(self, annotated: ImageSource | None, labels: Labels | None) -> None:
        """Offer the layers there are now; by default those that are annotated, or that fit each other."""
        layers = list(self._viewer.layers)
        images = [layer for layer in layers if is_picture(layer)]
        truths = [x for x in layers if isinstance(x, Labels) and x.metadata.get(MINE) != "preview"]
        image, truth = self.image_box.currentData(), self.labels_box.currentData()
        keeps = self.picked and image in images and truth in truths
        if not keeps:
            self.picked = False
            image = annotated.layer if annotated is not None else image if image in images else _last(images)
            fitting = [x for x in truths if image is not None and _fits(image, x)]
            truth = labels if labels in truths else truth if truth in fitting else _last(fitting) or _last(truths)
        fill(self.image_box, [(x.name, x) for x in images], image)
        fill(self.labels_box, [(x.name, x) for x in truths], truth)
        if annotated is not None and image is annotated.layer and not keeps:
            fill(self.channel_box, _axes(image), annotated.channel_axis)
            self.channels_edit.setText(",".join(map(str, annotated.channels)))
        self._show_rows()

    def _on_picked(self) -> None:
        self.picked = True
        self._on_changed()

    def _on_changed(self) -> None:
        self._show_rows()
        self.changed.emit()

    def _show_rows(self) -> None:
        kind, image = self.kind, self.image_box.currentData()
        axes = [("None", None)] if image is None else _axes(image)
        if [self.channel_box.itemText(i) for i in range(self.channel_box.count())] != [text for text, _ in axes]:
            fill(self.channel_box, axes, None)
        of_layers = {"image", *(["axis"] if len(axes) > 1 else [])}
        if self.channel_box.currentData() is not None:
            of_layers.add("channels")
        shown = {
            "layers": of_layers | {"labels"},
            "files": {"images", "truths", "channels"},
            "journal": of_layers | {"journal", "begun"},
        }[kind]
        for name, (_, field) in self._rows.items():
            field.setVisible(name in shown)
            self.form.labelForField(field).setVisible(name in shown)

    # ---- what is chosen

    @property
    def kind(self) -> str:
        """layers, files or journal."""
        return str(self.kind_box.currentData())

    @property
    def labels(self) -> Labels | None:
        """The labels layer to learn from, if that is what is chosen."""
        return self.labels_box.currentData() if self.kind == "layers" else None

    def release(self) -> None:
        """Hold no layer any more: Qt would as long as the form lives."""
        for box in (self.image_box, self.labels_box):
            fill(box, [], None)

    def chosen(self) -> Callable[[], Source]:
        """What makes the source; to be called in a worker.

        Raises
        ------
        ValueError
            If something is missing; the message says what to do.
        """
        if self.kind == "files":
            images, truths = self.images_edit.text().strip(), self.truths_edit.text().strip()
            if not images or not truths:
                raise ValueError("Choose the images, and the labels that belong to them.")
            return partial(_files, images, truths, channel_numbers(self.channels_edit.text()))
        image = self._image()
        if self.kind == "journal":
            if not (path := self.journal_edit.text().strip()):
                raise ValueError("Choose a journal of annotations, and the image that it belongs to.")
            return partial(_journal, path, image, self.begun_edit.text().strip())
        labels = self.labels_box.currentData()
        if labels is None:
            raise ValueError(NO_LABELS)
        data = labels.data[0] if labels.multiscale else labels.data
        return partial(_layers, image, data, shown_axes(self._viewer, len(data.shape)))

    def _image(self) -> ImageSource:
        layer = self.image_box.currentData()
        if layer is None:
            raise ValueError(NO_IMAGE)
        axis = self.channel_box.currentData()
        return ImageSource(layer, axis, () if axis is None else channel_numbers(self.channels_edit.text()))


def _last(layers: list[Any]) -> Any:
    return layers[-1] if layers else None


def _axes(image: Image) -> list[tuple[str, int | None]]:
    return [("None", None), *channel_axes(image)]


def _fits(image: Image, labels: Labels) -> bool:
    """Whether the planes are of one size."""
    shapes = [tuple((x.data[0] if x.multiscale else x.data).shape) for x in (image, labels)]
    shown, own = shapes[0][: image.ndim], shapes[1]
    one_per_channel = len(shown) == len(own) and [b for a, b in zip(shown, own, strict=True) if a != b] == [1]
    return shown[-2:] == own[-2:] or one_per_channel


def shown_axes(viewer: ViewerModel, ndim: int) -> tuple[int, int]:
    """Which axes of an array of layers are y and x, as the viewer shows them."""
    offset = viewer.dims.ndim - ndim
    first, second = sorted(axis - offset for axis in viewer.dims.order[-2:])
    return (first, second) if first >= 0 else (ndim - 2, ndim - 1)


def _layers(image: ImageSource, labels: Any, axes: tuple[int, int]) -> Source:
    from napari_delse.finetuning.labelled_sources import ArraySource

    layer = image.layer
    return ArraySource(
        image.data, labels, layer.name, axes, -1 if layer.rgb else image.channel_axis, image.channels, bool(layer.rgb)
    )


def _journal(path: str, image: ImageSource, begun: str) -> Source:
    from napari_delse.data.files import open_image
    from napari_delse.finetuning.labelled_sources import JournalSource

    rgb, labels = bool(image.layer.rgb), None
    if begun:
        with open_image(Path(begun).expanduser()) as opened:
            labels = opened.read()
    return JournalSource(path, image.data, labels, -1 if rgb else image.channel_axis, image.channels, rgb)


def _files(images: str, labels: str, channels: tuple[int, ...]) -> Source:
    from napari_delse.finetuning.labelled_sources import FileSource

    return FileSource(Path(images).expanduser(), Path(labels).expanduser(), channels=channels)
