"""What the annotate widget remembers from one time to the next: how objects are written, and keys."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from napari_delse.policy import LabelPolicy


@dataclass(frozen=True, kw_only=True)
class Preferences:
    """A person's own settings."""

    policy: LabelPolicy = field(default_factory=LabelPolicy)  # how objects are written
    keys: Mapping[str, str] = field(default_factory=dict)  # keys of actions that differ from the default


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
        If the file cannot be read or holds something else; the message says how to get rid of it.
    """
    path = preferences_file() if path is None else path
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        policy, keys = LabelPolicy(**data.get("policy", {})), data.get("keys", {})
        _check(policy, keys)
    except FileNotFoundError:
        return Preferences()
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"the settings in {path} cannot be read ({error}), so the defaults are used; mend or remove the file"
        ) from error
    return Preferences(policy=policy, keys=keys)


def _check(policy: LabelPolicy, keys: object) -> None:
    """Refuse values of other types, which JSON does not."""
    if not (isinstance(policy.protect, bool) and isinstance(policy.fill_holes, bool)):
        raise ValueError("protect and fill_holes must be true or false")
    if not isinstance(policy.min_part, int) or isinstance(policy.min_part, bool):
        raise ValueError(f"min_part must be a number of pixels, got {policy.min_part!r}")
    if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
        raise ValueError("keys must map actions to keys")


def write_preferences(preferences: Preferences, path: Path | None = None) -> None:
    """Save preferences, completely or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    path = preferences_file() if path is None else path
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    content = {"policy": asdict(preferences.policy), "keys": dict(preferences.keys)}
    try:
        aside.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
