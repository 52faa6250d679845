"""Sliders for T, dt, lambda, mu and the threshold, which stop where the evolution would diverge."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QGridLayout, QLabel, QSlider, QWidget

from napari_delse.evolution import MAX_MU_DT, MAX_TIME, EvolutionSettings, Setting
from napari_delse.widgets._fields import button, set_slider, slider

_THROTTLE = 30  # between changes while a slider moves: an answer is there by then, milliseconds
_CHANGED = "Settings changed: objects evolve otherwise than the model was trained."


class _Knob(NamedTuple):
    """A setting as a slider."""

    name: Setting
    text: str
    low: float
    high: float
    step: float
    form: str
    tip: str


_STABLE = (
    f"The evolution is explicit: it diverges where T · dt is above about {MAX_TIME:g}, λ · dt above 1 or μ · dt at "
    "0.25. The slider stops there; lower another one to go further. Specks around the contour are its beginning: "
    "lower dt, or T."
)
_KNOBS = (
    _Knob("steps", "T", 0, 20, 1, "{:.0f}", "How many steps phi takes. " + _STABLE),
    _Knob("dt", "dt", 0.05, 2, 0.05, "{:.2f}", "The time of one step. " + _STABLE),
    _Knob("curvature", "λ", 0, 2, 0.05, "{:.2f}", "How much curvature smooths the contour. " + _STABLE),
    _Knob("mu", "μ", 0, 0.5, 0.01, "{:.2f}", "How much phi is kept a signed distance. " + _STABLE),
    _Knob("threshold", "Threshold", -10, 10, 0.1, "{:.1f} px", "phi above this is inside; higher makes it smaller."),
)
_LIMITS: dict[Setting, str] = {
    "steps": f"T · dt may be {MAX_TIME:g}",
    "dt": f"T · dt may be {MAX_TIME:g}, λ · dt 1 and μ · dt {MAX_MU_DT:g}",
    "curvature": "λ · dt may be 1",
    "mu": f"μ · dt may be {MAX_MU_DT:g}",
}


class EvolutionKnobs(QWidget):
    """Shows settings and has them changed.

    Attributes
    ----------
    changed : Signal of EvolutionSettings or None
        The person wants these; None for the model's own. Not oftener than an answer takes.
    reset_button : QPushButton
        Brings the model's own back; to be placed by whoever shows these sliders.
    hint : QLabel
        Why a slider stopped, or that settings are changed; likewise.
    """

    changed = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self.sliders: dict[Setting, QSlider] = {}
        self.values: dict[Setting, QLabel] = {}
        self.settings: EvolutionSettings | None = None  # what is shown
        self._own: EvolutionSettings | None = None  # the model's
        self._evolves = False
        self._limit = ""  # why a slider stopped
        self.reset_button = button("Reset", "T, dt, λ, μ and threshold as the model was trained")
        self.reset_button.clicked.connect(lambda: self._want(self._own))
        self.hint = QLabel(wordWrap=True)
        self._throttle = QTimer(self, singleShot=True, interval=_THROTTLE)
        self._throttle.timeout.connect(self._tell)
        self._lay_out()
        self._show(None)

    def _lay_out(self) -> None:
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        for row, knob in enumerate(_KNOBS):
            name = QLabel(knob.text)
            bar = self.sliders[knob.name] = slider(knob.tip)
            bar.setRange(round(knob.low / knob.step), round(knob.high / knob.step))
            bar.valueChanged.connect(partial(self._on_knob, knob))
            value = self.values[knob.name] = QLabel(alignment=Qt.AlignmentFlag.AlignRight)
            value.setMinimumWidth(value.fontMetrics().horizontalAdvance("-10.0 px"))
            for label in (name, value):
                label.setToolTip(knob.tip)
            for column, part in enumerate((name, bar, value)):
                grid.addWidget(part, row, column)

    @property
    def is_turning(self) -> bool:
        """Whether a change is about to be told."""
        return bool(self._throttle.isActive())

    def stop(self) -> None:
        """Tell no change that was not told yet."""
        self._throttle.stop()

    def show_settings(
        self, settings: EvolutionSettings | None, own: EvolutionSettings | None, *, evolves: bool
    ) -> None:
        """Show what is in force, unless another change is about to be told.

        Parameters
        ----------
        settings : EvolutionSettings or None
            What is in force; None if there is nothing to set.
        own : EvolutionSettings or None
            The model's.
        evolves : bool
            Whether the model evolves at all; else there is a threshold only.
        """
        self._own, self._evolves = own, evolves
        if not self.is_turning:
            self._show(settings)

    def _show(self, settings: EvolutionSettings | None) -> None:
        is_own = settings is None or settings == self._own
        self.reset_button.setEnabled(not is_own)
        if settings != self.settings:
            self._limit = ""
        self.hint.setText(self._limit or ("" if is_own else _CHANGED))
        self.settings = settings
        for knob in _KNOBS:
            bar = self.sliders[knob.name]
            bar.setEnabled(settings is not None and (self._evolves or knob.name == "threshold"))
            if settings is None:
                self.values[knob.name].setText("")
                continue
            value = float(getattr(settings, knob.name))
            position = round(value / knob.step)
            set_slider(bar, position, min(bar.minimum(), position), max(bar.maximum(), position))
            self.values[knob.name].setText(knob.form.format(value))

    def _on_knob(self, knob: _Knob, position: int) -> None:
        """A slider was moved: as far as it may be."""
        if self.settings is None:
            return
        # Only what somebody set otherwise lies below the lower end.
        value = max(round(position * knob.step, 6), min(knob.low, float(getattr(self.settings, knob.name))))
        wanted = self.settings.turned(knob.name, value)
        self._want(wanted)
        if getattr(wanted, knob.name) < value:
            self._limit = f"{_LIMITS[knob.name]} at most: beyond that the evolution diverges."
            self.hint.setText(self._limit)

    def _want(self, settings: EvolutionSettings | None) -> None:
        self._show(settings)
        if not self._throttle.isActive():
            self._throttle.start()

    def _tell(self) -> None:
        self.changed.emit(None if self.settings == self._own else self.settings)
