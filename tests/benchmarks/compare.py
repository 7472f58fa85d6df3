"""This project beside what people use today: one table of ratios, measured in turns in one run.

    pip install torch==2.13.0
    python tests/benchmarks/compare.py -d tiny-imagenet-200

Wants the unpacked data set, which is built whole, and of which 20 classes serve for all else; and
a quiet machine with Linux and 20 GB of room for temporary files. PyTorch serves as a peer alone,
and without it its rows are left out.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path[:0] = [str(ROOT), str(HERE)]

import ours  # noqa: E402
from contest import Contestant, contest, describe_machine, median_rate, ratio  # noqa: E402
from peers import reference_way  # noqa: E402
from subset import some_classes, train_images  # noqa: E402

from config import setup_config as config  # noqa: E402

CLASSES = 20
HAS_TORCH = importlib.util.find_spec("torch") is not None


@dataclass(frozen=True)
class Inputs:
    """What the contests work on."""

    data_set: Path
    """The whole, unpacked."""
    scratch: Path
    hdf5: Path
    """Built of 20 classes."""
    images: Sequence[tuple[str, int]]
    """The files and labels of their train images."""
    rounds: int


Rows = Iterator[tuple[str, str, str]]
"""What is compared, the ratio, and both rates in images a second."""


def compare_builds(inputs: Inputs) -> Rows:
    """Build from the folder, from the zip, the published way; and decode alone."""
    scratch, images = inputs.scratch, train_images(inputs.data_set)
    archive = _packed(inputs)
    rates = contest(
        [
            Contestant("folder", "ours:building", (inputs.data_set, scratch / "folder")),
            Contestant("zip", "ours:building", (archive, scratch / "from-zip")),
            Contestant(
                "original", "peers.reference_way:building", (images, scratch / "o.hdf5", 200)
            ),
            Contestant("decoding", "ours:decoding", (images,)),
        ],
        inputs.rounds,
    )
    yield _row(rates, "build from the folder, to the reference", "folder", "original")
    yield _row(rates, "build from the zip, to the folder", "zip", "folder")
    yield _row(rates, "build from the folder, to decoding alone", "folder", "decoding")


def compare_unpacking(inputs: Inputs) -> Rows:
    """Build from the zip as it is, and after unpacking it."""
    scratch, archive = inputs.scratch, _packed(inputs)
    rates = contest(
        [
            Contestant("zip", "ours:building", (archive, scratch / "from-zip")),
            Contestant("unpacked", "ours:unpacking_and_building", (archive, scratch)),
        ],
        inputs.rounds,
    )
    yield _row(rates, "build from the zip, to unpacking it first", "zip", "unpacked")


def compare_threads(inputs: Inputs) -> Rows:
    """Decode as a build does, by one thread and by more."""
    counts = (2, 4, 8)
    rates = contest(
        [
            Contestant(f"{count}", "ours:decoding_for_a_build", (inputs.data_set, count))
            for count in (1, *counts)
        ],
        inputs.rounds,
    )
    for count in counts:
        yield _row(rates, f"decoding for a build by {count} threads, to one", f"{count}", "1")


def compare_sizes(inputs: Inputs) -> Rows:
    """Compare bytes an image in HDF5."""
    path = inputs.scratch / "original.hdf5"
    ours_bytes = (inputs.hdf5 / "train.hdf5").stat().st_size / (
        len(inputs.images) - config.TEST_IMAGES_PER_CLASS * CLASSES
    )
    theirs = path.stat().st_size / len(inputs.images)
    yield (
        "HDF5, bytes an image",
        f"1/{theirs / ours_bytes:.2f}",
        f"{ours_bytes:,.0f} and {theirs:,.0f}",
    )


def compare_batches(inputs: Inputs) -> Rows:
    """Make training batches with the original augmentation."""
    original = inputs.scratch / "original.hdf5"
    contestants = [
        Contestant("ours", "ours:batching", (inputs.hdf5, 2000, "published")),
        Contestant("one core", "ours:batching", (inputs.hdf5, 1000, "published", 1)),
        Contestant("best", "ours:batching", (inputs.hdf5, 1000, "best")),
        Contestant("original", "peers.reference_way:batching", (original, 20, True)),
        Contestant("tf.data", "peers.tf_data_way:loading", (inputs.images,)),
    ]
    if HAS_TORCH:
        contestants.append(Contestant("PyTorch", "peers.torch_way:loading", (inputs.images,)))
    rates = contest(contestants, inputs.rounds)
    yield _row(rates, "augmented batches, to the published way", "ours", "original")
    if HAS_TORCH:
        yield _row(rates, "augmented batches, to PyTorch's DataLoader", "ours", "PyTorch")
    yield _row(rates, "augmented batches, to tf.data", "ours", "tf.data")
    yield _row(rates, "augmented batches, all cores to one", "ours", "one core")
    yield _row(rates, "batches augmented as best, to those of published", "best", "ours")


def compare_reading(inputs: Inputs) -> Rows:
    """Read batches as they are, ours shuffled."""
    original = inputs.scratch / "original.hdf5"
    rates = contest(
        [
            Contestant("ours", "ours:batching", (inputs.hdf5, 4000, "")),
            Contestant("original", "peers.reference_way:batching", (original, 60, False)),
        ],
        inputs.rounds,
    )
    yield _row(rates, "plain batches, to the published way", "ours", "original")


def compare_training(inputs: Inputs) -> Rows:
    """Train, with data from the loader and with a batch that lies ready."""
    shape = (config.IMAGE_SIZE, 64, 30)
    contestants = [
        Contestant("ours", "ours:training", (inputs.hdf5, *shape)),
        Contestant("ready", "ours:training_on_ready_batch", (inputs.hdf5, *shape)),
        Contestant("unfused", "ours:training_without_fused_norm", (inputs.hdf5, *shape)),
    ]
    if HAS_TORCH:
        contestants.append(Contestant("PyTorch", "peers.torch_way:training", (CLASSES, *shape)))
    rates = contest(contestants, inputs.rounds)
    if HAS_TORCH:
        yield _row(rates, "training, to PyTorch's step", "ours", "PyTorch")
    yield _row(rates, "training, to training on a batch that lies ready", "ours", "ready")
    yield _row(rates, "training, to training by Keras's own batch norm", "ours", "unfused")


def compare_evaluation(inputs: Inputs) -> Rows:
    """Predict, by the fine stem at 48 pixels and by the paper's at the stored size."""
    shapes = {"fine": ("fine", 48, 100, 30), "paper": ("paper", config.IMAGE_SIZE, 100, 30)}
    contestants = [Contestant(stem, "ours:predicting", shape) for stem, shape in shapes.items()]
    if HAS_TORCH:
        contestants += [
            Contestant(f"PyTorch, {stem}", "peers.torch_way:predicting", shape)
            for stem, shape in shapes.items()
        ]
    rates = contest(contestants, inputs.rounds)
    for stem, (_, size, *_) in shapes.items() if HAS_TORCH else ():
        what = f"evaluation, {stem} stem at {size} pixels, to PyTorch's forward pass"
        yield _row(rates, what, stem, f"PyTorch, {stem}")
    yield _row(rates, "evaluation, fine stem at 48 pixels, to the paper's at 64", "fine", "paper")


