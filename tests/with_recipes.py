"""Run a script as a user who added recipes to the config: thin forms of the real ones.

    python tests/with_recipes.py model_train.py -r thin-published ...

All but "thin" have every feature of their model (dropout, augmentation, schedule, averaging, weight
decay, Muon, mixed precision, image sizes). Images are small, epochs few, and the network is thin
and has one inception module a stage, for most of a short run is the compiling of the network. The
environment variable EDITED names a recipe and changes one value of it, as a user may between runs.
"""

import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import setup_config as config
from pipeline import backend, command_line

THIN = {"width": 0.07, "batch_size": 16}
config.RECIPES |= {
    "thin-published": replace(
        config.RECIPES["published"],
        **THIN,
        epochs=3,
        stem="paper",
        rate_drops=((2, 1e-4), (3, 1e-5)),
        image_sizes=((1, 32),),
    ),
    "thin-best": replace(
        config.RECIPES["best"],
        **THIN,
        epochs=3,
        stem="paper",
        warmup_epochs=1,
        averaging=0.9,
        image_sizes=((1, 32), (3, 48)),
    ),
    "thin-quick": replace(
        config.RECIPES["quick"],
        **THIN,
        epochs=3,
        stem="paper",
        dtype="mixed_bfloat16",
        image_sizes=((1, 32), (3, 48)),
    ),
    "thin": replace(
        config.RECIPES["quick"],
        **THIN,
        epochs=3,
        stem="paper",
        dtype="float32",
        optimizer="sgd",
        learning_rate=0.1,
        warmup_epochs=0,
        image_sizes=((1, 32),),
    ),
}
config.RECIPES["thin-long"] = replace(config.RECIPES["thin"], epochs=500)
if edited := os.environ.get("EDITED"):
    config.RECIPES[edited] = replace(config.RECIPES[edited], label_smoothing=0.31)


def import_keras_and_shorten_network() -> ModuleType:
    keras = backend.import_keras()
    googlenet = importlib.import_module("pipeline.nn.googlenet")
    googlenet.STAGES = {
        stage: dict([next(iter(modules.items()))]) for stage, modules in googlenet.STAGES.items()
    }
    return keras


if __name__ == "__main__":
    script = importlib.import_module(Path(sys.argv.pop(1)).stem)
    script.import_keras = import_keras_and_shorten_network
    command_line.run_script(script.main)
