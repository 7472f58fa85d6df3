"""A contact sheet of some images: as they are stored, and as the network sees them in training.

A wrong augmentation, a channel order turned round or a label that does not fit the image show at
a glance, and in no number.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.dataset.tiny_imagenet import short_name
from pipeline.io.files import atomic_write
from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.io.hdf5_generator import HDF5Generator
from pipeline.plotting.style import new_figure, save_figure
from pipeline.run.state import RunState
from pipeline.run.training import training_batches

CLASSES, EPOCHS = 8, 6
"""Rows and augmented columns of the sheet, where there are as many."""


def write_preview(path: Path, train: HDF5Dataset, state: RunState) -> None:
    """Draw an image of each of some classes, stored and augmented, to ``path``.

    Args:
        path: Its suffix decides the format; see ``check_figure_format``.
        train: The train split.
        state: The run whose recipe and seed decide what the network sees.

    Raises:
        UserError: The file cannot be written.
    """
    shown = one_image_of_each(train, evenly_spaced(0, len(train.class_ids) - 1, CLASSES))
    with training_batches(shown, state) as batches, atomic_write(path) as unfinished:
        save_figure(plot_preview(batches, state), unfinished)


def evenly_spaced(first: int, last: int, count: int) -> list[int]:
    """Return up to ``count`` different whole numbers from ``first`` to ``last``, evenly spaced."""
    return sorted({round(number) for number in np.linspace(first, last, count)})


def one_image_of_each(dataset: HDF5Dataset, labels: list[int]) -> HDF5Dataset:
    """Return the first image of each of ``labels``, as a data set."""
    rows = [int(np.argmax(dataset.labels == label)) for label in labels]
    return replace(dataset, images=dataset.images[rows], labels=dataset.labels[rows])


def augmented(batches: HDF5Generator, epoch: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the images of ``epoch`` and their labels, in the order of the data set.

    Returns:
        uint8 RGB (n, size, size, 3), and float32 (n, classes): the share of each class.
    """
    batches.begin_epoch(epoch, size)
    pairs = [batches[step] for step in range(len(batches))]
    images, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    place = np.argsort(batches.order)
    return images[place], labels[place]


def plot_preview(batches: HDF5Generator, state: RunState) -> Figure:
    """Draw the sheet: a row a class, then its image as stored and in some of the run's epochs."""
    dataset, recipe = batches.dataset, state.recipe
    epochs = evenly_spaced(1, state.epochs, EPOCHS)
    rows, columns = len(dataset), len(epochs) + 1
    title = f"Train images as stored, and as recipe {state.recipe_name} shows them to the network"
    figure = new_figure(title, 1.25 * columns + 1.6, 1.3 * rows + 0.8)
    cells = figure.subplots(rows, columns, squeeze=False)
    for axes in cells.flat:
        axes.set(xticks=[], yticks=[])
    stored = dataset.images.shape[1]
    cells[0, 0].set_title(f"stored\n{stored} pixels", fontsize=9)
    for row, label in enumerate(dataset.labels):
        name = short_name(dataset.class_names[label]).replace(" ", "\n")
        cells[row, 0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
        cells[row, 0].imshow(dataset.images[row])
    for column, epoch in enumerate(epochs, start=1):
        size = recipe.image_size(epoch)
        cells[0, column].set_title(f"epoch {epoch}\n{size} pixels", fontsize=9)
        images, labels = augmented(batches, epoch, size)
        for axes, image, shares in zip(cells[:, column], images, labels, strict=True):
            axes.imshow(image)
            name_mixture(axes, shares, dataset)
    return figure


def name_mixture(axes: Axes, shares: np.ndarray, dataset: HDF5Dataset) -> None:
    """Write the classes of a mixed image below it."""
    labels = np.flatnonzero(shares)
    if len(labels) > 1:
        parts = (
            f"{shares[label]:.0%} {short_name(dataset.class_names[label])}" for label in labels
        )
        axes.set_xlabel("\n".join(parts), fontsize=6, labelpad=1)
