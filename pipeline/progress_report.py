"""Tell a person how fast the training goes, how long the run will take, and when it stalls."""

import time
from collections.abc import Callable

import keras
import progressbar

from pipeline.progress import clear_line, progress_bar, remove_bar
from pipeline.run_state import RunState

WARM_UP_STEPS, MEASURED_STEPS = 3, 20
"""The first steps compile; the next so many are timed for the first estimate."""
LONG_ON_CPU_S = 6 * 3600


class ProgressReport(keras.callbacks.Callback):
    """A bar for the epoch and, after the first steps of a session, one line with the estimate.

    The bar shows the images a second and the time left for the whole run.

    Args:
        images: In an epoch.
        hint: Printed below an estimate of more than six hours; "" for none.
        advise: Gives what to say after an epoch, "" for nothing.
    """

    def __init__(
        self, images: int, hint: str = "", advise: Callable[[RunState], str] | None = None
    ) -> None:
        super().__init__()
        self._images = images
        self._hint = hint
        self._advise = advise
        self._estimated = False
        self._pace = progressbar.FormatCustomText("%(text)s", {"text": ""})
        self.images_per_second = 0.0

    def begin_epoch(self, state: RunState, steps: int) -> None:
        """Say which epoch comes: the one after ``state.epoch``."""
        self._state, self._steps = state, steps
        self._pace.update_mapping(text="")
        self._bar = progress_bar(f"epoch {state.epoch + 1}/{state.epochs}", steps, self._pace)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Start the clock."""
        self._started = time.perf_counter()
        self._bar.start()

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Move the bar; after the first steps of a session, print the estimate."""
        done = batch + 1
        if done == WARM_UP_STEPS:
            self._warm = time.perf_counter()
        if done > WARM_UP_STEPS:
            per_step = (time.perf_counter() - self._warm) / (done - WARM_UP_STEPS)
            self._show_pace(per_step, done)
            enough = done == min(WARM_UP_STEPS + MEASURED_STEPS, self._steps)
            if enough and not self._estimated:
                self._print_estimate(per_step)
        self._bar.update(done)

    def on_train_end(self, logs: dict | None = None) -> None:
        """Stop the clock."""
        self.images_per_second = self._images / (time.perf_counter() - self._started)

    def end_epoch(self) -> None:
        """Take the bar away, also after an interruption."""
        remove_bar(self._bar)

    def advise(self, state: RunState) -> None:
        """Print what there is to say after an epoch, if anything."""
        advice = self._advise(state) if self._advise else ""
        if advice:
            print(advice, flush=True)

    def time_left(self, epoch_seconds: float, epoch: int) -> float:
        """Return the seconds that the epochs after ``epoch`` will take, if it took so many.

        An image costs as its number of pixels.
        """
        recipe, epochs = self._state.recipe, range(epoch + 1, self._state.epochs + 1)
        pixels = sum(recipe.image_size(later) ** 2 for later in epochs)
        return epoch_seconds * pixels / recipe.image_size(epoch) ** 2

    def _show_pace(self, seconds_per_step: float, done: int) -> None:
        epoch_seconds = seconds_per_step * self._steps
        left = seconds_per_step * (self._steps - done)
        left += self.time_left(epoch_seconds, self._state.epoch + 1)
        pace = f"{self._images / epoch_seconds:,.0f} images/s, {duration(left)} left of the run"
        self._pace.update_mapping(text=pace)

    def _print_estimate(self, seconds_per_step: float) -> None:
        self._estimated = True
        clear_line()
        epoch = self._state.epoch + 1
        epoch_seconds = seconds_per_step * self._steps
        total = epoch_seconds + self.time_left(epoch_seconds, epoch)
        print(
            f"about {duration(total)} for epochs {epoch} to {self._state.epochs} on this machine, "
            f"at {self._images / epoch_seconds:,.0f} images/s now",
            flush=True,
        )
        if self._hint and total > LONG_ON_CPU_S:
            print(self._hint, flush=True)


def duration(seconds: float) -> str:
    """Return "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60:02} min"
    return f"{minutes} min {whole % 60:02} s" if minutes else f"{whole} s"
