"""model_eval.py --report: its numbers against other makers', and its page in a browser."""

import csv
import errno
import json
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import CLASS_IDS, Run, checkpoint
from sklearn.metrics import accuracy_score, confusion_matrix

from pipeline.backend import import_keras

import_keras()

from pipeline.classes import Classes  # noqa: E402
from pipeline.errors import UserError  # noqa: E402
from pipeline.evaluation import REPORT_FILES  # noqa: E402
from pipeline.evaluation.report import (  # noqa: E402
    BINS,
    MISTAKES,
    Calibration,
    Proportion,
    Report,
    plot_calibration,
)
from pipeline.io.hdf5_dataset import HDF5Dataset  # noqa: E402

WORDS = ("fish, a", '<script>alert("x")</script> & cat', "toad, it's", "lemon", "never shown")
IMAGES = 400


def made_split() -> HDF5Dataset:
    """A split of noise; nothing shows the last class."""
    stream = np.random.default_rng(1)
    return HDF5Dataset(
        path=Path("made.hdf5"),
        split="val",
        images=stream.integers(256, size=(IMAGES, 16, 16, 3), dtype=np.uint8),
        labels=stream.integers(len(WORDS) - 1, size=IMAGES),
        classes=Classes(tuple(f"n{number:08d}" for number in range(len(WORDS))), WORDS),
        seed=1,
        fingerprint="",
        build_id="",
        means=(0.0, 0.0, 0.0),
        encoded_names=np.full(IMAGES, b""),
    )


def made_probabilities(labels: np.ndarray) -> np.ndarray:
    """Right more often than not; class 0 and class 2 are often mistaken for each other."""
    logits = np.random.default_rng(2).normal(size=(len(labels), len(WORDS)))
    logits[np.arange(len(labels)), labels] += 1.2
    logits[labels == 0, 2] += 1.5
    logits[labels == 2, 0] += 1.5
    shares = np.exp(logits)
    return np.float32(shares / shares.sum(axis=1, keepdims=True))


STRANGE = ("$\\frac", "=1+1, $", "\x1b[2J\n\0", "\u4e2d\u2028$$", "-a\r")


@pytest.fixture(scope="module")
def split() -> HDF5Dataset:
    return made_split()


@pytest.fixture(scope="module")
def probabilities(split: HDF5Dataset) -> np.ndarray:
    return made_probabilities(split.labels)


@pytest.fixture(scope="module")
def report(split: HDF5Dataset, probabilities: np.ndarray) -> Report:
    return Report(split, probabilities)


@pytest.mark.parametrize(("count", "total"), [(0, 30), (30, 30), (13, 30), (2480, 6000)])
def test_intervals_are_wilsons(count: int, total: int) -> None:
    """By the formula of Wilson 1927."""
    z, share = 1.959963984540054, count / total
    centre = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * np.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2) / (1 + z * z / total)
    assert Proportion(count, total).interval == pytest.approx((centre - reach, centre + reach))


def test_class_results_add_up(
    report: Report, split: HDF5Dataset, probabilities: np.ndarray
) -> None:
    predicted = probabilities.argmax(axis=1)
    matrix = confusion_matrix(split.labels, predicted, labels=range(len(WORDS)))
    for label in range(len(WORDS)):
        total = matrix[label].sum()
        assert report.accuracy(1, label) == Proportion(matrix[label, label], total)
        assert report.accuracy(5, label) == Proportion(total, total)
        of_label = np.argsort(-probabilities)[split.labels == label, :2]
        assert report.accuracy(2, label) == Proportion((of_label == label).sum(), total)
    assert report.accuracy(1).value == accuracy_score(split.labels, predicted)
    assert report.most_predicted_as(0) == ("toad", matrix[0, 2])
    assert report.most_predicted_as(len(WORDS) - 1) == ("", 0)
    assert report.weakest_classes()[0] == len(WORDS) - 1


