"""The training curves, as numbers and as a plot, renewed each epoch."""

import math
from pathlib import Path

import keras
import numpy as np

from pipeline.callbacks.run_history import RunHistory
from pipeline.errors import UserError
from pipeline.io.files import write_csv, write_json
from pipeline.plotting.curves import Changes, Metrics, changes, plot_history
from pipeline.plotting.style import one_style, save_figure
from pipeline.printing import say
from pipeline.run.output_folder import HISTORY, PLOT, TABLE
from pipeline.run.state import RunState


class TrainingMonitor(keras.callbacks.Callback):
    """Renews the curves in ``folder`` after each epoch (see ``write_curves``).

    Args:
        folder: Where to, made as needed.
        run: Its curves from the first epoch on; None: those of this ``fit``,
            and nothing for the epochs before its ``initial_epoch``.
    """

    def __init__(self, folder: Path | str, run: RunHistory | None = None) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._run = run
        self._metrics: dict[str, list[float | None]] = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the epoch's metrics and write the files."""
        if self._run:
            try:
                write_run_curves(self._folder, self._run.state, self._run.steps_per_epoch)
            except UserError as error:
                if not isinstance(error.__cause__, PermissionError):
                    raise
                say(f"note: {error}; training continues, and writes it after the next epoch")
            return
        logs = logs or {}
        before = max(epoch, *map(len, self._metrics.values()), 0)
        for name in dict.fromkeys([*self._metrics, *logs]):
            value = float(np.mean(logs.get(name, math.nan)))  # some give a value for each class
            values = self._metrics.setdefault(name, [])
            values += [None] * (before - len(values))
            values.append(value if math.isfinite(value) else None)
        write_curves(self._folder, self._metrics)


def write_run_curves(folder: Path, state: RunState, steps_per_epoch: int) -> None:
    """Write the curves of a run, with what changed in it."""
    title = f"GoogLeNet, recipe {state.recipe_name}"
    write_curves(folder, state.history, title, changes(state, steps_per_epoch))


@one_style()
def write_curves(
    folder: Path, metrics: Metrics, title: str = "GoogLeNet", changes: Changes | None = None
) -> None:
    """Write ``metric_values.json``, ``metrics.csv`` and ``training_plot.jpg``.

    The first has one list per metric, the second one row per epoch, and the plot marks ``changes``.

    Raises:
        UserError: One cannot be written.
    """
    write_json(folder / HISTORY, metrics)
    rows = zip(*metrics.values(), strict=True)
    write_csv(folder / TABLE, [("epoch", *metrics), *((n, *row) for n, row in enumerate(rows, 1))])
    save_figure(plot_history(metrics, title, changes), folder / PLOT)
