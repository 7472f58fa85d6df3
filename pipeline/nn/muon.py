"""Muon: SGD whose updates of convolutions are orthogonalised (Jordan et al. 2024, "Muon: an
optimizer for hidden layers in neural networks").

The update of a kernel, as a matrix of (height x width x inputs, outputs), is replaced by the
nearest semi-orthogonal one, whose singular values are all equal (nearly: see below): directions of
small gradients are learned as fast as dominant ones. (Its authors step farther where a matrix has
more columns than rows: GoogLeNet of width 1 has none.)

Keras has a Muon of its own, which leaves convolutions to Adam; its Newton-Schulz iteration is used
here. The optimizer stays Keras's SGD, with SGD's state, so that a checkpoint opens in plain Keras.
"""

from typing import Any

import keras
from keras import ops

NEWTON_SCHULZ_STEPS = 5
"""Five bring all but the weakest singular values to between 0.68 and 1.21."""
KERNEL_AXES = 4
"""Axes of a convolution's kernel, and of no other variable."""


def orthogonalise_updates(optimizer: keras.optimizers.SGD, dtype: str) -> None:
    """Make ``optimizer``, SGD with Nesterov momentum, update the kernels of convolutions by Muon.

    All other variables stay with SGD. This uses ``_get_variable_index``, private to Keras.

    Args:
        optimizer: What a model is compiled with; its momentum is above 0.
        dtype: What the iteration computes in; bfloat16 suffices.
    """
    orthogonalise = keras.optimizers.Muon().zeropower_via_newtonschulz5
    sgd_step = optimizer.update_step

    def update_step(gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        if len(variable.shape) != KERNEL_AXES:
            sgd_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, variable.dtype)
        velocity = optimizer.momentums[optimizer._get_variable_index(variable)]
        optimizer.assign(velocity, velocity * optimizer.momentum - gradient * rate)
        update = velocity * optimizer.momentum - gradient * rate  # Nesterov's
        matrix = ops.cast(ops.reshape(update, (-1, variable.shape[-1])), dtype)
        update = ops.reshape(orthogonalise(matrix, NEWTON_SCHULZ_STEPS), variable.shape)
        optimizer.assign_add(variable, ops.cast(update, variable.dtype) * rate)

    optimizer.update_step = update_step
