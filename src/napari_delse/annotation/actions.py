"""What an annotation session does, as plain data: it can be done, undone, done again and written as JSON.

Every `Action` says which draft it leaves behind, which objects it takes away and adds, and which pixels it
changes: that is all there is to doing and undoing it. Pixels are changed by a `PixelEdit` through a
`LabelStore`, behind which an array or a viewer's layer stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from functools import cache
from typing import Any, ClassVar, Literal, TypeVar

from napari_delse.annotation.edits import ArrayLabels, LabelStore, PackedMask, PixelEdit, PlaneKey
from napari_delse.annotation.policy import LabelPolicy
from napari_delse.evolution import EvolutionSettings
from napari_delse.geometry import Correction, ExtremePoints, ObjectMask, Point

__all__ = [
    "EXTREME_CLICKS",
    "Action",
    "ArrayLabels",
    "Carry",
    "Classify",
    "Commit",
    "Delete",
    "Draft",
    "EditDraft",
    "LabelStore",
    "LabelledObject",
    "Merge",
    "PackedMask",
    "Paint",
    "PixelEdit",
    "PlaneKey",
    "Reopen",
    "Split",
    "action_from_json",
    "action_to_json",
    "edit_from_json",
    "place_in",
    "run_of",
    "step_begin",
]

T = TypeVar("T")

_PLAIN = frozenset((int, float, str, bool, type(None)))
EXTREME_CLICKS = 4  # different clicks after which an object is predicted


@dataclass(frozen=True)
class Draft:
    """What was said so far about the object in progress.

    Parameters
    ----------
    plane : PlaneKey or None
        None while nothing was said.
    clicks : tuple of (y, x)
        Boundary clicks in the order they came, or the corners of a box.
    corrections : tuple of Correction
        Drags, in order.
    kind : {"extreme", "box"}
        As for `ExtremePoints`.
    label : int or None
        The committed object that is worked on again; None for a new one.
    evolution : EvolutionSettings or None
        How its contour evolves; None for the model's own way.
    """

    plane: PlaneKey | None = None
    clicks: tuple[Point, ...] = ()
    corrections: tuple[Correction, ...] = ()
    kind: Literal["extreme", "box"] = "extreme"
    label: int | None = None
    evolution: EvolutionSettings | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing was said."""
        return not self.clicks and not self.corrections

    @property
    def missing(self) -> int:
        """How many further clicks are needed before the object can be predicted; doubled ones count once."""
        return max(0, (2 if self.kind == "box" else EXTREME_CLICKS) - len(set(self.clicks)))

    @property
    def unlabelled(self) -> Draft:
        """The same prompts, whichever object they are for."""
        return self if self.label is None else replace(self, label=None)

    def prompt(self) -> ExtremePoints:
        """The prompt for the predictor."""
        return ExtremePoints.from_box(self.clicks) if self.kind == "box" else ExtremePoints.from_clicks(self.clicks)

    @classmethod
    def around(cls, plane: PlaneKey, mask: ObjectMask) -> Draft:
        """The extreme points of a mask that nobody clicked."""
        return cls(plane, ExtremePoints.from_mask(mask.mask, mask.origin).points)


