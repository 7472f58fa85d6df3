"""The report of an evaluation: a page to look at, tables to compute with, and figures.

It answers in turn: how good is the model, at which classes, which does it confuse, is it as
often right as it is sure, and where was it sure and wrong. The page holds all its pictures, so it
opens from the disk and can be passed on as one file.
"""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from pipeline.errors import UserError
from pipeline.evaluation.metrics import (
    RANK,
    best_predictions,
    prediction_table,
    rank_of_truth,
)
from pipeline.io.files import atomic_writes, write_csv
from pipeline.io.hdf5_dataset import HDF5Dataset
from pipeline.plotting.style import BLUE, GREY, SHADES, add_grid, new_figure, one_style, save_figure
from pipeline.preprocessing.images import encode_jpeg

PAGE, CLASSES, PREDICTIONS = "report.html", "per_class.csv", "predictions.csv"
MATRIX, CALIBRATION = "confusion_matrix.png", "calibration.png"
OUTPUTS = (PAGE, CLASSES, PREDICTIONS, MATRIX, CALIBRATION)
TEMPLATE = "report.html.jinja"
PAIRS, EXAMPLES, MISTAKES = 12, 3, 24
"""How many confused pairs the page shows, with how many images of each side, and mistakes."""
BINS, FEWEST_IN_BIN = 15, 5
"""Of equal width, over the confidence from 0 to 1; one of fewer images is no point of the curve."""
MOST_NUMBERED = 25
"""With more classes, the cells of the confusion matrix are too small for numbers."""


@dataclass(frozen=True)
class Proportion:
    """So many of so many, with Wilson's 95% interval."""

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
class ClassResult:
    """How a model did on the images of one class."""

    class_id: str
    words: str
    rank1: Proportion
    rank5: Proportion
    predicted_as: str
    """The other class most often predicted, "" if none ever was."""
    predicted_times: int


@dataclass(frozen=True)
class Mistake:
    """An image that the model took for one of another class."""

    picture: str
    image: int
    truth: str
    predicted: str
    confidence: float
    of_truth: float
    """The probability of the true class."""


@dataclass(frozen=True)
class ConfusedPair:
    """Two classes that are confused with each other."""

    first: str
    second: str
    first_as_second: Proportion
    second_as_first: Proportion
    examples: Sequence[Mistake]


@dataclass(frozen=True)
class Calibration:
    """How often the model is right, bin by bin of how sure it is."""

    confidence: np.ndarray
    """Mean in each bin that is not empty, float64, 0 to 1."""
    accuracy: np.ndarray
    """Rank-1 in each of these, float64."""
    images: np.ndarray
    """In each of all ``BINS``, int64."""

    @property
    def error(self) -> float:
        """The expected calibration error: the mean gap between the two, over all images."""
        gaps = np.abs(self.confidence - self.accuracy)
        return float(np.average(gaps, weights=self.images[self.images > 0]))


