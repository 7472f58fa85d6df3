"""build_dataset.py --preview: what the network sees, on a sheet for a person."""

import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CLASS_IDS, Run
from matplotlib.figure import Figure

from pipeline.backend import import_keras

import_keras()

from pipeline.classes import Classes  # noqa: E402
from pipeline.io.hdf5_dataset import HDF5Dataset, open_split  # noqa: E402
from pipeline.plotting.preview import (  # noqa: E402
    epochs_to_show,
    evenly_spaced,
    name_mixture,
    plot_preview,
    write_preview,
)
from pipeline.recipe import Augmentation, Recipe  # noqa: E402
from pipeline.run.start import fresh_run  # noqa: E402
from pipeline.run.state import RunState  # noqa: E402
from pipeline.run.training import training_batches  # noqa: E402


@pytest.fixture(scope="module")
def train(made_hdf5: Path) -> HDF5Dataset:
    return open_split(made_hdf5, "train")


def run_of(train: HDF5Dataset, augmentation: Augmentation) -> RunState:
    sizes = ((1, 48), (7, 64))
    recipe = Recipe(epochs=10, batch_size=3, image_sizes=sizes, augmentation=augmentation)
    return fresh_run("own", recipe, 8, train, train)


def test_sheet_shows_what_training_shows(train: HDF5Dataset) -> None:
    """Every cell is an image of a batch that a run over the whole split is fed."""
    state = run_of(train, Augmentation(shift=0.06, flip="alternating", cutmix=1.0))
    rows = [0, 40, 41, len(train) - 1]
    figure = plot_preview(training_batches(train, state), state, rows)
    cells = np.reshape([axes for axes in figure.axes if axes.images], (len(rows), -1))
    assert cells.shape == (4, 7)
    batches = training_batches(train, state)
    for column, epoch in enumerate((1, 2, 5, 6, 9, 10), start=1):
        batches.begin_epoch(epoch)
        images = np.concatenate([batches[step][0] for step in range(len(batches))])
        for axes, row in zip(cells[:, column], rows, strict=True):
            (place,) = np.flatnonzero(batches.order == row)
            assert np.array_equal(axes.images[0].get_array(), images[place])
    for axes, row in zip(cells[:, 0], rows, strict=True):
        assert np.array_equal(axes.images[0].get_array(), train.images[row])


def test_sheet_names_classes_epochs_and_sizes(train: HDF5Dataset) -> None:
    rows = [int(np.argmax(train.labels == label)) for label in (0, 2)]
    state = run_of(train, Augmentation())
    figure = plot_preview(training_batches(train, state), state, rows)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles[0] == "stored\n64 pixels"
    assert titles[1] == "epoch 1\n48 pixels"
    assert titles[-1] == "epoch 10\n64 pixels"
    names = [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()]
    assert names == ["goldfish", "Egyptian\ncat"]


def test_mixed_images_tell_their_shares(train: HDF5Dataset) -> None:
    axes = Figure().subplots()
    name_mixture(axes, np.array([0.7, 0, 0, 0.3]), train.classes)
    assert axes.get_xlabel() == "70% goldfish\n30% lemon"
    axes = Figure().subplots()
    name_mixture(axes, np.array([0.996, 0, 0, 0.004]), train.classes)
    assert axes.get_xlabel() == ""


def test_epochs_come_in_pairs() -> None:
    assert [epochs_to_show(last) for last in (1, 2, 3)] == [[1], [1, 2], [1, 2, 3]]
    assert epochs_to_show(11) == [1, 2, 6, 7, 10, 11]


def test_evenly_spaced() -> None:
    assert evenly_spaced(1, 3, 6) == [1, 2, 3]
    assert evenly_spaced(0, 199, 3) == [0, 100, 199]


def test_script_builds_once_and_draws(made_data: Path, tmp_path: Path, run: Run) -> None:
    hdf5, sheet = tmp_path / "hdf5", tmp_path / "sheet.png"
    first = run("build_dataset.py", "-d", made_data, "-o", hdf5, "--preview", sheet)
    assert f"wrote {sheet}" in first.stdout
    height, width, _ = cv2.imread(str(sheet)).shape
    assert height > len(CLASS_IDS) * 120
    assert width > 7 * 120
    built = (hdf5 / "train.hdf5").stat().st_mtime_ns
    sheet.unlink()
    flags = ("-o", hdf5, "--preview", sheet, "-r", "best")
    (tmp_path / "tiny-imagenet-200").mkdir()  # whose images are gone
    again = run("build_dataset.py", *flags, cwd=tmp_path)
    assert "built already" in again.stdout
    assert "model_train.py -r best" in again.stdout
    assert (hdf5 / "train.hdf5").stat().st_mtime_ns == built
    assert sheet.exists()


# Matplotlib writes the latter, if LaTeX is there
@pytest.mark.parametrize("suffix", ["txt", "pgf"])
def test_format_is_checked_before_the_build(
    suffix: str, made_data: Path, tmp_path: Path, run: Run
) -> None:
    sheet = tmp_path / f"sheet.{suffix}"
    error = run("build_dataset.py", "-d", made_data, "-o", tmp_path, "--preview", sheet, status=2)
    assert "must end in .png" in error.stderr
    assert list(tmp_path.iterdir()) == []
    run("build_dataset.py", "-d", made_data, "-o", tmp_path, "-r", "quick", status=2)


def test_words_are_drawn_as_they_are(train: HDF5Dataset, tmp_path: Path) -> None:
    """A ``$`` begins no formula, and what the font lacks is no line on the terminal."""
    strange = replace(train, classes=Classes(CLASS_IDS, ("$\\frac", "$$", "\x1b[2J\0", "\u4e2d")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_preview(tmp_path / "sheet.png", strange, run_of(train, Augmentation(cutmix=1.0)))
    assert cv2.imread(str(tmp_path / "sheet.png")) is not None