def test_confused_pairs_come_with_their_images(
    report: Report, split: HDF5Dataset, probabilities: np.ndarray
) -> None:
    worst = report.confused_pairs()[0]
    assert worst == (0, 2)
    mistaken = (split.labels == 0) & (probabilities.argmax(axis=1) == 2)
    assert report.confusion[worst] == mistaken.sum() > 4
    surest = np.flatnonzero(mistaken)[np.argsort(-probabilities[mistaken, 2])]
    reverse = (split.labels == 2) & (probabilities.argmax(axis=1) == 0)
    surest_reverse = np.flatnonzero(reverse)[np.argsort(-probabilities[reverse, 0])]
    assert report.examples(*worst) == [*surest[:3], *surest_reverse[:3]]


def test_mistakes_are_the_surest(
    report: Report, split: HDF5Dataset, probabilities: np.ndarray
) -> None:
    confidence = probabilities.max(axis=1)
    wrong = probabilities.argmax(axis=1) != split.labels
    mistakes = report.confident_mistakes()
    assert wrong[mistakes].all()
    assert len(mistakes) == MISTAKES
    assert (np.diff(confidence[mistakes]) <= 0).all()
    assert confidence[mistakes].min() >= sorted(confidence[wrong])[-len(mistakes)]


def test_calibration_error_by_its_definition(
    report: Report, split: HDF5Dataset, probabilities: np.ndarray
) -> None:
    confidence = probabilities.max(axis=1).astype(float)
    right = probabilities.argmax(axis=1) == split.labels
    error = 0.0
    for number in range(BINS):
        inside = (number / BINS < confidence) & (confidence <= (number + 1) / BINS)
        error += abs(right[inside].sum() - confidence[inside].sum()) / IMAGES
    assert report.calibration().error == pytest.approx(error)
    assert report.calibration().images.sum() == IMAGES


