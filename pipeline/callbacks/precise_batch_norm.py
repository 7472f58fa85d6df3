"""PreciseBN (Wu and Johnson 2021, arXiv:2105.07576, section 3): batch norm's statistics, measured.

Batch norm's running statistics lag behind weights that change fast. Early epochs then validate far
worse than they are: on the digits sample the first epoch's val loss is 12.7 with running
statistics, 1.3 with measured ones.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np

from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.nn.fused_norm import batch_norms, layers_of_kind

IMAGES = 5_120
"""At most; enough for statistics of every channel, and a small part of an epoch."""


class PreciseBatchNorm(keras.callbacks.Callback):
    """Replaces batch norm's running statistics after each epoch by those of some train images.

    The mean is the mean of the batches' means, the variance the mean of their second moments minus
    the squared mean. Dropout is off meanwhile, as in evaluation, which lacks the variance that it
    adds in training (Li et al. 2019, arXiv:1801.05134). Training
    still normalises by each batch's own statistics. For functional models, whose batch norms are
    layers of the model or of models in it.

    Args:
        batches: Of train images without augmentation, shuffled.
    """

    def __init__(self, batches: HDF5Generator) -> None:
        super().__init__()
        self._batches = batches
        self._forward: keras.Model | None = None

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measure the statistics anew."""
        self._batches.begin_epoch(epoch + 1)
        if self._forward is None or self._forward.layers[-1].model is not self.model:
            pixels = self.model.inputs[0]
            self._forward = keras.Model(pixels, _InTrainingMode(self.model)(pixels))
        norms = list(batch_norms(self.model))
        moments = [np.zeros((2, norm.moving_mean.shape[0])) for norm in norms]
        # whole batches only: the statistics of a small last one are noisy
        images = min(len(self._batches.dataset), IMAGES)
        steps = max(1, images // self._batches.batch_size)
        dropouts = list(layers_of_kind(self.model, keras.layers.Dropout))
        with _set_to_zero(norms, "momentum"), _set_to_zero(dropouts, "rate"):
            for step in range(steps):
                self._forward.predict_on_batch(self._batches[step][0])
                for norm, total in zip(norms, moments, strict=True):
                    mean = np.asarray(norm.moving_mean, np.float64)
                    variance = np.asarray(norm.moving_variance, np.float64)
                    total += np.stack([mean, variance + mean**2]) / steps
        for norm, (mean, square) in zip(norms, moments, strict=True):
            norm.moving_mean.assign(mean)
            norm.moving_variance.assign(square - mean**2)


class _InTrainingMode(keras.Layer):
    """Lets ``predict_on_batch``, which is compiled, run a model with ``training=True``."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def call(self, inputs: Any) -> Any:
        """Call the model."""
        return self.model(inputs, training=True)


@contextmanager
def _set_to_zero(layers: Sequence[keras.Layer], name: str) -> Iterator[None]:
    """Set an attribute to zero: without momentum, each batch replaces the statistics."""
    before = [getattr(layer, name) for layer in layers]
    try:
        for layer in layers:
            setattr(layer, name, 0.0)
        yield
    finally:
        for layer, value in zip(layers, before, strict=True):
            setattr(layer, name, value)
