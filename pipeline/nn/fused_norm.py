"""Compute batch norm's training pass by TensorFlow's fused kernel; Keras uses a dozen kernels.

Only the arithmetic of a model in memory is replaced, and agrees up to rounding: the layers, their
weights and saved models are Keras's own.
"""

from collections.abc import Callable, Iterator
from typing import Any

import keras


def fuse_batch_norms(model: keras.Model) -> None:
    """Train GoogLeNet's batch norms by the fused kernel; on other backends do nothing.

    Evaluation keeps Keras's arithmetic.
    """
    if keras.backend.backend() != "tensorflow":
        return
    for layer in batch_norms(model):
        layer.call = _fused_call(layer)


def batch_norms(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    """Yield the batch norms of a model and of the models in it."""
    return layers_of_kind(model, keras.layers.BatchNormalization)


def layers_of_kind(model: keras.Model, kind: type[keras.Layer]) -> Iterator[Any]:
    """Yield the layers of one kind of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from layers_of_kind(layer, kind)
        elif isinstance(layer, kind):
            yield layer


def _fused_call(layer: keras.layers.BatchNormalization) -> Callable[..., Any]:
    import tensorflow as tf

    keras_call = layer.call

    def call(inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return keras_call(inputs, training=training, mask=mask)
        outputs, mean, sample_variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, layer.gamma, layer.beta, epsilon=layer.epsilon, is_training=True
        )
        count = tf.cast(tf.size(inputs) // inputs.shape[-1], mean.dtype)
        variance = sample_variance * ((count - 1) / count)
        for moving, batch in ((layer.moving_mean, mean), (layer.moving_variance, variance)):
            moving.assign(moving * layer.momentum + batch * (1 - layer.momentum))
        return outputs

    return call