@dataclass(frozen=True)
class LabelledObject:
    """A committed object and what it was made from.

    Parameters
    ----------
    label : int
        Its value in the labels.
    draft : Draft
        Prompts that give it; those of a part of another object, and of merged ones, are its own extreme points.
    mask : PackedMask
        As predicted and tidied; protected pixels of other labels may be missing in the array.
    area : int
        Pixels that were written.
    confidence : float
        Of the prediction, in [0, 1]; of merged ones the lowest.
    class_name : str
        What kind of object it is, if somebody said so.
    others : tuple of LabelledObject
        Its pieces in further planes.
    origins : tuple of Draft
        Prompts of the objects that it was merged or split from.
    filled : int
        Pixels of holes that were filled.
    dropped : tuple of int
        Areas of small parts that were left out.
    """

    label: int
    draft: Draft
    mask: PackedMask
    area: int
    confidence: float
    class_name: str = ""
    others: tuple[LabelledObject, ...] = ()
    origins: tuple[Draft, ...] = ()
    filled: int = 0
    dropped: tuple[int, ...] = ()

    @property
    def plane(self) -> PlaneKey:
        """The plane it lies in, or the first of several."""
        assert self.draft.plane is not None  # every commit has one
        return self.draft.plane

    @property
    def pieces(self) -> tuple[LabelledObject, ...]:
        """One object per plane."""
        return (replace(self, others=()), *self.others) if self.others else (self,)

    @property
    def prompts(self) -> tuple[Draft, ...]:
        """What people said about it."""
        return tuple(draft for piece in self.pieces for draft in (piece.origins or (piece.draft,)))

    @classmethod
    def of_pieces(cls, pieces: list[LabelledObject]) -> LabelledObject:
        """One object from its pieces, of which the first comes first."""
        return replace(pieces[0], others=tuple(pieces[1:]))


# ---------------------------------------------------------------- actions


@dataclass(frozen=True)
class Action:
    """Something a person did.

    Parameters
    ----------
    before, after : Draft
        The object in progress.
    pixels : tuple of PixelEdit
        Changes of the labels, in order.
    removed, added : tuple of LabelledObject
        Objects that are gone or come; one that changes is in both.
    """

    before: Draft
    after: Draft
    pixels: tuple[PixelEdit, ...] = ()
    removed: tuple[LabelledObject, ...] = ()
    added: tuple[LabelledObject, ...] = ()

    kind: ClassVar[str] = ""

    @property
    def object(self) -> LabelledObject:
        """The object that it is about: the first that it made or changed, else the first that it removed."""
        return (*self.added, *self.removed)[0]

    @property
    def plane(self) -> PlaneKey | None:
        """Where something changes, if anywhere."""
        drafts = (self.after.plane or self.before.plane) if self.before != self.after else None
        return self.pixels[0].plane if self.pixels else drafts


@dataclass(frozen=True)
class EditDraft(Action):
    """The person added, moved or removed clicks or drags, or had the contour evolve otherwise."""

    kind: ClassVar[str] = "draft"


@dataclass(frozen=True)
class Reopen(Action):
    """A committed object became the object in progress; its pixels stay until it is committed again."""

    kind: ClassVar[str] = "reopen"


@dataclass(frozen=True)
class Commit(Action):
    """The preview became an object, or took the place of a reopened one; the draft is empty afterwards."""

    policy: LabelPolicy = field(default_factory=LabelPolicy)

    kind: ClassVar[str] = "commit"


@dataclass(frozen=True)
class Delete(Action):
    """An object was removed from the labels."""

    kind: ClassVar[str] = "delete"


@dataclass(frozen=True)
class Merge(Action):
    """Several objects became one."""

    kind: ClassVar[str] = "merge"


@dataclass(frozen=True)
class Split(Action):
    """Parts of an object became objects of their own."""

    kind: ClassVar[str] = "split"


@dataclass(frozen=True)
class Classify(Action):
    """An object got another class name."""

    kind: ClassVar[str] = "classify"


@dataclass(frozen=True)
class Paint(Action):
    """The person painted or erased by hand; what was painted later in one stroke comes later."""

    kind: ClassVar[str] = "paint"


@dataclass(frozen=True)
class Carry(Action):
    """A part of what a run over many planes wrote; all parts of one run are one step of undo."""

    run: str = ""  # which one

    kind: ClassVar[str] = "carry"


_KINDS = {kind.kind: kind for kind in (EditDraft, Reopen, Commit, Delete, Merge, Split, Classify, Paint, Carry)}


def run_of(action: Action) -> str:
    """The run over many planes that an action is a part of; empty for what is a step by itself."""
    return action.run if isinstance(action, Carry) else ""