CONTESTS = {
    "build": compare_builds,
    "unpacking": compare_unpacking,
    "threads": compare_threads,
    "size": compare_sizes,
    "batches": compare_batches,
    "reading": compare_reading,
    "training": compare_training,
    "evaluation": compare_evaluation,
}


def main() -> None:
    """Run the contests that the command line names, and print a row for each comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--dataset", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CONTESTS, nargs="+", default=list(CONTESTS))
    args = parser.parse_args()
    print(describe_machine(), flush=True)
    print("| | ratio: median (range) | images a second |\n| --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as name:
        inputs = prepare(args.dataset, Path(name), args.rounds)
        for chosen in args.only:
            for row in CONTESTS[chosen](inputs):
                print(f"| {' | '.join(row)} |", flush=True)


def prepare(data_set: Path, scratch: Path, rounds: int) -> Inputs:
    """Write the data in every form that a contestant reads."""
    folder, hdf5 = scratch / "tiny", scratch / "hdf5"
    some_classes(data_set, folder, CLASSES)
    ours.building(folder, hdf5)()
    images = train_images(folder)
    reference_way.build(images, scratch / "original.hdf5", CLASSES)
    return Inputs(data_set, scratch, hdf5, images, rounds)


def _packed(inputs: Inputs) -> Path:
    """Return a zip of the data set, deflated as the official one is."""
    archive = inputs.scratch / "tiny.zip"
    if not archive.exists():
        with ZipFile(archive, "w", ZIP_DEFLATED) as file:
            for path in sorted(inputs.data_set.rglob("*")):
                if path.suffix in (".txt", ".JPEG"):
                    file.write(path, path.relative_to(inputs.data_set))
    return archive


def _row(rates: dict[str, list[float]], what: str, name: str, peer: str) -> tuple[str, str, str]:
    both = f"{median_rate(rates, name)} and {median_rate(rates, peer)}"
    return what, ratio(rates, name, peer), both


if __name__ == "__main__":
    main()
