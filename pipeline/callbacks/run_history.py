"""Carry the state of the run from epoch to epoch."""

import math

import keras
from keras.optimizers.schedules import LearningRateSchedule

from pipeline.errors import UserError
from pipeline.run.state import RunState


class RunHistory(keras.callbacks.Callback):
    """Holds the state after the last finished epoch, in ``state``.

    It adds the ``learning_rate`` of the epoch's last step to the logs, and makes their ``loss`` the
    cross-entropy, without penalties or label smoothing, as ``val_loss`` is.

    Args:
        state: Before the first epoch.
        schedule: The learning rate by step.
        steps: In an epoch.
    """

    def __init__(self, state: RunState, schedule: LearningRateSchedule, steps: int) -> None:
        super().__init__()
        self.state = state
        self._schedule = schedule
        self._steps = steps

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the epoch's metrics.

        Raises:
            UserError: The loss is not a number any more.
        """
        rate = self._schedule((epoch + 1) * self._steps - 1)
        logs["learning_rate"] = float(keras.ops.convert_to_numpy(rate))
        logs["loss"] = logs.pop("cross_entropy")
        if not (math.isfinite(logs["loss"]) and math.isfinite(logs["val_loss"])):
            raise UserError(
                f"the loss of epoch {epoch + 1} is not a number any more; go back to an earlier "
                "checkpoint with -m and -e, and a lower rate with -l"
            )
        self.state = self.state.after_epoch(logs)