def step_begin(actions: Sequence[T], run: Callable[[T], str]) -> int:
    """Where the last step begins among actions, of which a function tells the run (see `run_of`)."""
    begin = len(actions) - 1
    if last := run(actions[begin]):
        while begin > 0 and run(actions[begin - 1]) == last:
            begin -= 1
    return begin


def place_in(actions: Sequence[T], name: str, run: Callable[[T], str]) -> int:
    """Where an action of a run goes among those that were done: behind the last part of its run, else at the end.

    So a run stays one step, whatever else is done while it goes on.
    """
    if name:
        for place in range(len(actions) - 1, -1, -1):
            if run(actions[place]) == name:
                return place + 1
    return len(actions)


# ---------------------------------------------------------------- JSON


def action_to_json(action: Action) -> dict[str, Any]:
    """The action as plain dicts, lists, numbers and strings."""
    return {"kind": action.kind, **{name: value for name, value in _plain(action, {}).items() if value != ()}}


def _plain(value: Any, known: dict[int, Any]) -> Any:
    """Dataclasses as dicts, as `dataclasses.asdict` has it, but in a quarter of its time.

    What occurs twice, such as the mask of an object that gets another class, is made once.
    """
    if isinstance(value, tuple):
        return tuple(one if type(one) in _PLAIN else _plain(one, known) for one in value)
    kind: Any = type(value)
    names = _field_names(kind)
    if names is None:
        return value
    if (made := known.get(id(value))) is None:
        pairs = [(name, getattr(value, name)) for name in names]
        made = known[id(value)] = {name: one if type(one) in _PLAIN else _plain(one, known) for name, one in pairs}
    return made


@cache
def _field_names(kind: type[Any]) -> tuple[str, ...] | None:
    """None for what is no dataclass, such as numpy's numbers."""
    return tuple(one.name for one in fields(kind)) if is_dataclass(kind) else None


def action_from_json(data: dict[str, Any]) -> Action:
    """The action again, also after a trip through a JSON file.

    Raises
    ------
    ValueError
        If the kind of action is unknown.
    """
    made = _KINDS.get(data["kind"])
    if made is None:
        raise ValueError(
            f"an action must be one of {', '.join(_KINDS)}, got {data['kind']!r}; was it saved by a newer version?"
        )
    more: dict[str, Any] = {"policy": LabelPolicy(**data["policy"])} if made is Commit else {}
    if made is Carry:
        more = {"run": data["run"]}
    return made(
        _draft(data["before"]),
        _draft(data["after"]),
        tuple(map(edit_from_json, data.get("pixels", ()))),
        tuple(_objects(data.get("removed", ()))),
        tuple(_objects(data.get("added", ()))),
        **more,
    )


def edit_from_json(data: dict[str, Any]) -> PixelEdit:
    """A change of pixels again."""
    return PixelEdit(**{**data, "plane": _plane(data["plane"]), "pixels": _packed(data["pixels"])})


def _objects(data: Any) -> Iterator[LabelledObject]:
    for one in data:
        yield LabelledObject(
            **{
                **one,
                "draft": _draft(one["draft"]),
                "mask": _packed(one["mask"]),
                "others": tuple(_objects(one["others"])),
                "origins": tuple(map(_draft, one["origins"])),
                "dropped": tuple(one["dropped"]),
            }
        )


def _plane(data: dict[str, Any]) -> PlaneKey:
    return PlaneKey((data["axes"][0], data["axes"][1]), tuple(data["index"]))


def _packed(data: dict[str, Any]) -> PackedMask:
    return PackedMask(tuple(data["origin"]), tuple(data["shape"]), data["bits"])


def _draft(data: dict[str, Any]) -> Draft:
    evolution = data.get("evolution")  # journals that are older than it have none
    return Draft(
        None if data["plane"] is None else _plane(data["plane"]),
        tuple((y, x) for y, x in data["clicks"]),
        tuple(Correction(tuple(c["start"]), tuple(c["end"])) for c in data["corrections"]),
        data["kind"],
        data["label"],
        None if evolution is None else EvolutionSettings(**evolution),
    )
