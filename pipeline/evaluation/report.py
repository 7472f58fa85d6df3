"""The report of an evaluation: a page to look at, tables to compute with, and figures.

It answers in turn: how good is the model, where was it confident and wrong, which classes does it
confuse, is it well calibrated. The page holds all its pictures, so it opens from the
disk and can be passed on as one file.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix

from pipeline.evaluation import REPORT_FILES
from pipeline.evaluation.metrics import TOP_K, rank_of_truth
from pipeline.evaluation.predictions import best_predictions, prediction_table
from pipeline.io.files import atomic_writes, csv_bytes
from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.plotting.style import (
    BLUE,
    GREY,
    SHADES,
    add_grid,
    figure_bytes,
    new_figure,
    one_style,
    shortened,
)
from pipeline.preprocessing.images import encode_jpeg

TEMPLATE = "report.html.jinja"
PAIRS, EXAMPLES, MISTAKES = 12, 3, 24
"""How many confused pairs the page shows, with how many images of each side, and mistakes."""
BINS, MIN_IN_BIN = 15, 5
"""Of the calibration curve; a bin with fewer images than that is not drawn."""
MAX_NUMBERED = 25
"""With more classes, the cells of the confusion matrix are too small for numbers."""
MAX_LABEL, CHARACTER_WIDTH = 40, 0.6
"""Characters of a class's name beside the confusion matrix; about how wide one is, in ems."""


@dataclass(frozen=True)
class Proportion:
    """A binomial proportion with Wilson's 95% interval."""

    count: int
    total: int

    @property
    def value(self) -> float:
        """0 to 1; NaN where the total is 0."""
        return self.count / self.total if self.total else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The lower and the upper bound, 0 to 1."""
        if not self.total:
            return 0.0, 1.0
        bounds = binomtest(self.count, self.total).proportion_ci(0.95, method="wilson")
        return float(bounds.low), float(bounds.high)


@dataclass(frozen=True)
class Calibration:
    """Accuracy over confidence, in ``BINS`` of equal width from 0 to 1."""

    images: np.ndarray
    """In each bin, int64."""
    right: np.ndarray
    """How many of them are predicted correctly, int64."""
    confidence: np.ndarray
    """The sum of their confidences, float64."""

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, arXiv:1706.04599, section 2)."""
        return float(np.abs(self.right - self.confidence).sum() / self.images.sum())


