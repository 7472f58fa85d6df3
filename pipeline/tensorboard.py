"""The training curves for TensorBoard, written by Keras's own callback."""

import importlib.util
import shutil
from pathlib import Path

import keras

from pipeline.errors import UserError
from pipeline.files import reported_as_user_errors
from pipeline.run_state import RunState

FOLDER = "tensorboard"


class TensorBoardCurves:
    """Keeps the curves of a run in ``folder/tensorboard``; use as a context manager.

    Each session writes them anew from the run's history, so that they go on after a stop and are
    cut where a run went back, like the other curves.

    Raises:
        UserError: TensorBoard is not installed, or Keras runs on another backend than TensorFlow,
            which writes the files.
    """

    def __init__(self, folder: Path) -> None:
        if keras.backend.backend() != "tensorflow":
            raise UserError(
                "TensorBoard's files are written by TensorFlow; leave --tensorboard out on "
                f"{keras.backend.backend()}"
            )
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "tensorboard is not installed; pip install tensorboard, or leave --tensorboard out"
            )
        self._folder = folder / FOLDER
        self._written = 0
        self._callback = keras.callbacks.TensorBoard(self._folder, write_graph=False)
        # the callback asks its model for the rate, and each epoch of the history had its own
        self._rates = keras.Sequential()
        self._rates.compile(keras.optimizers.SGD())
        self._callback.set_model(self._rates)

    def update(self, state: RunState) -> None:
        """Write the epochs of ``state`` that are not written yet."""
        with reported_as_user_errors(self._folder):
            if not self._written and self._folder.exists():
                shutil.rmtree(self._folder)
        for epoch in range(self._written + 1, state.epoch + 1):
            values = {name: values[epoch - 1] for name, values in state.history.items()}
            self._rates.optimizer.learning_rate = values["learning_rate"]
            self._callback.on_epoch_end(epoch, values)
        self._written = state.epoch

    def __enter__(self) -> "TensorBoardCurves":
        return self

    def __exit__(self, *error: object) -> None:
        self._callback.on_train_end()
