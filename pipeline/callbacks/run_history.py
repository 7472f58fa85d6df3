"""Carry the state of the run from epoch to epoch."""

import keras

from pipeline.nn.optimizers import learning_rate_schedule
from pipeline.run.state import RunState, check_losses


class RunHistory(keras.callbacks.Callback):
    """Holds the state after the last finished epoch, in ``state``.

    It adds the ``learning_rate`` of the epoch's last step to the logs, and makes their ``loss`` the
    cross-entropy, without penalties or label smoothing, as ``val_loss`` is: it follows
    ``Validation``, and needs the metrics of ``compile_model``.
    """

    def __init__(self, state: RunState, steps_per_epoch: int) -> None:
        super().__init__()
        self.state = state
        self.steps_per_epoch = steps_per_epoch
        self._schedule = learning_rate_schedule(state.recipe, steps_per_epoch, state.learning_rate)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the epoch's metrics.

        Raises:
            UserError: A loss is NaN or infinite.
        """
        logs["learning_rate"] = float(self._schedule((epoch + 1) * self.steps_per_epoch - 1))
        logs["loss"] = logs.pop("cross_entropy")
        check_losses(epoch + 1, logs["loss"], logs["val_loss"])
        self.state = self.state.after_epoch(logs)
