"""Save a checkpoint after each epoch."""

from contextlib import suppress
from pathlib import Path

import keras

from pipeline.callbacks.run_history import RunHistory
from pipeline.run.checkpoint import save_checkpoint
from pipeline.run.output_folder import checkpoint_name, epoch_of, list_checkpoints
from pipeline.run.state import best_epoch, epoch_rank


class EpochCheckpoint(keras.callbacks.Callback):
    """Writes ``epoch-026-val_loss-2.345.keras`` after each epoch.

    Args:
        folder: Created if missing.
        keep: Keep only this many of the newest checkpoints, and the best: by val accuracy, or else
            by val loss; without validation there is no best. Without ``run``, delete only files
            written here. None: keep all.
        run: Has the state to resume from, which each checkpoint then stores; None: store only the
            model and its optimizer.
    """

    def __init__(
        self, folder: Path | str, keep: int | None = None, run: RunHistory | None = None
    ) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._keep = keep
        self._run = run
        self._written: dict[int, Path] = {}
        self._ranks: dict[int, tuple[float, float]] = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Write the checkpoint, atomically.

        Raises:
            UserError: It cannot be written; the earlier checkpoints stay.
        """
        logs = logs or {}
        state = self._run.state if self._run else None
        path = self._folder / checkpoint_name(epoch + 1, logs.get("val_loss"))
        save_checkpoint(self.model, path, state)
        self._written[epoch + 1] = path
        self._ranks.pop(epoch + 1, None)
        if {"val_accuracy", "val_loss"} & logs.keys():
            self._ranks[epoch + 1] = epoch_rank(logs.get("val_accuracy"), logs.get("val_loss"))
        if self._keep:
            ranked = max(self._ranks, key=self._ranks.get, default=None)
            best = best_epoch(state.history) if state else ranked
            for old in list_checkpoints(self._folder) if state else list(self._written.values()):
                if epoch_of(old) <= epoch + 1 - self._keep and epoch_of(old) != best:
                    with suppress(PermissionError):  # Windows, while it is read: next epoch again
                        old.unlink(missing_ok=True)
