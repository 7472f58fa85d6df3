"""Give batch norm the statistics of the weights that are evaluated, where those are an EMA.

Batch norm's running statistics are those of the raw weights' activations. Under other weights the
activations are others, so they are measured anew, as Izmailov et al. 2018 (arXiv:1803.05407,
section 3.2) and PyTorch's ``update_bn`` do.
"""

from collections.abc import Callable

import keras

from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.nn.fused_norm import batch_norms

IMAGES = 5_120
"""Enough for statistics of every channel, and a small part of an epoch."""


class NormStatistics(keras.callbacks.Callback):
    """Replaces batch norm's running statistics after each epoch by means over some batches.

    Training normalises by each batch's own statistics, so it goes on as without this.

    Args:
        batches: Of train images as they are, shuffled.
        image_size: From an epoch, counted from 1, to the pixels a side of its images.
    """

    def __init__(self, batches: HDF5Generator, image_size: Callable[[int], int]) -> None:
        super().__init__()
        self._batches = batches
        self._image_size = image_size

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure."""
        self._batches.begin_epoch(epoch + 1, self._image_size(epoch + 1))
        norms = list(batch_norms(self.model))
        momenta = [norm.momentum for norm in norms]
        steps = min(len(self._batches), max(1, IMAGES // self._batches.batch_size))
        for step in range(steps):
            for norm in norms:
                norm.momentum = step / (step + 1)  # makes the moving average the mean
            self.model(self._batches[step][0], training=True)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
