"""A contact sheet of photographs with the five most probable classes of each."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from pipeline.classes import short_name
from pipeline.evaluation.predictions import Photograph
from pipeline.plotting.style import BLUE, new_figure, one_style, save_figure, shortened

COLUMNS, MAX_PHOTOGRAPHS = 3, 60
"""Photographs in a row, and at most on the sheet."""
MAX_NAME = 26
"""Characters."""


@one_style()
def write_sheet(path: Path, photographs: Sequence[Photograph]) -> None:
    """Draw the photographs as the model saw them, with their predictions, to ``path``.

    Args:
        path: Its suffix decides the format; see ``picture_format``.
        photographs: One or more.

    Raises:
        UserError: The file cannot be written.
    """
    shown = photographs[:MAX_PHOTOGRAPHS]
    rows, columns = math.ceil(len(shown) / COLUMNS), min(COLUMNS, len(shown))
    title = "Images as the model saw them"
    if len(photographs) > MAX_PHOTOGRAPHS:
        title += f": the first {MAX_PHOTOGRAPHS} of {len(photographs)}"
    figure = new_figure(title, 4.6 * columns, 1.45 * rows + 0.5)
    cells = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1, 2.2] * columns)
    for axes in cells.flat:
        axes.axis("off")
    for number, photo in enumerate(shown):
        row, column = divmod(number, columns)
        picture, bars = cells[row, 2 * column : 2 * column + 2]
        picture.imshow(photo.image)
        picture.set_title(shortened(photo.path.name, MAX_NAME), fontsize=7)
        _draw_bars(bars, photo)
    save_figure(figure, path)


def _draw_bars(axes: Axes, photo: Photograph) -> None:
    """Draw a bar for each class, with its name over it."""
    places = range(len(photo.predictions))
    axes.barh(places, [p.probability for p in photo.predictions], color=BLUE, alpha=0.3)
    axes.set(xlim=(0, 1), ylim=(len(places) - 0.4, -0.6))
    for place, predicted in zip(places, photo.predictions, strict=True):
        name = shortened(short_name(predicted.class_id, predicted.words), MAX_NAME)
        axes.text(0.01, place, f"{predicted.probability:.0%}  {name}", va="center", fontsize=8)
