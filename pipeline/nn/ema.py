"""Exchange weights with their exponential moving average (EMA), which the optimizer keeps.

Keras updates the EMA, and would overwrite the weights with it at the end of ``fit``. The optimizer
here does not (see optimizers.py): training continues from the raw weights.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def ema_weights(model: keras.Model) -> Iterator[None]:
    """Exchange the weights and their EMA, and exchange them back at the end.

    Meanwhile the model evaluates and saves with the EMA, and a file saved holds the raw weights in
    the optimizer's state. Without EMA nothing happens.
    """
    swap_ema(model)
    try:
        yield
    finally:
        swap_ema(model)


def swap_ema(model: keras.Model) -> None:
    """Exchange the trainable weights and their EMA, where the optimizer keeps one."""
    if not model.optimizer.use_ema:
        return
    averages = model.optimizer._model_variables_moving_average
    for weight, average in zip(model.trainable_variables, averages, strict=True):
        raw = keras.ops.convert_to_numpy(weight).copy()
        weight.assign(average)
        average.assign(raw)