class Report:
    """A model's predictions for a split, analysed.

    Args:
        dataset: The split.
        probabilities: float32 (n, classes), finite, of its images in order.
    """

    def __init__(self, dataset: HDF5Dataset, probabilities: np.ndarray) -> None:
        self.dataset, self.probabilities = dataset, probabilities
        self.names = dataset.classes.short_names
        self.truth = dataset.labels
        self.predicted = probabilities.argmax(axis=1)
        self.confidence = probabilities.max(axis=1)
        self.ranks = rank_of_truth(probabilities, self.truth)
        labels = range(len(dataset.classes))
        self.confusion = confusion_matrix(self.truth, self.predicted, labels=labels)

    @one_style()
    def write(self, folder: Path, facts: Mapping[str, str]) -> None:
        """Write ``REPORT_FILES`` to ``folder``, made as needed; ``facts`` head the page.

        Raises:
            UserError: A file cannot be written.
        """
        calibration = self.calibration()
        matrix = figure_bytes(self.plot_confusion(), "png")
        curve = figure_bytes(plot_calibration(calibration), "png")
        page = self._page(
            facts=facts,
            calibration=calibration,
            matrix=_data_uri("png", matrix),
            curve=_data_uri("png", curve),
        ).encode("utf-8", "backslashreplace")
        classes, predictions = map(csv_bytes, (self._class_table(), self._prediction_table()))
        with atomic_writes(folder / name for name in REPORT_FILES) as paths:
            for path, contents in zip(
                paths, (page, classes, predictions, matrix, curve), strict=True
            ):
                path.write_bytes(contents)

    def accuracy(self, rank: int, label: int | None = None) -> Proportion:
        """Return how many images have their class among the ``rank`` most probable ones.

        Args:
            rank: 1 or more.
            label: Of these images alone; None takes all.
        """
        ranks = self.ranks if label is None else self.ranks[self.truth == label]
        return Proportion(int((ranks < rank).sum()), len(ranks))

    def weakest_classes(self) -> list[int]:
        """Return all labels: first those without images, then by rank-1, the lowest first."""
        rank1 = [self.accuracy(1, label) for label in range(len(self.names))]
        return sorted(range(len(rank1)), key=lambda n: rank1[n].value if rank1[n].total else -1)

    def most_predicted_as(self, label: int) -> tuple[str, int]:
        """Return the other class that images of ``label`` most often pass for, and how often."""
        others = self.confusion[label].copy()
        others[label] = 0
        return self.names[others.argmax()] if others.any() else "", int(others.max())

    def confident_mistakes(self) -> np.ndarray:
        """Return the most confident errors, the most confident first, int64."""
        return self._most_confident(self.predicted != self.truth, MISTAKES)

    def confused_pairs(self) -> list[tuple[int, int]]:
        """Return the labels of the pairs of classes most often confused, the worst first."""
        both = np.triu(self.confusion + self.confusion.T, k=1)
        worst = np.argsort(-both, axis=None, kind="stable")[:PAIRS]
        return [divmod(int(index), len(both)) for index in worst if both.flat[index]]

    def examples(self, first: int, second: int) -> list[int]:
        """Return images of ``first`` predicted as ``second``, and then of the reverse."""
        rows = [
            self._most_confident((self.truth == label) & (self.predicted == other), EXAMPLES)
            for label, other in ((first, second), (second, first))
        ]
        return np.concatenate(rows).tolist()

    def _most_confident(self, chosen: np.ndarray, count: int) -> np.ndarray:
        """Return the ``count`` most confident of the images that ``chosen``, bool (n,), marks."""
        rows = np.flatnonzero(chosen)
        return rows[np.argsort(-self.confidence[rows], kind="stable")][:count]

    def picture(self, image: int) -> str:
        """Return an image of the split as a data URI."""
        return _data_uri("jpeg", encode_jpeg(self.dataset.images[image]))

    def calibration(self) -> Calibration:
        """Count the images, and those predicted correctly, by confidence."""
        confidence = np.clip(self.confidence.astype(np.float64), 0, 1)
        bins = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
        return Calibration(
            images=np.bincount(bins, minlength=BINS),
            right=np.bincount(bins[self.ranks == 0], minlength=BINS),
            confidence=np.bincount(bins, confidence, BINS),
        )

    def related_order(self) -> np.ndarray:
        """Return the labels in an order that puts similar classes side by side.

        Classes are clustered by the mean probabilities that their images get; the leaves of the
        tree are ordered so that neighbours are as close as it allows.
        """
        count = len(self.dataset.classes)
        if count < 3:
            return np.arange(count)
        means = np.zeros((count, count))
        for label in np.unique(self.truth):
            means[label] = self.probabilities[self.truth == label].mean(axis=0)
        # Hellinger's distance, made for distributions
        return leaves_list(linkage(np.sqrt(means), "ward", optimal_ordering=True))

    def plot_confusion(self) -> Figure:
        """Draw the confusion matrix, related classes side by side."""
        order = self.related_order()
        counts = self.confusion[np.ix_(order, order)]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        names = [shortened(self.names[label], MAX_LABEL) for label in order]
        # at most 30 inches, for the memory that a picture takes
        cell = float(np.clip(6 / len(order), min(0.105, 30 / len(order)), 0.6))
        font = min(10.0, cell * 72 * 0.75)
        labels = max(map(len, names)) * font * CHARACTER_WIDTH / 72
        side = cell * len(order) + max(2.4, 1.3 + labels)
        figure = new_figure("Confusion matrix: true and predicted classes", side + 0.6, side)
        figure.set_layout_engine("compressed")  # the one for axes of a fixed aspect
        figure.suptitle(figure.get_suptitle(), x=0.01, ha="left")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=SHADES, norm=PowerNorm(0.5, 0, 1))
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
        axes.set_yticks(range(len(names)), names, fontsize=font)
        axes.set(xlabel="predicted class", ylabel="true class")
        if len(names) <= MAX_NUMBERED:
            for row, column in np.argwhere(counts):
                shade = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, counts[row, column], color=shade, ha="center", va="center",
                          fontsize=font * 0.85)  # fmt: skip
        bar = figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, aspect=30)
        bar.set_label("proportion of the\ntrue class's images")
        return figure

    def _class_table(self) -> list[list[object]]:
        table: list[list[object]] = [
            ["class_id", "words", "images", "rank1", "rank1_low", "rank1_high", "rank5",
             "most_predicted_as", "times"]
        ]  # fmt: skip
        for label, class_id in enumerate(self.dataset.classes.ids):
            rank1, rank5 = self.accuracy(1, label), self.accuracy(TOP_K, label)
            shares = (rank1.value, *rank1.interval, rank5.value)
            cells = [f"{share:.4f}" if rank1.total else "" for share in shares]
            table.append([class_id, self.dataset.classes.names[label], rank1.total, *cells,
                          *self.most_predicted_as(label)])  # fmt: skip
        return table

    def _prediction_table(self) -> list[list[object]]:
        classes = self.dataset.classes
        truth = [classes.ids[label] for label in self.truth]
        files = map(self.dataset.file_name, range(len(truth)))
        columns = {"image": range(len(truth)), "file": list(files), "truth": truth}
        return prediction_table(columns, best_predictions(self.probabilities, classes))

    def _page(self, **values: object) -> str:
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template(TEMPLATE).render(report=self, **values)


def plot_calibration(calibration: Calibration) -> Figure:
    """Draw the reliability diagram above a histogram of the confidences."""
    figure = new_figure(f"Calibration: expected error {calibration.error:.1%}", 6, 6.4)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    drawn = calibration.images >= MIN_IN_BIN
    images, right = calibration.images[drawn], calibration.right[drawn]
    accuracy = right / images
    bounds = [Proportion(int(r), int(n)).interval for r, n in zip(right, images, strict=True)]
    reach = np.abs(np.reshape(bounds, (-1, 2)).T - accuracy)
    curve.plot([0, 1], [0, 1], "--", color=GREY, label="perfect calibration")
    curve.errorbar(calibration.confidence[drawn] / images, accuracy, yerr=reach, fmt="o-",
                   color=BLUE, markersize=4, linewidth=1.4, capsize=2,
                   label="the model, with 95% intervals")  # fmt: skip
    curve.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    curve.legend(fontsize=8)
    counts.stairs(calibration.images, np.linspace(0, 1, BINS + 1), fill=True, color=BLUE)
    counts.set(xlabel="confidence: the predicted class's probability", ylabel="images")
    for axes in (curve, counts):
        add_grid(axes)
    for axis in (curve.yaxis, counts.xaxis):
        axis.set_major_formatter(PercentFormatter(1))
    return figure


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
