"""What files are recognised by when their content is too large to look at."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def state(path: Path) -> list[int]:
    """Number, size and date of a file, or of all files of a Zarr folder but its labels."""
    if not path.is_dir():
        stat = path.stat()
        return [1, stat.st_size, stat.st_mtime_ns]
    number = size = date = 0
    for folder, folders, names in os.walk(path):
        if Path(folder) == path and "labels" in folders:
            folders.remove("labels")
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if name in ("zarr.json", ".zattrs", ".zmetadata") and Path(folder) == path:
                continue  # which change when labels are added
            stat = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118 - there may be a million
            number, size, date = number + 1, size + stat.st_size, max(date, stat.st_mtime_ns)
    return [number, size, date]
