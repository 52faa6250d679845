"""A session on disk: every action is appended before it happens, so that nothing is lost.

A journal is a file of JSON lines. The first one says which image, labels and model it belongs to; every further one
is what a session told its recorder. Each line carries its number and a checksum, so that a last line torn by a crash is
recognised and left out, and damage anywhere else is named.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from napari_delse import _filelock
from napari_delse.annotation.actions import action_to_json, run_of
from napari_delse.annotation.edits import LabelStore
from napari_delse.annotation.records import (
    FORMAT,
    Contents,
    Header,
    Identity,
    header_of,
    line_of,
    object_count,
    parsed,
    read,
    weights_hash,
)
from napari_delse.annotation.session import AnnotationSession

__all__ = [
    "SUFFIX",
    "Contents",
    "Header",
    "Identity",
    "Journal",
    "Unfinished",
    "create",
    "dismiss",
    "is_draft",
    "object_count",
    "read",
    "restore",
    "resume",
    "so_far",
    "start",
    "unfinished",
    "user_journals",
    "weights_hash",
]

SUFFIX = ".delse.jsonl"
_TAIL = 4096  # a closing line fits in here

Sync = Literal["always", "objects", "never"]


def user_journals() -> Path:
    """Folder of journals: ``$NAPARI_DELSE_HOME/journals``, else in the user's data folder."""
    home = os.environ.get("NAPARI_DELSE_HOME")
    if home:
        return Path(home) / "journals"
    from platformdirs import user_data_path

    return user_data_path("napari-delse", appauthor=False) / "journals"


# ---------------------------------------------------------------- writing


