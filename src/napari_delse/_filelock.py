"""Locks on open files that end with the process, however it ends."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_FAR = 2**40  # Windows locks bytes, also beyond the end, and nobody can read them: lock one that is never written

if sys.platform == "win32":
    import msvcrt

    def _try(file: int, *, shared: bool) -> bool:
        position = os.lseek(file, 0, os.SEEK_CUR)
        os.lseek(file, _FAR, os.SEEK_SET)
        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            if shared:
                os.lseek(file, _FAR, os.SEEK_SET)
                msvcrt.locking(file, msvcrt.LK_UNLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(file, position, os.SEEK_SET)
        return True

else:
    import fcntl

    def _try(file: int, *, shared: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # file systems without locks: rather no protection than no journal
            return True
        return True


def lock(file: int) -> bool:
    """Lock an open file for this process until it is closed; False if somebody else has it."""
    for attempt in range(3):  # somebody may just be asking `is_locked`
        if attempt:
            time.sleep(0.02)
        if _try(file, shared=False):
            return True
    return False


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file."""
    binary = getattr(os, "O_BINARY", 0)
    try:
        file = os.open(path, os.O_RDWR | binary)
    except OSError:  # such as on a disk that may only be read
        file = os.open(path, os.O_RDONLY | binary)
    try:
        return not _try(file, shared=True)
    finally:
        os.close(file)
