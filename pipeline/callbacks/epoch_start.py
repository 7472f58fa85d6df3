"""Seed an epoch: all that is random in it is a function of (seed, epoch)."""

from collections.abc import Callable

import keras

from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.randomness import random_stream


class EpochStart(keras.callbacks.Callback):
    """Tells the batches their epoch and seeds every Dropout, whose state no checkpoint holds.

    Args:
        batches: What ``fit`` trains on.
        seed: Of the run.
        image_size: From an epoch, counted from 1, to the pixels a side of its images.
    """

    def __init__(self, batches: HDF5Generator, seed: int, image_size: Callable[[int], int]) -> None:
        super().__init__()
        self._batches = batches
        self._seed = seed
        self._image_size = image_size

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Seed epoch ``epoch`` + 1."""
        number = epoch + 1
        self._batches.begin_epoch(number, self._image_size(number))
        for layer in self.model.layers:
            if isinstance(layer, keras.layers.Dropout):
                state = layer.seed_generator.state
                stream = random_stream(self._seed, layer.name, number)
                state.assign(stream.integers(2**32, size=state.shape, dtype="uint32"))