class Journal:
    """A journal that is being written; hand it to a session as its recorder.

    Parameters
    ----------
    path : Path
        The file.
    header : Header
        Its first line.
    sync : {"always", "objects", "never"}
        When to wait until the disk holds a line, so that it survives a power cut: always, for all but clicks and
        drags, or never. A killed process loses nothing either way.

    Notes
    -----
    Made by `start` and `resume`. It is locked while it is open; the lock ends with the process.
    """

    def __init__(self, path: Path, header: Header, sync: Sync = "objects") -> None:
        if sync not in ("always", "objects", "never"):
            raise ValueError(f"sync must be 'always', 'objects' or 'never', got {sync!r}")
        self.path, self.header, self.sync = path, header, sync
        self._file = -1
        self._count = 0

    def __call__(self, entry: dict[str, Any]) -> None:
        """Append what a session is about to do.

        Raises
        ------
        OSError
            If it cannot be written, such as on a full disk; then the file is as it was.
        ValueError
            If the journal was closed.
        """
        if self._file < 0:
            raise ValueError(f"{self.path} is closed; start another journal, or go on without one")
        line = line_of({"n": self._count, "t": round(time.time(), 3), **entry})
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._file, view) :]
            if self.sync == "always" or (self.sync == "objects" and not is_draft(entry)):
                os.fsync(self._file)
        except BaseException:
            try:
                os.ftruncate(self._file, end)
            except OSError:  # nothing can follow half a line
                self.abandon()
            raise
        self._count += 1

    @property
    def is_open(self) -> bool:
        """Whether it takes entries."""
        return self._file >= 0

    def note_model(self, model: str, weights: str = "") -> None:
        """Another model predicts from now on."""
        self({"step": "model", "model": model, "weights": weights})

    def close(self, *, keep: bool = True) -> None:
        """The work ended well: nothing is to be restored.

        A journal without work is removed, or any without `keep`. A session that goes on needs another recorder
        or None.
        """
        if self._file < 0:
            return
        try:
            if self._count > 1 and keep:
                self({"step": "close"})
                if self.sync != "never":
                    os.fsync(self._file)
        finally:
            os.close(self._file)
            self._file = -1
            if self._count <= 1 or not keep:
                self.path.unlink(missing_ok=True)

    def flush(self) -> Callable[[], None]:
        """What waits until the disk holds all that was written so far, to be called once, in any thread."""
        file = os.dup(self._file)

        def wait() -> None:
            try:
                os.fsync(file)
            finally:
                os.close(file)

        return wait

    def abandon(self) -> None:
        """Stop writing without a closing line, as a crash does: it stays to be restored."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _open(self, flags: int) -> None:
        """Open and lock the file."""
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0) | flags, 0o644)
        except OSError as error:
            if flags & os.O_CREAT:
                raise
            raise OSError(
                f"work goes on in its journal, and {self.path} cannot be written ({error.strerror}); make it writable, "
                f"or get the labels with: napari-delse replay {self.path.name} --out labels.tif"
            ) from error
        try:
            if not _filelock.lock(self._file):
                raise ValueError(f"{self.path} is being written by another napari window; close it there first")
        except BaseException:
            self.abandon()
            raise


def is_draft(entry: dict[str, Any]) -> bool:
    """Whether an entry is about the object in progress only."""
    kind = entry["action"]["kind"] if "action" in entry else entry.get("kind")
    return kind in ("draft", "reopen")


def start(
    session: AnnotationSession,
    image: Identity,
    path: Path | str | None = None,
    *,
    blank: bool | None = None,
    model: str = "",
    weights: str = "",
    sync: Sync = "objects",
) -> Journal:
    """Begin a journal of a session; what it did already is written first.

    Parameters
    ----------
    session : AnnotationSession
        Its `recorder` becomes the journal.
    image : Identity
        What is annotated.
    path : path, optional
        A file or a folder, such as that of the image; `user_journals` by default.
    blank : bool, optional
        Whether the labels were all 0 before the session; by default, if no label is known.
    model, weights : str
        Name of the model, and `weights_hash` of it.
    sync : {"always", "objects", "never"}
        See `Journal`.

    Raises
    ------
    OSError
        If the file exists already or cannot be written.
    """
    from napari_delse import __version__

    header = Header(
        image=image,
        shape=tuple(session.store.shape),
        dtype=np.dtype(session.store.dtype).str,
        blank=session.largest_found == 0 if blank is None else blank,
        largest=session.largest_found,
        policy=session.policy,
        model=model,
        weights=weights,
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    journal = create(header, path, sync)
    try:
        for entry in so_far(session):
            journal(entry)
    except BaseException:
        journal.abandon()
        journal.path.unlink(missing_ok=True)
        raise
    session.recorder = journal
    return journal


def create(header: Header, path: Path | str | None = None, sync: Sync = "objects") -> Journal:
    """Begin a journal with its first line; what its session did since then is still to be written.

    Parameters
    ----------
    header : Header
        The first line.
    path, sync
        See `start`.

    Raises
    ------
    OSError
        If the file exists already or cannot be written.
    """
    now = datetime.now(UTC)
    place = user_journals() if path is None else Path(path)
    if place.suffix != ".jsonl":
        stem = re.sub(r"[^\w.-]+", "_", header.image.name or "image")[:80]
        place /= f"{stem}-{now:%Y%m%d-%H%M%S-%f}-{os.getpid()}{SUFFIX}"
    place.parent.mkdir(parents=True, exist_ok=True)
    journal = Journal(place, header, sync)
    journal._open(os.O_CREAT | os.O_EXCL)
    try:
        journal({"step": "open", "format": FORMAT, **asdict(header)})
    except BaseException:
        journal.abandon()
        place.unlink(missing_ok=True)
        raise
    return journal


def so_far(session: AnnotationSession) -> Iterator[dict[str, Any]]:
    """What a recorder would have been told of a session that is as it is now."""
    for action in (*session.actions, *session.undone):
        yield {"step": "do", "action": action_to_json(action)}
    left = list(reversed(session.undone))
    for action, following in zip(left, (*left[1:], None), strict=False):
        if following is None or not run_of(action) or run_of(action) != run_of(following):
            yield {"step": "undo", "kind": action.kind}


# ---------------------------------------------------------------- restoring


def repeat(contents: Contents, session: AnnotationSession, *, write: bool) -> None:
    """Bring a new session to where the journal ends."""
    entries = contents.entries
    for number, entry in enumerate(entries):
        failed = number + 1 < len(entries) and entries[number + 1]["step"] == "failed"
        if failed or entry["step"] in ("failed", "close", "resume", "model"):
            continue
        try:
            session.repeat(entry, write=write)
        except (KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise ValueError(f"{contents.path}, line {number + 2} cannot be done again: {error}") from error


def restore(
    path: Path | str, store: LabelStore, *, write: bool = True, resume: bool = True, sync: Sync = "objects"
) -> AnnotationSession:
    """The session of a journal: objects, draft, undo and redo as they were.

    Parameters
    ----------
    path : path
        The journal.
    store : LabelStore
        Labels as they were at the beginning or at any time since (each pixel for itself): they are brought to the
        end. Pixels that were painted otherwise since then are kept. Of the type `Contents.dtype` or a wider one.
    write : bool
        Change the labels; else the store is taken to hold the end, such as the array of `replay`.
    resume : bool
        Go on writing to the journal: it becomes the session's `recorder`.
    sync : {"always", "objects", "never"}
        See `Journal`.

    Raises
    ------
    ValueError
        If the journal is damaged, belongs to other labels, or is being written by another window.
    """
    path = Path(path)
    journal = Journal(path, read(path).header, sync) if resume else None
    if journal is not None:
        journal._open(0)
    try:
        contents = read(path)  # under the lock
        contents.check(tuple(store.shape), np.dtype(store.dtype))
        session = AnnotationSession(store, largest=contents.header.largest, policy=contents.header.policy)
        repeat(contents, session, write=write)
        if journal is not None:
            _go_on(journal, contents)
            session.recorder = journal
    except BaseException:
        if journal is not None:
            journal.abandon()
        raise
    return session


def resume(path: Path | str, sync: Sync = "objects") -> Journal:
    """Go on writing to a journal, also to one that was closed; its session is there already.

    Parameters
    ----------
    path : path
        The journal.
    sync : {"always", "objects", "never"}
        See `Journal`.

    Raises
    ------
    OSError, ValueError
        If it cannot be written, is damaged, or is being written by another window.
    """
    journal = Journal(Path(path), read(path).header, sync)
    journal._open(0)
    try:
        _go_on(journal, read(path))  # under the lock
    except BaseException:
        journal.abandon()
        raise
    return journal


def _go_on(journal: Journal, contents: Contents) -> None:
    """Cut off what was torn, and append."""
    os.ftruncate(journal._file, contents.end)
    with contents.path.open("rb") as file:
        file.seek(contents.end - 1)
        whole = file.read(1) == b"\n"
    if not whole:
        os.write(journal._file, b"\n")
    journal._count = len(contents.entries) + 1
    journal({"step": "resume"})


def dismiss(path: Path | str) -> None:
    """Say of an unfinished journal that it is not to be restored; the file stays.

    Raises
    ------
    OSError, ValueError
        If it cannot be written, is damaged, or is being written by another window.
    """
    resume(path, "never").close()


@dataclass(frozen=True)
class Unfinished:
    """A journal that was not closed.

    Parameters
    ----------
    path : Path
        The file.
    header : Header
        Its first line.
    modified : float
        When it was last written, seconds since 1970.
    """

    path: Path
    header: Header
    modified: float


def unfinished(
    image: Identity | None = None, folders: Iterable[Path | str] = (), unreadable: list[ValueError] | None = None
) -> list[Unfinished]:
    """Journals whose work did not end well and that nobody is writing, the newest first.

    Parameters
    ----------
    image : Identity, optional
        Only journals of this image. Its folder is looked into besides.
    folders : iterable of path
        Further folders; `user_journals` always is one.
    unreadable : list, optional
        Is given why journals that were not closed are left out, such as those whose first line is damaged.
    """
    places = [user_journals(), *map(Path, folders)]
    if image is not None and image.path:
        places.append(Path(image.path).parent)
    found = []
    for path in {file.resolve() for place in places if place.is_dir() for file in place.glob(f"*{SUFFIX}")}:
        try:
            with path.open("rb") as file:
                first = parsed(file.readline(), 0)
                begun = file.tell()
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                last = file.read()
            if size <= begun or b'"step":"close"}' in last.splitlines()[-1]:
                continue
            if first is None:
                raise ValueError("its first line, which says what it belongs to, is damaged")
            header = header_of(path, first)
            if (image is None or header.image.is_like(image)) and not _filelock.is_locked(path):
                found.append(Unfinished(path, header, path.stat().st_mtime))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if unreadable is not None:
                unreadable.append(ValueError(f"{path} cannot be read ({error}); mend it, or move it elsewhere"))
    return sorted(found, key=lambda one: -one.modified)
