"""Files and folders that are written aside and then renamed: complete or absent, also after a power cut."""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from napari_delse import _filelock

_LEFT = re.compile(r"\..+\.\d+-[0-9a-f]{8}\.making")
_NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # file systems that cannot wait for their disk


def beside(path: Path, end: str = "part") -> Path:
    """A hidden name beside a path that nobody else uses, not even another thread of this process."""
    return path.with_name(f".{path.name}.{os.getpid()}-{uuid4().hex[:8]}.{end}")


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A path beside ``path`` whose file or folder takes its place if nothing fails, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = beside(path)
    try:
        yield new
        if new.is_dir() and path.is_dir():  # folders cannot be replaced in one step
            old = beside(path, "old")
            path.rename(old)
            try:
                new.rename(path)
            except BaseException:
                old.rename(path)
                raise
            shutil.rmtree(old)
        else:
            _settle(new)
            new.replace(path)
    except OSError as error:
        if error.filename == str(new) or error.filename == new:  # nobody knows the hidden name
            error.filename = str(path)
        raise
    finally:
        if new.is_dir():
            shutil.rmtree(new)
        else:
            new.unlink(missing_ok=True)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write(temporary path)``, then move the result into place."""
    with aside(path) as new:
        write(new)


def _settle(path: Path) -> None:
    """Wait until the disk holds a file: else a power cut may leave its new name with nothing behind it."""
    if path.is_dir():
        return
    # Windows syncs only what may be written, and others may link to what may only be read.
    file = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(file)


@contextmanager
def new_folder(root: Path, name: str) -> Iterator[Path]:
    """A hidden folder in ``root`` to fill and to rename, or something in it; what is left of it is removed in the end.

    What processes that were killed have left of theirs is removed before.
    """
    root.mkdir(parents=True, exist_ok=True)
    folder = beside(root / name, "making")
    held = folder.with_suffix(".lock")
    file = os.open(held, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
    try:
        if _filelock.lock(file) and _filelock.is_locked(held):  # else locks do not work here: who knows who lives?
            _remove_left(root)
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(file)
        held.unlink(missing_ok=True)


def _remove_left(root: Path) -> None:
    """Remove hidden folders whose locks nobody holds: a process takes the lock before it makes the folder."""
    for folder in root.iterdir():
        held = folder.with_suffix(".lock")
        with suppress(OSError):  # somebody else removes it, or may do so alone
            if _LEFT.fullmatch(folder.name) and folder.is_dir() and not (held.exists() and _filelock.is_locked(held)):
                shutil.rmtree(folder)
                held.unlink(missing_ok=True)