class Report:
    """What there is to say of a model's predictions for a split.

    Args:
        dataset: The split.
        probabilities: float32 (n, classes), of its images in order.

    Raises:
        UserError: A probability is not a number.
    """

    def __init__(self, dataset: HDF5Dataset, probabilities: np.ndarray) -> None:
        if not np.isfinite(probabilities).all():
            raise UserError("the model gives no numbers for some images; use another checkpoint")
        self._dataset, self._probabilities = dataset, probabilities
        self._truth = dataset.labels
        self._names = dataset.classes.short_names
        self._predicted = probabilities.argmax(axis=1)
        self._confidence = probabilities.max(axis=1)
        self._ranks = rank_of_truth(probabilities, self._truth)
        labels = range(len(dataset.classes))
        self.confusion = confusion_matrix(self._truth, self._predicted, labels=labels)

    @one_style()
    def write(self, folder: Path, facts: Mapping[str, str]) -> None:
        """Write all of ``OUTPUTS`` to ``folder``, made as needed; ``facts`` head the page.

        Raises:
            UserError: A file cannot be written.
        """
        calibration = self.calibration()
        with atomic_writes(folder / name for name in OUTPUTS) as paths:
            page, classes, predictions, matrix, curve = paths
            save_figure(self.plot_confusion(), matrix)
            save_figure(plot_calibration(calibration), curve)
            write_csv(classes, self._class_rows())
            write_csv(predictions, self._prediction_rows())
            figures = {"matrix": _png_uri(matrix), "calibration_plot": _png_uri(curve)}
            page.write_text(self._page(facts, calibration, figures), "utf-8", "backslashreplace")

    def accuracy(self, rank: int, label: int | None = None) -> Proportion:
        """Return how many images have their class among the ``rank`` most probable ones.

        Args:
            rank: 1 or more.
            label: Of these images alone; None takes all.
        """
        ranks = self._ranks if label is None else self._ranks[self._truth == label]
        return Proportion(int((ranks < rank).sum()), len(ranks))

    def classes(self) -> list[ClassResult]:
        """Return the result of each class, in label order."""
        others = self.confusion - np.diag(self.confusion.diagonal())
        results = []
        for label, row in enumerate(others):
            other = int(row.argmax())
            results.append(
                ClassResult(
                    class_id=self._dataset.classes.ids[label],
                    words=self._dataset.classes.names[label],
                    rank1=self.accuracy(1, label),
                    rank5=self.accuracy(RANK, label),
                    predicted_as=self._names[other] if row[other] else "",
                    predicted_times=int(row[other]),
                )
            )
        return results

    def confused_pairs(self) -> list[ConfusedPair]:
        """Return the pairs of classes most often confused, the worst first."""
        both = np.triu(self.confusion + self.confusion.T, k=1)
        worst = np.argsort(-both, axis=None, kind="stable")[:PAIRS]
        pairs = [np.unravel_index(index, both.shape) for index in worst if both.flat[index]]
        return [self._confused_pair(int(first), int(second)) for first, second in pairs]

    def confident_mistakes(self) -> list[Mistake]:
        """Return the mistakes that the model was surest of, the surest first."""
        return self._surest(self._predicted != self._truth, MISTAKES)

    def calibration(self) -> Calibration:
        """Compare how sure the model is with how often it is right."""
        sure = np.clip(self._confidence.astype(np.float64), 0, 1)
        right = self._ranks == 0
        accuracy, confidence = calibration_curve(right, sure, n_bins=BINS, pos_label=True)
        inner_edges = np.linspace(0, 1, BINS + 1)[1:-1]
        images = np.bincount(np.searchsorted(inner_edges, sure), minlength=BINS)
        return Calibration(confidence, accuracy, images)

    def related_order(self) -> np.ndarray:
        """Return the labels in an order that puts classes the model finds alike side by side.

        Classes are compared by the mean probabilities that their images are given, and clustered;
        the leaves are turned so that neighbours are as close as the tree allows.
        """
        count = len(self._dataset.classes)
        if count < 3:
            return np.arange(count)
        means = np.zeros((count, count))
        for label in np.unique(self._truth):
            means[label] = self._probabilities[self._truth == label].mean(axis=0)
        # Hellinger's distance, made for distributions
        return leaves_list(linkage(np.sqrt(means), "ward", optimal_ordering=True))

    def plot_confusion(self) -> Figure:
        """Draw the confusion matrix, related classes side by side."""
        order = self.related_order()
        counts = self.confusion[np.ix_(order, order)]
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        cell = float(np.clip(6 / len(order), 0.105, 0.6))
        side = cell * len(order) + 2.4
        figure = new_figure("Confusion matrix: true and predicted classes", side + 0.6, side)
        figure.set_layout_engine("compressed")  # the one for axes of a fixed aspect
        figure.suptitle(figure.get_suptitle(), x=0.01, ha="left")
        axes = figure.subplots()
        image = axes.imshow(shares, cmap=SHADES, norm=PowerNorm(0.5, 0, 1))
        names = [self._names[label] for label in order]
        font = min(10.0, cell * 72 * 0.75)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=font)
        axes.set_yticks(range(len(names)), names, fontsize=font)
        axes.set(xlabel="predicted class", ylabel="true class")
        if len(names) <= MOST_NUMBERED:
            for row, column in np.argwhere(counts):
                shade = "white" if shares[row, column] > 0.3 else "black"
                axes.text(column, row, counts[row, column], color=shade, ha="center", va="center",
                          fontsize=font * 0.85)  # fmt: skip
        bar = figure.colorbar(image, ax=axes, shrink=0.5, pad=0.01, aspect=30)
        bar.set_label("proportion of the true class's images")
        return figure

    def _confused_pair(self, first: int, second: int) -> ConfusedPair:
        totals = self.confusion.sum(axis=1)
        mistaken = [
            (self._truth == one) & (self._predicted == other)
            for one, other in ((first, second), (second, first))
        ]
        return ConfusedPair(
            first=self._names[first],
            second=self._names[second],
            first_as_second=Proportion(int(mistaken[0].sum()), int(totals[first])),
            second_as_first=Proportion(int(mistaken[1].sum()), int(totals[second])),
            examples=[mistake for rows in mistaken for mistake in self._surest(rows, EXAMPLES)],
        )

    def _surest(self, chosen: np.ndarray, count: int) -> list[Mistake]:
        """Return the ``count`` surest of the images that ``chosen``, bool (n,), marks."""
        rows = np.flatnonzero(chosen)
        rows = rows[np.argsort(-self._confidence[rows], kind="stable")][:count]
        return [
            Mistake(
                picture=_uri("jpeg", encode_jpeg(self._dataset.images[row])),
                image=int(row),
                truth=self._names[self._truth[row]],
                predicted=self._names[self._predicted[row]],
                confidence=float(self._confidence[row]),
                of_truth=float(self._probabilities[row, self._truth[row]]),
            )
            for row in rows
        ]

    def _weakest_first(self) -> list[ClassResult]:
        return sorted(self.classes(), key=lambda r: r.rank1.value if r.rank1.total else -1)

    def _class_rows(self) -> list[list[object]]:
        rows: list[list[object]] = [
            ["class_id", "words", "images", "rank1", "rank1_low", "rank1_high", "rank5",
             "most_predicted_as", "times"]
        ]  # fmt: skip
        for result in self.classes():
            low, high = result.rank1.interval
            numbers = (result.rank1.value, low, high, result.rank5.value)
            cells = [f"{number:.4f}" for number in numbers]
            if not result.rank1.total:
                cells = [""] * len(cells)
            rows.append([result.class_id, result.words, result.rank1.total, *cells,
                         result.predicted_as, result.predicted_times])  # fmt: skip
        return rows

    def _prediction_rows(self) -> list[list[object]]:
        classes = self._dataset.classes
        truth = [classes.ids[label] for label in self._truth]
        columns = {"image": range(len(truth)), "truth": truth}
        return prediction_table(columns, best_predictions(self._probabilities, classes))

    def _page(
        self, facts: Mapping[str, str], calibration: Calibration, figures: Mapping[str, str]
    ) -> str:
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return environment.get_template(TEMPLATE).render(
            facts=facts,
            split=self._dataset.split,
            images=len(self._truth),
            accuracies={"Rank-1": self.accuracy(1), f"Rank-{RANK}": self.accuracy(RANK)},
            classes=self._weakest_first(),
            pairs=self.confused_pairs(),
            mistakes=self.confident_mistakes(),
            calibration=calibration,
            bins=BINS,
            matrix_file=MATRIX,
            **figures,
        )


