"""Say what a person's own photographs show."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.classes import Classes
from pipeline.evaluation.metrics import Prediction, Predictor, best_predictions
from pipeline.preprocessing.photographs import read_photograph


def name_photographs(
    predictor: Predictor, paths: Sequence[Path], classes: Classes
) -> Iterator[tuple[Path, list[Prediction]]]:
    """Yield each photograph's path and its five most probable classes, the best first.

    Args:
        predictor: With the image size that its model was trained on.
        paths: See ``find_photographs``.
        classes: The model's.

    Raises:
        UserError: One cannot be read or decoded.
    """
    predictor = replace(predictor, batch_size=min(predictor.batch_size, len(paths)))
    for start in range(0, len(paths), predictor.batch_size):
        batch = paths[start : start + predictor.batch_size]
        images = np.stack([read_photograph(path, predictor.image_size) for path in batch])
        yield from zip(batch, best_predictions(predictor(images), classes), strict=True)


def prediction_records(
    results: Iterable[tuple[Path, Sequence[Prediction]]],
) -> list[dict[str, Any]]:
    """Return what ``name_photographs`` found as a JSON file holds it."""
    return [
        {"image": str(path), "predictions": [asdict(predicted) for predicted in predictions]}
        for path, predictions in results
    ]
