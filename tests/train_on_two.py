"""What each of two processes does in `test_two_processes_train_as_one`; started by torchrun with a folder."""

import faulthandler
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from test_train import CONFIG, TINY, disks, model

from napari_delse import cli
from napari_delse.checkpoint import write_tensors
from napari_delse.model import ARCHITECTURES
from napari_delse.train import loop
from napari_delse.train.distributed import joined

faulthandler.dump_traceback_later(300, exit=True)  # if they wait for each other for ever, say where
ARCHITECTURES["tiny"] = TINY
folder = Path(sys.argv[1])
states = []


class Watched(loop.TrainingState):
    """Keeps the state of every run, to look at its average."""

    def __init__(self, *args):
        super().__init__(*args)
        states.append(self)


loop.TrainingState = Watched
found = {}
with joined(torch.device("cpu")) as (world, device):
    pack = disks()

    def train(name, pack=pack, stop=None, **changes):
        torch.manual_seed(world.rank)  # each process starts with weights of its own, until they are made equal
        network = model(seed=world.rank)
        config = replace(CONFIG, steps=4, **changes)
        progress = itertools.islice(loop.fit(network, pack, config, folder / name, device=device, world=world), stop)
        return network, [p.loss for p in progress]

    whole, losses = train("whole")
    write_tensors(folder / f"whole-{world.rank}.safetensors", whole.state_dict())
    write_tensors(folder / f"average-{world.rank}.safetensors", states[0].average.state_dict())
    _, first = train("parts", stop=2)
    resumed, rest = train("parts")
    write_tensors(folder / f"parts-{world.rank}.safetensors", resumed.state_dict())
    found = {"losses": losses, "parts": first + rest}
    *_, timed = train("timed", minutes=1e-4)
    found["timed"] = len(timed)
    broken = pack._replace(hull=pack.hull * float("nan" if world.rank else 1))
    try:
        train("broken", broken)
    except FloatingPointError as error:
        found["error"] = str(error)
    try:
        cli.main(["train", str(folder / "recipe.toml"), "--device", "cpu"])
    except SystemExit as left:
        found["code"] = left.code
(folder / f"found-{world.rank}.json").write_text(json.dumps(found))
