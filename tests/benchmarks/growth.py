"""How the time of a build and of an epoch grows with the images: a table and a figure.

    python tests/benchmarks/growth.py -d tiny-imagenet-200 -o outs/growth.png

Takes more and more classes of the unpacked data set. The network of the epoch is a thin one at 32
pixels, so that what lies around the network shows; the second epoch is timed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent), str(HERE)]

from conftest import ROOT, train_command  # noqa: E402
from contest import describe_machine  # noqa: E402
from subset import some_classes  # noqa: E402

CLASSES = (2, 6, 20, 60, 200)


def main() -> None:
    """Measure and draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-d", "--dataset", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    args = parser.parse_args()
    print(describe_machine())
    print("| train images | build, s | us an image | epoch, s | us an image |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    rows = [measure(args.dataset, classes) for classes in CLASSES]
    draw(np.array(rows), args.output)


def measure(data_set: Path, classes: int) -> tuple[int, int, float, float]:
    """Return the images built and trained on, and the seconds of a build and of an epoch."""
    with tempfile.TemporaryDirectory() as name:
        folder, hdf5, run = (Path(name) / part for part in ("tiny", "hdf5", "run"))
        some_classes(data_set, folder, classes)
        build = [sys.executable, "build_dataset.py", "-d", str(folder), "-o", str(hdf5)]
        subprocess.run([*build, "--seed", "1"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        started = time.perf_counter()
        subprocess.run([*build, "--overwrite"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - started
        train = train_command("-r", "thin", "-n", 2, "-b", 64, "--hdf5", hdf5, "-o", run)
        subprocess.run(train, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        trained, *others = (count_images(hdf5 / f"{s}.hdf5") for s in ("train", "val", "test"))
        events = [json.loads(line) for line in (run / "run.jsonl").read_text().splitlines()]
    first, second = [event["time"] for event in events if event["event"] == "epoch"]
    built = trained + sum(others)
    epoch = second - first
    print(
        f"| {trained:,} | {seconds:.2f} | {seconds / built * 1e6:.0f} "
        f"| {epoch:.1f} | {epoch / trained * 1e6:.0f} |",
        flush=True,
    )
    return built, trained, seconds, epoch


def count_images(path: Path) -> int:
    """Return the images of a split."""
    with h5py.File(path) as file:
        return len(file["Labels"])


def draw(rows: np.ndarray, path: Path) -> None:
    """Draw both times over the images, on logarithmic axes, with straight growth beside them."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    built, trained, build, epoch = rows.T
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.loglog(trained, epoch, "o-", color="#0072B2", label="an epoch of a thin network")
    axes.loglog(built, build, "s-", color="#D55E00", label="a build, with the start of Python")
    for count, seconds in ((trained, epoch), (built, build)):
        axes.loglog(count, seconds[-1] * count / count[-1], ":", color="0.5")
    axes.plot([], [], ":", color="0.5", label="in proportion to the images")
    axes.set(xlabel="images", ylabel="seconds", title="Time grows in proportion to the images")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