def plot_calibration(calibration: Calibration) -> Figure:
    """Draw how often the model is right over how sure it is, and how many images that is."""
    title = f"Calibration: expected error {calibration.error:.1%}"
    figure = new_figure(title, 6, 6.4)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = calibration.images[calibration.images > 0]
    drawn = filled >= FEWEST_IN_BIN
    confidence, accuracy = calibration.confidence[drawn], calibration.accuracy[drawn]
    shares = zip(accuracy, filled[drawn], strict=True)
    bounds = np.array([Proportion(round(a * n), int(n)).interval for a, n in shares])
    reach = np.abs(bounds.reshape(-1, 2).T - accuracy)
    curve.plot([0, 1], [0, 1], "--", color=GREY, label="perfect calibration")
    curve.errorbar(confidence, accuracy, yerr=reach, fmt="o-", color=BLUE, markersize=4,
                   linewidth=1.4, capsize=2, label="the model, with 95% intervals")  # fmt: skip
    curve.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    curve.legend(fontsize=8)
    counts.stairs(calibration.images, np.linspace(0, 1, BINS + 1), fill=True, color=BLUE)
    counts.set(xlabel="confidence: the predicted class's probability", ylabel="images")
    for axes in (curve, counts):
        add_grid(axes)
    for axis in (curve.yaxis, counts.xaxis):
        axis.set_major_formatter(lambda value, _: f"{value:.0%}")
    return figure


def _png_uri(path: Path) -> str:
    return _uri("png", path.read_bytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
