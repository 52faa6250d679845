"""The keys of the annotate widget: what they do, which ones are free, and binding them to viewer and layers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from napari.layers import Image, Labels, Points, Shapes
from napari.utils.key_bindings import coerce_keybinding
from qtpy.QtGui import QKeySequence

from napari_delse.widgets._guide import sentence


class KeyAction(NamedTuple):
    """Something that a key does.

    Parameters
    ----------
    name : str
        Under which its key is remembered.
    text : str
        What it does, in a few words.
    default : str
        Its key, as napari writes it.
    on_layers : bool
        Bound to the layers of the widget only, where it comes before napari's own keys.
    """

    name: str
    text: str
    default: str
    on_layers: bool = False


_COMMAND = "Meta" if sys.platform == "darwin" else "Ctrl"  # napari calls the command key Meta

ACTIONS = (
    KeyAction("accept_here", "Accept, next object", "Enter", on_layers=True),
    KeyAction("accept", "Accept, in any layer", "N"),
    KeyAction("start_over", "Start over", "Escape", on_layers=True),
    KeyAction("undo", "Undo", f"{_COMMAND}+Z", on_layers=True),
    KeyAction("redo", "Redo", f"{_COMMAND}+Shift+Z", on_layers=True),
    KeyAction("switch_tool", "Draw lines, or click", "W"),
    KeyAction("next", "Next object", "Shift+N"),
    KeyAction("previous", "The object before", "Shift+B"),
    KeyAction("unsure", "The least sure object", "Shift+U"),
    KeyAction("unnamed", "Next one without class", "Shift+C"),
    KeyAction("empty", "Next empty plane", "Shift+E"),
    KeyAction("reopen", "Reopen it", "Shift+R"),
    KeyAction("delete", "Delete selected ones", "Shift+D"),
    KeyAction("merge", "Merge selected ones", "Shift+M"),
    KeyAction("split", "Split it", "Shift+S"),
)
_BY_NAME = {action.name: action for action in ACTIONS}
_MODIFIERS = ("Shift", "Ctrl", "Alt", "Meta")
_QT_NAMES = {"Esc": "Escape", "Return": "Enter", "Del": "Delete", "Ins": "Insert", "PgUp": "PageUp"}
_QT_NAMES |= {"PgDown": "PageDown"}


def from_qt(text: str) -> str:
    """A key as napari writes it, from Qt's portable text; empty for none.

    Raises
    ------
    ValueError
        If napari knows no such key.
    """
    if not text:
        return ""
    *modifiers, key = text.split("+")
    if sys.platform == "darwin":  # Qt calls the command key Ctrl
        modifiers = [{"Ctrl": "Meta", "Meta": "Ctrl"}.get(one, one) for one in modifiers]
    return normal("+".join([*modifiers, _QT_NAMES.get(key, key)]))


def to_qt(key: str) -> str:
    """Qt's portable text of a key."""
    *modifiers, last = key.split("+")
    if sys.platform == "darwin":
        modifiers = [{"Ctrl": "Meta", "Meta": "Ctrl"}.get(one, one) for one in modifiers]
    back = {napari: qt for qt, napari in _QT_NAMES.items() if qt != "Return"}  # Enter is known to both
    return "+".join([*modifiers, back.get(last, last)])


def shown(key: str) -> str:
    """A key as people write it."""
    if sys.platform == "darwin":
        return str(QKeySequence(to_qt(key)).toString(QKeySequence.SequenceFormat.NativeText))
    return key.replace("Escape", "Esc")


def normal(key: str) -> str:
    """One spelling for every key.

    Raises
    ------
    ValueError
        If napari knows no such key.
    """
    try:
        text = str(coerce_keybinding(key))
    except (ValueError, KeyError, TypeError, AttributeError):
        text = ""
    if not text or " " in text or text.endswith("+") or text in _MODIFIERS:
        raise ValueError(f"{key!r} is no key that napari knows; press another one")
    return text


def used_by_napari(viewer: Any) -> dict[str, str]:
    """Keys that napari or other plugins use -> what for."""
    found: dict[str, str] = {}
    for key, what in _napari_keys(viewer):
        with suppress(ValueError):
            found.setdefault(normal(str(key)), what)
    return found


def _napari_keys(viewer: Any) -> Iterator[tuple[Any, str]]:
    from napari.settings import get_settings

    for name, keys in get_settings().shortcuts.shortcuts.items():
        for key in keys:
            yield key, str(name).partition(":")[2].replace("_", " ")
    for owner in (type(viewer), *type(viewer).__mro__, Points, Shapes, Labels, Image):
        for key, what in getattr(owner, "class_keymap", {}).items():
            yield key, getattr(what, "__name__", "napari").replace("_", " ")
    with suppress(Exception):  # not documented, and other versions have none
        from napari._app_model import get_app_model

        for rule in get_app_model().keybindings:
            yield rule.keybinding, rule.command_id.rpartition(".")[2].replace("_", " ")
    for key in viewer.keymap:
        yield key, "something else in this viewer"


