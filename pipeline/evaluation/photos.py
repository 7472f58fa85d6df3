"""Classify a user's own photographs."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.classes import Classes
from pipeline.errors import UserError
from pipeline.evaluation.metrics import Prediction, Predictor, best_predictions, prediction_table
from pipeline.io.files import write_csv
from pipeline.io.photographs import read_photograph
from pipeline.printing import say, without_library_messages


@dataclass(frozen=True)
class Photograph:
    """A photograph and a model's predictions."""

    path: Path
    image: np.ndarray
    """What the model saw: uint8 RGB (side, side, 3)."""
    predictions: Sequence[Prediction]
    """Its five most probable classes, the best first."""


def predict_photographs(
    predictor: Predictor,
    paths: Sequence[Path],
    classes: Classes,
    required: Collection[Path],
) -> Iterator[Photograph]:
    """Yield the photographs with their predictions.

    Args:
        predictor: With an image size.
        paths: See ``find_photographs``.
        classes: The model's.
        required: Those that must be readable; any other is skipped, with a note.

    Raises:
        UserError: One of ``required`` cannot be read or decoded.
    """
    predictor = replace(predictor, batch_size=min(predictor.batch_size, len(paths)))
    for start in range(0, len(paths), predictor.batch_size):
        read = {}
        with without_library_messages():
            for path in paths[start : start + predictor.batch_size]:
                try:
                    read[path] = read_photograph(path, predictor.image_size)
                except UserError as error:
                    if path in required:
                        raise
                    say(f"skipped: {error}", error=True)
        if read:
            predictions = best_predictions(predictor(np.stack([*read.values()])), classes)
            yield from map(Photograph, read.keys(), read.values(), predictions)


def prediction_records(photographs: Iterable[Photograph]) -> list[dict[str, Any]]:
    """Return the predictions in the form of the JSON file."""
    return [
        {"image": str(photo.path), "predictions": [asdict(p) for p in photo.predictions]}
        for photo in photographs
    ]


def write_predictions(path: Path, photographs: Sequence[Photograph]) -> None:
    """Write the predictions to ``path`` as CSV, one row per image.

    Raises:
        UserError: The file cannot be written.
    """
    columns = {"image": [photo.path for photo in photographs]}
    table = prediction_table(columns, [photo.predictions for photo in photographs])
    write_csv(path, table)
