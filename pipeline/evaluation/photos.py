"""Say what a person's own photographs show."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.classes import Classes
from pipeline.errors import UserError
from pipeline.evaluation.metrics import (
    Prediction,
    Predictor,
    best_predictions,
    prediction_table,
)
from pipeline.io.files import atomic_write, write_csv
from pipeline.preprocessing.photographs import read_photograph


@dataclass(frozen=True)
class NamedPhotograph:
    """A photograph and what a model says of it."""

    path: Path
    image: np.ndarray
    """What the model saw: uint8 RGB (side, side, 3)."""
    predictions: Sequence[Prediction]
    """Its five most probable classes, the best first."""


def name_photographs(
    predictor: Predictor,
    paths: Sequence[Path],
    classes: Classes,
    refuse: Callable[[Path, UserError], None],
) -> Iterator[NamedPhotograph]:
    """Yield the photographs, named.

    Args:
        predictor: With the image size to predict at.
        paths: See ``find_photographs``.
        classes: The model's.
        refuse: Called with what cannot be read or decoded; returns where it is to be left out.
    """
    predictor = replace(predictor, batch_size=min(predictor.batch_size, len(paths)))
    for start in range(0, len(paths), predictor.batch_size):
        read = {}
        for path in paths[start : start + predictor.batch_size]:
            try:
                read[path] = read_photograph(path, predictor.image_size)
            except UserError as error:
                refuse(path, error)
        if read:
            predictions = best_predictions(predictor(np.stack([*read.values()])), classes)
            yield from map(NamedPhotograph, read.keys(), read.values(), predictions)


def prediction_records(named: Iterable[NamedPhotograph]) -> list[dict[str, Any]]:
    """Return what ``name_photographs`` found as a JSON file holds it."""
    return [
        {"image": str(photo.path), "predictions": [asdict(p) for p in photo.predictions]}
        for photo in named
    ]


def write_predictions(path: Path, named: Sequence[NamedPhotograph]) -> None:
    """Write what ``name_photographs`` found to ``path`` as CSV, a row an image.

    Raises:
        UserError: The file cannot be written.
    """
    columns = {"image": [photo.path for photo in named]}
    with atomic_write(path) as unfinished:
        write_csv(unfinished, prediction_table(columns, [photo.predictions for photo in named]))
