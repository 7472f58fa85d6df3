"""The training curves for TensorBoard, written by Keras's own callback."""

import errno
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from pipeline.errors import UserError
from pipeline.io.files import explain_write_errors
from pipeline.run.state import RunState

FOLDER = "tensorboard"
PARTS = ("train", "validation")
"""Where in it Keras writes."""


class TensorBoardCurves(keras.callbacks.Callback):
    """Keeps the curves of a run in ``folder/tensorboard``; use as a context manager.

    Each session first writes the run's history anew, so that the curves continue after a stop and
    are cut where a run resumed from an earlier epoch. Other files there stay.

    Raises:
        UserError: They cannot be written.
    """

    def __init__(self, folder: Path, state: RunState) -> None:
        super().__init__()
        self._folder = folder / FOLDER
        with explain_write_errors(self._folder):
            for part in PARTS:
                (self._folder / part).mkdir(parents=True, exist_ok=True)
                for curves in (self._folder / part).glob("events.out.tfevents.*"):
                    curves.unlink()
        self._callback = keras.callbacks.TensorBoard(self._folder, write_graph=False)
        # the callback reads the rate from its model, and each epoch of the history had its own
        self._rates = keras.Sequential()
        self._rates.compile(keras.optimizers.SGD())
        self._callback.set_model(self._rates)
        for epoch in range(state.epoch):
            self.on_epoch_end(epoch, {k: values[epoch] for k, values in state.history.items()})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the epoch's metrics."""
        self._rates.optimizer.learning_rate = logs["learning_rate"]
        with self._reported():
            self._callback.on_epoch_end(epoch + 1, dict(logs))

    def __enter__(self) -> "TensorBoardCurves":
        return self

    def __exit__(self, *error: object) -> None:
        with self._reported():
            self._callback.on_train_end()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """Turn what TensorFlow raises where it cannot write into a UserError."""
        import tensorflow as tf

        with explain_write_errors(self._folder):
            try:
                yield
            except tf.errors.OpError as error:
                full = isinstance(error, tf.errors.ResourceExhaustedError)
                reason = error.message.partition("\n")[0].rpartition("; ")[2]
                raise OSError(errno.ENOSPC if full else errno.EIO, reason) from error


def check_tensorboard(backend: str) -> None:
    """Check that the curves can be written; before anything is built.

    Raises:
        UserError: TensorBoard is not installed, or Keras runs on another backend than TensorFlow,
            which writes the files.
    """
    if backend != "tensorflow":
        raise UserError(
            f"TensorBoard's files are written by TensorFlow; leave --tensorboard out on {backend}"
        )
    if importlib.util.find_spec("tensorboard") is None:
        raise UserError(
            "tensorboard is not installed; pip install tensorboard, or leave --tensorboard out"
        )
