"""What is written aside: complete or absent, whoever else writes, and never in the way."""

import os
import subprocess
import sys
import threading

import pytest

from napari_delse import _filelock
from napari_delse._writing import aside, new_folder, write_atomically


def test_what_fails_leaves_the_former_file_and_nothing_else(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("former")

    def fail(new):
        new.write_text("half")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        write_atomically(file, fail)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("notes.txt", "former")]


def test_an_error_names_the_file_and_not_the_hidden_one(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "notes.txt", lambda new: None)
    assert caught.value.filename == str(tmp_path / "notes.txt")


def test_two_threads_write_one_file_without_meeting(tmp_path):
    file, both = tmp_path / "notes.txt", threading.Barrier(2, timeout=30)
    failed = []

    def write(text):
        def slowly(new):
            new.write_text(text)
            both.wait()

        try:
            write_atomically(file, slowly)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert file.read_text() in ("one", "two")


def test_the_disk_holds_a_file_before_it_gets_its_name(tmp_path, monkeypatch):
    file, seen = tmp_path / "notes.txt", []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda number: (seen.append(file.exists()), real(number)))
    write_atomically(file, lambda new: new.write_text("x"))
    assert seen == [False]


def test_a_folder_takes_the_place_of_a_folder_but_a_file_does_not(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    with aside(tmp_path / "out") as new:
        new.mkdir()
        (new / "new").touch()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["new"]
    with pytest.raises(OSError, match="out"):
        write_atomically(tmp_path / "out", lambda new: new.write_text("x"))
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


KILLED = """
import os, sys
from pathlib import Path
from napari_delse._writing import new_folder
with new_folder(Path(sys.argv[1]), "cells") as folder:
    (folder / "pack").write_bytes(b"x" * 1000)
    os._exit(9)
"""


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(list(tmp_path.glob(".cells.*.making"))) == 1
    (tmp_path / ".mine.making").mkdir()
    with new_folder(tmp_path, "cells") as first:
        assert {path.name for path in tmp_path.glob("*.making")} == {".mine.making", first.name}
        with new_folder(tmp_path, "cells") as second:
            assert first.is_dir()
            (second / "pack").touch()
            second.rename(tmp_path / "cells")
    assert {path.name for path in tmp_path.iterdir()} == {".mine.making", "cells"}


def test_nothing_is_removed_where_locks_do_not_work(tmp_path, monkeypatch):
    left = tmp_path / ".cells.1-01234567.making"
    left.mkdir()
    monkeypatch.setattr(_filelock, "_try", lambda *_, **__: True)  # as it answers there
    with new_folder(tmp_path, "cells"):
        pass
    assert left.is_dir()


def test_files_that_are_being_written_aside_are_not_taken_for_what_a_killed_process_left(tmp_path):
    with aside(tmp_path / "labels.ome.zarr") as new:
        new.mkdir()
        with new_folder(tmp_path, "cells"):
            assert new.is_dir()
