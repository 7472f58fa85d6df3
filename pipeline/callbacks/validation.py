"""Evaluate the model on the whole val split after each epoch."""

import keras

from pipeline.evaluation.metrics import evaluate
from pipeline.io.hdf5_generator import HDF5Generator


class Validation(keras.callbacks.Callback):
    """Adds ``val_loss``, ``val_accuracy`` and ``val_top5_accuracy`` to an epoch's logs.

    Args:
        batches: The val split's, in any order.
    """

    def __init__(self, batches: HDF5Generator) -> None:
        super().__init__()
        self._batches = batches

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the three metrics to ``logs``."""
        self._batches.begin_epoch(epoch + 1)
        scores = evaluate(self.model, self._batches)
        logs |= {
            "val_loss": scores.loss,
            "val_accuracy": scores.rank1,
            "val_top5_accuracy": scores.rank5,
        }
