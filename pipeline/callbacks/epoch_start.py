"""Seed an epoch: all that is random in it is a function of (seed, epoch)."""

from collections.abc import Callable

import keras

from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.nn.fused_norm import layers_of_kind
from pipeline.randomness import random_stream


class EpochStart(keras.callbacks.Callback):
    """Sets the epoch of the batches, and seeds the Dropout layers, whose state no checkpoint holds.

    Args:
        batches: What ``fit`` trains on.
        seed: Of the run.
        image_size: Returns the pixels a side of the images of an epoch, from 1. On TensorFlow it
            cannot change within a ``fit``.
    """

    def __init__(self, batches: HDF5Generator, seed: int, image_size: Callable[[int], int]) -> None:
        super().__init__()
        self._batches = batches
        self._seed = seed
        self._image_size = image_size
        batches.begin_epoch(1, image_size(1))  # ``fit`` looks at shapes before any callback

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Seed epoch ``epoch`` + 1."""
        self._batches.begin_epoch(epoch + 1, self._image_size(epoch + 1))
        for layer in layers_of_kind(self.model, keras.layers.Dropout):
            if layer.rate:  # Dropout(0) has no seed
                state = layer.seed_generator.state
                stream = random_stream(self._seed, layer.name, epoch + 1)
                state.assign(stream.integers(2**32, size=state.shape, dtype="uint32"))
