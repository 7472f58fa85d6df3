"""Run a script as a user who added recipes to the config: thin forms of the real ones.

    python tests/with_recipes.py model_train.py -r thin-published ...

All but "thin" have every feature of their model (dropout, augmentation, schedule, weight decay,
Muon, mixed precision, image sizes). Images are small, epochs few, and the network is thin
and has one inception module a stage, for most of a short run is the compiling of the network. The
environment variable EDITED changes one value, as a user may: RECIPE PART FIELD VALUE.
"""

import ast
import importlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from config import setup_config as config
from pipeline import backend, command_line

THIN = {"epochs": 3, "batch_size": 16, "network.width": 0.07, "network.stem": "paper"}
ONE_SIZE, TWO_SIZES = ({"image_sizes": sizes} for sizes in (((1, 32),), ((1, 32), (3, 48))))
CHANGES = {
    "thin-published": ("published", ONE_SIZE, {"optimizer.rate_drops": ((2, 1e-4), (3, 1e-5))}),
    "thin-best": ("best", TWO_SIZES, {"augmentation.mixed_from": 2}),
    "thin-quick": ("quick", TWO_SIZES, {"network.dtype": "mixed_bfloat16"}),
    "thin": (
        "quick",
        ONE_SIZE,
        {
            "network.dtype": "float32",
            "optimizer.name": "sgd",
            "optimizer.learning_rate": 0.1,
        },
    ),
}
for name, (recipe, sizes, values) in CHANGES.items():
    config.RECIPES[name] = config.RECIPES[recipe].replaced({**THIN, **sizes, **values})
config.RECIPES["thin-long"] = replace(config.RECIPES["thin"], epochs=500)
if edited := os.environ.get("EDITED"):
    name, part, field, value = edited.split(maxsplit=3)
    recipe = config.RECIPES[name]
    values = replace(getattr(recipe, part), **{field: ast.literal_eval(value)})
    config.RECIPES[name] = replace(recipe, **{part: values})


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
