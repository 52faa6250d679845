"""What the status line says: always what to do next."""

from __future__ import annotations

from napari_delse.actions import EXTREME_CLICKS

_POINTS = ("top-most", "right-most", "bottom-most", "left-most")

NO_IMAGE = "Open an image to begin: drop a file onto the window, or take File > Open Sample > DELSE."
KEYS = (
    ("Click", "boundary points of an object"),
    ("Pull", "the outline to correct it"),
    ("Enter or N", "accept, next object"),
    ("Esc", "start over"),
    ("Ctrl+Z", "undo; with Shift, redo"),
    ("W", "draw correction lines, or click"),
    ("Shift+N, B", "next object, the one before"),
    ("Shift+U", "the least sure object"),
    ("Shift+R, D", "reopen it; delete it"),
)


def keys_table() -> str:
    """The keys as a small table of rich text."""
    rows = "".join(f"<tr><td><b>{key}</b>&nbsp;&nbsp;</td><td>{what}</td></tr>" for key, what in KEYS)
    return f"<table cellspacing='2'>{rows}</table>"


def next_click(missing: int) -> str:
    """Which point to click while some of the four are missing."""
    number = max(0, EXTREME_CLICKS - missing)
    if number == 0:
        return f"Click the {_POINTS[0]} point of an object (1 of {EXTREME_CLICKS}; any order will do)."
    return f"Click its {_POINTS[number]} point ({number + 1} of {EXTREME_CLICKS}). Esc starts over."


def preview(area: int, confidence: float) -> str:
    """What can be done with a preview."""
    if area == 0:
        return "No object was found there: click further points of its boundary, or press Esc and click anew."
    pixels = "1 pixel" if area == 1 else f"{area:,} pixels"
    sure = f", {confidence:.0%} sure" if confidence == confidence else ""
    return (
        f"Preview of {pixels}{sure}. Enter accepts it. To correct it, pull the outline, or click where "
        "it should pass. Esc starts over."
    )


def sentence(error: BaseException) -> str:
    """The first line of an error as one sentence for a person."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    text = text[0].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else text + "."
