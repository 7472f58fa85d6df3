"""Show how fast the training goes and how long the run will take."""

import time
from collections.abc import Mapping

import keras
import progressbar

from pipeline.printing import clear_line, columns, say
from pipeline.progress import duration, progress_bar, remove_bar
from pipeline.run.state import RunState, check_losses

WARM_UP_STEPS, MEASURED_STEPS = 3, 20
"""The warm-up includes compilation; the steps after it are timed for the first estimate."""
LONG_ON_CPU_S = 6 * 3600
WIDE = 72
"""Columns of a terminal that has room for the speed too."""


class ProgressBar(keras.callbacks.Callback):
    """A bar for each epoch and, after the first steps, one line with an estimate for the run.

    On JAX ``fit`` is some steps ahead of its device. Keras reads the running metrics at each step
    in another thread, which waits for them: what it has read, the device has done. After an
    interruption ``close`` removes the bar.

    Args:
        state: Before the first epoch; its recipe says what later epochs cost.
        images: In an epoch.
        hint: Printed below an estimate of more than six hours; "" for none.
    """

    async_safe = True

    def __init__(self, state: RunState, images: int, hint: str = "") -> None:
        super().__init__()
        self._state = state
        self._images = images
        self._hint = hint
        self._estimated = False
        self._running: Mapping[str, float] = {}
        self._done, self._steps_end, self._between_epochs = 0, 0.0, 0.0
        self._fitted = 0  # epochs of this ``fit``
        self._bar: progressbar.ProgressBar | None = None
        self._pace = progressbar.FormatCustomText("%(text)s", {"text": ""})
        self.epoch_seconds = self.images_per_second = 0.0
        """Of the last epoch: its wall time, and its speed once it was compiled."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Expect the first step of a ``fit`` to compile, and the first validation too."""
        self._fitted = 0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Show an empty bar."""
        self._epoch, self._steps, self._running = epoch + 1, self.params["steps"], {}
        self._pace.update_mapping(text="" if self._fitted else "compiling")
        self._bar = progress_bar(
            f"epoch {self._epoch}/{self._state.epochs}", self._steps, self._pace
        )
        self._bar.start()
        self._done, self._epoch_start = 0, time.perf_counter()
        self._warm_up_end = self._epoch_start
        if self._fitted > 1:
            self._between_epochs = self._epoch_start - self._steps_end

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Move the bar; after the first steps of a session, print the estimate.

        Raises:
            UserError: The loss is NaN or infinite.
        """
        check_losses(self._epoch, self._running.get("loss", 0))
        done = self._done
        if done > WARM_UP_STEPS:
            self._measure(done)
            self._show_pace(done)
            enough = done >= min(WARM_UP_STEPS + MEASURED_STEPS, self._steps - 1)
            if enough and not self._estimated:
                self._print_estimate()
        self._bar.update(done)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the batch, and keep the means over the epoch's batches so far."""
        self._running, self._done = logs or {}, max(self._done, batch + 1)
        if batch < WARM_UP_STEPS:
            self._warm_up_end = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop the clock and remove the bar."""
        self._steps_end = time.perf_counter()
        self.epoch_seconds = self._steps_end - self._epoch_start
        self._fitted += 1
        self._measure(self._steps)
        self.close()

    def close(self) -> None:
        """Remove the bar, wherever it stands."""
        if self._bar is not None:
            remove_bar(self._bar)
            self._bar = None

    def time_left(self, epoch: int) -> float:
        """Return the seconds that the epochs after ``epoch`` will take at the present speed.

        An image's cost is taken as proportional to its pixels, that of validation and saving as
        what they last took.
        """
        recipe = self._state.recipe
        pixels = sum(
            (last - first + 1) * recipe.image_size(first) ** 2
            for first, last in recipe.phases(epoch + 1, self._state.epochs)
        )
        epoch_seconds = self._images / self.images_per_second
        steps_seconds = epoch_seconds * pixels / recipe.image_size(self._epoch) ** 2
        return steps_seconds + self._between_epochs * (self._state.epochs - epoch)

    def _measure(self, done: int) -> None:
        """Time the steps after the warm-up, or all if there are no others."""
        timed, since = done - WARM_UP_STEPS, self._warm_up_end
        if timed <= 0:
            timed, since = done, self._epoch_start
        per_step = (time.perf_counter() - since) / timed
        self.images_per_second = self._images / (per_step * self._steps)

    def _show_pace(self, done: int) -> None:
        parts = []
        if {"cross_entropy", "accuracy"} <= self._running.keys():
            loss, rank1 = self._running["cross_entropy"], self._running["accuracy"]
            parts.append(f"loss {loss:.2f}, rank-1 {rank1:.0%}")
        if columns() >= WIDE:
            parts.append(f"{self.images_per_second:,.0f}/s")
        left = self._images / self.images_per_second * (1 - done / self._steps)
        parts.append(f"{duration(left + self.time_left(self._epoch))} left")
        self._pace.update_mapping(text=", ".join(parts))

    def _print_estimate(self) -> None:
        self._estimated = True
        clear_line()
        total = self.time_left(self._epoch - 1)
        last = self._state.epochs
        epochs = f"epochs {self._epoch} to {last}" if self._epoch < last else f"epoch {last}"
        speed = f"{self.images_per_second:,.0f} images/s now"
        say(f"about {duration(total)} for {epochs}, at {speed}")
        if self._hint and total > LONG_ON_CPU_S:
            say(self._hint)
