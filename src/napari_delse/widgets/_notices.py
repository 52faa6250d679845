"""What is told above the guide: what went wrong, or what was just done, until the next action."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from napari_delse.widgets import _guide as guide


class Notices:
    """One sentence for the person.

    Parameters
    ----------
    changed : callable
        Called when there is something else to show.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self.text, self.is_trouble = "", False
        self._changed = changed

    def say(self, error: BaseException | None = None) -> None:
        """Tell what went wrong until the next action, or that nothing did."""
        self.text, self.is_trouble = (guide.sentence(error), True) if error is not None else ("", False)
        self._changed()

    def tell(self, text: str) -> None:
        """Tell what was done until the next action."""
        self.text, self.is_trouble = text, False
        self._changed()

    def or_else(self, trouble: str) -> tuple[str, bool]:
        """What to show, and whether it is trouble: what was told, or else trouble that stays, if there is some."""
        return (self.text, self.is_trouble) if self.text else (trouble, bool(trouble))

    @contextmanager
    def told(self, what: str = "") -> Iterator[None]:
        """Whatever goes wrong inside is told, and what was told before no more."""
        self.say()
        try:
            yield
        except ValueError as error:  # the session's, written for people
            self.say(error)
        except Exception as error:  # that of an array, a disk, a driver ...
            self.say(RuntimeError(f"{what}{error}"))