def test_bins_of_few_images_are_no_points_of_the_curve() -> None:
    images = np.zeros(BINS, int)
    images[[1, 7, 9]] = 4, 5, 60
    calibration = Calibration(images, right=images // 2, confidence=images * 0.5)
    curve = plot_calibration(calibration).axes[0].containers[0].lines[0]
    assert list(curve.get_xdata()) == [0.5, 0.5]
    assert list(curve.get_ydata()) == [2 / 5, 30 / 60]


def test_related_classes_lie_side_by_side() -> None:
    """Two families of classes, interleaved, come out one after the other."""
    split = made_split()
    labels = np.arange(IMAGES) % 4
    shares = np.full((IMAGES, len(WORDS)), 0.01)
    for label in range(4):
        shares[np.ix_(labels == label, [label, (label + 2) % 4])] = 0.485
    order = Report(replace(split, labels=labels), np.float32(shares)).related_order().tolist()
    order.remove(4)
    assert set(order[:2]) in ({0, 2}, {1, 3})


def test_confusion_matrix_has_the_true_classes_as_rows(
    report: Report, split: HDF5Dataset, probabilities: np.ndarray
) -> None:
    axes = report.plot_confusion().axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("true class", "predicted class")
    row = [label.get_text() for label in axes.get_yticklabels()].index("fish")
    column = [label.get_text() for label in axes.get_xticklabels()].index("toad")
    fish = split.labels == 0
    share = (probabilities[fish].argmax(axis=1) == 2).mean()
    assert axes.images[0].get_array()[row, column] == pytest.approx(share)


@pytest.mark.filterwarnings("error:constrained_layout not applied")
@pytest.mark.parametrize("words", ["European fire salamander", 9 * "Tomato__Two-spotted_mite_"])
@pytest.mark.parametrize("count", [2, 4, 200])
def test_confusion_matrix_lies_within_its_figure(words: str, count: int) -> None:
    """The words for some classes are long, and the axes' own names lie below and beside them."""
    names = tuple(f"{number} {words}" for number in range(count))
    labels = np.arange(IMAGES) % min(count, len(WORDS))
    split = replace(made_split(), labels=labels, classes=Classes(names, names))
    figure = Report(split, np.float32(np.full((IMAGES, count), 1 / count))).plot_confusion()
    for _ in range(2):  # the layout is found by steps
        figure.draw_without_rendering()
    axes = figure.axes[0]
    texts = (*axes.get_xticklabels(), *axes.get_yticklabels(), figure.axes[1].yaxis.label)
    for label in (axes.xaxis.label, axes.yaxis.label, *texts):
        place = label.get_window_extent()
        assert place.x0 >= 0 <= place.y0
        assert place.x1 <= figure.bbox.x1
        assert place.y1 <= figure.bbox.y1


def test_confusion_matrix_of_many_classes_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory grows with the area."""
    names = tuple(f"n{number}" for number in range(400))
    split = replace(made_split(), classes=Classes(names, names))
    monkeypatch.setattr(Report, "related_order", lambda report: np.arange(400))
    report = Report(split, np.float32(np.full((IMAGES, 400), 1 / 400)))
    assert report.plot_confusion().get_figwidth() < 34


def test_page_escapes_words_and_loads_nothing(report: Report, tmp_path: Path) -> None:
    report.write(tmp_path, {"model": "<i>.keras"})
    page = (tmp_path / "report.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "&lt;i&gt;.keras" in page
    assert "http" not in page
    with (tmp_path / "per_class.csv").open(newline="") as file:
        assert [row["words"] for row in csv.DictReader(file)] == list(WORDS)


@pytest.fixture(scope="module")
def written(
    trained: Path, made_hdf5: Path, run: Run, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The report that the script writes on the train split of the made data."""
    folder = tmp_path_factory.mktemp("report")
    done = run("model_eval.py", "-m", checkpoint(trained, 1), "--hdf5", made_hdf5, "--split",
               "train", "--report", folder, "--json", folder / "scores.json")  # fmt: skip
    assert "report.html in a browser" in done.stdout
    return folder


def test_tables_agree_with_the_scores(written: Path) -> None:
    assert set(REPORT_FILES) < {path.name for path in written.iterdir()}
    scores = json.loads((written / "scores.json").read_text())
    with (written / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["image"]) for row in rows] == list(range(scores["images"]))
    assert all(row["file"].startswith(row["truth"]) for row in rows)
    right = [row["class_1"] == row["truth"] for row in rows]
    assert np.mean(right) == pytest.approx(scores["rank1"])
    assert all(sum(float(row[f"probability_{n}"]) for n in range(1, 5)) > 0.9999 for row in rows)
    with (written / "per_class.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    assert [row["class_id"] for row in classes] == list(CLASS_IDS)
    assert np.mean([float(row["rank1"]) for row in classes]) == pytest.approx(
        scores["rank1"], abs=1e-4
    )
    for name in ("confusion_matrix.png", "calibration.png"):
        height, width, _ = cv2.imread(str(written / name)).shape
        assert height > 400 < width


def test_page_shows_its_pictures(report: Report, browser: object, tmp_path: Path) -> None:
    """Mistakes, each pair's examples and two figures; of a model whose mistakes are made up."""
    report.write(tmp_path, {"model": "made"})
    browser.get((tmp_path / "report.html").as_uri())
    pictures = browser.execute_script(
        "return [...document.images].map(image => image.complete && image.naturalWidth)"
    )
    examples = sum(len(report.examples(*pair)) for pair in report.confused_pairs())
    assert len(pictures) == 2 + len(report.confident_mistakes()) + examples
    assert examples > 0 and all(pictures)


def test_page_in_a_browser(browser: object, tmp_path: Path) -> None:
    """It sorts by a click either way, filters, and has nothing to complain of."""
    stream = np.random.default_rng(0)
    labels = stream.integers(10, size=IMAGES)
    chances = stream.dirichlet(np.ones(10), size=IMAGES)
    chances[np.arange(IMAGES), labels] *= 1 + labels  # the higher its label, the better known
    ids = [f"n{number:08d}" for number in stream.permutation(10)]
    names = [f"fish {number}" for number in range(9)] + ["European fire salamander, Salamandra"]
    split = replace(made_split(), labels=labels, classes=Classes(tuple(ids), tuple(names)))
    probabilities = np.float32(chances / chances.sum(axis=1, keepdims=True))
    Report(split, probabilities).write(tmp_path, {"model": "made"})
    browser.get((tmp_path / "report.html").as_uri())

    def column(number: int) -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('#class-table tbody tr')]"
            f".map(row => row.cells[{number}].textContent)"
        )

    def shares(number: int) -> list[float]:
        return [float(text.removesuffix("%")) for text in column(number)]

    assert shares(1) == sorted(shares(1))
    assert len(set(shares(1))) > 5 < len(set(shares(3)))
    heads = browser.find_elements("css selector", "#class-table th")
    for number in (1, 3):
        heads[number].find_element("css selector", "button").click()
        assert shares(number) == sorted(shares(number), reverse=True)
        assert heads[number].get_attribute("aria-sort") == "descending"
    for _ in range(2):
        heads[7].find_element("css selector", "button").click()
        shown = column(7)
    assert shown == sorted(ids, reverse=True)
    assert {heading.get_attribute("aria-sort") for heading in heads} == {None, "descending"}
    assert column(4) == [str((labels == ids.index(class_id)).sum()) for class_id in shown]
    browser.find_element("id", "filter").send_keys("  SALAmander")
    rows = browser.find_elements("css selector", "#class-table tbody tr")
    assert [row.text.partition(",")[0][:23] for row in rows if row.is_displayed()] == [
        "European fire salamande"
    ]
    assert browser.get_log("browser") == []


