"""Show how fast the training goes and how long the run will take."""

import time

import keras
import progressbar

from pipeline.progress import clear_line, duration, progress_bar, remove_bar
from pipeline.run.state import RunState

WARM_UP_STEPS, MEASURED_STEPS = 3, 20
"""The first steps compile; the next so many are timed for the first estimate."""
LONG_ON_CPU_S = 6 * 3600


class ProgressBar(keras.callbacks.Callback):
    """A bar for each epoch and, after the first steps, one line with an estimate for the run.

    It counts a batch when ``fit`` asks for the next: to look at a step's end, ``fit`` would have to
    wait for the device. Use as a context manager, so that an interruption too takes the bar away.

    Args:
        state: Before the first epoch; its recipe says what later epochs cost.
        images: In an epoch.
        hint: Printed below an estimate of more than six hours; "" for none.
    """

    def __init__(self, state: RunState, images: int, hint: str = "") -> None:
        super().__init__()
        self._state = state
        self._images = images
        self._hint = hint
        self._estimated = False
        self._bar: progressbar.ProgressBar | None = None
        self._pace = progressbar.FormatCustomText("%(text)s", {"text": ""})
        self.epoch_seconds = self.images_per_second = 0.0
        """Of the last epoch: its wall time, and its speed once it was compiled."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Show an empty bar."""
        self._epoch, self._steps = epoch + 1, self.params["steps"]
        self._pace.update_mapping(text="")
        self._bar = progress_bar(
            f"epoch {self._epoch}/{self._state.epochs}", self._steps, self._pace
        )
        self._bar.start()
        self._begun = self._warm = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Move the bar; after the first steps of a session, print the estimate."""
        if batch <= WARM_UP_STEPS:
            self._warm = time.perf_counter()
        else:
            self._measure(batch)
            self._show_pace(batch)
            enough = batch == min(WARM_UP_STEPS + MEASURED_STEPS, self._steps - 1)
            if enough and not self._estimated:
                self._print_estimate()
        self._bar.update(batch)

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Stop the clock and take the bar away."""
        self.epoch_seconds = time.perf_counter() - self._begun
        self._measure(self._steps)
        self.close()

    def close(self) -> None:
        """Take the bar away, wherever it stands."""
        if self._bar is not None:
            remove_bar(self._bar)
            self._bar = None

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def time_left(self, epoch: int) -> float:
        """Return the seconds that the epochs after ``epoch`` will take at the present speed.

        An image costs as its number of pixels.
        """
        recipe, epochs = self._state.recipe, range(epoch + 1, self._state.epochs + 1)
        pixels = sum(recipe.image_size(later) ** 2 for later in epochs)
        epoch_seconds = self._images / self.images_per_second
        return epoch_seconds * pixels / recipe.image_size(self._epoch) ** 2

    def _measure(self, done: int) -> None:
        """Time the steps after the warm-up, or all where there are no others."""
        timed, since = done - WARM_UP_STEPS, self._warm
        if timed <= 0:
            timed, since = done, self._begun
        per_step = (time.perf_counter() - since) / timed
        self.images_per_second = self._images / (per_step * self._steps)

    def _show_pace(self, done: int) -> None:
        left = self._images / self.images_per_second * (1 - done / self._steps)
        left += self.time_left(self._epoch)
        pace = f"{self.images_per_second:,.0f} images/s, {duration(left)} left of the run"
        self._pace.update_mapping(text=pace)

    def _print_estimate(self) -> None:
        self._estimated = True
        clear_line()
        total = self.time_left(self._epoch - 1)
        print(
            f"about {duration(total)} for epochs {self._epoch} to {self._state.epochs} on this "
            f"machine, at {self.images_per_second:,.0f} images/s now",
            flush=True,
        )
        if self._hint and total > LONG_ON_CPU_S:
            print(self._hint, flush=True)
