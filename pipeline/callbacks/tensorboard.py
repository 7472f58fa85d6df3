"""The training curves for TensorBoard, in the folders and by the names of Keras's own callback."""

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


class TensorBoardCurves(keras.callbacks.Callback):
    """Keeps the curves of a run in ``folder/tensorboard``.

    Each session first writes the run's history anew, so that the curves continue after a stop and
    are cut where a run resumed from an earlier epoch. Other files there stay.

    Raises:
        UserError: They cannot be written.
    """

    def __init__(self, folder: Path, state: RunState) -> None:
        super().__init__()
        import tensorflow as tf

        self._writers = {}
        for part in ("train", "validation"):
            place = folder / FOLDER / part
            with _explained(place):
                place.mkdir(parents=True, exist_ok=True)
                for curves in place.glob("events.out.tfevents.*"):
                    curves.unlink()
                self._writers[place] = tf.summary.create_file_writer(str(place))
        for epoch in range(state.epoch):
            self.on_epoch_end(epoch, {k: values[epoch] for k, values in state.history.items()})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the epoch's metrics."""
        import tensorflow as tf

        for place, writer in self._writers.items():
            with _explained(place), writer.as_default(step=epoch + 1):
                for name, value in logs.items():
                    if name.startswith("val_") == (place.name == "validation"):
                        tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value)


@contextmanager
def _explained(place: Path) -> Iterator[None]:
    """Turn what TensorFlow raises where it cannot write into a UserError."""
    import tensorflow as tf

    with explain_write_errors(place):
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
