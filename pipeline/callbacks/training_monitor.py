"""The training curves, as numbers and as a plot, renewed each epoch."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.callbacks.momentum_correction import DROP
from pipeline.io.files import atomic_write, write_csv, write_json
from pipeline.plotting.style import BLUE, GREY, ORANGE, YELLOW, add_grid, new_figure, save_figure
from pipeline.run.state import HISTORY_FILE

PLOT = "training_plot.jpg"
TABLE = "metrics.csv"
CURVES = {
    "loss": ("o-", BLUE, "training"),
    "val_loss": ("s-", ORANGE, "validation"),
    "accuracy": ("o-", BLUE, "training, rank-1"),
    "val_accuracy": ("s-", ORANGE, "validation, rank-1"),
    "val_top5_accuracy": ("^-", YELLOW, "validation, rank-5"),
}
"""How each metric is drawn: the losses in one panel, the accuracies in the other."""

Metrics = Mapping[str, Sequence[float | None]]
"""A list for each metric, a value an epoch; None where it was no finite number."""


class TrainingMonitor(keras.callbacks.Callback):
    """Writes the metrics of all epochs to ``folder``, made as needed.

    They go to ``metric_values.json`` (a list a metric), ``metrics.csv`` (a row an epoch) and
    ``training_plot.jpg``.

    Args:
        folder: Where to.
        history: The metrics of the epochs before the first.
        title: Begins the plot's title.
    """

    def __init__(
        self, folder: Path | str, history: Metrics | None = None, title: str = "GoogLeNet"
    ) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._history = {name: list(values) for name, values in (history or {}).items()}
        self._title = title

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the epoch's metrics and write the files."""
        logs = logs or {}
        before = max(map(len, self._history.values()), default=0)
        for name in dict.fromkeys([*self._history, *logs]):
            value = float(logs.get(name, math.nan))
            values = self._history.setdefault(name, [None] * before)
            values.append(value if math.isfinite(value) else None)
        self.write()

    def write(self) -> None:
        """Write the files.

        Raises:
            UserError: One cannot be written.
        """
        write_json(self._folder / HISTORY_FILE, self._history)
        with atomic_write(self._folder / TABLE) as path:
            rows = zip(*self._history.values(), strict=True)
            table = [("epoch", *self._history), *((n, *row) for n, row in enumerate(rows, 1))]
            write_csv(path, table)
        with atomic_write(self._folder / PLOT) as path:
            save_figure(plot_history(self._history, self._title), path)


def plot_history(history: Metrics, title: str) -> Figure:
    """Draw loss and accuracy over the epochs, in two panels, of the metrics there are."""
    values = {name: np.array(metric, float) for name, metric in history.items()}
    epochs = np.arange(1, max(map(len, values.values())) + 1)
    figure = new_figure(title, 11, 5)
    loss, accuracy = figure.subplots(1, 2)
    for name, (style, colour, label) in CURVES.items():
        if name in values:
            axes = loss if name.endswith("loss") else accuracy
            axes.plot(epochs, values[name], style, color=colour, label=label)
    if np.isfinite(values.get("val_accuracy", np.nan)).any():  # as ``best_epoch``
        losses = values.get("val_loss", np.zeros(len(epochs)))
        best = np.lexsort((-epochs, -losses, np.nan_to_num(values["val_accuracy"], nan=-1)))[-1]
        highest = values["val_accuracy"][best]
        figure.suptitle(f"{title}: best validation rank-1 {highest:.1%}, epoch {epochs[best]}")
        accuracy.plot(epochs[best], highest, "o", fillstyle="none", color=GREY,
                      label=f"best so far, {highest:.1%}")  # fmt: skip
    loss.set(title="Loss", ylabel="cross-entropy (nats)")
    accuracy.set(title="Accuracy", ylabel="images recognised", ylim=(0, 1))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    for axes in (loss, accuracy):
        _finish(axes, len(epochs))
        _mark_drops(axes, values.get("learning_rate", ()))
    return figure


def _finish(axes: Axes, epochs: int) -> None:
    for line in axes.lines:
        line.set(markersize=10 if line.get_fillstyle() == "none" else 3, linewidth=1.4)
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(epochs, 2) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_grid(axes)
    if axes.lines:
        # Below the panel, for inside some curve would sooner or later run beneath it.
        axes.legend(
            fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False
        )


def _mark_drops(axes: Axes, rates: Sequence[float]) -> None:
    """Mark where the learning rate was lowered in a step, not along a schedule."""
    for epoch in range(1, len(rates)):
        before, after = rates[epoch - 1], rates[epoch]
        held = epoch == 1 or rates[epoch - 2] == before
        if held and after <= DROP * before:
            axes.axvline(epoch + 0.5, color=GREY, linestyle=":", linewidth=1)
            axes.annotate(f" rate {after:.0e}", (epoch + 0.5, 0.98), rotation=90, fontsize=7,
                          xycoords=("data", "axes fraction"), va="top", color="0.3")  # fmt: skip
