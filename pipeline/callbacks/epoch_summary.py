"""Print a table, one row per epoch, and advice where the training stalls."""

from collections.abc import Callable

import keras

from pipeline.callbacks.progress_bar import ProgressBar
from pipeline.callbacks.run_history import RunHistory
from pipeline.printing import say
from pipeline.progress import duration
from pipeline.run.state import RunState, best_epoch

TITLES = (
    "         train             val",
    "  epoch   loss  rank-1    loss  rank-1  rank-5        left",
)


class EpochSummary(keras.callbacks.Callback):
    """Prints the metrics and the time left, in 60 columns; a star marks the best epoch so far.

    ``advise`` returns what to print below an epoch, "" for nothing.
    """

    def __init__(
        self, run: RunHistory, bar: ProgressBar, advise: Callable[[RunState], str]
    ) -> None:
        super().__init__()
        self._run = run
        self._bar = bar
        self._advise = advise
        self._titles = TITLES

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Print."""
        state = self._run.state
        left = duration(self._bar.time_left(state.epoch))
        say(
            *self._titles,
            f"{state.epoch:>3}/{state.epochs:<3}"
            f"{logs['loss']:7.3f}{logs['accuracy']:8.2%}{logs['val_loss']:8.3f}"
            f"{logs['val_accuracy']:8.2%}{logs['val_top5_accuracy']:8.2%} {left:>11}"
            f"{' *' if best_epoch(state.history) == state.epoch else ''}",
        )
        self._titles = ()
        if advice := self._advise(state):
            say(advice)
