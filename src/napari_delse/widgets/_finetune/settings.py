"""The form of a training: how long, from which model, called what, and everything else folded away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from typing import Any, NamedTuple, get_type_hints

from magicgui.widgets import CheckBox, ComboBox, LineEdit
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QFormLayout, QLabel, QLineEdit, QToolButton, QVBoxLayout, QWidget

from napari_delse.settings import Setting, nested, notes, settings
from napari_delse.widgets._fields import DEVICES, choice, fill
from napari_delse.widgets._finetune.fields import reachable, row_name

_TIMES = ("minutes", "patience", "steps")  # settings that a preset decides
_OWN = "own (Advanced)"
_BAD = "border: 1px solid #ff5c5c;"


class _Field(NamedTuple):
    """A setting with the widget that shows it."""

    setting: Setting
    widget: Any

    def read(self) -> Any:
        """Its value; None for an empty text.

        Raises
        ------
        ValueError
            If the text is no number.
        """
        value, kind = self.widget.value, self.setting.kind
        if not isinstance(self.widget, LineEdit) or kind is str:
            return value
        text = str(value).strip()
        if kind is tuple:
            return tuple(text.replace(",", " ").split())
        if text.lower() in ("", "none"):
            return None
        try:
            return kind(text)
        except ValueError:
            wanted = "a whole number" if kind is int else "a number"
            raise ValueError(f"{self.setting.name!r} must be {wanted}, got {text!r}; correct it") from None

    def show(self, value: Any) -> None:
        """Show a value."""
        if not isinstance(self.widget, LineEdit):
            self.widget.value = value
        else:
            self.widget.value = _text(value)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _shown(cls: type) -> list[Setting]:
    """The settings of a class with a single value or several words."""
    plain, hints = {one.name: one for one in settings(cls)}, get_type_hints(cls)
    words = {f.name: Setting(f.name, tuple, (), f.default, notes(cls).get(f.name, "")) for f in fields(cls)}
    names = [f.name for f in fields(cls) if f.name in plain or hints[f.name] == tuple[str, ...]]
    return [plain.get(name, words[name]) for name in names]


def _widget(setting: Setting) -> Any:
    about = {"name": setting.name, "label": setting.name.replace("_", " "), "tooltip": setting.note}
    if setting.kind is bool:
        return CheckBox(value=bool(setting.default), **about, text="")
    if setting.choices:
        return ComboBox(choices=list(setting.choices), value=setting.default, **about)
    made = LineEdit(**about)
    made.native.setPlaceholderText("none")
    return made


class ConfigForm(QWidget):
    """A form of all documented settings of a settings class and of those inside it, made with magicgui.

    Parameters
    ----------
    cls : type
        The frozen dataclass.

    Attributes
    ----------
    changed : Signal
        Some value is different.
    """

    changed = Signal()

    def __init__(self, cls: type) -> None:
        super().__init__()
        self.fields: dict[str, _Field] = {}  # by name, "loss.final" for one inside another
        self._layout = QFormLayout(self)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._layout.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        self.device_box = choice("Where the training runs; automatic takes a GPU if there is one")
        fill(self.device_box, DEVICES, "auto")
        self._layout.addRow("device", self.device_box)
        self._waiting = [(cls, "", "")]
        self._waiting += [(inner, f"{f.name}.", f.name) for f in fields(cls) if (inner := nested(f)) is not None]
        self._later = QTimer(self, singleShot=True, interval=0)
        self._later.timeout.connect(self.build)
        self.build()

    def build(self) -> None:
        """Add the next group; one at a time, because a hundred widgets at once would be felt."""
        if not self._waiting:
            return
        cls, prefix, title = self._waiting.pop(0)
        made = {prefix + one.name: _Field(one, _widget(one)) for one in _shown(cls)}
        if title:
            self._layout.addRow(QLabel(f"<b>{title.capitalize()}</b>"))
        for one in made.values():
            label = QLabel(one.widget.label)
            label.setToolTip(one.setting.note)
            self._layout.addRow(label, one.widget.native)
        for field in made.values():
            field.show(field.setting.default)
            field.widget.changed.connect(self._on_changed)
        self.fields |= made
        self._later.start()

    def build_all(self) -> None:
        """Add all groups at once."""
        while self._waiting:
            self.build()

    def _on_changed(self) -> None:
        self.changed.emit()

    def show_values(self, values: Mapping[str, Any]) -> None:
        """Show values by name, the others stay; nobody is told."""
        blocked = self.blockSignals(True)
        for name, value in values.items():
            self.fields[name].show(value)
        self.blockSignals(blocked)

    def reset(self) -> None:
        """Show the defaults; nobody is told."""
        self.show_values({name: field.setting.default for name, field in self.fields.items()})
        fill(self.device_box, DEVICES, "auto")

    def values(self) -> dict[str, Any]:
        """What differs from the defaults, as `config_from_dict` reads it.

        Raises
        ------
        ValueError
            If something cannot be read; the message names it.
        """
        found: dict[str, Any] = {}
        for name, field in self.fields.items():
            value = field.read()
            if value != field.setting.default:
                group, _, inner = name.rpartition(".")
                (found.setdefault(group, {}) if group else found)[inner] = value
        return found

    def mark(self, problem: str) -> None:
        """Mark the fields that a message names, and no others."""
        for name, field in self.fields.items():
            is_named = f"'{name}'" in problem or name.rpartition(".")[2] in problem.split()
            field.widget.native.setStyleSheet(_BAD if is_named else "")


class TrainingForm(QWidget):
    """What a person decides about a training, without behaviour.

    Attributes
    ----------
    changed : Signal
        Something is different.
    """

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.time_box = choice("How long to train; Stop ends it earlier and keeps the best model so far")
        self.parent_box = choice("The model to begin with; it stays as it is")
        self.name_edit = QLineEdit()
        self.name_edit.setToolTip("What the new model is called; a number is added if there is one of that name")
        self.fold = QToolButton(text="Advanced", checkable=True)
        self.fold.setToolTip("Everything that can be set; the defaults were found by experiment")
        self.fold.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.fold.setArrowType(Qt.ArrowType.RightArrow)
        self.fold.setEnabled(False)
        self.reset_button = reachable("Defaults", "Set everything as it was in the beginning")
        self.inside = QWidget(visible=False)
        self.config: ConfigForm | None = None
        self._cls: type | None = None
        self._presets: Mapping[str, Mapping[str, Any]] = {}
        self._lay_out()
        self.time_box.activated.connect(lambda _: self._on_preset())
        self.parent_box.activated.connect(lambda _: self.changed.emit())
        self.name_edit.textChanged.connect(lambda _: self.changed.emit())
        self.fold.toggled.connect(self._on_fold)
        self.reset_button.clicked.connect(lambda: self._on_reset())

    def _lay_out(self) -> None:
        form = QFormLayout()
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for text, field in (("Time", self.time_box), ("Begin with", self.parent_box), ("Name", self.name_edit)):
            form.addRow(row_name(text, field), field)
        layout, self._inner = QVBoxLayout(self), QVBoxLayout(self.inside)
        layout.setContentsMargins(0, 0, 0, 0)
        self._inner.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(form)
        layout.addWidget(self.fold)
        layout.addWidget(self.inside)
        self._inner.addWidget(self.reset_button)

    def offer(self, cls: type, presets: Mapping[str, Mapping[str, Any]]) -> None:
        """Offer the settings of a class, once they are known."""
        self._cls, self._presets = cls, presets
        fill(self.time_box, [*((text, text) for text in presets), (_OWN, "")], next(iter(presets)))
        self.fold.setEnabled(True)
        self.changed.emit()

    def offer_models(self, names: Sequence[str], current: str) -> None:
        """Offer models to begin with; the chosen one stays, else it is the current one."""
        chosen = self.parent_box.currentData()
        fill(self.parent_box, [(name, name) for name in names], chosen if chosen in names else current)

    def suggest_name(self, name: str) -> None:
        """What the model will be called if nothing is written."""
        self.name_edit.setPlaceholderText(name)

    # ---- what is chosen

    @property
    def device(self) -> str:
        """Where to train."""
        return "auto" if self.config is None else str(self.config.device_box.currentData())

    def values(self) -> dict[str, Any]:
        """What differs from the defaults.

        Raises
        ------
        ValueError
            If something cannot be read.
        """
        preset = dict(self._presets.get(self.time_box.currentData(), {}))
        return {**({} if self.config is None else self.config.values()), **preset}

    def mark(self, problem: str) -> None:
        """Mark the fields that a message names."""
        if self.config is not None:
            self.config.mark(problem)

    # ---- folding and presets

    def _on_fold(self, is_open: bool) -> None:
        self.fold.setArrowType(Qt.ArrowType.DownArrow if is_open else Qt.ArrowType.RightArrow)
        if is_open and self.config is None and self._cls is not None:
            self.config = ConfigForm(self._cls)
            self._inner.addWidget(self.config)
            self._show_preset()
            self.config.changed.connect(self._on_config)
        self.inside.setVisible(is_open)

    def _show_preset(self) -> None:
        if self.config is not None and (preset := self._presets.get(self.time_box.currentData())) is not None:
            own = {name: self.config.fields[name].setting.default for name in _TIMES}
            self.config.show_values({**own, **preset})

    def _on_preset(self) -> None:
        if self.time_box.currentData() == "":
            self.fold.setChecked(True)
        self._show_preset()
        self.changed.emit()

    def _on_config(self) -> None:
        """Another time than that of the preset is the person's own."""
        preset = self._presets.get(self.time_box.currentData())
        if preset is not None and self.config is not None:
            shown = {name: self.config.fields[name] for name in _TIMES}
            with suppress(ValueError):  # what is no number is told elsewhere
                if any(f.read() != preset.get(name, f.setting.default) for name, f in shown.items()):
                    fill(self.time_box, [*((text, text) for text in self._presets), (_OWN, "")], "")
        self.changed.emit()

    def _on_reset(self) -> None:
        if self.config is not None:
            self.config.build_all()
            self.config.reset()
            fill(self.time_box, [*((text, text) for text in self._presets), (_OWN, "")], next(iter(self._presets)))
            self._show_preset()
            self.changed.emit()
