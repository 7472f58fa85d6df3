"""Train one epoch of a thin network from given weights, on any backend, and print its losses.

    KERAS_BACKEND=jax python tests/first_epoch.py initial.weights.h5 hdf5

Where there is no file of weights yet, it is written first.
"""

import json
import sys
from pathlib import Path

from with_recipes import config, import_keras_and_shorten_network

RECIPE = config.RECIPES["thin"].replaced({"network.dropout": 0.0, "optimizer.learning_rate": 0.01})


def main(weights: Path, hdf5: Path) -> None:
    """Print the training and the validation loss after an epoch."""
    import_keras_and_shorten_network()
    from pipeline.evaluation.metrics import evaluate
    from pipeline.io.hdf5_dataset import open_training_splits
    from pipeline.io.hdf5_generator import HDF5Generator
    from pipeline.run.start import fresh_run
    from pipeline.run.training import build_model, training_batches

    train_set, val_set = open_training_splits(hdf5)
    state = fresh_run("own", RECIPE, 1, train_set, val_set)
    batches = training_batches(train_set, state)
    val = HDF5Generator(val_set, 16, image_size=state.recipe.image_size)
    model = build_model(state, len(batches))
    if not weights.exists():
        model.save_weights(weights)
    model.load_weights(weights)
    history = model.fit(batches.for_fit(), shuffle=False, verbose=0).history
    losses = {"loss": history["cross_entropy"][0], "val_loss": evaluate(model, val).loss}
    print(json.dumps(losses))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
