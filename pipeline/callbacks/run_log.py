"""Write run.jsonl, what differs between equal runs: times, speeds, where they resumed."""

import json
import time
from pathlib import Path
from typing import Any

import keras

from pipeline.callbacks.progress_bar import ProgressBar
from pipeline.io.files import atomic_write, explain_write_errors
from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.io.regular_files import read_file
from pipeline.run.conditions import conditions
from pipeline.run.output_folder import LOG
from pipeline.run.state import RunState


class RunLog(keras.callbacks.Callback):
    """Appends one JSON object a line to ``folder/run.jsonl``.

    A line that a killed run left unfinished is dropped. ``batches``, which ``fit`` trains on,
    measure the time waited for them, and ``bar`` the images per second.
    """

    def __init__(self, folder: Path, batches: HDF5Generator, bar: ProgressBar) -> None:
        super().__init__()
        self._path = folder / LOG
        self._batches = batches
        self._bar = bar
        if self._path.exists():
            with explain_write_errors(self._path):  # which comes next
                lines = read_file(self._path)
            if not lines.endswith(b"\n"):
                with atomic_write(self._path) as path:
                    path.write_bytes(lines[: lines.rfind(b"\n") + 1])

    def write(self, event: str, **values: Any) -> None:
        """Add an event with the time in seconds since 1970."""
        with explain_write_errors(self._path), self._path.open("a") as file:
            file.write(json.dumps({"event": event, "time": round(time.time(), 3), **values}) + "\n")

    def write_start(self, state: RunState, devices: list[str]) -> None:
        """Add how a session starts: from which epoch, by what, on which data."""
        self.write(
            "start",
            epoch=state.epoch,
            epochs=state.epochs,
            backend=state.backend,
            devices=devices,
            learning_rate=state.learning_rate,
            hdf5=str(self._batches.dataset.path.parent.resolve()),
            conditions=conditions(devices),
        )

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Add the epoch's speed, the fraction of it spent waiting for batches, the time left."""
        self.write(
            "epoch",
            epoch=epoch + 1,
            images_per_second=round(self._bar.images_per_second, 1),
            waiting=round(self._batches.seconds_waited / self._bar.epoch_seconds, 5),
            seconds_left=round(self._bar.time_left(epoch + 1), 1),
        )
