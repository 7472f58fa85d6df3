"""The training curves: ``metric_values.json`` and ``training_plot.jpg``, renewed each epoch."""

from pathlib import Path
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.figure_style import BLUE, GREY, ORANGE, YELLOW, add_grid, new_figure, save_figure
from pipeline.files import write_json, written_whole
from pipeline.run_state import History, RunState, best_epoch

NUMBERS, PLOT = "metric_values.json", "training_plot.jpg"
TRAINING, VALIDATION, VALIDATION_5 = BLUE, ORANGE, YELLOW
DROP = 0.5
"""A rate at or below this share of the last epoch's is marked."""


class Monitor(Protocol):
    """What keeps up with a run."""

    def update(self, state: RunState) -> None:
        """Take note of a finished epoch."""


class TrainingMonitor:
    """Renews the curves' numbers and their plot in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def update(self, state: RunState) -> None:
        """Write both files."""
        history = state.history
        title = (
            f"GoogLeNet, recipe {state.recipe_name}: "
            f"best validation rank-1 {max(history['val_accuracy']):.1%}, epoch {state.best_epoch}"
        )
        write_json(self._folder / NUMBERS, history)
        with written_whole(self._folder / PLOT) as path:
            save_figure(plot_history(history, title), path)


def plot_history(history: History, title: str) -> Figure:
    """Draw loss and accuracy over the epochs, in two panels."""
    figure = new_figure(title, 11, 5)
    loss, accuracy = figure.subplots(1, 2)
    epochs = range(1, len(history["loss"]) + 1)
    loss.plot(epochs, history["loss"], "o-", color=TRAINING, label="training")
    loss.plot(epochs, history["val_loss"], "s-", color=VALIDATION, label="validation")
    loss.set(title="Loss", ylabel="cross-entropy (nats)")
    accuracy.plot(epochs, history["accuracy"], "o-", color=TRAINING, label="training, rank-1")
    accuracy.plot(
        epochs, history["val_accuracy"], "s-", color=VALIDATION, label="validation, rank-1"
    )
    accuracy.plot(
        epochs, history["val_top5_accuracy"], "^-", color=VALIDATION_5, label="validation, rank-5"
    )
    best = best_epoch(history)
    highest = history["val_accuracy"][best - 1]
    label = f"best so far, {highest:.1%}"
    accuracy.plot(best, highest, "o", fillstyle="none", color=GREY, label=label)
    accuracy.set(title="Accuracy", ylabel="images recognised", ylim=(0, 1))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (loss, accuracy):
        _finish(axes, history["learning_rate"])
    return figure


def _finish(axes: Axes, rates: list[float]) -> None:
    for line in axes.lines:
        line.set(markersize=10 if line.get_fillstyle() == "none" else 3, linewidth=1.4)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(len(rates), 2) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_grid(axes)
    for epoch in range(1, len(rates)):
        before, after = rates[epoch - 1], rates[epoch]
        held = epoch == 1 or rates[epoch - 2] == before  # a cosine falls all the time
        if held and after <= DROP * before:
            axes.axvline(epoch + 0.5, color=GREY, linestyle=":", linewidth=1)
            axes.annotate(f" rate {after:.0e}", (epoch + 0.5, 0.98), rotation=90, fontsize=7,
                          xycoords=("data", "axes fraction"), va="top", color="0.3")  # fmt: skip
    # Below the panel, for inside some curve would sooner or later run beneath it.
    axes.legend(fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False)
