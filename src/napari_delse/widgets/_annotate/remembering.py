"""Keeping a person's preferences from one time to the next, without waiting for a disk."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from napari_delse.annotation.preferences import Preferences, change_preferences, read_preferences
from napari_delse.widgets._guide import sentence
from napari_delse.widgets._run import Runner


class Remembered:
    """Preferences that are saved when they change.

    Parameters
    ----------
    changed : callable
        Called when `problem` changed.

    Attributes
    ----------
    problem : str
        Why they could not be read or saved; empty if all is well.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self.preferences, self.problem = Preferences(), ""
        self._changed = changed
        self._runner = Runner("napari-delse-preferences")
        self._unsaved: dict[str, Any] = {}

    def read(self) -> Preferences:
        """What was saved."""
        try:
            self.preferences = read_preferences()
        except ValueError as error:
            self._failed(error)
        return self.preferences

    def change(self, **changes: Any) -> None:
        """Save what is different now."""
        new = replace(self.preferences, **changes)
        if new != self.preferences:
            self.preferences = new
            self._unsaved |= changes
            self._runner.submit(partial(change_preferences, **changes), partial(self._saved, changes), self._failed)

    def _saved(self, changes: dict[str, Any], _: None) -> None:
        self._unsaved = {k: v for k, v in self._unsaved.items() if k not in changes or changes[k] != v}
        self.problem = ""
        self._changed()

    def _failed(self, error: Exception) -> None:
        self.problem = sentence(error if isinstance(error, ValueError) else f"the settings cannot be saved: {error}")
        self._changed()

    def close(self) -> None:
        """Save what is not saved yet, and stop."""
        self._runner.close()
        if self._unsaved:
            with suppress(OSError):
                change_preferences(**self._unsaved)
