"""Journals of the widget's sessions: begun, written and found again without anybody waiting for a disk."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from napari_delse import __version__
from napari_delse.annotation import journal
from napari_delse.annotation.edits import ArrayLabels
from napari_delse.annotation.records import Header, Identity, carried_count
from napari_delse.annotation.session import AnnotationSession
from napari_delse.widgets._kept import Kept
from napari_delse.widgets._run import Runner
from napari_delse.widgets._source import ImageSource, channel_axis_by_shape

_AGAIN = 5.0  # after so many seconds a journal that could not be begun is tried again


class Recording:
    """The recorder of a session: it never raises and never waits.

    Lines are given to the operating system at once, so that they survive a crash of napari; only the wait for
    the disk itself, and making the file, is done by the runner. What cannot be written is kept, told in
    `problem`, and tried again with the next action.

    Parameters
    ----------
    runner : Runner
        Where to wait for the disk.
    changed : callable
        Called when `problem` changed.
    begin : callable, optional
        Makes the journal, in the runner; called after the first action.
    opened : Journal, optional
        One to go on with instead.
    """

    def __init__(
        self,
        runner: Runner,
        changed: Callable[[], object],
        begin: Callable[[], journal.Journal] | None = None,
        opened: journal.Journal | None = None,
    ) -> None:
        self.problem = ""
        self._runner, self._changed, self._begin, self._journal = runner, changed, begin, opened
        self._left: deque[dict[str, Any]] = deque()
        self._has_work = opened is not None
        self._fresh: journal.Journal | None = None  # made by the runner
        self._opening = self._flushing = self._unsafe = self._closed = False
        self._tried = -_AGAIN
        self._model = ("", "")

    @property
    def path(self) -> Path | None:
        """The file, if there is one."""
        return None if self._journal is None else self._journal.path

    @property
    def is_whole(self) -> bool:
        """Whether there is a file in which everything stands."""
        return self.path is not None and not self._left and self.path.exists()

    def __call__(self, entry: dict[str, Any]) -> None:
        """Write what the session is about to do."""
        if self._closed:
            return
        self._left.append(entry)
        self._has_work = self._has_work or entry["step"] == "do"
        if self._has_work:
            self._write()

    def note_model(self, model: str, weights: str) -> None:
        """Another model predicts from now on."""
        if (model, weights) != self._model:
            self._model = model, weights
            self({"step": "model", "model": model, "weights": weights})

    def _write(self) -> None:
        if self._journal is None:
            self._open()
            return
        try:
            while self._left:
                self._journal(self._left[0])
                self._unsafe = self._unsafe or not journal.is_draft(self._left[0])
                self._left.popleft()
        except (OSError, ValueError) as error:
            self._tell(error)
        else:
            self._tell(None)
            self._flush()

    def _open(self) -> None:
        if self._begin is None or self._opening or time.monotonic() - self._tried < _AGAIN:
            return
        self._opening, self._tried = True, time.monotonic()
        self._runner.submit(self._make, self._opened, self._not_opened)

    def _make(self) -> journal.Journal:
        """In the runner."""
        assert self._begin is not None
        self._fresh = self._begin()
        if self._runner.is_closed:  # then nobody fetches it
            self._fresh.close()
        return self._fresh

    def _opened(self, made: journal.Journal) -> None:
        self._opening, self._journal, self._begin = False, made, None
        self._write()
        if self._closed:
            self._end()

    def _not_opened(self, error: Exception) -> None:
        self._opening = False
        self._tell(error)

    def _flush(self) -> None:
        """Have the runner wait for the disk; once more afterwards if something was written meanwhile."""
        if self._journal is None or not self._journal.is_open or not self._unsafe or self._flushing:
            return
        self._unsafe = False
        try:
            wait = self._journal.flush()
        except OSError as error:
            self._tell(error)
            return
        self._flushing = self._runner.submit(wait, lambda _: self._flushed(None), self._flushed) is not None
        if not self._flushing:
            wait()

    def _flushed(self, error: Exception | None) -> None:
        self._flushing = False
        if error is not None:
            self._tell(error)
        self._flush()

    def _tell(self, error: Exception | None) -> None:
        text = "" if error is None else (getattr(error, "strerror", None) or str(error).splitlines()[0]).rstrip(".")
        problem = text and f"This work is not being recorded, so save the labels from time to time: {text}."
        if problem != self.problem:
            self.problem = problem
            self._changed()

    def close(self) -> None:
        """The work ended well."""
        if not self._closed:
            self._changed = int  # nobody is told any more: the widget may be gone
            if self._left and self._journal is not None:
                self._write()
            self._closed = True
            self._end()

    def _end(self) -> None:
        made = self._journal or self._fresh
        if made is not None:
            try:
                made.close()
            except (OSError, ValueError):  # then it is offered to be restored: no harm
                made.abandon()

    def abandon(self) -> None:
        """Stop as a crash does."""
        self._closed = True
        if self._journal is not None:
            self._journal.abandon()


def _model_weights(model: str) -> str:
    """In the runner: the `annotation.journal.weights_hash` of a model of that name; empty if there is none."""
    from napari_delse.checkpoint import available_models

    folder = available_models().get(model)
    return "" if folder is None else journal.weights_hash(folder)


# ---------------------------------------------------------------- unfinished work


@dataclass(frozen=True)
class Offer:
    """Unfinished work on an image.

    Parameters
    ----------
    path : Path
        Its journal.
    header : Header
        What it belongs to, with the type that the labels had at its end.
    objects : int
        How many there are at its end.
    planes : int
        How many planes objects were carried to.
    modified : float
        When it was last written, seconds since 1970.
    channel_axis : int or None
        Along which axis of the image its channels were.
    moves : bool
        Whether that is another one than what the image is shown with now.
    """

    path: Path
    header: Header
    objects: int
    planes: int
    modified: float
    channel_axis: int | None = None
    moves: bool = False

    @property
    def text(self) -> str:
        """One sentence."""
        when = datetime.fromtimestamp(self.modified)
        named = ((self.objects, "object", "objects"), (self.planes, "carried plane", "carried planes"))
        many = [f"{count:,} {one if count == 1 else several}" for count, one, several in named if count]
        axis = f", with channels along axis {self.channel_axis}" if self.moves and self.channel_axis is not None else ""
        return f"Unfinished work on this image{axis}: {' and '.join(many)}, {when.day} {when:%b %H:%M}."


def _offers(
    image: Callable[[], Identity], shape: tuple[int, ...], axes: Mapping[tuple[int, ...], int | None]
) -> tuple[list[Offer], list[ValueError]]:
    """In the runner: unfinished work, that on labels of this shape first, the newest first; why others are left out.

    What does not belong to one of the shapes that labels of the image may have is left out without a word; these say
    along which axis its channels are then.
    """
    found: list[Offer] = []
    unreadable: list[ValueError] = []
    for one in sorted(journal.unfinished(image(), (), unreadable), key=lambda one: one.header.shape != shape):
        if one.header.shape in axes:
            try:
                contents = journal.read(one.path)
                objects, planes = journal.object_count(contents), carried_count(contents)
            except ValueError as error:  # which names the file and the line
                unreadable.append(error)
                continue
            except (OSError, KeyError, IndexError) as error:
                unreadable.append(ValueError(f"{one.path} cannot be read ({error}); mend it, or move it elsewhere"))
                continue
            if objects or planes:
                header = replace(one.header, dtype=contents.dtype.str)
                axis, moves = axes[header.shape], header.shape != shape
                found.append(Offer(one.path, header, objects, planes, one.modified, axis, moves))
    return found, unreadable


def _image_of(source: ImageSource) -> Callable[[], Identity]:
    """What tells by which pixels an image is known; to be called in the runner."""
    return partial(_identity, source.data, source.layer.name, getattr(source.layer.source, "path", None))


def _identity(data: Any, name: str, path: str | None) -> Identity:
    local = path is not None and Path(path).exists()  # it may be an address
    return Identity.of(data, name, path if local else None)


class Journals:
    """The journals of all sessions of a widget, and unfinished ones of the image that it shows.

    Parameters
    ----------
    changed : callable
        Called when something is to be shown: an offer, or trouble.
    """

    def __init__(self, changed: Callable[[], object]) -> None:
        self.offer: Offer | None = None
        self._changed = changed
        self._runner = Runner("napari-delse-journal")
        self._recordings: dict[AnnotationSession, Recording] = {}
        self._offers: list[Offer] = []
        self._lost = ""  # why unfinished work on the present image is not offered
        self._looks = 0
        self._model = ("", "")
        self._fresh: journal.Journal | None = None  # of work that is being restored

    # ---- recording

    def record(self, session: AnnotationSession, source: ImageSource, *, blank: bool) -> None:
        """Write a journal of a session from its first action on."""
        header = Header(
            image=Identity("", (), ""),
            shape=tuple(session.store.shape),
            dtype=np.dtype(session.store.dtype).str,
            blank=blank,
            largest=session.largest_found,
            policy=session.policy,
            version=__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        self._keep(session, Recording(self._runner, self._changed, partial(self._begin, header, _image_of(source))))

    def _begin(self, header: Header, image: Callable[[], Identity]) -> journal.Journal:
        """In the runner: make the journal of an image, whose pixels may be slow to read."""
        model, weights = self._model
        return journal.create(replace(header, image=image(), model=model, weights=weights), sync="never")

    def _keep(self, session: AnnotationSession, recording: Recording) -> None:
        recording.note_model(*self._model)
        self._recordings[session] = recording
        session.recorder = recording

    def use_model(self, model: str, runner: Runner) -> None:
        """Another model predicts from now on; the runner that has loaded it finds out about its weights."""

        def known(weights: str) -> None:
            self._model = model, weights
            for recording in self._recordings.values():
                recording.note_model(model, weights)

        self._model = model, ""
        runner.submit(partial(_model_weights, model), known, lambda _: known(""))

    def problem(self, session: AnnotationSession | None) -> str:
        """Why a session is not being recorded or, until it is, why earlier work is not offered; else empty."""
        recording = None if session is None else self._recordings.get(session)
        if recording is not None and (recording.problem or recording.path is not None):
            return recording.problem
        return self._lost

    def path(self, session: AnnotationSession | None) -> Path | None:
        """The journal of a session; None as long as there is none."""
        recording = None if session is None else self._recordings.get(session)
        return None if recording is None else recording.path

    def go_on(self, kept: Kept, source: ImageSource) -> None:
        """Write the journal of a session that another widget left, from its next action on."""
        session = kept.session
        if kept.journal is None:
            self.record(session, source, blank=session.largest_found == 0)
            missed = list(journal.so_far(session))
        else:
            resume = partial(journal.resume, kept.journal, sync="never")
            self._keep(session, Recording(self._runner, self._changed, resume))
            missed = kept.missed
        for entry in missed:
            self._recordings[session](entry)

    def end(self, session: AnnotationSession | None) -> Path | None:
        """The work of a session ended well; its journal, if all of it stands there."""
        if session is None or (recording := self._recordings.pop(session, None)) is None:
            return None
        session.recorder = None
        recording.close()
        return recording.path if recording.is_whole else None

    def close(self) -> None:
        """All work ended well."""
        for session in list(self._recordings):
            self.end(session)
        self._runner.close()
        if self._fresh is not None:
            self._fresh.abandon()

    def abandon(self) -> None:
        """Stop as a crash does."""
        for recording in self._recordings.values():
            recording.abandon()
        self._recordings.clear()
        self._runner.close()

    # ---- unfinished work

    def look(self, source: ImageSource | None) -> None:
        """Look for unfinished work on an image."""
        self._looks += 1
        self.offer, self._offers, self._lost = None, [], ""
        if source is not None:
            job = partial(_offers, _image_of(source), source.shape, channel_axis_by_shape(source))
            self._runner.submit(job, partial(self._found, self._looks), lambda _: None)

    def keep_offer(self, offer: Offer) -> None:
        """Offer this, and look for nothing else on the present image."""
        self._looks += 1
        self.offer, self._offers = offer, []

    def _found(self, look: int, answer: tuple[list[Offer], list[ValueError]]) -> None:
        if look == self._looks:
            self._offers, unreadable = answer
            if unreadable:
                further = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
                self._lost = f"Unfinished work cannot be offered{further}: {unreadable[0]}."
            self._next()

    def _next(self) -> None:
        self.offer = self._offers.pop(0) if self._offers else None
        self._changed()

    def restore(
        self, data: Any, then: Callable[[AnnotationSession], object], failed: Callable[[Exception], object]
    ) -> None:
        """Bring the offered work back into an array; then its session goes on with its journal."""
        offer = self.offer
        if offer is None:
            return

        def job() -> AnnotationSession:
            session = journal.restore(offer.path, ArrayLabels(data), sync="never")
            self._fresh = session.recorder if isinstance(session.recorder, journal.Journal) else None
            if self._runner.is_closed and self._fresh is not None:
                self._fresh.abandon()
            return session

        def restored(session: AnnotationSession) -> None:
            self._keep(session, Recording(self._runner, self._changed, opened=self._fresh))
            self._fresh = None
            then(session)

        self._next()
        self._runner.submit(job, restored, failed)

    def discard(self, failed: Callable[[Exception], object]) -> None:
        """Do not offer this work again; its file stays."""
        if self.offer is not None:
            self._runner.submit(partial(journal.dismiss, self.offer.path), lambda _: None, failed)
            self._next()