class Keyboard:
    """The keys of one widget on one viewer.

    Parameters
    ----------
    viewer : ViewerModel
        Where keys are bound.
    actions : mapping of str to callable
        What each of `ACTIONS` does.
    chosen : mapping of str to str, optional
        Keys other than the defaults.
    """

    def __init__(
        self, viewer: Any, actions: Mapping[str, Callable[[], object]], chosen: Mapping[str, str] | None = None
    ) -> None:
        self._viewer, self._actions = viewer, actions
        self._taken = used_by_napari(viewer)
        self._keys = {action.name: action.default for action in ACTIONS}
        self._bound: dict[str, str] = {}  # action -> key of the viewer
        self._lost: set[str] = set()  # actions whose key somebody else has bound in this viewer
        self._layers: list[Any] = []
        self.problem = ""  # why a chosen key is not used
        self._choose(chosen or {})
        for action in ACTIONS:
            self._bind(action)

    def _choose(self, chosen: Mapping[str, str]) -> None:
        """Give actions their remembered keys: each is checked against what the others have in the end."""
        for name, key in chosen.items():
            if name in _BY_NAME:
                with suppress(ValueError):  # told below
                    self._keys[name] = normal(key) if key else ""
        for name, key in chosen.items():
            try:
                self._keys[name] = self._check(name, key)
            except ValueError as error:
                self.problem = self.problem or sentence(error)
                if name in _BY_NAME:
                    default = _BY_NAME[name].default
                    others = [other for action, other in self._keys.items() if action != name]
                    self._keys[name] = "" if default in others else default

    def __getitem__(self, name: str) -> str:
        """The key of an action; empty if it has none, or if somebody else took it first."""
        return "" if name in self._lost else self._keys[name]

    @property
    def chosen(self) -> dict[str, str]:
        """Keys that differ from the defaults, to be remembered."""
        return {name: key for name, key in self._keys.items() if key != _BY_NAME[name].default}

    def rebind(self, name: str, key: str) -> None:
        """Give an action another key, or none.

        Raises
        ------
        ValueError
            If the key is not free.
        """
        key, self.problem = self._check(name, key), ""
        self._unbind(_BY_NAME[name])
        self._keys[name] = key
        self._bind(_BY_NAME[name])

    def reset(self) -> None:
        """Give every action its default key."""
        for action in ACTIONS:
            self._unbind(action)
        self.problem = ""
        for action in ACTIONS:
            self._keys[action.name] = action.default
            self._bind(action)

    def _check(self, name: str, key: str) -> str:
        """The key in its usual spelling, if the action may have it."""
        action = _BY_NAME.get(name)
        if action is None:
            raise ValueError(f"there is no action {name!r} to have a key")
        if not key:
            return ""
        key = normal(key)
        other = next((one for one in ACTIONS if one.name != name and self._keys[one.name] == key), None)
        if other is not None:
            raise ValueError(f"{key} is the key of '{other.text}'; give that one another key first")
        if key == action.default:
            return key
        if "Shift" in key.split("+") and not key[-1].isalpha():
            raise ValueError(f"{key} cannot be told from other keys; napari takes Shift with letters only")
        if key in self._taken:
            raise ValueError(f"{key} is used by napari ({self._taken[key]}); press another key")
        return key

    def _bind(self, action: KeyAction) -> None:
        if action.on_layers:
            for layer in self._layers:
                self._bind_on(layer, action)
        elif key := self._keys[action.name]:
            self._lost.discard(action.name)
            try:
                self._viewer.bind_key(key, lambda _: self._actions[action.name]())
                self._bound[action.name] = key
            except ValueError:
                self._lost.add(action.name)

    def _bind_on(self, layer: Any, action: KeyAction) -> None:
        if key := self._keys[action.name]:
            layer.bind_key(key, lambda _: self._actions[action.name](), overwrite=True)

    def _unbind(self, action: KeyAction) -> None:
        if action.on_layers:
            if key := self._keys[action.name]:
                for layer in self._layers:
                    layer.bind_key(key, None)
        elif action.name in self._bound:
            key = self._bound.pop(action.name)
            with suppress(Exception):  # the viewer may be half gone
                self._viewer.bind_key(key, None)

    def bind_layer(self, layer: Any) -> None:
        """A layer of the widget came."""
        self._layers = [one for one in self._layers if one in self._viewer.layers]
        self._layers.append(layer)
        for action in ACTIONS:
            if action.on_layers:
                self._bind_on(layer, action)

    def release(self) -> None:
        """Give all keys of the viewer back."""
        for action in ACTIONS:
            if not action.on_layers:
                self._unbind(action)
