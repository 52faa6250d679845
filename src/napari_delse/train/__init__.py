"""Training from the first step to the last, for recipes and for fine-tuning: crops, loop, state and log.

Imports the model, its losses and `data`. `fit` and its settings are at home in `loop` and `config`, and offered here.
"""

from napari_delse.train.config import LossConfig, TrainConfig, TrainProgress
from napari_delse.train.loop import fit

__all__ = ["LossConfig", "TrainConfig", "TrainProgress", "fit"]
