"""A contact sheet of some images: as they are stored, and as the network sees them in training.

It shows at a glance what no metric does: a wrong augmentation, swapped channels, wrong labels.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.classes import Classes
from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.plotting.style import new_figure, one_style, save_figure
from pipeline.run.state import RunState
from pipeline.run.training import training_batches

CLASSES, EPOCHS = 8, 6
"""Rows and augmented columns of the sheet, where there are as many."""
MIN_SHARE = 0.005
"""A smaller share of a mixed image would round to 0%."""


@one_style()
def write_preview(path: Path, train: HDF5Dataset, state: RunState) -> None:
    """Draw an image of each of some classes, stored and augmented, to ``path``.

    Args:
        path: Its suffix decides the format; see ``picture_format``.
        train: The train split.
        state: The run whose recipe and seed decide what the network sees.

    Raises:
        UserError: The file cannot be written.
    """
    labels = evenly_spaced(0, len(train.classes) - 1, CLASSES)
    rows = [int(np.argmax(train.labels == label)) for label in labels]
    save_figure(plot_preview(training_batches(train, state), state, rows), path)


def evenly_spaced(first: int, last: int, count: int) -> list[int]:
    """Return up to ``count`` different integers from ``first`` to ``last``, evenly spaced."""
    return sorted({round(number) for number in np.linspace(first, last, count)})


def epochs_to_show(last: int) -> list[int]:
    """Return up to ``EPOCHS`` epochs from 1 to ``last``, in pairs: alternating flips show both."""
    firsts = evenly_spaced(1, max(last - 1, 1), EPOCHS // 2)
    return sorted({min(first + more, last) for first in firsts for more in (0, 1)})


def augmented(batches: HDF5Generator, rows: Sequence[int]) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield each of ``rows`` of the data set as augmented in the epoch's batches.

    Yields:
        uint8 RGB (size, size, 3), and float32 (classes,): the label.
    """
    places = np.argsort(batches.order)[list(rows)]
    for step, place in zip(*np.divmod(places, batches.batch_size), strict=True):
        images, labels = batches[step]
        yield images[place], labels[place]


def plot_preview(batches: HDF5Generator, state: RunState, rows: Sequence[int]) -> Figure:
    """Draw the sheet: ``rows`` of the data set, as stored and in some of the run's epochs."""
    dataset, recipe = batches.dataset, state.recipe
    epochs = epochs_to_show(state.epochs)
    columns = len(epochs) + 1
    title = f"Train images as stored, and as recipe {state.recipe_name} shows them to the network"
    figure = new_figure(title, 1.25 * columns + 1.6, 1.3 * len(rows) + 0.8)
    cells = figure.subplots(len(rows), columns, squeeze=False)
    for axes in cells.flat:
        axes.set(xticks=[], yticks=[])
    stored = dataset.images.shape[1]
    cells[0, 0].set_title(f"stored\n{stored} pixels", fontsize=9)
    for axes, row in zip(cells[:, 0], rows, strict=True):
        name = dataset.classes.short_names[dataset.labels[row]]
        axes.set_ylabel(name.replace(" ", "\n"), rotation=0, ha="right", va="center", fontsize=9)
        axes.imshow(dataset.images[row])
    for column, epoch in enumerate(epochs, start=1):
        cells[0, column].set_title(f"epoch {epoch}\n{recipe.image_size(epoch)} pixels", fontsize=9)
        batches.begin_epoch(epoch)
        shown = augmented(batches, rows)
        for axes, (image, shares) in zip(cells[:, column], shown, strict=True):
            axes.imshow(image)
            name_mixture(axes, shares, dataset.classes)
    return figure


def name_mixture(axes: Axes, shares: np.ndarray, classes: Classes) -> None:
    """Write the classes of a mixed image below it."""
    labels = np.flatnonzero(shares >= MIN_SHARE)
    if len(labels) > 1:
        parts = (f"{shares[label]:.0%} {classes.short_names[label]}" for label in labels)
        axes.set_xlabel("\n".join(parts), fontsize=6, labelpad=1)
