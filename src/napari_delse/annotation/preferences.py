"""What is remembered from one time to the next: how objects are written, keys, and the model to work with."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from napari_delse._writing import write_atomically
from napari_delse.annotation.policy import LabelPolicy

_CHANGING = threading.Lock()  # else of two changes at once one would be lost


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """A person's own settings."""

    policy: LabelPolicy = field(default_factory=LabelPolicy)  # how objects are written
    keys: Mapping[str, str] = field(default_factory=dict)  # keys of actions that differ from the default
    model: str = "default"  # name of the model to work with


def preferences_file() -> Path:
    """Where they are kept: ``$NAPARI_DELSE_HOME/preferences.json``, else in the user's configuration folder."""
    home = os.environ.get("NAPARI_DELSE_HOME")
    if home:
        return Path(home) / "preferences.json"
    from platformdirs import user_config_path

    return user_config_path("napari-delse", appauthor=False) / "preferences.json"


def read_preferences(path: Path | None = None) -> Preferences:
    """The saved preferences, or the defaults where nothing was saved.

    Parameters
    ----------
    path : Path, optional
        The file; `preferences_file` by default.

    Raises
    ------
    ValueError
        If the file cannot be read or holds something else; the message names it.
    """
    path = preferences_file() if path is None else path
    try:
        return _checked(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the settings in {path} cannot be read ({error}); the defaults are used, and the next change replaces them"
        ) from error


def _checked(data: Any) -> Preferences:
    """Preferences from JSON, which also holds values of other types."""
    policy, keys = dict(data.get("policy", {})), data.get("keys", {})
    for name in ("protect", "fill_holes"):
        if not isinstance(policy.get(name, True), bool):
            raise ValueError(f"{name} must be true or false, got {policy[name]!r}")
    part = policy.get("min_part", 0)
    if not isinstance(part, int) or isinstance(part, bool):
        raise ValueError(f"min_part must be a number of pixels, got {part!r}")
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise ValueError(f"keys must map actions to keys, got {keys!r}")
    model = data.get("model", "default")
    if not isinstance(model, str) or not model:
        raise ValueError(f"model must be the name of a model, got {model!r}")
    return Preferences(policy=LabelPolicy(**policy), keys=keys, model=model)


def write_preferences(preferences: Preferences, path: Path | None = None) -> None:
    """Save preferences, completely or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = preferences_file() if path is None else path
    content = {"policy": asdict(preferences.policy), "keys": dict(preferences.keys), "model": preferences.model}
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda new: new.write_text(text, encoding="utf-8"))


def change_preferences(**changes: Any) -> None:
    """Save changes and keep the rest, which others may have written meanwhile; what cannot be read is replaced.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    with _CHANGING:
        try:
            kept = read_preferences()
        except ValueError:
            kept = Preferences()
        write_preferences(replace(kept, **changes))
