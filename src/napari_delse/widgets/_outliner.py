"""The predictor in its worker: loaded there, asked there, its answers brought back to the GUI thread."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from napari_delse._giving_up import GivenUpError, only_while
from napari_delse.annotation.replay import predict_draft
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask
from napari_delse.widgets._run import Runner

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    import numpy.typing as npt

    from napari_delse.annotation.session import AnnotationSession, Request
    from napari_delse.data.images import Plane
    from napari_delse.evolution import EvolutionConfig


class PredictorLike(Protocol):
    """What is needed of a `predict.Predictor`."""

    def segment(
        self, image: Plane, prompt: ExtremePoints, corrections: Sequence[Correction] = (), *, known: Any = None
    ) -> Any:
        """Segment one object."""
        ...

    def evolve(self, prediction: Any, evolution: EvolutionConfig, threshold: float, /) -> Any:
        """Evolve its fields otherwise; asked of models that have a `config` only."""
        ...


@dataclass(frozen=True, eq=False)
class Outlined:
    """A prediction with all that is shown of it at once, so that the GUI thread computes nothing then."""

    prediction: Any
    mask: ObjectMask
    confidence: float

    @cached_property
    def contours(self) -> list[npt.NDArray[np.float64]]:
        """Sub-pixel contour lines: for the next pull, whose beginning is late enough to find them."""
        lines: list[npt.NDArray[np.float64]] = self.prediction.contours()
        return lines


def load_predictor(model: str, device: str) -> PredictorLike:
    """The real predictor, ready to answer fast; imports torch."""
    from napari_delse.predict import Predictor

    # Threads that wait for each other stall for seconds where another program runs on one of their cores, and with
    # two cores a second thread gained nothing on a quiet machine either: one core is left to the window.
    threads = max(1, (os.cpu_count() or 2) - 1)
    predictor = Predictor.load(model, device=device, threads=threads)
    predictor.warm_up()
    return predictor


def model_names() -> list[str]:
    """Models to choose from; imports torch."""
    from napari_delse.checkpoint import available_models

    return list(available_models())


class Outliner:
    """Outlines objects off the GUI thread.

    Parameters
    ----------
    load : callable
        Makes the predictor from the names of a model and a device.
    on_ready : callable
        Called when a predictor was loaded.
    on_trouble : callable
        Called with the error when one could not be loaded.
    """

    def __init__(
        self,
        load: Callable[[str, str], PredictorLike],
        on_ready: Callable[[], object],
        on_trouble: Callable[[Exception], object],
    ) -> None:
        self.runner = Runner("napari-delse")
        self._load, self._on_ready, self._on_trouble = load, on_ready, on_trouble
        self._predictor: PredictorLike | None = None
        self._loads = 0

    @property
    def is_ready(self) -> bool:
        """Whether a predictor is loaded."""
        return self._predictor is not None

    @property
    def config(self) -> Any:
        """The loaded predictor's `ModelConfig`; None without one."""
        return getattr(self._predictor, "config", None)

    def use(self, model: str, device: str) -> None:
        """Load another predictor; of several asked for in a row the last one counts."""
        self._predictor = None
        self._loads += 1
        then, failed = partial(self._loaded, self._loads), partial(self._not_loaded, self._loads)
        self.runner.submit(partial(self._load, model, device), then, failed)

    def _loaded(self, number: int, predictor: PredictorLike) -> None:
        if number == self._loads:
            self._predictor = predictor
            self._on_ready()

    def _not_loaded(self, number: int, error: Exception) -> None:
        if number == self._loads:
            self._on_trouble(error)

    def outline(
        self,
        session: AnnotationSession,
        request: Request,
        plane: Plane,
        then: Callable[[Outlined], object],
        failed: Callable[[Exception], object],
    ) -> None:
        """Answer a request of a session; nothing is called if nobody waits for the answer any more."""
        if self._predictor is None:
            session.fail(request)
            return

        def answered(answer: Outlined | None) -> None:
            if answer is not None and session.receive(request, answer):
                then(answer)

        def not_answered(error: Exception) -> None:
            if session.fail(request):
                failed(error)

        relatives = session.relative(request.draft), session.relative(request.draft, dragged=True)
        fields, known = (one.prediction if isinstance(one, Outlined) else None for one in relatives)
        job = partial(_outline, self._predictor, plane, session, request, fields, known)
        self.runner.submit(job, answered, not_answered)

    def close(self) -> None:
        """Let no answer come any more."""
        self.runner.close()


def _outline(
    predictor: PredictorLike, plane: Plane, session: AnnotationSession, request: Request, fields: Any, known: Any
) -> Outlined | None:
    """In the worker: the answer, or None if nobody waits for it any more."""
    is_wanted = partial(session.is_wanted, request)
    if not is_wanted():
        return None
    try:
        with only_while(is_wanted):  # a hand that goes on pulling must not wait for an outline of where it was
            prediction = predict_draft(predictor, plane, request.draft, fields, known)
    except GivenUpError:
        return None
    return Outlined(prediction, prediction.mask, float(prediction.confidence))
