"""Evaluate and save by a model on one device, where several train."""

from collections.abc import Sequence
from contextlib import nullcontext

import keras

from pipeline.run.distributed import DataParallelism


class EvaluationModel(keras.callbacks.Callback):
    """Runs callbacks at an epoch's end on the model to evaluate and save.

    Where several devices train, that is a replica on one, so that its file is that of a run
    on one device. All callbacks share one ``logs``: what ``Validation`` adds, the later ones read,
    as do those after this one in ``fit``.

    Args:
        callbacks: In order.
        parallel: The devices that the network trains on; None: one.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], parallel: DataParallelism | None = None
    ) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._parallel = parallel

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Run the callbacks."""
        parallel = self._parallel
        on_one_device = parallel.on_one_device(self.model) if parallel else nullcontext(self.model)
        with on_one_device as model:
            for callback in self._callbacks:
                callback.set_model(model)
                callback.on_epoch_end(epoch, logs)
