"""Print a line an epoch, and advice where the training stalls."""

from collections.abc import Callable

import keras

from pipeline.callbacks.progress_bar import ProgressBar
from pipeline.callbacks.run_history import RunHistory
from pipeline.progress import duration
from pipeline.run.output_folder import checkpoint_name
from pipeline.run.state import RunState


class EpochSummary(keras.callbacks.Callback):
    """Prints the metrics, the speed, the time left and the checkpoint's name.

    Args:
        history: Of the run.
        speed: Knows the images a second.
        advise: Gives what to say after an epoch, "" for nothing.
    """

    def __init__(
        self, history: RunHistory, speed: ProgressBar, advise: Callable[[RunState], str]
    ) -> None:
        super().__init__()
        self._history = history
        self._speed = speed
        self._advise = advise

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Print."""
        state = self._history.state
        print(
            f"epoch {state.epoch}/{state.epochs}  "
            f"loss {logs['loss']:.3f}  rank-1 {logs['accuracy']:.2%}  |  "
            f"val loss {logs['val_loss']:.3f}  rank-1 {logs['val_accuracy']:.2%}  "
            f"rank-5 {logs['val_top5_accuracy']:.2%}  |  "
            f"{self._speed.images_per_second:,.0f} images/s, "
            f"{duration(self._speed.time_left(state.epoch))} left  ->  "
            f"{checkpoint_name(state.epoch, logs['val_loss'])}",
            flush=True,
        )
        if advice := self._advise(state):
            print(advice, flush=True)
