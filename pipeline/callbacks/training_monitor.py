"""The training curves, as numbers and as a plot, renewed each epoch."""

import math
from collections.abc import Callable
from pathlib import Path

import keras

from pipeline.io.files import atomic_write, write_csv, write_json
from pipeline.plotting.curves import Changes, Metrics, plot_history
from pipeline.plotting.style import one_style, save_figure
from pipeline.run.state import HISTORY_FILE

PLOT = "training_plot.jpg"
TABLE = "metrics.csv"


class TrainingMonitor(keras.callbacks.Callback):
    """Writes the metrics of all epochs to ``folder``, made as needed.

    They go to ``metric_values.json`` (a list a metric), ``metrics.csv`` (a row an epoch) and
    ``training_plot.jpg``.

    Args:
        folder: Where to.
        history: The metrics of the epochs before the first.
        title: Begins the plot's title.
        changes: Gives what the plot marks; None for nothing.
    """

    def __init__(
        self,
        folder: Path | str,
        history: Metrics | None = None,
        title: str = "GoogLeNet",
        changes: Callable[[], Changes] | None = None,
    ) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._history = {name: list(values) for name, values in (history or {}).items()}
        self._title = title
        self._changes = changes or dict

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Append the epoch's metrics and write the files."""
        logs = logs or {}
        before = max(map(len, self._history.values()), default=0)
        for name in dict.fromkeys([*self._history, *logs]):
            value = float(logs.get(name, math.nan))
            values = self._history.setdefault(name, [None] * before)
            values.append(value if math.isfinite(value) else None)
        self.write()

    @one_style()
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
            save_figure(plot_history(self._history, self._title, self._changes()), path)
