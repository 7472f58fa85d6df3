"""Muon: step along every direction of a kernel alike, however weak its gradient is there.

The step that SGD would take on a convolution, as a matrix of (height x width x inputs, outputs), is
replaced by the nearest orthogonal one (Jordan et al. 2024, "Muon: an optimizer for hidden layers
in neural networks"): what few images need is learned as fast as what all of them need, and a short
run gets further.

Keras has a Muon of its own, which leaves convolutions to Adam; what is used of it is its iteration.
The optimizer stays Keras's SGD, with SGD's state, so that a checkpoint opens in plain Keras.
"""

from typing import Any

import keras
from keras import ops

NEWTON_SCHULZ_STEPS = 5
"""Of Keras's iteration: five bring all but the weakest singular values to between 0.68 and 1.21."""
KERNEL_RANK = 4
"""Dimensions of a convolution's kernel, and of no other variable."""


def orthogonalise_steps(optimizer: keras.optimizers.SGD, dtype: str) -> None:
    """Make ``optimizer``, with Nesterov momentum, step by Muon on the kernels of convolutions.

    A kernel then moves by the learning rate in each of its directions. Classifier, biases and
    batch norm keep to SGD.

    Args:
        optimizer: What a model is compiled with; its momentum is above 0.
        dtype: What the iteration computes in; 16 bits suffice.
    """
    orthogonalise = keras.optimizers.Muon().zeropower_via_newtonschulz5
    sgd_step = optimizer.update_step

    def update_step(gradient: Any, variable: keras.Variable, learning_rate: Any) -> None:
        if len(variable.shape) != KERNEL_RANK:
            sgd_step(gradient, variable, learning_rate)
            return
        rate = ops.cast(learning_rate, variable.dtype)
        momentum = optimizer.momentums[optimizer._get_variable_index(variable)]
        optimizer.assign(momentum, momentum * optimizer.momentum - gradient * rate)
        step = momentum * optimizer.momentum - gradient * rate
        matrix = ops.cast(ops.reshape(step, (-1, variable.shape[-1])), dtype)
        step = ops.reshape(orthogonalise(matrix, NEWTON_SCHULZ_STEPS), variable.shape)
        optimizer.assign_add(variable, ops.cast(step, variable.dtype) * rate)

    optimizer.update_step = update_step