def test_page_of_200_classes_is_short_and_its_table_keeps_its_head(
    browser: object, tmp_path: Path
) -> None:
    names = tuple(f"European fire salamander, of kind {number}" for number in range(200))
    stream = np.random.default_rng(0)
    shares = np.float32(stream.dirichlet(np.full(200, 0.05), size=IMAGES))
    split = replace(made_split(), classes=Classes(tuple(map(str, range(200))), names))
    Report(split, shares).write(tmp_path, {"model": "made"})
    browser.set_window_size(1300, 900)
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.execute_script("return document.documentElement.scrollHeight") < 8000
    head, box = browser.execute_script(
        "const box = document.querySelector('.box'); box.scrollTop = 2000;"
        "return [document.querySelector('th'), box].map(e => e.getBoundingClientRect().top)"
    )
    assert 0 <= head - box <= 2


@pytest.mark.parametrize("width", [400, 1400])
def test_page_never_scrolls_sideways(width: int, written: Path, browser: object) -> None:
    """Only the table may, in a box of its own."""
    browser.set_window_size(width, 900)
    browser.get((written / "report.html").as_uri())
    page, window = browser.execute_script(
        "return [document.documentElement.scrollWidth, window.innerWidth]"
    )
    assert page <= window


def test_report_replaces_all_files_or_none(
    split: HDF5Dataset, probabilities: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "predictions.csv").mkdir()
    with pytest.raises(UserError, match=r"predictions\.csv: it is not a regular file"):
        Report(split, probabilities).write(tmp_path, {"model": "some.keras"})
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]


def test_report_on_a_full_disk(
    split: HDF5Dataset,
    probabilities: np.ndarray,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", refuse)
    with pytest.raises(UserError, match=f"cannot write {tmp_path}: No space left on device; free"):
        Report(split, probabilities).write(tmp_path, {"model": "some.keras"})
    assert not list(tmp_path.iterdir())


def test_strange_words(split: HDF5Dataset, probabilities: np.ndarray, tmp_path: Path) -> None:
    """No formula in figures or cells, nothing on the terminal, and no surrogate in a name."""
    strange = replace(split, classes=Classes(split.classes.ids, STRANGE))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Report(strange, probabilities).write(tmp_path, {"model": "\udcff.keras"})
    with (tmp_path / "per_class.csv").open(newline="", encoding="utf-8") as file:
        words = [row["words"] for row in csv.DictReader(file)]
    assert words == ["$\\frac", "'=1+1, $", "\x1b[2J\n\0", "\u4e2d\u2028$$", r"'-a\r"]
    with pytest.raises(ValueError, match="surrogates"):
        Classes(("n1",), ("\ud800",))
