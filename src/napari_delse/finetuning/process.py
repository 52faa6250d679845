"""Training in a process of its own, with low priority: a viewer stays fluid, and no crash of it harms the viewer.

The child is ``python -m napari_delse train --job FOLDER --progress jsonl``. It writes one JSON object a line to its
standard output and obeys lines on its standard input: ``stop`` (save, go on another time) and ``finish`` (end with the
best model so far). When its input is closed, because its parent ended however it did, it stops as well. So no signals
are needed, which Windows lacks; SIGTERM does the same where it exists.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Self, TextIO

from napari_delse.checkpoint import out_of_memory
from napari_delse.finetuning.jobs import Job, open_job
from napari_delse.finetuning.run import JobProgress, finish, run

COMMAND = (sys.executable, "-m", "napari_delse")
_NICENESS = 10
_PATIENCE = 60.0  # seconds that a child has to save and end


class TrainingError(RuntimeError):
    """A training ended by an error, which the message tells in one sentence; it can be gone on with."""


# ---------------------------------------------------------------- child


class _Orders:
    """What the parent said last."""

    def __init__(self, stdin: TextIO) -> None:
        self.said = ""
        self._stdin = stdin
        threading.Thread(target=self._listen, name="napari-delse-orders", daemon=True).start()

    def __enter__(self) -> Self:
        self._main = threading.current_thread() is threading.main_thread()
        if self._main:  # others may not ask for signals
            self._former = signal.signal(signal.SIGTERM, lambda *_: self._take("stop"))
        return self

    def __exit__(self, *_: object) -> None:
        if self._main:
            signal.signal(signal.SIGTERM, self._former)

    def _take(self, order: str) -> None:
        if self.said != "finish":
            self.said = order

    def _listen(self) -> None:
        with suppress(OSError, ValueError):
            for line in self._stdin:
                if line.strip() in ("stop", "finish"):
                    self._take(line.strip())
        self._take("stop")


def serve(folder: Path | str, device: str = "auto", stdin: TextIO | None = None, out: TextIO | None = None) -> int:
    """Train in a job's folder as a child: lines of JSON out, orders in.

    Parameters
    ----------
    folder : path
        Of the job.
    device : str
        Where to train.
    stdin, out : text file, optional
        By default those of the process.

    Returns
    -------
    int
        0 when it ended or was stopped, 2 after an error, which the last line tells.
    """
    _be_modest()
    target = out or sys.stdout

    def tell(kind: str, **content: Any) -> None:
        print(json.dumps({"kind": kind, **content}), file=target, flush=True)

    try:
        with _Orders(stdin or sys.stdin) as orders:
            _obey(Path(folder), device, orders, tell)
    except BrokenPipeError:  # nobody listens any more: what was done is saved
        return 0
    except (ValueError, OSError, RuntimeError, MemoryError, ArithmeticError, ImportError) as error:
        if os.environ.get("NAPARI_DELSE_DEBUG"):
            raise
        tell("error", text=_sentence(error))
        return 2
    return 0


def _obey(folder: Path, device: str, orders: _Orders, tell: Callable[..., None]) -> None:
    with closing(run(folder, device=device)) as steps:
        for progress in steps:
            tell("progress", **progress.to_json())
            if progress.done:
                return
            if orders.said:
                break
    if orders.said == "finish":
        tell("outcome", **finish(folder, device=device).to_json())
    else:
        tell("stopped")


def _be_modest() -> None:
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICENESS)


def _sentence(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    if out_of_memory(error):
        return "the memory does not suffice even for small batches; close other programs, or train with a smaller size"
    return " ".join(str(error).split()) or type(error).__name__


# ---------------------------------------------------------------- parent


class TrainingProcess:
    """A training in a child process.

    Parameters
    ----------
    job : Job, path or str
        What to train.
    device : str
        Where to train.

    Examples
    --------
    >>> training = TrainingProcess(job)  # doctest: +SKIP
    >>> for progress in training.progress():  # in a worker thread
    ...     print(progress.fraction, progress.now.mean_iou)  # doctest: +SKIP
    """

    def __init__(self, job: Job | Path | str, device: str = "auto") -> None:
        self.job = job if isinstance(job, Job) else open_job(job)
        command = [*COMMAND, "train", "--job", str(self.job.folder)]
        self._log = self.job.folder / "child.log"
        with self._log.open("ab") as log:
            self._child = subprocess.Popen(
                [*command, "--progress", "jsonl", "--device", device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                encoding="utf-8",
                **_apart(),
            )
        self._asked = ""  # the last order

    @property
    def pid(self) -> int:
        """Of the child."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Whether it trains or still saves."""
        return self._child.poll() is None

    def stop(self) -> None:
        """Ask it to save and end; it can be gone on with. Returns at once."""
        self._say("stop")

    def finish(self) -> None:
        """Ask it to end with the best model so far; the last progress has the outcome. Returns at once."""
        self._say("finish")

    def kill(self) -> None:
        """End it at once; what it saved last stays. Returns at once."""
        self._child.kill()

    def _say(self, order: str) -> None:
        self._asked = order
        with suppress(OSError, ValueError):  # it has ended
            assert self._child.stdin is not None
            self._child.stdin.write(order + "\n")
            self._child.stdin.flush()

    def progress(self) -> Iterator[JobProgress]:
        """What it tells, until it ends; waits, so not on a GUI thread. Closed, it asks the child to stop and waits.

        Raises
        ------
        TrainingError
            If it ended otherwise than by its end or an order.
        """
        assert self._child.stdout is not None
        last: JobProgress | None = None
        failed, is_judged = "", False
        try:
            for line in self._child.stdout:
                kind, content = _parsed(line)
                if kind == "progress":
                    last = JobProgress.from_json(content)
                    is_judged = last.done
                    yield last
                elif kind == "outcome" and last is not None:
                    is_judged = True
                    yield JobProgress.from_json({**last.to_json(), "outcome": content, "scored": True})
                elif kind == "error":
                    failed = str(content["text"])
        finally:
            code = self._end()
        if failed:
            raise TrainingError(failed)
        if self._asked == "finish" and not is_judged:
            raise TrainingError(
                f"the training ended before its best model was judged (code {code}); end it again, or go on from its "
                f"last checkpoint; {self._log} may say more"
            )
        if code and not self._asked:
            raise TrainingError(
                f"the training ended unexpectedly (code {code}, perhaps for lack of memory); it can go on from its "
                f"last checkpoint, and {self._log} may say more"
            )

    def _end(self) -> int:
        """Close its input, which stops it, and wait."""
        for pipe in (self._child.stdin, self._child.stdout):
            with suppress(OSError):
                if pipe is not None:
                    pipe.close()
        try:
            return self._child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()


def _parsed(line: str) -> tuple[str, dict[str, Any]]:
    """Kind and content of a line; other lines have the kind ""."""
    try:
        content = json.loads(line)
        return str(content.pop("kind")), content
    except (ValueError, KeyError, AttributeError):
        return "", {}


def _apart() -> dict[str, Any]:
    """Keep a terminal's Ctrl-C from the child; low priority where a process cannot lower its own."""
    if sys.platform == "win32":
        flags = subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
        return {"creationflags": flags | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def watch(
    job: Job | Path | str, device: str = "auto", started: Callable[[TrainingProcess], object] | None = None
) -> Iterator[JobProgress]:
    """Train in a child process, as a generator for a worker thread; closing it saves and stops the child.

    Parameters
    ----------
    job : Job, path or str
        What to train.
    device : str
        Where to train.
    started : callable, optional
        Called with the `TrainingProcess`, whose `stop` and `finish` return at once.
    """
    training = TrainingProcess(job, device)
    if started is not None:
        started(training)
    yield from training.progress()
