"""Top-1 and top-5 accuracy (rank-1, rank-5) over every image, the last partial batch too."""

from dataclasses import dataclass, replace

import keras
import numpy as np

from pipeline.errors import UserError
from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.progress import progress_bar, remove_bar

TOP_K = 5
SUM_TOLERANCE = 0.05
"""Of a sum of probabilities, which may be in bfloat16."""
EPSILON = 1e-7
"""Keras's epsilon: its cross-entropy clips probabilities to it."""


@dataclass(frozen=True)
class Scores:
    """Metrics of a model on a split."""

    rank1: float
    """Fraction of the images whose class is the most probable."""
    rank5: float
    """Fraction of the images whose class is among the five most probable."""
    images: int
    """How many were scored."""
    loss: float
    """Mean cross-entropy, in nats, without penalties or label smoothing."""


@dataclass(frozen=True)
class Predictor:
    """A trained model as a function from images to probabilities."""

    model: keras.Model
    batch_size: int
    """Most images per call."""
    image_size: int | None = None
    """The image size in pixels; None: any."""
    flip: bool = False
    """Average with the probabilities of the mirrored images."""

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Return the probabilities, float32 (n, classes), of uint8 RGB (n, side, side, 3)."""
        probabilities = self._predict(images)
        if self.flip:
            probabilities = (probabilities + self._predict(images[:, :, ::-1])) / 2
        return probabilities

    def _predict(self, images: np.ndarray) -> np.ndarray:
        """Predict at most a batch, padded to a whole one: the model is compiled for its size."""
        padding = [(0, self.batch_size - len(images))] + [(0, 0)] * 3
        return np.asarray(self.model.predict_on_batch(np.pad(images, padding)))[: len(images)]


def predict(predictor: Predictor, batches: HDF5Generator) -> np.ndarray:
    """Return the probabilities, float32 (n, classes), of all images of ``batches`` in its order."""
    predictor = replace(predictor, batch_size=batches.batch_size)  # a split may be below one batch
    bar = progress_bar(batches.dataset.split, len(batches))
    size, classes = predictor.batch_size, len(batches.dataset.classes)
    probabilities = np.empty((len(batches.dataset), classes), np.float32)
    try:
        for step in range(len(batches)):
            probabilities[step * size : (step + 1) * size] = predictor(batches[step][0])
            bar.increment()
    finally:
        remove_bar(bar)
    return probabilities


def check_probabilities(probabilities: np.ndarray) -> None:
    """Check that predictions are finite: activations may overflow.

    Raises:
        UserError: One is NaN or infinite.
    """
    if not np.isfinite(probabilities).all():
        raise UserError("some predictions are NaN or infinite; use another checkpoint")


def score(probabilities: np.ndarray, truth: np.ndarray) -> Scores:
    """Score probabilities, float (n, classes), by the true labels, int (n,)."""
    ranks = rank_of_truth(probabilities, truth)
    of_truth = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return Scores(
        rank1=float((ranks == 0).mean()),
        rank5=float((ranks < TOP_K).mean()),
        images=len(ranks),
        loss=float(-np.log(np.maximum(of_truth, EPSILON)).mean()),
    )


def evaluate(model: keras.Model, batches: HDF5Generator) -> Scores:
    """Score ``model`` on all images of ``batches``.

    Raises:
        UserError: Its outputs do not sum to 1: they are logits.
    """
    truth = batches.dataset.labels[batches.order]
    probabilities = predict(Predictor(model, batches.batch_size), batches)
    sums = probabilities.sum(axis=1)
    if np.any(np.abs(sums[np.isfinite(sums)] - 1) > SUM_TOLERANCE):
        raise UserError("the model's outputs do not sum to 1; end it with a softmax")
    return score(probabilities, truth)


def rank_of_truth(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return how many other classes are at least as probable as the true one, int64 (n,).

    Ties count against the model, for uniform predictions deserve no credit. NaN ranks last.
    """
    of_truth = probabilities[np.arange(len(truth)), truth][:, None]
    return probabilities.shape[1] - 1 - (probabilities < of_truth).sum(axis=1)
