"""Seed an epoch: all that is random in it is a function of (seed, epoch)."""

import keras

from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.randomness import random_stream


class EpochStart(keras.callbacks.Callback):
    """Sets the epoch of the batches, and seeds the Dropout layers, whose state no checkpoint holds.

    Dropouts in models within the model are not seeded: GoogLeNet has none.

    Args:
        batches: What ``fit`` trains on. On TensorFlow their image size cannot change within a
            ``fit``.
        seed: Of the run.
    """

    def __init__(self, batches: HDF5Generator, seed: int) -> None:
        super().__init__()
        self._batches = batches
        self._seed = seed

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Seed epoch ``epoch`` + 1."""
        self._batches.begin_epoch(epoch + 1)
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.Dropout) and layer.rate:  # Dropout(0) has no seed
                state = layer.seed_generator.state
                stream = random_stream(self._seed, layer.name, epoch + 1)
                state.assign(stream.integers(2**32, size=state.shape, dtype="uint32"))
