"""Momentum correction (Goyal et al. 2017, arXiv:1706.02677, section 3) where the rate is lowered.

Keras's SGD has the rate inside its velocity, v = m v - rate x gradient. After a drop the old, large
velocity would keep steps of the old size for dozens of steps.
"""

import keras
from keras.optimizers.schedules import LearningRateSchedule

DROP = 0.5
"""A rate at or below this fraction of the one before is a drop."""


class MomentumCorrection(keras.callbacks.Callback):
    """Scales the velocity of SGD and muon.py down with the rate where it drops between epochs.

    The moments of other optimizers (Adam, Keras's Muon) contain no rate and stay as they are.

    Args:
        schedule: The learning rate by step.
        last_rate: The rate of the step before training starts; None: the schedule's.
    """

    def __init__(self, schedule: LearningRateSchedule, last_rate: float | None = None) -> None:
        super().__init__()
        self._schedule = schedule
        self._last_rate = last_rate

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Correct the velocity, if the rate dropped."""
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        if not isinstance(optimizer, keras.optimizers.SGD):
            return
        step = int(optimizer.iterations)
        before = self._last_rate or float(self._schedule(max(step - 1, 0)))
        self._last_rate = None
        ratio = float(self._schedule(step)) / before if before else 1.0
        if ratio <= DROP:
            for velocity in getattr(optimizer, "momentums", ()):
                velocity.assign(velocity * ratio)
