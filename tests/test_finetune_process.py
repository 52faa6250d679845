"""A training in a child process: it obeys, survives being killed, and ends with its parent."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from napari_delse.finetuning import process
from napari_delse.finetuning.config import FineTuneConfig
from napari_delse.finetuning.jobs import open_job, prepare
from napari_delse.finetuning.labelled_sources import ArraySource
from napari_delse.finetuning.process import TrainingError, serve, watch
from napari_delse.finetuning.run import run

COMMAND = (sys.executable, str(Path(__file__).with_name("tiny_cli.py")))
CONFIG = FineTuneConfig(steps=400, replay=0, interactive_share=0, minutes=1e-4, batch_size=2, score_objects=2)


@pytest.fixture
def job(disks, tiny_parent, own_home, monkeypatch):
    """A training that is scored and saved at every step, and would take minutes."""
    monkeypatch.setattr(process, "COMMAND", COMMAND)
    return prepare(ArraySource(*disks(4), name="disks"), CONFIG, parent=tiny_parent)


def test_killed_in_the_middle_it_loses_nothing_that_was_saved(job):
    children = []
    seen = []

    def watch_and_kill():
        for progress in watch(job, "cpu", children.append):
            seen.append(progress)
            if progress.step >= 3:
                os.kill(children[0].pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    with pytest.raises(TrainingError, match=r"ended unexpectedly \(code -?\d+, perhaps for lack of memory\)"):
        watch_and_kill()
    assert open_job(job.folder).state == "paused"
    resumed = run(job)
    first = next(resumed)
    assert first.step >= seen[-1].step >= 3
    assert first.before == seen[-1].before
    assert first.best.mean_iou >= seen[-1].best.mean_iou
    following = next(resumed)
    assert following.step == first.step + 1
    resumed.close()
    rows = [row["step"] for row in job.history()]
    assert rows == sorted(set(rows))


def test_killed_while_its_best_model_is_judged_it_says_so(job):
    children = []

    def finish_and_kill():
        for progress in watch(job, "cpu", children.append):
            if progress.step >= 1:
                children[0]._asked = "finish"  # as if the order came just before
                children[0].kill()

    with pytest.raises(TrainingError, match="ended before its best model was judged"):
        finish_and_kill()
    assert open_job(job.folder).state == "paused"


def test_closed_it_is_saved_and_goes_on_elsewhere(job):
    steps = watch(job, "cpu")
    while (last := next(steps)).step < 2:
        pass
    steps.close()
    assert job.state == "paused"
    assert next(run(job)).step >= last.step


def test_told_to_stop_the_modest_child_saves_and_ends(job):
    own = os.getpriority(os.PRIO_PROCESS, 0) if hasattr(os, "getpriority") else 0
    child = subprocess.Popen(
        [*COMMAND, "train", "--job", str(job.folder), "--progress", "jsonl", "--device", "cpu"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with child:
        for line in child.stdout:
            if json.loads(line)["step"] >= 1:
                break
        assert job.state == "running"
        if hasattr(os, "getpriority"):
            assert os.getpriority(os.PRIO_PROCESS, child.pid) >= min(19, own + 10)
        child.stdin.write("stop\n")
        child.stdin.flush()
        *_, last = child.stdout
    assert json.loads(last) == {"kind": "stopped"}
    assert child.returncode == 0
    assert job.state == "paused"
    assert len(job.history()) >= 2


class Output(io.StringIO):
    """Takes lines, and does something at the first step."""

    def __init__(self, act):
        super().__init__()
        self.act, self.lines = act, []

    def write(self, text):
        if text.strip():
            self.lines.append(json.loads(text))
            if self.lines[-1].get("step") == 1:
                self.act()
        return len(text)


class Never:
    """An input on which nobody ever says anything."""

    def __iter__(self):
        time.sleep(600)
        yield ""


@pytest.fixture
def served(monkeypatch):
    """Serve a job in this process; gives the exit code and the lines."""
    monkeypatch.setattr(process, "_be_modest", lambda: None)

    def call(job, stdin, act=lambda: None):
        out = Output(act)
        return serve(job.folder, "cpu", stdin, out), out.lines

    return call


@pytest.mark.parametrize("order", ["stop", "finish"])
def test_orders_are_obeyed_at_the_next_step(job, served, order):
    read, write = os.pipe()
    with os.fdopen(read) as orders, os.fdopen(write, "w") as sender:
        code, lines = served(job, orders, lambda: (sender.write(order + "\n"), sender.flush(), time.sleep(0.2)))
    assert code == 0
    assert [line["kind"] for line in lines[-2:]] == ["progress", {"stop": "stopped", "finish": "outcome"}[order]]
    assert job.state == {"stop": "paused", "finish": "finished"}[order]


def test_sigterm_is_an_order_to_stop(job, served):
    before = signal.getsignal(signal.SIGTERM)
    code, lines = served(job, Never(), lambda: signal.raise_signal(signal.SIGTERM))
    assert (code, lines[-1]["kind"]) == (0, "stopped")
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_error_is_the_last_line_and_one_sentence(job, served):
    (job.folder / "pack.safetensors").write_bytes(b"damaged")
    code, lines = served(job, Never())
    assert code == 2
    assert lines[-1]["kind"] == "error"
    assert "pack.safetensors holds no packed objects" in lines[-1]["text"]


def test_when_the_parent_dies_the_child_ends(job):
    code = f"""
import sys, time
from napari_delse.finetuning import process
process.COMMAND = {COMMAND!r}
for progress in process.watch({str(job.folder)!r}, "cpu"):
    print(progress.step, flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        for line in parent.stdout:
            if int(line) >= 1:
                break
        assert job.state == "running"
        parent.kill()
    for _ in range(120):
        if job.state != "running":
            break
        time.sleep(0.5)
    assert job.state == "paused"
