"""A view into the evolution: phi_0 .. phi_T on a slider, the fields that move them, and settings to turn live."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_delse.annotation.evolution_view import EvolutionPicture, Evolved, picture_of
from napari_delse.evolution import EvolutionSettings
from napari_delse.widgets._annotate.evolution_knobs import EvolutionKnobs
from napari_delse.widgets._annotate.evolution_layers import CONTOUR, MODULATION, MOTION, PHI, EvolutionLayers
from napari_delse.widgets._fields import button, set_slider, slider
from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    import napari.viewer
    from qtpy.QtGui import QShowEvent

    from napari_delse.annotation.edits import PlaneKey
    from napari_delse.annotation.session import AnnotationSession
    from napari_delse.model import ModelConfig
    from napari_delse.widgets._source import ImageSource

_PLAYING = 1600  # the whole evolution takes as long, milliseconds
_SHOWN = (
    (CONTOUR, "Contour", True, "The sub-pixel contour of phi at the chosen step"),
    (MOTION, "Motion field V", True, "Where V pushes the contour, and how fast"),
    (MODULATION, "Modulation m", False, "Where curvature smooths the contour: dark nowhere, bright fully"),
    (PHI, "phi", False, "The level set function at the chosen step: red inside, white at the contour, blue outside"),
)


class EvolutionView(QWidget):
    """Shows how the preview came about, and has it evolve otherwise.

    Parameters
    ----------
    viewer : Viewer
        Where its layers are shown.

    Attributes
    ----------
    changed : Signal of EvolutionSettings or None
        The person wants objects to evolve like this; None for the model's own way.
    """

    changed = Signal(object)

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        super().__init__()
        self.viewer = viewer
        self.runner = Runner("napari-delse-evolution")
        self._layers: EvolutionLayers | None = None
        self._seen: tuple[Evolved | None, PlaneKey | None] = (None, None)
        self._picture: EvolutionPicture | None = None
        self._asked = self._answered = 0
        self._was_shown = False
        self._build()
        self._waiting: list[str] = []  # layers that are to be drawn
        self._drawer = QTimer(self, singleShot=True, interval=0)
        self._drawer.timeout.connect(self._draw_next)
        self._clock = QTimer(self)
        self._clock.timeout.connect(self._tick)

    # ---------------------------------------------------------------- how it looks

    def _build(self) -> None:
        self.switch = QCheckBox("Show the evolution")
        self.switch.setToolTip("How the level set function phi moved to this outline, and settings of the evolution")
        self.switch.toggled.connect(self._on_switch)
        self.body = QWidget(visible=False)
        layout, inside = QVBoxLayout(self), QVBoxLayout(self.body)
        layout.setContentsMargins(4, 8, 4, 4)
        inside.setContentsMargins(0, 0, 0, 0)
        self.knobs = EvolutionKnobs()
        self.knobs.changed.connect(self.changed)
        head = QHBoxLayout()
        head.addWidget(self.switch, 1)
        head.addWidget(self.knobs.reset_button)
        layout.addLayout(head)
        layout.addWidget(self.body)
        layout.addWidget(self.knobs.hint)  # also in sight while the rest is not
        layout.addStretch()
        inside.addLayout(self._film())
        inside.addLayout(self._boxes())
        inside.addWidget(self.knobs)

    def _film(self) -> QHBoxLayout:
        self.play_button = button("Play", "Watch the contour move from phi_0 to phi_T")
        self.play_button.clicked.connect(lambda: self.play())
        self.step_slider = slider("Which phi is shown")
        self.step_slider.valueChanged.connect(lambda _: self._on_step())
        self.step_text = QLabel()
        self.step_text.setMinimumWidth(self.step_text.fontMetrics().horizontalAdvance("phi 20 of 20"))
        row = QHBoxLayout()
        row.addWidget(self.play_button)
        row.addWidget(self.step_slider, 1)
        row.addWidget(self.step_text)
        return row

    def _boxes(self) -> QGridLayout:
        self.boxes: dict[str, QCheckBox] = {}
        grid = QGridLayout()
        for number, (name, text, checked, tip) in enumerate(_SHOWN):
            box = self.boxes[name] = QCheckBox(text, checked=checked)
            box.setToolTip(tip)
            box.toggled.connect(partial(self._on_box, name))
            grid.addWidget(box, number // 2, number % 2)
        return grid

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Who looks here for the first time wants to see it."""
        super().showEvent(event)
        if not self._was_shown:
            self._was_shown = True
            self.switch.setChecked(True)

    # ---------------------------------------------------------------- what the widget around it tells

    @property
    def is_on(self) -> bool:
        """Whether the evolution is shown."""
        return bool(self.switch.isChecked())

    @property
    def is_settled(self) -> bool:
        """Whether all that was asked for is shown."""
        is_late = self.is_on and self._answered != self._asked
        return not (is_late or self.knobs.is_turning or self._drawer.isActive())

    def follow(self, source: ImageSource | None, session: AnnotationSession | None, model: ModelConfig | None) -> None:
        """Show what the session shows now; cheap if that is nothing new."""
        if source is not (None if self._layers is None else self._layers.source):
            self.leave()
            self._layers = None if source is None else EvolutionLayers(self.viewer, source)
            self._draw()
        own = None if model is None else EvolutionSettings.of(model.evolution, model.threshold)
        chosen = None if session is None else (session.evolution or own)
        self.knobs.show_settings(chosen, own, evolves=model is not None and model.evolves)
        preview = None if session is None else session.preview
        prediction = getattr(preview, "prediction", None)
        if not hasattr(prediction, "states"):
            prediction = None
        if prediction is None and session is not None and session.is_waiting:
            return  # the answer is near
        seen = (prediction, None if session is None else session.draft.plane)
        if seen != self._seen:
            self._seen = seen
            self._ask()

    def leave(self) -> None:
        """Take everything out of the viewer, such as when another image is chosen."""
        self.knobs.stop()
        self._stop()
        self._drop_late()
        self._seen, self._picture = (None, None), None
        if self._layers is not None:
            self._layers.remove()
        self._layers = None

    def forget(self, layer: Any) -> None:
        """A layer was removed from the viewer; if it was one of these, its box brings it back."""
        name = None if self._layers is None else self._layers.forget(layer)
        if name is not None:
            self.boxes[name].setChecked(False)

    def move(self) -> None:
        """The image was scaled, moved or turned."""
        if self._layers is not None:
            self._layers.move()
            self._draw()

    def rescale(self) -> None:
        """The view was zoomed."""
        if self._layers is not None:
            self._layers.rescale(self._seen[1])

    # ---------------------------------------------------------------- showing

    def _on_switch(self, checked: bool) -> None:
        self.body.setVisible(checked)
        if checked:
            self._ask()
        else:
            self._stop()
            self._drop_late()
            self._picture = None
        self._draw()

    def _on_box(self, name: str, checked: bool) -> None:
        if self._layers is None or not self.is_on:
            return
        if not checked:  # and not removed, for which napari takes longer
            self._layers.hide(name, keep=False)
            return
        if name == PHI and self._picture is not None and not self._picture.phi:
            self._ask()
        self._draw(name)

    def _ask(self) -> None:
        """Have the picture of the prediction made; a late one is dropped."""
        self._asked += 1
        prediction, number = self._seen[0], self._asked
        if not self.is_on or self._layers is None:
            return
        if prediction is None:
            self._answered, self._picture = number, None
            self._stop()
            self._draw()
            return
        with_phi = self.boxes[PHI].isChecked()
        job = partial(picture_of, prediction, with_phi=with_phi, is_wanted=lambda: number == self._asked)
        self.runner.submit(job, partial(self._got, number), partial(self._failed, number))

    def _drop_late(self) -> None:
        """Whatever picture comes now is not wanted any more."""
        self._asked += 1
        self._answered = self._asked

    def _got(self, number: int, picture: EvolutionPicture | None) -> None:
        if number != self._asked or picture is None:
            return
        self._answered = number
        last = len(picture.contours) - 1
        at_end = self._picture is None or self.step == len(self._picture.contours) - 1
        self._picture = picture
        set_slider(self.step_slider, last if at_end else min(self.step, last), 0, last)
        self._draw()

    def _failed(self, number: int, error: Exception) -> None:
        if number == self._asked:
            self._answered, self._picture = number, None
            self._draw()
            self.knobs.hint.setText(f"The evolution cannot be shown: {error}")

    @property
    def step(self) -> int:
        """Which phi is shown."""
        return int(self.step_slider.value())

    def _draw(self, *names: str) -> None:
        """Bring layers in step, or all of them; one after the other, since napari takes a moment for each."""
        picture = self._picture
        last = -1 if picture is None else len(picture.contours) - 1
        for part in (self.play_button, self.step_slider):
            part.setEnabled(last > 0)
        self.step_text.setText("" if last < 0 else f"phi {min(self.step, last)} of {last}")
        if self._layers is None:
            return
        if picture is None:
            self._layers.hide_all()
        wanted = [name for name in (names or self.boxes) if self.boxes[name].isChecked()]
        self._waiting += [name for name in wanted if name not in self._waiting]
        self._drawer.start()

    def _draw_next(self) -> None:
        """Make a layer if it is missing, and draw it; or remove one if nothing is to be shown."""
        layers = self._layers
        if layers is None or not (self._waiting if self.is_on else layers.names):
            self._waiting.clear()
            return
        if self.is_on:
            name = self._waiting.pop(0)
            if self.boxes[name].isChecked():
                layers.make(name, self._seen[1])
                self._show(name, layers)
        else:
            layers.drop(layers.names[0])
        self._drawer.start()

    def _show(self, name: str, layers: EvolutionLayers) -> None:
        picture, (prediction, plane) = self._picture, self._seen
        if picture is None or prediction is None or plane is None:
            return
        step = min(self.step, len(picture.contours) - 1)
        if name == MOTION:
            layers.show_lines(name, plane, picture.arrows)
        elif name == CONTOUR:
            layers.show_lines(name, plane, picture.contours[step])
        elif name == MODULATION:
            layers.show_raster(name, plane, picture.modulation, (0.0, 1.0))
        elif picture.phi:
            reach, level = float(abs(prediction.states[0]).max()), prediction.threshold
            layers.show_raster(name, plane, picture.phi[step], (level - reach, level + reach))

    # ---------------------------------------------------------------- the film

    def _on_step(self) -> None:
        if not self._clock.isActive() or self.step_slider.isSliderDown():
            self._stop()
        self._draw(CONTOUR, PHI)

    def play(self) -> None:
        """Move the contour from phi_0 to phi_T, or stop it."""
        if self._clock.isActive():
            self._stop()
            return
        if self._picture is None or len(self._picture.contours) < 2:
            return
        self._clock.start(max(40, _PLAYING // len(self._picture.contours)))
        self.play_button.setText("Pause")
        if self.step == self.step_slider.maximum():
            self.step_slider.setValue(0)

    def _tick(self) -> None:
        if self.step >= self.step_slider.maximum():
            self._stop()
        else:
            self.step_slider.setValue(self.step + 1)

    def _stop(self) -> None:
        self._clock.stop()
        self.play_button.setText("Play")
