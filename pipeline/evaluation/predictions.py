"""The most probable classes of images, and of a user's own photographs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.classes import Classes
from pipeline.errors import UserError
from pipeline.evaluation.metrics import TOP_K, Predictor, check_probabilities
from pipeline.io.files import write_csv
from pipeline.io.photographs import read_photograph
from pipeline.printing import say, without_library_messages


@dataclass(frozen=True)
class Prediction:
    """A class that an image may show."""

    class_id: str
    words: str
    probability: float


def best_predictions(probabilities: np.ndarray, classes: Classes) -> list[list[Prediction]]:
    """Return each image's five most probable classes, the best first."""
    labels = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
    return [
        [Prediction(classes.ids[n], classes.names[n], float(row[n])) for n in best]
        for best, row in zip(labels, probabilities, strict=True)
    ]


def prediction_table(
    columns: Mapping[str, Sequence[object]], predictions: Sequence[Sequence[Prediction]]
) -> list[list[object]]:
    """Return a table for ``write_csv``: ``columns``, and beside them the predictions.

    Args:
        columns: Their heads, and one value per image.
        predictions: Of each image; at least one image's.
    """
    places = range(1, len(predictions[0]) + 1)
    heads = [head for place in places for head in (f"class_{place}", f"probability_{place}")]
    table: list[list[object]] = [[*columns, *heads]]
    for *first, best in zip(*columns.values(), predictions, strict=True):
        table.append([*first, *(c for p in best for c in (p.class_id, f"{p.probability:.6f}"))])
    return table


@dataclass(frozen=True)
class Photograph:
    """A photograph and a model's predictions."""

    path: Path
    image: np.ndarray | None
    """What the model saw: uint8 RGB (side, side, 3). None: not kept."""
    predictions: Sequence[Prediction]
    """Its five most probable classes, the best first."""


def predict_photographs(
    predictor: Predictor,
    paths: Sequence[Path],
    classes: Classes,
) -> Iterator[Photograph]:
    """Yield the photographs with their predictions.

    Args:
        predictor: With an image size.
        paths: See ``find_photographs``.
        classes: The model's.

    Raises:
        UserError: The only photograph cannot be read (of several, it is skipped with a message), or
            a prediction is NaN or infinite.
    """
    predictor = replace(predictor, batch_size=min(predictor.batch_size, len(paths)))
    for start in range(0, len(paths), predictor.batch_size):
        read = {}
        with without_library_messages():
            for path in paths[start : start + predictor.batch_size]:
                try:
                    read[path] = read_photograph(path, predictor.image_size)
                except UserError as error:
                    if len(paths) == 1:
                        raise
                    say(f"skipped: {error}", error=True)
        if read:
            probabilities = predictor(np.stack([*read.values()]))
            check_probabilities(probabilities)
            predictions = best_predictions(probabilities, classes)
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
