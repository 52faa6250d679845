"""Four extreme points, one mask: deep level set evolution (DELSE) for napari.

The public names are imported when they are first used: ``import napari_delse`` alone loads neither torch nor Qt.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from napari_delse.checkpoint import load_model
    from napari_delse.finetuning.run import fine_tune
    from napari_delse.geometry import Correction, ExtremePoints
    from napari_delse.predict import Predictor

try:
    __version__ = version("napari-delse")
except PackageNotFoundError:  # a checkout on the path that was never installed
    __version__ = "0+unknown"

__all__ = ["Correction", "ExtremePoints", "Predictor", "__version__", "fine_tune", "load_model"]

_HOMES = {
    "Correction": "geometry",
    "ExtremePoints": "geometry",
    "Predictor": "predict",
    "fine_tune": "finetuning.run",
    "load_model": "checkpoint",
}


def __getattr__(name: str) -> object:
    """Import a public name from the module it lives in (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
