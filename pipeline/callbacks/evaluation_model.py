"""Evaluate and save on one device when several train."""

from collections.abc import Sequence

import keras
import numpy as np


class EvaluationModel(keras.callbacks.Callback):
    """Runs callbacks at an epoch's end on a model that lies on one device.

    Where several devices train, that is a replica, so that the checkpoint equals that of a run on
    one device. All callbacks share one ``logs``: what ``Validation`` adds, the later ones
    read, as do those after this one in ``fit``.

    Args:
        callbacks: In order.
        replica: A compiled model of the same architecture on one device; None: one device trains.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], replica: keras.Model | None = None
    ) -> None:
        super().__init__()
        self._callbacks = callbacks
        self._replica = replica

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Run the callbacks: on the replica, updated, if there is one."""
        model, distribution = self.model, keras.distribution.distribution()
        if self._replica is not None:
            model = self._replica
            self._update_replica()
            keras.distribution.set_distribution(None)
        try:
            for callback in self._callbacks:
                callback.set_model(model)
                callback.on_epoch_end(epoch, logs)
        finally:
            keras.distribution.set_distribution(distribution)

    def _update_replica(self) -> None:
        copies = [*self._replica.weights, *self._replica.optimizer.variables]
        originals = [*self.model.weights, *self.model.optimizer.variables]
        for copy, original in zip(copies, originals, strict=True):
            copy.assign(np.asarray(original.value))
