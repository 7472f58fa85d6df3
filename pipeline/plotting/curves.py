"""Draw the curves of a run: loss, accuracy and learning rate over the epochs."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from pipeline.nn.optimizers import learning_rate_schedule
from pipeline.plotting.style import BLUE, GREY, ORANGE, YELLOW, add_grid, new_figure
from pipeline.run.state import RunState, best_epoch

LOSS, ACCURACY, RATE = range(3)
CURVES = {
    "loss": (LOSS, "o-", BLUE, "training"),
    "val_loss": (LOSS, "s-", ORANGE, "validation"),
    "accuracy": (ACCURACY, "o-", BLUE, "training, rank-1"),
    "val_accuracy": (ACCURACY, "s-", ORANGE, "validation, rank-1"),
    "val_top5_accuracy": (ACCURACY, "^-", YELLOW, "validation, rank-5"),
    "learning_rate": (RATE, "o-", GREY, ""),
}
"""The panel, format, colour and label of each metric."""
OUTLIER = 1.5
"""A val loss above this many times the highest training loss is drawn at the panel's edge."""
RATES = 1e4
"""The span of the rate's panel: a schedule ends at next to nothing."""

Metrics = Mapping[str, Sequence[float | None]]
"""A list for each metric, one value per epoch; None where it was not measured, or
not finite."""
Changes = Mapping[int, str]
"""What changed with an epoch, by hand or by the recipe, as "rate 0.0001" or "48 px"."""


def changes(state: RunState, steps_per_epoch: int) -> Changes:
    """Return what changed in a run: image sizes, and rates other than the schedule's smooth fall.

    Args:
        state: Of the run.
        steps_per_epoch: Batches in one.
    """
    found = {first: f"{side} px" for first, side in state.recipe.image_sizes[1:]}
    by_recipe = learning_rate_schedule(state.recipe, steps_per_epoch)
    drops = dict(state.recipe.optimizer.rate_drops)
    before = 0.0
    for epoch, rate in enumerate(state.history["learning_rate"], start=1):
        planned = float(by_recipe(epoch * steps_per_epoch - 1))
        by_hand = not math.isclose(rate, planned, rel_tol=1e-4)
        if rate != before and (epoch in drops or by_hand):
            found[epoch] = ", ".join(filter(None, (found.get(epoch), f"rate {rate:.2g}")))
        before = rate
    return found


def plot_history(history: Metrics, title: str, changes: Changes | None = None) -> Figure:
    """Draw the metrics over the epochs, with a line at each change."""
    values = {name: np.array(metric, float) for name, metric in history.items()}
    epochs = np.arange(1, max(map(len, values.values())) + 1)
    figure = new_figure(title, 13, 5)
    panels = loss, accuracy, rate = figure.subplots(1, 3, width_ratios=(5, 5, 2))
    for name, (panel, style, colour, label) in CURVES.items():
        if name in values:
            panels[panel].plot(epochs, values[name], style, color=colour, label=label)
    if np.isfinite(values.get("val_accuracy", np.nan)).any():
        best = best_epoch(history)
        highest = values["val_accuracy"][best - 1]
        figure.suptitle(f"{title}: best validation rank-1 {highest:.1%}, epoch {best}")
        accuracy.plot(best, highest, "o", fillstyle="none", color=GREY,
                      label=f"best so far, {highest:.1%}")  # fmt: skip
    loss.set(title="Loss", ylabel="cross-entropy (nats)")
    _clip_outliers(loss, values)
    accuracy.set(title="Accuracy", ylabel="accuracy", ylim=(0, 1))
    accuracy.yaxis.set_major_formatter(PercentFormatter(1))
    rate.set(title="Learning rate")
    if rate.lines:
        highest = np.nanmax(values["learning_rate"])
        rate.set(yscale="log", ylim=(highest / RATES, highest * 2))
        rate.yaxis.set_major_formatter("{x:g}")
    _finish(loss, len(epochs), changes or {})
    _finish(accuracy, len(epochs), changes or {})
    _finish(rate, len(epochs), {})
    rate.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return figure


def _clip_outliers(axes: Axes, values: Mapping[str, np.ndarray]) -> None:
    """Draw a val loss far above all training losses, as of a first epoch, at the panel's edge."""
    if not np.isfinite(values.get("loss", np.nan)).any() or "val_loss" not in values:
        return
    edge = OUTLIER * np.nanmax(values["loss"])
    beyond = np.flatnonzero(values["val_loss"] > edge)
    if len(beyond) and edge > 0:
        highest = values["val_loss"][beyond].max()
        axes.set_ylim(top=edge)
        axes.plot(beyond + 1, np.full(len(beyond), edge), "^", color=ORANGE, clip_on=False,
                  label=f"validation beyond the axis, up to {highest:.3g}")  # fmt: skip


def _finish(axes: Axes, epochs: int, changes: Changes) -> None:
    for line in axes.lines:
        line.set(markersize=10 if line.get_fillstyle() == "none" else 3, linewidth=1.4)
    for epoch, what in changes.items():
        if epoch <= epochs:
            axes.axvline(epoch - 0.5, color=GREY, linestyle=":", linewidth=1)
            axes.annotate(f" {what}", (epoch - 0.5, 0.98), rotation=90, fontsize=7,
                          xycoords=("data", "axes fraction"), va="top", color="0.3")  # fmt: skip
    axes.set_xlabel("epoch")
    axes.set_xlim(0.5, max(epochs, 2) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    add_grid(axes)
    if any(axes.get_legend_handles_labels()):
        # Below the panel: inside, it would cover some curve.
        axes.legend(
            fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.14), frameon=False
        )
