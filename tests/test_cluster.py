"""A real dask cluster on this machine: the same labels as one process, also when a worker dies."""

import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

import napari_delse
from napari_delse import cli
from napari_delse.checkpoint import model_fingerprint, save_model
from napari_delse.geometry import CropConfig
from napari_delse.model import ARCHITECTURES, Architecture, Delse, ModelConfig
from napari_delse.predict import Predictor
from napari_delse.stacks import cluster
from napari_delse.stacks.batches import Job, Outcome, Progress, Threads, run
from napari_delse.stacks.cluster import Cluster

pytest.importorskip("distributed")
TINY = Architecture("basic", (1, 1, 1, 1), (8, 8, 16, 16), 8, False, 5, 8, 0, True, 8, 8, 2)
SOURCE = str(Path(napari_delse.__file__).parents[1])


def dask(command, *arguments):
    """A process of dask's own command line."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (SOURCE, os.environ.get("PYTHONPATH")))),
        "PYTHONWARNINGS": "ignore",
        "DASK_DISTRIBUTED__SCHEDULER__DASHBOARD__ENABLED": "false",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "dask", command, *arguments],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def ended(process):
    """Ends a process, however it goes."""
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def address():
    """A scheduler without workers."""
    with ended(dask("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--no-show")) as process:
        for line in process.stderr:
            if found := re.search(r"Scheduler at: +(tcp://\S+)", line):
                yield found[1]
                return
        raise AssertionError("the scheduler did not start")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A tiny model, and the code with which a worker knows its architecture."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", TINY)
    torch.manual_seed(1)
    folder = save_model(tmp_path / "model", Delse(ModelConfig(architecture="tiny", crop=CropConfig(size=64))), {})
    (tmp_path / "tiny.py").write_text(
        f"from napari_delse.model import ARCHITECTURES, Architecture\nARCHITECTURES['tiny'] = {TINY!r}\n"
    )
    return folder


def worker(address, model):
    plain = ("--nthreads", "1", "--no-nanny", "--no-dashboard", "--memory-limit", "0")
    return dask("worker", address, *plain, "--preload", str(model.with_name("tiny.py")))


@pytest.fixture
def job(tmp_path):
    """Disks in four planes, and coarse labels of them."""
    y, x = np.mgrid[:60, :120]
    labels = np.zeros((4, 60, 120), np.uint8)
    for i in range(3):
        labels[:, (y - 30) ** 2 + (x - 20 - 40 * i) ** 2 < 150 + 20 * i] = i + 1
    noise = np.random.default_rng(0).normal(100, 10, labels.shape)
    stack = {"photometric": "minisblack", "metadata": {"axes": "ZYX"}}
    tifffile.imwrite(tmp_path / "image.tif", (noise + 80 * (labels > 0)).astype(np.uint8), **stack)
    tifffile.imwrite(tmp_path / "coarse.tif", labels, **stack)
    labels[1:3] = 0
    tifffile.imwrite(tmp_path / "keys.tif", labels, **stack)
    return Job(tmp_path / "image.tif", "labels", tmp_path / "coarse.tif", tmp_path / "local.tif")


def made(job, engine):
    *_, last = run([job], engine)
    if last.error is not None:
        raise last.error
    return job.out.read_bytes()


def test_a_cluster_that_loses_a_worker_gives_the_labels_of_one_process(address, job, model, monkeypatch):
    monkeypatch.setattr("napari_delse.stacks.planes.BLOCK", 2)
    carried = replace(job, mode="propagate", prompts=job.prompts.with_name("keys.tif"))
    with ExitStack() as stack:
        workers = [stack.enter_context(ended(worker(address, model))) for _ in range(2)]
        engine = stack.enter_context(Cluster(address, model, "cpu"))
        engine._client.wait_for_workers(2, timeout=300)
        steps = run([replace(job, out=job.out.with_name("cluster.tif"))], engine)
        assert isinstance(next(steps), Progress)
        os.kill(workers[0].pid, signal.SIGKILL)
        *_, last = steps
        assert isinstance(last, Outcome)
        assert last.status == "done", last.error
        far = job.out.with_name("carried.tif")
        options = ("--scheduler", address, "--model", model, "--device", "cpu")
        with pytest.raises(SystemExit) as left:
            cli.main(list(map(str, ("segment", job.image, "-p", f"propagate:{carried.prompts}", "-o", far, *options))))
        assert left.value.code == 0
    near = Threads(Predictor.load(model, "cpu", 1), model_fingerprint(model))
    assert made(job, near) == job.out.with_name("cluster.tif").read_bytes()
    assert made(replace(carried, out=job.out.with_name("near.tif")), near) == far.read_bytes()
    assert tifffile.imread(job.out).any(axis=(1, 2)).all()
    assert tifffile.imread(job.out.with_name("near.tif")).any(axis=(1, 2)).all()


def test_what_workers_lack_is_said(address, job, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    with Cluster(address, "default", "cpu") as engine:
        with pytest.raises(RuntimeError, match="no worker for 1 s; start workers with 'dask worker tcp"):
            made(job, engine)
        source = cluster.Source(str(tmp_path / "no.tif"), "ZYX", (), "", "default", engine.model, "cpu")
        with pytest.raises(FileNotFoundError, match=r"a worker misses a file .*no.tif.*; workers read images"):
            cluster.predict_on_worker(source, None)
        with pytest.raises(ValueError, match="another image"):
            cluster.predict_on_worker(replace(source, path=str(job.image)), None)
        with pytest.raises(ValueError, match="another model"):
            cluster.predict_on_worker(replace(source, fingerprint="0"), None)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch):
    monkeypatch.setattr(cluster, "_ANSWER", 0.5)
    address = "tcp://127.0.0.1:9"
    with pytest.raises(OSError, match=f"no dask scheduler answers at {address}"), Cluster(address):
        pass
